"""The rows as a table: with rich where it is installed, otherwise as plain text."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.figures import BYTES, COUNT, SHIM, Row
from benchmarks.isolation import Landed
from benchmarks.results import Results

HEADINGS = ("python", "what", "stock", "shim", "ratio", "95% of the median", "added", "target", "")
LANDED = ("python", "pool", "way", "call site", "where its files landed")


def show(results: Results) -> None:
    """Print the rows, and where files landed."""
    if results.rows:
        _show(HEADINGS, [_cells(row) for row in results.rows])
    if results.landed:
        _show(LANDED, [_landed(one) for one in results.landed])


def _show(headings: Sequence[str], cells: Sequence[tuple[str, ...]]) -> None:
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        print(_plain([headings, *cells]))
        return
    table = Table(*headings)
    for line in cells:
        table.add_row(*line)
    # A narrow terminal, or none, must not fold numbers.
    Console(width=max(120, sum(max(map(len, column)) + 3 for column in zip(headings, *cells, strict=True)) + 1)).print(
        table, highlight=False
    )


def _plain(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.python,
        row.what + (f" = {row.at:,}" if row.at is not None else "") + (f": {row.side}" if row.side != SHIM else ""),
        _amount(row.stock, row.unit),
        _amount(row.shim, row.unit),
        f"{row.ratio.median:.3f}x",
        f"{row.ratio.low:.3f} to {row.ratio.high:.3f}",
        plus(row.added.median, row.unit),
        target(row),
        row.verdict,
    )


def _landed(one: Landed) -> tuple[str, ...]:
    return (
        one.python,
        one.pool,
        one.way,
        one.site,
        ", ".join(f"{count} {where}" for where, count in one.where.items()),
    )


def _amount(value: float, unit: str) -> str:
    if unit == COUNT:
        return f"{value:,.0f}"
    return _size(value) if unit == BYTES else _time(value)


def _size(number: float) -> str:
    for unit, size in (("MiB", 2**20), ("KiB", 2**10)):
        if abs(number) >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f} B"


def _time(seconds: float) -> str:
    for unit, size in (("s", 1), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(seconds) >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def plus(value: float, unit: str) -> str:
    """What is added, in the unit that suits it."""
    return ("+" if value >= 0 else "") + _amount(value, unit)


def target(row: Row) -> str:
    """The row's target."""
    parts = []
    if row.target.ratio is not None:
        parts.append(f"{row.target.ratio:.2f}x")
    if row.target.added is not None:
        parts.append(plus(row.target.added, row.unit))
    return " and ".join(parts)
