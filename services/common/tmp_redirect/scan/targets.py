"""Which files to check: those of the given paths, but for what the project ignores or excludes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

from ..command_output import one_line
from . import ruff
from .kinds import kind_of

_TABLE = "[tool.tmp-redirect.scan]"


class BadConfiguration(ValueError):
    """The project's configuration can't be used; the text says where and why."""


def excluded(directory: str) -> list[str]:
    """The globs that the nearest `pyproject.toml`, in or above `directory`, excludes. Raises `BadConfiguration`."""
    while not os.path.isfile(os.path.join(directory, "pyproject.toml")):
        parent = os.path.dirname(directory)
        if parent == directory:
            return []
        directory = parent
    path = os.path.join(directory, "pyproject.toml")
    table = _table(path)
    globs = table.pop("exclude", [])
    if table:
        raise BadConfiguration(f"{path}: {_TABLE} has no {next(iter(table))!r}: only exclude")
    if not isinstance(globs, list) or not all(isinstance(glob, str) for glob in globs):
        raise BadConfiguration(f"{path}: {_TABLE} exclude is not a list of strings")
    return [os.path.join(directory, glob) if "/" in glob else glob for glob in globs]


def files(paths: Sequence[str], exclude: Sequence[str], skipped: list[str]) -> Iterator[tuple[str, str]]:
    """Each file that is checked, with its kind; what can't be looked at is added to `skipped`. Raises `RuffError`."""
    for path in sorted(set(ruff.files(paths, exclude))):
        try:
            kind = kind_of(path) if os.path.isfile(path) or not os.path.isdir(path) else None
            if kind and not os.path.isfile(path):
                os.stat(path)
                kind = None  # a socket or a pipe
        except OSError as error:
            skipped.append(f"{one_line(shown(path))}: {error.strerror}")
            continue
        if kind:
            yield path, kind


def shown(path: str) -> str:
    """`path` from the working directory, if it is below it."""
    here = os.path.join(os.getcwd(), "")
    return path.removeprefix(here)


def _table(path: str) -> dict[str, Any]:
    try:
        tomllib = import_module("tomllib")
    except ModuleNotFoundError:  # Python 3.10
        try:
            tomllib = import_module("tomli")
        except ModuleNotFoundError:
            raise BadConfiguration(f"{path}: tomli is needed to read it and not installed: pip install tomli") from None
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file).get("tool", {}).get("tmp-redirect", {}).get("scan", {})
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise BadConfiguration(f"{path} can't be read: {error}") from None
    if not isinstance(table, dict):
        raise BadConfiguration(f"{path}: {_TABLE} is not a table")
    return dict(table)
