"""Greenlets of gevent and eventlet, and calls in their threads, belong to the workflow of who spawned them."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

PATCH = {
    "gevent": "import gevent.monkey; gevent.monkey.patch_all(); import gevent.pool, gevent.threadpool",
    "eventlet": "import eventlet, eventlet.tpool; eventlet.monkey_patch()",
}
WAYS = {
    "gevent": {
        "spawn": "gevent.spawn(note).get()",
        "spawn_later": "gevent.spawn_later(0, note).get()",
        "Greenlet": "g = gevent.Greenlet(note); g.start(); g.get()",
        "of a greenlet": "gevent.spawn(lambda: gevent.spawn(note).get()).get()",
        "Pool.map": "gevent.pool.Pool(2).map(note, [1, 2])",
        "threadpool.apply": "gevent.get_hub().threadpool.apply(note)",
        "threadpool.spawn": "gevent.get_hub().threadpool.spawn(note).get()",
        "ThreadPoolExecutor": "with gevent.threadpool.ThreadPoolExecutor(1) as pool: pool.submit(note).result()",
        "the module's executor": "executor.submit(note).result()",
    },
    "eventlet": {
        "spawn": "eventlet.spawn(note).wait()",
        "spawn_n": "e = eventlet.Event(); eventlet.spawn_n(lambda: (note(), e.send())); e.wait()",
        "spawn_after": "eventlet.spawn_after(0, note).wait()",
        "of a greenlet": "eventlet.spawn(lambda: eventlet.spawn(note).wait()).wait()",
        "GreenPool": "list(eventlet.GreenPool(2).imap(note, [1, 2]))",
        "GreenPool.spawn_n": "pool = eventlet.GreenPool(2); pool.spawn_n(note); pool.waitall()",
        "tpool": "eventlet.tpool.execute(note)",
        "tpool.Proxy": "eventlet.tpool.Proxy(tempfile).mkdtemp()",
        "the module's executor": "executor.submit(note).result()",
    },
}
SCRIPT = """
import os, subprocess, tempfile, threading
from concurrent.futures import ThreadPoolExecutor
from services.common.tmp_redirect import uninstall, workflow

def note(*_):
    tempfile.mkdtemp()

def check(asked, run, label):
    with workflow(asked):
        before = len(os.listdir(f"{root}/{asked}/tmp"))
        run()
        assert len(os.listdir(f"{root}/{asked}/tmp")) > before, label

executor = ThreadPoolExecutor(2)
environment, tempdir = dict(os.environ), tempfile.tempdir
"""
FOR_BOTH = {
    "Thread": "t = threading.Thread(target=note); t.start(); t.join()",
    "ThreadPoolExecutor": "with ThreadPoolExecutor(1) as pool: pool.submit(note).result()",
    "subprocess": "subprocess.run(['/bin/mktemp'], check=True)",
    "subprocess env": "subprocess.run(['/bin/mktemp'], env={}, check=True)",
    "os.system": "assert os.system('/bin/mktemp') == 0",
    "os.popen": "os.popen('/bin/mktemp').close()",
}


@pytest.mark.promise
@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_greenlets(shim_env: dict[str, str], root: Path, library: str) -> None:
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    ways = {**WAYS[library], **FOR_BOTH}
    lines = [PATCH[library], f"root = {str(root)!r}", SCRIPT]
    for number, way in enumerate(ways.values()):
        lines += [f"def way{number}():", f"    {way}"]
    lines += ["for asked in ('wf-1', 'wf-2', 'wf-1'):"]
    lines += [f"    check(asked, way{number}, {label!r})" for number, label in enumerate(ways)]
    lines += [
        "assert (dict(os.environ), tempfile.tempdir) == (environment, tempdir)",
        "way0()",
        "assert len(os.listdir(f'{root}/.outside/svc/tmp')) == 1",
        "executor.shutdown()",
        "uninstall()",
        "way0()",
        "assert len(os.listdir(f'{root}/.outside/svc/tmp')) == 1",
    ]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "\n".join(lines)],  # eventlet says that it is deprecated
        env={**shim_env, "TMPDIR": str(root)},
        timeout=60,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
