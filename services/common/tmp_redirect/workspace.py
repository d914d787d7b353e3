"""From a workflow id to a directory that is verified: the workflow's own, usable, and no way out of the root.

Directories are opened one below the other with `O_NOFOLLOW` (openat(2)), so a symlink planted anywhere below the root,
also while we look, leads to an error and never to another place.
"""

import errno
import os
import posix  # its open and mkdir are not guarded: what is made here is verified below the root anyhow

from .errors import WorkspaceError
from .settings import CACHE, OUTSIDE, TMP
from .workflow_id import check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .settings import Settings

# O_PATH needs no more than the right to pass through a directory, as using a path does.
_ROOT = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_BELOW = _ROOT | os.O_NOFOLLOW


def prepare(settings: "Settings", workflow: str) -> str:
    """The workflow's workspace, created if need be and verified.

    Raises `InvalidWorkflowId`, or `WorkspaceError` where the root is missing, the directory can't be made, is not a
    directory of ours, can't be written, or its file system has no more than `TMP_REDIRECT_MIN_FREE` bytes left.
    """
    path = settings.workspace_of(check(workflow))
    # The workflow's directory is the user's: it gets the mode that their own makedirs would give it.
    _prepare(settings, path, f"workflow {workflow!r}", ((workflow, None), (TMP, settings.dir_mode)))
    return path


def prepare_outside(settings: "Settings") -> str:
    """The workspace of this service outside any workflow, created if need be and verified. Raises `WorkspaceError`."""
    path = settings.workspace_of(None)
    if settings.outside == "raise":
        raise WorkspaceError(
            errno.EACCES,
            "no workflow is active and TMP_REDIRECT_OUTSIDE=raise forbids temp files outside one: "
            "enter a workflow first, as with tmp_redirect.workflow(workflow_id)",
            path,
        )
    shared = _mode_of(settings.root)  # services of several users add theirs, as they may to the root
    steps = ((OUTSIDE, shared), (settings.service, settings.dir_mode), (TMP, settings.dir_mode))
    _prepare(settings, path, f"service {settings.service!r} outside any workflow", steps)
    return path


def prepare_cache(settings: "Settings", library: str) -> str:
    """The directory of a library's cache, created if need be and verified. Raises `WorkspaceError`."""
    path = settings.cache_of(library)
    steps = ((CACHE, _mode_of(settings.root)), (library, settings.dir_mode))
    _prepare(settings, path, f"library {library!r}", steps)
    return path


def open_service_directory(settings: "Settings") -> int:
    """A descriptor of `<root>/.outside/<service>`, created if need be and verified. Raises `WorkspaceError`."""
    path = os.path.dirname(settings.workspace_of(None))
    steps = ((OUTSIDE, _mode_of(settings.root)), (settings.service, settings.dir_mode))
    return _open(settings, path, f"service {settings.service!r}", steps, min_free=0)


def check_root(settings: "Settings") -> None:
    """Raise `WorkspaceError` unless directories can be made and written in the root."""
    try:
        descriptor = posix.open(settings.root, _ROOT)
        try:
            _check_usable(descriptor, settings.min_free)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _root_error(settings, error) from None


def _prepare(settings: "Settings", path: str, owner: str, steps: tuple[tuple[str, int | None], ...]) -> None:
    os.close(_open(settings, path, owner, steps, settings.min_free))


def _open(settings: "Settings", path: str, owner: str, steps: tuple[tuple[str, int | None], ...], min_free: int) -> int:
    """A descriptor of the directory `path`, to which `steps` lead from the root."""
    at = settings.root
    try:
        descriptor = posix.open(at, _ROOT)
    except OSError as error:
        raise WorkspaceError(
            error.errno, f"{owner} can't have {path}: {_root_error(settings, error).strerror}", path
        ) from None
    try:
        for name, mode in steps:
            at = f"{at}/{name}"
            above, descriptor = descriptor, _step(descriptor, name, mode)
            os.close(above)
        _check_usable(descriptor, min_free)
        return descriptor
    except BaseException as error:
        os.close(descriptor)
        if not isinstance(error, OSError):
            raise
        raise WorkspaceError(error.errno, f"{owner} can't have {path}: {_cause(error, at)}", path) from None


def _step(parent: int, name: str, mode: int | None) -> int:
    """The descriptor of the directory `name` below the descriptor `parent`, which is made if it is missing."""
    try:
        return posix.open(name, _BELOW, dir_fd=parent)
    except FileNotFoundError:
        pass
    try:
        posix.mkdir(name, 0o777 if mode is None else mode, dir_fd=parent)
    except FileExistsError:  # another process was faster
        mode = None
    descriptor = posix.open(name, _BELOW, dir_fd=parent)
    if mode is not None and os.fstat(descriptor).st_mode & 0o7777 != mode:
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


def _mode_of(directory: str) -> int | None:
    try:
        return os.stat(directory).st_mode & 0o7777
    except OSError:
        return None  # the step into the root says what is wrong with it
