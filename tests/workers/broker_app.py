"""Tasks that leave files behind, so that a directory listing tells where each of them was."""

from __future__ import annotations

import subprocess
import tempfile
from typing import Any

from celery import Task
from worker_app import app

TRIES = 3


def leave_files(name: str) -> None:
    """One file made by Python, one by another program."""
    tempfile.NamedTemporaryFile(prefix=f"{name}.py.", delete=False).close()
    subprocess.run(["mktemp", "-t", f"{name}.sh.XXXXXX"], stdout=subprocess.DEVNULL, check=True)


@app.task(bind=True)
def leave(self: Task, name: str, context: dict[str, Any] | None = None) -> None:
    leave_files(name)


@app.task(bind=True)
def publish(
    self: Task, name: str, times: int, context: dict[str, Any] | None = None, queue: str | None = None
) -> str | None:
    """Publish this task anew, without the context, and so on; the id of what was published."""
    leave_files(f"{name}-{times}")
    return str(publish.apply_async((name, times - 1), queue=queue).id) if times else None


@app.task(bind=True, max_retries=TRIES - 1)
def retry(self: Task, name: str, context: dict[str, Any] | None = None) -> None:
    leave_files(f"{name}-{self.request.retries}")
    if self.request.retries < TRIES - 1:
        raise self.retry(countdown=0)
