"""The two sides of every comparison: the same interpreter with the shim and without it, and nothing else different."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SYSTEM_TEMP = ("/tmp", "/var/tmp", "/usr/tmp")
WORKFLOW = "benchmark"
_SHIM = ("sitecustomize.py", "services/common/tmp_redirect")


class PlaceError(ValueError):
    """A directory that can't be measured in."""


@dataclass(frozen=True)
class Sides:
    """The environments of processes; `workspace` is an existing directory that both sides put temp files into."""

    directory: Path
    workspace: Path

    @property
    def absent(self) -> dict[str, str]:
        """Of a process that knows nothing of the shim."""
        return {"PATH": os.environ.get("PATH", os.defpath)}

    @property
    def off(self) -> dict[str, str]:
        """Of a process with the shim, switched off."""
        return {**self.absent, "PYTHONPATH": str(self.directory / "shim"), "TMP_REDIRECT": "off"}

    @property
    def on(self) -> dict[str, str]:
        """Of a process with the shim, outside any workflow."""
        return {**self.off, "TMP_REDIRECT": "enforce", "TMP_REDIRECT_ROOT": str(self.directory / "root")}

    @property
    def in_workflow(self) -> dict[str, str]:
        """Of a child of a task, as the shim passes it on."""
        names = ("TMPDIR", "TMP", "TEMP", "TEMPDIR")
        return {**self.on, "TMP_REDIRECT_SCOPE": WORKFLOW, **dict.fromkeys(names, str(self.workspace))}

    @property
    def same_place(self) -> dict[str, str]:
        """Of a process without the shim whose temp files go to the same directory."""
        return {**self.absent, "TMPDIR": str(self.workspace)}


@contextlib.contextmanager
def sides(shim: Path, parent: Path) -> Iterator[Sides]:
    """Copy the shim and make a root in a new directory below `parent`, which is removed at the end.

    A copy, because nobody edits it during the run, it's writable for `.pyc` files, and `PYTHONPATH` leads to the shim
    alone, as in an image. Raises `PlaceError` where `shim` has none, and where `parent` is in system temp: there every
    path would take the guard's long way.
    """
    for name in _SHIM:
        if not (shim / name).exists():
            raise PlaceError(f"{shim} has no {name}")
    parent = parent.resolve()
    if any(parent.is_relative_to(Path(directory).resolve()) for directory in SYSTEM_TEMP):
        raise PlaceError(f"{parent} is in system temp, where the shim has more to check; name another with --root")
    try:
        directory = Path(tempfile.mkdtemp(prefix="tmp-redirect-benchmark-", dir=parent))
    except OSError as error:
        raise PlaceError(f"{parent}: {error.strerror}; name another directory with --root") from error
    try:
        for name in _SHIM:
            source, copy = shim / name, directory / "shim" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy)
        workspace = directory / "root" / WORKFLOW / "tmp"
        workspace.mkdir(parents=True)
        yield Sides(directory, workspace)
    finally:
        shutil.rmtree(directory)
