"""The rules of the `kernel` layer: whatever exists may be written, except system temp and the directories that hold it.

Landlock knows only exceptions that allow. So everything is forbidden, and then allowed for each entry of `/` but
`/tmp`, of `/var` but `/var/tmp`, and of `/usr` but `/usr/tmp`. It knows inodes, not names, and asks of a path all that
lies on the way up from it. Therefore

- nothing can be made directly in `/`, `/var` and `/usr`, nor in a directory that they get later;
- a bind mount of system temp, or of a directory that holds it, is forbidden too where it is an entry of these three;
  deeper down it counts as what it is mounted in, and is allowed.

The rights are those that creating takes. `WRITE_FILE` is one of them: a file without a name (`O_TMPFILE`, with which
tmpfile(3) begins) takes no other. So files that exist in system temp can be read, removed and, if they are sockets,
connected to, but not opened for writing. Nor can they be renamed or linked to another place: that fails with EXDEV, as
between file systems, and `mv` and `shutil.move` copy.

The whole tree of processes can't mount(2) any more, not even in a user namespace. Unless it begins with CAP_SYS_ADMIN
it also can't gain privileges by set-user-id programs and file capabilities (`sudo`, `su`).

Source: Documentation/userspace-api/landlock.rst of Linux. The package landlockpy makes the system calls.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from typing import NamedTuple

from ..errors import KernelLayerError, SettingsError
from ..settings import SYSTEM_TEMP, Settings, is_system_temp

LEAST_ABI = 2  # ABI 1 refuses each rename and link from one directory to another: correct programs would break
ABI_FOR_THREADS = 8  # before it, a thread can restrict only itself and what it starts
_REASONS = {
    errno.ENOSYS: (
        "this kernel has no Landlock, or the seccomp profile of the container hides it; "
        "use Linux 5.19 or later with CONFIG_SECURITY_LANDLOCK, allow the three landlock_* system calls"
    ),
    errno.EOPNOTSUPP: "Landlock is switched off in this kernel; add landlock to lsm= on the kernel's command line",
    errno.EPERM: (
        "the seccomp profile of the container forbids Landlock; allow landlock_create_ruleset, landlock_add_rule "
        "and landlock_restrict_self in it"
    ),
    errno.E2BIG: "16 rulesets, the most that Landlock takes, restrict this process already; start it outside of some",
}


class Availability(NamedTuple):
    """Whether the layer can be installed.

    `abi` is the version of Landlock's interface, 0 where there is none: 2 comes with Linux 5.19, 8 with 7.0. `reason`
    says in one line why the layer can't be installed and what to do; `None` if it can.
    """

    abi: int
    reason: str | None


def availability() -> Availability:
    """What the platform, the installed packages, the kernel and the container say; nothing is changed."""
    if sys.platform != "linux":
        return Availability(0, _because(f"it needs Linux, and this is {sys.platform}; run the program there"))
    try:
        from landlockpy import AccessFS, AccessNet, LandlockError, Ruleset
    except ImportError as error:
        advice = f"install tmp-redirect[kernel] for {sys.executable}"
        return Availability(0, _because(f"it needs landlockpy ({error}); {advice}"))
    try:
        # Unlike landlockpy.abi_version, this tells what is wrong. A ruleset does nothing until it is enforced.
        with Ruleset(handled_fs=AccessFS.MAKE_REG, handled_net=AccessNet.NONE) as ruleset:
            abi = ruleset.abi_version
    except LandlockError as error:
        return Availability(0, _because_of(error))
    if abi < LEAST_ABI:
        problem = f"with Landlock ABI {abi}, every rename and link from one directory to another would fail"
        return Availability(abi, _because(f"{problem}; use Linux 5.19 or later"))
    return Availability(abi, None)


def restrict(settings: Settings) -> None:
    """Restrict this process and all its future children, for ever; takes 40 ms, nearly all to load landlockpy.

    Raises `KernelLayerError`, or `SettingsError` for a root or an allowed path that can't be excepted.
    """
    abi, reason = availability()
    if reason is not None:
        raise KernelLayerError(reason)
    from landlockpy import AccessFS, AccessNet, LandlockError, RestrictFlag, Ruleset

    in_directories = (
        AccessFS.MAKE_REG | AccessFS.MAKE_DIR | AccessFS.MAKE_SYM | AccessFS.MAKE_SOCK | AccessFS.MAKE_FIFO
        | AccessFS.MAKE_CHAR | AccessFS.MAKE_BLOCK | AccessFS.REFER | AccessFS.WRITE_FILE
    )  # fmt: skip
    try:
        flags = RestrictFlag.TSYNC if _has_several_threads(abi) else RestrictFlag.NONE
        with Ruleset(handled_fs=in_directories, handled_net=AccessNet.NONE, best_effort=False) as ruleset:
            for path, is_directory in _exceptions(settings):
                try:
                    ruleset.allow_path(path, in_directories if is_directory else AccessFS.WRITE_FILE)
                except FileNotFoundError:  # it was there a moment ago
                    continue
            try:
                ruleset.restrict(flags, no_new_privs=False)  # with CAP_SYS_ADMIN, set-user-id programs go on working
            except LandlockError as error:
                if error.errno != errno.EPERM:
                    raise
                ruleset.restrict(flags)
    except LandlockError as error:
        raise KernelLayerError(_because_of(error)) from error
    except OSError as error:
        raise KernelLayerError(_because(f"its rules can't be made ({error}); correct that")) from error


def _has_several_threads(abi: int) -> bool:
    count = len(os.listdir("/proc/self/task"))
    if count > 1 and abi < ABI_FOR_THREADS:
        problem = f"this process has {count} threads, and with Landlock ABI {abi} it could restrict only this one"
        raise KernelLayerError(_because(f"{problem}; install the shim when the interpreter starts (sitecustomize)"))
    return count > 1


def _exceptions(settings: Settings) -> Iterator[tuple[str, bool]]:
    """The paths that may be written, each with whether it is a directory."""
    holders = {holder for path in SYSTEM_TEMP for holder in _parents(path)}
    forbidden = {identity for path in (*SYSTEM_TEMP, *holders) if (identity := _identity(path))}
    yield from _beside("/", holders, forbidden)
    named = [("TMP_REDIRECT_ROOT", settings.root), *(("TMP_REDIRECT_ALLOW", path) for path in settings.allow)]
    for variable, path in named:
        real = os.path.realpath(path)
        identity = _identity(real)
        if identity in forbidden:
            raise SettingsError(
                variable, path, "with the guard layer kernel, nothing that is or holds a system temp directory"
            )
        if identity is not None:
            yield real, os.path.isdir(real)
        elif is_system_temp(real):
            raise SettingsError(
                variable, path, "with the guard layer kernel, what lies in system temp must exist when a process starts"
            )


def _beside(directory: str, holders: set[str], forbidden: set[tuple[int, int]]) -> Iterator[tuple[str, bool]]:
    """The entries of `directory` that neither are nor hold system temp, and those of its entries that hold it."""
    with os.scandir(directory) as entries:
        for entry in entries:
            status = _status(entry.path)
            if status is None or stat.S_ISLNK(status.st_mode):  # where a link leads to, we come ourselves
                continue
            if (status.st_dev, status.st_ino) not in forbidden:
                yield entry.path, stat.S_ISDIR(status.st_mode)
            elif entry.path in holders:
                yield from _beside(entry.path, holders, forbidden)


def _parents(path: str) -> Iterator[str]:
    while path != "/":
        path = os.path.dirname(path)
        yield path


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _status(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:  # it is gone, or the mount of another user
        return None


def _because_of(error: OSError) -> str:
    return _because(_REASONS.get(error.errno or 0, f"Landlock failed ({error}); look for a later landlockpy"))


def _because(problem_and_advice: str) -> str:
    return f"the guard layer kernel can't be installed: {problem_and_advice}, or take kernel out of TMP_REDIRECT_GUARD"
