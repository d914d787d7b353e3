"""A group of tasks of one workflow that begin and end at once: who waits for whom, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.simulation import worker
from benchmarks.simulation.cluster import Cluster, Run
from benchmarks.simulation.operations import paths
from benchmarks.simulation.server import Model
from benchmarks.simulation.system import ROOT, Instead, System
from benchmarks.simulation.worker import Task
from services.common.tmp_redirect.lifecycle.leases import PATIENCE


@dataclass(frozen=True)
class Group:
    """So many tasks for so many processes. The body of each lasts `seconds`, or until `end` if that's later."""

    tasks: int
    workers: int
    seconds: float = 0.0
    end: float = 0.0
    keep: str = "failed"


@dataclass
class Outcome:
    """`published` are the seconds that its publisher takes for all, `left` the paths that are left of the workflow."""

    published: float
    runs: list[Run]
    operations: dict[str, int]
    changes: int
    late: int  # tasks that have waited for as long as a purge is believed to live
    errors: list[BaseException]
    left: list[str]


def simulate(group: Group, model: Model, seed: int = 0) -> Outcome:
    """Publishes all, and has all delivered when that is done."""
    system = System(ROOT, model, seed)
    with Instead(system, group.keep, ROOT):
        cluster = Cluster(system, group.workers, seed)
        tasks = [Task("group", f"task-{number:05}", group=number) for number in range(group.tasks)]
        publisher = system.new_process("gateway")

        def body() -> None:
            now = system.process.now
            system.sleep(max(group.seconds, publisher.now + group.end - now))

        def publish() -> None:
            for task in tasks:
                task.body = body
                worker.publish(task)
            for task in tasks:
                cluster.deliver(task)

        system.begin(0.0, publisher, publish)
        system.clock.run()
        runs = cluster.runs
        return Outcome(
            publisher.now,
            runs,
            dict(system.server.calls),
            system.server.changes,
            sum(run.before >= PATIENCE for run in runs),
            cluster.errors,
            [path for path in paths(system.files.root) if "group" in path],
        )
