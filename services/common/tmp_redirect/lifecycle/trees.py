"""What is in a directory tree, read without following anything out of it: no symlink, no mount, no swapped name.

Each directory is opened below the descriptor of the one above. Of a deep tree, only the innermost descriptors are held:
on the way back the others are opened again by `..`, which must be the directory that was left.
"""

import errno
import os
import posix  # its open is not guarded: nothing is created here
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

READ = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
HELD = 64  # descriptors of a tree that are open at once
MOST_NAMED = 100  # paths that a result names; the rest is only counted


class Directory:
    """One on the way down: `descriptor` is -1 while it's closed, `names` are directories in it yet to be entered."""

    __slots__ = ("descriptor", "name", "names", "status")

    def __init__(self, name: str, descriptor: int) -> None:
        self.name = name
        self.descriptor = descriptor
        self.status = os.fstat(descriptor)
        self.names: list[str] = []


class Descent:
    """A way down from the directory descriptor `parent`, which stays the caller's."""

    __slots__ = ("way",)

    def __init__(self, parent: int, name: str) -> None:
        """Raises `ValueError` unless `name` is that of an entry."""
        if name in ("", ".", "..") or "/" in name:
            raise ValueError(f"{name!r} is not the name of an entry in a directory")
        self.way = [Directory("", parent)]

    def enter(self, name: str) -> Directory:
        """Go down into the directory `name`. Raises `OSError`: `EXDEV` where something is mounted."""
        above = self.way[-1]
        descriptor = posix.open(name, READ, dir_fd=above.descriptor)
        try:
            directory = Directory(name, descriptor)
            if directory.status.st_dev != above.status.st_dev or is_another_mount(above.descriptor, descriptor):
                raise OSError(errno.EXDEV, "a file system is mounted here")
        except BaseException:
            os.close(descriptor)
            raise
        self.way.append(directory)
        if len(self.way) > HELD + 1:
            self._close(self.way[-HELD - 1])
        return directory

    def above(self) -> int:
        """The descriptor one level up. Raises `OSError`, `ESTALE` where the directory was moved: no way leads back."""
        above, innermost = self.way[-2:]
        if above.descriptor == -1:
            descriptor = posix.open("..", READ, dir_fd=innermost.descriptor)
            if not os.path.samestat(os.fstat(descriptor), above.status):
                os.close(descriptor)
                raise OSError(errno.ESTALE, "it was moved meanwhile")
            above.descriptor = descriptor
        return above.descriptor

    def leave(self) -> None:
        """Go back up. Raises as `above` does."""
        self.above()
        self._close(self.way.pop())

    def path(self, name: str = "") -> str:
        """That of the entry `name` of the innermost directory, or its own, relative to the tree, whose own is `.`."""
        if len(self.way) == 1:
            return "."
        names = [directory.name for directory in self.way[2:]]
        return "/".join([*names, name] if name else names) or "."

    def close(self) -> None:
        """Close all that is open."""
        for directory in self.way[1:]:
            self._close(directory)

    @staticmethod
    def _close(directory: Directory) -> None:
        descriptor, directory.descriptor = directory.descriptor, -1
        if descriptor != -1:
            os.close(descriptor)


def is_another_mount(above: int, below: int) -> bool:
    """Whether two directory descriptors lead through different mounts, be they of the same file system.

    A rename of `.` fails always, and first of all if it were from one mount to another. That takes half the time of
    reading `mnt_id` in `/proc/self/fdinfo`. Raises `PermissionError` for a directory that can't be searched.
    """
    try:
        posix.rename(".", ".", src_dir_fd=above, dst_dir_fd=below)
    except PermissionError:
        raise
    except OSError as error:
        return error.errno == errno.EXDEV
    return False


class Usage:
    """What a tree takes: `bytes` on disk, `inodes`, each counted once, and its `newest` time stamp.

    `skipped` are directories that were not looked into, with the reason; no more than 100.
    """

    __slots__ = ("bytes", "inodes", "newest", "skipped")

    def __init__(self) -> None:
        self.bytes = 0
        self.inodes = 0
        self.newest = 0.0
        self.skipped: list[tuple[str, str]] = []

    def __repr__(self) -> str:
        return f"<Usage: {self.bytes} bytes, {self.inodes} inodes, newest {self.newest}>"


def newest(parent: int, name: str, younger_than: float | None = None) -> float:
    """The newest time stamp in the tree `name` below the directory descriptor `parent`, in seconds since the epoch.

    That of an entry is when its content or its inode changed, whichever was later: what tar extracts has an old mtime.
    Returns the first stamp found that is later than `younger_than`. Raises `FileNotFoundError` where the tree is gone,
    and other `OSError`s where its top can't be looked at, or a directory more than 64 levels deep was moved meanwhile.
    """
    latest = 0.0
    found = statuses(parent, name, None)
    try:
        for status in found:
            latest = max(latest, status.st_mtime, status.st_ctime)
            if younger_than is not None and latest > younger_than:
                break
    finally:
        found.close()  # type: ignore[attr-defined]
    return latest


def usage(parent: int, name: str) -> Usage:
    """What the tree `name` below the directory descriptor `parent` takes. Raises as `newest` does."""
    found = Usage()
    linked: set[tuple[int, int]] = set()
    for status in statuses(parent, name, found.skipped):
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            inode = (status.st_dev, status.st_ino)
            if inode in linked:
                continue
            linked.add(inode)
        found.bytes += status.st_blocks * 512
        found.inodes += 1
        found.newest = max(found.newest, status.st_mtime, status.st_ctime)
    return found


def statuses(parent: int, name: str, skipped: list[tuple[str, str]] | None) -> "Iterator[os.stat_result]":
    """That of each entry of a tree, the top's first. Directories that can't be entered are added to `skipped`.

    Raises `PermissionError` without `skipped` where the tree is another user's and can't be entered.
    """
    strict, skipped = skipped is None, [] if skipped is None else skipped
    descent = Descent(parent, name)
    top = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if not stat.S_ISDIR(top.st_mode):
        yield top
        return
    descent.way[0].names.append(name)
    try:
        while descent.way[0].names or len(descent.way) > 1:
            directory = descent.way[-1]
            if not directory.names:
                descent.leave()
                continue
            name = directory.names.pop()
            try:
                entered = descent.enter(name)
            except OSError as error:
                if strict and len(descent.way) == 1 and top.st_uid != os.geteuid():
                    raise  # how old it is can't be told
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    _skip(skipped, descent.path(name), error)
                if error.errno != errno.EXDEV:
                    yield from _status(directory.descriptor, name)
                continue
            yield entered.status
            try:
                yield from _entries(entered)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    _skip(skipped, descent.path(), error)
    finally:
        descent.close()


def _entries(directory: Directory) -> "Iterator[os.stat_result]":
    """The status of each entry but directories, which are noted as yet to be entered."""
    with os.scandir(directory.descriptor) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                directory.names.append(entry.name)
            else:
                yield from _status(directory.descriptor, entry.name)


def _status(directory: int, name: str) -> "Iterator[os.stat_result]":
    try:
        yield os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:  # gone, or stale: what its removal changed is the directory
        return


def _skip(skipped: list[tuple[str, str]], path: str, error: OSError) -> None:
    if len(skipped) < MOST_NAMED:
        skipped.append((path, str(error.strerror)))
