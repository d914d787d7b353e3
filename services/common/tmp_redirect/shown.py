"""What commands show to people: sizes, ages, bars and tables."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from .command_output import one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH_WITHOUT_TERMINAL = 120
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_SECONDS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
_EIGHTHS = " ▏▎▍▌▋▊▉"
_BAR = 12  # characters

Column = tuple[str, bool]  # its heading, and whether it is of numbers


def size(number: int) -> str:
    """A number of bytes in the unit that suits it."""
    value, unit = float(number), _UNITS[0]
    for unit in _UNITS:
        if value < 999.5 or unit == _UNITS[-1]:
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" or value >= 99.5 else f"{value:.1f} {unit}"


def age(seconds: float) -> str:
    """A duration in the largest unit of which it has one, and the next: `2d 3h`."""
    left = max(0, int(seconds))
    parts: list[tuple[int, str]] = []
    for unit, length in _SECONDS:
        if left >= length or parts:
            parts.append((left // length, unit))
            left %= length
    return " ".join(f"{number}{unit}" for number, unit in parts[:2] if number) or "0s"


def count(number: int, one: str, many: str = "") -> str:
    """A number with the word for what it counts."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def bar(part: int, whole: int) -> str:
    """A bar for `part`; that for `whole` has the full length."""
    eighths = max(1, round(8 * _BAR * part / whole)) if part > 0 < whole else 0
    if "utf" not in (getattr(sys.stdout, "encoding", None) or "").lower():
        return "#" * -(-eighths // 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def has_rich() -> bool:
    """Whether rich is installed: it comes with the extra `cli`."""
    return find_spec("rich") is not None


def console() -> Console:
    """One that prints to stdout, wide enough for a table where that is no terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL, highlight=False)


def rich_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> Table:
    """The table for rich; cells may hold whatever a stranger has thought of."""
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for heading, is_number in columns:
        table.add_column(heading, overflow="fold", justify="right" if is_number else "left", no_wrap=is_number)
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    return table


def plain_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> str:
    """The table in lines of text, in aligned columns."""
    cells = [[heading for heading, _ in columns], *([one_line(cell) for cell in row] for row in rows)]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            " " * (width - _width(cell)) + cell if is_number else cell + " " * (width - _width(cell))
            for cell, width, (_, is_number) in zip(row, widths, columns, strict=True)
        ).rstrip()
        for row in cells
    )


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF") for char in text)
