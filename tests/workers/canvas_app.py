"""Tasks for canvases of every kind: each marks where it is with two files, named after the workflow it should be in.

`mark` is that name, `[workflow, step]`; it stands where the shim looks for no id. What makes the files knows nothing
of the shim: `tempfile`, and a program that asks the environment only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from celery import Signature, Task, signals
from celery.exceptions import SoftTimeLimitExceeded
from celery.result import allow_join_result
from celery.utils.imports import symbol_by_name
from celery.worker.request import create_request_cls
from worker_app import app, where

from services.common.tmp_redirect import current_workflow, workflow

__all__ = ["app"]

Mark = Sequence[str]

app.conf.update(
    task_reject_on_worker_lost=False,  # a task whose process was killed has failed
    worker_lost_wait=0.1,
    worker_prefetch_multiplier=0,
)
if "BEAT" in os.environ:
    app.conf.beat_schedule = {
        "told": {
            "task": "canvas_app.step",
            "schedule": 1,
            "kwargs": {"workflow_id": os.environ["BEAT"], "mark": [os.environ["BEAT"], "told"]},
        },
        "untold": {"task": "canvas_app.named_after_itself", "schedule": 1, "args": ["untold"]},
    }


def leave(mark: Mark) -> str:
    """Mark where this code is, by tempfile and by a native child; the directory."""
    name = "mark@" + "@".join(mark) + "@"
    descriptor, path = tempfile.mkstemp(prefix=name)
    os.close(descriptor)
    subprocess.run(["mktemp", "-t", f"{name}XXXXXX"], stdout=subprocess.DEVNULL, check=True)
    return os.path.dirname(path)


@app.task
def step(*args: Any, mark: Mark, **kwargs: Any) -> str:
    """A task that takes whatever it is given."""
    return leave(mark)


@app.task(bind=True)
def named_after_itself(self: Task, step: str) -> str:
    leave([self.request.id, step])
    return os.environ.get("TMPDIR", "")


@app.task
def item(context: Mapping[str, Any]) -> None:
    """What `map` calls, with an item as its first argument."""
    leave(context["mark"])


@app.task
def pair(context: Mapping[str, Any], number: int) -> int:
    """What `starmap` and `chunks` call, with an item as its arguments."""
    leave(context["mark"])
    return number


@app.task
def fail(mark: Mark, context: Any = None) -> None:
    leave(mark)
    raise KeyError("on purpose")


@app.task
def errback_by_id(task_id: str, *, mark: Mark) -> None:
    """An error callback that is published, for it takes one argument."""
    leave(mark)


@app.task
def errback(request: Any, exc: Exception, traceback: Any, mark: Mark) -> None:
    """An error callback that is called where the failure is handled."""
    leave(mark)


@app.task
def publish(canvas: Signature, mark: Mark, context: Any = None) -> Any:
    """Publish a canvas from inside this task; its result, as a tuple."""
    leave(mark)
    return app.signature(canvas).apply_async().as_tuple()


@app.task
def apply(canvas: Signature, mark: Mark, context: Any = None) -> None:
    """Run a canvas inside this task."""
    workflow, name = mark
    leave([workflow, f"before {name}"])
    with allow_join_result():  # a chain waits for each of its tasks
        app.signature(canvas).apply(throw=True)
    leave([workflow, f"after {name}"])


@app.task
def call(contexts: Sequence[Mapping[str, Any]], mark: Mark, context: Any = None) -> None:
    """Call tasks directly: `item` with each of these, and a task that fails."""
    workflow, name = mark
    for number, inner in enumerate(contexts):
        leave([workflow, f"before {name} {number}"])
        item(inner)
        step(context={"workflow_id": inner["workflow_id"]} if "workflow_id" in inner else None, mark=inner["mark"])
        try:
            fail(mark=inner["mark"], context=inner)
        except KeyError:
            leave([workflow, f"after {name} {number}"])


@app.task(bind=True)
def replace(self: Task, canvas: Signature, mark: Mark, context: Any = None) -> None:
    leave(mark)
    raise self.replace(app.signature(canvas))


@app.task(bind=True, max_retries=2)
def retry(self: Task, mark: Mark, context: Any = None) -> None:
    workflow, name = mark
    leave([workflow, f"{name} {self.request.retries}"])
    if self.request.retries < 2:
        raise self.retry(countdown=0)


@app.task(bind=True)
def wait_for_the_limit(self: Task, mark: Mark, context: Any = None) -> None:
    workflow, name = mark
    leave([workflow, f"before {name}"])
    try:
        while True:
            time.sleep(0.01)
    except SoftTimeLimitExceeded:
        leave([workflow, f"after {name}"])
        raise


@app.task
def be_killed(mark: Mark, context: Any = None) -> None:
    leave(mark)
    os.kill(os.getpid(), signal.SIGKILL)


@signals.task_failure.connect(sender=be_killed)
def notice(kwargs: Mapping[str, Any], **_: Any) -> None:
    """What an application does about failures, in whichever process Celery notices them."""
    leave([kwargs["mark"][0], "signal"])


@app.task
def interrupt(line: int, note: str, mark: Mark, context: Any = None) -> None:
    """The soft time limit is up when the shim comes to its n-th line after the body of this task.

    That may be in the next task of this process. `note` says which line it was. The exception comes at the start of a
    line, where Python could have called the handler of the signal.
    """
    lines = tasks = 0

    def trace(frame: Any, event: str, _: Any) -> Callable[..., Any] | None:
        nonlocal lines, tasks
        if event == "return" and frame.f_code.co_name == "fast_trace_task":
            tasks += 1
        if event == "line" and "/services/common/tmp_redirect/" in frame.f_code.co_filename:
            lines += 1
        if tasks == 2 or lines == line:
            sys.settrace(None)
        if lines == line:
            with open(note, "x", encoding="utf-8") as file:
                file.write(f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}")
            raise SoftTimeLimitExceeded
        return trace

    frame = sys._getframe()
    while frame is not None and frame.f_code.co_name != "workloop":
        frame.f_trace = trace
        frame = frame.f_back
    sys.settrace(trace)


class Batch(Task):
    """A task whose messages wait in the worker until there are `size` of them, as with celery-batches.

    Its body gets them all at once, in a call that has neither message nor request of its own.
    """

    abstract = True
    size = 3

    def Strategy(self, task: Batch, app: Any, consumer: Any) -> Callable[..., None]:  # noqa: N802 - Celery's name
        base = symbol_by_name(task.Request)
        request_class = create_request_cls(
            base, task, consumer.pool, consumer.hostname, consumer.event_dispatcher, app=app
        )
        waiting: list[Any] = []

        def receive(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any, **_: Any) -> None:
            request = request_class(
                message,
                on_ack=ack,
                on_reject=reject,
                app=app,
                hostname=consumer.hostname,
                eventer=consumer.event_dispatcher,
                task=task,
                connection_errors=consumer.connection_errors,
                body=message.body,
                headers=message.headers,
                decoded=False,
                utc=True,
            )
            request.acknowledge()
            waiting.append({"id": request.id, "kwargs": request.kwargs})
            if len(waiting) == self.size:
                consumer.pool.apply_async(run_batch, (task.name, waiting.copy()))
                waiting.clear()

        return receive


def run_batch(name: str, requests: Sequence[Mapping[str, Any]]) -> None:
    """The function that the pool runs for a batch."""
    app.tasks[name](requests)


@app.task(base=Batch, bind=True)
def batch(self: Task, requests: Sequence[Mapping[str, Any]]) -> None:
    """For each request in its workflow: a file, and a task of its own; around them outside any workflow."""
    for request in requests:
        context, mark = request["kwargs"]["context"], request["kwargs"]["mark"]
        outside = [current_workflow(), leave(["outside", f"before {mark[0]}"])]
        with workflow(context["workflow_id"]):
            inside = [current_workflow(), leave(mark)]
            published = step.delay(mark=[mark[0], "published"]).id
        outside.append(leave(["outside", f"after {mark[0]}"]))
        self.backend.mark_as_done(request["id"], [outside, inside, published])


@app.task(base=Batch, bind=True, size=1)
def batch_of_one(self: Task, requests: Sequence[Mapping[str, Any]]) -> None:
    self.backend.mark_as_done(requests[0]["id"], where())
