"""A short directory on a local file system, for the AF_UNIX sockets of this process.

A socket's path has at most 107 bytes, and network file systems have no sockets, so a workspace won't do. Each process
has a directory below `TMP_REDIRECT_SOCKET_DIR`, and holds a lock on it. That is proof of life in every PID namespace
that shares the file system, and the kernel takes it away from a process that was killed: the next one removes what it
finds unlocked.
"""

import errno
import fcntl
import os
import re
import shutil
import tempfile
from multiprocessing.util import Finalize

from ..errors import WorkspaceError
from ..settings import current as current_settings

_NAME = re.compile(r"\d+-[a-z0-9_]{8}")  # of the directory of a process: its pid, and what mkdtemp adds
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_own: tuple[int, str] | None = None


def directory() -> str:
    """The absolute path of this process' directory, made at its first use and removed at its end.

    Raises `WorkspaceError` if it can't be had.
    """
    global _own
    if _own is None or _own[0] != os.getpid() or not os.path.isdir(_own[1]):
        base = prepare_sockets()
        remove_dead_sockets(base)
        try:
            path = _make(base)
        except OSError as error:
            raise _error(base, error) from None
        _own = os.getpid(), path
        _remove_at_exit(path)
    return _own[1]


def prepare_sockets() -> str:
    """The absolute path of `TMP_REDIRECT_SOCKET_DIR`, made if need be. Raises `WorkspaceError`."""
    base = current_settings().socket_dir
    try:
        try:
            os.mkdir(base)
            os.chmod(base, 0o1777)  # noqa: S103 - as /tmp has it: processes of other users make theirs beside
        except FileExistsError:
            pass
        status = os.lstat(base)
        if not os.path.isdir(base) or os.path.islink(base):
            raise NotADirectoryError(errno.ENOTDIR, "it is not a directory")
        if status.st_uid not in (0, os.geteuid()):
            # Its owner could put other sockets in the place of ours.
            raise PermissionError(errno.EACCES, f"it belongs to uid {status.st_uid}, not to root or {os.geteuid()}")
    except OSError as error:
        raise _error(base, error) from None
    return base


def remove_dead_sockets(base: str) -> int:
    """Remove the directories of processes of this user that have ended without doing so themselves; their number.

    Raises `WorkspaceError` where this user can't read the directory `base`.
    """
    removed = 0
    try:
        with os.scandir(base) as entries:
            found = [entry.path for entry in entries if _NAME.fullmatch(entry.name)]
    except OSError as error:
        raise _error(base, error) from None
    for path in found:
        try:
            descriptor = os.open(path, _DIRECTORY)
        except OSError:  # another user's, or gone
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
            removed += not os.path.exists(path)
        except BlockingIOError:
            pass
        finally:
            os.close(descriptor)
    return removed


def _make(base: str) -> str:
    while True:
        path = tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=base)
        try:
            descriptor = os.open(path, _DIRECTORY)
        except FileNotFoundError:  # taken for a dead one by another process, since it wasn't locked yet
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.stat(path), os.fstat(descriptor)):
                return path  # the descriptor stays open: its lock lasts as long as this process
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(descriptor)


def _remove_at_exit(path: str) -> None:
    pid = os.getpid()

    def remove() -> None:
        if os.getpid() == pid:  # a forked process has this finalizer, too
            shutil.rmtree(path, ignore_errors=True)

    # Not atexit: processes of multiprocessing end without it. The last of all finalizers: managers still talk.
    Finalize(None, remove, exitpriority=-100)


def _error(base: str, error: OSError) -> WorkspaceError:
    return WorkspaceError(
        error.errno,
        f"the directory for sockets {base} can't be used: {error.strerror}; "
        "set TMP_REDIRECT_SOCKET_DIR to a short path on a local file system",
        base,
    )
