"""Suites that pytest runs, from the source distribution of a project: of Celery, and of a library that fakes files."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.suite import SuiteError

_BOTH = ("pytest==9.1.1", "wrapt==2.5.2")  # without the shim wrapt is there too: nothing else may differ


@dataclass(frozen=True)
class Sdist:
    """The tests in a source distribution, whose code they run; its wheel is installed for what it needs."""

    name: str
    version: str
    tests: tuple[str, ...]
    needs: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def prepare(self, work: Path, python: Path) -> Path:
        """See `Suite`."""
        pip = (str(work / "venv" / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet")
        release = f"{self.name}=={self.version}"
        _run(str(python), "-m", "venv", str(work / "venv"))
        _run(*pip, "install", "--only-binary", ":all:", release, *_BOTH, *self.needs)
        _run(*pip, "download", "--no-deps", "--no-binary", self.name, "--dest", str(work), release)
        with tarfile.open(work / f"{self.name}-{self.version}.tar.gz") as archive:
            archive.extractall(work, filter="data")
        return work / "venv" / "bin" / "python"

    def directory(self, work: Path) -> Path:
        """See `Suite`."""
        return work / f"{self.name}-{self.version}"

    def command(self, python: Path, report: Path, tests: Sequence[str] = ()) -> list[str]:
        """See `Suite`."""
        pytest = (str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}")
        return [*pytest, *self.options, *(tests or self.tests)]


SUITES = {
    "celery": Sdist(
        "celery",
        "5.7.0",
        tests=("t/unit",),
        needs=(
            "SQLAlchemy==2.0.58",
            "PyYAML==6.0.4",
            "boto3==1.44.8",
            "cryptography==50.0.2",
            "eventlet==0.41.3",
            "fakeredis[lua]==2.41.0",
            "freezegun==1.5.5",
            "gevent==26.9.0",
            "moto==5.2.5",
            "msgpack==1.2.4",
            "pydantic==2.14.4",
            "pymongo==4.18.3",
            "pytest-click==1.1.0",
            "pytest-order==1.5.0",
            "pytest-rerunfailures==16.7",
            "pytest-subtests==0.15.0",
            "pytest-timeout==2.4.0",
            "redis==8.1.0",
            "tblib==3.2.2",
        ),
        options=(
            *("-p", "celery.contrib.pytest"),  # it registers a marker; pytest-celery would, which needs Docker
            # Their client libraries are large, and the tests mock all of what they do.
            *("--ignore", "t/unit/backends/test_azureblockblob.py", "--ignore", "t/unit/backends/test_gcs.py"),
        ),
    ),
    "pyfakefs": Sdist("pyfakefs", "6.3.2", tests=("pyfakefs/tests", "pyfakefs/pytest_tests/pytest_plugin_test.py")),
}


def _run(*command: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise SuiteError(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stdout[-2000:]}")
