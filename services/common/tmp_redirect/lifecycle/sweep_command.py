"""`tmp-redirect sweep`: removes what nobody uses any more, and says what it has done and what it has left, and why."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING

from ..command_output import CONFIGURATION, FINDINGS, OK, USAGE, one_line, say, tolerant_stdout
from ..errors import SettingsError, WorkspaceError
from ..root_option import add_root, settings_for
from ..setting_values import duration
from ..settings import Settings
from ..shown import age, count, has_rich, size
from .remove_all import SweepOfAll, User, remove_all
from .sweep import Sweep, sweep

if TYPE_CHECKING:
    from rich.progress import Progress

LONG = 1.0  # seconds after which a sweep shows its progress
_MOST = 20  # paths of a kind that the text names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `run` needs to `parser`."""
    parser.add_argument(
        "--older-than", metavar="AGE", help="remove what was last used that long ago, as 24h (TMP_REDIRECT_TTL)"
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="remove all that the shim has made and nobody uses, of any age: for a rollback",
    )
    parser.add_argument(
        "--others-stopped",
        action="store_true",
        help="with --all: all that used the root on other hosts and in other containers was stopped, "
        "and what is queued will not be needed",
    )
    parser.add_argument("--dry-run", action="store_true", help="change nothing, say what would be removed")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    add_root(parser)


def run(options: argparse.Namespace) -> int:
    """Sweep, and print what was done: 0, or 1 if something could not be removed; 2, 78; 130 at Ctrl-C."""
    try:
        settings = settings_for(options)
        older_than = _older_than(options, settings)
    except SettingsError as error:
        return say("sweep", str(error), CONFIGURATION)
    except ValueError as error:
        return say("sweep", str(error), USAGE)
    done, is_interrupted = SweepOfAll() if options.all else Sweep(), False
    with _progress() as progress:
        try:
            if isinstance(done, SweepOfAll):
                others_stopped: bool = options.others_stopped
                remove_all(settings, done, others_stopped=others_stopped, dry_run=options.dry_run, progress=progress)
            else:
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
            if isinstance(done, SweepOfAll) and not is_interrupted:
                for line in _lines_of_removal(done, settings, options):
                    print(line)
    if is_interrupted:
        rest = "run this again for the rest" if options.all else "the next sweep does the rest"
        return say("sweep", f"interrupted; {rest}", 128 + signal.SIGINT)
    return FINDINGS if done.deferred or (isinstance(done, SweepOfAll) and done.users) else OK


def _older_than(options: argparse.Namespace, settings: Settings) -> int:
    """The age in seconds. Raises `ValueError`."""
    if options.all and options.older_than is not None:
        raise ValueError("--older-than doesn't go with --all, which removes what is of any age")
    if options.others_stopped and not options.all:
        raise ValueError("--others-stopped goes with --all only")
    try:
        return settings.ttl if options.older_than is None else duration(options.older_than)
    except ValueError as error:
        raise ValueError(f"--older-than={options.older_than!r} is not allowed: {error}") from None


def _as_object(done: Sweep, older_than: int, *, dry_run: bool, is_interrupted: bool) -> dict[str, object]:
    found: dict[str, object] = {
        "dry_run": dry_run,
        "interrupted": is_interrupted,
        "older_than": older_than,
        "removed": sorted(done.removed),
        "trash": sorted(done.trash),
        "kept": dict(done.kept),
        "deferred": _with_reasons(done.deferred),
        "bytes": done.bytes,
        "inodes": done.inodes,
        "sockets": done.sockets,
    }
    if isinstance(done, SweepOfAll):
        del found["older_than"]
        found |= {
            "own": sorted(done.own),
            "users": [asdict(user) for user in done.users],
            "strange": _with_reasons(done.strange),
        }
    return found


def _with_reasons(found: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"path": path, "reason": reason} for path, reason in sorted(found)]


def _lines(done: Sweep, older_than: int, *, dry_run: bool) -> Iterator[str]:
    if dry_run:
        own = done.own if isinstance(done, SweepOfAll) else []
        yield from map(one_line, sorted((*done.removed, *done.trash, *own)))
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
        following = "run" if isinstance(done, SweepOfAll) else "sweep"
        yield f"deferred to the next {following}, {count(len(done.deferred), 'path')}:"
        yield from _named(f"{path}: {why}" for path, why in sorted(done.deferred))
    if done.sockets:
        directories = count(done.sockets, "directory", "directories")
        yield f"{'would remove' if dry_run else 'removed'} {directories} for sockets of processes that had ended"


def _lines_of_removal(done: SweepOfAll, settings: Settings, options: argparse.Namespace) -> Iterator[str]:
    """What is left, who keeps it, and what to do next."""
    if done.strange:
        yield f"left alone, since the shim has not made it, {count(len(done.strange), 'path')}:"
        yield from _named(path for path, _ in sorted(done.strange))
    if done.users:
        yield "kept, with all that the shim has beside the workspaces, as it is used by"
        yield from _named(_user(user) for user in done.users)
        yield "what to do next: stop these, then run this again"
        if any(not user.alive for user in done.users) and not options.others_stopped:
            yield (
                "what has a ? is on another host or in another container, or has not ended, and counts until "
                f"TMP_REDIRECT_TTL={age(settings.ttl)} is over; if all of it was stopped for good, add --others-stopped"
            )
    elif done.deferred:
        yield "what to do next: see to what is deferred, then run this again"
    elif not options.dry_run:
        yield f"nothing that the shim has made is left in {one_line(settings.root)}"


def _user(user: User) -> str:
    if user.pid is None:
        return f"a task that has not ended, {user.task}?: {user.path}"
    return f"{user.host} {user.pid} {user.task}{'' if user.alive else '?'}: {user.path}"


def _named(found: Iterable[str]) -> Iterator[str]:
    """The first of them, and how many there are beside."""
    rest = iter(found)
    for text in islice(rest, _MOST):
        yield f"  {one_line(text)}"
    more = sum(1 for _ in rest)
    if more:
        yield f"  and {more:,} more"


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
