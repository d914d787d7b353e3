"""The settings: environment variables, read once per process."""

import os

TYPE_CHECKING = False  # typing would be an import at every interpreter start
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    T = TypeVar("T")

_NAMES = ("/tmp", "/var/tmp", "/usr/tmp")  # noqa: S108 - these are what the shim keeps programs out of
SYSTEM_TEMP = tuple(dict.fromkeys((*_NAMES, *map(os.path.realpath, _NAMES))))
SYSTEM_TEMP_PREFIXES = tuple(directory + "/" for directory in SYSTEM_TEMP)
TMP = "tmp"  # of a workflow's directory: the workspace
OUTSIDE = ".outside"  # a workflow id can't start with a dot
MODES = ("off", "warn", "enforce")
LAYERS = ("calls",)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class Settings:
    """One attribute a variable; see the table in the README. An empty variable counts as unset.

    Raises `SettingsError` for the first variable that holds what it may not.
    """

    __slots__ = (
        "allow", "dir_mode", "guard", "keep", "min_free", "mode", "outside",
        "root", "scope", "service", "socket_dir", "ttl", "workflow_from",
    )  # fmt: skip

    def __init__(self, environ: "Mapping[str, str]") -> None:
        def read(name: str, default: str, parse: "Callable[[str], T]") -> "T":
            value = environ.get(name) or default
            try:
                return parse(value)
            except ValueError as error:
                from .errors import SettingsError

                raise SettingsError(name, value, str(error)) from None

        self.mode = read("TMP_REDIRECT", "off", _one_of(MODES))
        self.root = read("TMP_REDIRECT_ROOT", "/share/workflows", _root)
        self.guard = read("TMP_REDIRECT_GUARD", "calls", _layers)
        self.allow = read("TMP_REDIRECT_ALLOW", "", _allow)
        self.service = read("TMP_REDIRECT_SERVICE", "", _service)
        self.outside = read("TMP_REDIRECT_OUTSIDE", "service", _one_of(("service", "raise")))
        self.workflow_from = read(
            "TMP_REDIRECT_WORKFLOW_FROM",
            "kwargs.context.workflow_id,args.0.workflow_id,kwargs.workflow_id,header,root_id",
            _sources,
        )
        self.keep = read("TMP_REDIRECT_KEEP", "failed", _one_of(("all", "failed", "none")))
        self.ttl = read("TMP_REDIRECT_TTL", "24h", _duration)
        self.dir_mode = read("TMP_REDIRECT_DIR_MODE", "0700", _dir_mode)
        self.min_free = read("TMP_REDIRECT_MIN_FREE", "0", _size)
        self.socket_dir = read("TMP_REDIRECT_SOCKET_DIR", "/dev/shm/tmp-redirect", _absolute)  # noqa: S108
        self.scope = read("TMP_REDIRECT_SCOPE", "", lambda value: _name(value) if value else None)

    def workspace_of(self, workflow: str | None) -> str:
        """`<root>/<workflow id>/tmp`, or outside any workflow `<root>/.outside/<service>/tmp`; it need not exist."""
        directory = f"{OUTSIDE}/{self.service}" if workflow is None else workflow
        return f"{self.root}/{directory}/{TMP}"


_current: Settings | None = None


def current() -> Settings:
    """The settings of this process, read at the first call. Raises `SettingsError`."""
    global _current
    if _current is None:
        _current = Settings(os.environ)
    return _current


def forget() -> None:
    """Let the next `current()` read the environment again: a new installation begins."""
    global _current
    _current = None


def is_below(path: str, directory: str) -> bool:
    """Whether the absolute, normalised `path` is `directory` or lies below it."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def is_system_temp(path: str) -> bool:
    """Whether the absolute, normalised `path` is a system temp directory or lies below one."""
    return path in SYSTEM_TEMP or path.startswith(SYSTEM_TEMP_PREFIXES)


def _one_of(words: tuple[str, ...]) -> "Callable[[str], str]":
    def parse(value: str) -> str:
        if value not in words:
            raise ValueError("one of " + ", ".join(words))
        return value

    return parse


def _absolute(value: str) -> str:
    if not value.startswith("/") or "\0" in value:
        raise ValueError("an absolute path")
    return "/" + os.path.normpath(value).lstrip("/")


def _name(value: str) -> str:
    from .workflow_id import check

    return check(value)


def _service(value: str) -> str:
    if value:
        return _name(value)
    return (os.uname().nodename if hasattr(os, "uname") else "") or "unnamed"


def _root(value: str) -> str:
    path = _absolute(value)
    if path == "/" or path in SYSTEM_TEMP:
        raise ValueError("an absolute path that is neither / nor itself a system temp directory")
    return path


def _allow(value: str) -> tuple[str, ...]:
    paths = tuple(_absolute(part) for part in value.split(":") if part)
    for path in paths:
        if not path.startswith(SYSTEM_TEMP_PREFIXES):
            raise ValueError(f"absolute paths below {', '.join(SYSTEM_TEMP)}, separated by ':'")
    return paths


def _layers(value: str) -> tuple[str, ...]:
    layers = tuple(part.strip() for part in value.split(","))
    for layer in layers:
        if layer not in LAYERS:
            raise ValueError(f"a comma list of the guard layers: {', '.join(LAYERS)}")
    return layers


def _sources(value: str) -> tuple[tuple[str, ...], ...]:
    sources = tuple(tuple(part.strip().split(".")) for part in value.split(","))
    for source in sources:
        kind, steps = source[0], source[1:]
        fine = not steps if kind in ("header", "root_id") else all(steps) and bool(steps)
        if kind == "args":
            fine = fine and steps[0].isdecimal()
        if not fine or kind not in ("args", "kwargs", "header", "root_id"):
            raise ValueError("a comma list of header, root_id, kwargs.<name>[.<key>...] and args.<number>[.<key>...]")
    return sources


def _duration(value: str) -> int:
    number, unit = (value[:-1], value[-1:]) if value[-1:] in _SECONDS else (value, "s")
    if not (number.isascii() and number.isdecimal()):
        raise ValueError("a whole number of seconds, or one with the unit s, m, h or d, as 24h")
    return int(number) * _SECONDS[unit]


def _size(value: str) -> int:
    number, unit = (value[:-1], value[-1:].upper()) if value[-1:].upper() in "KMGT" else (value, "")
    if not (number.isascii() and number.isdecimal()):
        raise ValueError("a whole number of bytes, or one with the unit K, M, G or T, as 5G")
    return int(number) * _BYTES[unit]


def _dir_mode(value: str) -> int:
    try:
        mode = int(value, 8)
    except ValueError:
        mode = 0
    if mode & 0o700 != 0o700 or mode > 0o7777:
        raise ValueError("an octal mode in which the owner may read, write and search, as 0700 or 2770")
    return mode
