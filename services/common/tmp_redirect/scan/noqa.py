"""Which lines a comment takes out of the check: `# noqa` and `# noqa: S108`, as ruff and flake8 have it."""

from __future__ import annotations

import re
from collections.abc import Iterable

_CODES = r"(?P<codes>:\s*[A-Z]+[0-9]+(?:[\s,]+[A-Z]+[0-9]+)*)?"
_LINE = re.compile(rf"#\s*noqa\b{_CODES}", re.IGNORECASE)
_FILE = re.compile(rf"^\s*#\s*(?:ruff|flake8):\s*noqa\b{_CODES}", re.IGNORECASE | re.MULTILINE)


def suppresses(line: str, rule: str) -> bool:
    """Whether a comment in `line` takes findings of `rule` out."""
    return any(_covers(match, rule) for match in _LINE.finditer(line))


def suppresses_file(text: str, rule: str) -> bool:
    """Whether a comment takes findings of `rule` out of the whole file."""
    return any(_covers(match, rule) for match in _FILE.finditer(text))


def suppressed_lines(lines: Iterable[str], rule: str) -> set[int]:
    """The numbers of the lines that are out; a comment alone on its line speaks for the next, as in a Dockerfile."""
    out = set()
    for number, line in enumerate(lines, 1):
        if "noqa" in line.lower() and suppresses(line, rule):
            out.add(number + 1 if line.lstrip().startswith("#") else number)
    return out


def _covers(match: re.Match[str], rule: str) -> bool:
    codes = match["codes"]
    return codes is None or rule in codes.upper().replace(",", " ").strip(": ").split()
