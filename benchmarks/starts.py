"""Interpreter starts: launches with and without the shim take turns, so that both see the same machine."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.cpus import one_cpu
from benchmarks.figures import Row, Target, compare
from benchmarks.sides import Sides

STAY = 10  # rounds on one processor
IS_ACTIVE = "import sys; sys.exit('services.common.tmp_redirect' not in sys.modules)"
START = Target(ratio=1.10, added=0.0015)
IMPORT = Target(ratio=1.10)


def measure(python: Path, version: str, sides: Sides, rounds: int) -> list[Row]:
    """The rows of interpreter starts; the control compares two identical series, and shows what is noise."""
    for env, status in ((sides.absent, 1), (sides.off, 1), (sides.on, 0), (sides.in_workflow, 0)):
        launch(python, IS_ACTIVE, env, status)
    everything = {
        "absent": sides.absent,
        "on": sides.on,
        "in workflow": sides.in_workflow,
        "off": sides.off,
        "control": sides.absent,
    }
    bare = in_turns(python, "pass", everything, rounds)
    some = {name: everything[name] for name in ("absent", "on", "in workflow")}
    imports = in_turns(python, "import tempfile", some, rounds)

    def row(what: str, series: Mapping[str, list[float]], side: str, target: Target) -> Row:
        return compare(version, what, series[side], series["absent"], target)

    return [
        row("python -c pass, control: no shim on both sides", bare, "control", Target()),
        row("python -c pass, shim off", bare, "off", Target()),
        row("python -c pass, shim on", bare, "on", START),
        row("python -c pass, shim on, child of a task", bare, "in workflow", START),
        row('python -c "import tempfile"', imports, "on", IMPORT),
        row('python -c "import tempfile", child of a task', imports, "in workflow", IMPORT),
    ]


def in_turns(
    python: Path, code: str, environments: Mapping[str, Mapping[str, str]], rounds: int
) -> dict[str, list[float]]:
    """The seconds of each launch by environment; each round has one of each, in an order drawn by lot."""
    seconds: dict[str, list[float]] = {name: [] for name in environments}
    lot = random.Random(0)  # noqa: S311 - nobody is to be surprised by it
    for first in range(0, rounds, STAY):
        with one_cpu(first // STAY):
            for env in environments.values():
                launch(python, code, env)  # writes .pyc files, fills the page cache and the processor's
            for _ in range(min(STAY, rounds - first)):
                for name in lot.sample(list(environments), len(environments)):
                    seconds[name].append(launch(python, code, environments[name]))
    return seconds


def launch(python: Path, code: str, env: Mapping[str, str], status: int = 0) -> float:
    """Run `python -c code` and return its seconds. Raises `RuntimeError` if it ends with another status."""
    quiet = [(os.POSIX_SPAWN_OPEN, descriptor, os.devnull, os.O_RDWR, 0) for descriptor in (0, 1)]
    begin = time.perf_counter()
    pid = os.posix_spawn(python, [str(python), "-c", code], env, file_actions=quiet)
    _, ended = os.waitpid(pid, 0)
    taken = time.perf_counter() - begin
    if os.waitstatus_to_exitcode(ended) != status:
        raise RuntimeError(f"{python} -c {code!r} ended with status {os.waitstatus_to_exitcode(ended)}, not {status}")
    return taken
