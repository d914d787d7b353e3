"""What an NFS client asks its server for, and what it believes it knows: that of Linux, NFSv4, default mount options.

- Attributes and names are believed for `acdirmin`/`acregmin`; names, and the right to look something up in a directory
  (ACCESS), for as long as the directory hasn't changed as far as is known here (change_info4 of RFC 7530 tells whether
  somebody else had changed it before a change of one's own).
- To open a directory, or a file for reading, asks the server: close-to-open.
- What was removed elsewhere is ESTALE; an open by name is tried again then, with a look-up.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from benchmarks.simulation.file_system import FileSystem, Inode, error
from benchmarks.simulation.server import Refused, Server

T = TypeVar("T")
Listing = tuple[tuple[str, ...], tuple[Inode, ...]]


class Process:
    """A process on a host: `now` is its time, which is ahead of the clock's while an answer is on the way."""

    __slots__ = ("client", "host", "now", "own", "pid")

    def __init__(self, client: Client, host: str, pid: int) -> None:
        self.client = client
        self.host = host
        self.pid = pid
        self.now = 0.0
        self.own: object = None  # what holders.py remembers for it


class _Known:
    """What a host knows of an inode: `listing` is the version of which it has read the names."""

    __slots__ = ("asked", "is_allowed", "listed", "listing", "names", "version")

    def __init__(self) -> None:
        self.asked = float("-inf")
        self.version = self.listing = -1
        self.is_allowed = False
        self.names: dict[str, Inode | None] = {}
        self.listed: Listing = ((), ())


class Client:
    """One host's mount."""

    def __init__(self, server: Server, files: FileSystem, wait: Callable[[float], None]) -> None:
        self.server = server
        self.files = files
        self.wait = wait
        self._known: dict[int, _Known] = {}

    def look_up(self, process: Process, directory: Inode, name: str) -> Inode | None:
        """The entry, as far as it is known or else as the server says."""
        known = self._searched(process, directory)
        if name not in known.names:
            return self._ask_for(process, directory, name)
        return known.names[name]

    def open_directory(self, process: Process, directory: Inode, name: str) -> Inode:
        """Raises `ENOENT` or `ENOTDIR`."""
        if name not in self._searched(process, directory).names:
            found = self._ask_for(process, directory, name)
        else:
            found = self.known(directory).names[name]
            if found is not None:
                try:
                    self.get_attributes(process, found)
                except OSError as stale:
                    if stale.errno != errno.ESTALE:
                        raise
                    found = self._ask_for(process, directory, name)
        if found is None:
            raise error(errno.ENOENT)
        if found.entries is None:
            raise error(errno.ENOTDIR)
        return found

    def open_file(self, process: Process, directory: Inode, name: str) -> Inode:
        """For reading. Raises `ENOENT`."""
        self._searched(process, directory)
        return self._call(process, "OPEN", partial(self.files.existing, directory, name))

    def make(self, process: Process, directory: Inode, name: str, mode: int) -> Inode:
        """A file or directory, as `mode` says. Raises `EEXIST`."""
        if self._searched(process, directory).names.get(name):
            raise error(errno.EEXIST)
        kind = "CREATE" if stat.S_ISDIR(mode) else "OPEN new"
        made = self._change(process, kind, (directory,), partial(self.files.make, directory, name, mode))
        self.known(directory).names[name] = made
        self._learn(made, process.now)
        return made

    def remove(self, process: Process, directory: Inode, name: str, *, is_directory: bool) -> None:
        """Raises `ENOENT`, `EISDIR`, `ENOTDIR` or `ENOTEMPTY`."""
        if self.look_up(process, directory, name) is None:
            raise error(errno.ENOENT)
        action = partial(self.files.remove, directory, name, is_directory=is_directory)
        self._change(process, "REMOVE", (directory,), action)
        self.known(directory).names[name] = None

    def rename(self, process: Process, source: Inode, name: str, target: Inode, new: str) -> None:
        """Raises `ENOENT` or `EEXIST`."""
        moved = self.look_up(process, source, name)
        if moved is None:
            raise error(errno.ENOENT)
        self.look_up(process, target, new)
        action = partial(self.files.rename, source, name, target, new)
        self._change(process, "RENAME", (source, target), action)
        self.known(source).names[name] = None
        self.known(target).names[new] = moved

    def names(self, process: Process, directory: Inode) -> Listing:
        """What is in an open directory: read anew if it has changed, as far as is known here."""
        known = self._believed(process, directory)
        if known.listing != known.version:
            known.listed = self._call(process, "READDIR", partial(self._read, directory))
            self._learn(directory, process.now)
            known.listing = known.version
            for _ in range(self.server.model.readdir, len(known.listed[0]), self.server.model.readdir):
                self.say(process, "READDIR", directory)
        return known.listed

    def get_attributes(self, process: Process, inode: Inode) -> None:
        """Raises `ESTALE`."""
        self._call(process, "GETATTR", partial(self._alive, inode))
        self._learn(inode, process.now)

    def attributes(self, process: Process, inode: Inode) -> Inode:
        """The inode, whose attributes are asked for if they are too old to be believed."""
        self._believed(process, inode)
        return inode

    def may_search(self, process: Process, directory: Inode) -> None:
        """Ask whether this user may, unless it is known."""
        self._searched(process, directory)

    def say(self, process: Process, kind: str, inode: Inode) -> None:
        """An operation that is asked each time."""
        self._call(process, kind, partial(self._alive, inode))

    def known(self, inode: Inode) -> _Known:
        """What is known of an inode, perhaps nothing."""
        found = self._known.get(inode.number)
        if found is None:
            found = self._known[inode.number] = _Known()
        return found

    def _searched(self, process: Process, directory: Inode) -> _Known:
        known = self._believed(process, directory)
        if not known.is_allowed:
            self._call(process, "ACCESS", partial(self._alive, directory))
            self._learn(directory, process.now)
            known.is_allowed = True
        return known

    def _believed(self, process: Process, inode: Inode) -> _Known:
        known, model = self.known(inode), self.server.model
        if process.now - known.asked > (model.file_seconds if inode.entries is None else model.directory_seconds):
            self.get_attributes(process, inode)
        return known

    def _ask_for(self, process: Process, directory: Inode, name: str) -> Inode | None:
        found = self._call(process, "LOOKUP", partial(self.files.find, directory, name))
        self.known(directory).names[name] = found
        if found is not None:
            self._learn(found, process.now)
        return found

    def _learn(self, inode: Inode, now: float) -> None:
        known = self.known(inode)
        if known.version != inode.version:
            known.names.clear()
            known.is_allowed = False
        known.version, known.asked = inode.version, now

    def _change(self, process: Process, kind: str, directories: tuple[Inode, ...], action: Callable[[], T]) -> T:
        before: list[int] = []

        def act() -> T:
            before.extend(directory.version for directory in directories)
            return action()

        try:
            result = self._call(process, kind, act, directories)
        except OSError:
            for directory in directories:
                self.known(directory).names.clear()
            raise
        for directory, version in zip(directories, before, strict=True):
            known = self.known(directory)
            if known.version == version:
                known.version = version + 1
            else:  # somebody else has changed it
                self._forget(known)
        return result

    def _forget(self, known: _Known) -> None:
        known.names.clear()
        known.is_allowed = False
        known.asked = float("-inf")

    def _call(self, process: Process, kind: str, action: Callable[[], T], changing: tuple[Inode, ...] = ()) -> T:
        try:
            result, process.now = self.server.call(kind, process.now, action, self.wait, changing)
        except Refused as refused:
            process.now = refused.time
            raise refused.error from None
        return result

    def _read(self, directory: Inode) -> Listing:
        entries = self.files.entries(directory)
        return tuple(entries), tuple(entries.values())

    def _alive(self, inode: Inode) -> None:
        if not inode.links:
            raise error(errno.ESTALE)
