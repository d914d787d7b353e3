"""Wrapping a function of somebody else's class or module, in plain Python.

A plain function binds as the method that it replaces does, and `functools.wraps` gives it that one's signature. wrapt,
whose import takes 65 ms, is for what Celery holds by name in several modules.
"""

import functools

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..patches import Patches


def wrap(patches: "Patches", owner: "Any", name: str, wrapper: "Callable[..., Any]") -> None:
    """Replace the function `owner.name` by one that calls `wrapper(original, *args, **options)`.

    Raises `AttributeError` where there is no such function.
    """
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: "Any", **options: "Any") -> "Any":
        return wrapper(original, *args, **options)

    patches.replace(owner, name, wrapped)
