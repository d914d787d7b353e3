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

from services.common.tmp_redirect.errors import WorkspaceError
from services.common.tmp_redirect.lifecycle import purge, sweep, sweep_command
from services.common.tmp_redirect.settings import Settings
from tests.test_workspace import NOBODY, open_up

DAY = 24 * 3600
ELSEWHERE = "lease~node-7~0123456789ab~4026531836~42~999~1~video"  # of another host
COMMAND = [sys.executable, "-m", "services.common.tmp_redirect", "sweep"]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def env(shim_env: dict[str, str]) -> dict[str, str]:
    """Without the shim: the command doesn't need it."""
    return {name: value for name, value in shim_env.items() if name != "TMP_REDIRECT"}


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
        assert done.returncode == (1 if result["deferred"] else 0)
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


@pytest.mark.parametrize(("name", "reason"), [(ELSEWHERE, "in use"), ("pending~task-1", "a task has not begun")])
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
    assert swept("--older-than", "0")["kept"] == {"a task has not begun": 1}
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
    assert expected["kept"] == {"in use": 2, "a task has not begun": 1}
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


def as_nobody(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a command as another user, who can't read this interpreter's files: they are loaded before."""
    if os.geteuid() != 0:
        pytest.skip("only root can start a process as another user")
    code = (
        "import os, sys, random, traceback, linecache, locale, encodings.ascii\n"
        "import services.common.tmp_redirect.cli as cli\n"
        "from services.common.tmp_redirect.propagate import sockets\n"
        "from services.common.tmp_redirect import setting_values\n"
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        f"sys.exit(cli.main({arguments!r}))"
    )
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False, cwd="/")


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
        (["--root", "nope"], {}, 78, "TMP_REDIRECT_ROOT='nope' is not allowed: an absolute path"),
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
