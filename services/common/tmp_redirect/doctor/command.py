"""The command: what it looks at, in which order, and the exit status."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator

from ..command_output import CONFIGURATION, say, tolerant_stdout
from ..startup import uninstall
from . import configuration, directories, layers, leftovers, loading, root, sockets, versions
from .bounded import bounded
from .case import Case, case_of
from .finding import STATUS, Finding
from .report import show

Look = Callable[[Case], Iterable[Finding]]

_IN_AN_IMAGE: tuple[tuple[str, Look], ...] = (
    ("settings", configuration.settings),
    ("mode", configuration.mode),
    ("guard", layers.guard),
    ("kernel", layers.kernel),
    ("python", versions.python),
    ("shim", loading.shim),
    ("sitecustomize", loading.sitecustomize),
    ("flags", loading.flags),
    ("PYTHONPATH", loading.python_path),
    ("package", loading.package),
    ("bytecode", loading.bytecode),
    ("wrapt", versions.packages),
    ("TMPDIR", directories.variables),
    ("tempfile", directories.tempdir),
)
_WHERE_IT_RUNS: tuple[tuple[str, Look], ...] = (
    ("service", configuration.service),
    ("root", root.root),
    ("sockets", sockets.sockets),
    ("leftovers", leftovers.leftovers),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `run` needs to `parser`."""
    parser.add_argument("--json", action="store_true", help="print an array of objects")
    parser.add_argument(
        "--image",
        action="store_true",
        help="look only at what an image has, as in RUN TMP_REDIRECT=enforce python DIR doctor --image",
    )


def run(options: argparse.Namespace) -> int:
    """Print what was found: 0 if all is well, 1 for a problem, 78 for one that ends a process with the shim."""
    if sys.platform != "linux":
        return say("doctor", f"the shim needs Linux, and this is {sys.platform}", CONFIGURATION)
    uninstall()  # children shall have the environment as it is, and nothing shall be made for this process
    case = case_of(dict(os.environ), image=options.image)
    found = [case.weighed(finding) for finding in _findings(case)]
    with tolerant_stdout():
        if options.json:
            print(json.dumps([finding._asdict() for finding in found], indent=2))
        else:
            show(found, is_off=case.is_off)
    return max(STATUS[finding.weight] for finding in found)


def _findings(case: Case) -> Iterator[Finding]:
    for subject, look in (*_IN_AN_IMAGE, *(() if case.image else _WHERE_IT_RUNS)):
        yield from bounded(subject, lambda look=look: look(case))  # type: ignore[misc]
