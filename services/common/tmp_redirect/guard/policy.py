"""Decides whether what a layer of the guard has seen is a violation, and what becomes of it."""

import errno
import os

from ..errors import TmpFallbackError
from ..patches import installed
from ..scope import current_workflow
from ..settings import SYSTEM_TEMP, current, is_below, is_system_temp
from .violations import record

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
    """
    if installed() is None:
        return  # uninstalled: modules that bound a guarded function by name keep it
    target = _absolute(path, dir_fd)
    if target is None or not is_system_temp(target) or _is_allowed(target):
        return
    if inside:
        target += "/(unnamed)"
    elif target in SYSTEM_TEMP or (new and os.path.lexists(target)):
        return
    # A link below system temp may lead out of it, and to the root.
    real = os.path.join(os.path.realpath(os.path.dirname(target)), os.path.basename(target))
    if not is_system_temp(real) or _is_allowed(real):
        return
    _violation(call, target)


def _absolute(path: object, dir_fd: int | None) -> str | None:
    try:
        name = os.fsdecode(path)  # type: ignore[arg-type]
        if not name.startswith("/"):
            base = os.getcwd() if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}")
            name = f"{base}/{name}"
    except (TypeError, OSError):
        return None
    if "\0" in name:
        return None  # no function takes it
    return "/" + os.path.normpath(name).lstrip("/")


def _is_allowed(path: str) -> bool:
    settings = current()
    allowed = (settings.root, *settings.allow)
    return any(is_below(path, directory) or is_below(path, os.path.realpath(directory)) for directory in allowed)


def _violation(call: str, path: str) -> None:
    workflow = current_workflow()
    enforce = current().mode == "enforce" and not _tolerant
    record(call, path, workflow, "refused" if enforce else "violation")
    if enforce:
        raise TmpFallbackError(
            errno.EACCES,
            f"tmp_redirect refused {call} of {path!r} in system temp"
            f"{'' if workflow is None else f', in workflow {workflow!r}'}; use the tempfile module, "
            "or name a prefix in TMP_REDIRECT_ALLOW if this file must be there",
            path,
        )
