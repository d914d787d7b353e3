"""On a shared volume that behaves as NFS does: two hosts whose clients have caches of their own, and no locks.

A real mount takes a kernel with NFS; nfs_like.py says what stands in for it, and in what it is like one. What becomes
of the workspaces is looked at in the backing directory, as the server sees it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import chain

from tests.celery_workers import answer
from tests.test_ends import Ends
from tests.test_lifecycle import HALTED, host, program, purge, python

SOAK = os.environ.get("SOAK")
KILLS = 300 if SOAK else 12
ROUNDS = 2000 if SOAK else 200  # of each host
MNT_DETACH = 2
UNSUPPORTED = ("ENOTSUP", "EOPNOTSUPP")  # two names of one number


class Volume:
    """A backing directory with a root for workspaces, and that root as each of two clients has it."""

    def __init__(self, directory: Path, helpers: Path, stack: ExitStack, *options: str) -> None:
        backing = directory / "backing"
        self.root = backing / "workflows"
        self.root.mkdir(parents=True)
        for name in ("one", "two"):
            (directory / name).mkdir()
            stack.enter_context(mounted(helpers, backing, directory / name, *options))
        self.one, self.two = (directory / name / "workflows" for name in ("one", "two"))

    def left(self) -> set[str]:
        """What is left of what the shim has made for workflows, and in the trash."""
        paths = {path.relative_to(self.root) for path in self.root.rglob("*")}
        found = {str(path) for path in paths if path.parts[0] in (".trash", ".leases") or path.name == "tmp"}
        return found - {".trash", ".leases", ".leases/.outside"}


@contextmanager
def mounted(helpers: Path, backing: Path, mountpoint: Path, *options: str) -> Iterator[None]:
    command = [sys.executable, helpers / "nfs_like.py", backing, mountpoint, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as client:
        try:
            assert client.stdout is not None and client.stderr is not None
            if client.stdout.readline() != "ready\n":
                pytest.skip(f"FUSE is not allowed here: {client.stderr.read().splitlines()[-1]}")
            yield
            assert client.poll() is None, client.stderr.read()
        finally:
            ctypes.CDLL(None).umount2(os.fsencode(mountpoint), MNT_DETACH)
            try:
                client.wait(5)
            except subprocess.TimeoutExpired:
                client.kill()


@pytest.fixture
def volume(request: pytest.FixtureRequest, tmp_path: Path, helpers: Path) -> Iterator[Volume]:
    needed = {"root": os.geteuid() == 0, "/dev/fuse": os.path.exists("/dev/fuse"), "unshare": shutil.which("unshare")}
    if not all(needed.values()):
        missing = [what for what, is_there in needed.items() if not is_there]
        pytest.skip(f"a mount that is like NFS takes {' and '.join(missing)}")
    with ExitStack() as stack:
        yield Volume(tmp_path, helpers, stack, *getattr(request, "param", ()))


@pytest.fixture
def env(volume: Volume, shim_env: dict[str, str]) -> dict[str, str]:
    """Of a process on the first client."""
    return {**shim_env, "TMP_REDIRECT_ROOT": str(volume.one), "TMP_REDIRECT_KEEP": "failed"}


@pytest.fixture
def other(volume: Volume, env: dict[str, str]) -> dict[str, str]:
    """Of a process on the second client."""
    return {**env, "TMP_REDIRECT_ROOT": str(volume.two)}


@pytest.fixture
def alpha(tmp_path: Path) -> tuple[str, ...]:
    """The first client's host, as a command prefix."""
    return another_host(tmp_path, "alpha")


@pytest.fixture
def beta(tmp_path: Path) -> tuple[str, ...]:
    return another_host(tmp_path, "beta")


def another_host(directory: Path, name: str) -> tuple[str, ...]:
    boot_id = directory / f"boot-id-of-{name}"
    boot_id.write_text(f"{secrets.token_hex(4)}-{secrets.token_hex(2)}-4000-8000-{secrets.token_hex(6)}\n")
    prefix = host(name, boot_id)
    done = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"namespaces are not allowed here: {done.stderr}")
    return prefix


def error(function: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    try:
        return f"none, but {function(*arguments, **options)!r}"
    except OSError as raised:
        return errno.errorcode[raised.errno or 0]


def eventually(condition: Callable[[], object]) -> bool:
    """Whether it becomes true; a file is closed a little after `close` has returned."""
    deadline = time.monotonic() + 5
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


SWEEP = """
import json
from services.common.tmp_redirect.lifecycle.sweep import sweep
from services.common.tmp_redirect.settings import current
done = sweep(current(), -1)
print(json.dumps({"removed": done.removed, "trash": done.trash, "deferred": done.deferred}))
"""


def sweep(env: dict[str, str], *prefix: str) -> dict[str, list[Any]]:
    return json.loads(python(SWEEP, env, *prefix))


def test_files_are_as_on_nfs(volume: Volume) -> None:
    one, two, server = volume.one, volume.two, volume.root
    with open(one / "file", "w+") as file:
        (two / "file").read_text()
        os.unlink(one / "file")
        [silly] = os.listdir(server)
        assert silly.startswith(".nfs")
        assert error(os.unlink, one / silly) == "EBUSY"
        file.write("written")
        file.flush()
        assert (server / silly).read_text() == "written"
    assert eventually(lambda: os.listdir(server) == [])

    (one / "directory").mkdir()
    (one / "new").touch()
    with open(one / "directory" / "file", "x"):
        os.rename(one / "new", one / "directory" / "file")
        os.unlink(one / "directory" / "file")
        assert error(os.rmdir, one / "directory") == "ENOTEMPTY"
    assert eventually(lambda: error(os.rmdir, one / "directory").startswith("none"))

    with open(one / "file", "x") as file:
        os.unlink(two / "file")
        assert error(os.write, file.fileno(), b"x") == "ESTALE"
        assert os.listdir(server) == []
    with open(one / "file", "x") as file:
        assert error(fcntl.flock, file, fcntl.LOCK_EX) == "ENOLCK"
        assert error(fcntl.lockf, file, fcntl.LOCK_EX) == "ENOLCK"
    with socket.socket(socket.AF_UNIX) as listener:
        assert error(listener.bind, os.path.relpath(one / "socket")) in UNSUPPORTED
    assert error(os.open, one, os.O_TMPFILE | os.O_RDWR) in UNSUPPORTED


def test_clients_believe_what_they_have_seen(volume: Volume) -> None:
    one, two, server = volume.one, volume.two, volume.root
    (one / "a" / "b").mkdir(parents=True)
    assert not (two / "new").exists()
    assert (two / "a" / "b").is_dir()
    (one / "new").mkdir()
    (one / "a" / "b").rename(one / "new" / "b")
    assert not (two / "new").exists(), "as it was"
    assert (two / "a" / "b").is_dir(), "as it was"
    os.close(os.open(two / "a" / "b", os.O_PATH))
    (two / "a" / "b" / "lost").touch()
    assert (server / "new" / "b" / "lost").exists(), "a directory is the same under whatever name"

    assert os.listdir(two / "a") == [], "it has been asked for when it was opened"
    assert not (two / "a" / "b").exists()
    assert not (two / "new").exists()
    (two / "own").touch()
    assert (two / "new" / "b").is_dir(), "the answer to a change of one's own tells of others"

    directory = os.open(two / "new" / "b", os.O_PATH)
    shutil.rmtree(one / "new")
    assert error(os.open, "file", os.O_CREAT | os.O_EXCL | os.O_WRONLY, dir_fd=directory) == "ESTALE"
    os.close(directory)
    assert error((two / "new" / "b" / "file").touch) == "ENOENT", "with a path, the kernel tries it again"


KILLED = """
import sys
import lifecycles
every = lifecycles.actors
if not {soak}:
    lifecycles.actors = lambda workflow: [every(workflow)[0], every(workflow)[-1]]  # the others come at random
print(lifecycles.exhaust())
print(lifecycles.at_random({seed}, {kills}))
"""


@pytest.mark.promise
@pytest.mark.timeout(1800)
def test_killed_at_every_change_and_at_random(volume: Volume, env: dict[str, str], helpers: Path) -> None:
    seed = SOAK if SOAK and SOAK != "new" else str(secrets.randbelow(10**9))
    print(f"SOAK={seed}")
    body = KILLED.format(soak=bool(SOAK), seed=seed, kills=KILLS)
    kills = python(body, {**env, "PYTHONPATH": f"{env['PYTHONPATH']}:{helpers}"}).split()
    assert int(kills[0]) > 20
    assert int(kills[1]) >= KILLS
    assert eventually(lambda: volume.left() == set()), volume.left()


RACE = """
import random, time
from services.common.tmp_redirect import workflow
from services.common.tmp_redirect.lifecycle.purge import purge
from services.common.tmp_redirect.settings import current
name = os.uname().nodename
wait("ready")
states, longest = [], 0
for number in range({rounds}):
    begin = time.monotonic()
    with workflow("wf") as directory:
        longest = max(longest, time.monotonic() - begin)
        assert directory == current().workspace_of("wf")
        open(f"{{directory}}/{{name}}-{{number}}", "x").close()
        time.sleep(random.choice((0, 0.001, 0.005)))
        os.stat(f"{server}/wf/tmp/{{name}}-{{number}}")
        os.stat(f"{{directory}}/{{name}}-{{number}}")
    states.append(purge(current(), "wf").state)
assert longest < 5, f"somebody waited {{longest}} s for a purge"
wait(",".join(states))
"""


@pytest.mark.promise
@pytest.mark.timeout(1800)
def test_starts_and_purges_on_two_hosts(
    volume: Volume, env: dict[str, str], other: dict[str, str], alpha: tuple[str, ...], beta: tuple[str, ...]
) -> None:
    """Of one workflow, as often as possible one begins while the other purges: its file is there till the end."""
    body = RACE.format(rounds=ROUNDS, server=volume.root)
    with program(body, env, *alpha) as one, program(body, other, *beta) as two:
        for racer in (one, two):
            assert racer.says() == "ready"
        for racer in (one, two):
            racer.go_on()
        states = [state for racer in (one, two) for state in racer.says().split(",")]
        for racer in (one, two):
            racer.end()
    assert {*states} <= {"purged", "gone", "in use"}
    assert min(states.count("purged"), states.count("in use")) > ROUNDS / 20, "they did not meet"
    assert volume.left() == set()


@pytest.mark.parametrize("volume", [("--tick", "3600")], indirect=True)
def test_a_start_waits_no_longer_than_a_purge_takes(
    volume: Volume, env: dict[str, str], other: dict[str, str], alpha: tuple[str, ...], beta: tuple[str, ...]
) -> None:
    """Also where a listing can't be trusted, as on NFSv3 when all happens within one tick of the server's clock."""
    (volume.root / "wf" / "tmp").mkdir(parents=True)
    with program(HALTED.format(halt="wait('purge')", patience=10), other, *beta) as purging:
        assert purging.says() == "purge"
        with program(AGAIN, env, *alpha) as task:
            assert eventually(lambda: any(name.startswith(".leases/wf/lease~") for name in volume.left()))
            time.sleep(0.1)
            begin = time.monotonic()
            purging.go_on()
            assert purging.says() == "purged"
            assert task.says() == "first"
            assert time.monotonic() - begin < 5
            assert os.listdir(volume.root / "wf" / "tmp") == ["first"]
            task.end()
        purging.end()


AGAIN = """
from services.common.tmp_redirect import workflow
for name in ("first", "second"):
    with workflow("wf") as directory:
        open(directory + "/" + name, "x").close()
        wait(name)
    wait("left")
"""


@pytest.mark.promise
def test_a_workspace_that_was_purged_from_elsewhere_is_made_anew(
    volume: Volume, env: dict[str, str], other: dict[str, str], alpha: tuple[str, ...], beta: tuple[str, ...]
) -> None:
    """At once, when the client still remembers the directories that were there."""
    with program(AGAIN, env, *alpha) as task:
        assert task.says() == "first"
        task.go_on()
        assert task.says() == "left"
        assert purge(other, "wf", *beta) == "purged"
        assert volume.left() == set()
        task.go_on()
        assert task.says() == "second"
        assert os.listdir(volume.root / "wf" / "tmp") == ["second"]
        task.go_on()
        task.end()


@pytest.mark.promise
def test_nothing_is_put_into_the_trash(
    volume: Volume, env: dict[str, str], other: dict[str, str], alpha: tuple[str, ...], beta: tuple[str, ...]
) -> None:
    """Where a workspace is that another host is about to remove, and which this one remembers by its old name."""
    (volume.root / "wf" / "frames").mkdir(parents=True)
    with program(AGAIN, other, *beta) as task, ExitStack() as stack:
        assert task.says() == "first"
        file = stack.enter_context(open(volume.two / "wf" / "tmp" / "first"))
        assert os.listdir(volume.one / "wf" / "tmp") == ["first"]
        task.go_on()
        assert task.says() == "left"
        assert purge(other, "wf", *beta) == "purged"
        assert os.listdir(volume.root / "wf") == ["frames"]
        [(trash, _, [silly])] = [found for found in os.walk(volume.root / ".trash") if found[2]]
        with program(AGAIN.replace("first", "new"), env, *alpha) as starting:
            assert starting.says() == "new"
            assert os.listdir(trash) == [silly]
            assert os.listdir(volume.root / "wf" / "tmp") == ["new"]
            starting.end()
        file.close()
        task.popen.kill()


@pytest.mark.promise
def test_what_is_open_while_it_is_purged_is_left_to_the_next_sweep(
    volume: Volume, env: dict[str, str], other: dict[str, str]
) -> None:
    with ExitStack() as stack:
        task = stack.enter_context(program(AGAIN, env))
        assert task.says() == "first"
        file = stack.enter_context(open(volume.one / "wf" / "tmp" / "first", "r+"))
        task.go_on()
        assert task.says() == "left"
        assert purge(env) == "purged"
        assert not (volume.root / "wf").exists()
        [(trash, _, [silly])] = [found for found in os.walk(volume.root / ".trash") if found[2]]
        assert silly.startswith(".nfs")
        [(path, reason)] = sweep(env)["deferred"]
        assert os.path.basename(path) == os.path.basename(trash)
        assert silly in reason and os.strerror(errno.EBUSY) in reason
        file.write("still")
        file.flush()
        assert Path(trash, silly).read_text() == "still"
        file.close()
        assert eventually(lambda: os.listdir(trash) == [])
        done = sweep(other)
        assert (len(done["trash"]), done["deferred"]) == (1, [])
        assert volume.left() == set()
        task.popen.kill()


WITHOUT_LOCKS = """
import multiprocessing.connection, socket, sqlite3
from services.common.tmp_redirect import workflow
with workflow("wf") as directory:
    below = tempfile.mkdtemp()
    with tempfile.TemporaryFile() as file, tempfile.NamedTemporaryFile() as named:
        file.write(b"x")
        named.write(b"y")
        named.flush()
        assert os.path.dirname(named.name) == os.path.dirname(below) == directory
        wait("open")
    listener = multiprocessing.connection.Listener(family="AF_UNIX")
    assert os.path.dirname(os.path.dirname(listener.address)) == os.environ["TMP_REDIRECT_SOCKET_DIR"]
    listener.close()
    os.rmdir(below)
    wait("closed")
wait("left")
"""


@pytest.mark.promise
def test_without_locks_sockets_and_nameless_files(volume: Volume, env: dict[str, str]) -> None:
    workspace = volume.root / "wf" / "tmp"
    with program(WITHOUT_LOCKS, env) as task:
        assert task.says() == "open"
        assert sorted(name.startswith(".nfs") for name in os.listdir(workspace)) == [False, False, True]
        task.go_on()
        assert task.says() == "closed"
        assert eventually(lambda: os.listdir(workspace) == [])
        task.go_on()
        assert task.says() == "left"
        assert purge(env) == "purged"
        assert volume.left() == set()
        task.end()


@pytest.mark.promise
def test_a_chain_over_workers_on_two_clients(
    volume: Volume, tmp_path: Path, overlay: Path, helpers: Path, mode: str
) -> None:
    """Again and again that of one workflow, before a client forgets what it has seen of the last."""
    directory = tmp_path / "site"
    directory.mkdir()
    site = Ends(directory, overlay, helpers, mode)
    site.root = volume.root
    on_one = {"QUEUE": "first", "TMP_REDIRECT_ROOT": str(volume.one), "TMP_REDIRECT_KEEP": "failed"}
    with site.at_work("ends_app", "prefork", 1, **on_one), ExitStack() as stack:
        on_two = {**site.env, "QUEUE": "second", "TMP_REDIRECT_ROOT": str(volume.two)}
        second = stack.enter_context(site.servers.celery_worker("second", "ends_app", on_two, 1))
        stack.callback(second.stop, seconds=0)
        workflow = site.workflow()
        for _ in range(5):
            tasks = [site.task(workflow, "write"), site.then("retry_once", "second"),
                     site.then("write", name="third"), site.then("write", "second", name="last")]  # fmt: skip
            said = answer(chain(tasks).apply_async())
            assert said["directory"] == str(volume.two / workflow / "tmp")
            assert said["seen"][-1] == ["last", "retry_once-0", "retry_once-1", "third", "write"]
            assert site.wait_until(lambda: site.is_gone(workflow)), site.left(workflow)
