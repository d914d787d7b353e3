"""Simulate a cluster larger than this machine: the real protocol on a modelled NFS server, in virtual time.

Prints Markdown tables, those of docs/scale.md. The same arguments give the same numbers.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, fields, replace
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[0] = str(REPOSITORY)  # run as a script: this directory is the package benchmarks

try:
    from benchmarks.simulation import groups, growth, load, sweeps
    from benchmarks.simulation.operations import SITUATIONS, model_of, on_real, play
    from benchmarks.simulation.server import Model
except ModuleNotFoundError as missing:
    sys.exit(f"simulate.py: there is no {missing.name}; what to do next: pip install 'tmp-redirect[test]'")

LATENCIES = (0.0005, 0.002, 0.010)
SERVERS = {
    "fast: 0.2 ms, 0.5 ms a change; 150,000 and 80,000 a second": Model(0.0002, 0.0005, 150_000, 80_000),
    "slow: 1 ms, 5 ms a change; 35,000 and 7,000 a second": Model(0.001, 0.005, 35_000, 7_000),
}
FACTORS = (0.5, 1, 1.5, 2, 2.5)
KEEPS = ("none", "failed", "all")
SWEEPERS = (1, 4, 16)
SIZES = (0, 10, 100, 1_000, 10_000, 100_000)
Row = Sequence[object]


def main() -> int:
    """Simulate what the command line asks for and print it."""
    parser = argparse.ArgumentParser(prog="simulate.py", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--seed", type=int, default=0, help="of what is random; default: 0")
    parser.add_argument("--full", action="store_true", help="the largest sizes too, which takes an hour")
    for field in fields(Model):
        name, kind = f"--{field.name.replace('_', '-')}", type(field.default)
        parser.add_argument(name, type=kind, default=field.default, metavar="N", help=f"default: {field.default}")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    model = Model(**{field.name: getattr(options, field.name) for field in fields(Model)})
    if min(model.operations, model.changes, model.readdir) <= 0:
        parser.error("--operations, --changes and --readdir must be more than 0")
    if min(astuple(model)) < 0 or model.spread > 1:
        parser.error("times must not be negative, and --spread not more than 1")
    if os.environ.get("PYTHONHASHSEED") != "0":  # a sweep's order begins with that of a set
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})  # noqa: S606
    gc.disable()  # it would go through all greenlets again and again
    for part in options.parts or PARTS:
        begin = time.process_time()
        PARTS[part](model, options.seed, options.full)
        gc.collect()
        print(f"simulate: {part} took {time.process_time() - begin:.0f} s", file=sys.stderr)
    return 0


def _operations(model: Model, seed: int, full: bool) -> None:
    """Each step of each situation, by what it takes at which latency."""
    steady = replace(model, spread=0.0)
    rows = []
    for situation in SITUATIONS:
        with on_real(situation.keep) as real:
            play(situation, real)
        asked = model_of(situation, steady)
        slower = [model_of(situation, replace(steady, round_trip=each, commit=each)) for each in LATENCIES]
        for step in situation.shown:
            found = asked[step]
            times = [_ms(each[step].seconds) for each in (asked, *slower)]
            calls = len(real.calls[step]), found.calls.total(), found.changes
            rows.append((situation.name, situation.keep, step, *calls, *times))
    heads = [f"|{1000 * each:g} ms each" for each in LATENCIES]
    _table(f"situation|KEEP|step|calls|operations|of them changes|default, ms{''.join(heads)}", rows)


def _load(model: Model, seed: int, full: bool) -> None:
    """Several times the load, then the other settings, then other servers."""
    once = load.Load()
    cases = [(f"{factor} x", replace(once, workflows=once.workflows * factor), model) for factor in FACTORS]
    cases += [
        (f"1 x, KEEP={keep}, 2 % fail", replace(once, keep=keep, failing=0.02 / once.tasks), model) for keep in KEEPS
    ]
    cases += [(f"1 x, {name}", once, server) for name, server in SERVERS.items()]
    cases.append(("1 x, changes of a directory one by one", once, replace(model, one_by_one=1)))
    rows = []
    for name, case, server in cases:
        found = load.simulate(case, server, seed)
        added = sorted(run.added for run in found.runs)
        before = sorted(run.before for run in found.runs)
        share = max(found.operations / server.operations, found.changes / server.changes)
        rates = (case.workflows * case.tasks, found.done, found.operations, found.changes)
        times = (_at(before, 0.5), _at(added, 0.5), _at(added, 0.99))
        rows.append((name, *map(_number, rates), f"{share:.0%}", *map(_ms, times), found.errors))
    _table(
        "load|tasks/s|done/s|operations/s|changes/s|of what the server can do|before a task, median, ms"
        "|added, median, ms|added, 99 %, ms|errors",
        rows,
    )


def _groups(model: Model, seed: int, full: bool) -> None:
    """Tasks of one workflow, each with a process, and then a tenth as many processes as tasks."""
    rows = []
    for size in (10, 100, 1_000, 2_000, *([10_000] if full else [])):
        at_once, fewer = groups.Group(size, size, end=2), groups.Group(size, max(2, size // 10), seconds=0.1)
        for name, group, server in (
            ("all at once", at_once, model),
            ("all at once, changes one by one", at_once, replace(model, one_by_one=1)),
            ("a tenth at once, 0.1 s each", fewer, model),
        ):
            found = groups.simulate(group, server, seed)
            before, after = sorted(run.before for run in found.runs), sorted(run.after for run in found.runs)
            times = (_at(before, 0.5), before[-1], _at(after, 0.5), after[-1])
            by_task = (sum(found.operations.values()) / size, found.operations["READDIR"] / size)
            ends = (found.late, len(found.errors), len(found.left))
            rows.append(
                (_number(size), name, f"{found.published:.1f}", *map(_ms, times), *map(_number, by_task), *ends)
            )
    _table(
        "tasks|they run|published in, s|before a task, median, ms|longest, ms|after it, median, ms|longest, ms"
        "|operations by task|of them READDIR|waited 10 s|errors|paths left",
        rows,
    )


def _sweeps(model: Model, seed: int, full: bool) -> None:
    """By what is found, by how much of it, by how many sweepers."""
    kinds = (("all young", True, 0), ("all due, empty", False, 0), ("all due, 3 files in each", False, 3))
    rows = []
    took: dict[str, float] = {}
    for size, sweepers in (
        (1_000, 1),
        (10_000, 1),
        *([(100_000, 1)] if full else []),
        (1_000, 2),
        (1_000, 4),
        (1_000, 8),
    ):
        for name, young, files in kinds:
            stock = sweeps.Stock(size if young else 0, 0 if young else size, files=files)
            found = sweeps.simulate(stock, replace(model, spread=0.0), sweepers, seed)
            seconds = max(found.seconds)
            deferred = sum(len(each.deferred) for each in found.sweeps)
            by_workspace = (1000 * seconds / size, found.operations / size, found.changes / size)
            counts = (_number(size), sweepers, _number(seconds))
            took.setdefault(name, seconds / size)
            rows.append((name, *counts, *(f"{each:.1f}" for each in by_workspace), _number(found.left), deferred))
    _table("workspaces|how many|sweepers|s|ms by workspace|operations by workspace|of them changes|left|deferred", rows)
    _rounds(took["all young"], took["all due, 3 files in each"])


def _rounds(looking: float, removing: float) -> None:
    """How long sweepers take that begin again at once, by the seconds that they take for a workspace.

    In a round each looks at all that there are, and all share the removal of what has become due since the last.
    """
    rows = []
    daily = load.Load.workflows * load.DAY
    for keep, share in (("failed, 2 % fail", 0.02), ("all", 1.0)):
        for ttl in (24, 6, 1):
            kept, hourly = daily * share * ttl / 24, daily * share / 24
            whole, due = kept * looking / 3600, hourly * removing / 3600
            rounds = [f"{whole / (1 - due / each):.1f}" if due < each else "never ends" for each in SWEEPERS]
            rows.append((keep, f"{ttl}h", _number(kept), _number(hourly), f"{due:.1f}", *rounds))
    heads = "|".join(f"{each} sweeper{'s' * (each > 1)}: a round, h" for each in SWEEPERS)
    _table(f"10 million a day, KEEP|TTL|workspaces|due in an hour|to remove them, h|{heads}", rows)


def _growth(model: Model, seed: int, full: bool) -> None:
    """A task beside ever more workspaces, and in a workflow with ever more tasks."""
    rows: list[Row] = []
    for name, measure in (("workspaces", growth.among_workspaces), ("leases of its workflow", growth.among_leases)):
        found = [measure(size, replace(model, spread=0.0)) for size in SIZES]
        rows.append((f"operations, by {name}", *(_number(each.calls.total()) for each in found)))
        rows.append((f"ms, by {name}", *(_ms(each.seconds) for each in found)))
    _table("|".join(("a task", *map(_number, SIZES))), rows)


def _table(heads: str, rows: Sequence[Row]) -> None:
    cells = heads.split("|")
    print(f"| {' | '.join(cells)} |")
    print(f"|{'---|' * len(cells)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")
    print(flush=True)


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:,.1f}" if seconds < 0.1 else f"{1000 * seconds:,.0f}"


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


PARTS: dict[str, Callable[[Model, int, bool], None]] = {
    "operations": _operations, "load": _load, "groups": _groups, "sweeps": _sweeps, "growth": _growth,
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
