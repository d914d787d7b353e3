"""`tmp-redirect sweep` and what it calls: on trees that each test makes, mostly by the command in its own process.

No test can set when an inode changed, so nothing here is old: what shall be due is with `--older-than 0`, and where it
matters that one is older than another, the sweep is given a clock.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from services.common.tmp_redirect import lifecycle
from services.common.tmp_redirect.errors import WorkspaceError
from services.common.tmp_redirect.integrations import celery_sweep
from services.common.tmp_redirect.lifecycle import out_of_sight, purge, remove_all, status, sweep, sweep_command
from services.common.tmp_redirect.lifecycle.holders import Holder
from services.common.tmp_redirect.lifecycle.leases import quote
from services.common.tmp_redirect.settings import Settings
from tests.test_workspace import NOBODY, open_up

DAY = 24 * 3600
ELSEWHERE = "lease~node-7~0123456789ab~4026531836~42~999~1~video"  # of another host
COMMAND = [sys.executable, "-m", "services.common.tmp_redirect", "sweep"]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def settings(env: dict[str, str]) -> Settings:
    return Settings(env)


@pytest.fixture
def run(env: dict[str, str]) -> Run:
    """Runs the command in a process of its own."""

    def run(*arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *map(str, arguments)], env=env | more, capture_output=True, text=True, timeout=60, check=False
        )

    return run


@pytest.fixture
def swept(run: Run) -> Callable[..., dict[str, Any]]:
    """Runs the command, and returns what it says of what it did; it must have ended as that has it to."""

    def swept(*arguments: str | Path, **more: str) -> dict[str, Any]:
        done = run("--json", *arguments, **more)
        assert done.stderr == ""
        result: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == (1 if result["deferred"] or result.get("users") else 0)
        return result

    return swept


def workspace(root: Path, workflow: str, *files: str) -> Path:
    """A workspace with files, beside which the user has one."""
    directory = root / workflow / "tmp"
    directory.mkdir(parents=True)
    for file in files:
        (directory / file).parent.mkdir(parents=True, exist_ok=True)
        (directory / file).write_text(file)
    (root / workflow / "result.json").write_text("{}")
    return directory


def mark(root: Path, workflow: str, name: str, age: float = 0) -> Path:
    """A file among the leases."""
    file = root / ".leases" / workflow / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    os.utime(file, (time.time() - age,) * 2)
    return file


def listing(*directories: Path) -> dict[str, object]:
    """All that can be told of what is there, and whether it was touched."""
    found = {}
    for directory in directories:
        for above, names, files in os.walk(directory):
            for name in [*names, *files, "."]:
                status = os.lstat(os.path.join(above, name))
                stamps = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_mode, status.st_ino)
                found[os.path.join(above, name)] = stamps
    return found


@contextmanager
def user_of(env: dict[str, str], workflow: str | None, code: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process that has taken a lease, until its stdin ends."""
    script = (
        "import os, sys\n"
        "from services.common.tmp_redirect.lifecycle import new_name, take\n"
        "from services.common.tmp_redirect.settings import Settings\n"
        "lease = new_name('lease', 'a task')\n"
        f"take(Settings(os.environ), {workflow!r}, lease)\nprint(lease, flush=True)\n{code}\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout and child.stdout.readline().startswith("lease~")
        yield child
        assert child.stdin
        child.stdin.close()


def is_gone(root: Path, workflow: str) -> bool:
    """Whether nothing is left but the user's file."""
    assert (root / workflow / "result.json").read_text() == "{}"
    return not (root / workflow / "tmp").exists() and not (root / ".leases" / workflow).exists()


def test_what_is_due_is_removed_and_the_user_s_files_stay(swept: Callable[..., Any], root: Path) -> None:
    for workflow in ("a", "b"):
        workspace(root, workflow, "x", "deep/er/y")
    mark(root, "b", "failed~root-1")
    (root / "plain").mkdir()  # a directory of the user's own
    (root / "plain" / "file").touch()
    result = swept("--older-than", "0")
    assert result["removed"] == [str(root / workflow / "tmp") for workflow in ("a", "b")]
    assert result["inodes"] == 2 * 5
    assert result["bytes"] > 2 * 5 * 512
    assert (result["kept"], result["deferred"], result["trash"], result["interrupted"]) == ({}, [], [], False)
    assert is_gone(root, "a") and is_gone(root, "b")
    assert os.listdir(root / ".trash") == []
    assert (root / "plain" / "file").exists()
    again = swept("--older-than", "0")
    assert (again["removed"], again["bytes"], again["kept"]) == ([], 0, {})


def test_the_young_stay_by_the_ttl_or_what_is_asked_for(swept: Callable[..., Any], root: Path) -> None:
    directory = workspace(root, "a", "x")
    for arguments, more in (([], {}), (["--older-than", "1h"], {"TMP_REDIRECT_TTL": "0"})):
        result = swept(*arguments, **more)
        assert (result["removed"], result["kept"]) == ([], {"young": 1})
        assert (directory / "x").exists()
    assert swept(TMP_REDIRECT_TTL="0")["removed"] == [str(directory)]


def test_one_is_due_when_the_newest_in_it_is_old(
    settings: Settings, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, young = workspace(root, "old", "x"), workspace(root, "young", "deep/er/x")
    before = max(os.lstat(path).st_ctime for path in (old, old / "x"))
    file = young / "deep/er/x"
    while file.stat().st_ctime <= before:  # the clock of a file system is a coarse one
        os.utime(file, (0, 0))  # as tar does: what is in it is old, but it came just now
    monkeypatch.setattr(sweep, "time", SimpleNamespace(time=lambda: before + 60))
    monkeypatch.setattr(sweep, "_time_of_the_server", lambda trash: before + 60)
    for dry_run in (True, False):
        done = sweep.sweep(settings, 60, dry_run=dry_run)
        assert (done.removed, dict(done.kept), done.deferred) == ([str(old)], {"young": 1}, [])
    assert not old.exists() and file.exists()


@pytest.mark.parametrize("workflow", ["a", None])
def test_what_a_live_process_uses_stays_whatever_its_age(
    swept: Callable[..., Any], env: dict[str, str], root: Path, workflow: str | None
) -> None:
    directory = workspace(root, workflow or ".outside/svc", "x")
    name = workflow or ".outside/svc"
    with user_of(env, workflow):
        (lease,) = (root / ".leases" / name).iterdir()
        os.utime(lease, (0, 0))
        mark(root, name, "over")
        result = swept("--older-than", "0", TMP_REDIRECT_TTL="0")
        assert (result["removed"], result["kept"]) == ([], {"in use": 1})
        assert (directory / "x").exists() and lease.exists()
    assert swept("--older-than", "0")["removed"] == [str(directory)]  # its lease is that of a dead one now
    assert is_gone(root, name)


def test_what_a_killed_process_used_is_removed(swept: Callable[..., Any], env: dict[str, str], root: Path) -> None:
    workspace(root, "a", "x")
    with user_of(env, "a") as child:
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert swept()["kept"] == {"young": 1}
        assert len(swept("--older-than", "0")["removed"]) == 1
        assert is_gone(root, "a")


@pytest.mark.parametrize(("name", "reason"), [(ELSEWHERE, "in use"), ("pending~task-1", "a task has not ended")])
def test_a_lease_of_another_host_and_a_task_not_begun_count_until_the_ttl(
    swept: Callable[..., Any], root: Path, name: str, reason: str
) -> None:
    directory = workspace(root, "a", "x")
    file = mark(root, "a", name, DAY - 60)
    for arguments in ([], ["--dry-run"], ["--older-than", "0"]):
        assert swept(*arguments)["kept"] == {reason: 1}
    assert file.exists() and directory.exists()
    mark(root, "a", name, DAY + 60)
    assert swept("--older-than", "0")["removed"] == [str(directory)]
    assert is_gone(root, "a")


def test_a_task_that_has_not_begun_needs_no_workspace_yet(swept: Callable[..., Any], root: Path) -> None:
    file = mark(root, "a", "pending~task-1")
    assert swept("--older-than", "0")["kept"] == {"a task has not ended": 1}
    assert file.exists()
    mark(root, "a", "pending~task-1", DAY + 60)
    result = swept("--older-than", "0")
    assert (result["removed"], result["kept"]) == ([], {})
    assert not (root / ".leases" / "a").exists()


def test_what_ended_while_in_use_is_due_at_once(swept: Callable[..., Any], root: Path) -> None:
    directory = workspace(root, "a", "x")
    mark(root, "a", "over")
    assert swept()["removed"] == [str(directory)]
    assert is_gone(root, "a")


def test_a_failed_workflow_stays_until_the_ttl(swept: Callable[..., Any], root: Path) -> None:
    workspace(root, "a", "x")
    file = mark(root, "a", "failed~root-1")
    assert swept()["kept"] == {"young": 1}
    assert file.exists()
    assert len(swept(TMP_REDIRECT_TTL="0")["removed"]) == 1
    assert is_gone(root, "a")


def test_what_a_crash_has_left_is_completed(swept: Callable[..., Any], root: Path) -> None:
    trash = root / ".trash"
    (trash / "purge~half" / "done").mkdir(parents=True)
    (trash / "purge~half" / "done" / "x").write_text("x")
    (trash / "file").write_text("x")
    (trash / "link").symlink_to(root / "b")
    (trash / "clock~of one that was killed").touch()
    mark(root, "a", f"purge{ELSEWHERE[len('lease') : -len('~video')]}", DAY + 60)
    directory = workspace(root, "b", "x")
    result = swept()
    assert len(result["trash"]) == 3
    assert (result["removed"], result["kept"], result["deferred"]) == ([], {"young": 1}, [])
    assert result["inodes"] == 5
    assert os.listdir(trash) == []
    assert (directory / "x").exists()


def test_what_can_not_be_removed_yet_is_deferred(
    settings: Settings, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, unlink = ".nfs0000000000000001", os.unlink

    def as_nfs(path: str, *, dir_fd: int | None = None) -> None:
        if path == name:
            raise OSError(errno.EBUSY, "Device or resource busy")
        unlink(path, dir_fd=dir_fd)

    directory = workspace(root, "a", "x", name)
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", as_nfs)
        done = sweep.sweep(settings, 0)
        (left,) = (root / ".trash").iterdir()
        for path, found in ((directory, done), (left, sweep.sweep(settings, 0))):
            (deferred,) = found.deferred
            assert deferred[0] == str(path)
            assert f"{name}: Device or resource busy" in deferred[1]
            assert found.trash == []
    assert done.removed == [str(directory)]
    assert os.listdir(left) == [name]
    again = sweep.sweep(settings, 0)
    assert (again.trash, again.deferred, again.removed) == ([str(left)], [], [])
    assert not left.exists()


def test_no_link_is_followed_and_no_file_in_the_way_harms(
    swept: Callable[..., Any], root: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "tmp").mkdir(parents=True)
    (elsewhere / "tmp" / "precious").write_text("mine")
    (root / "link").symlink_to(elsewhere)
    (root / "linked").mkdir()
    (root / "linked" / "tmp").symlink_to(elsewhere / "tmp")
    (root / "file").write_text("beside")
    (root / "with-a-file").mkdir()
    (root / "with-a-file" / "tmp").write_text("in the way")
    inside = workspace(root, "inside")
    (inside / "to").symlink_to(elsewhere)
    before = listing(elsewhere)
    result = swept("--older-than", "0")
    assert result["deferred"] == []
    assert listing(elsewhere) == before
    assert (root / "link").is_symlink() and (root / "file").exists()
    assert str(inside) in result["removed"]
    mark(root, "link", "over")
    result = swept("--older-than", "0")
    assert [entry["path"] for entry in result["deferred"]] == [str(root / "link" / "tmp")]
    assert listing(elsewhere) == before


@pytest.mark.parametrize("name", [".leases", ".outside"])
def test_a_link_in_the_place_of_a_directory_of_ours_is_deferred(
    swept: Callable[..., Any], root: Path, tmp_path: Path, name: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    workspace(elsewhere, "svc", "precious")
    (root / name).symlink_to(elsewhere)
    directory = workspace(root, "a", "x")
    before = listing(elsewhere)
    result = swept("--older-than", "0")
    assert {"path": str(root / name), "reason": "Not a directory"} in result["deferred"]
    assert listing(elsewhere) == before
    assert directory.exists() is (name == ".leases")  # nobody can tell whether it is in use


def test_caches_and_logs_of_services_stay(swept: Callable[..., Any], root: Path) -> None:
    (root / ".cache" / "numba" / "tmp").mkdir(parents=True)
    (root / ".cache" / "numba" / "tmp" / "x").touch()
    workspace(root, ".outside/svc", "x")
    log = root / ".outside" / "svc" / "violations.jsonl"
    log.write_text("{}\n")
    bare = root / ".outside" / "bare" / "tmp"
    bare.mkdir(parents=True)
    result = swept("--older-than", "0")
    assert result["removed"] == [str(bare), str(root / ".outside" / "svc" / "tmp")]
    assert log.read_text() == "{}\n"
    assert not bare.parent.exists()
    assert (root / ".cache" / "numba" / "tmp" / "x").exists()


def test_dead_sockets_are_removed(swept: Callable[..., Any], root: Path, socket_dir: Path) -> None:
    live, dead = socket_dir / "1-abcdefgh", socket_dir / "2-abcdefgh"
    for directory in (live, dead):
        directory.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(directory / "listener"))
    descriptor = os.open(live, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        before = listing(socket_dir)
        assert swept("--dry-run")["sockets"] == 0
        assert listing(socket_dir) == before
        assert swept()["sockets"] == 1
        assert not dead.exists() and (live / "listener").exists()
    finally:
        os.close(descriptor)
    assert swept()["sockets"] == 1


def test_a_dry_run_changes_nothing_and_says_what_a_sweep_would(
    swept: Callable[..., Any], env: dict[str, str], root: Path
) -> None:
    for number in range(5):
        workspace(root, f"due-{number}", "x", "y/z")
    workspace(root, ".outside/svc", "x")
    for workflow, name, age in (
        ("used-elsewhere", ELSEWHERE, 60), ("dead-elsewhere", ELSEWHERE, DAY + 60), ("over", "over", 0),
        ("to-come", "pending~1", 60), ("failed", "failed~1", 0),
    ):  # fmt: skip
        workspace(root, workflow, "x")
        mark(root, workflow, name, age)
    mark(root, "only-marked", "failed~1")
    (root / "only-marked").mkdir()
    for without_trash in (True, False):
        if not without_trash:
            (root / ".trash" / "left").mkdir(parents=True)
        with user_of(env, "due-0"):
            before = listing(root)
            for arguments in (["--older-than", "0"], []):
                result = swept("--dry-run", *arguments)
                assert listing(root) == before
            assert result["removed"] == [str(root / "over" / "tmp")]
            expected = swept("--dry-run", "--older-than", "0")
    assert expected["kept"] == {"in use": 2, "a task has not ended": 1}
    assert expected["trash"] == [str(root / ".trash" / "left")]
    with user_of(env, "due-0"):
        result = swept("--older-than", "0")
    assert {**result, "dry_run": True} == expected


@pytest.mark.parametrize("sweepers", [2, 5])
def test_several_at_once_share_the_work(env: dict[str, str], root: Path, sweepers: int) -> None:
    for number in range(2000):
        directory = root / f"wf-{number}" / "tmp"
        directory.mkdir(parents=True)
        (directory / "x").write_text("x")
        (root / f"wf-{number}" / "mine").touch()
    children = [
        subprocess.Popen([*COMMAND, "--json", "--older-than", "0"], env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(sweepers)
    ]
    results = []
    for child in children:
        output, _ = child.communicate(timeout=120)
        assert child.returncode == 0
        results.append(json.loads(output))
    removed = Counter(path for result in results for path in result["removed"])
    assert removed == Counter(f"{root}/wf-{number}/tmp" for number in range(2000))
    assert sum(result["inodes"] for result in results) == 4000
    assert [result["deferred"] for result in results] == [[]] * sweepers
    assert not list(root.glob("*/tmp")) and len(list(root.glob("*/mine"))) == 2000
    assert list((root / ".trash").iterdir()) == [] and list((root / ".leases").iterdir()) == []


def test_a_full_disk_is_swept(swept: Callable[..., Any], root: Path) -> None:
    directory = workspace(root, "a", "x")
    assert swept("--older-than", "0", TMP_REDIRECT_MIN_FREE="9999T")["removed"] == [str(directory)]


NO_INODES = """
import contextlib, os, subprocess, sys, tempfile
from pathlib import Path
from services.common.tmp_redirect.lifecycle import mark
from services.common.tmp_redirect.scope import enter, leave
from services.common.tmp_redirect.settings import current

def use(workflow):
    scope = enter(workflow)
    os.close(tempfile.mkstemp()[0])  # while it is open its inode isn't free when it is removed
    return scope

root = Path(os.environ["TMP_REDIRECT_ROOT"])
(root / "crashed").mkdir()  # so that a lease is all there is
child = os.fork()
if not child:
    use("crashed")
    os._exit(0)
os.waitpid(child, 0)
for workflow in ("failed", "in-use"):
    scope = use(workflow)
    mark(current(), workflow, "failed~canvas")
    if workflow == "failed":
        leave(scope)
listed = sorted(os.listdir(root / ".leases/in-use"))
assert [name[:6] for name in os.listdir(root / ".leases/crashed")] == ["lease~"]
assert not (root / ".trash").exists()
number = 0
with contextlib.suppress(OSError):
    while True:
        (root / f"filler-{number}").mkdir()
        number += 1
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
assert sorted(os.listdir(root / ".leases/in-use")) == listed
assert os.listdir(root / "in-use/tmp")
print(done.stdout, done.stderr)
sys.exit(done.returncode)
"""


def test_a_disk_without_inodes_is_swept(shim_env: dict[str, str], root: Path) -> None:
    """Neither for the mark of a purge nor for the trash is there one."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("a file system of its own takes root and unshare")
    mount = 'mount -t tmpfs -o nr_inodes=100 tmpfs "$TMP_REDIRECT_ROOT" && exec "$@"'
    command = [sys.executable, "-c", NO_INODES, *COMMAND, "--json", "--older-than", "0"]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", *command], env=shim_env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    result = json.loads(done.stdout)
    assert sorted(result["removed"]) == [f"{root}/crashed/tmp", f"{root}/failed/tmp"]
    assert (result["kept"], result["deferred"]) == ({"in use": 1}, [])


BORROWED = """
import errno, os, sys
from services.common.tmp_redirect import lifecycle
from services.common.tmp_redirect.lifecycle import purge
from services.common.tmp_redirect.settings import Settings

settings, seen, create = Settings(os.environ), [], purge.create

def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

def is_due():
    if sys.argv[1] == "killed":
        os._exit(0)
    purge.create = create
    seen.append(purge.purge(settings, "a", unless="failed~canvas").state)
    seen.append(lifecycle.is_over(settings, "a"))
    return False

purge.create = full
seen.append(purge.purge(settings, "a", is_due=is_due).state)
assert seen == ["kept", False, "kept"], seen
"""


@pytest.mark.parametrize("how", ["ends", "killed"])
def test_a_failure_that_became_the_mark_of_a_purge_still_keeps_the_workspace(
    env: dict[str, str], root: Path, how: str
) -> None:
    """To others while it is that, and when the purge has ended or died."""
    env = {**env, "TMP_REDIRECT_KEEP": "failed"}
    settings = Settings(env)
    workspace(root, "a", "x")
    for name in ("failed~canvas", "over"):
        mark(root, "a", name)
    subprocess.run([sys.executable, "-c", BORROWED, how], env=env, check=True)
    if how == "killed":
        assert len(list(root.glob(".leases/a/purge~*"))) == 1
        (found,) = status.workspaces(settings)
        assert (found.failed, found.over, lifecycle.is_over(settings, "a")) == (["canvas"], True, False)
        assert purge.purge(settings, "a", unless="failed~canvas").state == "kept"
    assert sorted(os.listdir(root / ".leases/a")) == ["failed~canvas", "over"]


@pytest.mark.parametrize(
    "name", ["over", "lease~x", "../../beside", "failed~/../../../beside", "ours~\ud800", "failed~\0", "f" * 90]
)
def test_a_mark_of_a_purge_that_somebody_made_up_becomes_no_other_file(
    name: str, settings: Settings, root: Path
) -> None:
    workspace(root, "a", "x")
    forged = mark(root, "a", f"purge{ELSEWHERE[5:-5]}{quote(name)}", 2 * DAY)
    before = set(listing(root.parent))
    assert purge.purge(settings, "a", ttl=DAY, is_due=lambda: False).state == "kept"
    assert set(listing(root.parent)) == before - {str(forged)}


def as_nobody(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a command as another user, who can't read this interpreter's files: they are loaded before."""
    if os.geteuid() != 0:
        pytest.skip("only root can start a process as another user")
    code = (
        "import os, sys, random, traceback, linecache, locale, encodings.ascii\n"
        "from services.common.tmp_redirect import cli, setting_values, standard_streams\n"
        "from services.common.tmp_redirect.lifecycle import status_command, sweep_command\n"
        "from services.common.tmp_redirect.propagate import sockets\n"
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        f"sys.exit(cli.main({arguments!r}))"
    )
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False, cwd="/")


@pytest.mark.parametrize("options", [(), ("--all",)])
def test_a_directory_for_sockets_that_cannot_be_read_is_said(
    env: dict[str, str], root: Path, socket_dir: Path, options: tuple[str, ...]
) -> None:
    open_up(root)
    root.chmod(0o777)
    socket_dir.mkdir(mode=0o700)
    done = as_nobody(env, "sweep", "--json", *options)
    socket_dir.rmdir()
    assert (done.returncode, done.stderr) == (1, "")
    (deferred,) = json.loads(done.stdout)["deferred"]
    assert deferred["path"] == str(socket_dir)
    assert "Permission denied; set TMP_REDIRECT_SOCKET_DIR" in deferred["reason"]


def test_another_user_sweeps_what_is_theirs(env: dict[str, str], root: Path) -> None:
    open_up(root)
    root.chmod(0o777)
    workspace(root, "root-s", "x").chmod(0o700)
    theirs = workspace(root, "theirs", "x")
    hidden = workspace(root, "hidden", "x")
    hidden.parent.chmod(0o700)
    for path in (theirs.parent, theirs, theirs / "x"):
        os.chown(path, NOBODY, NOBODY)
    done = as_nobody(env, "sweep", "--older-than", "0", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    result = json.loads(done.stdout)
    assert result["removed"] == [str(theirs)]
    assert {entry["path"]: entry["reason"] for entry in result["deferred"]} == {
        str(root / "root-s" / "tmp"): "Permission denied",
        str(hidden): "Permission denied",
    }
    assert (hidden / "x").exists() and (root / "root-s" / "tmp" / "x").exists()


def test_leases_that_can_not_be_read_keep_all(env: dict[str, str], root: Path) -> None:
    open_up(root)
    root.chmod(0o777)
    theirs = workspace(root, "theirs", "x")
    for path in (theirs.parent, theirs, theirs / "x"):
        os.chown(path, NOBODY, NOBODY)
    mark(root, "theirs", ELSEWHERE)
    (root / ".leases").chmod(0o700)
    done = as_nobody(env, "sweep", "--older-than", "0", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    deferred = {entry["path"]: entry["reason"] for entry in json.loads(done.stdout)["deferred"]}
    assert set(deferred) == {str(root / ".leases"), str(root / ".leases" / ".outside"), str(theirs)}
    assert "Permission denied" in deferred[str(theirs)]
    assert (theirs / "x").exists()


def test_a_young_one_of_another_user_is_kept_as_any(env: dict[str, str], root: Path) -> None:
    open_up(root)
    root.chmod(0o777)
    workspace(root, "a", "x")
    mark(root, "a", ELSEWHERE).parent.chmod(0o700)
    done = as_nobody(env, "sweep", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["kept"] == {"young": 1}


def test_a_root_of_another_user_is_status_78(env: dict[str, str], root: Path) -> None:
    open_up(root)
    root.chmod(0o755)
    done = as_nobody(env, "sweep")
    assert (done.returncode, done.stdout) == (78, "")
    assert f"the root can't be used: {root}: Permission denied for uid {NOBODY}" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "more", "status", "said"),
    [
        (["--older-than", "soon"], {}, 2, "--older-than='soon' is not allowed: a whole number of seconds, or one with"),
        (["--older-than", "-1"], {}, 2, ""),
        (["--older-than="], {}, 2, "--older-than='' is not allowed"),
        (["--older-than", "1.5h"], {}, 2, "--older-than='1.5h' is not allowed"),
        (["--older-than", "1\n2"], {}, 2, r"--older-than='1\n2' is not allowed"),
        (["--older-than", "9" * 400 + "d"], {}, 2, "--older-than='999"),
        (["more"], {}, 2, ""),
        (["--root", "/nope"], {}, 78, "the root /nope doesn't exist; mount the shared volume there"),
        (["--root", "nope"], {}, 78, f"the root {Path.cwd()}/nope doesn't exist; mount the shared volume there"),
        (["--root", "/dev/null"], {}, 78, "the root can't be used: /dev/null is not a directory"),
        ([], {"TMP_REDIRECT_TTL": "soon"}, 78, "TMP_REDIRECT_TTL='soon' is not allowed: a whole number"),
    ],
)
def test_nonsense_is_one_line(
    run: Run, root: Path, arguments: list[str], more: dict[str, str], status: int, said: str
) -> None:
    directory = workspace(root, "a", "x")
    done = run(*arguments, **more)
    assert (done.returncode, done.stdout) == (status, "")
    assert "Traceback" not in done.stderr
    if said:
        assert done.stderr.startswith(f"tmp-redirect sweep: {said}")
        assert len(done.stderr.splitlines()) == 1
    assert directory.exists()


@pytest.mark.parametrize("mode", ["off", "warn", "enforce"])
def test_the_shim_may_be_on_or_off(run: Run, root: Path, tmp_path: Path, mode: str, socket_dir: Path) -> None:
    other = tmp_path / "other"
    directory = workspace(other, "a", "x")
    (socket_dir / "2-abcdefgh").mkdir(parents=True)
    done = run("--older-than", "0", "--root", other, TMP_REDIRECT=mode)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("and 2 inodes freed\nremoved 1 directory for sockets of processes that had ended\n")
    assert not directory.exists() and list(root.iterdir()) == []


def test_the_summary(run: Run, root: Path) -> None:
    for number in range(3):
        workspace(root, f"due-{number}", "x")
    workspace(root, "[bold]it's\u202e", "x")
    for number in range(23):
        (root / f"link-{number:02}").symlink_to("/nope")
        mark(root, f"link-{number:02}", "over")
    workspace(root, "used", "x")
    mark(root, "used", ELSEWHERE)
    (root / ".trash" / "left").mkdir(parents=True)
    escaped = str(root / "[bold]it's\\u202e" / "tmp")
    done = run("--dry-run", "--older-than", "0")
    lines = done.stdout.splitlines()
    assert lines[:5] == sorted([*(str(root / f"due-{n}" / "tmp") for n in range(3)), f"{root}/.trash/left", escaped])
    assert lines[5].startswith("would remove 4 workspaces and 1 tree in the trash: ")
    assert lines[5].endswith(" and 9 inodes")
    done = run("--older-than", "0")
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("removed 4 workspaces and 1 tree in the trash: ")
    assert lines[0].endswith(" and 9 inodes freed")
    assert lines[1] == "kept 1 workspace: 1 in use"
    assert lines[2] == "deferred to the next sweep, 23 paths:"
    assert lines[3] == f"  {root}/link-00/tmp: Not a directory"
    assert (len(lines), lines[-1]) == (24, "  and 3 more")
    (root / "new" / "tmp").mkdir(parents=True)
    assert "used less than 1d ago" in run().stdout


def test_head_may_end_early(env: dict[str, str], root: Path) -> None:
    for number in range(3000):
        (root / f"{number}-{'x' * 200}" / "tmp").mkdir(parents=True)
    command = [*COMMAND, "--dry-run", "--older-than", "0"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout and child.stderr
        assert child.stdout.readline()
        child.stdout.close()
        assert child.stderr.read() == b""
    assert child.returncode == 0


def test_ctrl_c_says_what_was_done_and_the_next_does_the_rest(run: Run, env: dict[str, str], root: Path) -> None:
    for number in range(20):
        workspace(root, f"wf-{number}", "x")
    code = (
        "import signal, os\n"
        "from services.common.tmp_redirect import cli\n"
        "from services.common.tmp_redirect.lifecycle import purge\n"
        "real, calls = purge.remove_tree, []\n"
        "def remove(*arguments):\n"
        "    calls.append(arguments)\n"
        "    if len(calls) == 8:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    return real(*arguments)\n"
        "purge.remove_tree = remove\n"
        "raise SystemExit(cli.main(['sweep', '--json', '--older-than', '0']))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr == "tmp-redirect sweep: interrupted; the next sweep does the rest\n"
    result = json.loads(done.stdout)
    assert (result["interrupted"], len(result["removed"])) == (True, 7)
    assert len(list(root.glob("*/tmp"))) == 12  # one is in the trash
    done = run("--older-than", "0")
    assert done.stdout.startswith("removed 12 workspaces and 1 tree in the trash")
    assert all(is_gone(root, f"wf-{number}") for number in range(20))
    assert not list((root / ".trash").iterdir())


@pytest.mark.parametrize("long", [True, False])
def test_progress_is_shown_on_a_terminal_if_it_takes_long(env: dict[str, str], root: Path, long: bool) -> None:
    for number in range(20):
        workspace(root, f"wf-{number}", "x")
    code = (
        "import sys\n"
        "from services.common.tmp_redirect import cli\n"
        "from services.common.tmp_redirect.lifecycle import sweep_command\n"
        f"sweep_command.LONG = {-1 if long else 3600}\n"
        "sys.exit(cli.main(['sweep', '--older-than', '0']))"
    )
    above, below = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], env={**env, "TERM": "xterm"}, stdout=subprocess.PIPE, stderr=below, check=True
        )
        os.write(below, b".")  # or reading waits where there is nothing
        said = os.read(above, 2**16)
    finally:
        os.close(above)
        os.close(below)
    assert done.stdout.startswith(b"removed 20 workspaces")
    assert (b"sweeping" in said, b"20/20" in said) == (long, long)


def test_without_rich_there_is_no_progress(monkeypatch: pytest.MonkeyPatch, env: dict[str, str]) -> None:
    monkeypatch.setattr(sweep_command, "has_rich", lambda: False)
    monkeypatch.setattr(sweep_command, "LONG", -1)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with sweep_command._progress() as progress:
        progress(1, 2)


def test_a_missing_root_in_process(settings: Settings, root: Path) -> None:
    root.rmdir()
    with pytest.raises(WorkspaceError, match="doesn't exist; mount the shared volume there"):
        sweep.sweep(settings)


def test_progress_counts_all_places(settings: Settings, root: Path) -> None:
    workspace(root, "a", "x")
    workspace(root, "b", "x")
    (root / ".trash" / "left").mkdir(parents=True)
    (root / ".outside" / "svc" / "tmp").mkdir(parents=True)
    seen: list[tuple[int, int]] = []
    sweep.sweep(settings, 0, progress=lambda number, whole: seen.append((number, whole)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_one_that_is_used_meanwhile_stays(settings: Settings, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = workspace(root, "a", "x")
    real = purge.open_leases

    before = directory.stat().st_ctime

    def used(*arguments: Any) -> int:
        while directory.stat().st_ctime <= before:
            (directory / "new").touch()
            os.utime(directory, (0, 0))
        return real(*arguments)

    monkeypatch.setattr(purge, "open_leases", used)
    monkeypatch.setattr(sweep, "_time_of_the_server", lambda trash: before)
    done = sweep.sweep(settings, 0)
    assert (done.removed, dict(done.kept)) == ([], {"it was used just now": 1})
    assert (directory / "new").exists()


def inventory(*directories: Path) -> dict[str, object]:
    """What is there, told by type, mode, inode, content and target; no matter when a directory changed."""
    found: dict[str, object] = {}
    for directory in directories:
        for above, names, files in os.walk(directory):
            for name in [*names, *files]:
                path = os.path.join(above, name)
                status = os.lstat(path)
                is_file, is_link = os.path.isfile(path) and not os.path.islink(path), os.path.islink(path)
                content = Path(path).read_bytes() if is_file else os.readlink(path) if is_link else None
                stamp = None if os.path.isdir(path) and not is_link else status.st_mtime_ns
                found[path] = (status.st_mode, status.st_ino, status.st_uid, status.st_nlink * is_file, stamp, content)
    return found


def things_of_the_user(root: Path, elsewhere: Path) -> None:
    """Everything that looks somewhat like what the shim makes, or lies beside it."""
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("mine")
    for directory in (
        ".trashcan/purge~x", ".cache2/numba", ".leases.bak/a", ".outsider/svc/tmp", ".tmp/tmp", ".Trash", "tmp/x",
        "empty", "a/frames", "a/tmp2", "a/.tmp", "made-by-hand/deep/tmp", "has-a-file", "has-a-link", "工作流/结果",
        "-rf", "a b\nc",
    ):  # fmt: skip
        (root / directory).mkdir(parents=True)
        if directory not in ("empty", "has-a-file", "has-a-link"):
            (root / directory / "mine").write_text(directory)
    (root / "has-a-file" / "tmp").write_text("a file")
    (root / "has-a-link" / "tmp").symlink_to(elsewhere)
    (root / "has-a-file" / "b" / "tmp").mkdir(parents=True)
    (root / "file").write_text("x" * 5000)
    (root / ".hidden").write_text("x")
    (root / "hard").hardlink_to(root / "file")
    (root / "link").symlink_to(elsewhere)
    (root / "dangling").symlink_to("nowhere")
    os.mkfifo(root / "fifo")
    (root / "a" / "read-only").mkdir(mode=0o500)
    descriptor = os.open(root, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{descriptor}/socket")
    os.close(os.open(b"not utf-8 \xff", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)


def things_of_the_shim(root: Path) -> None:
    """What it may have made, and nobody uses: kept for each reason there is."""
    for workflow in ("a", "made-by-hand", "failed", "over", "new", "工作流"):
        directory = root / workflow / "tmp"
        directory.mkdir(parents=True)
        (directory / "x").write_text("x" * 5000)
        (directory / "out").symlink_to(root / "a" / "frames")
        if (root / "file").exists():
            (directory / "hard").hardlink_to(root / "file")
    (root / "empty-workspace" / "tmp").mkdir(parents=True)
    mark(root, "failed", "failed~root-1")
    mark(root, "over", "over")
    for workflow in ("failed", "over", "new", "empty-workspace", "a", "gone"):
        mark(root, workflow, f"ours~{ELSEWHERE.partition('~')[2].rpartition('~')[0]}")
    mark(root, "a", ELSEWHERE, DAY + 60)
    mark(root, "empty-leases", "over").unlink()
    mark(root, ".outside/svc", ELSEWHERE, DAY + 60)
    (root / ".outside" / "svc" / "tmp" / "below").mkdir(parents=True)
    (root / ".outside" / "svc" / "tmp" / "below" / "x").write_text("x")
    (root / ".outside" / "svc" / "violations.jsonl").write_text("{}\n")
    (root / ".outside" / "svc" / "violations.jsonl.1").write_text("{}\n")
    (root / ".outside" / "logged-only").mkdir()
    (root / ".outside" / "logged-only" / "violations.jsonl").write_text("{}\n")
    for library in ("numba", "torch"):
        (root / ".cache" / library / "deep").mkdir(parents=True)
        (root / ".cache" / library / "deep" / "compiled").write_text(library)
        (root / ".cache" / library / "out").symlink_to(root / "a")
    (root / ".trash" / "purge~half" / "done").mkdir(parents=True)
    (root / ".trash" / "clock~of one that was killed").touch()


def one_of_each(root: Path) -> None:
    """What is removed in different ways."""
    for file in (
        "new/tmp/x",
        ".outside/svc/tmp/x",
        ".outside/svc/violations.jsonl",
        ".cache/numba/x",
        ".trash/purge~x/x",
    ):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text("x")
    mark(root, "new", "failed~root-1")
    mark(root, "new", f"ours~{ELSEWHERE.partition('~')[2].rpartition('~')[0]}")


@pytest.mark.parametrize(
    "variables", [{}, {"TMP_REDIRECT": "off", "TMP_REDIRECT_KEEP": "all"}, {"TMP_REDIRECT_TTL": "9d"}]
)
def test_all_leaves_what_the_user_has_and_nothing_else(
    swept: Callable[..., Any], root: Path, tmp_path: Path, variables: dict[str, str]
) -> None:
    things_of_the_user(root, tmp_path / "elsewhere")
    before = inventory(root, tmp_path / "elsewhere")
    things_of_the_shim(root)
    if "TMP_REDIRECT_TTL" in variables:
        for workflow in ("a", ".outside/svc"):
            (root / ".leases" / workflow / ELSEWHERE).unlink()
    untouched = listing(root)
    expected = swept("--all", "--dry-run", **variables)
    assert listing(root) == untouched
    assert {*expected["removed"], *expected["trash"], *expected["own"]} == {
        *(str(path) for path in root.glob("*/tmp") if path.is_dir() and path.parent.name not in (".tmp", "has-a-link")),
        *(f"{root}/.outside/svc/{name}" for name in ("tmp", "violations.jsonl", "violations.jsonl.1")),
        *(f"{root}/.outside/logged-only/violations.jsonl", f"{root}/.trash/purge~half"),
        *(f"{root}/.cache/{library}" for library in ("numba", "torch")),
        *(f"{root}/{name}" for name in (".cache", ".leases", ".outside", ".trash")),
    }
    result = swept("--all", **variables)
    assert {**result, "dry_run": True, "bytes": 0, "inodes": 0} == {**expected, "bytes": 0, "inodes": 0}
    assert (result["kept"], result["deferred"], result["users"], result["strange"]) == ({}, [], [], [])
    assert inventory(root, tmp_path / "elsewhere") == before
    again = swept("--all", **variables)
    assert (again["removed"], again["own"], again["bytes"]) == ([], [f"{root}/.trash"], 0)  # which it made for itself
    assert inventory(root, tmp_path / "elsewhere") == before


def test_all_says_that_nothing_is_left_by_root_and_without(run: Run, root: Path) -> None:
    things_of_the_shim_only = (("--root", str(root)), ())
    for arguments in things_of_the_shim_only:
        workspace(root, "a", "x")
        (root / ".cache" / "numba").mkdir(parents=True)
        dry = run("--all", "--dry-run", *arguments, TMP_REDIRECT="off")
        listed = [str(root / name) for name in (".cache", ".cache/numba", "a/tmp")]
        assert dry.stdout.splitlines()[:-1] == listed
        assert dry.stdout.splitlines()[-1].startswith("would remove 1 workspace: ")
        done = run("--all", *arguments, TMP_REDIRECT="off", **({"TMP_REDIRECT_ROOT": "/nowhere"} if arguments else {}))
        assert (done.returncode, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        assert lines[0].startswith("removed 1 workspace: ")
        assert lines[1:] == [f"nothing that the shim has made is left in {root}"]
        assert [path.name for path in root.iterdir()] == ["a"]


def test_all_without_a_root_says_so(run: Run, root: Path) -> None:
    root.rmdir()
    for arguments in ([], ["--dry-run"], ["--others-stopped"]):
        done = run("--all", *arguments)
        assert (done.returncode, done.stdout) == (78, "")
        assert f"the root {root} doesn't exist; mount the shared volume there" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--all", "--older-than", "0"], "--older-than doesn't go with --all, which removes what is of any age"),
        (["--others-stopped"], "--others-stopped goes with --all only"),
        (["--others-stopped", "--older-than", "0"], "--others-stopped goes with --all only"),
    ],
)
def test_options_that_do_not_go_together(run: Run, root: Path, arguments: list[str], complaint: str) -> None:
    directory = workspace(root, "a", "x")
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr
    assert directory.exists()


def test_the_celery_task_can_not_remove_all(env: dict[str, str], root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = workspace(root, "a", "x")
    monkeypatch.setattr(celery_sweep, "current_settings", lambda: Settings(env))
    for option in ("all", "others_stopped", "done"):
        with pytest.raises(TypeError, match=option):
            celery_sweep._sweep(**{option: True})  # type: ignore[arg-type]
    assert celery_sweep._sweep()["kept"] == {"young": 1}
    assert directory.exists()


@pytest.mark.parametrize("arguments", [[], ["--others-stopped"]])
@pytest.mark.parametrize("workflow", ["used", None])
def test_what_a_process_uses_stays_in_all_too(
    swept: Callable[..., Any], run: Run, env: dict[str, str], root: Path, workflow: str | None, arguments: list[str]
) -> None:
    directory = workspace(root, workflow or ".outside/svc", "x")
    (directory.parent / "result.json").unlink()
    other = workspace(root, "unused", "x")
    (root / ".cache" / "numba").mkdir(parents=True)
    (root / ".outside" / "other").mkdir(parents=True)
    (root / ".outside" / "other" / "violations.jsonl").touch()
    with user_of(env, workflow) as child:
        dry = swept("--all", "--dry-run", *arguments)
        result = swept("--all", *arguments)
        assert {**result, "dry_run": True} == dry
        assert (result["removed"], result["kept"], result["own"]) == ([str(other)], {"in use": 1}, [])
        path = str(directory)
        user = {"path": path, "host": os.uname().nodename, "pid": child.pid, "task": "a=20=task", "alive": True}
        assert result["users"] == [{**user, "task": "a task"}]
        done = run("--all", *arguments, TMP_REDIRECT_TTL="0")
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout.splitlines()[1:] == [
            "kept 1 workspace: 1 in use",
            "kept, with all that the shim has beside the workspaces, as it is used by",
            f"  {os.uname().nodename} {child.pid} a task: {directory}",
            "what to do next: stop these, then run this again",
        ]
        assert (directory / "x").exists() and (root / ".cache" / "numba").exists()
        assert (root / ".outside" / "other" / "violations.jsonl").exists()
    assert swept("--all", *arguments)["removed"] == [path]
    assert {entry.name for entry in root.iterdir()} <= {"used", "unused"}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (ELSEWHERE, "node-7 42 video?"),
        ("pending~task-1", "a task that has not ended, task-1?"),
        ("lease~written by nobody", "a task that has not ended, lease~written by nobody?"),
    ],
)
def test_what_can_not_be_seen_counts_until_somebody_says_that_it_was_stopped(
    swept: Callable[..., Any], run: Run, root: Path, name: str, shown: str
) -> None:
    directory = workspace(root, "a", "x")
    file = mark(root, "a", name, DAY - 60)
    assert swept("--all", "--dry-run")["users"] == swept("--all")["users"] != []
    lines = run("--all").stdout.splitlines()
    assert f"  {shown}: {directory}" in lines
    assert "counts until TMP_REDIRECT_TTL=1d is over" in lines[-1] and "add --others-stopped" in lines[-1]
    assert directory.exists() and file.exists()
    expected = swept("--all", "--others-stopped", "--dry-run")
    assert directory.exists() and file.exists()
    result = swept("--all", "--others-stopped")
    assert {**result, "dry_run": True} == {**expected, "own": result["own"]}
    assert set(result["own"]) - set(expected["own"]) <= {f"{root}/.trash"}
    assert (result["removed"], result["users"]) == ([str(directory)], [])
    assert [str(path.relative_to(root)) for path in root.rglob("*")] == ["a", "a/result.json"]


def test_a_purge_on_another_host_is_waited_for(swept: Callable[..., Any], root: Path) -> None:
    workspace(root, "a")
    mark(root, "a", f"purge{ELSEWHERE[len('lease') : -len('~video')]}")
    result = swept("--all")
    assert [(user["host"], user["pid"], user["task"]) for user in result["users"]] == [("node-7", 42, "purge")]
    assert swept("--all", "--others-stopped")["users"] == []
    assert not (root / ".leases").exists()


def test_who_begins_after_others_were_stopped_stays(
    settings: Settings, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = workspace(root, "a", "x")
    mark(root, "a", ELSEWHERE)
    real = remove_all.sweep

    def begin(*arguments: Any, **options: Any) -> Any:
        mark(root, "a", ELSEWHERE.replace("999~1", "999~2"))
        return real(*arguments, **options)

    monkeypatch.setattr(remove_all, "sweep", begin)
    done = remove_all.remove_all(settings, others_stopped=True)
    assert [user.pid for user in done.users] == [42]
    assert (directory / "x").exists()
    assert [path.name for path in (root / ".leases" / "a").iterdir()] == [ELSEWHERE.replace("999~1", "999~2")]


def test_a_process_in_a_container_is_seen_from_its_host(
    swept: Callable[..., Any], env: dict[str, str], root: Path
) -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("a PID namespace takes root and unshare")
    directory = workspace(root, "a", "x")
    other = workspace(root, "b", "x")
    code = (
        "import os, sys\n"
        "from services.common.tmp_redirect.lifecycle import new_name, take\n"
        "from services.common.tmp_redirect.settings import Settings\n"
        "for workflow in sys.argv[1:]: take(Settings(os.environ), workflow, new_name('lease', 'inside'))\n"
        "print('ready', flush=True)\nsys.stdin.read()"
    )
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-c", code]
    with subprocess.Popen([*command, "b"], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as ended:
        pass
    if ended.returncode:
        pytest.skip("a PID namespace isn't allowed here")
    with subprocess.Popen([*command, "a"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout and child.stdout.readline() == "ready\n"
        assert {user["path"] for user in swept("--all")["users"]} == {str(directory), str(other)}
        for arguments in (["--dry-run"], []):
            result = swept("--all", "--others-stopped", *arguments)
            assert result["removed"] == [str(other)]
            assert [(user["pid"], user["task"], user["alive"]) for user in result["users"]] == [(1, "inside", None)]
        assert (directory / "x").exists()
        assert child.stdin
        child.stdin.close()
    assert swept("--all", "--others-stopped")["users"] == []


def test_where_no_process_can_be_seen_none_counts_as_stopped(
    settings: Settings, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = workspace(root, "a", "x")
    file = mark(root, "a", ELSEWHERE)
    monkeypatch.setattr(out_of_sight, "own_holder", lambda: Holder("here", "unknown", "0", 7, 0))
    with pytest.raises(WorkspaceError, match="/proc must be mounted"):
        remove_all.remove_all(settings, others_stopped=True)
    assert directory.exists() and file.exists()


def test_what_is_strange_in_our_directories_stays_and_is_named(run: Run, root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    (elsewhere / "deep" / "precious").write_text("mine")
    things_of_the_shim(root)
    (root / ".cache" / "pip").mkdir()
    (root / ".cache" / "pip" / "wheel").write_text("mine")
    (root / ".cache" / "triton").symlink_to(elsewhere)
    (root / ".cache" / "joblib").write_text("mine")
    (root / ".outside" / "svc" / "notes").write_text("mine")
    (root / ".outside" / "file").write_text("mine")
    (root / ".outside" / "logged-only" / "violations.jsonl").unlink()
    (root / ".outside" / "logged-only" / "violations.jsonl").symlink_to(elsewhere / "deep" / "precious")
    (root / ".leases" / "README").write_text("mine")
    (root / ".leases" / "a" / "note").write_text("mine")
    (root / ".leases" / ".hidden").mkdir()
    strange = [
        *(root / ".cache" / name for name in ("joblib", "pip", "triton")),
        *(root / ".leases" / name for name in (".hidden", "README", "a/note")),
        *(root / ".outside" / name for name in ("file", "logged-only/violations.jsonl", "svc/notes")),
    ]
    kept = inventory(elsewhere)
    for arguments in (["--dry-run"], [], []):
        done = run("--all", *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        begin = lines.index("left alone, since the shim has not made it, 9 paths:")
        assert lines[begin + 1 : begin + 10] == [f"  {path}" for path in strange]
    assert {path for path in root.rglob("*") if path.relative_to(root).parts[0].startswith(".")} == {
        *strange, root / ".cache/pip/wheel", root / ".leases/a", root / ".outside/svc", root / ".outside/logged-only",
        *(root / name for name in (".cache", ".leases", ".outside")),
    }  # fmt: skip
    assert inventory(elsewhere) == kept


def test_who_has_begun_and_died_meanwhile_keeps_nothing(
    settings: Settings, env: dict[str, str], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = remove_all.sweep

    def die(*arguments: Any, **options: Any) -> Any:
        done = real(*arguments, **options)
        with user_of(env, "a") as child:
            child.kill()
        assert list((root / ".leases" / "a").iterdir())
        return done

    monkeypatch.setattr(remove_all, "sweep", die)
    done = remove_all.remove_all(settings)
    assert (done.users, done.deferred) == ([], [])
    assert not list(root.iterdir())


def test_what_somebody_has_open_on_nfs_is_deferred(run: Run, root: Path) -> None:
    (root / ".leases").mkdir()
    (root / ".leases" / ".nfs0001").touch()
    done = run("--all")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines()[1:] == [
        "deferred to the next run, 1 path:",
        f"  {root}/.leases/.nfs0001: somebody has it open",
        "what to do next: see to what is deferred, then run this again",
    ]


def test_a_directory_that_is_never_empty_is_deferred(
    settings: Settings, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_empty(name: str, **_: int) -> None:
        raise OSError(errno.ENOTEMPTY, "Directory not empty")

    (root / ".cache").mkdir()
    monkeypatch.setattr(remove_all, "posix", SimpleNamespace(rmdir=not_empty))
    done = remove_all.remove_all(settings)
    assert done.deferred == [(f"{root}/.cache", "something new comes there all the time")]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_in_the_place_of_the_caches_is_the_user_s(
    swept: Callable[..., Any], root: Path, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "elsewhere" / "numba").mkdir(parents=True)
    workspace(root, "a", "x")
    if kind == "file":
        (root / ".cache").write_text("mine")
    else:
        (root / ".cache").symlink_to(tmp_path / "elsewhere")
    before = inventory(tmp_path / "elsewhere")
    for arguments in (["--dry-run"], []):
        assert swept("--all", *arguments)["strange"] == [
            {"path": str(root / ".cache"), "reason": "the shim has not made it"}
        ]
    assert inventory(tmp_path / "elsewhere") == before
    assert sorted(entry.name for entry in root.iterdir()) == [".cache", "a"]


@pytest.mark.parametrize("name", [".leases", ".outside"])
@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_in_the_place_of_the_leases_keeps_all(
    swept: Callable[..., Any], root: Path, tmp_path: Path, name: str, kind: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    workspace(elsewhere, "svc", "precious")
    (root / name).symlink_to(elsewhere) if kind == "link" else (root / name).write_text("mine")
    directory = workspace(root, "a", "x")
    before = listing(elsewhere)
    for arguments in (["--dry-run"], ["--others-stopped"], []):
        result = swept("--all", *arguments)
        assert str(root / name) in [entry["path"] for entry in result["deferred"]]
    assert listing(elsewhere) == before
    assert (root / name).is_symlink() or (root / name).read_text() == "mine"
    assert directory.exists() is (name == ".leases")


def test_mounts_stay(env: dict[str, str], root: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("a mount namespace takes root and unshare")
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "numba").mkdir(parents=True)
    (elsewhere / "precious").write_text("mine")
    (elsewhere / "violations.jsonl").write_text("mine")
    places = [root / name for name in (".cache/torch/deep", ".cache/numba", ".outside/svc", "a/tmp/deep")]
    for place in places:
        place.mkdir(parents=True)
    script = "".join(f"mount --bind {elsewhere} {place}\n" for place in places) + '"$@" || echo $?; ls .cache/numba'
    command = ["unshare", "--mount", "sh", "-ec", script, "sh", *COMMAND, "--all", "--json"]
    done = subprocess.run(command, env=env, cwd=root, capture_output=True, text=True, check=False)
    if not done.stdout:
        pytest.skip(f"mounts are not allowed here: {done.stderr}")
    said, status, *inside = done.stdout.splitlines()
    assert (status, inside) == ("1", ["numba", "precious", "violations.jsonl"]), done.stderr
    deferred = {entry["path"]: entry["reason"] for entry in json.loads(said)["deferred"]}
    assert deferred.pop(str(root / ".cache/torch/deep")) == "a file system is mounted here"
    assert deferred.pop(str(root / ".cache/numba")) == "a file system is mounted here"
    assert deferred.pop(str(root / ".outside/svc")) == "a file system is mounted here"
    (of_workspace,) = deferred.values()
    assert "deep: a file system is mounted here" in of_workspace
    assert sorted(path.name for path in elsewhere.iterdir()) == ["numba", "precious", "violations.jsonl"]


def test_sockets_go_and_who_uses_them_is_named(
    swept: Callable[..., Any], root: Path, socket_dir: Path, request: pytest.FixtureRequest
) -> None:
    live, dead = socket_dir / "41-abcdefgh", socket_dir / "42-abcdefgh"
    for directory in (live, dead):
        directory.mkdir(parents=True)
    (socket_dir / "wgunicorn-abcd_123").touch()
    (socket_dir / "wgunicorn-mine").touch()
    (socket_dir / "mine").touch()
    (socket_dir / "43-abcdefgh").touch()
    strange = [str(socket_dir / name) for name in ("43-abcdefgh", "mine", "wgunicorn-mine")]
    workspace(root, "a", "x")
    (root / ".cache").mkdir()
    descriptor = os.open(live, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        for arguments in (["--dry-run"], []):
            result = swept("--all", *arguments)
            (user,) = result["users"]
            assert (user["path"], user["pid"], user["task"], user["alive"]) == (str(live), 41, "sockets", True)
            assert (result["sockets"], [entry["path"] for entry in result["strange"]]) == (1, strange)
            assert str(socket_dir / "wgunicorn-abcd_123") in result["own"]
        assert sorted(map(str, socket_dir.iterdir())) == sorted([*strange, str(live)])
        assert (root / ".cache").exists()
    finally:
        os.close(descriptor)
    assert swept("--all")["sockets"] == 1
    assert sorted(map(str, socket_dir.iterdir())) == strange
    assert [path.name for path in root.iterdir()] == ["a"]
    for path in strange:
        os.unlink(path)
    assert swept("--all")["own"] == [f"{root}/.trash"]
    assert socket_dir.exists(), "one that somebody has named stays"


def test_the_default_directory_for_sockets_goes_itself(env: dict[str, str], root: Path, socket_dir: Path) -> None:
    (socket_dir / "mine").mkdir(parents=True)
    code = (
        "import os\n"
        "from services.common.tmp_redirect.lifecycle.remove_all import remove_all\n"
        "from services.common.tmp_redirect.settings import Settings, current\n"
        f"Settings.socket_dir = path = {str(socket_dir)!r}\n"
        "assert path not in remove_all(current()).own\n"
        "os.rmdir(path + '/mine')\n"
        "assert path in remove_all(current(), dry_run=True).own and os.path.isdir(path)\n"
        "assert path in remove_all(current()).own and not os.path.exists(path)\n"
    )
    subprocess.run([sys.executable, "-c", code], env=env, check=True)


def test_another_user_s_sockets_and_directories_are_deferred(env: dict[str, str], root: Path, socket_dir: Path) -> None:
    open_up(root)
    (socket_dir / "41-abcdefgh").mkdir(parents=True, mode=0o700)
    (socket_dir / "41-abcdefgh").chmod(0o700)
    socket_dir.chmod(0o1777)
    root.chmod(0o777)
    (root / ".cache" / "numba").mkdir(parents=True)
    (root / ".cache" / "numba" / "x").touch()
    done = as_nobody(env, "sweep", "--all", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    deferred = {entry["path"]: entry["reason"] for entry in json.loads(done.stdout)["deferred"]}
    assert deferred == {
        str(socket_dir / "41-abcdefgh"): "Permission denied",
        str(root / ".cache" / "numba" / "x"): "Permission denied",
    }
    shutil.rmtree(socket_dir)


IN_A_CHILD = """
import os, posix, sys
from pathlib import Path
from changes import call_after
from services.common.tmp_redirect.lifecycle.remove_all import remove_all
from services.common.tmp_redirect.settings import current
from tests.test_sweep import inventory, one_of_each

root = Path(current().root)

def in_a_child(function):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = function() or 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def after_changes(number, action):
    call_after(number, action)
    os.unlink, os.rmdir = posix.unlink, posix.rmdir

def roll_back(**options):
    done = remove_all(current(), **options)
    assert not done.deferred and not done.strange, vars(done)
    return done

before = inventory(root.parent)
"""
KILLED = """
for changes in range(1, 1000):
    one_of_each(root)
    def killed():
        after_changes(changes, lambda: os.kill(os.getpid(), 9))
        assert not roll_back(others_stopped=True).users
    status = in_a_child(killed)
    if status != -9:
        break
    assert not roll_back(others_stopped=True).users
    assert inventory(root.parent) == before
assert status == 0 and inventory(root.parent) == before
print(changes)
"""
BEGUN_MEANWHILE = """
from services.common.tmp_redirect.scope import enter, leave
import tempfile

class Beginner:
    # Waits for a purge that is there; that one waits here, in the middle of it, so it goes on before.
    def __init__(self):
        self.ready, self.go = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.go[1])
            os._exit(in_a_child(self.use))
        os.close(self.ready[1])
        if not list((root / ".leases").glob("new/purge~*")):
            self.begun()

    def use(self):
        scope = enter("new", "beginner")
        path = Path(tempfile.gettempdir()) / "mine"
        assert root in path.parents
        path.touch()
        os.write(self.ready[1], b"x")
        os.read(self.go[0], 1)
        path.unlink()
        leave(scope)

    def begun(self):
        if self.ready:
            assert os.read(self.ready[0], 1)
            os.close(self.ready[0])
            self.ready = None

    def end(self):
        os.write(self.go[1], b"x")
        assert os.waitpid(self.pid, 0)[1] == 0

for changes in range(1, 1000):
    one_of_each(root)
    def among_others():
        begun = []
        after_changes(changes, lambda: begun.append(Beginner()))
        roll_back()
        for beginner in begun:
            beginner.begun()
            assert [user.path for user in roll_back().users] == [str(root / "new" / "tmp")]
            beginner.end()
        return 0 if begun else 9
    status = in_a_child(among_others)
    roll_back()
    assert inventory(root.parent) == before
    if status == 9:
        break
    assert status == 0, status
print(changes)
"""
AMID_A_BEGINNING = """
from services.common.tmp_redirect.scope import enter, leave
import tempfile
interrupted = 0
for workflow, prepare in (
    ("new", one_of_each), ("new", id), ("nothing-there", one_of_each), (None, one_of_each), (None, id),
):
    for changes in range(1, 1000):
        prepare(root)
        def beginning():
            ended = []
            after_changes(changes, lambda: ended.append(in_a_child(lambda: bool(roll_back().deferred))))
            scope = enter(workflow, "beginning") if workflow else None
            path = Path(tempfile.gettempdir()) / "mine"
            assert root in path.parents
            path.touch()
            if not ended:
                return 9
            assert ended == [0]
            assert path.exists()
            assert [user.path for user in roll_back().users] == [str(path.parent)]
            assert path.exists()
            if scope:
                leave(scope)
            return 0
        status = in_a_child(beginning)
        roll_back()
        assert inventory(root.parent) == before
        if status == 9:
            break
        assert status == 0, status
        interrupted += 1
print(interrupted)
"""


def at_every_change(shim_env: dict[str, str], helpers: Path, body: str) -> str:
    root = Path(shim_env["TMP_REDIRECT_ROOT"])
    things_of_the_user(root, root.parent / "elsewhere")
    env = {**shim_env, "PYTHONPATH": f"{Path(__file__).parents[1]}:{helpers}"}
    done = subprocess.run(
        [sys.executable, "-c", IN_A_CHILD + body], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_that_is_killed_after_any_change_is_completed(shim_env: dict[str, str], helpers: Path) -> None:
    assert int(at_every_change(shim_env, helpers, KILLED)) > 25


@pytest.mark.promise
def test_who_begins_after_any_change_of_all_keeps_its_workspace(shim_env: dict[str, str], helpers: Path) -> None:
    assert int(at_every_change(shim_env, helpers, BEGUN_MEANWHILE)) > 25


@pytest.mark.promise
def test_all_amid_a_beginning(shim_env: dict[str, str], helpers: Path) -> None:
    assert int(at_every_change(shim_env, helpers, AMID_A_BEGINNING)) > 15


def test_ctrl_c_in_all_says_what_was_done(env: dict[str, str], swept: Callable[..., Any], root: Path) -> None:
    things_of_the_shim(root)
    code = (
        "import os, signal\n"
        "from services.common.tmp_redirect import cli\n"
        "from services.common.tmp_redirect.lifecycle import remove_all\n"
        "remove_all.remove_tree = lambda *_: os.kill(os.getpid(), signal.SIGINT)\n"
        "raise SystemExit(cli.main(['sweep', '--all']))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr == "tmp-redirect sweep: interrupted; run this again for the rest\n"
    assert done.stdout.startswith("removed 8 workspaces and 1 tree in the trash")
    assert "nothing that the shim" not in done.stdout
    assert (root / ".cache" / "numba").exists()
    assert swept("--all")["removed"] == []
    assert not [path.name for path in root.iterdir() if path.name.startswith(".")]


def test_several_all_at_once_leave_nothing(env: dict[str, str], run: Run, root: Path, tmp_path: Path) -> None:
    things_of_the_user(root, tmp_path / "elsewhere")
    before = inventory(root)
    for number in range(300):
        (root / f"wf-{number}" / "tmp").mkdir(parents=True)
        (root / f"wf-{number}" / "tmp" / "x").touch()
        mark(root, f"wf-{number}", f"ours{ELSEWHERE[len('lease') : -len('~video')]}")
    things_of_the_shim(root)
    children = [subprocess.Popen([*COMMAND, "--all"], env=env, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = [child.communicate(timeout=60)[0] for child in children]
    assert {child.returncode for child in children} <= {0, 1}, said
    assert run("--all").returncode == 0
    assert inventory(root) == before
