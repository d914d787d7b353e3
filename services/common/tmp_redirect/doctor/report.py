"""Shows what was found, for people: the worst comes last, beside the verdict, where it is seen first."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence

from ..command_output import one_line
from ..shown import console, count, has_rich
from .finding import SUBJECTS, WEIGHTS, Finding

_STYLES = {"ok": "green", "note": "cyan", "problem": "bold yellow", "stops": "bold red"}
_WEIGHT, _SUBJECT = max(map(len, WEIGHTS)), max(map(len, SUBJECTS))
_TEXT = _WEIGHT + _SUBJECT + 4  # where it begins
_LEAST = 30  # characters of a line for it


def show(found: Sequence[Finding], *, is_off: bool) -> None:
    """Print the findings and the verdict, which says so where the shim `is_off`."""
    ordered = sorted(found, key=_weight)
    lines = [line for finding in ordered for line in _lines(finding)]
    lines.append((ordered[-1].weight, _verdict(found, is_off=is_off), ""))
    if not has_rich():
        print("\n".join(styled + plain for _, styled, plain in lines))
        return
    from rich.text import Text

    to = console()
    with to.capture() as captured:  # rich would end the process where `head` has ended
        for weight, styled, plain in lines:
            to.print(Text.assemble((styled, _STYLES[weight]), plain), soft_wrap=True)
    print(captured.get(), end="")


def _weight(finding: Finding) -> int:
    return WEIGHTS.index(finding.weight)


def _lines(finding: Finding) -> Iterator[tuple[str, str, str]]:
    """Each with the weight, what is in its style, and the rest.

    On a terminal, they are as wide as it is; else there is one for the finding, and one for what to do.
    """
    width = shutil.get_terminal_size().columns - _TEXT if sys.stdout.isatty() else sys.maxsize
    text = textwrap.wrap(one_line(finding.text), max(_LEAST, width)) or [""]
    yield finding.weight, f"{finding.weight.ljust(_WEIGHT)}  {finding.subject.ljust(_SUBJECT)}  ", text[0]
    advice = textwrap.wrap(f"-> {one_line(finding.advice)}", max(_LEAST, width), subsequent_indent="   ")
    for line in [*text[1:], *(advice if finding.advice else [])]:
        yield finding.weight, "", " " * _TEXT + line


def _verdict(found: Sequence[Finding], *, is_off: bool) -> str:
    weights = Counter(finding.weight for finding in found)
    counted = (("stops", "reason"), ("problem", "problem"), ("note", "note"))
    parts = [count(weights[weight], word) for weight, word in counted]
    rest = ", ".join(part for part in parts if not part.startswith("0 "))
    if weights["stops"]:
        what = "with the shim, processes end here with status 78"
    elif weights["problem"]:
        what = "the shim doesn't do all its work here"
    elif is_off:
        what = "the shim is off: programs run as without it"
    else:
        what = "the shim can do its work here"
    return f"{what}: {rest}" if rest else what
