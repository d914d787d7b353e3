"""Operations per task: each situation on the real file system and on the modelled one, with the real code."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from benchmarks.simulation import worker
from benchmarks.simulation.file_system import Inode
from benchmarks.simulation.recorder import Recorder
from benchmarks.simulation.server import Model
from benchmarks.simulation.system import ROOT, Instead, System
from benchmarks.simulation.worker import Task

MINUTE = 60.0
_FILE = 0o100600


class Side(Protocol):
    """A file system on which a situation is brought about, step by step; `recorder` notes the calls of each."""

    recorder: Recorder

    def step(self, what: str, function: Callable[[Task], None], task: Task) -> None:
        """Have `function(task)` run in a process of its own."""

    def in_body(self, workflow: str, number: int) -> None:
        """Leave so many files in the workspace, in the middle of a task."""


@dataclass
class Situation:
    """A chain of tasks, of which the steps `shown` are shown, the others only lead there."""

    name: str
    keep: str
    shown: tuple[str, ...]
    tasks: int = 3
    state: str = "SUCCESS"  # of the last task
    files: int = 0  # that it leaves in the workspace


SITUATIONS = (
    Situation("a chain", "failed", ("publish", "task 1", "task 2", "task 3")),
    Situation("3 files are left in the workspace", "failed", ("task 3",), files=3),
    Situation("a workflow of one task", "failed", ("publish", "task 1"), tasks=1),
    Situation("the last task fails", "failed", ("task 3",), state="FAILURE"),
    Situation("the last task fails", "none", ("task 3",), state="FAILURE"),
    Situation("it is retried", "failed", ("task 3",), state="RETRY"),
    Situation("a chain", "all", ("publish", "task 1", "task 2", "task 3")),
)


def model_of(situation: Situation, model: Model) -> dict[str, Asked]:
    """What each step of a situation asks the server, among others who change the root."""
    with on_model(situation.keep, model, others=True) as side:
        play(situation, side)
    return side.asked


def play(situation: Situation, side: Side) -> None:
    """Have the tasks published and run, each in a process of its own."""
    workflow = "wf"
    tasks = [Task(workflow, f"task-{number}") for number in range(1, situation.tasks + 1)]
    tasks[0].chain = tasks[1:]
    tasks[-1].state = situation.state
    for task in tasks:
        task.body = partial(side.in_body, workflow, situation.files if task is tasks[-1] else 0)
    side.step("publish", worker.publish, tasks[0])
    for number, task in enumerate(tasks, 1):
        side.step(f"task {number}", worker.run, task)


class Real:
    """The real file system, with a root in the directory `root`. `calls` are those of each step."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.recorder = Recorder(os, root)
        self.calls: dict[str, list[str]] = {}
        self.changes: dict[str, int] = {}

    def step(self, what: str, function: Callable[[Task], None], task: Task) -> None:
        """As of `Side`, but all are this process."""
        self.recorder.calls.clear()
        function(task)
        self.calls[what], self.changes[what] = [*self.recorder.calls], self.recorder.changes()

    def in_body(self, workflow: str, number: int) -> None:
        """As of `Side`."""
        for each in range(number):
            Path(self.root, workflow, "tmp", f"file-{each}").touch()

    def tree(self) -> list[str]:
        """The paths below the root."""
        return sorted(str(path.relative_to(self.root)) for path in Path(self.root).rglob("*"))


@dataclass
class Asked:
    """What a step has asked the server, in how many seconds."""

    calls: Counter[str]
    changes: int
    seconds: float


class Modelled:
    """The modelled one. With `others`, another host makes and ends a workflow of its own before each step.

    Bodies last a minute, after which a client doesn't believe what it knows any more.
    """

    def __init__(self, model: Model, *, others: bool = False) -> None:
        self.system = System(ROOT, model)
        self.recorder = Recorder(self.system, ROOT)
        self.others = others
        self.calls: dict[str, list[str]] = {}
        self.asked: dict[str, Asked] = {}
        self.number = 0
        self.slept = 0.0

    def step(self, what: str, function: Callable[[Task], None], task: Task) -> None:
        """As of `Side`, on a host of its own."""
        if self.others:
            self._run(f"host-{what}", self._workflow)  # the host is no new one
            self._run("another", self._workflow)
        self._run(f"host-{what}", lambda: self._measure(what, function, task))

    def _run(self, host: str, function: Callable[[], None]) -> None:
        system = self.system
        system.begin(system.clock.time, system.new_process(host), function)
        system.clock.run()

    def _workflow(self) -> None:
        self.number += 1
        task = Task(f"other-{self.number}", "only")
        worker.publish(task)
        worker.run(task)
        self.system.wait(self.system.process.now)

    def _measure(self, what: str, function: Callable[[Task], None], task: Task) -> None:
        server, process = self.system.server, self.system.process
        self.recorder.calls.clear()
        calls, changes, begin = server.calls.copy(), server.changes, process.now
        self.slept = 0.0
        function(task)
        self.calls[what] = [*self.recorder.calls]
        seconds = process.now - begin - self.slept
        self.asked[what] = Asked(server.calls - calls, server.changes - changes, seconds)
        self.system.wait(process.now)

    def in_body(self, workflow: str, number: int) -> None:
        """As of `Side`, a minute later."""
        self.slept = MINUTE
        self.system.sleep(MINUTE)
        files = self.system.files
        for each in range(number):
            files.make(files.existing(files.existing(files.root, workflow), "tmp"), f"file-{each}", _FILE)

    def tree(self) -> list[str]:
        """The paths below the root."""
        return sorted(paths(self.system.files.root))


def paths(directory: Inode, above: str = "") -> Iterator[str]:
    """Of all that is in a directory of the model, relative to it."""
    for name, inode in (directory.entries or {}).items():
        yield above + name
        yield from paths(inode, f"{above}{name}/")


@contextmanager
def on_real(keep: str) -> Iterator[Real]:
    """A root of its own on the real file system."""
    with tempfile.TemporaryDirectory() as directory:
        side = Real(directory)
        with Instead(side.recorder, keep, directory):
            yield side


@contextmanager
def on_model(keep: str, model: Model, *, others: bool = False) -> Iterator[Modelled]:
    """A root of its own on the modelled one."""
    side = Modelled(model, others=others)
    with Instead(side.recorder, keep, ROOT):
        yield side
