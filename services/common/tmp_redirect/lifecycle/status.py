"""What is there: workspaces and who uses them, trash, leftovers in system temp, free space. Changes nothing.

Nobody is held up by this, so what it has read may be another a moment later.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial

from ..settings import LEASES, OUTSIDE, SYSTEM_TEMP, TMP, TRASH, Settings, is_below
from ..shown import age
from ..workspace import check_root, open_existing
from .leases import OVER, borrowed, holder_of, names, unquoted
from .sweep import ids
from .trees import READ, Usage, usage

YOUNG = "young"
UNREADABLE = "unreadable"
_LEFTOVERS = (
    *("tmp*", "pymp-*", "wgunicorn-*", "*-cache", "*_cache", "*-cache-*", "pip-*", "pytest-of-*", "matplotlib-*"),
    *("joblib_memmapping_folder_*", "loky-*", "torchinductor_*", "torch_*", "magick-*", "ffmpeg*", "*.tmp"),
)  # what Python, and tools that are often used with it, call what they put into system temp


@dataclass(frozen=True)
class Lease:
    """Who uses a workspace.

    `task` is what the holder says of itself, `since` when it began, in seconds since the epoch. Whether it is `alive`
    can't be known, `None`, where it is on another host or in another container: then it `counts` until the TTL is over.
    """

    host: str
    pid: int
    task: str
    since: float
    alive: bool | None
    counts: bool


@dataclass
class Workspace:
    """The workspace of a `workflow`, or of a `service` outside any.

    `bytes` on disk and `inodes` are what it takes, without `unread` directories that could not be read, `newest` is its
    newest time stamp in seconds since the epoch; all are 0 where only leases are left. `not_begun` are tasks that were
    published, `failed` the canvases of which a task has failed. `kept` says why it is still there; `kind` says it in
    words that can be counted.
    """

    path: str
    workflow: str | None
    service: str | None
    bytes: int = 0
    inodes: int = 0
    unread: int = 0
    newest: float = 0.0
    leases: list[Lease] = field(default_factory=list)
    not_begun: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    over: bool = False
    kind: str = ""
    kept: str = ""


@dataclass
class Pile:
    """What is only counted in a directory `path`: `oldest` is in seconds since the epoch."""

    path: str
    count: int = 0
    bytes: int = 0
    oldest: float | None = None

    def add(self, found: Usage) -> None:
        """Count one more."""
        self.count += 1
        self.bytes += found.bytes
        self.oldest = found.newest if self.oldest is None else min(self.oldest, found.newest)


@dataclass(frozen=True)
class Space:
    """What the root's file system has for users; `None` where it doesn't count inodes."""

    free_bytes: int
    all_bytes: int
    free_inodes: int | None
    all_inodes: int | None


def workspaces(settings: Settings) -> Iterator[Workspace]:
    """All of them, one at a time and in no order. Raises `WorkspaceError` or `OSError` where the root can't be read."""
    now = time.time()
    try:
        workflows = ids(settings)
    except OSError:
        check_root(settings)  # which says what to do
        raise
    for workflow in {*workflows, *_ids(settings, LEASES)}:
        yield from _workspace(settings, workflow, now)
    for service in {*_ids(settings, OUTSIDE), *_ids(settings, LEASES, OUTSIDE)}:
        yield from _workspace(settings.for_service(service), None, now)


def trash(settings: Settings) -> Pile:
    """What the next sweep removes, whatever its age."""
    return _pile(f"{settings.root}/{TRASH}", lambda _: True)


def leftovers(settings: Settings) -> Iterator[Pile]:
    """For each system temp directory, what looks like temp files in it; the root, if it is there, is none."""
    root = os.path.realpath(settings.root)
    for directory in dict.fromkeys(map(os.path.realpath, SYSTEM_TEMP)):
        if os.path.isdir(directory):
            yield _pile(directory, partial(is_left_over, directory, root))


def is_left_over(directory: str, root: str, name: str) -> bool:
    """Whether the entry `name` of a system temp directory looks like a temp file of somebody, and isn't the root."""
    return any(fnmatchcase(name, pattern) for pattern in _LEFTOVERS) and not is_below(root, f"{directory}/{name}")


def space(settings: Settings) -> Space:
    """Raises `OSError`."""
    found = os.statvfs(settings.root)
    counts_inodes = found.f_files > 0
    return Space(
        found.f_bavail * found.f_frsize,
        found.f_blocks * found.f_frsize,
        found.f_favail if counts_inodes else None,
        found.f_files if counts_inodes else None,
    )


def _ids(settings: Settings, *names: str) -> list[str]:
    try:
        return ids(settings, *names)
    except OSError:  # where leases can't be read, each workspace says so
        return []


def _workspace(settings: Settings, workflow: str | None, now: float) -> Iterator[Workspace]:
    service = settings.service if workflow is None else None
    workspace = Workspace(settings.workspace_of(workflow), workflow, service)
    files: dict[str, float] = {}
    try:
        found = _usage(settings, workflow)
        if found is not None:
            workspace.bytes, workspace.inodes, workspace.newest = found.bytes, found.inodes, found.newest
            workspace.unread = len(found.skipped)
        files = _files(settings, workflow)
        for name, since in files.items():
            _note(workspace, name, since, now - settings.ttl)
        workspace.kind, workspace.kept = _why(workspace, now, settings)
    except OSError as error:
        workspace.kind, workspace.kept = UNREADABLE, f"can't be read: {error.strerror}"
    if workspace.inodes or files or workspace.kind == UNREADABLE:  # else a workflow without a workspace
        yield workspace


def _usage(settings: Settings, workflow: str | None) -> Usage | None:
    """What the workspace takes, if there is one."""
    try:
        parent = open_existing(settings, *settings.place_of(workflow))
    except FileNotFoundError:
        return None
    try:
        return usage(parent, TMP)
    except FileNotFoundError:
        return None
    finally:
        os.close(parent)


def _files(settings: Settings, workflow: str | None) -> dict[str, float]:
    """The files among the leases, and when each was made."""
    found = {}
    try:
        directory = open_existing(settings, LEASES, *settings.place_of(workflow))
    except FileNotFoundError:
        return {}
    try:
        for name in names(directory):
            with suppress(FileNotFoundError):
                found[name] = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime
    finally:
        os.close(directory)
    return found


def _note(workspace: Workspace, name: str, since: float, counts_from: float) -> None:
    """Add what the file `name` among the leases says; what none of ours has written says nothing."""
    name = borrowed(name) or name
    kind, _, rest = name.partition("~")
    if kind == "lease":
        *_, label = (rest + "~").split("~")[:7]
        holder = holder_of(name)
        if holder is not None:
            alive = holder.is_alive()
            counts = alive or (alive is None and since >= counts_from)
            workspace.leases.append(Lease(holder.host, holder.pid, unquoted(label), since, alive, counts))
    elif kind == "pending" and since >= counts_from:
        workspace.not_begun.append(unquoted(rest))
    elif kind == "failed":
        workspace.failed.append(unquoted(rest))
    elif kind == OVER:
        workspace.over = True


def _why(workspace: Workspace, now: float, settings: Settings) -> tuple[str, str]:
    """What a sweep with the TTL would find, in its order."""
    if any(lease.counts for lease in workspace.leases):
        return "in use", "in use"
    if workspace.not_begun:
        return "a task has not ended", "a task has not ended"
    if workspace.over and not (workspace.failed and settings.keep == "failed"):
        return "ended while in use", "ended while in use: the next sweep removes it"
    if workspace.newest <= now - settings.ttl:
        return "due", "due"
    if workspace.failed:
        return "a task failed", f"a task failed: swept after {age(settings.ttl)}"
    return YOUNG, f"used {age(now - workspace.newest)} ago: swept after {age(settings.ttl)}"


def _pile(path: str, is_counted: Callable[[str], bool]) -> Pile:
    pile = Pile(path)
    try:
        directory = os.open(path, READ)
    except OSError:
        return pile
    try:
        for name in filter(is_counted, os.listdir(directory)):
            with suppress(OSError):
                pile.add(usage(directory, name))
    finally:
        os.close(directory)
    return pile
