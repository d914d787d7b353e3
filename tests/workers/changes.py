"""Counts the changes that the shim's lifecycle makes in the file system, to be killed in the middle of them."""

from __future__ import annotations

import os
import posix
from collections.abc import Callable
from typing import Any

CHANGES = ("mkdir", "rename", "unlink", "rmdir", "open")


def call_after(changes: int | None, action: Callable[[], object]) -> None:
    """Call `action` after so many changes of this process, from now on; never for `None`."""
    count = 0

    def counting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def change(*args: Any, **options: Any) -> Any:
            nonlocal count
            result = function(*args, **options)
            if name != "open" or args[1] & os.O_CREAT:
                count += 1
                if count == changes:
                    action()
            return result

        return change

    for name in CHANGES:
        setattr(posix, name, counting(name, getattr(posix, name)))
