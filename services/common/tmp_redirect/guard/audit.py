"""The `audit` layer: the events that the interpreter raises before it creates something (PEP 578), C code's included.

It sees what is called past `os` and `open`: `_io.open`, `io.FileIO`, `posix.mkdir`, functions bound by name before the
shim, and `bind` of a socket. Each event costs a call, and there are many: `copy.deepcopy` raises one for each object
and takes more than twice as long. So it is for CI and for looking closely.

Where `calls` leaves links alone, this follows them: `/proc/self/root/tmp` and `/dev/fd/3` are in system temp too.

What it doesn't see: `mkfifo` and `mknod`, which raise no event; the relative path of an `os.open`, since the event
doesn't tell `dir_fd`; nor that of an `open` with an `opener`, which is taken to count from the working directory, or,
beside `calls`, not looked at; C libraries that open files by themselves; and other processes. `shutil` and `tempfile`
announce what they do in events of their own, which aren't looked at: those of the calls that create say exactly what is
created.

A hook can't be removed: after `uninstall` it finds nothing to do.
"""

import os
import sys
from _socket import AF_UNIX  # socket is not a program's that doesn't use it
from collections.abc import Callable
from types import FrameType
from typing import Any

from ..calls import CREATING, LOCATING, UNNAMED
from ..calls import __file__ as _calls
from ..errors import TmpFallbackError
from ..patches import Patches
from .policy import check_links
from .sqlite import __file__ as _sqlite
from .sqlite import file_of

_CHECKED = (_calls, _sqlite)  # code of these files has asked the policy already, which left links alone

_checks: dict[str, Callable[[Any, bool], None]] = {}
_hooked = False


def install(patches: Patches) -> None:
    """Check the events of this process from now on."""
    global _hooked
    _checks.update(_CHECKS)
    patches.on_undo(_checks.clear)
    if not _hooked:
        sys.addaudithook(_hook(_checks))
        _hooked = True


def _hook(checks: dict[str, Callable[[Any, bool], None]]) -> Callable[[str, Any], None]:
    # Modules lose their names when the interpreter ends.
    find, frame_of, is_finalizing = checks.get, sys._getframe, sys.is_finalizing

    def hook(event: str, args: Any) -> None:
        check_event = find(event)
        if check_event is not None:
            try:
                check_event(args, _is_checked(frame_of().f_back))
            except TmpFallbackError:
                raise
            except Exception:
                if not is_finalizing():
                    raise

    return hook


def _is_checked(frame: FrameType | None) -> bool:
    return frame is not None and frame.f_code.co_filename in _CHECKED


def _open(args: Any, checked: bool) -> None:
    path, mode, flags = args
    if not flags & CREATING or flags & LOCATING or (mode is not None and os.path.isdir(path)):
        return  # tempfile names the directory in which its `opener` makes a file, which is an event of its own
    # A relative path of `os.open` may count from a `dir_fd`, and so may one that `calls` passes on, by its `opener`.
    if _is_absolute(path) or (mode is not None and not checked):
        check_links("open", path, inside=bool(flags & UNNAMED), checked=checked)


def _is_absolute(path: object) -> bool:
    return isinstance(path, (str, bytes)) and os.fsdecode(path).startswith("/")


def _mkdir(args: Any, checked: bool) -> None:
    path, _, dir_fd = args
    check_links("os.mkdir", path, _given(dir_fd), new=True, checked=checked)


def _rename(args: Any, checked: bool) -> None:
    _, target, _, dir_fd = args
    check_links("os.rename", target, _given(dir_fd), checked=checked)


def _link(args: Any, checked: bool) -> None:
    _, target, _, dir_fd = args
    check_links("os.link", target, _given(dir_fd), new=True, checked=checked)


def _symlink(args: Any, checked: bool) -> None:
    _, target, dir_fd = args
    check_links("os.symlink", target, _given(dir_fd), new=True, checked=checked)


def _truncate(args: Any, checked: bool) -> None:
    check_links("os.truncate", args[0], checked=checked)


def _connect(args: Any, checked: bool) -> None:
    path = file_of(args[0], is_uri=True)
    if path is not None:
        check_links("sqlite3.connect", path, checked=checked)


def _bind(args: Any, checked: bool) -> None:
    bound, address = args
    if bound.family == AF_UNIX:
        check_links("socket.bind", address, new=True, checked=checked)


def _given(dir_fd: int) -> int | None:
    return None if dir_fd == -1 else dir_fd


_CHECKS: dict[str, Callable[[Any, bool], None]] = {
    "open": _open,
    "os.mkdir": _mkdir,
    "os.rename": _rename,
    "os.link": _link,
    "os.symlink": _symlink,
    "os.truncate": _truncate,
    "sqlite3.connect": _connect,
    "socket.bind": _bind,
}
