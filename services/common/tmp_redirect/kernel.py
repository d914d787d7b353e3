"""The `kernel` layer: the kernel keeps a process and all that it starts from writing to system temp, native code too.

It is applied once, where a tree of processes begins, and can't be taken back. This file runs at the start of each
interpreter in the tree, where it only has to see that the kernel refuses already, and so it stands beside `guard/`, as
calls.py does; landlock.py makes the kernel refuse.
"""

import errno
import os
import posix  # its mkdir is not guarded: an attempt of ours is no violation

from .settings import SYSTEM_TEMP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .guard.landlock import Availability
    from .settings import Settings

MARK = "TMP_REDIRECT_RESTRICTED"  # its beginning is what the shim passes on also with an environment made from nothing


def install(settings: "Settings") -> None:
    """Restrict this process and all its future children, unless they are, or the mode isn't `enforce`.

    In `warn`, everything must go through and be logged, which the kernel can't do. To be called where a tree of
    processes begins and before it has a second thread. There is no uninstall.

    Raises `KernelLayerError` where platform, packages, kernel, container or threads don't let it, and
    `SettingsError` for a root or an allowed path that can't be excepted.
    """
    if settings.mode != "enforce" or is_restricted():
        return
    from .errors import KernelLayerError
    from .guard import restrict

    restrict(settings)
    if not _is_refused():
        raise KernelLayerError(
            "the guard layer kernel is installed, but system temp can be written all the same: what lies above it "
            "must be mounted below / once more; unmount that, or take kernel out of TMP_REDIRECT_GUARD"
        )
    os.environ[MARK] = "1"


def is_restricted() -> bool:
    """Whether `install` has restricted this process, or one that it descends from.

    Takes 10 µs where it has. The kernel doesn't tell, so the environment says so and an attempt proves it: nothing is
    created unless the environment lies, and that is removed at once.
    """
    return os.environ.get(MARK) == "1" and _is_refused()


def availability() -> "Availability":
    """Whether this layer could be installed here, and if not, why; changes nothing. See `landlock.Availability`."""
    from .guard import availability

    return availability()


def _is_refused() -> bool:
    return all(map(_refuses, SYSTEM_TEMP))


def _refuses(directory: str) -> bool:
    if not os.access(directory, os.W_OK | os.X_OK):
        return True  # by its mode, or because there is no such directory; Landlock has no say in access(2)
    path = f"{directory}/.tmp-redirect-{os.getpid()}"
    try:
        posix.mkdir(path)
    except OSError as error:
        return error.errno == errno.EACCES
    posix.rmdir(path)
    return False
