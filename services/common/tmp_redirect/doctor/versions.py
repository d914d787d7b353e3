"""Whether the packages that the shim works with are of versions it was tested with; they are not imported."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import metadata

from .case import Case
from .finding import Finding

# From the first of these versions, and before the second.
TESTED = {"wrapt": ((1, 16), (3,)), "celery": ((5, 3), (5, 8))}
PYTHON = ((3, 10), (3, 14))


def python(case: Case) -> Iterator[Finding]:
    """The interpreter's own version, and its platform."""
    version = sys.version_info[:3]
    text = f"{'.'.join(map(str, version))}, {sys.executable}"
    if PYTHON[0] <= version < PYTHON[1]:
        yield Finding("python", "ok", text)
    else:
        yield Finding("python", "note", f"{text}: not a version that the shim was tested with, {_range(PYTHON)}")


def packages(case: Case) -> Iterator[Finding]:
    """`wrapt`, which is needed where Celery is, and Celery."""
    path = case.facts.path if case.facts else sys.path
    wrapt, celery = _version("wrapt", path), _version("celery", path)
    if wrapt is not None:
        yield _judge("wrapt", wrapt)
    elif celery is None:
        yield Finding("wrapt", "ok", "not installed, and not needed without Celery and workflow()")
    else:
        advice = "pip install 'wrapt>=1.16,<3' into the interpreter that the service runs in"
        yield Finding("wrapt", case.fatal, "not installed, and needed where Celery runs", advice)
    if celery is None:
        yield Finding("celery", "ok", "not installed")
    else:
        yield _judge("celery", celery)


def _version(name: str, path: list[str]) -> str | None:
    """What is installed there, `None` if it isn't; the first on the path is what would be imported."""
    found = next(iter(metadata.distributions(name=name, path=path)), None)
    return None if found is None else found.version or "unknown"


def _judge(name: str, version: str) -> Finding:
    tested = TESTED[name]
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    if numbers and tested[0] <= tuple(map(int, numbers[0].split("."))) < tested[1]:
        return Finding(name, "ok", version)
    (first, end) = (".".join(map(str, bound)) for bound in tested)
    text = f"the shim was not tested with version {version}, but with {_range(tested)}"
    return Finding(name, "problem", text, f"pip install '{name}>={first},<{end}'")


def _range(tested: tuple[tuple[int, ...], tuple[int, ...]]) -> str:
    first, end = (".".join(map(str, bound)) for bound in tested)
    return f"{first} and later, before {end}"
