"""How the scope reaches the code that a workflow starts elsewhere: one file a way."""

from .environment import Environment
from .wrap import wrap

__all__ = ["Environment", "socket_directory", "wrap"]


def socket_directory() -> str:
    """The absolute path of the short, local directory for sockets. Raises `WorkspaceError`."""
    from .sockets import prepare

    return prepare()
