"""docs/benchmarks.json, and what is made of it: docs/benchmarks.md, which is page.md with tables, and the pictures.

`python benchmarks/report.py` writes page and pictures again, from the file, so that they can't disagree with it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[0] = str(REPOSITORY)

from benchmarks import peer_tasks, peers, table  # noqa: E402 - found from here on only
from benchmarks.figures import Row  # noqa: E402
from benchmarks.results import Results  # noqa: E402

DOCS = REPOSITORY / "docs"
JSON, PAGE = DOCS / "benchmarks.json", DOCS / "benchmarks.md"
TEMPLATE = REPOSITORY / "benchmarks" / "page.md"


def write(results: Results) -> None:
    """Write the file, and all that is made from it."""
    JSON.write_text(results.as_json())
    render()


def render() -> None:
    """Write tables and pictures from the file."""
    from benchmarks import picture

    results = Results.from_json(JSON.read_text())
    PAGE.write_text(page(TEMPLATE.read_text(), results))
    picture.costs(results, DOCS / "benchmarks.svg")
    picture.growth(results, DOCS / "growth.svg")


def page(text: str, results: Results) -> str:
    """The text of the page, with the tables of these results. Raises `ValueError` where it has no place for one."""
    for name, lines in {
        "machine": _machine(results),
        "targets": _targets(results.rows),
        "starts": _peers(results.rows, peers.BESIDE),
        "tasks": _peers(results.rows, peer_tasks.BESIDE),
        "isolation": _isolation(results),
    }.items():
        text = _replaced(text, name, lines)
    return text


def _replaced(text: str, name: str, lines: Iterable[str]) -> str:
    """The text with other lines between the marks of `name`."""
    begin, end = f"<!-- {name}: written by benchmarks/report.py -->\n", f"<!-- end of {name} -->"
    head, mark, rest = text.partition(begin)
    _, end_mark, tail = rest.partition(end)
    if not mark or not end_mark:
        raise ValueError(f"{TEMPLATE} has no {begin.strip()} with {end} below it")
    return "".join([head, mark, *(f"{line}\n" for line in lines), end_mark, tail])


def _machine(results: Results) -> list[str]:
    facts = results.machine
    packages = ", ".join(sorted({package.partition(";")[0] for package in facts["packages"]}))
    system = f"{facts['kernel']}, files on {facts['file system']}"
    where = f"{facts['processors']} processors ({facts['processor']}), {system}"
    return [f"{results.date}, {where}; with {facts['this']} where no other is named; {packages}."]


def _targets(rows: Sequence[Row]) -> list[str]:
    """A line for each row with a target, a column for each interpreter; what isn't reached is bold."""
    rows = [row for row in rows if row.target.ratio is not None or row.target.added is not None]
    cells = {(row.what, row.python): _cell(row) for row in rows}
    versions = list(dict.fromkeys(row.python for row in rows))
    aims = {row.what: table.target(row) for row in rows}
    lines = [[what, *(cells.get((what, version), "") for version in versions), aims[what]] for what in aims]
    return _table(["what", *versions, "aim"], lines)


def _cell(row: Row) -> str:
    parts = [f"{row.ratio.median:.2f}"] if row.target.ratio is not None else []
    parts += [table.plus(row.added.median, row.unit)] if row.target.added is not None else []
    text = ", ".join(parts)
    return f"**{text}**" if row.verdict.startswith("not") else text


def _peers(rows: Sequence[Row], suffix: str) -> list[str]:
    """A line for each thing that was done with each side, a column for each interpreter that did it."""
    rows = [row for row in rows if row.what.endswith(suffix)]
    cells = {
        (row.what, row.side, row.python): f"{row.ratio.median:.2f}, {table.plus(row.added.median, row.unit)}"
        for row in rows
    }
    versions = list(dict.fromkeys(row.python for row in rows))
    lines = [
        [what.removesuffix(suffix), side, *(cells.get((what, side, version), "") for version in versions)]
        for what, side in dict.fromkeys((row.what, row.side) for row in rows)
    ]
    return _table(["what", "with", *versions], lines)


def _isolation(results: Results) -> list[str]:
    """A line for each way, and its pools where they are alike; a column for each call site."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for one in results.landed:
        found.setdefault((one.way, one.pool), {})[one.site] = _places(one.where)
    pools: dict[tuple[str, ...], list[str]] = {}
    for (way, pool), cells in found.items():
        pools.setdefault((way, *cells.values()), []).append(pool)
    order = list(dict.fromkeys(one.way for one in results.landed))
    lines = [
        [way, ", ".join(alike), *cells]
        for (way, *cells), alike in sorted(pools.items(), key=lambda item: order.index(item[0][0]))
    ]
    return _table(["way", "pool", *dict.fromkeys(one.site for one in results.landed)], lines)


def _places(where: dict[str, int]) -> str:
    return next(iter(where)) if len(where) == 1 else ", ".join(f"{where[place]} {place}" for place in sorted(where))


def _table(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (headings, ["---"] * len(headings), *lines)]


if __name__ == "__main__":
    render()
