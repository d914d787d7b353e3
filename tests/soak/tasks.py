"""The Celery application: a step reads what earlier ones left, leaves files of its own, and knows nothing of the shim.

Names and content of its files say which workflow they are of. What happens is noted in the broker, from outside the
tasks' own files: a list of events in the order in which they happened.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

import pool_app
import processes
from apis import paths_of_every_api
from celery import Task, signals
from pool_app import app

__all__ = ["app"]

WORKER = os.environ.get("WORKER", "gateway")
app.conf.update(
    task_default_queue=WORKER.partition("-")[0],
    broker_transport_options={  # of this worker alone, so that they can be delivered again when it was killed
        name: f"{name}-{WORKER}" for name in ("unacked_key", "unacked_index_key", "unacked_mutex_key")
    },
    worker_lost_wait=0.1,
)
NO_SPACE = (errno.ENOSPC, errno.EROFS)


class IntendedError(Exception):
    """What a step that is to fail raises."""


def note(event: str, step: dict[str, Any], **more: Any) -> None:
    of_step = {name: step[name] for name in ("workflow", "name", "run")}
    app.backend.client.rpush("journal", json.dumps({"event": event, "time": time.time(), **of_step, **more}))


@signals.before_task_publish.connect
def published(headers: dict[str, Any], body: Any, **_: Any) -> None:
    note("published", body[1]["step"], id=headers["id"])


@signals.task_prerun.connect
def begun(task_id: str, kwargs: dict[str, Any], **_: Any) -> None:
    note("begun", kwargs["step"], id=task_id, worker=WORKER)


@signals.task_postrun.connect
def ended(task_id: str, kwargs: dict[str, Any], retval: Any, state: str, **_: Any) -> None:
    failure = f"{type(retval).__name__}: {retval}" if isinstance(retval, Exception) else ""
    note("ended", kwargs["step"], id=task_id, state=state, failure=failure, errno=getattr(retval, "errno", None))


def plain(prefix: str, _: Any) -> list[str]:
    return paths_of_every_api(prefix)


def spawned_process(prefix: str, _: Any) -> list[str]:
    return processes.spawned(prefix)


def forked_process(prefix: str, _: Any) -> list[str]:
    return processes.forked(prefix)


def child_that_spawns(prefix: str, _: Any) -> list[str]:
    """As the target's inference children do."""
    done = subprocess.run([sys.executable, processes.__file__, prefix], stdout=subprocess.PIPE, check=True)
    paths: list[str] = json.loads(done.stdout)
    return paths


OWN = (plain, spawned_process, forked_process, child_that_spawns)
WAYS = {**pool_app.WAYS, **{way.__name__: way for way in OWN}}


class Place:
    """Where a child of a step writes what it has to say."""

    def __init__(self, prefix: str) -> None:
        self.note = os.path.join(tempfile.gettempdir(), f"{prefix}note")


@app.task(bind=True, max_retries=20)
def run(self: Task, before: Any = None, *, step: dict[str, Any], context: Any = None) -> dict[str, str]:
    """Read, write, and do what the step says; whatever attempt it is, it returns the same."""
    try:
        for earlier in step["reads"]:
            read_back(step, earlier)
        leave(step)
    except OSError as error:
        if error.errno in NO_SPACE and step["patient"]:
            raise self.retry(exc=error, countdown=1) from None
        raise
    if step["act"] == "publish":
        inner = {**step["side"], "run": step["run"], "reads": [*step["reads"], name_of(step)]}
        run.apply_async(kwargs={"step": inner}, queue=inner["pool"])
    if step["act"] == "retry" and self.request.retries == 0:
        raise self.retry(countdown=0)
    if step["act"] == "fail" and step["run"] == 0:
        raise IntendedError(step["name"])
    return {"workflow_id": step["workflow"]}


def name_of(step: dict[str, Any]) -> str:
    return f"{step['run']}.{step['name']}"


def content_of(workflow: str, name: str) -> str:
    return f"{workflow} {name}\n" * 50


def index_of(workflow: str, name: str) -> str:
    """The path of the list of files that a step leaves to later ones."""
    return os.path.join(tempfile.gettempdir(), f"soak@{workflow}@{name}@index")


def leave(step: dict[str, Any]) -> None:
    workflow, name = step["workflow"], name_of(step)
    prefix = f"soak@{workflow}@{name}@"
    paths = WAYS[step["way"]](prefix, Place(prefix))
    files = [path for path in paths if os.path.isfile(path)]
    for path in files:
        with open(path, "w", encoding="utf-8") as file:
            file.write(content_of(workflow, name))
    with tempfile.NamedTemporaryFile("w", prefix=prefix, delete=False) as index:
        json.dump(files, index)
    os.replace(index.name, index_of(workflow, name))  # whole or not at all, if this is killed
    note("left", step, files=len(files))


def read_back(step: dict[str, Any], earlier: str) -> None:
    workflow, wrong, files = step["workflow"], "", []
    path = index_of(workflow, earlier)
    try:
        with open(path, encoding="utf-8") as index:
            files = json.load(index)
        for path in files:
            with open(path, encoding="utf-8") as file:
                if file.read() != content_of(workflow, earlier):
                    wrong = f"{path} has other content"
    except FileNotFoundError:
        wrong = f"{path} is gone"
    note("read", step, earlier=earlier, files=len(files), wrong=wrong)
