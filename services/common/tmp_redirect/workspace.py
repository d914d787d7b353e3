"""From a workflow id to a directory that is verified: the workflow's own, usable, and no way out of the root.

Directories are opened one below the other with `O_NOFOLLOW` (openat(2)), so a symlink planted anywhere below the root,
also while we look, leads to an error and never to another place.
"""

import errno
import os
import posix  # its open and mkdir are not guarded: what is made here is verified below the root anyhow

from .errors import WorkspaceError
from .settings import CACHE, LEASES, OUTSIDE, TMP, TRASH
from .workflow_id import check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .settings import Settings

_ROOT = os.O_DIRECTORY | os.O_CLOEXEC
_BELOW = _ROOT | os.O_NOFOLLOW
_AS_ABOVE = -1  # as a mode: that of the directory above, as services of several users share what they share the root
_USERS = -2  # what the user's own makedirs would give it
GONE = (errno.ENOENT, errno.ESTALE)  # the second on NFS, where another host has removed what is open here


def prepare(settings: "Settings", workflow: str, made: "list[str] | None" = None) -> str:
    """The workflow's workspace, created if need be and verified; `made` gets the names of directories that were new.

    Raises `InvalidWorkflowId`, or `WorkspaceError` where the root is missing, the directory can't be made, is not a
    directory of ours, can't be written, or its file system has no more than `TMP_REDIRECT_MIN_FREE` bytes left.
    """
    path = settings.workspace_of(check(workflow))
    _prepare(settings, path, owner(settings, workflow), ((workflow, _USERS), (TMP, settings.dir_mode)), made)
    return path


def prepare_outside(settings: "Settings") -> str:
    """The workspace of this service outside any workflow, created if need be and verified. Raises `WorkspaceError`."""
    check_allowed(settings, None)
    path = settings.workspace_of(None)
    steps = ((OUTSIDE, _AS_ABOVE), (settings.service, settings.dir_mode), (TMP, settings.dir_mode))
    _prepare(settings, path, owner(settings, None), steps)
    return path


def owner(settings: "Settings", workflow: str | None) -> str:
    """Whose workspace it is, as errors say it."""
    return f"service {settings.service!r} outside any workflow" if workflow is None else f"workflow {workflow!r}"


def check_allowed(settings: "Settings", workflow: str | None) -> None:
    """Raise `InvalidWorkflowId`, or outside any workflow `WorkspaceError` where temp files there are forbidden."""
    if workflow is not None:
        check(workflow)
    elif settings.outside == "raise":
        raise WorkspaceError(
            errno.EACCES,
            "no workflow is active and TMP_REDIRECT_OUTSIDE=raise forbids temp files outside one: "
            "enter a workflow first, as with tmp_redirect.workflow(workflow_id)",
            settings.workspace_of(None),
        )


def prepare_cache(settings: "Settings", library: str) -> str:
    """The directory of a library's cache, created if need be and verified. Raises `WorkspaceError`."""
    path = settings.cache_of(library)
    steps = ((CACHE, _AS_ABOVE), (library, settings.dir_mode))
    _prepare(settings, path, f"library {library!r}", steps)
    return path


def open_service_directory(settings: "Settings") -> int:
    """A descriptor of `<root>/.outside/<service>`, created if need be and verified. Raises `WorkspaceError`."""
    path = os.path.dirname(settings.workspace_of(None))
    steps = ((OUTSIDE, _AS_ABOVE), (settings.service, settings.dir_mode))
    return _open(settings, path, f"service {settings.service!r}", steps, min_free=0)


def open_leases(settings: "Settings", workflow: str | None) -> int:
    """A descriptor of the directory of leases of a workflow, or with `None` of this service; created if need be.

    Raises `WorkspaceError`.
    """
    steps: tuple[tuple[str, int], ...] = ((LEASES, _AS_ABOVE),)
    if workflow is None:
        steps += ((OUTSIDE, _AS_ABOVE), (settings.service, settings.dir_mode))
    else:
        steps += ((workflow, settings.dir_mode),)
    return _open(settings, settings.workspace_of(workflow), owner(settings, workflow), steps, min_free=None)


def open_trash(settings: "Settings") -> int:
    """A descriptor of `<root>/.trash`, created if need be. Raises `WorkspaceError`."""
    return _open(settings, f"{settings.root}/{TRASH}", "the trash", ((TRASH, _AS_ABOVE),), min_free=None)


def open_existing(settings: "Settings", *names: str) -> int:
    """A descriptor of the directory that `names` lead to from the root, one below the other.

    Raises `FileNotFoundError` where it doesn't exist, or the `OSError` of what is there instead: no link is followed.
    """
    descriptor = _open_directory(settings.root, _ROOT)
    for name in names:
        above = descriptor
        try:
            descriptor = _open_directory(name, _BELOW, above)
        finally:
            os.close(above)
    return descriptor


def check_root(settings: "Settings") -> None:
    """Raise `WorkspaceError` unless directories can be made and written in the root."""
    try:
        descriptor = _open_directory(settings.root, _ROOT)
        try:
            _check_usable(descriptor, settings.min_free)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _root_error(settings, error) from None


def _prepare(
    settings: "Settings", path: str, whose: str, steps: tuple[tuple[str, int], ...], made: "list[str] | None" = None
) -> None:
    os.close(_open(settings, path, whose, steps, settings.min_free, made))


def _open(
    settings: "Settings",
    path: str,
    whose: str,
    steps: tuple[tuple[str, int], ...],
    min_free: int | None,
    made: "list[str] | None" = None,
) -> int:
    """A descriptor of the directory `path`, to which `steps` lead from the root; `made` as of `prepare`.

    Whether it can be used is not looked at with a `min_free` of `None`: what is done there will tell.
    """
    at, made = settings.root, [] if made is None else made
    try:
        descriptor = _open_directory(at, _ROOT)
    except OSError as error:
        raise WorkspaceError(
            error.errno, f"{whose} can't have {path}: {_root_error(settings, error).strerror}", path
        ) from None
    try:
        for name, mode in steps:
            at = f"{at}/{name}"
            above, descriptor = descriptor, _step(descriptor, name, mode, made)
            os.close(above)
        if min_free is not None:
            _check_usable(descriptor, min_free)
        return descriptor
    except BaseException as error:
        os.close(descriptor)
        if not isinstance(error, OSError):
            raise
        if error.errno in GONE and os.path.dirname(at) != settings.root:
            return _open(settings, path, whose, steps, min_free, made)  # what is above was removed, as it was empty
        raise WorkspaceError(error.errno, f"{whose} can't have {path}: {_cause(error, at)}", path) from None


def _open_directory(path: str, flags: int, above: int | None = None) -> int:
    """Open for reading makes an NFS client ask the server (nfs(5), close-to-open), which O_PATH does not.

    Without that it may go on for a minute with a directory that another host has taken away or made anew.
    """
    try:
        return posix.open(path, flags | os.O_RDONLY, dir_fd=above)
    except PermissionError:  # O_PATH needs no more than the right to pass through a directory, as using a path does
        return posix.open(path, flags | os.O_PATH, dir_fd=above)


def _step(parent: int, name: str, mode: int, made: list[str]) -> int:
    """The descriptor of the directory `name` below the descriptor `parent`, which is made if it is missing."""
    while True:
        try:
            descriptor = _open_directory(name, _BELOW, parent)
            break
        except FileNotFoundError:  # the second time too, where it was removed as it was empty
            pass
        if mode == _AS_ABOVE:
            mode = os.fstat(parent).st_mode & 0o7777
        try:
            posix.mkdir(name, 0o777 if mode == _USERS else mode, dir_fd=parent)
            made.append(name)
        except FileExistsError:  # another process was faster
            pass
    if name in made and mode != _USERS and os.fstat(descriptor).st_mode & 0o7777 != mode:
        # The umask took bits away, and mkdir(2) never sets the group bit; fchmod(2) doesn't take an O_PATH descriptor.
        os.chmod(f"/proc/self/fd/{descriptor}", mode)
    return descriptor


def _check_usable(descriptor: int, min_free: int) -> None:
    space = os.statvfs(descriptor)
    if space.f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    if not os.access(".", os.R_OK | os.W_OK | os.X_OK, dir_fd=descriptor, effective_ids=True):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    blocks = space.f_bfree if os.geteuid() == 0 else space.f_bavail
    if blocks * space.f_frsize <= min_free or (space.f_files and not space.f_ffree):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _cause(error: OSError, at: str) -> str:
    """What is wrong at the path `at`, and what to do about it."""
    if os.path.islink(at):
        return f"{at} is a symbolic link to {os.readlink(at)!r}, and links are not followed below the root; remove it"
    if error.errno == errno.ENOTDIR:
        return f"{at} is not a directory; remove it"
    if error.errno == errno.EACCES:
        return (
            f"{at}: {error.strerror} for uid {os.geteuid()}; see TMP_REDIRECT_DIR_MODE if several users share the root"
        )
    if error.errno == errno.ENOSPC:
        return f"{at}: {error.strerror}, or no more than TMP_REDIRECT_MIN_FREE; free space on that file system"
    return f"{at}: {error.strerror}"


def _root_error(settings: "Settings", error: OSError) -> WorkspaceError:
    if error.errno == errno.ENOENT:
        what = f"the root {settings.root} doesn't exist; mount the shared volume there, or create it"
    else:
        what = f"the root can't be used: {_cause(error, settings.root)}"
    return WorkspaceError(
        error.errno, f"{what}, or set TMP_REDIRECT_ROOT to the directory that is meant", settings.root
    )
