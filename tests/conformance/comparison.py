"""What a suite's two runs come to: tests whose outcome differs steadily, and those that can't make up their mind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.conformance import junit
from tests.conformance.both import Both, Run

AGAIN = 3


@dataclass
class Comparison:
    """Of one suite on one interpreter: the outcomes of the first two runs, and what differs."""

    without: Mapping[str, str]
    with_shim: Mapping[str, str]
    differing: dict[str, tuple[str, str]] = field(default_factory=dict)
    unsteady: dict[str, str] = field(default_factory=dict)
    """Tests that differed, but not steadily, with how often each outcome came without the shim and with it."""
    left: tuple[Sequence[str], Sequence[str]] = ((), ())

    def details(self) -> Iterator[str]:
        """Lines that say what differs, what is unsteady, and what was left in system temp."""
        for test, (without, with_shim) in self.differing.items():
            yield f"  {test}: {without} without the shim, {with_shim} with it"
        for test, counts in self.unsteady.items():
            yield f"  unsteady: {test}: {counts}"
        for side, left in zip(("without", "with"), self.left, strict=True):
            if left:
                yield f"  left in system temp {side} the shim: {' '.join(left)}"


def compare(both: Both, logs: Path) -> Comparison:
    """Run a suite on both sides, and each test that differs three times more, on its own.

    Where it doesn't differ then each time, the whole suite runs again: some depend on what ran before. Logs of suites
    with differences are put into the directory `logs`. Raises `SuiteError`.
    """
    runs = both.run()
    outcomes = [dict(run.outcomes) for run in runs]
    found = Comparison(outcomes[0], outcomes[1], left=(runs[0].left, runs[1].left))
    first = junit.differing(*outcomes)
    if first:
        _keep(logs, runs)
    alone = {test: [_pair(both.run(test), test) for _ in range(AGAIN)] for test in first}
    unsure = {test for test, pairs in alone.items() if any(one == other for one, other in pairs)}
    again = both.run() if unsure else None
    for test, pair in first.items():
        if test not in unsure:
            found.differing[test] = pair
        elif again is not None and _pair(again, test) == pair:
            found.differing[test] = pair
        else:
            pairs = [pair, *alone[test], *([_pair(again, test)] if again else [])]
            found.unsteady[test] = " / ".join(_counts(side) for side in zip(*pairs, strict=True))
    return found


def _pair(runs: Iterable[Run], test: str) -> tuple[str, str]:
    without, with_shim = (run.outcomes.get(test, junit.ABSENT) for run in runs)
    return without, with_shim


def _counts(outcomes: Iterable[str]) -> str:
    return ", ".join(f"{outcome} {count}" for outcome, count in sorted(Counter(outcomes).items()))


def _keep(logs: Path, runs: Iterable[Run]) -> None:
    logs.mkdir(parents=True, exist_ok=True)
    for side, run in zip(("without", "with"), runs, strict=True):
        (logs / f"{side}.log").write_text(run.log, encoding="utf-8", errors="replace")
