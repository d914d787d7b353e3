"""Decides whether what a layer of the guard has seen is a violation, and what becomes of it."""

import errno
import os

from ..errors import TmpFallbackError
from ..patches import installed
from ..scope import current_workflow
from ..settings import SYSTEM_TEMP, current, is_below, is_system_temp
from .violations import record

_FOLLOWING = ("open", "os.open", "os.truncate", "sqlite3.connect")  # the others make or replace the last name itself
_tolerant = False


def tolerate(*, on: bool) -> None:
    """Let violations happen, as in `warn`, or no more: for a test that is allowed to. They are recorded as always."""
    global _tolerant
    _tolerant = on


def check(call: str, path: object, dir_fd: int | None = None, *, inside: bool = False, new: bool = False) -> None:
    """Record a violation if creating `path` would create something in system temp; raise `TmpFallbackError` in enforce.

    `path` is what the caller gave: str, bytes or `os.PathLike`; anything else, a file descriptor for one, is left to
    the function that was called. A relative path counts from `dir_fd`, or from the working directory. With `inside`,
    a file without a name is created in the directory `path` (`O_TMPFILE`). With `new`, the call creates nothing, but
    fails, where `path` exists already.

    Links are looked up only where the path is spelled in system temp or with `..`: another that leads there by a link
    is not noticed, for that would take longer than to open a file.
    """
    name = _absolute(path, dir_fd)
    if name is not None and _is_suspect(name):
        _judge("calls", call, name, inside=inside, new=new)


def check_links(
    call: str, path: object, dir_fd: int | None = None, *, inside: bool = False, new: bool = False, checked: bool
) -> None:
    """As `check`, but wherever links lead. If the path was `checked`, what `check` has recorded isn't once more."""
    name = _absolute(path, dir_fd)
    if name is not None and not (checked and _is_suspect(name)):
        _judge("audit", call, name, inside=inside, new=new)


def _absolute(path: object, dir_fd: int | None) -> str | None:
    """An absolute path, not normalised; `None` for what is no path, and where the shim isn't at work."""
    if installed() is None:
        return None  # uninstalled: modules that bound a guarded function by name keep it
    try:
        name = os.fsdecode(path)  # type: ignore[arg-type]
    except TypeError:
        if not isinstance(path, (bytearray, memoryview)):
            return None
        name = os.fsdecode(bytes(path))  # functions of os take them before Python 3.12, and bind always
    if not name.startswith("/"):
        try:
            name = f"{_working_directory() if dir_fd is None else os.readlink(f'/proc/self/fd/{dir_fd}')}/{name}"
        except OSError:
            return None
    return None if "\0" in name else name  # no function takes a zero byte


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was removed, but `..` still leads out of it
        return os.readlink("/proc/self/cwd")


def _is_suspect(name: str) -> bool:
    if "/.." in name:
        return True  # after a link, `..` leads elsewhere than the spelling says
    spelled = "/" + os.path.normpath(name).lstrip("/")
    return is_system_temp(spelled) and not _is_allowed(spelled)


def _judge(layer: str, call: str, name: str, *, inside: bool, new: bool) -> None:
    directory, last = os.path.split(name.rstrip("/"))
    if inside or last in (".", ".."):
        target = os.path.realpath(name)
    else:
        target = os.path.join(os.path.realpath(directory), last)
    if call in _FOLLOWING and os.path.islink(target):
        if os.path.exists(target):
            return  # nothing is created: /dev/stdout, say
        target = os.path.realpath(target)
    if inside:
        target += "/(unnamed)"
    elif target in SYSTEM_TEMP or (new and os.path.lexists(target)):
        return
    if is_system_temp(target) and not _is_allowed(target):
        _violation(layer, call, target)


def _is_allowed(path: str) -> bool:
    settings = current()
    return any(is_below(path, name) for directory in (settings.root, *settings.allow) for name in _names(directory))


def _names(directory: str) -> tuple[str, ...]:
    """What is allowed with `directory`; a link to system temp, or to what holds it, doesn't allow all that is there."""
    real = os.path.realpath(directory)
    return (directory,) if any(is_below(temp, real) for temp in SYSTEM_TEMP) else (directory, real)


def _violation(layer: str, call: str, path: str) -> None:
    workflow = current_workflow()
    enforce = current().mode == "enforce" and not _tolerant
    record(layer, call, path, workflow, "refused" if enforce else "violation")
    if enforce:
        raise TmpFallbackError(
            errno.EACCES,
            f"tmp_redirect refused {call} of {path!r} in system temp"
            f"{'' if workflow is None else f', in workflow {workflow!r}'}; use the tempfile module, "
            "or name a prefix in TMP_REDIRECT_ALLOW if this file must be there",
            path,
        )
