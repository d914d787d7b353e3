"""`tmp-redirect status`: what there is in the root and in system temp, for people and for programs."""

from __future__ import annotations

import argparse
import heapq
import json
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from operator import attrgetter
from typing import TYPE_CHECKING

from ..command_output import CONFIGURATION, OK, USAGE, one_line, say, tolerant_stdout
from ..errors import SettingsError, WorkspaceError
from ..root_option import add_root, settings_for
from ..settings import Settings
from ..shown import age, bar, console, count, has_rich, plain_table, rich_table, size
from .status import YOUNG, Lease, Workspace, leftovers, space, trash, workspaces

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table
    from rich.text import Text

_LIMIT = 20
_AROUND = 14  # lines of a terminal that --watch needs beside the rows
_NARROWEST = 72  # columns of a terminal in which the table can be read
_COLUMNS = (
    *(("workflow", False), ("size", True), ("", False), ("inodes", True), ("last use", True)),
    *(("used by", False), ("kept", False)),
)
_Shown = tuple[list[list[str]], list[str]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `run` needs to `parser`."""
    parser.add_argument(
        "--limit", type=_number, default=_LIMIT, metavar="N", help=f"show the N largest ({_LIMIT}), with 0 all"
    )
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")
    parser.add_argument(
        "--watch", nargs="?", const=2.0, type=_seconds, metavar="SECONDS", help="go on, with a look every 2 seconds"
    )
    add_root(parser)


def run(options: argparse.Namespace) -> int:
    """Print what there is: 0, or 2 or 78 where that can't be."""
    if options.watch is not None and (options.json or not sys.stdout.isatty()):
        return say("status", "--watch needs a terminal, and doesn't go with --json", USAGE)
    if options.watch is not None and not has_rich():
        return say("status", "--watch needs rich: pip install 'rich>=13'", USAGE)
    if options.watch is not None and os.environ.get("TERM") == "dumb":
        return say("status", "--watch needs a terminal that can do more than TERM=dumb says", USAGE)
    try:
        settings = settings_for(options)
        with tolerant_stdout():
            if options.json:
                _print_json(settings)
            elif options.watch is None:
                _print(settings, options.limit)
            else:
                _watch(settings, options.limit, options.watch)
    except SettingsError as error:
        return say("status", str(error), CONFIGURATION)
    except WorkspaceError as error:
        return say("status", one_line(str(error.strerror)), CONFIGURATION)
    return OK


def _number(value: str) -> int:
    if not (value.isascii() and value.isdecimal() and len(value) < 10):
        raise argparse.ArgumentTypeError(f"{value!r} is not a whole number")
    return int(value)


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0.1 <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{value!r} is not a number of seconds from 0.1 to 86400")
    return seconds


class _Totals:
    """Of all workspaces, shown or not."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.bytes = 0
        self.inodes = 0

    def counting(self, found: Iterator[Workspace]) -> Iterator[Workspace]:
        """The same workspaces; each is counted as it passes."""
        for workspace in found:
            self.kinds[workspace.kind] += 1
            self.bytes += workspace.bytes
            self.inodes += workspace.inodes
            yield workspace


def _print_json(settings: Settings) -> None:
    """One workspace a line, as it is found: there may be very many."""
    totals, before = _Totals(), '{"workspaces": ['
    for workspace in totals.counting(workspaces(settings)):
        print(before)
        print(json.dumps(asdict(workspace)), end="")
        before = ","
    if before != ",":
        print(before)
    rest = {
        "totals": {"count": totals.kinds.total(), "bytes": totals.bytes, "inodes": totals.inodes},
        "kinds": dict(totals.kinds),
        "trash": asdict(trash(settings)),
        "system_temp": [asdict(pile) for pile in leftovers(settings)],
        "space": asdict(space(settings)),
        "root": settings.root,
        "ttl": settings.ttl,
        "keep": settings.keep,
    }
    print(f"\n], {json.dumps(rest)[1:]}")


def _print(settings: Settings, limit: int) -> None:
    rows, lines = _shown(settings, limit)
    if not has_rich():
        print("\n".join([plain_table(_COLUMNS, rows), *lines] if rows else lines))
        return
    to = console()
    with to.capture() as captured:  # rich would end the process where `head` has ended
        for part in _rendered(to, rows, lines):
            to.print(part, soft_wrap=True)
    print(captured.get(), end="")


def _watch(settings: Settings, limit: int, seconds: float) -> None:
    from rich.console import Group
    from rich.live import Live

    to = console()

    def look() -> Group:
        most = max(1, to.height - _AROUND)
        return Group(*_rendered(to, *_shown(settings, min(limit, most) if limit else most)))

    try:
        with Live(look(), console=to, auto_refresh=False, redirect_stdout=False) as live:  # or bars lose its encoding
            while True:
                time.sleep(seconds)
                live.update(look(), refresh=True)
    except KeyboardInterrupt:
        return


def _rendered(to: Console, rows: list[list[str]], lines: list[str]) -> list[Table | Text]:
    """What rich prints: nothing in it is taken for markup. A terminal that is too narrow wraps whole lines."""
    from rich.text import Text

    table = rich_table(_COLUMNS, rows) if to.width >= _NARROWEST else Text(plain_table(_COLUMNS, rows))
    return [*([table] if rows else []), *map(Text, lines)]


def _shown(settings: Settings, limit: int) -> _Shown:
    """The rows of the largest workspaces, and the lines that say all else."""
    totals, now = _Totals(), time.time()
    found = totals.counting(workspaces(settings))
    by_size = attrgetter("bytes", "inodes", "path")
    largest = heapq.nlargest(limit, found, by_size) if limit else sorted(found, key=by_size, reverse=True)
    rows = [_row(workspace, largest[0].bytes, now) for workspace in largest]
    return rows, list(_lines(settings, totals, largest, now))


def _row(workspace: Workspace, most: int, now: float) -> list[str]:
    return [
        f"outside, {workspace.service}" if workspace.workflow is None else workspace.workflow,
        size(workspace.bytes) + ("+" if workspace.unread else ""),
        bar(workspace.bytes, most),
        f"{workspace.inodes:,}",
        age(now - workspace.newest) if workspace.inodes else "",
        _holders(workspace.leases),
        workspace.kept,
    ]


def _holders(leases: list[Lease]) -> str:
    """The first holder that counts, and how many there are beside it."""
    counting = [lease for lease in leases if lease.counts]
    if not counting:
        return ""
    first, more = counting[0], f" and {len(counting) - 1} more" if len(counting) > 1 else ""
    return f"{first.host} {first.pid} {first.task}{'' if first.alive else '?'}{more}"


def _lines(settings: Settings, totals: _Totals, shown: list[Workspace], now: float) -> Iterator[str]:
    number = totals.kinds.total()
    if number > len(shown):
        hidden = totals.bytes - sum(workspace.bytes for workspace in shown)
        yield f"and {number - len(shown):,} more, which take {size(hidden)}"
    young = f"used less than {age(settings.ttl)} ago"
    kinds = ", ".join(f"{many:,} {young if kind == YOUNG else kind}" for kind, many in totals.kinds.most_common())
    taken = f"{size(totals.bytes)} and {count(totals.inodes, 'inode')}"
    yield f"{count(number, 'workspace')}: {taken}; {kinds}" if number else "no workspaces"
    for pile, what in ((trash(settings), "in the trash"), *((pile, "left over") for pile in leftovers(settings))):
        taken = f"{size(pile.bytes)}, the oldest {age(now - (pile.oldest or now))} old"
        found = f"{count(pile.count, 'entry', 'entries')} {what}, {taken}" if pile.count else f"nothing {what}"
        yield f"{one_line(pile.path)}: {found}"
    there = space(settings)
    inodes = "" if there.free_inodes is None else f", {there.free_inodes:,} of {there.all_inodes:,} inodes"
    yield f"{one_line(settings.root)}: {size(there.free_bytes)} of {size(there.all_bytes)} free{inodes}"
    yield f"TMP_REDIRECT_KEEP={settings.keep}, TMP_REDIRECT_TTL={age(settings.ttl)}"
