"""What both commands say, and where: the result on stdout, notes on stderr, and an exit status."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

OK, FINDINGS, USAGE, CONFIGURATION = 0, 1, 2, 78


def say(command: str, message: str, status: int = OK) -> int:
    """Say `message` on stderr; returns `status`."""
    print(f"tmp-redirect {command}: {message}", file=sys.stderr)
    return status


def one_line(text: str) -> str:
    """`text` with what could end the line or steer a terminal made visible."""
    return "".join(char if char.isprintable() else _escaped(char) for char in text.replace("\t", " "))


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


@contextmanager
def tolerant_stdout() -> Iterator[None]:
    """Let a reader of stdout, as `head`, end early, and stdout be in an encoding that can't say everything."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)  # what a test puts there has none
    if reconfigure:
        reconfigure(errors="backslashreplace")
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more


class Results:
    """Prints one result at a time, as a line of text, or as an element of a JSON array, which `close` ends."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._separator = "["

    def add(self, element: object, text: object) -> None:
        """Print `element` if the output is JSON, else `text`."""
        if self._as_json:
            print(self._separator, json.dumps(element), sep="\n", flush=True)
            self._separator = ","
        else:
            print(text, flush=True)

    def close(self) -> None:
        """End the array."""
        if self._as_json:
            print("[]" if self._separator == "[" else "]")
