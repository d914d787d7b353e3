"""A Celery application with metrics of its own, whose tasks enter scopes and try to use system temp."""

from __future__ import annotations

import contextlib
import glob
import os
import signal
import time
from typing import Any

import prometheus_client
from celery import Celery
from celery.signals import worker_ready
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from services.common.tmp_redirect import workflow

app = Celery("tests", broker=os.environ["BROKER"], backend=os.environ["BACKEND"])
app.conf.update(worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True)

OWN = prometheus_client.Counter("own_tasks", "Tasks that have run.")


class OfLiveProcesses(MultiProcessCollector):
    """As in docs/metrics.md."""

    def collect(self) -> Any:
        for file in glob.glob(f"{self._path}/gauge_live*.db"):
            pid = file.rpartition("_")[2].removesuffix(".db")
            if not os.path.exists(f"/proc/{pid}"):
                mark_process_dead(pid)
        return super().collect()


@worker_ready.connect
def serve_metrics(**_: object) -> None:
    registry = prometheus_client.CollectorRegistry()
    OfLiveProcesses(registry)
    prometheus_client.start_http_server(int(os.environ["METRICS_PORT"]), addr="127.0.0.1", registry=registry)


@app.task
def attempt(times: int, **kwargs: object) -> int:
    """Enter a scope inside the task's, and try as often to use system temp."""
    OWN.inc()
    path = f"/tmp/tmp-redirect-metrics-{os.getpid()}"
    with workflow("inner"):
        for _ in range(times):
            with contextlib.suppress(PermissionError):
                open(path, "w").close()
                os.remove(path)
    time.sleep(0.05)  # so that the other process gets the next one
    return os.getpid()


@app.task
def die(note: str, **kwargs: object) -> None:
    with open(note, "w", encoding="ascii") as file:
        file.write(str(os.getpid()))
    os.kill(os.getpid(), signal.SIGKILL)
