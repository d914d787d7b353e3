"""The Celery application that shows where temp files land: a task with one call site of each kind, for each way.

Loaded by workers with the shim and without, so it knows nothing of it. What a file says is who made it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path

import redis
from celery import Celery
from namespaces import private_temp  # type: ignore[import-not-found]

BY_HAND, NAMESPACE = "edited by hand", "mount namespace"
_CHILD = """
import sys, tempfile
with tempfile.NamedTemporaryFile("w", dir=sys.argv[2] or None, delete=False) as file:
    file.write(sys.argv[1])
"""
_SHELL = 'printf %s "$0" > "$(mktemp ${1:+-p "$1"})"'

app = Celery("isolation", broker=os.environ["BENCHMARK_BROKER"] + "/0")
app.conf.update(task_ignore_result=True, task_default_queue=os.environ["BENCHMARK_QUEUE"])


@app.task(name="make")  # type: ignore[untyped-decorator]
def make(context: dict[str, str], way: str, others: int) -> None:
    """Make a file at each of `SITES` while `others` do the same, then say so."""
    workspace = f"{os.environ['BENCHMARK_ROOT']}/{context['workflow_id']}/tmp"
    store = redis.Redis.from_url(os.environ["BENCHMARK_BROKER"] + "/1")
    with private_temp(workspace) if way == NAMESPACE else contextlib.nullcontext():
        if way == BY_HAND:
            Path(workspace).mkdir(parents=True, exist_ok=True)
        _meet(store, f"{context['run']} begin", others)
        for name, site in SITES.items():
            with contextlib.suppress(OSError):  # refused: then there is no file
                site(f"{context['run']}\t{context['workflow_id']}\t{name}", workspace if way == BY_HAND else "")
        _meet(store, f"{context['run']} end", others)
    store.rpush(f"{context['run']} done", "")


def _meet(store: redis.Redis, key: str, others: int) -> None:
    """Wait until the others are here too."""
    if store.incr(key) > others:
        store.rpush(f"{key} all", *[""] * (others + 1))
    store.blpop([f"{key} all"])


def _tempfile(content: str, directory: str) -> None:
    with tempfile.NamedTemporaryFile("w", dir=directory or None, delete=False) as file:
        file.write(content)


def _thread(content: str, directory: str) -> None:
    thread = threading.Thread(target=_tempfile, args=(content, directory))
    thread.start()
    thread.join()


def _library(content: str, directory: str) -> None:
    # One that nobody has edited: it makes its file with NamedTemporaryFile(delete=False).
    urllib.request.urlretrieve("data:," + urllib.parse.quote(content))  # noqa: S310


def _python_child(content: str, directory: str) -> None:
    subprocess.run([sys.executable, "-c", _CHILD, content, directory], check=True)


def _shell_child(content: str, directory: str) -> None:
    subprocess.run(["sh", "-c", _SHELL, content, directory], check=True)


def _path(content: str, directory: str) -> None:
    with open(f"{directory or '/tmp'}/{uuid.uuid4()}", "w") as file:  # noqa: PTH123 - as it is written
        file.write(content)


SITES: dict[str, Callable[[str, str], None]] = {
    "tempfile": _tempfile,
    "in a thread": _thread,
    "in a library": _library,
    "Python child": _python_child,
    "mktemp in a shell": _shell_child,
    '"/tmp/..." written out': _path,
}
