"""The watcher is the evidence of other tests: it sees everything, or it says that it couldn't."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from inotify_simple import INotify

from examples import watcher as module
from examples.watcher import Watcher, WatcherError

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, RENAME_EXCHANGE = -100, 2


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    directory = tmp_path / "tree"
    directory.mkdir()
    return directory


def test_every_way_to_make_a_file(tree: Path) -> None:
    with Watcher([tree]) as watcher:
        (tree / "file").touch()
        (tree / "symlink").symlink_to("nowhere")
        (tree / "hard-link").hardlink_to(tree / "file")
        os.mkfifo(tree / "fifo")
        (tree / "directory").mkdir()
        subprocess.run(["touch", str(tree / "of-another-program")], check=True)
    names = ["file", "symlink", "hard-link", "fifo", "directory", "of-another-program"]
    assert watcher.created == [tree / name for name in names]


def test_only_what_is_new_and_while_it_watches(tree: Path) -> None:
    (tree / "before").touch()
    (tree / "directory").mkdir()
    with Watcher([tree]) as watcher:
        (tree / "before").write_text("changed", encoding="utf-8")
        (tree / "before").unlink()
        (tree / "directory").rmdir()
    (tree / "after").touch()
    assert watcher.created == []


def test_leaving_waits_for_everything_that_was_made_and_removed(tree: Path) -> None:
    (tree / "directory").mkdir()
    files = [tree / "directory" / str(number) for number in range(3000)]
    with Watcher([tree]) as watcher:
        for file in files:
            file.touch()
            file.unlink()
    assert watcher.created == files


def test_sync_waits_for_everything_made_so_far(tree: Path) -> None:
    files = [tree / str(number) for number in range(3000)]
    with Watcher([tree]) as watcher:
        for made in (1000, 2000, 3000):
            for file in files[made - 1000 : made]:
                file.touch()
            watcher.sync()
            assert watcher.created == files[:made]


def test_what_is_in_new_directories(tree: Path) -> None:
    deep = tree / "a" / "b" / "c"
    with Watcher([tree]) as watcher:
        deep.mkdir(parents=True)
        (deep / "at-once").touch()
        watcher.sync()
        (deep / "later").touch()
        (deep / "later").unlink()
    assert set(watcher.created) == {tree / "a", tree / "a" / "b", deep, deep / "at-once", deep / "later"}


def test_several_roots_by_their_real_paths(tree: Path, tmp_path: Path) -> None:
    for name in ("one", "two", "outside"):
        (tree / name).mkdir()
    (tmp_path / "link").symlink_to(tree / "one")
    (tree / "two" / "link").symlink_to(tree / "outside")
    with Watcher([tmp_path / "link", tree / "two"]) as watcher:
        (tree / "one" / "x").touch()
        (tree / "two" / "x").touch()
        (tree / "two" / "link" / "not-below-a-root").touch()
    assert watcher.created == [tree / "one" / "x", tree / "two" / "x"]


def test_files_that_are_moved(tree: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "outside", tree / "inside", tree / "leaves"):
        path.touch()
    with Watcher([tree]) as watcher:
        (tmp_path / "outside").rename(tree / "came")
        (tree / "inside").rename(tree / "renamed")
        (tree / "leaves").rename(tmp_path / "left")
    assert watcher.created == [tree / "came", tree / "renamed"]


def test_a_directory_that_comes_is_watched_with_its_content(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "outside" / "sub").mkdir(parents=True)
    (tmp_path / "outside" / "sub" / "old").touch()
    with Watcher([tree]) as watcher:
        (tmp_path / "outside").rename(tree / "came")
        watcher.sync()
        (tree / "came" / "sub" / "new").touch()
    sub = tree / "came" / "sub"
    assert watcher.created == [tree / "came", sub, sub / "old", sub / "new"]


def test_a_directory_that_leaves_is_no_longer_watched(tree: Path, tmp_path: Path) -> None:
    (tree / "leaves" / "sub").mkdir(parents=True)
    with Watcher([tree]) as watcher:
        (tree / "leaves").rename(tmp_path / "left")
        (tmp_path / "left" / "sub" / "x").touch()
    assert watcher.created == []


def test_a_directory_that_moves_is_watched_without_a_gap(tree: Path) -> None:
    old, new = tree / "old", tree / "new"
    (old / "sub").mkdir(parents=True)
    for _ in range(20):
        with Watcher([tree]) as watcher:
            old.rename(new)
            (new / "x").touch()
            (new / "x").unlink()
            (new / "sub" / "x").touch()
            (new / "sub" / "x").unlink()
        assert set(watcher.created) == {new, new / "sub", new / "x", new / "sub" / "x"}
        new.rename(old)


def test_directories_that_change_places(tree: Path) -> None:
    a, b = tree / "a", tree / "b"
    (a / "of-a").mkdir(parents=True)
    (b / "of-b").mkdir(parents=True)
    with Watcher([tree]) as watcher:
        if LIBC.renameat2(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), RENAME_EXCHANGE):
            pytest.skip(f"directories can't change places here: {os.strerror(ctypes.get_errno())}")
        watcher.sync()
        made = {a / "x", b / "x", a / "of-b" / "x", b / "of-a" / "x"}
        for file in made:
            file.touch()
            file.unlink()
    assert set(watcher.created) == {a, b, a / "of-b", b / "of-a"} | made


def test_an_overflow_is_an_error(tree: Path) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text(encoding="ascii"))
    one, other = tree / "one", tree / "other"
    one.touch()

    def make_more_than_the_kernel_can_queue() -> None:
        for _ in range(limit):
            one.rename(other)
            other.rename(one)

    with pytest.raises(WatcherError, match="queue overflowed"), Watcher([tree]) as watcher, watcher._lock:
        make_more_than_the_kernel_can_queue()  # while the reader waits for the lock


@pytest.mark.parametrize(
    ("number", "text"), [(errno.ENOSPC, "out of inotify watches"), (errno.EIO, os.strerror(errno.EIO))]
)
def test_a_watch_that_fails_is_an_error(tree: Path, monkeypatch: pytest.MonkeyPatch, number: int, text: str) -> None:
    class Failing(INotify):  # type: ignore[misc]
        def add_watch(self, path: Any, mask: int) -> int:
            if Path(path).name == "unlucky":
                raise OSError(number, os.strerror(number), path)
            watch: int = super().add_watch(path, mask)
            return watch

    monkeypatch.setattr(module, "INotify", Failing)
    with pytest.raises(WatcherError, match=text), Watcher([tree]):
        (tree / "unlucky").mkdir()
    with pytest.raises(OSError, match=text), Watcher([tree]):
        pytest.fail("the block was entered")


def test_the_blocks_own_error_comes_first(tree: Path) -> None:
    def lose_the_root_and_fail() -> None:
        tree.rmdir()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Watcher([tree]):
        lose_the_root_and_fail()


@pytest.mark.parametrize("go_away", [Path.rmdir, lambda root: root.rename(root.with_name("away"))])
def test_a_root_that_goes_away_is_an_error(tree: Path, go_away: Callable[[Path], object]) -> None:
    def replace() -> None:
        go_away(tree)
        tree.mkdir()

    with pytest.raises(WatcherError, match="was removed or moved away"), Watcher([tree]):
        replace()
    with Watcher([tree.parent, tree]) as watcher:  # who watches its parent sees it come again
        replace()
        watcher.sync()
        (tree / "x").touch()
    assert {tree, tree / "x"} <= set(watcher.created)


@pytest.mark.parametrize("name", ["missing", "file"])
def test_what_is_no_directory_is_refused(tree: Path, name: str) -> None:
    (tree / "file").touch()
    with pytest.raises(NotADirectoryError, match=name), Watcher([tree, tree / name]):
        pytest.fail("the block was entered")


LOOK = """
import json, os, sys
from examples.watcher import Watcher
tree = sys.argv[1]
with Watcher([tree]) as watcher:
    os.mkdir(tree + "/new", mode=0)
    open(tree + "/x", "w").close()
print(json.dumps([[os.path.relpath(path, tree) for path in paths] for paths in (watcher.created, watcher.unwatched)]))
"""


def test_unreadable_directories_are_named(tree: Path) -> None:
    (tree / "unreadable").mkdir(mode=0)
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    if drop and not shutil.which("setpriv"):
        pytest.skip("root may read every directory: setpriv, which takes that from it, is missing")
    look = [*drop, sys.executable, "-c", LOOK, str(tree)]
    env = {"PYTHONPATH": str(Path(module.__file__).parents[1]), "PATH": os.environ["PATH"]}
    done = subprocess.run(look, capture_output=True, text=True, check=True, env=env)
    assert json.loads(done.stdout) == [["new", "x"], ["unreadable", "new"]]


def test_it_leaves_nothing_open(tree: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with Watcher([tree]):
        assert len(os.listdir("/proc/self/fd")) > len(before)
    with pytest.raises(NotADirectoryError), Watcher([tree, tree / "missing"]):
        pytest.fail("the block was entered")
    assert os.listdir("/proc/self/fd") == before
