"""So many workflows a second, each a chain of tasks: what is added to a task, and what the server has to do."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.simulation import worker
from benchmarks.simulation.cluster import Cluster, Run
from benchmarks.simulation.server import Model
from benchmarks.simulation.system import ROOT, Instead, System
from benchmarks.simulation.worker import Task

DAY = 86_400
GATEWAYS = 4


@dataclass(frozen=True)
class Load:
    """What comes; times in seconds. A task in `failing` fails, at random."""

    workflows: float = 10_000_000 / DAY  # a second
    tasks: int = 7  # of each
    workers: int = 10_000
    duration: float = 0.5  # of a task, on average
    failing: float = 0.0
    keep: str = "failed"
    warm_up: float = 6.0
    window: float = 4.0


@dataclass
class Outcome:
    """What was seen in the window; rates by second."""

    runs: list[Run]
    operations: float
    changes: float
    done: float  # tasks
    errors: int


def simulate(load: Load, model: Model, seed: int = 0) -> Outcome:
    """Runs that long: the warm-up and the window."""
    system = System(ROOT, model, seed)
    with Instead(system, load.keep, ROOT):
        cluster = Cluster(system, load.workers, seed)
        _Arrivals(cluster, load, seed)
        system.clock.run(load.warm_up)
        before, operations, changes = len(cluster.runs), system.server.calls.total(), system.server.changes
        system.clock.run(load.warm_up + load.window)
        return Outcome(
            cluster.runs[before:],
            (system.server.calls.total() - operations) / load.window,
            (system.server.changes - changes) / load.window,
            (len(cluster.runs) - before) / load.window,
            len(cluster.errors),
        )


class _Arrivals:
    """Workflows that gateways publish, at random times."""

    def __init__(self, cluster: Cluster, load: Load, seed: int) -> None:
        self.cluster = cluster
        self.load = load
        self.random = random.Random(seed + 1)  # noqa: S311
        self.number = 0
        self.gateways = [f"gateway-{number}" for number in range(GATEWAYS)]
        self._next()

    def _next(self) -> None:
        clock = self.cluster.system.clock
        clock.at(clock.time + self.random.expovariate(self.load.workflows), self._arrive)

    def _arrive(self) -> None:
        self._next()
        self.number += 1
        tasks = [self._task(f"{self.number}-{place}") for place in range(self.load.tasks)]
        tasks[0].chain = tasks[1:]
        system = self.cluster.system
        gateway = system.new_process(self.random.choice(self.gateways))
        system.begin(system.clock.time, gateway, lambda: self._publish(tasks[0]))

    def _task(self, name: str) -> Task:
        seconds, fails = self.random.expovariate(1 / self.load.duration), self.random.random() < self.load.failing
        body: Callable[[], None] = lambda: self.cluster.system.sleep(seconds)  # noqa: E731
        task = Task(f"workflow-{self.number}", name, body, "FAILURE" if fails else "SUCCESS")
        task.deliver = self.cluster.deliver
        return task

    def _publish(self, task: Task) -> None:
        worker.publish(task)
        self.cluster.deliver(task)
