"""Measure what the shim costs: each figure against the same without the shim, side by side in one run.

Timings are not tests: the exit status is 0 whenever it has measured.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[0] = str(REPOSITORY)  # run as a script: this directory is the package benchmarks, beside examples

from benchmarks import (  # noqa: E402 - found from here on only
    batches,
    calls,
    celery_tasks,
    growth,
    interpreters,
    isolation,
    memory,
    peer_tasks,
    peers,
    report,
    starts,
    sweeps,
    table,
    venvs,
)
from benchmarks.figures import Row  # noqa: E402
from benchmarks.isolation import Landed  # noqa: E402
from benchmarks.results import Results  # noqa: E402
from benchmarks.sides import PlaceError, Sides, sides  # noqa: E402

EACH = ("starts", "calls", "peers", "celery")  # on each interpreter
ONE = ("tasks", "isolation", "memory", "threads", "workspaces", "sweeps")  # on the one that runs this, or the first


def main() -> int:
    """Measure what the command line asks for and print it."""
    parser = _parser()
    options = parser.parse_args()
    pythons = interpreters.everywhere() if options.all else options.python or [interpreters.this()]
    parts = options.parts or [*EACH, *ONE]
    unknown = set(parts) - {*EACH, *ONE}
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if options.write and (options.parts or options.quick):
        parser.error("--write takes a whole run: leave out parts and --quick")
    for option, needed in ((options.write, "matplotlib"), (options.pyperf, "pyperf")):
        if option and importlib.util.find_spec(needed) is None:
            parser.error(f"there is no {needed}: pip install 'tmp-redirect[test]'")
    versions = {}
    for python in pythons:
        version, real = interpreters.identify(python)
        if real is None:
            parser.error(f"{python} is no Python: {version}")
        versions[real] = version
    begin = time.time()
    try:
        with sides(options.shim, options.root) as place:
            found = list(_measure(versions, place, parts, options))
    except PlaceError as error:
        parser.error(str(error))
    rows, landed = [one for one in found if isinstance(one, Row)], [one for one in found if isinstance(one, Landed)]
    results = Results(_machine(versions, options.root), time.strftime("%Y-%m-%d", time.gmtime(begin)), rows, landed)
    if options.write:
        report.write(results)
    if options.json:
        print(results.as_json())
    else:
        table.show(results)
    _tell(f"took {(time.time() - begin) / 60:.1f} minutes")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench.py", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join([*EACH, *ONE])}; default: all")
    parser.add_argument("--python", action="append", type=Path, help="an interpreter to measure; may be repeated")
    parser.add_argument("--all", action="store_true", help="every interpreter of pyenv and PATH, 3.10 to 3.13")
    parser.add_argument("--quick", action="store_true", help="few samples: only to see that it runs")
    parser.add_argument("--json", action="store_true", help="times in seconds, for programs")
    parser.add_argument(
        "--write", action="store_true", help="write docs/benchmarks.json, and from it tables and pictures"
    )
    parser.add_argument("--pyperf", type=Path, metavar="DIR", help="put the samples of calls there as files of pyperf")
    parser.add_argument("--root", type=Path, default=REPOSITORY.parent, help="where to put a directory for the run")
    parser.add_argument("--shim", type=Path, default=REPOSITORY, help="another checkout, to measure that one's shim")
    return parser


def _machine(versions: Mapping[Path, str], root: Path) -> dict[str, object]:
    names = (line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line)
    return {
        "processors": len(os.sched_getaffinity(0)),
        "processor": next(names, platform.machine()),
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "file system": subprocess.run(
            ["stat", "--file-system", "--format=%T", root], capture_output=True, text=True, check=True
        ).stdout.strip(),
        "interpreters": list(versions.values()),
        "this": platform.python_version(),
        "packages": sorted(
            {*venvs.CELERY, *(package for peer in peers.PEERS.values() for package in peer.requirements)}
        ),
    }


def _measure(
    versions: Mapping[Path, str], place: Sides, parts: Sequence[str], options: argparse.Namespace
) -> Iterator[Row | Landed]:
    quick = options.quick
    one = interpreters.this() if interpreters.this() in versions else next(iter(versions))
    for python, version in versions.items():
        if "starts" in parts:
            _tell(f"starts of {version}")
            yield from starts.measure(python, version, place, rounds=20 if quick else 300)
        if "calls" in parts:
            _tell(f"calls in {version}")
            groups, rounds = (3, 4) if quick else (30, 10)
            yield from calls.measure(python, version, place, groups, rounds, options.pyperf)
        inside = [part for part in ("celery", *ONE) if part in parts and (part == "celery" or python == one)]
        is_here = python == interpreters.this() and not batches.missing()
        if "peers" in parts or (inside and not is_here):
            _tell(f"a virtual environment of {version}")
            venv = venvs.Venv(python, place.directory / f"venv-{version}")
        if "peers" in parts:
            _tell(f"starts of peers in {version}")
            yield from peers.measure(version, place, venv, rounds=3 if quick else 10)
        if is_here:
            yield from _inside(version, place, inside, quick=quick)
        elif inside:
            yield from _in_venv(version, venv, inside, options)


def _inside(version: str, place: Sides, parts: Sequence[str], *, quick: bool) -> Iterator[Row | Landed]:
    """What is measured by the interpreter that is measured, since it needs Celery, or the shim's own commands."""
    tasks = 50 if quick else 200
    measures: dict[str, Callable[[], Iterable[Row | Landed]]] = {
        "celery": lambda: celery_tasks.measure(version, place, rounds=3 if quick else 12, tasks=tasks),
        "tasks": lambda: peer_tasks.measure(version, place, rounds=3 if quick else 12, tasks=tasks),
        "isolation": lambda: isolation.measure(version, place),
        "memory": lambda: memory.measure(version, place, 3_000 if quick else memory.MOST),
        "threads": lambda: growth.threads(interpreters.this(), version, place, rounds=3 if quick else 30),
        "workspaces": lambda: growth.workspaces(version, place, 3 if quick else 6, tasks, 1_000 if quick else 100_000),
        "sweeps": lambda: sweeps.measure(version, place, quick=quick),
    }
    for part in parts:
        _tell(f"{part} in {version}")
        if part == "sweeps" and (lacking := sweeps.missing(place.directory / "shim")):
            _tell(f"no rows of sweeps: there is no {', '.join(lacking)}; install them, or measure another checkout")
        else:
            yield from measures[part]()


def _in_venv(
    version: str, venv: venvs.Venv, parts: Sequence[str], options: argparse.Namespace
) -> Iterator[Row | Landed]:
    """What `_inside` gives, by this program in a virtual environment that has Celery."""
    if reason := venv.install(*venvs.CELERY):
        _tell(f"no rows of {', '.join(parts)} in {version}: {reason}")
        return
    more = ["--quick"] if options.quick else []
    command = [venv.python, __file__, *parts, "--json", "--root", options.root, "--shim", options.shim, *more]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = Results.from_json(done.stdout)
    yield from found.rows
    yield from found.landed


def _tell(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # cleans up
    sys.exit(main())
