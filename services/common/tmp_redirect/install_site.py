"""`tmp-redirect install-site`: make the interpreter that runs it start the shim, also where it gets no PYTHONPATH."""

from __future__ import annotations

import argparse
import errno
import os
import subprocess
import sys
from collections.abc import Iterator

from .command_output import CONFIGURATION, OK, one_line, say
from .location import HOME, PACKAGE, SITECUSTOMIZE
from .site_files import MODULE, SiteFile, pth_file, sitecustomize_file

_IN_THE_WAY = {
    "foreign": "{} is there and not of tmp-redirect: left alone",
    "changed": "{} was changed since install-site wrote it: left alone; remove it to have it written again",
}
# Run as a new interpreter: status 0 if it has the shim at work, and this module of the file that it was started by.
_CHECK = """\
import os, sys
startup, module = map(sys.modules.get, ("services.common.tmp_redirect.startup", sys.argv[1]))
sys.exit(not (module and startup and startup.is_active() and os.path.samefile(module.__file__, sys.argv[2])))
"""


class _RefusedError(Exception):
    """A file isn't written, or not left; the text says which, why and what to do."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `run` needs to `parser`."""
    parser.add_argument("--dry-run", action="store_true", help="say what would be written, and change nothing")


def run(options: argparse.Namespace) -> int:
    """Write the first file that works, unless it is there: 0, or 78 where none does; what doesn't work isn't left."""
    if not os.path.isfile(SITECUSTOMIZE):
        return say("install-site", f"{SITECUSTOMIZE} is missing, and nothing starts the shim without it", CONFIGURATION)
    for file in _candidates():
        try:
            done = _install(file, dry_run=options.dry_run)
        except _RefusedError as refusal:
            say("install-site", one_line(str(refusal)))
        else:
            print(*map(one_line, done), sep="\n")
            return OK
    return CONFIGURATION


def _candidates() -> Iterator[SiteFile]:
    named = [os.path.realpath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    beside = sitecustomize_file()
    if beside is not None and os.path.realpath(HOME) in named:
        yield beside
    yield pth_file()


def _install(file: SiteFile, *, dry_run: bool) -> tuple[str, str]:
    """What was done, and what that does, in words. Raises `_RefusedError`."""
    try:
        state = file.state()
        if state in _IN_THE_WAY:
            raise _RefusedError(_IN_THE_WAY[state].format(file.path))
        if state == "written":
            problem, done = _problem(file), "is there already"
        elif dry_run:
            if not os.access(file.path.parent, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return f"would write {file.path}", _effect(file)
        else:
            problem, done = _write(file, state), "was written"
    except OSError as error:
        raise _RefusedError(
            f"can't write {file.path}: {error.strerror}; run this as the user who may install packages there"
        ) from error
    if problem:
        taken_back = " and removed again" if done == "was written" else ""
        raise _RefusedError(f"{file.path} {done}{taken_back}: {sys.executable} doesn't start the shim by it: {problem}")
    return f"{file.path} {done}", f"{_effect(file)}; a new process has just shown it"


def _write(file: SiteFile, state: str) -> str | None:
    """Write it; where it doesn't work, put back what was there, and return the reason."""
    before = SiteFile(file.path, file.path.read_text(encoding="utf-8")) if state == "outdated" else None
    if before:
        before.remove()
    works = False
    try:
        file.write()
        problem = _problem(file)
        works = problem is None
    finally:
        if not works:
            if file.state() == "written":
                file.remove()
            if before:
                before.write()
    return problem


def _effect(file: SiteFile) -> str:
    where = "" if file.path.suffix == ".pth" else f" and PYTHONPATH names {file.path.parent}"
    return f"{sys.executable} starts the shim by it, from {PACKAGE}, where TMP_REDIRECT is warn or enforce{where}"


def _problem(file: SiteFile) -> str | None:
    """Why a new interpreter doesn't start the shim by `file`; None if it does."""
    package = "services.common.tmp_redirect.startup", os.path.join(PACKAGE, "startup.py")
    env = {name: value for name, value in os.environ.items() if not name.startswith("TMP_REDIRECT")}
    done = subprocess.run(
        [sys.executable, "-c", _CHECK, *((MODULE, SITECUSTOMIZE) if file.path.suffix == ".pth" else package)],
        env=env | {"TMP_REDIRECT": "warn", "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode == 0:
        return None
    if done.stderr.strip():
        return done.stderr.strip().splitlines()[-1]
    return "site doesn't look there" if file.path.suffix == ".pth" else "another sitecustomize comes before it"
