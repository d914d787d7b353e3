"""Whether the runs are as they should be, and the table of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conformance import cpython, differences, junit
from tests.conformance.comparison import Comparison
from tests.conformance.suite import SuiteError

HEADINGS = ("python", "suite", "tests", "passed", "skipped", "failed without", "unsteady", "differing", "listed")


@dataclass(frozen=True)
class Job:
    """A suite on an interpreter; `version` is as `3.12.1`."""

    version: str
    python: Path
    name: str

    @property
    def key(self) -> tuple[str, str]:
        """What differences.txt knows it by."""
        return self.version.rpartition(".")[0], self.name


def judged(
    found: Mapping[Job, Comparison | SuiteError], listed: Sequence[differences.Difference]
) -> tuple[str, list[str]]:
    """The table, in Markdown, and what is wrong, a line each."""
    known = {(version, entry.suite, entry.test) for entry in listed for version in entry.versions}
    rows, complaints = [], []
    for job, result in found.items():
        if isinstance(result, SuiteError):
            reason = str(result).splitlines()[0]
            rows.append((job.version, job.name, reason, *[""] * (len(HEADINGS) - 3)))
            if reason != cpython.NOT_THERE:
                complaints.append(f"ERROR {job.version} {job.name}: {result}")
            continue
        new = [test for test in result.differing if (*job.key, test) not in known]
        complaints += [f"DIFFERS {job.version} {job.name} {test}" for test in new]
        outcomes = list(result.with_shim.values())
        bad = sum(outcome in (junit.FAILED, junit.ERROR) for outcome in result.without.values())
        numbers = (len(outcomes), outcomes.count(junit.PASSED), outcomes.count(junit.SKIPPED), bad)
        differing = (len(result.unsteady), len(result.differing), len(result.differing) - len(new))
        rows.append((job.version, job.name, *map(str, (*numbers, *differing))))
    differing_tests = {job.key: result.differing for job, result in found.items() if isinstance(result, Comparison)}
    complaints += [
        f"STALE {line}: listed, but it doesn't differ" for line in differences.stale(listed, differing_tests)
    ]
    return "\n".join(_markdown([HEADINGS, *rows])), complaints


def _markdown(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * width for width in widths]
    for row in (rows[0], rule, *rows[1:]):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield f"| {' | '.join(cells)} |"


def document(table: str, listed: Sequence[differences.Difference]) -> str:
    accepted = "".join(f"- `{entry.test}` ({', '.join(entry.versions)}): {entry.reason}\n" for entry in listed)
    return f"""# The suites of others

What `make conformance` found: each suite is run twice at the same time, without the shim and with it in `enforce`,
inside a workflow whose root isn't in system temp, and each test's outcome is compared. Passed and skipped are with the
shim. A test that differs is run three times more, on its own; it is unsteady where it doesn't differ every time.

{table}

Differences that are accepted:

{accepted or "none" + chr(10)}"""
