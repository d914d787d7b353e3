"""Takes back all that the shim has made below the root, and for sockets: what is left is what programs put there.

First a sweep for which everything is old. Then, if nobody uses a workspace any more, the shim's own directories go: the
leases first, since who begins to use one now makes a lease, and all else stays for that one. What lies in them that the
shim doesn't make stays, and so do they then. Whoever is killed in the middle leaves less of the same for the next run.
"""

from __future__ import annotations

import errno
import fcntl
import os
import posix
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ..guard.journal import NAME as JOURNAL
from ..libraries import VARIABLES as LIBRARIES
from ..settings import CACHE, LEASES, OUTSIDE, TMP, TRASH, Settings, is_below
from ..workspace import GONE, open_existing
from .holders import own_holder
from .leases import HELD, holder_is_alive, holder_of, kind_of, names, remove, unquoted
from .out_of_sight import release
from .purge import Outcome
from .removal import NOT_EMPTY, PASSES
from .removal import remove as remove_tree
from .sweep import Progress, Sweep, is_id, sweep
from .trees import READ, Descent, usage

NOT_OURS = "the shim has not made it"
_OTHER_MARKS = ("failed", "over", "ours")
_SOCKETS = re.compile(r"(\d+)-\w{8}")  # the directory of a process
_HEARTBEAT = re.compile(r"wgunicorn-\w{8}")
_NOT_A_DIRECTORY = (errno.ENOTDIR, errno.ELOOP)

_Entry = Callable[[int, str, str], bool]


@dataclass(frozen=True)
class User:
    """Who keeps `path`: a process, or with no `host` and `pid` a task that has not ended; `task` is what it says.

    Whether it is `alive` can't be known, `None`, where it is on another host or in another container.
    """

    path: str
    host: str | None
    pid: int | None
    task: str
    alive: bool | None


class SweepOfAll(Sweep):
    """What was done so far, or in a dry run would be.

    `users` keep workspaces, and with them the shim's own directories, of which `own` are the paths that were removed.
    `strange` are pairs of a path in the place or inside of one of these and what is wrong with it; they stay.
    """

    def __init__(self) -> None:
        super().__init__()
        self.users: list[User] = []
        self.own: list[str] = []
        self.strange: list[tuple[str, str]] = []

    def add(self, path: str, outcome: Outcome) -> None:
        """Count what became of a workspace."""
        super().add(path, outcome)
        self.users += [_user(path, name) for name in outcome.users]


def remove_all(
    settings: Settings,
    done: SweepOfAll | None = None,
    *,
    others_stopped: bool = False,
    dry_run: bool = False,
    progress: Progress = lambda *_: None,
) -> SweepOfAll:
    """Remove every workspace that nobody uses, of whatever age, and then what else the shim has made.

    What other hosts and PID namespaces hold, and tasks that have not ended, count until `TMP_REDIRECT_TTL`; with
    `others_stopped` not at all, if they were there before this began and their process can't be seen from here.
    `progress` and `done` as of `sweep`. Raises `WorkspaceError` where the root can't be used, or with `others_stopped`
    no process can be seen.
    """
    done = SweepOfAll() if done is None else done
    if others_stopped:
        done.ignored = frozenset(release(settings, dry_run=dry_run))
    sweep(settings, float("-inf"), dry_run=dry_run, progress=progress, done=done)
    own = _OwnDirectories(settings, done, dry_run=dry_run)
    own.remove_sockets()
    if not done.users:
        own.remove()
    return done


def _user(path: str, name: str) -> User:
    """Who has made the file `name` among the leases of the workspace `path`."""
    kind, _, rest = name.partition("~")
    if kind == "pending":
        return User(path, None, None, unquoted(rest), None)
    holder = holder_of(name)
    if holder is None:
        return User(path, None, None, name, None)
    *_, label = (rest + "~").split("~")[:7]
    return User(path, holder.host, holder.pid, unquoted(label) or kind, holder.is_alive())


class _OwnDirectories:
    """Those that the shim shares among workflows: each entry is one that it makes, or stays and is named."""

    def __init__(self, settings: Settings, done: SweepOfAll, *, dry_run: bool) -> None:
        self.settings = settings
        self.done = done
        self.dry_run = dry_run
        self.deferred = {path for path, _ in done.deferred}

    def remove(self) -> None:
        root = open_existing(self.settings)
        try:
            for name, entry in (
                (LEASES, self._leases),
                (OUTSIDE, self._service),
                (CACHE, self._cache),
                (TRASH, self._trash),
            ):
                path = f"{self.settings.root}/{name}"
                if path not in self.deferred and os.path.lexists(path):
                    self._remove(root, name, path, entry)
                if self.done.users:
                    break  # somebody has begun
        finally:
            os.close(root)

    def _remove(self, root: int, name: str, path: str, entry: _Entry) -> None:
        done = self.done
        for _ in range(PASSES):
            if self._clear(root, name, path, entry):
                done.own.append(path)
                return
            if done.users or done.deferred or any(is_below(strange, path) for strange, _ in done.strange):
                return
        done.deferred.append((path, "something new comes there all the time"))

    def _clear(self, above: int, name: str, path: str, entry: _Entry) -> bool:
        """Remove the directory `name` if `entry` has removed all that it holds; whether it's gone, or would be."""
        descent = Descent(above, name)
        try:
            directory = descent.enter(name)
            at = directory.descriptor
            if [file for file in sorted(names(at)) if not entry(at, file, f"{path}/{file}")]:
                return False
            if not self.dry_run:
                posix.rmdir(name, dir_fd=above)
        except OSError as error:
            if error.errno in _NOT_A_DIRECTORY:
                return self._stays(path)
            if error.errno not in (*GONE, *NOT_EMPTY):
                self.done.deferred.append((path, str(error.strerror)))
            return error.errno in GONE
        finally:
            descent.close()
        return True

    def _stays(self, path: str) -> bool:
        name = os.path.basename(path)
        if name.startswith(".nfs"):
            self.done.deferred.append((path, "somebody has it open"))
        else:
            self.done.strange.append((path, NOT_OURS))
        return False

    def _leases(self, above: int, name: str, path: str) -> bool:
        if name == OUTSIDE:
            return self._clear(above, name, path, self._leases_of_service)
        return self._leases_of(self.settings.workspace_of(name), above, name, path)

    def _leases_of_service(self, above: int, name: str, path: str) -> bool:
        return self._leases_of(self.settings.for_service(name).workspace_of(None), above, name, path)

    def _leases_of(self, workspace: str, above: int, name: str, path: str) -> bool:
        if not is_id(name):
            return self._stays(path)
        return self._clear(above, name, path, partial(self._lease, workspace))

    def _lease(self, workspace: str, above: int, name: str, path: str) -> bool:
        kind = kind_of(name)
        if kind not in (*HELD, *_OTHER_MARKS):
            return self._stays(path)
        if self.dry_run:
            return workspace not in self.deferred
        if kind in HELD and holder_is_alive(name) is False:
            remove(above, name)  # of one that has begun and ended since the sweep was there
            return True
        if kind in HELD and workspace not in self.deferred:
            self.done.users.append(_user(workspace, name))
        return False

    def _service(self, above: int, name: str, path: str) -> bool:
        return self._clear(above, name, path, self._of_service) if is_id(name) else self._stays(path)

    def _of_service(self, above: int, name: str, path: str) -> bool:
        if name == TMP:
            return self.dry_run and path in self.done.removed  # else it was made or named meanwhile
        if name in (JOURNAL, f"{JOURNAL}.1") and _is(stat.S_ISREG, above, name):
            return self._remove_file(above, name, path)
        return self._stays(path)

    def _cache(self, above: int, name: str, path: str) -> bool:
        if name not in LIBRARIES or not _is(stat.S_ISDIR, above, name):
            return self._stays(path)
        done = self.done
        if self.dry_run:
            found = usage(above, name)
            done.bytes += found.bytes
            done.inodes += found.inodes
        else:
            removed = remove_tree(above, name)
            done.bytes += removed.bytes
            done.inodes += removed.entries
            done.deferred += [(f"{path}/{file}".removesuffix("/."), why) for file, why in removed.deferred]
            if not removed.complete:
                return False
        done.own.append(path)
        return True

    def _trash(self, above: int, name: str, path: str) -> bool:
        return self.dry_run and path not in self.deferred

    def remove_sockets(self) -> None:
        """Name who uses the directory for sockets; the sweep has removed what nobody does, unless it's a dry run."""
        path, done = self.settings.socket_dir, self.done
        try:
            descriptor = os.open(path, READ)
        except OSError:  # there is none, or the sweep has said why it can't be used
            return
        try:
            left = [name for name in sorted(names(descriptor)) if not self._socket(descriptor, name, f"{path}/{name}")]
        finally:
            os.close(descriptor)
        if left or path != Settings.socket_dir:  # another may not be one that the shim has made
            return
        if not self.dry_run:
            try:
                posix.rmdir(path)
            except OSError:  # somebody has used it just now, or it's a mount
                return
        done.own.append(path)

    def _socket(self, above: int, name: str, path: str) -> bool:
        if _HEARTBEAT.fullmatch(name) and _is(stat.S_ISREG, above, name):
            return self._remove_file(above, name, path)
        of_process = _SOCKETS.fullmatch(name)
        if not of_process or not _is(stat.S_ISDIR, above, name):
            return self._stays(path)
        try:
            descriptor = os.open(name, READ, dir_fd=above)
        except OSError as error:
            if error.errno not in GONE:
                self.done.deferred.append((path, str(error.strerror)))
            return error.errno in GONE
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            self.done.users.append(User(path, own_holder().host, int(of_process[1]), "sockets", True))
            return False
        finally:
            os.close(descriptor)
        if self.dry_run:
            self.done.sockets += 1
        else:
            self.done.deferred.append((path, "it could not be removed"))
        return self.dry_run

    def _remove_file(self, above: int, name: str, path: str) -> bool:
        try:
            size = os.stat(name, dir_fd=above, follow_symlinks=False).st_blocks * 512
            if not self.dry_run:
                posix.unlink(name, dir_fd=above)
        except OSError as error:
            if error.errno not in GONE:
                self.done.deferred.append((path, str(error.strerror)))
            return error.errno in GONE
        self.done.bytes += size
        self.done.inodes += 1
        self.done.own.append(path)
        return True


def _is(kind: Callable[[int], bool], above: int, name: str) -> bool:
    try:
        return kind(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode)
    except OSError:
        return False
