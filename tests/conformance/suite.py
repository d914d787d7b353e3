"""What a suite is: something that an interpreter can run, and that says in JUnit's XML what became of each test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol


class Suite(Protocol):
    """A suite that is run twice, with the shim and without; the caller gives each run its environment."""

    def prepare(self, work: Path, python: Path) -> Path:
        """Fetch what the suite needs into `work`, an empty directory; the interpreter that is to run it.

        `python` is the interpreter that is asked about; what is returned is usually that of a virtual environment made
        with it. Nothing may be installed as editable: both runs use it at the same time. Raises `SuiteError`.
        """

    def directory(self, work: Path) -> Path:
        """The directory below `work` to run in. Each run gets a copy of it."""

    def command(self, python: Path, report: Path, tests: Sequence[str] = ()) -> list[str]:
        """The command that runs the suite and writes `report`; only `tests` if there are any.

        `python` is what `prepare` returned. The elements of `tests` are what the suite itself takes: test ids of
        unittest for CPython's, node ids relative to `directory` for pytest's.
        """


class SuiteError(Exception):
    """A suite that can't be run; the text says what to do."""
