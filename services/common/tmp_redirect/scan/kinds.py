"""Which kind of file a path is, by its name or its first line."""

from __future__ import annotations

import os
import re

PYTHON, SHELL, YAML, DOCKERFILE, ENV = "Python", "shell", "YAML", "Dockerfile", "env"

_NAMES = (
    (re.compile(r".\.pyw?$|.\.pyi$"), PYTHON),
    (re.compile(r".\.(?:sh|bash)$"), SHELL),
    (re.compile(r".\.ya?ml$"), YAML),
    (re.compile(r"(?:^|[.-])(?:Dockerfile|Containerfile)(?:[.-].*)?$|.\.dockerfile$", re.IGNORECASE), DOCKERFILE),
    (re.compile(r"^\.env(?:\..+)?$|.\.env$"), ENV),
)
_PROGRAMS = (
    (re.compile(rb"#!.*\bpython[0-9.]*(?:\s|$)"), PYTHON),
    (re.compile(rb"#!.*\b(?:ba|da|k|z|a)?sh(?:\s|$)"), SHELL),
)


def kind_of(path: str) -> str | None:
    """The kind of the file at `path`, None for those that aren't checked. Raises `OSError`."""
    name = os.path.basename(path)
    for pattern, kind in _NAMES:
        if pattern.search(name):
            return kind
    if "." not in name:
        with open(path, "rb") as file:
            first = file.readline(128)
        for program, kind in _PROGRAMS:
            if program.match(first):
                return kind
    return None
