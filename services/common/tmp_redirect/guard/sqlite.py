"""The part of the `calls` layer that concerns sqlite3: loaded when a program imports it."""

import os
import sys
from types import ModuleType
from typing import Any

from ..calls import StandIn
from ..patches import Patches
from .policy import check


class _Sqlite3(StandIn):
    name = "sqlite3"

    def __init__(self, connect: Any) -> None:
        self._connect = connect

    def connect(self, database: Any, *args: Any, **options: Any) -> Any:
        path = file_of(database, is_uri=bool(options.get("uri", args[6] if len(args) > 6 else False)))
        if path is not None:
            check("sqlite3.connect", path)
        return self._connect(database, *args, **options)


def install(module: ModuleType, patches: Patches) -> None:
    """Put the check in front of `sqlite3.connect`."""
    connect = _Sqlite3(module.connect).connect
    for name in ("sqlite3", "sqlite3.dbapi2"):
        patches.replace(sys.modules[name], "connect", connect)


def file_of(database: Any, *, is_uri: bool) -> str | None:
    """The file that SQLite would create, or `None`; see https://www.sqlite.org/uri.html."""
    if not isinstance(database, (str, bytes, os.PathLike)):
        return None
    name = os.fsdecode(database)
    if name in ("", ":memory:"):
        return None
    if not (is_uri and name.startswith("file:")):
        return name
    from urllib.parse import parse_qs, unquote_to_bytes, urlsplit

    parts = urlsplit(name)
    mode = parse_qs(parts.query).get("mode", ["rwc"])[-1]
    return os.fsdecode(unquote_to_bytes(os.fsencode(parts.path))) if mode == "rwc" else None
