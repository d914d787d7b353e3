"""What the command line prints on: closed, full, ended early, or in an encoding that can't say everything."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from typing_extensions import Buffer


class OutputError(Exception):
    """What was printed to stdout could not be written, and the text says why. No `OSError`: it is no file's fault."""


@contextmanager
def usable() -> Iterator[None]:
    """Let all that is printed within go somewhere.

    Raises `OutputError` as soon as stdout doesn't take it, or `BrokenPipeError` where a reader has ended; what comes
    after that, and what stderr doesn't take, is lost.
    """
    before = sys.stdout, sys.stderr
    sys.stdout = _usable(sys.stdout, is_result=True)
    sys.stderr = _usable(sys.stderr, is_result=False)
    try:
        yield
    finally:
        try:
            sys.stderr.flush()
            sys.stdout.flush()
        finally:
            sys.stdout, sys.stderr = before


def _usable(stream: TextIO | None, *, is_result: bool) -> TextIO:
    if stream is None:  # it was closed; print(file=None) would print to stdout
        return open(os.devnull, "w", encoding="utf-8")
    if type(stream) is not io.TextIOWrapper:  # a test has put something else there
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(_Descriptor(stream.fileno(), is_result=is_result)),
        stream.encoding,
        "backslashreplace",
        line_buffering=stream.line_buffering or stream.write_through,
    )


class _Descriptor(io.FileIO):
    """What is at the bottom of a stream."""

    def __init__(self, number: int, *, is_result: bool) -> None:
        super().__init__(number, "wb", closefd=False)
        self._raises = is_result
        self._has_failed = False

    def write(self, data: Buffer, /) -> int:
        if not self._has_failed:
            try:
                return super().write(data)
            except OSError as error:
                self._has_failed = True
                if self._raises:
                    raise error if error.errno == errno.EPIPE else OutputError(error.strerror) from None
        return memoryview(data).nbytes
