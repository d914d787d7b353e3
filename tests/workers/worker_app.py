"""The Celery application of the tests: tasks of the target's shape, which know nothing of the shim."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import Any

from apis import paths_of_every_api
from celery import Celery, Task

app = Celery("tests", broker=os.environ["BROKER"], backend=os.environ["BACKEND"])
app.conf.update(
    task_serializer=os.environ.get("TASK_SERIALIZER", "json"),
    task_protocol=int(os.environ.get("TASK_PROTOCOL", "2")),
    result_serializer="json",
    accept_content=["json", os.environ.get("TASK_SERIALIZER", "json")],
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_track_started=True,
    worker_hijack_root_logger=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    result_expires=None,
    worker_max_tasks_per_child=int(os.environ.get("MAX_TASKS_PER_CHILD", "0")) or None,
)

VARIABLES = ("TMPDIR", "TMP", "TEMP", "TEMPDIR", "TMP_REDIRECT_SCOPE")
APIS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "apis.py")


def environment() -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in VARIABLES}


def where() -> dict[str, Any]:
    """Where this code is, asked of tempfile and the environment only."""
    return {"gettempdir": tempfile.gettempdir(), "environment": environment(), "pid": os.getpid()}


@app.task(bind=True)
def probe(self: Task, context: dict[str, Any]) -> dict[str, Any]:
    """Use every API of tempfile, here and in a child interpreter; the context grows by the paths."""
    prefix = f"probe-{context['workflow_id']}-"
    paths = paths_of_every_api(prefix)
    child = subprocess.run(
        [sys.executable, APIS, prefix], env=os.environ.copy(), capture_output=True, text=True, check=True
    )
    return {**context, "paths": [*context.get("paths", []), *paths, *json.loads(child.stdout)], **where()}


@app.task(bind=True)
def locate(self: Task, *args: Any, **kwargs: Any) -> dict[str, Any]:
    return where()


@app.task(bind=True)
def fail(self: Task, context: dict[str, Any]) -> None:
    raise KeyError(tempfile.mkdtemp(prefix="failed-"))


@app.task(bind=True, max_retries=2)
def retry(self: Task, context: dict[str, Any]) -> list[str]:
    """Where each try of this task was, as the tries themselves noted it."""
    note = os.path.join(context["notes"], f"{self.request.retries}")
    with open(note, "w", encoding="utf-8") as file:
        file.write(tempfile.gettempdir())
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return [
        open(os.path.join(context["notes"], name), encoding="utf-8").read()
        for name in sorted(os.listdir(context["notes"]))
    ]


@app.task(bind=True)
def nested(self: Task, context: dict[str, Any], inner: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Before, during and after another task that is applied here; it raises if its id is bad."""
    before = where()
    during = locate.apply(kwargs={"context": inner} if inner else {}, throw=False).result
    return [before, during if isinstance(during, dict) else {"error": repr(during)}, where()]


@app.task(bind=True)
def publish(self: Task, context: dict[str, Any], inner: dict[str, Any] | None) -> str:
    """Publish a task from inside this one; its id."""
    result: str = locate.delay(inner).id if inner else locate.delay().id
    return result


@app.task(bind=True)
def shell(self: Task, context: dict[str, Any], script: str) -> str:
    return subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=True).stdout


@app.task(bind=True)
def write(self: Task, context: dict[str, Any], path: str) -> str:
    with open(path, "w", encoding="utf-8") as file:
        file.write("x")
    return path


@app.task(bind=True)
def change_environment(self: Task, context: dict[str, Any]) -> None:
    os.environ["TMPDIR"] = "/dev/shm"
    del os.environ["TMP"]
