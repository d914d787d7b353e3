"""What lies about in system temp by age: what is old was left before the shim, what is new is put there past it."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

from ..lifecycle.status import is_left_over
from ..lifecycle.trees import READ, statuses
from ..settings import SYSTEM_TEMP, is_system_temp
from ..shown import age, count, size
from .case import Case
from .finding import Finding

SECONDS = 2.0  # for all directories
_CLASSES = (("under 1h", 3600), ("under 1d", 86400), ("under 7d", 7 * 86400), ("older", float("inf")))


class _Pile:
    def __init__(self) -> None:
        self.ages: Counter[str] = Counter()
        self.bytes = 0
        self.oldest = 0.0
        self.is_whole = True

    def add(self, seconds: float) -> None:
        """Count an entry of that age."""
        self.ages[next(name for name, limit in _CLASSES if seconds < limit)] += 1
        self.oldest = max(self.oldest, seconds)


def leftovers(case: Case) -> Iterator[Finding]:
    """For each directory, what has a name as Python and tools used with it give; not the root, if it is there."""
    deadline = time.monotonic() + SECONDS
    # Elsewhere it has no say, and may be on a file server that doesn't answer.
    root = os.path.realpath(case.settings.root) if is_system_temp(case.settings.root) else ""
    for directory in dict.fromkeys(map(os.path.realpath, SYSTEM_TEMP)):
        try:
            pile = _pile(directory, root, deadline)
        except FileNotFoundError:
            continue
        except OSError as error:
            yield Finding("leftovers", "note", f"{directory} can't be read: {error.strerror}")
            continue
        yield _finding(directory, pile)


def _pile(directory: str, root: str, deadline: float) -> _Pile:
    pile, now = _Pile(), time.time()
    descriptor = os.open(directory, READ)
    try:
        with os.scandir(descriptor) as entries:
            for entry in entries:
                if time.monotonic() > deadline:
                    pile.is_whole = False
                    break
                if is_left_over(directory, root, entry.name):
                    with suppress(OSError):  # it is gone
                        pile.add(max(0.0, now - entry.stat(follow_symlinks=False).st_mtime))
                        _measure(pile, descriptor, entry.name, deadline)
    finally:
        os.close(descriptor)
    return pile


def _measure(pile: _Pile, directory: int, name: str, deadline: float) -> None:
    for status in statuses(directory, name, []):
        pile.bytes += status.st_blocks * 512
        if time.monotonic() > deadline:
            pile.is_whole = False
            break


def _finding(directory: str, pile: _Pile) -> Finding:
    number = pile.ages.total()
    if not number and pile.is_whole:
        return Finding("leftovers", "ok", f"{directory}: none")
    ages = ", ".join(f"{pile.ages[name]:,} {name}" for name, _ in _CLASSES if pile.ages[name])
    at_least = "" if pile.is_whole else f"in the first {SECONDS:g} s "
    text = f"{directory}: {at_least}{count(number, 'entry', 'entries')}, {size(pile.bytes)}"
    text += f", the oldest {age(pile.oldest)} old; {ages}"
    advice = "tmp-redirect scan finds who makes new ones; once nobody uses them, remove the old: "
    return Finding("leftovers", "note", text, f"{advice}find {directory} -maxdepth 1 -name 'tmp*' -mtime +7")
