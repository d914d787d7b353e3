"""The directory for sockets and heartbeat files: whether it can be used or made, on a file system that has sockets."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from ..setting_values import MOST_FOR_SOCKETS
from .case import Case
from .finding import Finding
from .mounts import NETWORK, mount_of, mountinfo

_ADVICE = "set TMP_REDIRECT_SOCKET_DIR to a short path on a local file system, which this user may write"


def sockets(case: Case) -> Iterator[Finding]:
    """Nothing is made: the first process that needs it does that."""
    directory = case.settings.socket_dir
    wrong = next(_obstacles(directory), None)
    if wrong:
        yield Finding("sockets", "problem", f"{directory}: {wrong}", _ADVICE)
        return
    state = "can be used" if os.path.exists(directory) else "can be made"
    length = len(os.fsencode(directory))
    yield Finding("sockets", "ok", f"{directory} {state}, and has {length} of at most {MOST_FOR_SOCKETS} bytes")


def _obstacles(directory: str) -> Iterator[str]:
    existing = directory if os.path.lexists(directory) else os.path.dirname(directory)
    if existing == directory:
        found = os.lstat(directory)
        if not stat.S_ISDIR(found.st_mode):
            yield "it is not a directory"
        elif found.st_uid not in (0, os.geteuid()):
            yield f"it belongs to uid {found.st_uid}, who could put other sockets in the place of ours"
    elif not os.path.isdir(existing):
        yield f"{existing} is no directory, so it can't be made"
    space = os.statvfs(existing)
    if not space.f_bavail or space.f_flag & os.ST_RDONLY:
        yield "nothing can be written there: it is full or read-only"
    if not os.access(existing, os.W_OK | os.X_OK):
        yield f"uid {os.geteuid()} can't write {existing}"
    mount = mount_of(os.path.realpath(existing), mountinfo())
    if mount is not None and mount.type in NETWORK:
        yield f"{mount.type} is a network file system, which has no sockets that work everywhere"
