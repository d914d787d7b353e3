"""What a task costs among ever more workspaces, and in a workflow with ever more tasks."""

from __future__ import annotations

from benchmarks.simulation import sweeps, worker
from benchmarks.simulation.operations import Asked, on_model
from benchmarks.simulation.server import Model
from benchmarks.simulation.worker import Task

_FILE = 0o100600


def among_workspaces(number: int, model: Model) -> Asked:
    """A workflow of one task, beside so many workspaces."""
    with on_model("failed", model, others=True) as side:
        for each in range(number):
            sweeps.put(side.system.files, f"young-{each:08}", sweeps.Stock(number))
        task = Task("wf", "task")
        side.step("publish", worker.publish, task)
        side.step("run", worker.run, task)
        return side.asked["run"]


def among_leases(number: int, model: Model) -> Asked:
    """A task of a workflow of which so many others run on other hosts."""
    with on_model("failed", model, others=True) as side:
        files, task = side.system.files, Task("wf", "task")
        side.step("publish", worker.publish, task)
        leases = files.existing(files.existing(files.root, ".leases"), "wf")
        for each in range(number):
            files.make(leases, f"lease~host-{each}~00000000-0000~1~{each}~1~1~app.step:task-{each:05}", _FILE)
        side.step("run", worker.run, task)
        return side.asked["run"]
