"""The Celery application that is measured: tasks that do next to nothing, and others that say when or where they run.

Loaded by workers with the shim and without, so it knows nothing of it but its name.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import redis
from celery import Celery
from namespaces import private_temp  # type: ignore[import-not-found]

app = Celery("benchmark", broker=os.environ["BENCHMARK_BROKER"] + "/0")
app.conf.update(
    task_ignore_result=True, task_default_queue=os.environ["BENCHMARK_QUEUE"], broker_connection_retry_on_startup=True
)


@app.task(name="first")  # type: ignore[untyped-decorator]
def first(gate: str, times: str) -> None:
    """Keep the only pool process busy until all tasks are in the queue, then say when the next one starts."""
    with _connect() as store:
        store.blpop([gate])
        _say(store, times)


@app.task(name="nothing")  # type: ignore[untyped-decorator]
def nothing(context: dict[str, str]) -> None:
    """Do nothing, with the argument that a workflow's task has."""


@app.task(name="one_file")  # type: ignore[untyped-decorator]
def one_file(context: dict[str, str]) -> None:
    """Make a temp file wherever they go."""
    tempfile.NamedTemporaryFile().close()


@app.task(name="one_file_by_hand")  # type: ignore[untyped-decorator]
def one_file_by_hand(context: dict[str, str]) -> None:
    """Make a temp file as a call site does that was edited to name its directory."""
    directory = workspace(context)
    Path(directory).mkdir(parents=True, exist_ok=True)
    tempfile.NamedTemporaryFile(dir=directory).close()


@app.task(name="nothing_in_namespace")  # type: ignore[untyped-decorator]
def nothing_in_namespace(context: dict[str, str]) -> None:
    """Do nothing while the workspace stands in the place of /tmp."""
    with private_temp(workspace(context)):
        pass


@app.task(name="one_file_in_namespace")  # type: ignore[untyped-decorator]
def one_file_in_namespace(context: dict[str, str]) -> None:
    """Make a temp file while the workspace stands in the place of /tmp."""
    with private_temp(workspace(context)):
        tempfile.NamedTemporaryFile().close()


@app.task(name="last")  # type: ignore[untyped-decorator]
def last(times: str) -> None:
    """Say when the one before has ended."""
    with _connect() as store:
        _say(store, times)


@app.task(name="process")  # type: ignore[untyped-decorator]
def process(processes: str) -> None:
    """Say which process runs the tasks, once it has no garbage left."""
    gc.collect()
    with _connect() as store:
        store.rpush(processes, os.getpid())


@app.task(name="has_shim")  # type: ignore[untyped-decorator]
def has_shim(said: str) -> None:
    """Say whether this process has loaded it."""
    with _connect() as store:
        store.rpush(said, int("services.common.tmp_redirect" in sys.modules))


def workspace(context: dict[str, str]) -> str:
    """Where a call site that was edited puts what belongs to a workflow."""
    return f"{os.environ['BENCHMARK_ROOT']}/{context['workflow_id']}/tmp"


def _connect() -> Any:
    return redis.Redis.from_url(os.environ["BENCHMARK_BROKER"] + "/1")


def _say(store: Any, times: str) -> None:
    store.rpush(times, repr(time.monotonic()))
