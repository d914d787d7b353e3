"""What the package offers beside the scope: questions to the shim, and explicit paths."""

import os

from .guard import Report
from .guard import report as violations
from .patches import installed, loading
from .settings import current
from .workflow_id import check


def gettempdir() -> str:
    """The absolute path of the directory that `tempfile` uses now, for the running code.

    Raises `WorkspaceError` if the workspace can't be had.
    """
    import tempfile

    return tempfile.gettempdir()


def get_temp_path(workflow_id: str, suffix: str = "") -> str:
    """An absolute path in the workspace of `workflow_id` that nobody uses; nothing is created there.

    The workspace is created if need be. Where the shim is off, the path is in stock's `tempfile.gettempdir()`.
    Raises `InvalidWorkflowId` or `WorkspaceError`, and `ValueError` for a suffix with a `/`.
    """
    if "/" in suffix or "\0" in suffix:
        raise ValueError(f"a suffix is the end of a file name, without '/': {suffix!r}")
    check(workflow_id)
    if installed() is None:
        directory = gettempdir()
    else:
        with loading:
            from .workspace import prepare

        directory = prepare(current(), workflow_id)
    return os.path.join(directory, f"tmp{os.urandom(8).hex()}{suffix}")


def report() -> Report:
    """What this process has attempted to create in system temp: one `Violation` a call site, and the total."""
    return violations()
