"""A fresh interpreter, with the environment and the flags of this one: what it tells is what a service gets.

The doctor's own process tells less: it may have been started in another way, and goes on where the shim can't start.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from .inside import MARK

SECONDS = 10.0
_NOT_RUN = 126  # as shells have it
_CODE = Path(__file__).with_name("inside.py")


class Facts(NamedTuple):
    """See inside.py."""

    path: list[str]
    package: str | None
    version: str | None
    active: bool
    loaded_by: str | None
    sitecustomize: str | None
    tempdir: str | None


class Answer(NamedTuple):
    """What came of the interpreter.

    `status` is that of its end, `None` if it did not end in time. `facts` are `None` where it told none. `said` is what
    the shim said on stderr, and `has_failed` whether Python reported the failure of a sitecustomize there.
    """

    status: int | None
    facts: Facts | None
    said: str
    has_failed: bool


def ask(environ: dict[str, str]) -> Answer:
    """Start one with this environment, and the flags of this interpreter."""
    command = [sys.executable, *_flags(), "-c", _CODE.read_text(encoding="utf-8")]
    # Not pipes: what a foreign sitecustomize has started may hold them open.
    output, errors = os.memfd_create("stdout"), os.memfd_create("stderr")
    status = None
    try:
        child = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=errors)
        with suppress(subprocess.TimeoutExpired):
            try:
                status = child.wait(SECONDS)
            finally:
                child.kill()
                child.wait(1)
        stdout, stderr = _text(output), _text(errors)
    except OSError:
        return Answer(_NOT_RUN, None, "", False)
    finally:
        os.close(output)
        os.close(errors)
    told = [line for line in stdout.splitlines() if line.startswith(MARK)]
    said = [line for line in stderr.splitlines() if line.startswith("tmp_redirect: ")]
    return Answer(
        status,
        Facts(**json.loads(told[-1][len(MARK) :])) if told else None,
        said[0][len("tmp_redirect: ") :] if said else "",
        "Error in sitecustomize" in stderr,
    )


def bypassing() -> list[str]:
    """The flags of this interpreter that keep `PYTHONPATH` or `site` from being looked at."""
    flags = sys.flags
    ignored = ["-I"] if flags.isolated else ["-E"] if flags.ignore_environment else []
    return [*ignored, *(["-S"] if flags.no_site else [])]


def _flags() -> list[str]:
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return flags


def _text(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, min(size, 1 << 20), 0).decode(errors="replace")
