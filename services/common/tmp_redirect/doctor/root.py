"""The root: whether it can be used, the file system it is on, and the space there."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from ..errors import WorkspaceError
from ..settings import Settings
from ..shown import size
from ..workspace import check_root
from .case import Case
from .finding import Finding, from_message
from .mounts import meaning, mount_of, mountinfo
from .operations import operations
from .paths import paths
from .users import users

_FATAL = "stops"  # in any mode: a worker without a usable root ends before it takes a task
_LOW = 0.05  # of a file system


def root(case: Case) -> Iterator[Finding]:
    """All about it; where it can't be used, why."""
    settings = case.settings
    try:
        check_root(settings)
    except WorkspaceError as error:
        if error.errno != errno.ENOSPC:
            yield _unusable(error)
            if error.errno in (errno.EACCES, errno.EROFS):
                yield from _file_system(settings)
            return
        yield Finding("root", "ok", f"{settings.root} exists")
        yield from _file_system(settings)
        yield from_message("space", _FATAL, f"{_space(settings)[0]}: {error.strerror}")
        return
    yield Finding("root", "ok", f"{settings.root} can be written")
    yield from _file_system(settings)
    text, is_low = _space(settings)
    if is_low:
        advice = "free space, run tmp-redirect sweep, or have tasks refused in time by TMP_REDIRECT_MIN_FREE=5G"
        yield Finding("space", "note", text, advice)
    else:
        yield Finding("space", "ok", text)
    yield from operations(settings)
    yield from paths(settings)
    yield from users(settings)


def _unusable(error: WorkspaceError) -> Finding:
    found = from_message("root", _FATAL, str(error.strerror))
    return found if found.advice else found._replace(advice="see how it is mounted, and what TMP_REDIRECT_ROOT is")


def _file_system(settings: Settings) -> Iterator[Finding]:
    mount = mount_of(os.path.realpath(settings.root), mountinfo())
    if mount is None:
        yield Finding("file system", "note", f"/proc/self/mountinfo says nothing about {settings.root}")
        return
    text, advice = meaning(mount)
    what = f"{mount.type}, mounted at {mount.point}"
    yield Finding("file system", "note" if text else "ok", f"{what}: {text}" if text else what, advice)


def _space(settings: Settings) -> tuple[str, bool]:
    """What is free, and whether that is little."""
    there = os.statvfs(settings.root)
    mine = os.geteuid() == 0
    free, whole = (there.f_bfree if mine else there.f_bavail) * there.f_frsize, there.f_blocks * there.f_frsize
    text = f"{size(free)} of {size(whole)} free"
    if there.f_files:
        text += f", {there.f_ffree:,} of {there.f_files:,} inodes"
    if settings.min_free:
        text += f", TMP_REDIRECT_MIN_FREE is {size(settings.min_free)}"
    is_low = free < max(_LOW * whole, 2 * settings.min_free) or there.f_ffree < _LOW * there.f_files
    return text, is_low
