"""`tmp-redirect scan`: a check for CI of what a project would put into system temp."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence

from ..command_output import CONFIGURATION, FINDINGS, OK, USAGE, one_line, say, tolerant_stdout
from . import lines, python, ruff, targets
from .finding import Finding, NotChecked
from .formats import FORMATS
from .kinds import PYTHON
from .streams import readable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `run` needs to `parser`."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a file, or a directory with all that is below it")
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="GLOB",
        help="leave out files and directories with this name, or, with a slash, path (repeatable)",
    )
    parser.add_argument("--format", choices=FORMATS, default="text", help="the form of the result")
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="the same as --format json")


def run(options: argparse.Namespace) -> int:
    """Print what was found; 1 if that is something, else 2 if a file could not be checked."""
    missing = next((path for path in options.paths if not os.path.exists(path)), None)
    if missing is not None:
        return say("scan", f"no such file or directory: {one_line(missing)}", USAGE)
    skipped: list[str] = []
    try:
        exclude = [*options.exclude, *targets.excluded(os.getcwd())]
        found = sorted(_scan(options.paths, exclude, skipped))
    except targets.BadConfiguration as error:
        return say("scan", str(error), CONFIGURATION)
    except ruff.RuffError as error:
        return say("scan", str(error), USAGE)
    with tolerant_stdout():
        sys.stdout.write(FORMATS[options.format](found))
    places = "place" if len(found) == 1 else "places"
    say("scan", f"{len(found) or 'no'} {places} that would put files into system temp")
    for reason in skipped:
        say("scan", f"not checked: {reason}")
    return FINDINGS if found else USAGE if skipped else OK


def _scan(paths: Sequence[str], exclude: Sequence[str], skipped: list[str]) -> Iterator[Finding]:
    files = list(targets.files(paths, exclude, skipped))
    hits = ruff.check([path for path, kind in files if kind == PYTHON])
    for path, kind in files:
        try:
            with open(path, "rb") as file:
                content = file.read()
            if kind == PYTHON:
                yield from python.findings(targets.shown(path), content, hits.get(path, ()))
            else:
                yield from lines.findings(targets.shown(path), _decoded(content), kind)
        except OSError as error:
            skipped.append(f"{one_line(targets.shown(path))}: {error.strerror}")
        except NotChecked as error:
            skipped.append(f"{one_line(targets.shown(path))}: {one_line(str(error))}; --exclude leaves it out")


def _decoded(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace")
    if b"\0" in content:
        raise NotChecked("it is a binary file")
    return readable(content.decode("utf-8-sig", "surrogateescape"))
