"""Runs ruff, which knows the files of a project, and finds most of what is in the Python ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..settings import SYSTEM_TEMP
from .finding import HARD_CODED, MKTEMP

# Ruff's own list also has build and dist, where Dockerfiles are kept.
_EXCLUDED = (
    ".bzr", ".direnv", ".eggs", ".git", ".git-rewrite", ".hg", ".ipynb_checkpoints", ".mypy_cache", ".nox",
    ".pants.d", ".pyenv", ".pytest_cache", ".pytype", ".ruff_cache", ".svn", ".tox", ".venv", ".vscode",
    "__pycache__", "__pypackages__", "node_modules", "site-packages", "venv",
)  # fmt: skip
_AT_ONCE = 500  # arguments have to fit on a command line


class RuffError(Exception):
    """Ruff isn't installed, or failed; the text says what to do or what it said."""


@dataclass(frozen=True)
class Hit:
    """What ruff found in a file; `rule` is None where it could not parse."""

    rule: str | None
    line: int
    column: int
    message: str


def files(paths: Sequence[str], exclude: Iterable[str]) -> list[str]:
    """The absolute paths of all files at and below `paths`, but for ignored and excluded ones. Raises `RuffError`."""
    config = ('include=["*"]', f"exclude={json.dumps(_EXCLUDED)}", f"extend-exclude={json.dumps(list(exclude))}")
    listing = _ruff("--show-files", "--force-exclude", *_configured(*config), "--", *paths)
    return [_path(line) for line in listing.splitlines() if line]


def check(paths: Sequence[str]) -> dict[str, list[Hit]]:
    """What ruff finds in the Python files `paths`, which are absolute. Raises `RuffError`."""
    hits: dict[str, list[Hit]] = {}
    config = f"lint.flake8-bandit.hardcoded-tmp-directory={json.dumps(SYSTEM_TEMP)}"
    for start in range(0, len(paths), _AT_ONCE):
        output = _ruff(
            *("--no-cache", "--exit-zero", "--output-format", "json", "--select", f"{HARD_CODED},{MKTEMP}"),
            *("--target-version", "py314", *_configured(config), "--", *paths[start : start + _AT_ONCE]),
        )
        for entry in json.loads(output):
            rule = entry["code"] if entry["code"] in (HARD_CODED, MKTEMP) else None
            place = entry["location"]
            hit = Hit(rule, place["row"], place["column"], entry["message"])
            hits.setdefault(_path(entry["filename"]), []).append(hit)
    return hits


def _path(text: str) -> str:
    """What the system calls the file, whatever the encoding of the locale."""
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))


def _configured(*values: str) -> list[str]:
    return [argument for value in values for argument in ("--config", value)]


def _ruff(*arguments: str) -> str:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RUFF_")}
    try:
        done = subprocess.run(
            [_program(), "check", "--isolated", "--quiet", *arguments],
            env=environ,
            capture_output=True,
            check=False,
            encoding="utf-8",
            errors="surrogateescape",
        )
    except OSError as error:
        raise RuffError(f"ruff can't be started: {error}") from None
    if done.returncode != 0:
        raise RuffError(f"ruff failed with status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def _program() -> str:
    beside = os.path.join(sysconfig.get_path("scripts"), "ruff")  # of an environment that isn't on PATH
    program = beside if os.path.isfile(beside) else shutil.which("ruff")
    if program is None:
        raise RuffError("ruff is needed and not installed: pip install ruff")
    return program
