"""A finding: a place in a file that would put something into system temp."""

from __future__ import annotations

from dataclasses import dataclass

HARD_CODED, MKTEMP = "S108", "S306"  # the names that ruff has for them, so that one noqa is for both
ADVICE = {
    HARD_CODED: "use the tempfile module without dir, $TMPDIR, or a path below the workflow's directory",
    MKTEMP: "use tempfile.mkstemp or NamedTemporaryFile: another process may take the name first",
}


@dataclass(frozen=True, order=True)
class Finding:
    """Lines and columns count from 1; `text` is what is there, `rule` is `HARD_CODED` or `MKTEMP`."""

    path: str
    line: int
    column: int
    rule: str
    what: str
    text: str

    @property
    def advice(self) -> str:
        """What to do about it."""
        return ADVICE[self.rule]


class NotChecked(Exception):
    """A file could not be checked; the text says why."""
