"""Celery tasks that do nothing: a worker with the shim and one without take turns with batches of them.

Measured twice. With several processors the pool process waits for the one that feeds it, which hides what the shim
adds there: that is the throughput that a user sees. With everything on one processor nothing is hidden: that is what
a task costs.

Three kinds of tasks show where the shim's share comes from, all with the default settings but for the places where an
id is looked for, so that there can be tasks without one:

    no workflow           the scope is entered and left, and nothing is done on disk: there is no lease
    a workflow goes on    beside that a lease is taken and dropped, and the workspace, which exists, is verified
    a new workflow each   beside that the workspace is made, and taken away as its workflow ends with the task

A task ends its workflow unless more is to come. Celery's own sign of that which costs the worker nothing is a place in
a group: a member that was published by a program without the shim can't know whether it is the last. So each message
has one but those of the third kind, and every kind goes through the same code of Celery with the shim and without.
`TMP_REDIRECT_KEEP=all` would be no such sign: it also spares the task to look whether its workflow was over before.
"""

from __future__ import annotations

import contextlib

from benchmarks.batches import ABSENT, ON, Kind, environments, workers
from benchmarks.cpus import one_cpu
from benchmarks.figures import Row, Target, compare
from benchmarks.sides import WORKFLOW, Sides

NONE, SAME, OWN = "no workflow", "a workflow goes on", "a new workflow each"
_ID = "goes-on"  # of the workflow that goes on
KINDS = {
    ABSENT: Kind(ABSENT, goes_on=True),
    NONE: Kind(ON, key="id", goes_on=True),
    SAME: Kind(ON, workflow=_ID, goes_on=True),
    OWN: Kind(ON),
}


def measure(version: str, sides: Sides, rounds: int, tasks: int) -> list[Row]:
    """The rows of Celery, for the interpreter that runs this."""
    rows = []
    only = {"TMP_REDIRECT_WORKFLOW_FROM": "kwargs.context.workflow_id"}
    env_of = {name: {**env, **only} for name, env in environments(sides).items()}
    for where, cpu, target in (
        ("", contextlib.nullcontext(), Target(ratio=1.03)),
        (", all on one processor", one_cpu(0), Target(added=150e-6)),
    ):
        with cpu, workers(sides, env_of) as batches:
            seconds = batches.in_turns(KINDS, rounds, tasks)
        rows += [
            compare(
                version,
                f"Celery no-op task, {name}{where}",
                seconds[name],
                seconds[ABSENT],
                Target() if name == NONE else target,
            )
            for name in (NONE, SAME, OWN)
        ]
    made = {directory.name for directory in (sides.directory / "root").glob("[!.]*")} - {WORKFLOW}
    if _ID not in made or any(name.startswith(ABSENT) for name in made):
        raise RuntimeError(f"one worker was to have the shim and one not, but there are workspaces of {sorted(made)}")
    return rows
