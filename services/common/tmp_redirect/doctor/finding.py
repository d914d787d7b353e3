"""What the doctor says, and how much it weighs."""

from __future__ import annotations

from typing import NamedTuple

WEIGHTS = ("ok", "note", "problem", "stops")
STATUS = {"ok": 0, "note": 0, "problem": 1, "stops": 78}
# What findings are about, in the order in which they are looked at; docs/doctor.md explains each.
SUBJECTS = (
    *("settings", "mode", "guard", "kernel"),
    *("python", "shim", "sitecustomize", "flags", "PYTHONPATH", "package", "bytecode", "wrapt", "celery"),
    *("TMPDIR", "tempfile", "service"),
    *("root", "file system", "space", "operations", "clock", "paths", "user", "sockets", "leftovers"),
)


class Finding(NamedTuple):
    """What was looked at and found, and what to do about it.

    `weight` is `ok`; `note`, which is good to know; `problem`; or `stops` for what ends a process with status 78.
    """

    subject: str
    weight: str
    text: str
    advice: str = ""


def from_message(subject: str, weight: str, message: str) -> Finding:
    """A finding from a message of the shim's own, in which what to do follows the first semicolon."""
    text, _, advice = message.partition("; ")
    return Finding(subject, weight, text, advice)
