"""Who may use what is in the root: services of several users may share it."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterable, Iterator

from ..settings import CACHE, LEASES, OUTSIDE, TMP, TRASH, Settings
from .finding import Finding

_MOST_ENTRIES = 100  # of a root, that are looked at
_ADVICE = (
    "chown it to the service's user, or let services of several users share a group and set TMP_REDIRECT_DIR_MODE=2770"
)


def users(settings: Settings) -> Iterator[Finding]:
    """Whether this user may use what is there, which others may have made, and others what this one makes."""
    found = os.stat(settings.root)
    who = f"uid {os.geteuid()}, gid {os.getegid()}"
    where = f"{settings.root} belongs to uid {found.st_uid}, gid {found.st_gid}, with the mode {_mode(found):04o}"
    outside = None if settings.outside == "raise" else _obstacle(settings.root, OUTSIDE, settings.service, TMP)
    own = _closed(settings, ((LEASES,), (LEASES, OUTSIDE, settings.service), (TRASH,), (CACHE,)))
    workspaces = _closed(settings, ((name, TMP) for name in _workflows(settings)))
    if outside:
        # Without it, a worker ends before it takes a task.
        yield Finding("user", "stops", f"{who} can't use {_named([outside, *own])}", _ADVICE)
    elif own:
        yield Finding("user", "problem", f"{who} can't use {_named(own)}", _ADVICE)
    if workspaces:
        text = f"{who} can't use {_named(workspaces)}: a task of that workflow would fail here"
        yield Finding("user", "note", text, _ADVICE)
    if outside or own or workspaces:
        return
    if found.st_mode & 0o022 and not settings.dir_mode & 0o077:
        text = f"{who}; {where}, so others may write there, but not in workspaces that this service makes"
        advice = "if services of several users share workflows, set TMP_REDIRECT_DIR_MODE=2770 and a common group"
        yield Finding("user", "note" if os.geteuid() == 0 else "ok", text, advice)
    else:
        yield Finding("user", "ok", f"{who}; {where}; TMP_REDIRECT_DIR_MODE={settings.dir_mode:04o}")


def _workflows(settings: Settings) -> list[str]:
    """Not all, of many."""
    with os.scandir(settings.root) as entries:
        some = itertools.islice(entries, _MOST_ENTRIES)
        return sorted(
            entry.name for entry in some if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
        )


def _closed(settings: Settings, ways: Iterable[tuple[str, ...]]) -> list[str]:
    """What this user can't use of what the names lead to."""
    found = (_obstacle(settings.root, *names) for names in ways)
    return [path for path in dict.fromkeys(found) if path]


def _named(paths: list[str]) -> str:
    more = f" and {len(paths) - 1} more" if paths[1:] else ""
    return f"{paths[0]}{more} ({_whose(paths[0])})"


def _obstacle(path: str, *names: str) -> str | None:
    """The directory on the way down that this user can't use, or make the next one in; `None` if there is none."""
    for name in names:
        if not os.path.lexists(f"{path}/{name}"):
            break
        path = f"{path}/{name}"
        if os.path.islink(path) or not os.path.isdir(path):
            return path
    return None if os.access(path, os.R_OK | os.W_OK | os.X_OK) else path


def _whose(path: str) -> str:
    try:
        found = os.lstat(path)
    except OSError as error:
        return str(error.strerror)
    if not stat.S_ISDIR(found.st_mode):
        return "it is not a directory"
    return f"it belongs to uid {found.st_uid}, gid {found.st_gid}, with the mode {_mode(found):04o}"


def _mode(found: os.stat_result) -> int:
    return stat.S_IMODE(found.st_mode)
