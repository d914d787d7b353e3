"""tempfile, resolved to the workspace of the running code.

Everything in tempfile finds its directory through the module's `gettempdir`, or through `_gettempdir` where the public
name was bound before the shim ran. So these two are replaced, by one plain function: it is called for every temp file.
`tempfile.tempdir` keeps its meaning: a program that assigns a directory means it, and `None` means the default again.
"""

import errno
import os

from .patches import loading
from .scope import current_workflow, get, workspace
from .settings import current as current_settings
from .settings import is_system_temp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType
    from typing import Any

    from .patches import Patches

_VARIABLES = ("TMPDIR", "TEMP", "TMP")  # in the order of the documentation of tempfile.tempdir

_tempfile: "Any"
_ours: str
_original_default: "Any"
_original_candidates: "Any"


def install(tempfile: "ModuleType", patches: "Patches") -> None:
    """Redirect the module `tempfile`. Raises `AttributeError` if a name to patch is missing."""
    global _tempfile, _ours, _original_default, _original_candidates
    _tempfile = tempfile
    # Never None: tempfile itself, and programs, read it. Its identity tells whether a program has assigned another.
    _ours = current_settings().workspace_of(current_workflow())
    _original_default, _original_candidates = tempfile._get_default_tempdir, tempfile._candidate_tempdir_list
    patches.replace(tempfile, "tempdir", _ours)
    patches.replace(tempfile, "_gettempdir", gettempdir)
    patches.replace(tempfile, "gettempdir", gettempdir)
    patches.replace(tempfile, "_get_default_tempdir", _get_default_tempdir)


def gettempdir() -> str:
    """The absolute path of the workspace, or the directory that the program assigned to `tempfile.tempdir`.

    Raises `WorkspaceError` if the workspace can't be had, and `TmpFallbackError` if the program assigned system temp.
    """
    if _tempfile.tempdir is _ours:
        directory = get().workspace
        if directory is not None:
            return directory
    return _resolve()


gettempdir.__module__ = "tempfile"  # pickle looks a function up by its module and name


def _resolve() -> str:
    assigned = _tempfile.tempdir
    if assigned is None:
        assigned = _tempfile.tempdir = _from_environment() or _ours
    if assigned is not _ours:
        directory = os.path.abspath(os.fsdecode(assigned))
        # Assigned while another workflow ran, often from gettempdir(): obeying would mix up the two.
        if not current_settings().is_foreign(directory, current_workflow()):
            with loading:
                from .guard import check

            check("tempfile.tempdir", directory, inside=True)
            return os.fsdecode(assigned)
    return workspace()


def _from_environment() -> str | None:
    """The directory that the program has put into the environment since the start, as stock tempfile would find it."""
    inherited = current_settings().inherited
    for name in _VARIABLES:
        value = os.environ.get(name)
        if value and value != inherited[name]:
            directory = os.path.abspath(value)
            if not is_system_temp(directory) and os.path.isdir(directory):
                return directory
    return None


def _get_default_tempdir(dirlist: "Sequence[str] | None" = None) -> str:
    """The workspace; of the directories that newer versions of multiprocessing name, the first outside system temp."""
    if dirlist is None:
        if _tempfile._candidate_tempdir_list is _original_candidates:
            return workspace()
        dirlist = _tempfile._candidate_tempdir_list()  # the program has put its own in place
    usable = [directory for directory in dirlist if not is_system_temp(os.path.abspath(directory))]
    if not usable:
        raise FileNotFoundError(errno.ENOENT, f"No usable temporary directory found in {list(dirlist)}")
    default: str = _original_default(usable) if _original_default.__defaults__ else _original_default()
    return default
