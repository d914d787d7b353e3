"""What the variables may hold, and what becomes of it. Not loaded at a start where every value is a plain one."""

import os

from .errors import SettingsError
from .settings import KEEPS, MODES, SYSTEM_TEMP, SYSTEM_TEMP_PREFIXES, is_system_temp
from .workflow_id import check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LAYERS = ("calls", "audit", "kernel")
MOST_FOR_SOCKETS = 72  # bytes: the path of a socket has 107, of which 35 are /<pid>-12345678/listener-12345678
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = 36500 * 86400  # seconds
_BYTES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse(variable: str, value: str) -> object:
    """What `variable` means when it holds `value`. Raises `SettingsError`."""
    try:
        return _PARSERS[variable](value)
    except ValueError as error:
        raise SettingsError(variable, value, str(error)) from None


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


def _socket_dir(value: str) -> str:
    path = _absolute(value)
    if is_system_temp(path) or len(os.fsencode(path)) > MOST_FOR_SOCKETS:
        raise ValueError(f"an absolute path of at most {MOST_FOR_SOCKETS} bytes that is not in system temp")
    return path


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


def duration(value: str) -> int:
    """A number of seconds, from one with the unit s, m, h or d or without. Raises `ValueError`."""
    number, unit = (value[:-1], value[-1:]) if value[-1:] in _SECONDS else (value, "s")
    if not (number.isascii() and number.isdecimal()):
        raise ValueError("a whole number of seconds, or one with the unit s, m, h or d, as 24h")
    seconds = _whole(number) * _SECONDS[unit]
    if seconds > _LONGEST:
        raise ValueError(f"no more than {_LONGEST // _SECONDS['d']}d")
    return seconds


def _size(value: str) -> int:
    number, unit = (value[:-1], value[-1:].upper()) if value[-1:].upper() in "KMGT" else (value, "")
    if not (number.isascii() and number.isdecimal()):
        raise ValueError("a whole number of bytes, or one with the unit K, M, G or T, as 5G")
    return _whole(number) * _BYTES[unit]


def _whole(digits: str) -> int:
    """The number that they are, or of very many a smaller one that is still too large: int() takes only so many."""
    return int(digits.lstrip("0")[:20] or "0")


def _dir_mode(value: str) -> int:
    try:
        mode = int(value, 8)
    except ValueError:
        mode = 0
    if mode & 0o700 != 0o700 or mode > 0o7777:
        raise ValueError("an octal mode in which the owner may read, write and search, as 0700 or 2770")
    return mode


_PARSERS: "dict[str, Callable[[str], object]]" = {
    "TMP_REDIRECT": _one_of(MODES),
    "TMP_REDIRECT_ROOT": _root,
    "TMP_REDIRECT_GUARD": _layers,
    "TMP_REDIRECT_ALLOW": _allow,
    "TMP_REDIRECT_SERVICE": check,
    "TMP_REDIRECT_OUTSIDE": _one_of(("service", "raise")),
    "TMP_REDIRECT_WORKFLOW_FROM": _sources,
    "TMP_REDIRECT_KEEP": _one_of(KEEPS),
    "TMP_REDIRECT_TTL": duration,
    "TMP_REDIRECT_DIR_MODE": _dir_mode,
    "TMP_REDIRECT_MIN_FREE": _size,
    "TMP_REDIRECT_SOCKET_DIR": _socket_dir,
    "TMP_REDIRECT_SCOPE": check,
}
