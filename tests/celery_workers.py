"""What the tests of Celery share: a real broker, real workers, and a client that sends tasks to them."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, exceptions
from celery.result import AsyncResult
from kombu import pools

from examples.servers import Process, Servers

PATIENCE = 60  # seconds until a task that doesn't answer is an error

Start = Callable[..., Process]


@pytest.fixture
def servers(tmp_path: Path) -> Servers:
    directory = tmp_path / "servers"
    directory.mkdir()
    return Servers(directory, {"PATH": os.environ["PATH"], "TMPDIR": str(directory)})


@pytest.fixture
def broker(servers: Servers) -> Iterator[str]:
    with servers.broker() as url:
        yield url


@pytest.fixture
def worker_env(shim_env: dict[str, str], overlay: Path, helpers: Path, broker: str, tmp_path: Path) -> dict[str, str]:
    return {
        **shim_env,
        "PYTHONPATH": f"{overlay}:{helpers}",
        "BROKER": f"{broker}/0",
        "BACKEND": f"{broker}/1",
        "HOME": str(tmp_path),
        "C_FORCE_ROOT": "1",
    }


@pytest.fixture
def start(servers: Servers, worker_env: dict[str, str]) -> Iterator[Start]:
    """Starts a worker; further variables are its keyword arguments."""
    with ExitStack() as stack:

        def start_worker(name: str = "worker", pool: str = "prefork", concurrency: int = 1, **env: str) -> Process:
            worker = servers.celery_worker(name, "worker_app", {**worker_env, **env}, concurrency, pool)
            return stack.enter_context(worker)

        yield start_worker


@pytest.fixture
def client(broker: str) -> Iterator[Celery]:
    app = Celery("client", broker=f"{broker}/0", backend=f"{broker}/1", set_as_current=False)
    yield app
    gc.collect()  # results unsubscribe when they are freed, and wait for a server that is gone
    app.backend.result_consumer.stop()
    app.close()
    pools.reset()  # kombu keeps each connection that was ever pooled


@pytest.fixture
def call(client: Celery) -> Callable[..., Any]:
    """Send a task of the target's shape to the worker and return what it returned."""

    def send(task: str, workflow: object, *args: Any, **options: Any) -> Any:
        kwargs = {"context": {"workflow_id": workflow, **options.pop("context", {})}, **options.pop("kwargs", {})}
        return answer(client.send_task(f"worker_app.{task}", args=args, kwargs=kwargs, **options))

    return send


def answer(result: AsyncResult) -> Any:
    """Wait for a task and return what it returned, or raise what it raised."""
    for _ in range(PATIENCE // 5):
        # Each call reads the result afresh: the message that tells of it may come before its channel is subscribed to.
        with suppress(exceptions.TimeoutError):
            return result.get(timeout=5, disable_sync_subtasks=False)
    states = [f"{result.id} {result.state}"]
    while (result := result.parent) is not None:
        states.insert(0, f"{result.id} {result.state}")
    raise AssertionError(f"no answer within {PATIENCE} s: {', '.join(states)}")


def workspace(root: Path, workflow: str) -> str:
    return str(root / workflow / "tmp")
