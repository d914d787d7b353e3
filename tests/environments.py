"""Python environments of a test's own, and what is installed in them: the wheel that this checkout makes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.installation import PACKAGE, REPOSITORY


def build(directory: Path, *options: str, source: Path = REPOSITORY) -> list[Path]:
    """Build an sdist and a wheel, or what the options say, without a network; returns what is then in `directory`."""
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(directory), *options]
    subprocess.run(command, cwd=source, capture_output=True, check=True)
    return sorted(directory.iterdir())


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel."""
    [path] = build(tmp_path_factory.mktemp("wheel"), "-t", "wheel")
    return path


@pytest.fixture(scope="session")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is in the wheel, compiled as pip does it."""
    directory = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory)
    subprocess.run([sys.executable, "-m", "compileall", "-q", directory], check=True)
    return directory


@dataclass
class Environment:
    """An interpreter, and the directory in which packages are installed for it; `env` is what its processes get."""

    python: Path
    packages: Path
    env: dict[str, str] = field(default_factory=lambda: {"PATH": os.environ["PATH"]})
    launcher: tuple[str, ...] = ()
    caches: bool = False  # whether __pycache__ directories are written, as they are outside tests

    def run(self, *arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.launcher, self.python, *([] if self.caches else ["-B"]), *arguments],
            env=self.env | env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd="/",
        )

    def command(self, *arguments: str | Path, home: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        """Run the command line of the shim that is in `home`."""
        return self.run((home or self.packages) / PACKAGE, *arguments, **env)


def virtual_environment(directory: Path, python: str | Path, *options: str) -> Environment:
    """Without pip, which would take seconds."""
    subprocess.run([python, "-m", "venv", "--without-pip", *options, directory], check=True, cwd="/")
    [packages] = directory.glob("lib/python3*/site-packages")
    return Environment(directory / "bin" / "python", packages)


def whole_python(directory: Path, python: str) -> Environment:
    """A copy of an interpreter that is not in a virtual environment, with no packages; most of it are links."""
    code = "import os, sys, sysconfig; print(sys.executable, sys.base_prefix, os.path.dirname(os.__file__), sep='\\n')"
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    executable, prefix, library = map(Path, done.stdout.splitlines())
    ours = directory / library.relative_to(prefix)
    ours.mkdir(parents=True)
    for entry in library.iterdir():
        if entry.name not in ("site-packages", "sitecustomize.py", "__pycache__"):
            (ours / entry.name).symlink_to(entry)
    for entry in library.parent.glob("libpython*"):
        (ours.parent / entry.name).symlink_to(entry)
    copy = directory / "bin" / executable.resolve().name
    copy.parent.mkdir()
    shutil.copy(executable.resolve(), copy)
    asked = subprocess.run(
        [copy, "-I", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        env={}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    packages = Path(asked.stdout.strip())
    assert packages.is_relative_to(directory)
    packages.mkdir(parents=True)
    return Environment(copy, packages)


def put(package: Path, directory: Path) -> None:
    """What an installation does, but for scripts."""
    shutil.copytree(package, directory, dirs_exist_ok=True)


def listing(directory: Path) -> dict[str, bytes | None]:
    """All that is below it, with the content of files."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(directory.rglob("*"))}
