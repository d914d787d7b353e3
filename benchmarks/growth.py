"""How the cost grows with threads in a process, and with workspaces in the root; with tasks: see `memory`."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from benchmarks import threads_child
from benchmarks.batches import ABSENT, ON, Kind, environments, workers
from benchmarks.calls import Side
from benchmarks.cpus import one_cpu
from benchmarks.figures import Row, compare
from benchmarks.sides import WORKFLOW, Sides
from benchmarks.sweeps import Bench, make

THREADS = (1, 4, 16, 64)
TOTAL = {"tempfile.gettempdir()": 20_000, "NamedTemporaryFile create and close": 256, threads_child.START: 64}
WORKSPACES = (10, 100, 1_000, 10_000, 100_000)


def threads(python: Path, version: str, sides: Sides, rounds: int) -> Iterator[Row]:
    """The rows of calls in ever more threads of one process, in a workflow: all of them on one processor."""
    with one_cpu(0), contextlib.ExitStack() as stack:
        processes = {
            "shim": Side(python, sides.on, sides.workspace, threads_child.__file__, WORKFLOW),
            "stock": Side(python, sides.same_place, sides.workspace, threads_child.__file__),
        }
        for name, process in processes.items():
            stack.callback(process.end)
            process.check(sides.workspace, is_patched=name == "shim")
        for what, total in TOTAL.items():
            for count in THREADS:
                taken: dict[str, list[float]] = {name: [] for name in processes}
                for turn in range(-2, rounds):
                    for name in list(processes)[:: 1 if turn % 2 else -1]:
                        seconds = processes[name].seconds(what, count, max(1, total // count))
                        if turn >= 0:
                            taken[name].append(seconds)
                yield compare(version, f"{what}, threads", taken["shim"], taken["stock"], at=count)


def workspaces(version: str, sides: Sides, rounds: int, tasks: int, most: int) -> Iterator[Row]:
    """The rows of a task and of a sweep in a root with ever more workspaces, for the interpreter that runs this."""
    bench = Bench(sides, version)
    there = 0
    for size in (size for size in WORKSPACES if size <= most):
        make(bench.root, size, there)
        there = size
        yield bench.young(size, rounds)
        env_of = environments(sides)
        env_of[ON] |= {"TMP_REDIRECT_ROOT": str(bench.root), "TMP_REDIRECT_WORKFLOW_FROM": "kwargs.context.workflow_id"}
        with one_cpu(0), workers(sides, env_of) as batches:
            seconds = batches.in_turns({ABSENT: Kind(ABSENT), ON: Kind(ON)}, rounds, tasks)
            batches.process(ON)  # by then the last task has ended its workflow
        shutil.rmtree(bench.root / ".outside", ignore_errors=True)  # the worker's, which a sweep would count
        yield compare(version, "Celery task of a new workflow, workspaces", seconds[ON], seconds[ABSENT], at=size)
    bench.clear()
