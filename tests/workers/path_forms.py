"""Creates things as it is told, one attempt at a time: the other side of tests/test_path_forms.py.

To be run with `-S`: what is bound by name before the shim must be bound before `site` loads it.
"""

from __future__ import annotations

import os
import pickle
import sys
from builtins import open as early_open
from os import mkdir as early_mkdir
from os import open as early_os_open
from typing import Any

CREATE = os.O_CREAT | os.O_WRONLY
UNNAMED = os.O_TMPFILE | os.O_RDWR


class Subclass(str):
    __slots__ = ()


class PathLike:
    def __init__(self, path: str | bytes) -> None:
        self._path = path

    def __fspath__(self) -> str | bytes:
        return self._path


def operations(source: str, held: list[int]) -> dict[str, Any]:
    """Functions of a path, and of the options that name a directory for it; `held` gets the descriptors left open."""
    import _io
    import ctypes
    import io
    import pathlib
    import posix
    import shutil
    import socket
    import sqlite3
    from urllib.parse import quote_from_bytes

    libc = ctypes.CDLL(None, use_errno=True)

    def opener(at: Any) -> Any:
        return lambda path, flags: os.open(path, flags, **at)

    def inner(path: Any) -> Any:
        path = os.fspath(path)
        return os.path.join(path, *([b"a", b"b"] if isinstance(path, bytes) else ["a", "b"]))

    def renamed(at: Any) -> Any:
        return {f"dst_{name}": descriptor for name, descriptor in at.items()}

    def from_libc(path: Any) -> None:
        if libc.mkdir(os.fsencode(path), 0o777):
            raise OSError(ctypes.get_errno(), "mkdir")

    def attach(path: Any) -> None:
        connection = sqlite3.connect(":memory:")
        connection.execute("ATTACH ? AS other", [os.fsdecode(path)])
        connection.execute("CREATE TABLE other.t (c)")
        connection.close()

    def bind(path: Any) -> None:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)

    def uri(start: str, path: Any) -> None:
        sqlite3.connect(start + quote_from_bytes(os.fsencode(path)), uri=True).close()

    def encoded(path: Any) -> None:
        name = "".join(f"%{byte:02x}" for byte in os.fsencode(path))
        sqlite3.connect(f"file:{name}?cache=private&mode=rwc#fragment", uri=True).close()

    return {
        "open w": lambda path, **at: open(path, "w").close(),
        "open a": lambda path, **at: open(path, "ab").close(),
        "open x": lambda path, **at: open(path, mode="x").close(),
        "open w+": lambda path, **at: open(file=path, mode="w+").close(),
        "io.open": lambda path, **at: io.open(path, "w").close(),  # noqa: UP020 - by its other name
        "opener": lambda path, **at: open(path, "w", opener=opener(at)).close(),
        "os.open": lambda path, **at: os.close(os.open(path, CREATE, **at)),
        "os.open O_TMPFILE": lambda path, **at: held.append(os.open(path, UNNAMED, **at)),
        "os.mkdir": os.mkdir,
        "os.makedirs": lambda path, **at: os.makedirs(inner(path)),
        "os.mkfifo": os.mkfifo,
        "os.mknod": os.mknod,
        "os.symlink": lambda path, **at: os.symlink("nowhere", path, **at),
        "os.link": lambda path, **at: os.link(source, path, **renamed(at)),
        "os.rename": lambda path, **at: os.rename(source, path, **renamed(at)),
        "os.rename directory": lambda path, **at: os.rename(f"{source}.d", path, **renamed(at)),
        "os.replace": lambda path, **at: os.replace(source, path, **renamed(at)),
        "shutil.copy": lambda path, **at: shutil.copy(source, path),
        "Path.touch": lambda path, **at: pathlib.Path(path).touch(),
        "Path.mkdir": lambda path, **at: pathlib.Path(path).mkdir(),
        "Path.write_bytes": lambda path, **at: pathlib.Path(path).write_bytes(b""),
        "Path.rename": lambda path, **at: pathlib.Path(source).rename(path),
        "sqlite3.connect": lambda path, **at: sqlite3.connect(path).close(),
        "sqlite3.connect file:": lambda path, **at: uri("file:", path),
        "sqlite3.connect file://": lambda path, **at: uri("file://localhost", path),
        "sqlite3.connect encoded": lambda path, **at: encoded(path),
        # Past `calls`:
        "sqlite3.Connection": lambda path, **at: sqlite3.Connection(path).close(),
        "socket.bind": lambda path, **at: bind(path),
        "_io.open": lambda path, **at: _io.open(path, "w").close(),
        "io.FileIO": lambda path, **at: io.FileIO(path, "x").close(),
        "posix.open": lambda path, **at: os.close(posix.open(path, CREATE, **at)),
        "posix.open O_TMPFILE": lambda path, **at: held.append(posix.open(path, UNNAMED, **at)),
        "posix.mkdir": posix.mkdir,
        "posix.mkfifo": posix.mkfifo,
        "posix.mknod": posix.mknod,
        "posix.symlink": lambda path, **at: posix.symlink("nowhere", path, **at),
        "posix.link": lambda path, **at: posix.link(source, path, **renamed(at)),
        "posix.rename": lambda path, **at: posix.rename(source, path, **renamed(at)),
        "early open": lambda path, **at: early_open(path, "w").close(),
        "early os.open": lambda path, **at: os.close(early_os_open(path, CREATE, **at)),
        "early os.mkdir": early_mkdir,
        # Past `audit` too:
        "libc mkdir": lambda path, **at: from_libc(path),
        "SQL ATTACH": lambda path, **at: attach(path),
    }  # fmt: skip


def as_kind(path: str, kind: str) -> Any:
    import pathlib

    kinds: dict[str, Any] = {
        "str": str,
        "subclass of str": Subclass,
        "bytes": os.fsencode,
        "PathLike": PathLike,
        "PathLike of bytes": lambda path: PathLike(os.fsencode(path)),
        "Path": pathlib.Path,
        "bytearray": lambda path: bytearray(os.fsencode(path)),
    }
    return kinds[kind](path)


def padded(path: str, length: int) -> str:
    """The path with `/.` where it says `<pad>`, until it has `length` bytes."""
    before, mark, after = path.partition("<pad>")
    missing = length - len(os.fsencode(before + after))
    return before + "/." * (missing // 2) + "/" * (missing % 2) + after if mark else path


def attempt(command: dict[str, Any], held: list[int]) -> BaseException | None:
    os.chdir(command["cwd"])
    anchor = os.open(command["anchor"], command["flags"])
    try:
        for gone in command["gone"]:
            os.rmdir(gone)
        path = command["path"].replace("<pid>", str(os.getpid())).replace("<fd>", str(anchor))
        path = as_kind(padded(path, command["length"]), command["kind"])
        options = {"dir_fd": anchor} if command["dir_fd"] else {}
        operations(command["source"], held)[command["operation"]](path, **options)
    except Exception as error:
        return error
    finally:
        os.close(anchor)
        os.chdir("/")
    return None


def main() -> None:
    import site

    site.main()
    import warnings

    from services.common.tmp_redirect import report

    warnings.simplefilter("ignore")
    commands, answers = sys.stdin.buffer, sys.stdout.buffer
    held: list[int] = []
    while True:
        try:
            command = pickle.load(commands)
        except EOFError:
            return
        while held:
            os.close(held.pop())
        before = report().total
        error = attempt(command, held)
        answer = {
            "error": None if error is None else type(error).__name__,
            "said": str(error),
            "recorded": report().total - before,
            "held": held,
        }
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    main()
