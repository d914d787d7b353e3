"""What all commands say, and where: the result on stdout, notes on stderr, and an exit status."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

OK, FINDINGS, USAGE, CONFIGURATION = 0, 1, 2, 78  # 78 is EX_CONFIG of sysexits.h


def say(command: str, message: str, status: int = OK) -> int:
    """Say `message` on stderr; returns `status`."""
    print(f"tmp-redirect {command}: {message}", file=sys.stderr)
    return status


def one_line(text: str) -> str:
    """`text` with what could end the line or steer a terminal made visible."""
    return "".join(char if char.isprintable() else _escaped(char) for char in text.replace("\t", " "))


@contextmanager
def tolerant_stdout() -> Iterator[None]:
    """Let a reader of stdout, as `head`, end early."""
    with suppress(BrokenPipeError):
        yield
        sys.stdout.flush()


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
