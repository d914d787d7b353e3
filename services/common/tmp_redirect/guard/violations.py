"""What was attempted in system temp: counted every time, logged once per call site, kept for the report.

An attempt may come from a signal handler, a finaliser, or the program's own logging, while any lock is held and the
disk is full. So nothing here takes a lock, but for importing the journal once, what is called goes straight to the
system, and no failure of it is passed on. Nor is anything said through `logging`: its handlers are the program's, and
may take locks.
"""

import os
import sys

from ..patches import loading
from ..stderr import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    Listener = Callable[["Violation", str, FrameType], object]

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_STDLIB = os.path.dirname(os.__file__)
_SITE = (os.path.join(_STDLIB, "site-packages"), os.path.join(_STDLIB, "dist-packages"))
MOST = 1000  # distinct call sites that are kept; a program that makes up file names must not fill the memory


class Violation:
    """One call site that would create, or created, something in system temp.

    `layer` is the layer of the guard that saw it, `call` the function's name, `path` the absolute path of the first
    attempt, `where` `file:line`, `function` the calling function's name, `workflow` the workflow id or `None`, `count`
    how often it happened.
    """

    __slots__ = ("call", "count", "function", "layer", "path", "where", "workflow")

    def __init__(self, layer: str, call: str, path: str, where: str, function: str, workflow: str | None) -> None:
        self.layer = layer
        self.call = call
        self.path = path
        self.where = where
        self.function = function
        self.workflow = workflow
        self.count = 0

    def __repr__(self) -> str:
        return f"<Violation {self.call} {self.path!r} at {self.where} x{self.count}>"


class Report:
    """The violations of this process: one `Violation` a call site, and `total`, the number of attempts."""

    __slots__ = ("total", "violations")

    def __init__(self, violations: list[Violation], total: int) -> None:
        self.violations = violations
        self.total = total

    def __repr__(self) -> str:
        return f"<Report: {self.total} violations at {len(self.violations)} call sites>"


class _Seen:
    """What one process has attempted; a forked child begins anew."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.sites: dict[tuple[str, str, str], Violation] = {}
        self.total = 0
        self.summed_up = 0
        self.sums_up_at_exit = False
        self.journal: str | None = None


_seen = _Seen()
_listeners: "list[Listener]" = []


def record(layer: str, call: str, path: str, workflow: str | None, verdict: str) -> Violation:
    """Count an attempt to create `path`; log it with `verdict` if its call site is new."""
    seen = _of_this_process()
    seen.total += 1
    frame = _caller(sys._getframe(1))
    where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
    violation = seen.sites.get((layer, call, where))
    is_new = violation is None and len(seen.sites) < MOST
    if violation is None:
        violation = Violation(layer, call, path, where, frame.f_code.co_name, workflow)
    if is_new:
        seen.sites[layer, call, where] = violation
        _log(seen, violation, verdict)
    violation.count += 1
    for listener in _listeners:
        try:  # noqa: SIM105 - contextlib would be one more import
            listener(violation, path, frame)
        except Exception:  # noqa: BLE001, S110 - the program must not fail because of who listens
            pass
    return violation


def report() -> Report:
    """What this process has attempted in system temp since it started."""
    seen = _of_this_process()
    return Report(list(seen.sites.values()), seen.total)


def listen(listener: "Listener") -> "Callable[[], None]":
    """Have `listener(violation, path, frame)` called at each attempt, where it happens; returns what ends this.

    `path` is the absolute path of this attempt, `frame` that of its call site. What the listener raises is ignored.
    """
    _listeners.append(listener)
    return lambda: _listeners.remove(listener)


def summarise() -> None:
    """Write one line that says how many attempts there were; nothing where it would say the same again."""
    seen = _of_this_process()
    if seen.total > seen.summed_up:
        seen.summed_up = seen.total
        times = "once" if seen.total == 1 else f"{seen.total} times"
        sites = "1 call site" if len(seen.sites) == 1 else f"{len(seen.sites)} call sites"
        place = "" if seen.journal is None else f" and in {seen.journal}"
        say(f"summary: pid {seen.pid} would have used system temp {times}, at {sites}; each is logged above{place}")


def _of_this_process() -> _Seen:
    global _seen
    if _seen.pid != os.getpid():
        _seen = _Seen()
    return _seen


def _log(seen: _Seen, violation: Violation, verdict: str) -> None:
    workflow = "outside any workflow" if violation.workflow is None else f"workflow {violation.workflow!r}"
    say(
        f"{verdict}: {violation.call} of {violation.path!r} "
        f"at {violation.where} in {violation.function}, {workflow}, pid {seen.pid}"
    )
    try:
        if not seen.sums_up_at_exit:
            seen.sums_up_at_exit = True
            _call_at_exit(summarise)
        with loading:
            from .journal import append

        seen.journal = append(violation, verdict) or seen.journal
    except Exception:  # noqa: BLE001, S110 - the program must not fail because of our log
        pass


def _call_at_exit(function: "Callable[[], None]") -> None:
    import atexit

    atexit.register(function)
    for package in ("multiprocessing", "billiard"):  # whose processes end without atexit
        process, util = sys.modules.get(f"{package}.process"), sys.modules.get(f"{package}.util")
        if process is not None and util is not None and getattr(process.current_process(), "_parent_pid", None):
            util.Finalize(None, function, exitpriority=-100)


def _caller(frame: "FrameType") -> "FrameType":
    """The nearest frame of neither the shim nor the standard library; where there is none, of not the shim."""
    nearest: "FrameType | None" = None
    candidate: "FrameType | None" = frame
    while candidate is not None:
        filename = candidate.f_code.co_filename
        if not filename.startswith(_PACKAGE + os.sep):
            nearest = nearest or candidate
            if not _is_stdlib(filename):
                return candidate
        candidate = candidate.f_back
    return nearest or frame


def _is_stdlib(filename: str) -> bool:
    return filename.startswith("<frozen ") or (filename.startswith(_STDLIB + os.sep) and not filename.startswith(_SITE))
