"""Watch directory trees and say which paths came into being below them.

    with Watcher(["/tmp", root]) as watcher:
        run_the_program()
    assert not [path for path in watcher.created if path.parent == Path("/tmp")]

It is evidence that doesn't depend on the program it watches: the kernel's inotify reports to a thread of this process.
Leaving the block is exact and needs no pause: what was created before is in `created`, whatever the reader's delay.

Two things inotify cannot show: a file without a name (`O_TMPFILE`), and what is both created and removed inside a new
directory before that directory's own watch is in place. Directories that exist when the block is entered have no
such gap, also when they are moved.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

# Not asyncinotify, the other kept library: its recursive watch doesn't report what a new directory already contains.
from inotify_simple import Event, INotify, flags

if TYPE_CHECKING:
    from typing_extensions import Self

_APPEARED = flags.CREATE | flags.MOVED_TO
_DIRECTORY = _APPEARED | flags.MOVED_FROM | flags.MOVE_SELF | flags.ONLYDIR | flags.DONT_FOLLOW


class WatcherError(OSError):
    """The system doesn't let the watcher vouch for having seen everything."""


class Watcher:
    """Records every path created in, or moved to, the given directories or anywhere below them.

    Paths are reported with the real path of their root: `/tmp/x` appears as `/private/tmp/x` where `/tmp` is a link.
    """

    def __init__(self, roots: Iterable[str | os.PathLike[str]]) -> None:
        self.roots = list(dict.fromkeys(Path(os.path.realpath(root)) for root in roots))
        self._created: dict[Path, None] = {}
        self._unwatched: dict[Path, None] = {}
        self._directories: dict[int, Path] = {}
        self._moving: tuple[int, Path] | None = None  # the cookie of a move that is half told, and the old path
        self._failure: Exception | None = None
        self._lock = threading.Lock()
        self._syncing = threading.Lock()
        self._synced = threading.Event()
        self._barrier: int | None = None
        self._stopping = False
        self._stopped = False

    @property
    def created(self) -> list[Path]:
        """Every path that appeared since the block was entered, once, in order of first sight."""
        with self._lock:
            return list(self._created)

    @property
    def unwatched(self) -> list[Path]:
        """Directories that this user may not read and inotify therefore refuses to watch."""
        with self._lock:
            return list(self._unwatched)

    def __enter__(self) -> Self:
        self._inotify = INotify()
        try:
            for root in self.roots:
                if not root.is_dir():
                    raise NotADirectoryError(errno.ENOTDIR, "cannot watch what is not a directory", str(root))
                self._watch(root, record=False)
        except BaseException:
            self._inotify.close()
            raise
        self._reader = threading.Thread(target=self._read, name="watcher", daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._sync(stop=True)
        except WatcherError:
            if error is None:
                raise
        finally:
            self._reader.join()
            self._inotify.close()

    def sync(self) -> None:
        """Return once everything created before the call is in `created`.

        Removing a watch queues an event behind all earlier ones: a barrier that touches no watched directory. The null
        device carries it since it's a file, and only directories are watched otherwise.
        """
        self._sync(stop=False)

    def _sync(self, *, stop: bool) -> None:
        with self._syncing:
            self._stopping = stop
            self._synced.clear()
            self._barrier = self._inotify.add_watch(os.devnull, flags.DELETE_SELF)
            self._inotify.rm_watch(self._barrier)
            if self._failure is None:
                self._synced.wait()
        if self._failure is not None:
            raise WatcherError(f"cannot tell what was created: {self._failure}") from self._failure

    def _read(self) -> None:
        try:
            while not self._stopped:
                for event in self._inotify.read():
                    self._handle(event)
        except Exception as failure:  # noqa: BLE001, whatever it is, it must reach the caller of sync()
            self._failure = failure
        finally:
            self._synced.set()

    def _handle(self, event: Event) -> None:
        if event.mask & flags.Q_OVERFLOW:
            raise OverflowError("the event queue overflowed (see /proc/sys/fs/inotify/max_queued_events)")
        moved, self._moving = self._moving, None
        if moved is not None and event.cookie != moved[0]:
            self._forget(moved[1])
            moved = None
        directory = self._directories.get(event.wd)
        if event.mask & flags.IGNORED:
            self._directories.pop(event.wd, None)
            if event.wd == self._barrier:
                self._stopped = self._stopping
                self._synced.set()
        if directory is None:
            return
        if event.mask & (flags.IGNORED | flags.MOVE_SELF):
            if directory in self.roots and directory.parent not in self._directories.values():
                raise FileNotFoundError(f"{directory} was removed or moved away while it was watched")
            return
        path = directory / event.name
        if event.mask & _APPEARED:
            self._record(path)
        if event.mask & flags.ISDIR:
            self._follow(event, path, None if moved is None else moved[1])

    def _follow(self, event: Event, path: Path, old: Path | None) -> None:
        """Watch a directory that came into being, or moved, also where the event is read long after that."""
        if event.mask & flags.MOVED_FROM:
            self._moving = event.cookie, path
            return
        if old is not None:
            self._rename(old, path)
            self._watch(old, record=True)  # it's there again if two directories changed places
        self._watch(path, record=True)

    def _record(self, path: Path) -> None:
        with self._lock:
            self._created[path] = None

    def _watch(self, directory: Path, *, record: bool) -> None:
        """Watch a directory first and list it then, so that nothing falls in between."""
        pending = [directory]
        while pending:
            current = pending.pop()
            try:
                self._directories[self._inotify.add_watch(current, _DIRECTORY)] = current
                with os.scandir(current) as entries:
                    for entry in entries:
                        if record:
                            self._record(Path(entry.path))
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(Path(entry.path))
            except (FileNotFoundError, NotADirectoryError):
                continue  # it's gone again
            except PermissionError:
                with self._lock:
                    self._unwatched[current] = None
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    raise WatcherError("out of inotify watches (see /proc/sys/fs/inotify/max_user_watches)") from error
                raise

    def _rename(self, old: Path, new: Path) -> None:
        """Go on watching a directory that was moved within what is watched."""
        for watch, path in self._directories.items():
            if path.is_relative_to(old):
                self._directories[watch] = new / path.relative_to(old)

    def _forget(self, old: Path) -> None:
        """Stop watching a directory that was moved to where nothing is watched."""
        for watch, path in list(self._directories.items()):
            if path.is_relative_to(old):
                del self._directories[watch]
                with contextlib.suppress(OSError):  # removed since, and its watch with it
                    self._inotify.rm_watch(watch)
