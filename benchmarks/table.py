"""The rows as a table: with rich where it is installed, otherwise as plain text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.figures import BYTES, COUNT, Row

HEADINGS = ("python", "what", "stock", "shim", "ratio", "95% of the median", "added", "target", "")


def show(rows: Sequence[Row]) -> None:
    """Print the rows."""
    cells = [_cells(row) for row in rows]
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        print(_plain(cells))
        return
    table = Table(*HEADINGS)
    for line in cells:
        table.add_row(*line)
    # A narrow terminal, or none, must not fold numbers.
    Console(width=max(120, sum(max(map(len, column)) + 3 for column in zip(HEADINGS, *cells, strict=True)) + 1)).print(
        table, highlight=False
    )


def _plain(cells: Iterable[tuple[str, ...]]) -> str:
    lines = [HEADINGS, *cells]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.python,
        row.what,
        _amount(row.stock, row.unit),
        _amount(row.shim, row.unit),
        f"{row.ratio.median:.3f}x",
        f"{row.ratio.low:.3f} to {row.ratio.high:.3f}",
        _plus(row.added.median, row.unit),
        _target(row),
        row.verdict,
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


def _plus(value: float, unit: str) -> str:
    return ("+" if value >= 0 else "") + _amount(value, unit)


def _target(row: Row) -> str:
    parts = []
    if row.target.ratio is not None:
        parts.append(f"{row.target.ratio:.2f}x")
    if row.target.added is not None:
        parts.append(_plus(row.target.added, row.unit))
    return " and ".join(parts)
