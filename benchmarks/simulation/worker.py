"""Runs the real code of a task: what the Celery integration does before and after it, and when it is published.

Of Celery itself there is only what the integration asks of it: a tracer, which runs the body of a task and tells how
it ended, and messages. A broker delivers each message after `BROKER` seconds to a process that has nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from celery._state import _task_stack
from celery.app.task import Context

from services.common.tmp_redirect import scope
from services.common.tmp_redirect.integrations import celery

BROKER = 0.001  # seconds
Body = Callable[[], None]


@dataclass
class Task:
    """A message: `chain` is the rest of its chain, `group` its place in one. It ends in `state`."""

    workflow: str
    id: str
    body: Body = lambda: None
    state: str = "SUCCESS"
    chain: list[Task] = field(default_factory=list)
    group: int | None = None
    deliver: Callable[[Task], None] = lambda _: None  # called by the worker that publishes the next one
    headers: dict[str, Any] = field(default_factory=dict)  # of its message

    @property
    def kwargs(self) -> dict[str, Any]:
        """Its arguments, by name."""
        return {"context": {"workflow_id": self.workflow}}

    @property
    def request(self) -> dict[str, Any]:
        """What Celery knows of it. The canvas of a chain is named by its workflow, a member of a group by itself."""
        rest = [{"task": "app.step", "options": {"task_id": task.id}} for task in reversed(self.chain)]
        if self.group is None:
            return {**self.headers, "id": self.id, "root_id": self.workflow, "chain": rest}
        return {**self.headers, "id": self.id, "root_id": self.id, "group": self.workflow, "group_index": self.group}


def publish(task: Task) -> None:
    """What a process does that publishes a task."""
    task.headers = {"id": task.id}
    celery._publish_scope("app.step", headers=task.headers, body=((), task.kwargs, {}))  # noqa: SLF001


def run(task: Task) -> None:
    """What a worker's process does for a task. Raises what the task raises that gets no workspace."""
    tracer = celery._build_tracer(lambda _, runs: _tracer(task, runs), None, ("app.step", _Celery()), {})  # noqa: SLF001
    tracer(task.id, (), task.kwargs, task.request)


class _Celery:
    """A task as Celery has it."""

    app = None

    def __call__(self) -> None:
        """No error has come before the body."""


def _tracer(task: Task, runs: Any) -> Callable[..., Any]:
    def trace(task_id: str, args: object, kwargs: object, request: Mapping[str, Any] | None) -> Any:
        runs()  # raises where the integration has put a task in its place that does
        assert scope.workspace().endswith(f"/{task.workflow}/tmp")
        task.body()
        _task_stack.push(SimpleNamespace(request=Context(request)))
        if task.state == "SUCCESS" and task.chain:
            following = task.chain[0]
            following.chain = task.chain[1:]
            publish(following)
            following.deliver(following)
        elif task.state == "RETRY":
            publish(task)
        _task_stack.pop()
        return None, None if task.state == "SUCCESS" else SimpleNamespace(state=task.state, retval=None)

    return trace
