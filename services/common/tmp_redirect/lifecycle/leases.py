"""Proof on disk that a process uses a workspace: an empty file in `<root>/.leases/<workflow id>/`.

Its name says everything, so that it is there whole or not at all, and `mkdir`, `open(O_CREAT | O_EXCL)`, `rename` and
`unlink` are all that is needed: locks are not to be trusted on NFS, CIFS and Lustre. The files there are

    lease~<holder>~<number>~<label>   a process uses the workspace
    purge~<holder>~<number>           a process is about to take it away; a name after that is the file's that became
                                      this mark, as the disk had no space for one
    pending~<task id>                 a task of the workflow was published and has not ended
    failed~<root or group id>         a task of that canvas has failed
    over                              the workflow has ended while somebody used the workspace
    ours~<holder>~<number>            the workflow's directory was made for the workspace, and goes with it if empty

Starting and purging exclude each other as in Dekker's algorithm. Who starts writes its lease first and then looks for
purges; who purges writes that first and then looks for leases. So at least one of them sees the other: the one that
starts waits, the one that purges gives up. Writing before looking also makes an NFS client look afresh. Nobody waits
for a purge that died: on this host it is seen to be dead, and any is taken for dead after `PATIENCE`. A purge that was
held up for half that long gives up by itself.
"""

import os
import posix  # its functions are not guarded, and what is done here is done below the root
import time

from ..errors import WorkspaceError
from ..workspace import GONE, open_leases, owner
from .holders import Holder, own_holder, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from ..settings import Settings

OVER = "over"
SEVERAL = "pending~=several="  # of no task: what `quote` makes of an id is never this
HELD = ("lease", "pending", "purge")  # the kinds of files that somebody is behind
PATIENCE = 10  # seconds that a purge may be in the way of a start; it takes less than a millisecond
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_LONGEST = 120  # characters of a label
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._@:")
_OF_A_NAME = _PLAIN | {"~", "="}

_numbers = iter(range(1, 2**62))  # one step, where `+=` would give two threads the same number


def take(settings: "Settings", workflow: str | None, lease: str) -> None:
    """Begin to use the workspace of a workflow, or with `None` of this service. Waits for a purge that has begun.

    Raises `WorkspaceError`.
    """
    while True:
        directory = open_leases(settings, workflow)
        try:
            create(directory, lease)
            _wait_for_purges(directory)
            return
        except OSError as error:
            if error.errno in GONE:
                continue  # the directory was removed while we looked: nobody had used it
            path = settings.workspace_of(workflow)
            raise WorkspaceError(
                error.errno,
                f"{owner(settings, workflow)} can't have {path}: "
                f"its lease {settings.leases_of(workflow)}/{lease} can't be written: {error.strerror}",
                path,
            ) from None
        finally:
            os.close(directory)


def mark(settings: "Settings", workflow: str | None, name: str) -> None:
    """Make the file `name` among the leases. Raises `WorkspaceError` or `OSError`."""
    while True:
        directory = open_leases(settings, workflow)
        try:
            create(directory, name)
            return
        except OSError as error:
            if error.errno not in GONE:  # see `take`
                raise
        finally:
            os.close(directory)


def unmark(settings: "Settings", workflow: str | None, name: str) -> bool:
    """Remove the file `name` from the leases; whether it was there."""
    try:
        posix.unlink(f"{settings.leases_of(workflow)}/{name}")
    except OSError:
        return False
    return True


def turn(settings: "Settings", workflow: str | None, name: str, into: str) -> bool:
    """Rename the file `name` among the leases, which takes no space; whether it was there."""
    leases = settings.leases_of(workflow)
    try:
        posix.rename(f"{leases}/{name}", f"{leases}/{into}")
    except OSError:
        return False
    return True


def hand_over(settings: "Settings", workflow: str | None, lease: str, marks: "Collection[str]") -> None:
    """Remove a lease in whose time `marks` could not be made: now they are, or the lease becomes what they stand for.

    If several can't be made it becomes none of them, which the first of their tasks to end would remove.
    """
    missing = []
    for name in marks:
        try:
            mark(settings, workflow, name)
        except OSError:
            missing.append(name)
    if missing:
        turn(settings, workflow, lease, missing[0] if len(missing) == 1 else SEVERAL)
    else:
        unmark(settings, workflow, lease)


def new_name(kind: str, label: str = "") -> str:
    """A name for a file of this process that no other file has; `label` is for people who look who it is."""
    return f"{kind}~{own_holder()}~{next(_numbers)}" + (f"~{quote(label)}" if label else "")


def quote(label: str) -> str:
    """`label` as a part of a file name: as it is, where it is plain."""
    return (label if _PLAIN.issuperset(label) else "".join(map(_quoted, label)))[:_LONGEST]


def unquoted(quoted: str) -> str:
    """The label that `quote` made `quoted` of, as far as it is there."""
    import re  # only people who look who it is need this

    return re.sub("=([0-9a-f]{1,5})=", lambda found: chr(int(found[1], 16)), quoted)


def create(directory: int, name: str) -> None:
    """Make the empty file `name`; nothing if it exists. Raises `OSError`."""
    try:  # noqa: SIM105 - contextlib would be one more import at each start of a child
        os.close(posix.open(name, NEW, 0o600, dir_fd=directory))
    except FileExistsError:
        pass


def remove(directory: int, name: str) -> bool:
    """Remove the file `name`; whether it was there. Raises `OSError`."""
    try:
        posix.unlink(name, dir_fd=directory)
    except OSError as error:
        if error.errno not in GONE:
            raise
        return False
    return True


def retract(directory: int, mark: str) -> None:
    """Remove the mark of a purge, or let it be again what it was. Raises `OSError`."""
    file = borrowed(mark)
    if not file:
        remove(directory, mark)
        return
    try:
        posix.rename(mark, file, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError as error:
        if error.errno not in GONE:
            raise


def borrowed(mark: str) -> str:
    """The name of the file that became the mark of a purge; empty where none did, and for what is no such mark.

    Only a file that nobody waits for becomes one, and whoever may write here can't name any other, or another place.
    """
    parts = mark.split("~", 7)
    file = unquoted(parts[7]) if parts[0] == "purge" and len(parts) > 7 else ""
    return file if kind_of(file) in ("ours", "failed") and _OF_A_NAME.issuperset(file) else ""


def names(directory: int) -> list[str]:
    """The files of a directory."""
    try:
        return posix.listdir(directory)
    except OSError:  # a descriptor that only leads through it: now the error says why
        return posix.listdir(f"/proc/self/fd/{directory}")


def kind_of(name: str) -> str:
    """`lease`, `purge`, `pending`, `failed`, `over` or `ours`."""
    return name.partition("~")[0]


def holder_of(name: str) -> Holder | None:
    """Who wrote the lease or purge `name`; `None` for anything else."""
    return parse("~".join(name.split("~")[1:6]))


def holder_is_alive(name: str) -> bool | None:
    """Whether the process that wrote the lease or purge `name` runs; `None` where that can't be known from here."""
    holder = holder_of(name)
    return None if holder is None else holder.is_alive()


def _quoted(char: str) -> str:
    return char if char in _PLAIN else f"={ord(char):x}="


def _wait_for_purges(directory: int) -> None:
    deadline = time.monotonic() + PATIENCE
    pause = 0.0005
    while True:
        is_late, in_the_way = time.monotonic() > deadline, False
        for name in names(directory):
            if name == OVER:
                remove(directory, name)  # it is in use again
            elif name.startswith("purge~"):
                if is_late or holder_is_alive(name) is False:
                    retract(directory, name)
                elif _is_there(directory, name):
                    in_the_way = True
        if not in_the_way:
            return
        time.sleep(pause)
        pause = min(2 * pause, 0.05)


def _is_there(directory: int, name: str) -> bool:
    """Whether a file that was listed exists: to open it asks the server, which to list need not on NFSv3."""
    try:
        os.close(posix.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory))
    except OSError as error:
        return error.errno not in GONE
    return True
