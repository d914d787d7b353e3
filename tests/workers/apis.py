"""Each way in which tempfile makes or names something, as a function that returns the paths it got.

Used in fresh interpreters and in tasks of real workers: standard library only.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from typing import Any


def every_api(names: Mapping[str, Any] | None = None, prefix: str = "tmp") -> dict[str, Callable[[], list[str]]]:
    """One function a call, each returns absolute paths; `names` are tempfile's, as a program bound them.

    What has a name begins with `prefix`, so that a watcher of the file system can tell who asked for it.

    What the calls make is left behind, unless the call itself removes it.
    """
    t = names or {name: getattr(tempfile, name) for name in tempfile.__all__}

    def named(**options: Any) -> list[str]:
        with t["NamedTemporaryFile"](**{"prefix": prefix, **options}) as file:
            return [os.fsdecode(file.name)]

    def of_descriptor(file: Any) -> list[str]:
        with file:
            return [os.readlink(f"/proc/self/fd/{file.fileno()}").split(" (deleted)")[0]]

    def spooled() -> list[str]:
        file = t["SpooledTemporaryFile"](max_size=4)
        file.write(b"rolls over")
        return of_descriptor(file)

    def made(descriptor: int, path: str | bytes) -> list[str]:
        os.close(descriptor)
        return [os.fsdecode(path)]

    def directory() -> list[str]:
        with t["TemporaryDirectory"](prefix=prefix) as path:
            return [path]

    return {
        "gettempdir": lambda: [t["gettempdir"]()],
        "gettempdirb": lambda: [os.fsdecode(t["gettempdirb"]())],
        "NamedTemporaryFile": named,
        "NamedTemporaryFile delete=False": lambda: named(delete=False, suffix=".json", mode="w", encoding="utf-8"),
        "NamedTemporaryFile bytes": lambda: named(prefix=prefix.encode(), suffix=b".bin"),
        "TemporaryFile": lambda: of_descriptor(t["TemporaryFile"]()),
        "SpooledTemporaryFile": spooled,
        "mkstemp": lambda: made(*t["mkstemp"](prefix=prefix)),
        "mkstemp bytes": lambda: made(*t["mkstemp"](prefix=prefix.encode())),
        "mkdtemp": lambda: [t["mkdtemp"](prefix=prefix)],
        "mkdtemp bytes": lambda: [os.fsdecode(t["mkdtemp"](prefix=prefix.encode()))],
        "mktemp": lambda: [t["mktemp"](prefix=prefix)],
        "TemporaryDirectory": directory,
    }


def paths_of_every_api(prefix: str) -> list[str]:
    """Call them all; the paths that they got."""
    return [path for make in every_api(prefix=prefix).values() for path in make()]


if __name__ == "__main__":
    import json
    import sys

    json.dump(paths_of_every_api(sys.argv[1]), sys.stdout)
