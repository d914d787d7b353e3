"""`tmp-redirect sweep`: removes what nobody uses any more, and says what it has done and what it has left, and why."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from ..errors import SettingsError, WorkspaceError
from ..scan.report import CONFIGURATION, FINDINGS, OK, USAGE, one_line, say, tolerant_stdout
from ..setting_values import duration
from .shown import add_root, age, count, has_rich, settings_for, size
from .sweep import Sweep, sweep

if TYPE_CHECKING:
    from rich.progress import Progress

LONG = 1.0  # seconds after which a sweep shows its progress
_MOST = 20  # deferred paths that the text names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `run` needs to `parser`."""
    parser.add_argument(
        "--older-than", metavar="AGE", help="remove what was last used that long ago, as 24h (TMP_REDIRECT_TTL)"
    )
    parser.add_argument("--dry-run", action="store_true", help="change nothing, say what would be removed")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    add_root(parser)


def run(options: argparse.Namespace) -> int:
    """Sweep, and print what was done: 0, or 1 if something could not be removed; 2, 78; 130 at Ctrl-C."""
    try:
        settings = settings_for(options)
    except SettingsError as error:
        return say("sweep", str(error), CONFIGURATION)
    try:
        older_than = settings.ttl if options.older_than is None else duration(options.older_than)
    except ValueError as error:
        return say("sweep", f"--older-than={options.older_than!r} is not allowed: {error}", USAGE)
    done, is_interrupted = Sweep(), False
    with _progress() as progress:
        try:
            sweep(settings, older_than, dry_run=options.dry_run, progress=progress, done=done)
        except WorkspaceError as error:
            return say("sweep", one_line(str(error.strerror)), CONFIGURATION)
        except KeyboardInterrupt:
            is_interrupted = True
    with tolerant_stdout():
        if options.json:
            print(json.dumps(_as_object(done, older_than, dry_run=options.dry_run, is_interrupted=is_interrupted)))
        else:
            print("\n".join(_lines(done, older_than, dry_run=options.dry_run)))
    if is_interrupted:
        return say("sweep", "interrupted; the next sweep does the rest", 128 + signal.SIGINT)
    return FINDINGS if done.deferred else OK


def _as_object(done: Sweep, older_than: int, *, dry_run: bool, is_interrupted: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "interrupted": is_interrupted,
        "older_than": older_than,
        "removed": sorted(done.removed),
        "trash": sorted(done.trash),
        "kept": dict(done.kept),
        "deferred": [{"path": path, "reason": reason} for path, reason in sorted(done.deferred)],
        "bytes": done.bytes,
        "inodes": done.inodes,
        "sockets": done.sockets,
    }


def _lines(done: Sweep, older_than: int, *, dry_run: bool) -> Iterator[str]:
    if dry_run:
        yield from map(one_line, sorted((*done.removed, *done.trash)))
    trash = f" and {count(len(done.trash), 'tree')} in the trash" if done.trash else ""
    yield (
        f"{'would remove' if dry_run else 'removed'} {count(len(done.removed), 'workspace')}{trash}: "
        f"{size(done.bytes)} and {count(done.inodes, 'inode')}{'' if dry_run else ' freed'}"
    )
    if done.kept:
        young = f"used less than {age(older_than)} ago"
        reasons = (f"{number:,} {young if why == 'young' else why}" for why, number in done.kept.most_common())
        yield f"kept {count(done.kept.total(), 'workspace')}: {', '.join(map(one_line, reasons))}"
    if done.deferred:
        yield f"deferred to the next sweep, {count(len(done.deferred), 'path')}:"
        for path, why in sorted(done.deferred)[:_MOST]:
            yield f"  {one_line(path)}: {one_line(why)}"
        if len(done.deferred) > _MOST:
            yield f"  and {len(done.deferred) - _MOST:,} more"
    if done.sockets:
        directories = count(done.sockets, "directory", "directories")
        yield f"removed {directories} for sockets of processes that had ended"


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """To be called with the number of places that are done, and of all: a bar on a terminal, if this takes long."""
    long_since = time.monotonic() + LONG if sys.stderr.isatty() and has_rich() else float("inf")
    bar: Progress | None = None
    with ExitStack() as stack:

        def update(number: int, whole: int) -> None:
            nonlocal bar
            if bar is None and time.monotonic() > long_since:
                bar = stack.enter_context(_bar())
                bar.add_task("")
            if bar is not None:
                bar.update(bar.task_ids[0], completed=number, total=whole)

        yield update


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("sweeping"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
