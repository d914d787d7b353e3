"""Tasks that leave a file in the temp directory and say what is there, for the ends of workflows.

`context` grows from task to task: `seen` is a list of what each has found.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from celery import Task, signals
from celery.exceptions import Ignore, Reject
from changes import call_after
from worker_app import app

from services.common.tmp_redirect import workflow

__all__ = ["app"]

app.conf.update(
    task_default_queue=os.environ.get("QUEUE", "celery"),
    worker_lost_wait=0.1,
)
if "BEAT" in os.environ:
    app.conf.beat_schedule = {
        "tmp-redirect": {"task": "tmp_redirect.sweep", "schedule": 1, "kwargs": {"older_than": "0s"}},
    }


def leave(context: dict[str, Any], name: str) -> dict[str, Any]:
    directory = tempfile.gettempdir()
    Path(directory, name).touch()
    return {**context, "seen": [*context.get("seen", []), sorted(os.listdir(directory))], "directory": directory}


def wait_for(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.005)


def halt_until(until: str) -> None:
    """Say that this process is halted, and go on when the file `until` exists."""
    Path(until + ".halted").touch()
    wait_for(until)


@app.task
def write(context: dict[str, Any], name: str) -> dict[str, Any]:
    return leave(context, name)


@app.task
def body(contexts: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Of a chord: gets the results of its header."""
    return leave(contexts[0], name)


@app.task
def fail(context: dict[str, Any], name: str) -> None:
    raise KeyError("on purpose", leave(context, name)["directory"])


@app.task(bind=True, max_retries=1)
def retry_once(self: Task, context: dict[str, Any], name: str, until: str = "") -> dict[str, Any]:
    """The first attempt goes on to its end when the file `until` exists."""
    context = leave(context, f"{name}-{self.request.retries}")
    if self.request.retries < 1:
        raise self.retry(countdown=0)
    return context


@signals.task_retry.connect
def halt_attempt(request: Any, **_: Any) -> None:
    until = request.kwargs.get("until")
    if until:
        halt_until(until)


@app.task
def ignore(context: dict[str, Any], name: str) -> None:
    leave(context, name)
    raise Ignore


@app.task(bind=True)
def reject_once(self: Task, context: dict[str, Any], name: str) -> dict[str, Any]:
    context = leave(context, name)
    if not self.request.delivery_info["redelivered"]:
        raise Reject(requeue=True)
    return context


@app.task(bind=True)
def replaced(self: Task, context: dict[str, Any], name: str) -> None:
    raise self.replace(write.s(leave(context, name), f"{name}-by"))


@app.task
def hold(context: dict[str, Any], name: str, until: str) -> dict[str, Any]:
    """Go on when the file `until` exists."""
    context = leave(context, name)
    wait_for(until)
    return leave(context, f"{name}-after")


@app.task
def write_and_halt(context: dict[str, Any], name: str, changes: int, until: str) -> dict[str, Any]:
    """Halt this process after so many changes that the shim makes from the end of the task on, until `until` exists."""
    context = leave(context, name)
    call_after(changes, lambda: halt_until(until))
    return context


@app.task
def kill_once(context: dict[str, Any], name: str, mark: str) -> dict[str, Any]:
    """Be killed in the middle, but not a second time, when the file `mark` exists."""
    context = leave(context, name)
    if not os.path.exists(mark):
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return context


@app.task(time_limit=1)
def never_end(context: dict[str, Any], name: str) -> None:
    leave(context, name)
    signal.pause()


@app.task
def publish(context: dict[str, Any], name: str, canvas: Any) -> dict[str, Any]:
    """Publish another canvas of the workflow, and end before it has begun."""
    app.signature(canvas).apply_async()
    return leave(context, name)


@app.task
def publish_and_hold(context: dict[str, Any], name: str, canvas: Any, until: str) -> dict[str, Any]:
    app.signature(canvas).apply_async()
    return hold(context, name, until)


@app.task
def hold_by_hand(context: dict[str, Any], other: str, until: str) -> list[str]:
    """Use the workspace of another workflow until the file `until` exists."""
    with workflow(other) as directory:
        Path(directory, "by-hand").touch()
        Path(until + ".holds").touch()
        wait_for(until)
        return sorted(os.listdir(directory))


@app.task
def arm(context: dict[str, Any], changes: int, mark: str) -> None:
    """Have this process killed after so many changes that the shim makes from now on, and note in `mark` that it was.

    They are those of this task's end, and of the tasks after it.
    """

    def die() -> None:
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)

    call_after(changes, die)
