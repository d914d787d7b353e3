"""Removes the workspaces that nobody uses any more, and completes what a crash has left half done.

A workspace is due when its workflow has ended while somebody used it, or when the newest time stamp in its tree is
older than an age. Several sweepers at once do no harm: each takes its own order, so that they share the work.
"""

from __future__ import annotations

import errno
import os
import posix
import random
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import TypeVar

from ..errors import InvalidWorkflowId, WorkspaceError
from ..observers import tell
from ..settings import LEASES, OUTSIDE, TMP, TRASH, Settings
from ..workflow_id import check
from ..workspace import GONE, check_root, open_existing, open_trash
from . import is_over
from .leases import names, new_name, remove
from .purge import FULL, Outcome, empty, purge, users
from .trees import newest, usage

T = TypeVar("T")
Progress = Callable[[int, int], object]

IN_USE, NOT_ENDED = "in use", "a task has not ended"
_CLOCK = "clock"


class Sweep:
    """What a sweep has done so far, or in a dry run would do.

    `removed` are the paths of workspaces, `trash` those of what earlier ones had left in the trash. `kept` counts the
    other workspaces by the reason; `deferred` are pairs of a path and why it could not be removed. `bytes` and `inodes`
    are what was freed, `sockets` is the number of directories for sockets of processes that had ended. `ignored` are
    files among the leases that a dry run is to take for gone.
    """

    def __init__(self) -> None:
        self.removed: list[str] = []
        self.trash: list[str] = []
        self.kept: Counter[str] = Counter()
        self.deferred: list[tuple[str, str]] = []
        self.bytes = 0
        self.inodes = 0
        self.sockets = 0
        self.ignored: frozenset[str] = frozenset()

    def add(self, path: str, outcome: Outcome) -> None:
        """Count what became of a workspace."""
        self.bytes += outcome.bytes
        self.inodes += outcome.inodes
        if outcome.state == "purged":
            self.removed.append(path)
        if outcome.state == "in use":
            begun = any(name.startswith("lease~") for name in outcome.users)
            self.kept[IN_USE if begun else NOT_ENDED] += 1
        elif outcome.state == "kept":
            self.kept[outcome.reason] += 1
        elif outcome.state == "deferred" or (outcome.state == "purged" and outcome.reason):
            self.deferred.append((path, outcome.reason))


def sweep(
    settings: Settings,
    older_than: float | None = None,
    *,
    dry_run: bool = False,
    progress: Progress = lambda *_: None,
    done: Sweep | None = None,
) -> Sweep:
    """Remove what is due: workspaces, those outside workflows of services that are gone, trash, and dead sockets.

    `older_than` is an age in seconds, `TMP_REDIRECT_TTL` by default. `progress` is called with the number of places
    looked at, and of all. What is done is noted in `done` at once, for who may be interrupted. Raises `WorkspaceError`
    where the root can't be used.
    """
    done = Sweep() if done is None else done
    _check_root(settings)
    trash = -1 if dry_run and not os.path.lexists(f"{settings.root}/{TRASH}") else _open_trash(settings)
    try:
        now = time.time() if dry_run else _time_of_the_server(trash)
        before = now - (settings.ttl if older_than is None else older_than)
        left = [] if trash == -1 else _shuffled(_names(trash))
        places = _shuffled(_places(settings, done))
        whole = len(left) + len(places)
        for number, name in enumerate(left, 1):  # first, as others may need the room
            _sweep_trash(settings, trash, name, done, dry_run=dry_run)
            progress(number, whole)
        for number, (owner, workflow) in enumerate(places, len(left) + 1):
            _sweep(owner, workflow, before, now, done, dry_run=dry_run)
            progress(number, whole)
    finally:
        if trash != -1:
            os.close(trash)
    if not dry_run and os.path.isdir(settings.socket_dir):
        from ..propagate import prepare_sockets, remove_dead_sockets  # late: it comes with half of multiprocessing

        try:
            done.sockets = remove_dead_sockets(prepare_sockets())
        except WorkspaceError as error:
            done.deferred.append((settings.socket_dir, str(error.strerror)))
    if not dry_run:
        live = sum(done.kept[reason] for reason in (IN_USE, NOT_ENDED))
        tell("live_workspaces", live)
        tell("kept_workspaces", done.kept.total() - live)
        tell("deferred_workspaces", len(done.deferred))
    return done


def _open_trash(settings: Settings) -> int:
    """-1 where there is no space for it: what can be removed without it makes some."""
    try:
        return open_trash(settings)
    except WorkspaceError as error:
        if error.errno not in FULL:
            raise
        return -1


def _names(trash: int) -> list[str]:
    try:
        return names(trash)
    except FileNotFoundError:  # `--all` beside this sweep has removed it, as it was empty
        return []


def _check_root(settings: Settings) -> None:
    try:
        check_root(settings)
    except WorkspaceError as error:
        if error.errno not in FULL:  # where it is full there is all the more to do
            raise


def _places(settings: Settings, done: Sweep) -> Iterator[tuple[Settings, str | None]]:
    """The settings, and the workflow or `None`, of every workspace that there may be."""
    for workflow in {*_ids(settings, done), *_ids(settings, done, LEASES)}:
        yield settings, workflow
    for service in {*_ids(settings, done, OUTSIDE), *_ids(settings, done, LEASES, OUTSIDE)}:
        yield settings.for_service(service), None


def _ids(settings: Settings, done: Sweep, *above: str) -> list[str]:
    try:
        return ids(settings, *above)
    except OSError as error:
        done.deferred.append(("/".join((settings.root, *above)), str(error.strerror)))
        return []


def ids(settings: Settings, *above: str) -> list[str]:
    """The directories whose name can be that of a workflow or service, there where `above` leads to from the root.

    None where there is no such place. Raises `OSError`, without a root too.
    """
    try:
        descriptor = open_existing(settings, *above)
    except FileNotFoundError:
        if above:
            return []
        raise
    try:
        with os.scandir(f"/proc/self/fd/{descriptor}") as entries:
            return [entry.name for entry in entries if is_id(entry.name) and entry.is_dir(follow_symlinks=False)]
    finally:
        os.close(descriptor)


def _sweep(settings: Settings, workflow: str | None, before: float, now: float, done: Sweep, *, dry_run: bool) -> None:
    path, leases = settings.workspace_of(workflow), settings.leases_of(workflow)
    try:
        parent = open_existing(settings, *settings.place_of(workflow))
    except FileNotFoundError:
        parent = None
    except OSError as error:
        if workflow is None or os.path.lexists(leases):
            done.deferred.append((path, str(error.strerror)))
        return  # else it's a file or a link of the user's own beside the workflows
    try:
        stamp = -1.0 if parent is None else _newest(parent, before)
        has_leases = os.path.isdir(leases)
        if stamp < 0 and not has_leases:
            return  # a workflow without a workspace
        if stamp > before and not is_over(settings, workflow):
            done.add(path, _kept(settings, workflow, now) if has_leases else Outcome("kept", "young"))
        elif dry_run:
            _would_remove(settings, workflow, parent, path, now, done)
        else:
            is_due = partial(_is_due, settings, workflow, parent, before)
            done.add(path, purge(settings, workflow, ttl=settings.ttl, is_due=is_due, most=None))
    except OSError as error:
        if not _is_harmless(error, leases):
            done.deferred.append((path, str(error.strerror)))
    finally:
        if parent is not None:
            os.close(parent)


def _is_harmless(error: OSError, leases: str) -> bool:
    """Whether another sweep was faster, or what is in the workspace's place is a file or a link of the user's own."""
    try:
        return error.errno in GONE or (isinstance(error, NotADirectoryError) and not os.listdir(leases))
    except OSError as missing:
        return isinstance(missing, FileNotFoundError)


def _newest(parent: int, before: float) -> float:
    """-1 without a workspace; any stamp later than `before` will do."""
    own = _own_stamp(parent)
    if not 0 <= own <= before:
        return own  # most are young, and need not be read
    try:
        return newest(parent, TMP, before)
    except FileNotFoundError:
        return -1


def _own_stamp(parent: int) -> float:
    try:
        status = os.stat(TMP, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return -1
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    return max(status.st_mtime, status.st_ctime)


def _is_due(settings: Settings, workflow: str | None, parent: int | None, before: float) -> bool:
    """What `sweep` has found, once more, as far as it can be told without reading the whole tree again."""
    return parent is None or _own_stamp(parent) <= before or is_over(settings, workflow)


def _would_remove(
    settings: Settings, workflow: str | None, parent: int | None, path: str, now: float, done: Sweep
) -> None:
    outcome = Outcome("gone" if parent is None else "purged")
    using = [name for name in _users(settings, workflow, now) if name not in done.ignored]
    if using:
        outcome = Outcome("in use", users=using)
    elif parent is not None:
        found = usage(parent, TMP)
        outcome.bytes, outcome.inodes = found.bytes, found.inodes
    done.add(path, outcome)


def _kept(settings: Settings, workflow: str | None, now: float) -> Outcome:
    """Why a young one is; another user's leases may hide that it's in use, too."""
    using = []
    with suppress(OSError):
        using = _users(settings, workflow, now)
    return Outcome("in use", users=using) if using else Outcome("kept", "young")


def _users(settings: Settings, workflow: str | None, now: float) -> list[str]:
    try:
        directory = open_existing(settings, LEASES, *settings.place_of(workflow))
    except FileNotFoundError:
        return []
    try:
        return users(directory, settings.ttl, now)
    finally:
        os.close(directory)


def _sweep_trash(settings: Settings, trash: int, name: str, done: Sweep, *, dry_run: bool) -> None:
    path = f"{settings.root}/{TRASH}/{name}"
    outcome = Outcome("purged")
    try:
        if name.startswith(_CLOCK):  # of a sweep that was killed, or knows the time by now
            if not dry_run:
                remove(trash, name)
        elif dry_run:
            found = usage(trash, name)
            outcome.bytes, outcome.inodes = found.bytes, found.inodes
        else:
            empty(trash, name, outcome, most=None)
    except FileNotFoundError:
        return  # another sweep was faster
    except OSError as error:
        outcome.reason = str(error.strerror)
    done.bytes += outcome.bytes
    done.inodes += outcome.inodes
    if outcome.reason:
        done.deferred.append((path, outcome.reason))
    elif outcome.inodes:  # else another sweep was faster
        done.trash.append(path)


def _time_of_the_server(trash: int) -> float:
    """The time that the file system stamps files with, in seconds; the clock of this host may be another."""
    name = new_name(_CLOCK)
    try:
        descriptor = posix.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=trash)
        try:
            return os.fstat(descriptor).st_mtime
        finally:
            os.close(descriptor)
            remove(trash, name)
    except OSError:  # it is full, or another sweep has removed this
        return time.time()


def _shuffled(items: Iterable[T]) -> list[T]:
    found = list(items)
    random.shuffle(found)
    return found


def is_id(name: str) -> bool:
    """Whether it can be that of a workflow or service."""
    try:
        check(name)
    except InvalidWorkflowId:
        return False
    return True
