"""Tasks that meet inside a worker, and every way in which one of them has its temp files made by something it starts.

The code knows nothing of the shim.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from apis import every_api, paths_of_every_api
from celery import Task, signals
from worker_app import APIS, app

__all__ = ["app"]

app.conf.worker_prefetch_multiplier = 0  # else pools of greenlets fetch the next tasks 2 s after the last ones

PATIENCE = 30  # seconds that a task waits for the others
STALE = dict(os.environ)
BEHIND = os.path.join(os.environ["TMP_REDIRECT_ROOT"], "behind")
SHARED = ThreadPoolExecutor(2)  # fewer threads than tasks that use them
MKTEMP = shutil.which("mktemp") or "mktemp"
_at_start: dict[str, Any] = {}


def shared_state() -> dict[str, Any]:
    """What all the tasks of a process have in common."""
    return {"environ": dict(os.environ), "tempdir": tempfile.tempdir}


@signals.worker_ready.connect
def remember(**_: Any) -> None:
    _at_start.update(shared_state())


class Meeting:
    """Where as many tasks as are `expected` wait for each other; each is known by its workflow."""

    def __init__(self, directory: str, expected: int, workflow: str) -> None:
        self.directory, self.expected, self.workflow = directory, expected, workflow

    def all_here(self, stage: str) -> None:
        """Return when all of them have come to this stage."""
        directory = os.path.join(self.directory, stage)
        os.makedirs(directory, exist_ok=True)
        open(os.path.join(directory, self.workflow), "x").close()
        deadline = time.monotonic() + PATIENCE
        while len(os.listdir(directory)) < self.expected:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{os.listdir(directory)} of {self.expected} have come to {stage}")
            time.sleep(0.005)

    @property
    def note(self) -> str:
        """A path for what a child has to say."""
        return os.path.join(self.directory, f"note of {self.workflow}")


Way = Callable[[str, Meeting], list[str]]  # makes files that begin with a prefix and returns their paths


@app.task(bind=True)
def together(self: Task, context: dict[str, Any], way: str, meeting: str, expected: int) -> dict[str, Any]:
    """Make temp files in one of the ways while the other tasks of the meeting are inside too."""
    here = Meeting(meeting, expected, context["workflow_id"])
    here.all_here("before")
    paths = WAYS[way](f"pool@{here.workflow}@", here)
    state = {**shared_state(), "gettempdir": tempfile.gettempdir(), "pid": os.getpid()}
    here.all_here("after")
    return {**state, "paths": paths, "at_start": _at_start}


@app.task(bind=True)
def leave_behind(self: Task, context: dict[str, Any]) -> None:
    """Start a thread and a work item that make their files when this task has long ended."""
    os.makedirs(BEHIND)
    prefix = f"pool@{context['workflow_id']}@"
    threading.Thread(target=_wait_and_work, args=(prefix, "thread"), daemon=True).start()
    SHARED.submit(_wait_and_work, prefix, "item")


def _wait_and_work(prefix: str, name: str) -> None:
    _wait_for("go")
    paths = [*paths_of_every_api(prefix), *_python_child(prefix)]
    with open(os.path.join(BEHIND, f"{name}.new"), "w", encoding="utf-8") as note:
        json.dump(paths, note)
    os.rename(note.name, os.path.join(BEHIND, name))


def _wait_for(name: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not os.path.exists(os.path.join(BEHIND, name)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"there is no {name}")
        time.sleep(0.005)


def what_was_left_behind_works(prefix: str, _: Meeting) -> list[str]:
    """Wait until it has made its files, beside those of this task."""
    open(os.path.join(BEHIND, "go"), "w").close()
    _wait_for("thread")
    _wait_for("item")
    return paths_of_every_api(prefix)


def in_step(prefix: str, meeting: Meeting) -> list[str]:
    """Each API in all tasks at once, and then the next one."""
    paths = []
    for name, make in every_api(prefix=prefix).items():
        meeting.all_here(name)
        paths += make()
    return paths


def thread(prefix: str, _: Meeting) -> list[str]:
    paths: list[str] = []
    started = threading.Thread(target=lambda: paths.extend(paths_of_every_api(prefix)))
    started.start()
    started.join()
    return paths


def thread_of_a_thread(prefix: str, meeting: Meeting) -> list[str]:
    paths: list[str] = []
    started = threading.Thread(target=lambda: paths.extend(thread(prefix, meeting)))
    started.start()
    started.join()
    return paths


def timer(prefix: str, _: Meeting) -> list[str]:
    paths: list[str] = []
    started = threading.Timer(0, lambda: paths.extend(paths_of_every_api(prefix)))
    started.start()
    started.join()
    return paths


def own_executor(prefix: str, _: Meeting) -> list[str]:
    with ThreadPoolExecutor(2) as executor:
        submitted = executor.submit(paths_of_every_api, prefix)
        return [*submitted.result(), *next(executor.map(paths_of_every_api, [prefix]))]


def shared_executor(prefix: str, meeting: Meeting) -> list[str]:
    """Twice: a thread that one task made works for another."""
    first = SHARED.submit(paths_of_every_api, prefix).result()
    meeting.all_here("between")
    return [*first, *SHARED.submit(paths_of_every_api, prefix).result()]


def done_callback(prefix: str, _: Meeting) -> list[str]:
    """What is called in the executor's thread once the work is done."""
    paths: list[str] = []
    go, called = threading.Event(), threading.Event()

    def callback(_: Future[Any]) -> None:
        paths.extend(paths_of_every_api(prefix))
        called.set()

    with ThreadPoolExecutor(1) as executor:
        executor.submit(go.wait).add_done_callback(callback)
        go.set()
    called.wait(PATIENCE)
    return paths


def python_child(prefix: str, _: Meeting) -> list[str]:
    return _python_child(prefix)


def python_child_with_a_stale_environment(prefix: str, _: Meeting) -> list[str]:
    return _python_child(prefix, env=STALE)


def _python_child(prefix: str, **options: Any) -> list[str]:
    done = subprocess.run([sys.executable, APIS, prefix], capture_output=True, text=True, check=True, **options)
    paths: list[str] = json.loads(done.stdout)
    return paths


def native_child(prefix: str, _: Meeting) -> list[str]:
    return _native_child(prefix)


def native_child_without_environment(prefix: str, _: Meeting) -> list[str]:
    return _native_child(prefix, env={})


def _native_child(prefix: str, **options: Any) -> list[str]:
    done = subprocess.run([MKTEMP, "-t", f"{prefix}XXXXXX"], capture_output=True, text=True, check=True, **options)
    return [done.stdout.strip()]


def os_system(prefix: str, meeting: Meeting) -> list[str]:
    status = os.system(f"mktemp -t '{prefix}XXXXXX' >'{meeting.note}'")
    assert status == 0
    return _noted(meeting)


def os_popen(prefix: str, _: Meeting) -> list[str]:
    with os.popen(f"mktemp -t '{prefix}XXXXXX'") as output:
        return [output.read().strip()]


def os_posix_spawn(prefix: str, meeting: Meeting) -> list[str]:
    output = (os.POSIX_SPAWN_OPEN, 1, meeting.note, os.O_WRONLY | os.O_CREAT, 0o600)
    pid = os.posix_spawn(MKTEMP, [MKTEMP, "-t", f"{prefix}XXXXXX"], os.environ, file_actions=[output])
    assert os.waitpid(pid, 0)[1] == 0
    return _noted(meeting)


def _noted(meeting: Meeting) -> list[str]:
    with open(meeting.note, encoding="utf-8") as note:
        return [note.read().strip()]


def coroutines(prefix: str, _: Meeting) -> list[str]:
    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        every = await asyncio.gather(
            asyncio.create_task(_coroutine(prefix)),
            asyncio.to_thread(paths_of_every_api, prefix),
            loop.run_in_executor(None, paths_of_every_api, prefix),
        )
        return [path for paths in every for path in paths]

    return asyncio.run(main())


async def _coroutine(prefix: str) -> list[str]:
    await asyncio.sleep(0)
    return paths_of_every_api(prefix)


def gevent_spawn(prefix: str, _: Meeting) -> list[str]:
    import gevent

    started = [gevent.spawn(paths_of_every_api, prefix), gevent.spawn_later(0, paths_of_every_api, prefix)]
    return [path for greenlet in started for path in greenlet.get()]


def gevent_pool(prefix: str, _: Meeting) -> list[str]:
    import gevent.pool

    return [path for paths in gevent.pool.Pool(2).map(paths_of_every_api, [prefix] * 3) for path in paths]


def gevent_threadpool(prefix: str, _: Meeting) -> list[str]:
    import gevent

    pool = gevent.get_hub().threadpool
    return [*pool.apply(paths_of_every_api, (prefix,)), *pool.spawn(paths_of_every_api, prefix).get()]


def eventlet_spawn(prefix: str, _: Meeting) -> list[str]:
    import eventlet

    started = [eventlet.spawn(paths_of_every_api, prefix), eventlet.spawn_after(0, paths_of_every_api, prefix)]
    return [path for greenlet in started for path in greenlet.wait()]


def eventlet_pool(prefix: str, _: Meeting) -> list[str]:
    import eventlet

    return [path for paths in eventlet.GreenPool(2).imap(paths_of_every_api, [prefix] * 3) for path in paths]


def eventlet_tpool(prefix: str, _: Meeting) -> list[str]:
    import eventlet.tpool

    paths: list[str] = eventlet.tpool.execute(paths_of_every_api, prefix)
    return paths


WAYS: dict[str, Way] = {
    function.__name__: function
    for function in (
        in_step, what_was_left_behind_works, thread, thread_of_a_thread, timer, own_executor, shared_executor,
        done_callback, python_child, python_child_with_a_stale_environment, native_child,
        native_child_without_environment, os_system, os_popen, os_posix_spawn, coroutines, gevent_spawn, gevent_pool,
        gevent_threadpool, eventlet_spawn, eventlet_pool, eventlet_tpool,
    )
}  # fmt: skip
