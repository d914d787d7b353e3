"""A process that is forked while another thread first uses the shim: it must not wait for what will never be there."""

from __future__ import annotations

from pathlib import Path

import pytest

PACKAGE = "services.common.tmp_redirect"


@pytest.mark.promise
@pytest.mark.fresh(env={"PYTHONPATH": "{overlay}:{helpers}"})
@pytest.mark.parametrize("module", ["subprocess", f"{PACKAGE}.observers", f"{PACKAGE}.lifecycle"])
def test_a_fork_while_a_thread_enters_its_first_workflow(root: Path, overlay: Path, helpers: Path, module: str):
    import os
    import tempfile

    from forks import fork_during_import

    from services.common.tmp_redirect import workflow

    def use(name):
        with workflow(name):
            os.close(tempfile.mkstemp()[0])

    assert fork_during_import(module, use) == 0
    assert [len(list((root / name / "tmp").iterdir())) for name in ("thread", "child")] == [1, 1]


@pytest.mark.promise
@pytest.mark.fresh(env={"PYTHONPATH": "{overlay}:{helpers}", "TMP_REDIRECT_SCOPE": "wf-1"})
@pytest.mark.parametrize("module", [f"{PACKAGE}.{name}" for name in ("lifecycle", "guard", "propagate.environment")])
def test_a_fork_while_a_thread_makes_the_first_temp_file_or_child(
    root: Path, overlay: Path, helpers: Path, module: str
):
    import os
    import subprocess
    import tempfile

    from forks import fork_during_import

    def use(name):
        os.close(tempfile.mkstemp(prefix=name)[0])
        subprocess.run(["mktemp", "-t", f"{name}XXXXXX"], stdout=subprocess.DEVNULL, check=True)

    assert fork_during_import(module, use) == 0
    names = sorted(path.name for path in (root / "wf-1" / "tmp").iterdir())
    assert [name.startswith("child") for name in names] == [True, True, False, False]


@pytest.mark.promise
@pytest.mark.fresh(env={"PYTHONPATH": "{overlay}:{helpers}"})
def test_a_fork_while_a_thread_purges_for_the_first_time(root: Path, overlay: Path, helpers: Path):
    import os
    import tempfile

    from forks import fork_during_import

    from services.common.tmp_redirect import workflow

    def use(name):
        with workflow(name):
            os.close(tempfile.mkstemp()[0])
            (root / ".leases" / name / "over").touch()

    assert fork_during_import("services.common.tmp_redirect.lifecycle.purge", use) == 0
    assert [path.name for path in root.iterdir() if not path.name.startswith(".")] == []


@pytest.mark.promise
@pytest.mark.fresh(env={"PYTHONPATH": "{overlay}:{helpers}", "TMP_REDIRECT_SCOPE": "wf-1"})
def test_a_fork_while_a_thread_is_refused_for_the_first_time(root: Path, overlay: Path, helpers: Path):
    import json

    from forks import fork_during_import

    from services.common.tmp_redirect import TmpFallbackError

    def use(name):
        try:
            open(f"/tmp/tmp-redirect-test-{name}", "w")
        except TmpFallbackError:
            return
        raise AssertionError("not refused")

    assert fork_during_import("services.common.tmp_redirect.guard.journal", use) == 0
    (journal,) = root.glob(".outside/*/violations.jsonl")
    assert sorted(json.loads(line)["path"].rpartition("-")[2] for line in journal.open()) == ["child", "thread"]


@pytest.mark.promise
@pytest.mark.fresh(env={"PYTHONPATH": "{overlay}:{helpers}", "TMP_REDIRECT_SCOPE": "wf-1"})
def test_a_fork_while_a_thread_asks_for_the_first_path(root: Path, overlay: Path, helpers: Path):
    from forks import fork_during_import

    from services.common.tmp_redirect import get_temp_path

    def use(name):
        with open(get_temp_path(name), "x"):
            pass

    assert fork_during_import("services.common.tmp_redirect.workspace", use) == 0
    assert [len(list((root / name / "tmp").iterdir())) for name in ("thread", "child")] == [1, 1]


@pytest.mark.promise
@pytest.mark.fresh(env={"PYTHONPATH": "{overlay}:{helpers}", "TMP_REDIRECT_SCOPE": "wf-1"})
def test_a_fork_while_a_thread_makes_the_first_socket(root: Path, overlay: Path, helpers: Path):
    import os
    from multiprocessing.connection import Listener

    from forks import fork_during_import

    from services.common.tmp_redirect.settings import current

    def use(name):
        with Listener(family="AF_UNIX") as listener:
            assert listener.address.startswith(f"{current().socket_dir}/{os.getpid()}-"), name

    assert fork_during_import("services.common.tmp_redirect.propagate.sockets", use) == 0

    from services.common.tmp_redirect.propagate import remove_dead_sockets

    remove_dead_sockets(current().socket_dir)  # the child has ended without atexit, maybe before the thread looked
    assert [name.partition("-")[0] for name in os.listdir(current().socket_dir)] == [str(os.getpid())]


@pytest.mark.promise
@pytest.mark.fresh(env={"PYTHONPATH": "{overlay}:{helpers}"})
def test_a_fork_while_a_threads_environment_follows_a_second_workflow(root: Path, overlay: Path, helpers: Path):
    import os

    from forks import fork_during_import

    from services.common.tmp_redirect import workflow
    from services.common.tmp_redirect.propagate import Environment
    from services.common.tmp_redirect.scope import current

    def use(name):
        environment = Environment()
        for number in (1, 2):
            with workflow(f"{name}-{number}"):
                environment.follow(current())
                assert os.environ["TMP_REDIRECT_SCOPE"] == f"{name}-{number}"

    assert fork_during_import("services.common.tmp_redirect.propagate.putenv", use) == 0


@pytest.mark.promise
@pytest.mark.fresh
def test_a_fork_does_not_wait_for_ever(root: Path):
    import os
    import signal
    import tempfile
    import threading

    from services.common.tmp_redirect import patches, workflow

    patches._FORK_PATIENCE = 0.1
    held, ended = threading.Event(), threading.Event()

    def hold():
        with patches.loading:
            held.set()
            ended.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(20)
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        with workflow("child"):
            os.close(tempfile.mkstemp()[0])
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    ended.set()
    thread.join()
    assert status == 0
    assert len(list((root / "child" / "tmp").iterdir())) == 1
    with workflow("parent"):
        os.close(tempfile.mkstemp()[0])
