"""The differences that are accepted, each with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("differences.txt")


@dataclass(frozen=True)
class Difference:
    """A test whose outcome may differ in the interpreters of the `versions` (as `3.12`)."""

    versions: tuple[str, ...]
    suite: str
    test: str
    reason: str


def read(file: Path = FILE) -> list[Difference]:
    """What the file lists, a line each: `3.12,3.13 suite test-id: reason`; raises `ValueError` naming a bad line."""
    found = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if line and not line.startswith("#"):
            head, _, reason = line.partition(": ")
            words = head.split(" ", 2)  # a parametrised test's name may have spaces
            if len(words) != 3 or not reason.strip():
                raise ValueError(f"{file}:{number}: not `versions suite test-id: reason`: {line}")
            found.append(Difference(tuple(words[0].split(",")), words[1], words[2], reason.strip()))
    return found


def stale(listed: Iterable[Difference], differing: Mapping[tuple[str, str], Iterable[str]]) -> list[str]:
    """What is listed and didn't differ, a line each; `differing` has the tests by the versions and suites that ran."""
    return [
        f"{version} {entry.suite} {entry.test}"
        for entry in listed
        for version in entry.versions
        if (version, entry.suite) in differing and entry.test not in differing[version, entry.suite]
    ]
