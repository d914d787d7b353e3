"""Takes away a workspace that nobody uses: out of the way by one rename, and then removed at leisure.

A crash at any instant leaves what the next sweep completes: a mark of a dead process, which is in nobody's way, or a
tree in `<root>/.trash`, which nobody needs.
"""

import errno
import os
import posix  # its functions are not guarded, and what is done here is done below the root
import time

from ..errors import WorkspaceError
from ..observers import tell
from ..settings import TMP
from ..workspace import GONE, open_existing, open_leases, open_trash
from .leases import HELD, PATIENCE, borrowed, create, holder_is_alive, kind_of, names, new_name, remove, retract
from .removal import remove as remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..settings import Settings

MOST = 10_000  # entries that a task's process removes; the rest of a larger workspace is left to the next sweep
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # goes on while the machine sleeps
FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_AN_EMPTY_DIRECTORY = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


class Outcome:
    """What became of a workspace: `purged`, `gone` (there was none), `in use`, `kept` or `deferred`, and why.

    `users` are the names of the leases and tasks that use it, `bytes` and `inodes` are what has been freed.
    """

    __slots__ = ("bytes", "inodes", "reason", "state", "users")

    def __init__(self, state: str, reason: str = "", users: "list[str] | None" = None) -> None:
        self.state = state
        self.reason = reason
        self.users = users or []
        self.bytes = 0
        self.inodes = 0

    def __repr__(self) -> str:
        return f"<Outcome {self.state} {self.reason!r}>"


def purge(
    settings: "Settings",
    workflow: str | None,
    *,
    ttl: float | None = None,
    is_due: "Callable[[], bool]" = lambda: True,
    unless: str = "",
    most: int | None = MOST,
) -> Outcome:
    """Remove the workspace of a workflow, or with `None` of this service outside any, unless somebody uses it.

    Of what another host or PID namespace holds nothing is known here: with a `ttl` in seconds that counts while it is
    younger, without one always. `is_due` is asked when nobody can begin to use the workspace any more, so it must be
    quick; `unless` names a file among the leases that keeps it. At most `most` entries are removed now.
    """
    try:
        directory = open_leases(settings, workflow)
    except WorkspaceError as error:
        return Outcome("deferred", str(error.strerror))
    mark, trash = "", None
    began = time.clock_gettime(_CLOCK)
    outcome = Outcome("deferred")
    try:
        try:
            mark = _announce(directory)
            found = names(directory)
            found = [name for name in (*found, *map(borrowed, found)) if name not in ("", mark)]
            stays = _judge(directory, found, ttl, unless, mark)
            if stays is None and not is_due():
                stays = Outcome("kept", "it was used just now")
            if stays is None:
                outcome, trash = _take_away(settings, workflow, mark, began + PATIENCE / 2)
            else:
                outcome = stays
            if outcome.state in ("purged", "gone"):
                _forget(settings, workflow, directory, found)
        finally:
            (remove if outcome.state in ("purged", "gone") else retract)(directory, mark)
        if outcome.state in ("purged", "gone"):
            _remove_if_empty(settings.leases_of(workflow))
        if outcome.state == "purged":
            if trash is not None:
                empty(trash, mark, outcome, most)
            tell("deferred" if outcome.reason else "purged")
    except OSError as error:
        # Another purge was faster, and has removed the leases' directory as well; or it's left to the next sweep.
        outcome = Outcome("gone") if error.errno in GONE else Outcome("deferred", str(error.strerror))
    finally:
        os.close(directory)
        if trash is not None:
            os.close(trash)
    return outcome


def empty(trash: int, name: str, outcome: Outcome, most: int | None) -> None:
    """Remove the tree `name` of the trash, and add to `outcome` what that frees and what can't be removed yet."""
    removed = remove_tree(trash, name, most)
    outcome.bytes += removed.bytes
    outcome.inodes += removed.entries
    tell("freed", removed.bytes)
    if removed.deferred:
        path, why = removed.deferred[0]
        outcome.reason = f"{removed.deferred_count} entries stay in the trash until the next sweep: {path}: {why}"


def users(directory: int, ttl: float | None, now: float) -> list[str]:
    """The leases and the tasks not ended yet that count, of all that the descriptor `directory` of leases has.

    Nothing is removed. `ttl` as of `purge`; `now` is in seconds, by the clock of the file server.
    """
    return _users(directory, names(directory), ttl, now, clean=False)


def _users(directory: int, found: list[str], ttl: float | None, now: float, *, clean: bool) -> list[str]:
    counting = []
    for name in found:
        kind = kind_of(name)
        if kind in HELD:
            alive = None if kind == "pending" else holder_is_alive(name)
            if alive is False or (alive is None and _is_older(directory, name, ttl, now)):
                if clean:
                    retract(directory, name)
            elif kind != "purge":
                counting.append(name)
    return counting


def _is_older(directory: int, name: str, ttl: float | None, now: float) -> bool:
    if ttl is None:
        return False
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime < now - ttl
    except FileNotFoundError:
        return True


def _announce(directory: int) -> str:
    """The mark of this purge. Where there is no space for it, what the dead have left goes, or a file becomes it."""
    mark = new_name("purge")
    try:
        create(directory, mark)
        return mark
    except OSError as error:
        if error.errno not in FULL:
            raise
    found = names(directory)
    _users(directory, found, None, 0, clean=True)
    for name in found:
        as_mark = new_name("purge", name)
        if borrowed(as_mark) == name:
            posix.rename(name, as_mark, src_dir_fd=directory, dst_dir_fd=directory)
            os.utime(as_mark, dir_fd=directory)  # by the clock of the file server, as of one that is new
            return as_mark
    create(directory, mark)
    return mark


def _judge(directory: int, found: list[str], ttl: float | None, unless: str, mark: str) -> Outcome | None:
    """Why the workspace stays; `None` if it doesn't."""
    now = 0 if ttl is None else os.stat(mark, dir_fd=directory).st_mtime
    counting = _users(directory, found, ttl, now, clean=True)
    if counting:
        return Outcome("in use", users=counting)
    if unless and unless in found:
        return Outcome("kept", unless)
    return None


def _take_away(settings: "Settings", workflow: str | None, mark: str, deadline: float) -> tuple[Outcome, int | None]:
    """Remove the workspace if it is empty, else move it to the trash, of which a descriptor is returned as well.

    Raises `OSError`: then it's still there.
    """
    outcome, trash = Outcome("purged"), None
    try:
        parent = open_existing(settings, *settings.place_of(workflow))
    except FileNotFoundError:
        return Outcome("gone"), None
    try:
        _check(deadline)
        try:
            posix.rmdir(TMP, dir_fd=parent)  # most are empty
            outcome.inodes = 1
        except OSError as error:
            if error.errno not in _NOT_AN_EMPTY_DIRECTORY:
                raise
            trash = _move_to_trash(settings, parent, mark, deadline)
    except OSError as error:
        if error.errno not in GONE:
            raise
        return Outcome("gone"), None
    finally:
        os.close(parent)
    return outcome, trash


def _move_to_trash(settings: "Settings", parent: int, mark: str, deadline: float) -> int:
    """A descriptor of the trash."""
    while True:
        try:
            trash = open_trash(settings)
        except WorkspaceError as error:
            if error.errno not in FULL or not remove_tree(parent, TMP, 1).entries:
                raise
            trash = open_trash(settings)  # now there is space for it
        try:
            posix.rename(TMP, mark, src_dir_fd=parent, dst_dir_fd=trash)
            try:
                _check(deadline)  # once more: the file server may have been away in between
            except TimeoutError:
                posix.rename(mark, TMP, src_dir_fd=trash, dst_dir_fd=parent)
                raise
            return trash
        except OSError as error:
            os.close(trash)
            if error.errno not in GONE:
                raise
            os.stat(TMP, dir_fd=parent, follow_symlinks=False)  # it's still there: the trash is gone, as it was empty
            _check(deadline)


def _check(deadline: float) -> None:
    if time.clock_gettime(_CLOCK) > deadline:
        raise TimeoutError(errno.ETIMEDOUT, "this took too long: somebody may have begun to use it")


def _forget(settings: "Settings", workflow: str | None, directory: int, found: list[str]) -> None:
    """Remove what the leases' directory says of what is over, and the directory that was made for the workspace."""
    if workflow is None or "ours" in map(kind_of, found):
        _remove_if_empty(os.path.dirname(settings.workspace_of(workflow)))
    for name in found:
        if kind_of(name) in ("failed", "over", "ours"):
            remove(directory, name)


def _remove_if_empty(path: str) -> None:
    try:  # noqa: SIM105 - contextlib would be one more import at each start of a child
        posix.rmdir(path)
    except OSError:  # it has something of somebody else's
        pass
