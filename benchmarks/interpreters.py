"""Which interpreters there are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

VERSIONS = ("3.10", "3.11", "3.12", "3.13")
_WHO = "import os, sys; print('%d.%d.%d' % sys.version_info[:3], os.path.realpath(sys.executable), sep='\\t')"


def this() -> Path:
    """The executable that this process runs, without its virtual environment."""
    return Path(sys.executable).resolve()


def everywhere() -> list[Path]:
    """The executables of the supported versions in pyenv and on `PATH`, each once."""
    return list(dict.fromkeys(real for candidate in _candidates() if (real := identify(candidate)[1]) is not None))


def identify(python: Path) -> tuple[str, Path | None]:
    """The version and the real path of an executable; no path if it isn't a Python that runs."""
    try:
        done = subprocess.run([python, "-c", _WHO], capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error), None
    if done.returncode:
        return done.stderr.strip(), None
    version, path = done.stdout.rstrip("\n").split("\t")
    return version, Path(path)


def _candidates() -> Iterator[Path]:
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in VERSIONS:
        yield from sorted(pyenv.glob(f"{version}.*/bin/python"))
        for directory in os.get_exec_path():
            found = shutil.which(f"python{version}", path=directory)
            if found and not Path(found).is_relative_to(pyenv.parent / "shims"):
                yield Path(found)
