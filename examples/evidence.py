"""What the demo's two passes left as evidence, and what is wrong with it."""

from __future__ import annotations

import collections
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SYSTEM_TEMP = tuple(dict.fromkeys(Path(os.path.realpath(path)) for path in ("/tmp", "/var/tmp", "/usr/tmp")))
OUTSIDE = "-"  # stands in the logs for the workflow of a file that was made while none was active
LOGGED = re.compile(r"temp file of (\w+)(?: \(child\))? for (\S+): (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class TempFile:
    """A temp file that a call site said it makes."""

    site: str
    workflow: str
    path: Path

    @property
    def maker(self) -> str:
        """Who made it, in words."""
        return self.site if self.workflow == OUTSIDE else f"{self.site} of {self.workflow}"


@dataclass
class Pass:
    """One run of the workflows: what the call sites logged and what the file system watcher saw."""

    name: str
    work: Path  # everything below belongs to the demo, and isn't system temp even where it's in there
    root: Path  # the workflows' directories
    instance: str  # the mark in the names of this pass's temp files
    outside: str  # the service whose files are made while no workflow is active
    files: list[TempFile] = field(default_factory=list)
    created: list[Path] = field(default_factory=list)
    left_behind: list[Path] = field(default_factory=list)
    scratch: set[Path] = field(default_factory=set)  # Celery's own temp directory, which a worker that's killed leaves
    summary: dict[str, Any] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    @property
    def marked(self) -> list[Path]:
        """What the watcher saw of this pass's temp files, told by the random mark in their names."""
        return [path for path in self.created if f".{self.instance}." in path.name]

    def in_system_temp(self, paths: Iterable[Path]) -> list[Path]:
        """Select the paths that are in system temp."""
        return [path for path in paths if self.work not in path.parents and any(t in path.parents for t in SYSTEM_TEMP)]

    def files_of(self, site: str, workflow: str) -> list[TempFile]:
        """List the temp files that a call site said it made for a workflow."""
        return [file for file in self.files if (file.site, file.workflow) == (site, workflow)]

    def file_at(self, path: Path) -> TempFile | None:
        """Find the logged file that the path is, or was made for: the S3 client writes `<path>.<etag>.part.minio`."""
        return next((file for file in self.files if path == file.path or str(path).startswith(f"{file.path}.")), None)

    def home(self, file: TempFile) -> Path:
        """Return the only directory below which the file may be with the redirection on."""
        if file.workflow == OUTSIDE:
            return self.root / ".outside" / self.outside / "tmp"
        return self.root / file.workflow / "tmp"

    def is_home(self, file: TempFile) -> bool:
        """Whether the file was made below its own workspace."""
        return self.home(file) in file.path.parents


def logged_files(logs: Iterable[Path]) -> list[TempFile]:
    """Read the call sites' own words from the logs."""
    return [
        TempFile(site, workflow, Path(os.path.realpath(os.path.dirname(path)), os.path.basename(path)))
        for log in logs
        if log.exists()
        for site, workflow, path in LOGGED.findall(log.read_text(errors="replace"))
    ]


def judge(before: Pass, after: Pass, expected: dict[tuple[str, str], int]) -> list[str]:
    """Return every reason not to believe that each temp file went to its own workspace; `expected` counts the files."""
    return [
        *_contradictions(before, expected),
        *_not_in_system_temp(before),
        *judge_redirected(after, expected),
        *_different_results(before, after),
    ]


def judge_redirected(run: Pass, expected: dict[tuple[str, str], int]) -> list[str]:
    """Return the reasons that a pass with the redirection on gives by itself."""
    return [*_contradictions(run, expected), *_misplaced(run)]


def _contradictions(run: Pass, expected: dict[tuple[str, str], int]) -> Iterator[str]:
    """Check that the call sites and the watcher tell the same, and all of it."""
    yield from (f"{run.name}: {error}" for error in run.errors)
    for (site, workflow), count in expected.items():
        logged = len(run.files_of(site, workflow))
        if logged != count and not run.errors:  # a pass that broke off is short of files anyway
            maker = TempFile(site, workflow, run.root).maker
            yield f"{run.name}: {maker} logged {logged} temp files instead of {count}"
    for site, workflow in dict.fromkeys((file.site, file.workflow) for file in run.files):
        if (site, workflow) not in expected:
            yield f"{run.name}: {TempFile(site, workflow, run.root).maker} is none of the expected call sites"
    seen = set(run.created)
    for file in run.files:
        if file.path not in seen:
            yield f"{run.name}: {file.maker} logged {file.path}, which the watcher did not see"
    for path in run.marked:
        if run.file_at(path) is None:
            yield f"{run.name}: {path} was created, and no call site logged it"


def _not_in_system_temp(before: Pass) -> Iterator[str]:
    """Check that without the redirection all files are in system temp, or there's nothing to compare with."""
    strays = [file for file in before.files if not before.in_system_temp([file.path])]
    yield from (f"{before.name}: {file.maker} made {file.path}, not in system temp" for file in strays)


def _misplaced(after: Pass) -> Iterator[str]:
    wrong = collections.Counter(
        (file.maker, path.parent, after.home(file))
        for path in after.marked
        if (file := after.file_at(path)) and after.home(file) not in path.parents
    )
    for (maker, directory, home), count in wrong.items():
        yield f"{after.name}: {maker} went to {directory} instead of {home} (seen: {count})"


def _different_results(before: Pass, after: Pass) -> Iterator[str]:
    if before.summary != after.summary and not after.errors:
        yield f"{after.name}: the workflows' results differ: {after.summary} after {before.summary}"
