"""Directories and empty files in memory, as the file server has them: what POSIX says of each operation, and no time.

There are neither links nor owners nor content: the protocol makes no links, is one user here, and its files are empty.
An inode that was removed is `ESTALE` for who still has it, as on NFS, and not `ENOENT` as on a local file system.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable


class Inode:
    """`entries` is `None` for a file; `version` is NFS's change attribute, which no two states have in common.

    `free` is when the server can make the next change.
    """

    __slots__ = ("entries", "free", "links", "mode", "number", "stamp", "version")

    def __init__(self, number: int, mode: int, stamp: float) -> None:
        self.number = number
        self.mode = mode
        self.entries: dict[str, Inode] | None = {} if stat.S_ISDIR(mode) else None
        self.links = 2 if stat.S_ISDIR(mode) else 1
        self.stamp = stamp
        self.version = 0
        self.free = 0.0


class Status:
    """What stat(2) says of an inode."""

    __slots__ = ("st_blocks", "st_ctime", "st_dev", "st_ino", "st_mode", "st_mtime", "st_nlink", "st_size", "st_uid")

    def __init__(self, inode: Inode) -> None:
        self.st_mode, self.st_ino, self.st_dev, self.st_uid = inode.mode, inode.number, 1, 0
        self.st_nlink = inode.links
        self.st_size = self.st_blocks = 0
        self.st_mtime = self.st_ctime = inode.stamp


class FileSystem:
    """`time` tells the seconds that files are stamped with."""

    def __init__(self, time: Callable[[], float], umask: int = 0o022) -> None:
        self.time = time
        self.umask = umask
        self._number = 1
        self.root = Inode(1, stat.S_IFDIR | 0o755, time())

    def entries(self, directory: Inode) -> dict[str, Inode]:
        """What is in a directory. Raises `ESTALE` if it was removed, `ENOTDIR` for a file."""
        if not directory.links:
            raise error(errno.ESTALE)
        if directory.entries is None:
            raise error(errno.ENOTDIR)
        return directory.entries

    def find(self, directory: Inode, name: str) -> Inode | None:
        """The entry `name`, `None` if there is none. Raises as `entries` does."""
        return self.entries(directory).get(name)

    def make(self, directory: Inode, name: str, mode: int) -> Inode:
        """A new file or directory, as `mode` says (of inode(7)). Raises `EEXIST`."""
        entries = self.entries(directory)
        if name in entries:
            raise error(errno.EEXIST)
        self._number += 1
        made = entries[name] = Inode(self._number, mode & ~self.umask, self.time())
        self._changed(directory, links=made.entries is not None)
        return made

    def remove(self, directory: Inode, name: str, *, is_directory: bool) -> None:
        """Remove an entry. Raises `ENOENT`, `EISDIR`, `ENOTDIR` or `ENOTEMPTY`."""
        inode = self.existing(directory, name)
        if (inode.entries is not None) != is_directory:
            raise error(errno.ENOTDIR if is_directory else errno.EISDIR)
        if inode.entries:
            raise error(errno.ENOTEMPTY)
        del self.entries(directory)[name]
        inode.links = 0
        self._changed(directory, links=-1 if is_directory else 0)

    def rename(self, source: Inode, name: str, target: Inode, new: str) -> None:
        """Move an entry to a place where nothing is, or a file to a file's. Raises `ENOENT` or `EEXIST`."""
        inode, entries = self.existing(source, name), self.entries(target)
        if new in entries:
            if inode.entries is not None or entries[new].entries is not None:
                raise error(errno.EEXIST)
            entries[new].links = 0
        del self.entries(source)[name]
        entries[new] = inode
        inode.stamp = self.time()
        for directory, links in ((source, -1), (target, 1)):
            self._changed(directory, links=links if inode.entries is not None else 0)

    def existing(self, directory: Inode, name: str) -> Inode:
        """The entry `name`. Raises `ENOENT`."""
        found = self.find(directory, name)
        if found is None:
            raise error(errno.ENOENT)
        return found

    def _changed(self, directory: Inode, *, links: int = 0) -> None:
        directory.links += links
        directory.version += 1
        directory.stamp = self.time()


def error(number: int) -> OSError:
    """The exception that Python makes of that errno."""
    return OSError(number, os.strerror(number))
