"""Calls within a process: two processes, one with the shim and one without, take turns on command.

Not one process with the originals kept aside: stock's `gettempdir` calls `_gettempdir`, and `NamedTemporaryFile` calls
`os.open`, which the shim has replaced there, so the "stock" side would run half of the shim. Two processes are what a
program gets. But each process has its own luck with memory layout and hash seeds, worth some percent and constant for
its life; so what counts as one sample is a median of one group of processes, and there are many groups.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
from collections.abc import Mapping
from pathlib import Path

from benchmarks import calls_child, pyperf_files
from benchmarks.cpus import one_cpu
from benchmarks.figures import Row, Target, compare
from benchmarks.sides import Sides

SAMPLE_SECONDS = 0.002
CONTROL = "json"
TARGETS = {
    "tempfile.gettempdir()": Target(ratio=0.6),
    "NamedTemporaryFile create and close": Target(ratio=1.05),
    "open for writing": Target(ratio=1.06),
    "open for writing, relative path": Target(),
    "open for reading": Target(ratio=1.04),
    "copy.deepcopy": Target(ratio=1.00),
    "json": Target(ratio=1.00),
    "pickle": Target(ratio=1.00),
}


class Side:
    """A process that times calls on command."""

    def __init__(
        self, python: Path, env: Mapping[str, str], workspace: Path, child: str = calls_child.__file__, *arguments: str
    ) -> None:
        self._process = subprocess.Popen(
            [python, child, *arguments],
            env=env,
            cwd=workspace,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def check(self, workspace: Path, *, is_patched: bool) -> None:
        """Raise `RuntimeError` unless this is the side that it should be: else a comparison would compare nothing."""
        says = self._line().split("\t")
        if says != [str(workspace), "method" if is_patched else "builtin_function_or_method"]:
            raise RuntimeError(f"a process {'with' if is_patched else 'without'} the shim has {says}")

    def seconds(self, *what: str | int) -> float:
        """The seconds of one call, on average: `what` is its name and how many, as the child reads them."""
        assert self._process.stdin is not None
        print(*what, sep="\t", file=self._process.stdin, flush=True)
        return float(self._line())

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().rstrip("\n")
        if not line:
            raise RuntimeError("a process that times calls has ended; see above")
        return line


def measure(
    python: Path, version: str, sides: Sides, groups: int, rounds: int, directory: Path | None = None
) -> list[Row]:
    """The rows of calls: `rounds` turns in each of `groups` groups of processes; the control is stock on both sides.

    In the `directory`, if there is one, all samples are saved for pyperf.
    """
    environments = {"shim": sides.in_workflow, "stock": sides.same_place, "control": sides.same_place}
    taken: dict[tuple[str, str], list[list[float]]] = {(side, name): [] for side in environments for name in TARGETS}
    for group in range(groups):
        with one_cpu(group), contextlib.ExitStack() as stack:
            processes = {}
            for side, env in environments.items():
                processes[side] = Side(python, env, sides.workspace)
                stack.callback(processes[side].end)
                processes[side].check(sides.workspace, is_patched=side == "shim")
            for name in TARGETS:
                for side, values in _in_turns(processes, name, rounds).items():
                    taken[side, name].append(values)
    if directory is not None:
        pyperf_files.save(directory, version, taken)
    seconds = {key: [statistics.median(values) for values in processes] for key, processes in taken.items()}
    rows = [
        compare(version, name, seconds["shim", name], seconds["stock", name], target)
        for name, target in TARGETS.items()
    ]
    control = compare(
        version, f"{CONTROL}, control: no shim on both sides", seconds["control", CONTROL], seconds["stock", CONTROL]
    )
    return [*rows, control]


def _in_turns(processes: Mapping[str, Side], name: str, rounds: int) -> dict[str, list[float]]:
    """The seconds of a call by side, in `rounds` samples that were taken forwards and backwards by turns."""
    number = max(1, int(SAMPLE_SECONDS / processes["stock"].seconds(name, 20)))
    taken: dict[str, list[float]] = {side: [] for side in processes}
    for turn in range(-2, rounds):
        for side in list(processes)[:: 1 if turn % 2 else -1]:
            seconds = processes[side].seconds(name, number)
            if turn >= 0:  # before, the interpreter specialises the code
                taken[side].append(seconds)
    return taken
