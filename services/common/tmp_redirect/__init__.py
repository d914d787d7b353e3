"""tmp_redirect: every temp file a workflow makes lands in that workflow's own directory, from unmodified code.

Importing this package costs nothing: what it offers is loaded at first use (PEP 562).
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .api import get_temp_path, gettempdir, report
    from .errors import InvalidWorkflowId, SettingsError, TmpFallbackError, WorkspaceError
    from .scope import current_workflow, workflow
    from .startup import install, is_active, uninstall

__version__ = "0.1.0"

_HOMES = {
    "InvalidWorkflowId": "errors",
    "SettingsError": "errors",
    "TmpFallbackError": "errors",
    "WorkspaceError": "errors",
    "current_workflow": "scope",
    "get_temp_path": "api",
    "gettempdir": "api",
    "install": "startup",
    "is_active": "startup",
    "report": "api",
    "uninstall": "startup",
    "workflow": "scope",
}

__all__ = [
    "InvalidWorkflowId",
    "SettingsError",
    "TmpFallbackError",
    "WorkspaceError",
    "current_workflow",
    "get_temp_path",
    "gettempdir",
    "install",
    "is_active",
    "report",
    "uninstall",
    "workflow",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = __import__(f"{__name__}.{home}", fromlist=[name])
    value = globals()[name] = getattr(module, name)
    return value
