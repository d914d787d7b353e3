"""Hosts with worker processes, and a broker that gives each message to a process that has nothing to do."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass

from benchmarks.simulation import worker
from benchmarks.simulation.client import Process
from benchmarks.simulation.system import System
from benchmarks.simulation.worker import BROKER, Task

PROCESSES = 8  # of each host


@dataclass
class Run:
    """When a task was begun, when its body began and ended, and when its process had done with it."""

    begun: float
    body_begun: float = 0.0
    body_ended: float = 0.0
    done: float = 0.0

    @property
    def added(self) -> float:
        """What the shim has added, in seconds."""
        return self.before + self.after

    @property
    def before(self) -> float:
        """Of it, before the body."""
        return self.body_begun - self.begun

    @property
    def after(self) -> float:
        """Of it, after the body."""
        return self.done - self.body_ended


class Cluster:
    """`workers` processes. `runs` are those of the tasks that are done, `errors` what tasks have failed with."""

    def __init__(self, system: System, workers: int, seed: int = 0) -> None:
        self.system = system
        self.random = random.Random(seed)  # noqa: S311
        self.idle = [system.new_process(f"host-{number // PROCESSES}") for number in range(workers)]
        self.random.shuffle(self.idle)
        self.waiting: deque[Task] = deque()
        self.runs: list[Run] = []
        self.errors: list[BaseException] = []

    def deliver(self, task: Task) -> None:
        """To be called by the process that has published the task."""
        self.system.clock.at(self.system.process.now + BROKER, lambda: self._dispatch(task))

    def _dispatch(self, task: Task) -> None:
        if self.idle:
            self._begin(self.idle.pop(self.random.randrange(len(self.idle))), task)
        else:
            self.waiting.append(task)

    def _begin(self, process: Process, task: Task) -> None:
        self.system.begin(self.system.clock.time, process, lambda: self._run(process, task))

    def _run(self, process: Process, task: Task) -> None:
        run, body = Run(process.now), task.body

        def timed() -> None:
            run.body_begun = process.now
            body()
            run.body_ended = process.now

        task.body = timed
        try:
            worker.run(task)
        except Exception as error:  # noqa: BLE001 - it's counted
            self.errors.append(error)
        run.done = process.now
        self.runs.append(run)
        self.system.wait(process.now)
        if self.waiting:
            self._begin(process, self.waiting.popleft())
        else:
            self.idle.append(process)
