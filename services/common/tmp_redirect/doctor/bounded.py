"""Looks in a process of its own, for a limited time: a file server that doesn't answer holds up whoever asks it.

What that process had found by then counts; what it raises becomes a finding as well, so that nothing ends the doctor.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from .finding import Finding

SECONDS = 3.0


def bounded(subject: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """What `look` finds within `SECONDS`; the last finding, about `subject`, says that it failed or took longer.

    What `look` changes in this process is lost: it runs in a fork of it.
    """
    reading, writing = os.pipe()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C is for this process, which ends the other
    child = os.fork()
    if child == 0:
        _tell(subject, look, writing)
    os.close(writing)
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        told, ended = _hear(reading, time.monotonic() + SECONDS)
    finally:
        os.close(reading)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        _reap(child)
    for line in told.splitlines(keepends=True):
        if line.endswith(b"\n"):
            yield Finding(*json.loads(line))
    if not ended:
        advice = "see what it is mounted from, and whether that answers: a hung file server holds up whoever asks it"
        yield Finding(subject, "problem", f"no answer within {SECONDS:g} s", advice)


def _reap(child: int) -> None:
    """Not for ever: it may be in the hands of the kernel."""
    for _ in range(100):
        if os.waitpid(child, os.WNOHANG)[0]:
            return
        time.sleep(0.005)


def _tell(subject: str, look: Callable[[], Iterable[Finding]], writing: int) -> None:
    """Write what is found as lines of JSON, and end the process."""
    try:
        for finding in look():
            _write(writing, finding)
    except BaseException as error:  # noqa: BLE001 - this process may not go on as a second doctor
        with suppress(BaseException):
            text = f"it can't be looked at: {type(error).__name__}: {error}"
            _write(writing, Finding(subject, "problem", text, "correct that, or report it"))
    finally:
        os._exit(0)


def _write(writing: int, finding: Finding) -> None:
    line = json.dumps(finding).encode() + b"\n"
    while line:
        line = line[os.write(writing, line) :]


def _hear(reading: int, deadline: float) -> tuple[bytes, bool]:
    """What was told, and whether to the end."""
    told = b""
    while select.select([reading], [], [], max(0.0, deadline - time.monotonic()))[0]:
        more = os.read(reading, 1 << 16)
        if not more:
            return told, True
        told += more
    return told, False
