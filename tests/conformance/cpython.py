"""CPython's own suites, as `python -m test` runs them.

On 3.13.0 test_concurrent_futures often hangs, without the shim too: a feeder thread and the one that joins it wait for
each other (CPython's gh-125451, mended in 3.13.1). Then only that suite is to be run again.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.suite import SuiteError

NAMES = tuple(
    "test_tempfile test_subprocess test_os test_shutil test_zipfile test_tarfile test_pathlib test_import test_site "
    "test_audit test_pickle test_copy test_threading test_multiprocessing_main_handling test_multiprocessing_fork "
    "test_multiprocessing_spawn test_multiprocessing_forkserver test_concurrent_futures test_asyncio".split()
)
LIMIT = 1800
"""Seconds that one file of a suite may take."""

NOT_THERE = "not in this interpreter"

_MULTIPROCESSING = "test_multiprocessing_"
_IN_PLACE_OF = "test_started_by_"  # regrtest looks for a name that it knows in the package only
_BADLY = re.compile(r"^(FAIL|ERROR): (\w+) \(([\w.]+)\)", re.MULTILINE)
_CRASHED = re.compile(r"^test (\S+) crashed", re.MULTILINE)


@dataclass(frozen=True)
class Cpython:
    """A suite of the package `test` of an interpreter, whose directory is `package`."""

    name: str
    package: Path

    def prepare(self, work: Path, python: Path) -> Path:
        """See `Suite`. Some releases were installed without the files that start the suites of multiprocessing."""
        if not self._is_there():
            method = self.name.removeprefix(_MULTIPROCESSING)
            if method == self.name:
                raise SuiteError(NOT_THERE)
            (work / f"{_IN_PLACE_OF}{method}.py").write_text(
                "from test._test_multiprocessing import install_tests_in_module_dict\n"
                f"install_tests_in_module_dict(globals(), {method!r})\n",
                encoding="ascii",
            )
        return python

    def directory(self, work: Path) -> Path:
        """See `Suite`."""
        return work

    def command(self, python: Path, report: Path, tests: Sequence[str] = ()) -> list[str]:
        """See `Suite`."""
        what = (
            [self.name] if self._is_there() else ["--testdir", ".", self.name.replace(_MULTIPROCESSING, _IN_PLACE_OF)]
        )
        selected = [argument for test in tests for argument in ("--match", test)]
        # Verbose: it is the log alone that says which test a failed subtest is of.
        return [
            *(str(python), "-m", "test", "--verbose", "--use", "cpu", "--timeout", str(LIMIT)),
            *("--junit-xml", str(report), *selected, *what),
        ]

    def _is_there(self) -> bool:
        return (self.package / self.name).is_dir() or (self.package / f"{self.name}.py").exists()


def package(python: Path) -> Path | None:
    """The directory of the interpreter's package `test`, where that has the suites in it."""
    command = [str(python), "-c", "import test; print(test.__path__[0])"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    directory = Path(found.stdout.rstrip("\n"))
    return directory if found.returncode == 0 and (directory / "test_tempfile.py").exists() else None


def from_log(log: str) -> list[tuple[str, str]]:
    """What a log of regrtest says of tests, and files, that its report is silent about: ids and outcomes."""
    badly = [
        (where if where.endswith(f".{name}") else f"{where}.{name}", "failed" if what == "FAIL" else "error")
        for what, name, where in _BADLY.findall(log)
    ]
    return badly + [(name, "error") for name in _CRASHED.findall(log)]
