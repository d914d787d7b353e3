"""Processes of multiprocessing belong to the workflow that starts them, work items of pools to who submits them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

METHODS = ("fork", "spawn", "forkserver")


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.mark.promise
@pytest.mark.fresh(env={"TMPDIR": "/tmp", "PYTHONPATH": "{overlay}:{helpers}"})
def test_processes(root: Path, overlay: Path, helpers: Path, method: str):
    """The forkserver is started by the first workflow, and serves all."""
    import multiprocessing
    import os
    import tempfile
    import threading

    from children import VARIABLES, seen_by

    from services.common.tmp_redirect import workflow

    def note(seen, key, made=None):
        seen[key] = (made or tempfile.mkdtemp(), [os.environ.get(name) for name in VARIABLES])

    def work(path, nested=None):
        seen = {}
        note(seen, "here")
        thread = threading.Thread(target=note, args=[seen, "in a thread"])
        thread.start()
        thread.join()
        made, variables = seen_by(os.system, path + ".note")
        seen["native"] = (made + "/x", [value or None for value in variables])
        if nested:
            with workflow(nested):
                seen["nested"] = (tempfile.mkdtemp(), None)
        with open(path, "w") as file:
            file.write(repr(seen))

    globals()["work"] = work
    if __name__ == "__main__":
        context = multiprocessing.get_context(method)
        before = dict(os.environ)
        for asked in ("wf-1", "wf-2", None, "x" * 255, "工作流"):
            path = str(root / "seen")
            process = context.Process(target=work, args=[path, "nested"])
            if asked:
                with workflow(asked):
                    process.start()
                    process.join()
            else:
                process.start()
                process.join()
            assert process.exitcode == 0
            with open(path) as file:
                seen = eval(file.read())
            assert os.path.dirname(seen.pop("nested")[0]) == f"{root}/nested/tmp"
            native, native_variables = seen.pop("native")
            if asked:
                directory = f"{root}/{asked}/tmp"
                variables = [directory] * 4 + [asked]
            else:
                directory = f"{root}/.outside/svc/tmp"
                variables = ["/tmp", None, None, None, None]
            assert os.path.dirname(native) == directory, (asked, native)
            assert native_variables[:4] == [directory] * 4
            for made, found in seen.values():
                assert os.path.dirname(made) == directory, (asked, made)
                assert found == variables, (asked, found)
        assert dict(os.environ) == before


@pytest.mark.promise
@pytest.mark.fresh(env={"PYTHONPATH": "{overlay}:{helpers}"})
def test_process_pools_shared_by_workflows(root: Path, overlay: Path, helpers: Path, method: str):
    """Made and first used by a workflow that has ended since; each item has the scope of who submits it."""
    import multiprocessing
    import os
    import tempfile
    import threading
    from concurrent.futures import ProcessPoolExecutor

    from children import VARIABLES

    from services.common.tmp_redirect import workflow

    def work(asked, *_):
        return asked, tempfile.mkdtemp(prefix=f"{asked}-"), [os.environ.get(name) for name in VARIABLES]

    def fail(asked):
        raise ValueError(work(asked))

    work.__qualname__, fail.__qualname__ = "work", "fail"
    globals().update(work=work, fail=fail)

    def check(asked, found):
        for label, made, variables in found:
            if asked is None:
                assert os.path.dirname(made) == f"{root}/.outside/svc/tmp", made
                assert variables == [None] * 5, variables
            else:
                directory = f"{root}/{asked}/tmp"
                assert os.path.dirname(made) == directory, (asked, made)
                assert variables == [directory] * 4 + [asked], variables
            assert label == str(asked)

    if __name__ == "__main__":
        context = multiprocessing.get_context(method)
        called = []

        def call_back(result):
            called.append((result, tempfile.mkdtemp()))
            event.set()

        with ProcessPoolExecutor(1, mp_context=context) as executor, context.Pool(1) as pool:
            for asked in ("first", "wf-1", "wf-2", None, "wf-1"):
                event = threading.Event()

                def submit():
                    label = str(asked)
                    found = [executor.submit(work, label).result(), *executor.map(work, [label] * 2)]
                    found += [pool.apply(work, (label,)), *pool.map(work, [label] * 2)]
                    found += [*pool.starmap(work, [(label, 1)]), *pool.imap(work, [label], chunksize=1)]
                    found += pool.imap_unordered(work, [label] * 3, 2)
                    executor.submit(work, label).add_done_callback(lambda future: call_back(future.result()))
                    event.wait()
                    event.clear()
                    pool.apply_async(work, (label,), callback=call_back).wait()
                    event.wait()
                    event.clear()
                    pool.map_async(fail, [label], error_callback=lambda error: call_back(error.args[0])).wait()
                    event.wait()
                    return found + [result for result, _ in called]

                if asked:
                    with workflow(asked):
                        found = submit()
                else:
                    found = submit()
                assert len(found) == 3 + 8 + 3
                check(asked, found)
                expected = f"{root}/{asked}/tmp" if asked else f"{root}/.outside/svc/tmp"
                assert {os.path.dirname(made) for _, made in called} == {expected}
                called.clear()


@pytest.mark.promise
@pytest.mark.parametrize("name", ["loky", "joblib"])
def test_reusable_executors_of_loky(shim_env: dict[str, str], root: Path, tmp_path: Path, name: str) -> None:
    """Their processes are kept between calls, and so between workflows."""
    if find_spec(name) is None:  # importing joblib changes the environment
        pytest.skip(f"{name} is not installed")
    run = {
        "loky": "list(loky.get_reusable_executor(1).map(tempfile.mkdtemp, ['']))",
        "joblib": "joblib.Parallel(n_jobs=2)(joblib.delayed(tempfile.mkdtemp)() for _ in range(2))",
    }[name]
    script = tmp_path / "script.py"
    script.write_text(
        f"import {name}, os, tempfile\n"
        "from services.common.tmp_redirect import workflow\n"
        "if __name__ == '__main__':\n"
        "    for asked in ('wf-1', 'wf-2', 'wf-1'):\n"
        "        with workflow(asked):\n"
        f"            made = {run}\n"
        f"        assert {{os.path.dirname(path) for path in made}} == {{f'{root}/{{asked}}/tmp'}}, made\n"
    )
    done = subprocess.run(
        [sys.executable, script], env=shim_env, timeout=120, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.promise
@pytest.mark.fresh
def test_sockets(root: Path, socket_dir: Path, method: str):
    """Their paths have at most 107 bytes, whatever the workflow is called."""
    import multiprocessing
    import os
    import stat
    from multiprocessing import shared_memory
    from multiprocessing.connection import Client, Listener

    from services.common.tmp_redirect import workflow

    def answer(queue, shared, listener_address):
        shared["seen"] = "yes"
        with Client(listener_address) as connection:
            connection.send("hello")
        queue.put("done")

    globals()["answer"] = answer
    answer.__qualname__ = "answer"

    def sockets():
        return [path for path in socket_dir.glob("*/*") if stat.S_ISSOCK(path.stat().st_mode)]

    if __name__ == "__main__":
        context = multiprocessing.get_context(method)
        asked = "x" * 255
        with workflow(asked):
            with context.Manager() as manager, Listener() as listener:
                assert listener.address.startswith(f"{socket_dir}/{os.getpid()}-"), listener.address
                queue, shared = context.Queue(), manager.dict()
                process = context.Process(target=answer, args=[queue, shared, listener.address])
                process.start()
                with listener.accept() as connection:
                    assert connection.recv() == "hello"
                assert queue.get() == "done" and shared["seen"] == "yes"
                process.join()
                assert len(sockets()) >= 2
            memory = shared_memory.SharedMemory(create=True, size=100)
            memory.close()
            memory.unlink()
        assert {oct(path.stat().st_mode) for path in socket_dir.iterdir()} == {"0o40700"}
        assert oct(socket_dir.stat().st_mode) == "0o41777"
        made = list((root / asked / "tmp").rglob("*"))
        assert not made, made


@pytest.mark.promise
@pytest.mark.fresh
def test_heap_arenas_are_in_the_workspace(root: Path):
    """They are made in /dev/shm while that is large enough; in a container it has 64 MiB."""
    import multiprocessing.heap
    import multiprocessing.util
    import os
    import shutil
    import tempfile

    from services.common.tmp_redirect import uninstall, workflow

    multiprocessing.heap.Arena._dir_candidates = []
    seen = []
    mkstemp = tempfile.mkstemp
    tempfile.mkstemp = lambda **options: (seen.append(options["dir"]), mkstemp(**options))[1]

    def directory_of_an_arena():
        multiprocessing.heap.Arena(4096)
        return seen.pop()

    for asked in ("wf-1", "wf-2", "wf-1"):
        with workflow(asked):
            first = directory_of_an_arena()
            assert os.path.dirname(first) == f"{root}/{asked}/tmp", first
            assert directory_of_an_arena() == first == multiprocessing.util.get_temp_dir()
            shutil.rmtree(root / asked)
            os.makedirs(root / asked / "tmp")
            assert os.path.isdir(directory_of_an_arena())
    assert os.path.dirname(directory_of_an_arena()) == f"{root}/.outside/svc/tmp"
    uninstall()
    assert not hasattr(multiprocessing.util.get_temp_dir, "__wrapped__")


@pytest.fixture
def killed(shim_env: dict[str, str], socket_dir: Path, tmp_path: Path) -> Iterator[list[Path]]:
    """What a process with a manager leaves in the socket directory that was killed with all its children."""
    script = tmp_path / "manager.py"
    script.write_text(
        "import multiprocessing, time\n"
        "from multiprocessing.connection import Listener\n"
        "from services.common.tmp_redirect import workflow\n"
        "if __name__ == '__main__':\n"
        "    with workflow('wf-1'), multiprocessing.Manager() as manager, Listener() as listener:\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, script], env=shim_env, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    left = sorted(socket_dir.iterdir()) if socket_dir.exists() else []
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    while _group_lives(process.pid):
        time.sleep(0.01)
    yield left
    for path in left:
        shutil.rmtree(path, ignore_errors=True)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


LISTEN = "from multiprocessing.connection import Listener\nListener().close()\nimport os; os.write(2, b'made it')"


@pytest.mark.promise
def test_sockets_of_a_killed_process_are_removed_by_the_next(
    shim_env: dict[str, str], killed: list[Path], socket_dir: Path
) -> None:
    assert len(killed) == 2
    assert all(path.exists() for path in killed)
    (socket_dir / "not-ours").mkdir()
    listen = "from multiprocessing.connection import Listener as L; l = L(); print(l.address); input()"
    living = subprocess.Popen(
        [sys.executable, "-c", listen], env=shim_env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert living.stdout is not None
    address = Path(living.stdout.readline().strip())
    assert not any(path.exists() for path in killed)
    done = subprocess.run(
        [sys.executable, "-c", LISTEN], env=shim_env, capture_output=True, check=True, text=True, timeout=60
    )
    assert done.stderr == "made it"
    assert address.exists()
    living.communicate("\n", timeout=60)
    (socket_dir / "not-ours").rmdir()
    assert list(socket_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.write_text(""), "is not a directory"),
        (lambda path: path.symlink_to("/dev/shm"), "is not a directory"),
        (lambda path: (path.mkdir(), os.chown(path, 4711, 4711)), "belongs to uid 4711, not to root or 0"),
    ],
)
def test_a_socket_directory_that_cannot_be_used(
    shim_env: dict[str, str], socket_dir: Path, make: object, reason: str
) -> None:
    if os.geteuid() != 0:
        pytest.skip("this takes root")
    if shim_env["TMP_REDIRECT"] != "off":
        make(socket_dir)  # type: ignore[operator]
        done = subprocess.run([sys.executable, "-c", LISTEN], env=shim_env, capture_output=True, check=False, text=True)
        message = done.stderr.splitlines()[-1]
        if socket_dir.is_dir() and not socket_dir.is_symlink():
            socket_dir.rmdir()
        else:
            socket_dir.unlink()
        assert "WorkspaceError" in message
        assert reason in message
        assert f"the directory for sockets {socket_dir} can't be used" in message
        assert "set TMP_REDIRECT_SOCKET_DIR to a short path on a local file system" in message


@pytest.mark.fresh
def test_uninstall_restores_multiprocessing():
    import multiprocessing.connection
    import multiprocessing.pool
    import multiprocessing.process
    import multiprocessing.spawn
    import multiprocessing.util
    from concurrent.futures import process

    from services.common.tmp_redirect import uninstall, workflow

    with workflow("wf-1"):
        pass
    patched = [
        (multiprocessing.spawn, "get_preparation_data"),
        (multiprocessing.spawn, "prepare"),
        (multiprocessing.util, "get_temp_dir"),
        (multiprocessing.connection, "arbitrary_address"),
        (multiprocessing.process.BaseProcess, "_bootstrap"),
        (process.ProcessPoolExecutor, "submit"),
        (multiprocessing.pool.Pool, "imap"),
    ]
    originals = [getattr(owner, name).__wrapped__ for owner, name in patched]
    uninstall()
    assert [getattr(owner, name) for owner, name in patched] == originals
