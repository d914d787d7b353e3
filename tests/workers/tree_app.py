"""The Celery application that grows trees: one task of the target's shape, which knows nothing of the shim."""

from __future__ import annotations

import os
from typing import Any

import trees
from celery import Celery, Task

app = Celery("trees", broker=os.environ["BROKER"], backend=os.environ["BACKEND"])
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    result_expires=None,
)
trees.preload()


@app.task(bind=True)
def grow(self: Task, context: dict[str, Any]) -> None:
    trees.grow(context["tree"])


app.finalize()  # as a worker does; otherwise two threads that use a task first at once may get one that isn't ready
