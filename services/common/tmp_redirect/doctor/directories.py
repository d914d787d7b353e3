"""What else says where temp files go: the variables that other programs read, and `tempfile.tempdir`."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ..settings import DIRECTORIES, is_system_temp
from .case import Case
from .finding import Finding


def variables(case: Case) -> Iterator[Finding]:
    """`TMPDIR` and the like. The shim does not obey what they are at the start, and gives children its own."""
    found = {name: case.environ[name] for name in DIRECTORIES if case.environ.get(name)}
    bad = [f"{name}={value}" for name, value in found.items() if is_system_temp(os.path.normpath(value))]
    if bad:
        text = f"{' '.join(bad)}: native code in this process goes there; Python and child processes don't"
        yield Finding("TMPDIR", "note", text, "remove it from the environment")
    elif found:
        text = " ".join(f"{name}={value}" for name, value in found.items())
        yield Finding("TMPDIR", "ok", f"{text}; the shim gives children its own")
    else:
        yield Finding("TMPDIR", "ok", "unset; the shim sets it for tasks and children")


def tempdir(case: Case) -> Iterator[Finding]:
    """Whether something has assigned it by the time a program begins."""
    facts = case.answer.facts
    if facts is None:
        return
    if facts.tempdir is None:
        yield Finding("tempfile", "ok", "tempfile.tempdir is not set by others")
        return
    text = f"tempfile.tempdir is {facts.tempdir!r} at the start already, set by a .pth file or a sitecustomize"
    if is_system_temp(os.path.abspath(facts.tempdir)):
        outcome = "refused" if case.settings.mode == "enforce" else "a violation"
        yield Finding(
            "tempfile", "problem", f"{text}: each temp file is {outcome}", "find it and remove the assignment"
        )
    else:
        yield Finding("tempfile", "note", f"{text}, and is obeyed in place of the workspace", "remove the assignment")
