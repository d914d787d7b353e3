"""Attempts to create something in system temp: those of this process, with their stacks, and those of others."""

from __future__ import annotations

import os
import traceback
from dataclasses import asdict, dataclass, field
from types import FrameType
from typing import Any

import pluggy
from _pytest.assertion import rewrite

from ..guard import journal_path, listen
from ..guard.violations import Violation
from .journal import JournalReader
from .tolerance import Tolerance

_PYTEST, _PLUGGY = (os.path.dirname(os.path.abspath(module.__file__ or "")) for module in (rewrite, pluggy))
_INTERNAL = (os.path.dirname(_PYTEST) + os.sep, _PLUGGY + os.sep)
# What pytest compiles goes beside the module, and into system temp with modules that are there; it does without, too.
_CACHES = f"{rewrite.__file__}:"
_FIELDS = ("call", "path", "where", "function", "workflow", "pid")
_FRAMES = 12  # that a stack shows; the outermost say least


@dataclass
class Attempt:
    """What a call site has attempted.

    `test` is the id of the test that ran, as the environment said; else empty. `allowed` says whether it might.
    """

    call: str
    path: str
    where: str
    function: str
    workflow: str | None
    pid: int
    test: str = ""
    stack: list[str] = field(default_factory=list)
    count: int = 1
    allowed: bool = False

    @property
    def site(self) -> tuple[str, str]:
        """What makes it another call site."""
        return self.call, self.where

    def text(self) -> str:
        """Lines to read."""
        times = "" if self.count == 1 else f", {self.count} times"
        place = "outside any workflow" if self.workflow is None else f"in workflow {self.workflow!r}"
        if self.stack:
            stack = "".join(self.stack).rstrip()
        else:
            started = f", started by {self.test}" if self.test else ""
            stack = f"  in process {self.pid}{started}: the stack is not known"
        return (
            f"{self.call} of {self.path!r} in system temp{times}\nat {self.where} in {self.function}, {place}\n{stack}"
        )

    def plain(self) -> dict[str, Any]:
        """What a report can carry from one process to another."""
        return asdict(self)


class Watch:
    """Collects attempts: at once those of this process, when asked those that other processes have written down."""

    def __init__(self, tolerance: Tolerance) -> None:
        self._tolerance = tolerance
        self.pid = os.getpid()
        self._journal = JournalReader(journal_path())
        self._pending: dict[tuple[str, str, bool], Attempt] = {}
        self.stop = listen(self._attempted)

    def own(self) -> list[Attempt]:
        """Those of this process since the last call."""
        pending, self._pending = self._pending, {}
        return list(pending.values())

    def others(self) -> list[Attempt]:
        """Those that other processes have written down since the last call: one a call site and process."""
        found = []
        for entry in self._journal.read():
            values: dict[str, Any] = {name: entry.get(name) for name in _FIELDS}
            if values["pid"] != self.pid and not str(values["where"]).startswith(_CACHES):
                test = str(entry.get("test", "")).rpartition(" (")[0]
                # What a marked test has started may, but not what a fixture of a wider scope has started there.
                allowed = self._tolerance.on and entry.get("verdict") != "refused"
                found.append(Attempt(**values, test=test, allowed=allowed))
        return found

    def _attempted(self, violation: Violation, path: str, frame: FrameType) -> None:
        if os.getpid() != self.pid or violation.where.startswith(_CACHES):
            return  # a forked child writes it down as any other
        key = violation.call, violation.where, self._tolerance.on
        if key in self._pending:
            self._pending[key].count += 1
            return
        self._pending[key] = Attempt(
            violation.call,
            path,
            violation.where,
            violation.function,
            violation.workflow,
            self.pid,
            stack=_stack(frame),
            allowed=self._tolerance.on,
        )


def _stack(frame: FrameType) -> list[str]:
    """The stack as text, without what is pytest's own at its beginning."""
    frames = traceback.extract_stack(frame)
    first = max((i for i, entry in enumerate(frames[:-1], 1) if entry.filename.startswith(_INTERNAL)), default=0)
    return traceback.format_list(frames[first:][-_FRAMES:])
