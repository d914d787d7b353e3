"""How the scope reaches the code that a workflow starts elsewhere: one file a way.

What other packages of ours take from here is loaded when they do: a child that imports subprocess loads little.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .environment import Environment
    from .sockets import prepare_sockets, remove_dead_sockets
    from .wrapping import wrap

_HOMES = {
    "Environment": "environment",
    "prepare_sockets": "sockets",
    "remove_dead_sockets": "sockets",
    "wrap": "wrapping",
}

__all__ = ["Environment", "prepare_sockets", "remove_dead_sockets", "wrap"]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(__import__(f"{__name__}.{home}", fromlist=[name]), name)
