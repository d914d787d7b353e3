"""A private mount namespace for a task, in which its workspace stands in the place of /tmp; needs CAP_SYS_ADMIN."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

_CLONE_NEWNS, _MS_BIND, _MS_REC, _MS_PRIVATE, _MNT_DETACH = 0x20000, 0x1000, 0x4000, 0x40000, 2
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def private_temp(workspace: str) -> Iterator[None]:
    """Have /tmp be the directory `workspace`, which is made, for this thread and what it starts."""
    Path(workspace).mkdir(parents=True, exist_ok=True)
    _call("unshare", _CLONE_NEWNS)
    _call("mount", None, b"/", None, _MS_REC | _MS_PRIVATE, None)  # else everybody would see the next one
    _call("mount", os.fsencode(workspace), b"/tmp", None, _MS_BIND, None)
    try:
        yield
    finally:
        _call("umount2", b"/tmp", _MNT_DETACH)


def _call(name: str, *arguments: bytes | int | None) -> None:
    if getattr(_libc, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


if __name__ == "__main__":  # whether it is allowed here
    with private_temp(sys.argv[1]):
        pass
