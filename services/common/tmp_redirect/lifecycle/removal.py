"""Removes a directory tree, and nothing that is not in it: not what symlinks, hard links and mounts in it lead to.

Others may work on the same tree at the same time: sweepers that remove it too, whose removals are no errors, and
programs that still write there. What can't be removed is left for the next time, and doesn't keep the rest.
"""

import errno
import os
import posix  # its open is not guarded: nothing is created here

from .trees import MOST_NAMED, Descent, Directory

PASSES = 3  # over a directory in which something new appears each time
NOT_EMPTY = (errno.ENOTEMPTY, errno.EEXIST)
_CLOSED = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Removed:
    """What a removal has done: `entries` removed, and the `bytes` on disk that were theirs alone.

    `deferred` are pairs of a path relative to the tree and why it's still there, no more than 100 of
    `deferred_count`. `complete` says that the tree is gone, `stopped` that `most` was reached before.
    """

    __slots__ = ("bytes", "complete", "deferred", "deferred_count", "entries", "stopped")

    def __init__(self) -> None:
        self.entries = 0
        self.bytes = 0
        self.deferred: list[tuple[str, str]] = []
        self.deferred_count = 0
        self.complete = False
        self.stopped = False

    def __repr__(self) -> str:
        state = "complete" if self.complete else "stopped" if self.stopped else f"{self.deferred_count} deferred"
        return f"<Removed: {self.entries} entries, {self.bytes} bytes, {state}>"


def remove(parent: int, name: str, most: int | None = None) -> Removed:
    """Remove the tree `name` below the directory descriptor `parent`, but no more than `most` entries of it.

    A symlink or a file of that name is removed itself. What goes wrong in the tree is not raised, but in the result.
    Raises `ValueError` where `name` is not that of an entry, and `OSError` where `parent` is not a directory's.
    """
    removal = _Removal(parent, name, most)
    try:
        removal.run()
    finally:
        removal.descent.close()
    return removal.done


class _Removal:
    def __init__(self, parent: int, name: str, most: int | None) -> None:
        self.descent = Descent(parent, name)
        self.descent.way[0].names.append(name)
        self.most = most
        self.done = Removed()
        # For each directory on the way down: how often it was gone through, and what was deferred before.
        self.begun: list[tuple[int, int]] = []

    def run(self) -> None:
        way, done = self.descent.way, self.done
        while not self._is_enough():
            if way[-1].names:
                self._go_into(way[-1].names.pop())
            elif len(way) == 1:
                break
            else:
                try:
                    above = self.descent.above()
                except OSError as error:
                    self._defer("", error)
                    break
                self._finish(above)
        if done.complete:  # somebody else removed what was deferred
            done.deferred, done.deferred_count = [], 0
        done.stopped = self._is_enough() and not done.complete

    def _is_enough(self) -> bool:
        return self.most is not None and self.done.entries >= self.most

    def _go_into(self, name: str) -> None:
        above = self.descent.way[-1]
        try:
            try:
                directory = self.descent.enter(name)
            except PermissionError:
                self._let_us_in(above.descriptor, name)
                directory = self.descent.enter(name)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                self._unlink(name, above.descriptor)
            else:
                self._defer(name, error, is_directory=True)
            return
        self.begun.append((1, self.done.deferred_count))
        if not directory.status.st_mode & 0o200:
            try:  # noqa: SIM105 - contextlib would be one more import at each start of a child
                os.fchmod(directory.descriptor, 0o700)
            except OSError:
                pass  # it's not ours, but may be writable to us nevertheless
        self._empty(directory)

    def _let_us_in(self, above: int, name: str) -> None:
        try:
            os.rmdir(name, dir_fd=above)  # a mount point is busy, and its mode not ours to change
        except OSError as error:
            if error.errno not in NOT_EMPTY:
                raise
        else:
            self.done.entries += 1
            return
        try:
            descriptor = posix.open(name, _CLOSED, dir_fd=above)
            try:
                os.chmod(f"/proc/self/fd/{descriptor}", 0o700)  # fchmod(2) doesn't take an O_PATH descriptor
            finally:
                os.close(descriptor)
        except OSError:
            pass  # the next attempt to enter it says why it can't be

    def _empty(self, directory: Directory) -> None:
        """Remove what is no directory, and note the directories."""
        descriptor, names, done, most, unlink = (
            directory.descriptor,
            directory.names,
            self.done,
            self.most,
            self._unlink,
        )
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    if done.entries == most:
                        return
                    try:
                        is_directory = entry.is_dir(follow_symlinks=False)
                    except OSError:  # the file system lists no types, and can't look at this entry: nor can unlink
                        is_directory = False
                    if is_directory:
                        names.append(entry.name)
                    else:
                        unlink(entry.name, descriptor)
        except OSError as error:
            self._defer("", error, is_directory=True)

    def _unlink(self, name: str, directory: int) -> None:
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            os.unlink(name, dir_fd=directory)
        except OSError as error:
            if error.errno != errno.EISDIR:  # put there meanwhile: the next pass finds it
                self._defer(name, error)
        else:
            self._count(status.st_blocks if status.st_nlink == 1 else 0)

    def _finish(self, above: int) -> None:
        """Remove the innermost directory, which ought to be empty, and go back up."""
        directory = self.descent.way[-1]
        passes, deferred = self.begun[-1]
        failure = None
        try:
            os.rmdir(directory.name, dir_fd=above)
        except OSError as error:
            failure = error
        is_kept = self.done.deferred_count > deferred
        if failure is not None and failure.errno in NOT_EMPTY and not is_kept and passes < PASSES:
            self.begun[-1] = (passes + 1, deferred)
            self._empty(directory)
            return
        self.begun.pop()
        self.descent.leave()
        if failure is None:
            self._count(directory.status.st_blocks)
        elif not is_kept:
            self._defer(directory.name, failure, is_directory=True)

    def _count(self, blocks: int) -> None:
        done = self.done
        done.entries += 1
        done.bytes += blocks * 512
        if len(self.descent.way) == 1:
            done.complete = True

    def _defer(self, name: str, error: OSError, *, is_directory: bool = False) -> None:
        is_top = len(self.descent.way) == 1
        if error.errno == errno.ENOENT:  # somebody else was faster
            self.done.complete |= is_top
        elif error.errno != errno.ESTALE or is_top or not is_directory:
            self.done.deferred_count += 1
            if len(self.done.deferred) < MOST_NAMED:
                self.done.deferred.append((self.descent.path(name), str(error.strerror)))
