"""What became of each test, read from JUnit's XML, and where two runs differ."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

PASSED, SKIPPED, FAILED, ERROR = OUTCOMES = ("passed", "skipped", "failed", "error")
ABSENT = "absent"
_ELEMENTS = {"skipped": SKIPPED, "failure": FAILED, "error": ERROR, "outcome": FAILED}  # the last: unexpected success


def read(report: Path) -> dict[str, str]:
    """The outcome of each test by its id, the worst of several; no test where there is no report, or a broken one.

    An id is as unittest's: module, classes and name with dots between them.
    """
    try:
        root = ET.parse(report).getroot()
    except (FileNotFoundError, ET.ParseError):
        return {}
    outcomes: dict[str, str] = {}
    for case in root.iter("testcase"):
        if "name" in case.attrib:  # regrtest's element of a test with a failed subtest has none
            name = ".".join(filter(None, (case.get("classname"), case.get("name"))))
            add(outcomes, name, max((_ELEMENTS.get(part.tag, PASSED) for part in case), default=PASSED, key=_badness))
    return outcomes


def add(outcomes: dict[str, str], test: str, outcome: str) -> None:
    """Note the outcome of a test, unless a worse one is known."""
    outcomes[test] = max(outcomes.get(test, outcome), outcome, key=_badness)


def differing(without: Mapping[str, str], with_shim: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """The tests whose outcome isn't the same, with the outcomes; `ABSENT` of a test that wasn't run."""
    pairs = {test: (without.get(test, ABSENT), with_shim.get(test, ABSENT)) for test in sorted({*without, *with_shim})}
    return {test: pair for test, pair in pairs.items() if pair[0] != pair[1]}


def node_id(directory: Path, test: str) -> str:
    """What pytest calls the test with this id, in a suite whose top is `directory`."""
    name, bracket, parameters = test.partition("[")
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        file = Path(*parts[:end]).with_suffix(".py")
        if (directory / file).exists():
            return "::".join((str(file), *parts[end:])) + bracket + parameters
    return test


def _badness(outcome: str) -> int:
    return OUTCOMES.index(outcome)
