"""Violations as events of Celery: `task-tmp-violation`, or outside of a task `tmp_redirect-violation`.

For `celery events`, Flower and other monitors; Flower counts only events of tasks. Celery takes the first for a state
of the task, which the one it ends with replaces.

Publishing talks to the broker and takes locks, which can't be done where a violation happens: that may be anywhere. So
call sites that are new wait until the task in which they were seen has ended, or the worker is ready. One event each,
whether or not the worker sends events of tasks (`-E`): without a monitor the broker drops them.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from types import FrameType
from typing import Any

import celery

from ..guard import Violation, listen
from ..patches import Patches

_MOST = 100  # that wait while the broker is away
_PATIENCE = 2  # seconds that a task's process may lose on a broker that doesn't answer

_pending: deque[tuple[int, dict[str, Any]]] = deque(maxlen=_MOST)


def install(patches: Patches) -> None:
    """Have events made of the violations of this process; `send_pending` sends them."""
    patches.on_undo(listen(_note))
    patches.on_undo(_pending.clear)


def send_pending(app: celery.Celery, hostname: str | None) -> None:
    """Send what waits, as the worker `hostname`; if the broker can't be reached it goes on waiting."""
    if _pending:
        with contextlib.suppress(Exception):  # a task must not fail because of a monitor
            _send(app, hostname)


def _note(violation: Violation, path: str, frame: FrameType) -> None:
    if violation.count == 1:
        fields: dict[str, Any] = {
            "call": violation.call, "path": path, "where": violation.where, "function": violation.function,
            "workflow": violation.workflow,
        }  # fmt: skip
        task = celery.current_task
        if task and task.request.id:
            fields |= {"type": "task-tmp-violation", "uuid": task.request.id, "name": task.name}
        else:
            fields["type"] = "tmp_redirect-violation"
        _pending.append((os.getpid(), fields))


def _send(app: celery.Celery, hostname: str | None) -> None:
    with app.connection_for_write(connect_timeout=_PATIENCE) as connection:
        connection.ensure_connection(max_retries=1, timeout=_PATIENCE)
        with app.events.Dispatcher(connection, hostname, buffer_while_offline=False) as dispatcher:
            while _pending:
                pid, fields = _pending[0]
                if pid == os.getpid():  # not of the process that this one was forked from
                    dispatcher.send(**fields)
                _pending.popleft()
