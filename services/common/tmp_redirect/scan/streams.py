"""Lines of log files of any size: plain or compressed, in UTF-8, GB 18030 or UTF-16, in constant memory."""

from __future__ import annotations

import codecs
import gzip
import io
import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, cast

LONGEST = 1 << 20  # characters of a line that are looked at together
OVERLAP = 1 << 13  # of which as many are seen again with the next; a path has at most 4096 bytes
_GZIP = b"\x1f\x8b"
# Without the `/` that ECMA-48 allows before the last character: a path may follow an unfinished sequence.
_COLOURS = re.compile(r"(?:\x1b|\\x1[bB]|\\u001[bB]|\\033|\\e|#033)\[[0-?]*[ -.]*[@-~]")


class Piece(NamedTuple):
    """A line, or a part of a long one: what begins from `first` on and before `end` is not in another piece."""

    number: int
    text: str
    first: int
    end: int


@contextmanager
def opened(path: str) -> Iterator[io.TextIOWrapper]:
    """The text of the file, or of standard input for `-`. Raises `OSError`; reading may raise `EOFError` too."""
    with open(0 if path == "-" else path, "rb", closefd=path != "-") as binary:
        beginning = binary.peek(2)[:2]
        stream = cast("io.BufferedReader", gzip.GzipFile(fileobj=binary)) if beginning == _GZIP else binary
        utf_16 = beginning in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        encoding, errors = ("utf-16", "replace") if utf_16 else ("utf-8", "surrogateescape")
        with io.TextIOWrapper(stream, encoding, errors, newline="\n") as text:
            yield text


def pieces(stream: io.TextIOWrapper) -> Iterator[Piece]:
    """The lines of `stream`, long ones in pieces that overlap."""
    number, held = 1, ""
    while read := stream.readline(LONGEST):
        text, first = held + read, OVERLAP if held else 0
        if len(read) < LONGEST or read.endswith("\n"):
            yield Piece(number, text, first, len(text))
            number, held = number + 1, ""
        else:
            yield Piece(number, text, first, len(text) - OVERLAP)
            held = text[-2 * OVERLAP :]
    if held:
        yield Piece(number, held, OVERLAP, len(held))


def readable(text: str) -> str:
    """`text` without colours, and in Chinese where it was encoded so."""
    return _COLOURS.sub("", _decoded(text, _encoding_of(text)))


def readable_piece(piece: Piece) -> Piece:
    """`piece` as `readable` has its text, which is shorter, so that the places in it are others."""
    encoding = _encoding_of(piece.text)
    text = _decoded(piece.text, encoding)
    first, end = (len(_decoded(piece.text[:place], encoding)) for place in (piece.first, piece.end))
    return Piece(piece.number, _COLOURS.sub("", text), _without_colours(text, first), _without_colours(text, end))


def _encoding_of(text: str) -> str | None:
    """What the whole text is encoded in, if it isn't as it was read."""
    try:
        text.encode()
        return None
    except UnicodeEncodeError:
        pass
    try:
        text.encode("utf-8", "surrogateescape").decode("gb18030")
        return "gb18030"
    except UnicodeError:
        return None


def _decoded(text: str, encoding: str | None) -> str:
    """`text`, of which the last character may have been cut."""
    return text.encode("utf-8", "surrogateescape").decode(encoding, "ignore") if encoding else text


def _without_colours(text: str, place: int) -> int:
    """Where `place` is when the colours are gone."""
    before = itertools.takewhile(lambda found: found.start() < place, _COLOURS.finditer(text))
    return place - sum(min(found.end(), place) - found.start() for found in before)
