"""`tmp-redirect doctor`: whether the shim can do its work here, with these settings, and what to do where it can't."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from typing import NamedTuple

from .errors import SettingsError, WorkspaceError
from .kernel import availability, is_restricted
from .settings import Settings
from .startup import is_active
from .workspace import check_root

_STATUS = {"ok": 0, "note": 0, "problem": 1, "stops": 78}


class Finding(NamedTuple):
    """What was looked at and found; `weight` is `ok`, `note`, `problem`, or `stops` for what ends a process with 78."""

    subject: str
    weight: str
    text: str

    def __str__(self) -> str:
        return f"{self.weight:7}  {self.subject}: {self.text}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `run` needs to `parser`."""
    parser.add_argument("--json", action="store_true", help="print an array of objects")


def run(options: argparse.Namespace) -> int:
    """Print what was found: 0 if all is well, 1 for a problem, 78 for one that would end a process with the shim."""
    found = list(findings(dict(os.environ)))
    print(
        json.dumps([finding._asdict() for finding in found], indent=2) if options.json else "\n".join(map(str, found))
    )
    return max(_STATUS[finding.weight] for finding in found)


def findings(environ: dict[str, str]) -> Iterator[Finding]:
    """Look at everything that an environment asks of the shim."""
    try:
        settings = Settings(environ)
    except SettingsError as error:
        yield Finding("settings", "stops", str(error))
        return
    yield Finding("settings", "ok", f"mode {settings.mode}, guard {','.join(settings.guard)}, root {settings.root}")
    yield _shim(settings)
    yield _root(settings)
    yield _kernel(settings)


def _shim(settings: Settings) -> Finding:
    if settings.mode == "off":
        return Finding("shim", "note", "it is off; TMP_REDIRECT=warn or enforce switches it on")
    if is_active():
        return Finding("shim", "ok", f"at work in {sys.executable}")
    return Finding(
        "shim",
        "problem",
        f"not at work in {sys.executable}, though TMP_REDIRECT={settings.mode}: its sitecustomize.py was not loaded; "
        "put the directory that holds it first on PYTHONPATH, and start Python without -I, -E and -S",
    )


def _root(settings: Settings) -> Finding:
    try:
        check_root(settings)
    except WorkspaceError as error:
        return Finding("root", "note" if settings.mode == "off" else "stops", str(error.strerror))
    return Finding("root", "ok", f"{settings.root} can be written")


def _kernel(settings: Settings) -> Finding:
    abi, reason = availability()
    if "kernel" not in settings.guard:
        return Finding("kernel", "note", "not asked for; " + ("it could be" if reason is None else reason))
    if settings.mode != "enforce":
        return Finding("kernel", "note", f"asked for, but it does nothing in the mode {settings.mode}")
    if reason is not None:
        return Finding("kernel", "stops", reason)
    return Finding("kernel", "ok", f"Landlock ABI {abi}; this process is {'' if is_restricted() else 'not '}restricted")
