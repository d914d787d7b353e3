"""`tmp-redirect scan-logs`: the system-temp paths that log files name."""

from __future__ import annotations

import argparse
import os
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from ..command_output import CONFIGURATION, FINDINGS, OK, USAGE, one_line, say, tolerant_stdout
from ..errors import SettingsError
from ..settings import Settings, is_below
from . import streams
from .paths import NAMES, system_temp_paths
from .results import Results

_SHOWN = 160  # characters of a line


@dataclass(frozen=True)
class Mention:
    """A system-temp path in a log; `text` is the line, or the part of a long one that is around the path."""

    file: str
    line: int
    path: str
    text: str

    def __str__(self) -> str:
        return f"{one_line(self.file)}:{self.line}: {one_line(self.path)}: {self.text}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `run` needs to `parser`."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="a log file, also compressed by gzip; - is stdin")
    parser.add_argument(
        "--allow",
        action="append",
        type=_prefix,
        metavar="PREFIX",
        help="a path below system temp that may be named (repeatable; without it, those of TMP_REDIRECT_ALLOW)",
    )
    parser.add_argument("--json", action="store_true", help="print an array of objects")


def run(options: argparse.Namespace) -> int:
    """Print each system-temp path that the files name; 1 if there is one, else 2 if a file could not be read."""
    missing = [file for file in options.files if file != "-" and not os.path.exists(file)]
    if missing:
        return say("scan-logs", f"no such file: {one_line(missing[0])}", USAGE)
    try:
        settings = Settings(os.environ)
    except SettingsError as error:
        return say("scan-logs", str(error), CONFIGURATION)
    allowed = _with_links((settings.root, *(settings.allow if options.allow is None else sum(options.allow, ()))))
    found = unread = 0
    with tolerant_stdout():
        output = Results(as_json=options.json)
        for file in options.files:
            try:
                for mention in mentions(file, allowed):
                    found += 1
                    output.add(asdict(mention), mention)
            except BrokenPipeError:
                raise
            except (OSError, EOFError, zlib.error, UnicodeError) as error:
                unread += 1
                say("scan-logs", f"{one_line(file)} was not read to its end: {one_line(str(error))}")
        output.close()
    files = len(options.files)
    say(
        "scan-logs",
        f"{found or 'no'} system-temp path{'' if found == 1 else 's'} in {files} file{'' if files == 1 else 's'}"
        + (f", {unread} of them not read to the end" if unread else ""),
    )
    return FINDINGS if found else USAGE if unread else OK


def mentions(file: str, allowed: tuple[str, ...] = ()) -> Iterator[Mention]:
    """The system-temp paths that `file` names, each once a line, but for those below `allowed`. Raises `OSError`."""
    with streams.opened(file) as stream:
        for piece in streams.pieces(stream):
            if any(name in piece.text for name in NAMES):
                yield from _in_piece(file, piece, allowed)


def _in_piece(file: str, piece: streams.Piece, allowed: tuple[str, ...]) -> Iterator[Mention]:
    number, text, first, end = streams.readable_piece(piece)
    seen = set()
    for start, path in system_temp_paths(text):
        absolute = "/" + os.path.normpath(path).lstrip("/")
        if not first <= start < end or path in seen or any(is_below(absolute, prefix) for prefix in allowed):
            continue
        seen.add(path)
        yield Mention(file, number, path, _around(text, start))


def _around(text: str, start: int) -> str:
    """At most `_SHOWN` characters of `text`, with what is at `start` among them."""
    text, left = text.rstrip(), 0
    if len(text) > _SHOWN:
        left = max(0, min(start - _SHOWN // 3, len(text) - _SHOWN))
    shown = text[left : left + _SHOWN]
    return one_line("…" * (left > 0) + shown + "…" * (left + _SHOWN < len(text)))


def _with_links(directories: tuple[str, ...]) -> tuple[str, ...]:
    return (*directories, *map(os.path.realpath, directories))


def _prefix(value: str) -> tuple[str, ...]:
    try:
        return Settings({"TMP_REDIRECT_ALLOW": value}).allow
    except SettingsError as error:
        raise argparse.ArgumentTypeError(f"{value!r}: {error.allowed}") from None
