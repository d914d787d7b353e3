"""Exactly the tree goes: whatever it contains, whatever leads out of it, and whoever else works on it meanwhile.

What is there before and after is listed by walking paths, which the code under test never does. Mounts are made in a
mount namespace of the test's own.
"""

from __future__ import annotations

import errno
import gc
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.common.tmp_redirect.lifecycle.removal import Removed, remove
from services.common.tmp_redirect.lifecycle.trees import HELD, newest, usage
from tests.installation import HOME
from tests.test_workspace import NOBODY, open_up


@pytest.fixture
def parent(root: Path) -> Iterator[int]:
    """A descriptor of the root, in which the tests make the tree `t`; all other descriptors must be closed again."""
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY)
    gc.collect()  # what other tests left in cycles would be closed meanwhile
    before = os.listdir("/proc/self/fd")
    yield descriptor
    assert os.listdir("/proc/self/fd") == before
    os.close(descriptor)


def listing(directory: Path) -> dict[str, object]:
    """Each entry of `directory`: its mode, and the content of a file or the target of a link."""
    found: dict[str, object] = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path)] = (status.st_mode, content)
    return found


def victim_at(directory: Path) -> Path:
    (directory / "below" / "deeper").mkdir(parents=True)
    (directory / "file").write_bytes(b"mine")
    (directory / "below" / "deeper" / "file").write_bytes(b"mine too")
    return directory


def deep(directory: Path, levels: int, descent: Callable[[int], None] = lambda descriptor: None) -> None:
    """Make `levels` directories one in the other, with a file in each; longer than any path may be."""
    directory.mkdir()
    at = os.open(directory, os.O_RDONLY)
    for level in range(levels):
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=at))
        if level == levels - 1:
            descent(at)
        os.mkdir("d", dir_fd=at)
        above, at = at, os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(above)
    os.close(at)


def assert_gone(removed: Removed, root: Path, entries: int | None = None) -> None:
    assert (removed.complete, removed.deferred, removed.deferred_count, removed.stopped) == (True, [], 0, False)
    assert not os.path.lexists(root / "t")
    if entries is not None:
        assert removed.entries == entries


def test_a_tree_and_what_it_freed(parent: int, root: Path) -> None:
    tree = root / "t"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "file").write_bytes(b"x" * 10_000)
    (tree / "a" / "b" / "empty").touch()
    os.mkfifo(tree / "fifo")
    (root / "sibling").touch()
    blocks = sum(path.lstat().st_blocks for path in (tree, *tree.rglob("*")))
    removed = remove(parent, "t")
    assert_gone(removed, root, 6)
    assert removed.bytes == blocks * 512 > 10_000
    assert [entry.name for entry in root.iterdir()] == ["sibling"]


def test_nothing_is_there(parent: int, root: Path) -> None:
    assert_gone(remove(parent, "t"), root, 0)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/tmp"])
def test_paths_are_no_names(parent: int, root: Path, name: str) -> None:
    for call in (remove, newest, usage):
        with pytest.raises(ValueError, match="not the name of an entry"):
            call(parent, name)


@pytest.mark.parametrize("where", ["t", "t/link", "t/a/link"])
@pytest.mark.parametrize("target", ["/", "/no/such", ".", "..", "victim", "wf-2"])
def test_links_are_removed_themselves(parent: int, root: Path, tmp_path: Path, where: str, target: str) -> None:
    victim_at(tmp_path / "victim")
    victim_at(root / "wf-2" / "tmp")
    (root / "wf-2" / "tmp" / "t").mkdir()
    before = listing(tmp_path)
    (root / where).parent.mkdir(parents=True, exist_ok=True)
    known = {"victim": tmp_path / "victim", "wf-2": root / "wf-2" / "tmp"}
    (root / where).symlink_to(known.get(target, Path(target)))
    assert_gone(remove(parent, "t"), root, where.count("/") + 1)
    assert listing(tmp_path) == before


def test_a_file_of_that_name(parent: int, root: Path) -> None:
    (root / "t").write_bytes(b"x")
    assert remove(parent, "t", most=0).stopped
    assert_gone(remove(parent, "t"), root, 1)


def test_hard_links(parent: int, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"x" * 100_000)
    (root / "t").mkdir()
    size = (root / "t").stat().st_blocks * 512
    os.link(outside, root / "t" / "one")
    (root / "t" / "two").write_bytes(b"x" * 50_000)
    size += (root / "t" / "two").stat().st_blocks * 512
    os.link(root / "t" / "two", root / "t" / "three")
    used = usage(parent, "t")
    assert (used.inodes, used.bytes) == (3, size + outside.stat().st_blocks * 512)
    removed = remove(parent, "t")
    assert_gone(removed, root, 4)
    assert removed.bytes == size
    assert outside.read_bytes() == b"x" * 100_000
    assert outside.stat().st_nlink == 1


def test_names_that_are_not_utf8(parent: int, root: Path) -> None:
    for name in (b"\xff\xfe", "工作流".encode(), b"a\nb", b"x" * 255, b"-rf", b"*"):
        os.makedirs(os.path.join(os.fsencode(root), b"t", name, name))
        os.close(os.open(os.path.join(os.fsencode(root), b"t", name, b"\x80"), os.O_CREAT | os.O_WRONLY))
    assert usage(parent, "t").inodes == 19
    assert_gone(remove(parent, "t"), root, 19)


def test_very_many_files(parent: int, root: Path) -> None:
    (root / "t").mkdir()
    directory = os.open(root / "t", os.O_RDONLY)
    for number in range(100_000):
        os.close(os.open(str(number), os.O_CREAT | os.O_WRONLY, dir_fd=directory))
    os.close(directory)
    assert usage(parent, "t").inodes == 100_001
    removed = remove(parent, "t", most=1000)
    assert (removed.entries, removed.stopped, removed.complete, removed.deferred) == (1000, True, False, [])
    assert len(os.listdir(root / "t")) == 99_000
    assert_gone(remove(parent, "t"), root, 99_001)


def test_it_stops_and_goes_on(parent: int, root: Path) -> None:
    for number in range(10):
        (root / "t" / f"d{number}" / "e").mkdir(parents=True)
        (root / "t" / f"d{number}" / "file").touch()
    left = 31
    while left > 7:
        removed = remove(parent, "t", most=7)
        assert (removed.entries, removed.stopped, removed.complete) == (7, True, False)
        left -= 7
        assert len(listing(root)) == left
    removed = remove(parent, "t", most=left)
    assert_gone(removed, root, left)


@pytest.mark.parametrize("levels", [HELD - 1, HELD, HELD + 1, 200, 2000])
def test_deep_trees(parent: int, root: Path, levels: int) -> None:
    open_at_most = []
    deep(root / "t", levels)
    scandir = os.scandir

    def counting(descriptor: int) -> object:
        open_at_most.append(len(os.listdir("/proc/self/fd")))
        return scandir(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", counting)
        assert usage(parent, "t").inodes == 2 * levels + 1
        assert newest(parent, "t") > 0
        assert_gone(remove(parent, "t"), root, 2 * levels + 1)
    assert len(open_at_most) >= 3 * levels
    assert max(open_at_most) < HELD + min(open_at_most) + 3


def test_a_deep_directory_that_is_moved_away(parent: int, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep(root / "t", 2 * HELD)
    (root / "elsewhere").mkdir()
    (root / "elsewhere" / "keep").touch()
    unlink = os.unlink
    calls = []

    def moving(name: str, *, dir_fd: int) -> None:
        calls.append(name)
        if len(calls) == 2 * HELD:
            os.rename(root / "t" / "d" / "d", root / "elsewhere" / "d")
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", moving)
    removed = remove(parent, "t")
    assert not removed.complete
    assert [why for _, why in removed.deferred] == ["it was moved meanwhile"]
    assert (root / "elsewhere" / "keep").exists()
    assert_gone(remove(parent, "t"), root)
    assert (root / "elsewhere" / "keep").exists()


CLOSED = """
import os, pathlib
from services.common.tmp_redirect.lifecycle.removal import remove
from services.common.tmp_redirect.lifecycle.trees import usage, newest
root = pathlib.Path({root!r})
for mode in (0o000, 0o100, 0o200, 0o300, 0o400, 0o500, 0o600):
    for name in ("empty", "full"):
        (root / "t" / f"{{mode:o}}-{{name}}").mkdir(parents=True)
    (root / "t" / f"{{mode:o}}-full" / "file").touch()
    (root / "t" / f"{{mode:o}}-full" / "below").mkdir(mode=mode)
    for name in ("empty", "full"):
        (root / "t" / f"{{mode:o}}-{{name}}").chmod(mode)
(root / "t").chmod(0)
parent = os.open(root, os.O_RDONLY)
used = usage(parent, "t")
assert (used.inodes, used.skipped) == (1, [(".", "Permission denied")]), used.skipped
assert newest(parent, "t") > 1e9
removed = remove(parent, "t")
assert removed.complete and removed.entries == 1 + 4 * 7, removed
assert os.listdir(root) == []
"""


def test_directories_that_are_closed_to_us(root: Path) -> None:
    open_up(root)
    root.chmod(0o777)
    done = as_nobody(CLOSED.format(root=str(root)))
    assert done.returncode == 0, done.stderr


def test_what_is_not_ours(root: Path) -> None:
    open_up(root)
    root.chmod(0o777)
    victim_at(root / "t" / "roots")
    (root / "t").chmod(0o777)
    os.chown(root / "t", NOBODY, NOBODY) if os.geteuid() == 0 else None
    (root / "t" / "own").touch()
    done = as_nobody(
        "from services.common.tmp_redirect.lifecycle.removal import remove\n"
        f"removed = remove(os.open({str(root)!r}, os.O_RDONLY), 't')\n"
        "assert (removed.entries, removed.complete, removed.deferred_count) == (1, False, 2), removed.deferred\n"
        "assert sorted(removed.deferred) == "
        "[('roots/below/deeper/file', 'Permission denied'), ('roots/file', 'Permission denied')], removed.deferred\n"
    )
    assert done.returncode == 0, done.stderr
    assert len(listing(root)) == 6


def as_nobody(code: str) -> subprocess.CompletedProcess[str]:
    if os.geteuid() != 0:
        pytest.skip("only root can start a process as another user")
    # Imported first: the other user may not be able to read this interpreter's files.
    imports = "import os, pathlib, traceback, linecache, services.common.tmp_redirect.lifecycle.removal\n"
    prefix = f"{imports}os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(HOME)}
    return subprocess.run(
        [sys.executable, "-c", prefix + code], env=env, capture_output=True, text=True, check=False, cwd="/"
    )


MOUNTS = """
import os, sys
from services.common.tmp_redirect.lifecycle.removal import remove
from services.common.tmp_redirect.lifecycle.trees import newest, usage
parent = os.open(sys.argv[1], os.O_RDONLY)
if sys.argv[2:]:
    used = usage(parent, "t")
    assert used.inodes == 4, used
    assert used.skipped == [("a/mount", "a file system is mounted here")], used.skipped
    assert newest(parent, "t") < 4e9
removed = remove(parent, "t")
print(removed.entries, removed.complete, removed.deferred)
"""


@pytest.mark.parametrize("user", ["root", "closed"])
@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
def test_mounts_are_not_entered(root: Path, tmp_path: Path, kind: str, user: str) -> None:
    mount = root / "t" / "a" / "mount"
    mount.mkdir(parents=True)
    (root / "t" / "a" / "file").touch()
    (root / "t" / "file").touch()
    victim = victim_at(tmp_path / "victim")
    before = listing(victim)
    how = f"mount --bind {victim} {mount}" if kind == "bind" else f"mount -t tmpfs tmpfs {mount}"
    close = f"chmod 0 {mount}" if user == "closed" else "true"
    script = (
        f"{how} && touch -d 2150-01-01 {mount}/new && {close} && {sys.executable} -c '{MOUNTS}' {root} look && "
        f"stat -c %a {mount} && ls -A {mount}"
    )
    status, *left = in_mount_namespace(script)
    assert status == "2 False [('a/mount', 'a file system is mounted here')]"
    assert left[1:] == (["below", "file", "new"] if kind == "bind" else ["new"])
    (victim / "new").unlink(missing_ok=True)
    victim.chmod(0o755)
    assert listing(victim) == before
    assert mount.is_dir()


@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
def test_a_mount_in_a_place_of_its_own(root: Path, tmp_path: Path, kind: str) -> None:
    (root / "t").mkdir()
    victim = victim_at(tmp_path / "victim")
    before = listing(victim)
    how = f"mount --bind {victim} {root}/t" if kind == "bind" else f"mount -t tmpfs tmpfs {root}/t"
    assert in_mount_namespace(f"{how} && {sys.executable} -c '{MOUNTS}' {root}") == [
        "0 False [('.', 'a file system is mounted here')]"
    ]
    assert listing(victim) == before


def test_a_mounted_file(root: Path, tmp_path: Path) -> None:
    (root / "t").mkdir()
    (root / "t" / "file").touch()
    (tmp_path / "outside").write_bytes(b"mine")
    script = f"mount --bind {tmp_path}/outside {root}/t/file && {sys.executable} -c '{MOUNTS}' {root}"
    assert in_mount_namespace(script) == ["0 False [('file', 'Device or resource busy')]"]
    assert (tmp_path / "outside").read_bytes() == b"mine"


def test_a_mount_that_is_closed_to_its_owner(root: Path, tmp_path: Path) -> None:
    """The mode of what is mounted is not changed either."""
    open_up(root)
    open_up(tmp_path / "victim")
    for directory in (root / "t" / "mount", tmp_path / "victim" / "below"):
        directory.mkdir(parents=True)
    for directory in (root, root / "t", tmp_path / "victim"):
        directory.chmod(0o777)
    if os.geteuid() == 0:
        os.chown(tmp_path / "victim", NOBODY, NOBODY)
        os.chown(root / "t", NOBODY, NOBODY)
    (tmp_path / "victim").chmod(0)
    body = f"import os; os.setgid({NOBODY}); os.setuid({NOBODY})"
    script = MOUNTS.replace("parent =", f"{body}\nparent =", 1)
    found = in_mount_namespace(
        f"mount --bind {tmp_path}/victim {root}/t/mount && {sys.executable} -c '{script}' {root}"
    )
    assert found == ["0 False [('mount', 'Device or resource busy')]"]
    assert (tmp_path / "victim").stat().st_mode & 0o777 == 0
    (tmp_path / "victim").chmod(0o700)
    assert (tmp_path / "victim" / "below").is_dir()


def in_mount_namespace(script: str) -> list[str]:
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespace can be made here: unshare -m is missing or not permitted")
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(HOME)}
    done = subprocess.run(
        [unshare, "-m", "sh", "-c", script], env=env, capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def failing(function: Callable[..., object], names: dict[str, int]) -> Callable[..., object]:
    def call(name: str, **options: int) -> object:
        if name in names:
            raise OSError(names[name], os.strerror(names[name]), name)
        return function(name, **options)

    return call


@pytest.mark.parametrize("code", [errno.EBUSY, errno.ESTALE, errno.EACCES, errno.EPERM, errno.EIO, errno.EROFS])
def test_a_file_that_cannot_be_removed(parent: int, root: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    for name in (".nfs0001", "a/.nfs0002", "a/other", "b/c/file"):
        (root / "t" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "t" / name).touch()
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", failing(os.unlink, {".nfs0001": code, ".nfs0002": code}))
        removed = remove(parent, "t")
    assert (removed.entries, removed.complete, removed.stopped) == (4, False, False)
    assert removed.deferred == [(".nfs0001", os.strerror(code)), ("a/.nfs0002", os.strerror(code))]
    assert sorted(listing(root / "t")) == [str(root / "t" / name) for name in (".nfs0001", "a", "a/.nfs0002")]
    assert_gone(remove(parent, "t"), root, 4)


@pytest.mark.parametrize("code", [errno.EBUSY, errno.ENOTEMPTY, errno.EIO])
def test_a_directory_that_cannot_be_removed(
    parent: int, root: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    for name in ("a/file", "b/file"):
        (root / "t" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "t" / name).touch()
    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", failing(os.rmdir, {"a": code}))
        removed = remove(parent, "t")
    assert (removed.entries, removed.complete) == (3, False)
    assert removed.deferred == [("a", os.strerror(code))]
    assert_gone(remove(parent, "t"), root, 2)


def test_a_silly_rename_that_comes_back(parent: int, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "t" / "a").mkdir(parents=True)
    (root / "t" / "a" / ".nfs0001").touch()
    unlink = os.unlink
    number = iter(range(2, 100))

    def renaming(name: str, *, dir_fd: int) -> None:
        unlink(name, dir_fd=dir_fd)
        (root / "t" / "a" / f".nfs{next(number):04}").touch()

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", renaming)
        removed = remove(parent, "t")
    assert removed.deferred == [("a", "Directory not empty")]
    assert_gone(remove(parent, "t"), root, 3)


def test_what_appears_meanwhile_is_removed_too(parent: int, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "t").mkdir()
    (root / "t" / "old").touch()
    rmdir = os.rmdir
    new = iter(["new", "newer"])

    def late(name: str, *, dir_fd: int) -> None:
        appearing = next(new, None)
        if appearing is not None:
            (root / "t" / appearing / "file").mkdir(parents=True)
        rmdir(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", late)
    assert_gone(remove(parent, "t"), root)


def test_what_somebody_else_could_remove_is_not_deferred(
    parent: int, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "t").mkdir()
    (root / "t" / "file").touch()
    rmdir = os.rmdir

    def after_another(name: str, *, dir_fd: int) -> None:
        (root / "t" / "file").rename(root / "removed")
        rmdir(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", failing(os.unlink, {"file": errno.EBUSY}))
    monkeypatch.setattr(os, "rmdir", after_another)
    assert_gone(remove(parent, "t"), root, 1)


def test_no_more_than_a_hundred_are_named(parent: int, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "t").mkdir()
    names = [f"file{number}" for number in range(150)]
    for name in names:
        (root / "t" / name).touch()
    monkeypatch.setattr(os, "unlink", failing(os.unlink, dict.fromkeys(names, errno.EBUSY)))
    removed = remove(parent, "t")
    assert (removed.deferred_count, len(removed.deferred)) == (150, 100)


@pytest.mark.parametrize("code", ["EBUSY", "ESTALE", "EIO", "ENOTEMPTY"])
@pytest.mark.parametrize("call", ["unlinkat", "openat", "getdents64", "newfstatat"])
def test_the_kernel_fails_once(root: Path, strace: tuple[str, ...], code: str, call: str, tmp_path: Path) -> None:
    """Whatever call fails, the rest goes, and the next time so does what was kept."""
    body = (
        "import os, sys\nfrom services.common.tmp_redirect.lifecycle.removal import remove\n"
        f"parent = os.open({str(root)!r}, os.O_RDONLY)\n"
        "os.listdir(parent); os.stat('t', dir_fd=parent); os.unlink('begin', dir_fd=parent)\n"
        "removed = remove(parent, 't')\n"
        "print(removed.complete, removed.deferred_count, removed.stopped)\n"
    )
    for directory in ("a/b", "c"):
        (root / "t" / directory).mkdir(parents=True)
        for number in range(3):
            (root / "t" / directory / str(number)).touch()
    (root / "begin").touch()
    trace = [*strace[: strace.index("--seccomp-bpf") + 1], "-o", os.devnull, "-P", str(root / "t" / "c")]
    trace += ["-e", f"trace={call}", "-e", f"inject={call}:error={code}:when=1"]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(HOME)}
    done = subprocess.run([*trace, sys.executable, "-c", body], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    complete, deferred, stopped = done.stdout.split()
    assert stopped == "False"
    assert complete == str(not (root / "t").exists())
    assert complete == "True" or int(deferred) > 0
    assert call != "unlinkat" or deferred == "1"
    assert not (root / "t" / "a").exists()
    parent = os.open(root, os.O_RDONLY)
    assert_gone(remove(parent, "t"), root)
    os.close(parent)


def in_threads(*calls: Callable[[], None]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("shape", ["wide", "deep"])
def test_several_remove_the_same_tree(parent: int, root: Path, shape: str) -> None:
    made = 0
    if shape == "deep":
        deep(root / "t", 500)
        made = 1001
    else:
        for number in range(200):
            (root / "t" / f"d{number}" / "e").mkdir(parents=True)
            for name in "abcdf":
                (root / "t" / f"d{number}" / name).touch()
        made = 1 + 200 * 7
    results: list[Removed] = []
    in_threads(*[lambda: results.append(remove(parent, "t"))] * 4)
    for removed in results:
        assert_gone(removed, root)
    assert sum(removed.entries for removed in results) == made


@pytest.mark.parametrize("what", ["a", "a/b", "a/b/c"])
def test_a_directory_that_turns_into_a_link(parent: int, root: Path, tmp_path: Path, what: str) -> None:
    """Whoever swaps names while the tree is removed gains nothing."""
    victim = victim_at(tmp_path / "victim")
    (victim / "c").mkdir()
    (victim / "c" / "file").touch()
    before = listing(victim)
    swaps = 0
    for _ in range(150):
        (root / "t" / "a" / "b" / "c").mkdir(parents=True)
        for directory in ("a", "a/b", "a/b/c"):
            (root / "t" / directory / "file").touch()
        begun, ended = threading.Event(), threading.Event()

        def swap() -> None:
            nonlocal swaps
            begun.wait()
            while not ended.is_set():
                try:
                    os.rename(root / "t" / what, root / "aside")
                    os.symlink(victim, root / "t" / what)
                    swaps += 1
                    os.unlink(root / "t" / what)
                    os.rename(root / "aside", root / "t" / what)
                except OSError:
                    pass

        def sweep() -> None:
            begun.set()
            for _ in range(3):
                remove(parent, "t")
            ended.set()

        in_threads(swap, sweep)
        remove(parent, "t")
        remove(parent, "aside")
        assert os.listdir(root) == []
        assert listing(victim) == before
    assert swaps > 0


def test_the_newest_stamp_is_wherever_it_is(parent: int, root: Path) -> None:
    tree = root / "t"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "file").touch()
    (tree / "link").symlink_to("/")
    now = max(path.lstat().st_ctime for path in (tree, *tree.rglob("*")))
    assert newest(parent, "t") == usage(parent, "t").newest == now
    for path in (tree, tree / "a" / "b", tree / "a" / "b" / "file", tree / "link"):
        later = newest(parent, "t") + 1000
        os.utime(path, (later, later), follow_symlinks=False)
        assert newest(parent, "t") == usage(parent, "t").newest == later


def test_an_old_modification_time_does_not_make_a_file_old(parent: int, root: Path) -> None:
    (root / "t").mkdir()
    os.utime(root / "t", (0, 0))
    assert newest(parent, "t") == (root / "t").stat().st_ctime > 1e9


def test_it_reads_no_more_than_it_must(parent: int, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "t" / "a").mkdir(parents=True)
    stamp = (root / "t").stat().st_ctime

    def unexpected(descriptor: int) -> None:
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", unexpected)
        assert newest(parent, "t", stamp - 1) == stamp
    assert newest(parent, "t", stamp + 1000) >= stamp


@pytest.mark.parametrize("kind", ["file", "link"])
def test_reading_what_is_no_directory(parent: int, root: Path, tmp_path: Path, kind: str) -> None:
    victim_at(tmp_path / "victim")
    (root / "t").touch() if kind == "file" else (root / "t").symlink_to(tmp_path / "victim")
    assert newest(parent, "t") == (root / "t").lstat().st_ctime
    assert usage(parent, "t").inodes == 1


def test_reading_what_is_not_there(parent: int) -> None:
    for read in (newest, usage):
        with pytest.raises(FileNotFoundError):
            read(parent, "t")


def test_reading_follows_no_link(parent: int, root: Path, tmp_path: Path) -> None:
    victim = victim_at(tmp_path / "victim")
    os.utime(victim / "file", (5e9, 5e9))
    (root / "t").mkdir()
    (root / "t" / "link").symlink_to(victim)
    (root / "t" / "file").symlink_to(victim / "file")
    assert usage(parent, "t").inodes == 3
    assert newest(parent, "t") < 4e9


def test_reading_while_it_is_removed(parent: int, root: Path) -> None:
    for number in range(300):
        (root / "t" / f"d{number}" / "e").mkdir(parents=True)
        (root / "t" / f"d{number}" / "file").touch()
    errors: list[OSError] = []

    def read() -> None:
        try:
            while True:
                usage(parent, "t")
        except OSError as error:
            errors.append(error)

    in_threads(read, lambda: remove(parent, "t"))
    assert [error.errno for error in errors] == [errno.ENOENT]


def test_it_imports_next_to_nothing() -> None:
    """A task may purge when it ends: its imports are all that a process pays that never does."""
    code = (
        "import sys; before = set(sys.modules); import services.common.tmp_redirect.lifecycle.removal\n"
        "print(*sorted(m for m in set(sys.modules) - before if not m.startswith('services')))"
    )
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(HOME), "TMP_REDIRECT": "off"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.split() == ["errno"]
