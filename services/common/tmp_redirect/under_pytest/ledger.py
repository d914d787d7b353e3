"""Which attempts a report has carried, and which are left over."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from .attempts import Attempt, Watch

Report = pytest.TestReport | pytest.CollectReport
MOST = 20  # call sites that a text shows


class Ledger:
    """The attempts of a session. Under xdist each process has its own, and what reports carry is in the controller's.

    So a process that runs tests need not tell what belongs to none: it is in the journal, and no report carries it.
    """

    def __init__(self, watch: Watch) -> None:
        self.allowed: list[Attempt] = []
        self._watch = watch
        self._own: list[Attempt] = []
        self._of_others: dict[tuple[int, tuple[str, str]], Attempt] = {}
        self._carried: set[tuple[int, tuple[str, str]]] = set()
        self._of_collection: set[tuple[str, str]] = set()

    def begin(self) -> None:
        """A phase of a test, or a collection, begins: what was attempted before belongs to none."""
        self._own += self._watch.own()

    def end(self, test: str | None = None) -> list[Attempt]:
        """What this process has attempted since it began, and what children of `test` have."""
        found = self._watch.own()
        for attempt in self._watch.others():
            if test is not None and attempt.test == test:
                found.append(attempt)
            else:
                attempt.allowed = False  # if something is now, that is another test
                self._of_others[attempt.pid, attempt.site] = attempt
        return found

    def note(self, report: Report) -> None:
        """A report has come, from this process or another."""
        attempts = [Attempt(**plain) for plain in getattr(report, "system_tmp", ())]
        self._carried.update((attempt.pid, attempt.site) for attempt in attempts)
        if report.when == "collect" and report.failed:
            # All processes collect the same, and xdist passes on only one of the reports that say the same.
            self._of_collection.update(attempt.site for attempt in attempts)
        self.allowed += [attempt for attempt in attempts if attempt.allowed]

    def rest(self) -> list[Attempt]:
        """What no report has carried, each call site once; it counts as carried from now on."""
        rest = {attempt.site: attempt for attempt in self._own + self.end()}
        for key, attempt in self._of_others.items():
            if key not in self._carried and (attempt.test or attempt.site not in self._of_collection):
                rest.setdefault(attempt.site, attempt)
        self._own, self._of_others = [], {}
        return list(rest.values())


def attach(report: Report, attempts: Sequence[Attempt]) -> None:
    """Have `report` carry `attempts`, as plain values: under xdist it crosses from one process to another."""
    if attempts:
        report.__dict__["system_tmp"] = [attempt.plain() for attempt in attempts]


def text(attempts: Sequence[Attempt]) -> str:
    """Lines to read."""
    texts = [attempt.text() for attempt in attempts[:MOST]]
    more = len(attempts) - MOST
    return "\n\n".join(texts if more <= 0 else [*texts, f"... and {more} more"])
