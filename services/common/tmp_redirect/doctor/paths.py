"""How long paths get: what the root and a workflow id leave of the limits of Linux."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ..settings import Settings
from .finding import Finding

PATH_MAX, NAME_MAX, SOCKET_MAX = 4095, 255, 107  # bytes: limits.h without the zero at the end, unix(7)
_UUID = 36  # bytes of a usual workflow id
_LEAST_FOR_SOCKETS = 24  # bytes: /tmpabcdefgh/socket and a little


def paths(settings: Settings) -> Iterator[Finding]:
    """The bytes that are left for names in a workspace."""
    longest = os.statvfs(settings.root).f_namemax
    usual = len(os.fsencode(settings.workspace_of("x" * _UUID))) + 1
    widest = len(os.fsencode(settings.workspace_of("x" * NAME_MAX))) + 1
    text = (
        f"below a workspace, a path may have {PATH_MAX - widest:,} bytes for any workflow id, "
        f"and that of a socket {max(0, SOCKET_MAX - usual)} where the id has {_UUID}"
    )
    if longest < NAME_MAX:
        text += f"; names have at most {longest} bytes there, so longer workflow ids fail"
        yield Finding("paths", "note", text, "use shorter ids, or another file system")
    elif SOCKET_MAX - usual < _LEAST_FOR_SOCKETS:
        advice = "shorten TMP_REDIRECT_ROOT, if programs make sockets in temp directories of their own"
        yield Finding("paths", "note", text, advice)
    else:
        yield Finding("paths", "ok", text)
