"""A process that `multiprocessing` starts belongs to the workflow of the code that started it; so do its files.

A forked process has the scope already. With spawn, and with a forkserver, which keeps the environment of its first
launch, the workflow id rides in the data that prepares the process. billiard is a fork of multiprocessing, and alike.
"""

import os

from ..patches import installed, loading
from ..scope import configure, current, current_workflow
from ..settings import is_below
from .environment import Environment
from .wrapping import wrap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

    from ..patches import Patches

_KEY = "tmp_redirect_workflow"


def install_process(module: "ModuleType", patches: "Patches") -> None:
    """Have processes of the module `multiprocessing.process` begin in their workflow."""
    wrap(patches, module.BaseProcess, "_bootstrap", _bootstrap)


def install_spawn(module: "ModuleType", patches: "Patches") -> None:
    """Have the module `multiprocessing.spawn` send the workflow along, and take it up."""
    wrap(patches, module, "get_preparation_data", _get_preparation_data)
    wrap(patches, module, "prepare", _prepare)


def install_files(module: "ModuleType", patches: "Patches") -> None:
    """Have the module `multiprocessing.util` keep a directory in the workspace of the running code."""
    wrap(patches, module, "get_temp_dir", _get_temp_dir)


def install_sockets(module: "ModuleType", patches: "Patches") -> None:
    """Have the module `multiprocessing.connection` make its sockets in the socket directory."""
    wrap(patches, module, "arbitrary_address", _arbitrary_address)


def _bootstrap(original: "Any", process: "Any", /, *args: "Any", **options: "Any") -> "Any":
    _begin(current_workflow())
    return original(process, *args, **options)


def _get_preparation_data(original: "Any", name: str) -> "dict[str, Any]":
    return {**original(name), _KEY: current_workflow()}


def _prepare(original: "Any", data: "dict[str, Any]") -> None:
    if _KEY in data:
        _begin(data.pop(_KEY))
    original(data)


def _begin(workflow: str | None) -> None:
    configure(workflow)
    Environment().follow(current())


def _get_temp_dir(original: "Any") -> str:
    """Only heap arenas that don't fit into /dev/shm are made there: their size counts for the workflow."""
    if installed() is not None:
        import tempfile
        from multiprocessing.process import current_process

        config: "dict[str, Any]" = current_process()._config  # type: ignore[attr-defined]
        known = config.get("tempdir")
        if known is not None and not (is_below(known, tempfile.gettempdir()) and os.path.isdir(known)):
            del config["tempdir"]  # another workflow's, or gone with its workflow
    directory: str = original()
    return directory


def _arbitrary_address(original: "Any", family: str) -> "Any":
    if family != "AF_UNIX" or installed() is None:
        return original(family)
    import tempfile

    with loading:
        from .sockets import directory

    return tempfile.mktemp(prefix="listener-", dir=directory())  # noqa: S306 - a name for bind(2), which makes it
