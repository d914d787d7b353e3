"""What was attempted in system temp: counted every time, logged once per call site, kept for the report.

Written to stderr, never through `logging`: a handler of the program may write to stdout, which children's parents
parse. A Celery worker sends its stderr to its log.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_STDLIB = os.path.dirname(os.__file__)
_SITE = (os.path.join(_STDLIB, "site-packages"), os.path.join(_STDLIB, "dist-packages"))
MOST = 1000  # distinct call sites that are kept; a program that makes up file names must not fill the memory


class Violation:
    """One call site that would create, or created, something in system temp.

    `call` is the function's name, `path` the absolute path of the first attempt, `where` `file:line`, `function` the
    calling function's name, `workflow` the workflow id or `None`, `count` how often it happened.
    """

    __slots__ = ("call", "count", "function", "path", "where", "workflow")

    def __init__(self, call: str, path: str, where: str, function: str, workflow: str | None) -> None:
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


_seen: dict[tuple[str, str], Violation] = {}
_total = 0


def record(call: str, path: str, workflow: str | None, verdict: str) -> Violation:
    """Count an attempt to create `path`; log it with `verdict` if its call site is new."""
    global _total
    _total += 1
    frame = _caller(sys._getframe(1))
    where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
    violation = _seen.get((call, where))
    if violation is None:
        violation = Violation(call, path, where, frame.f_code.co_name, workflow)
        if len(_seen) < MOST:
            _seen[call, where] = violation
            _log(violation, verdict)
    violation.count += 1
    return violation


def report() -> Report:
    """What this process has attempted in system temp since it started."""
    return Report(list(_seen.values()), _total)


def _log(violation: Violation, verdict: str) -> None:
    workflow = "outside any workflow" if violation.workflow is None else f"workflow {violation.workflow!r}"
    line = (
        f"tmp_redirect: {verdict}: {violation.call} of {violation.path!r} "
        f"at {violation.where} in {violation.function}, {workflow}, pid {os.getpid()}\n"
    )
    try:
        sys.stderr.write(line)
        sys.stderr.flush()
    except Exception:  # noqa: BLE001, S110 - stderr is closed or gone; the program must not fail because of our log
        pass


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
