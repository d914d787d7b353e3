"""The findings as people, programs and code hosts read them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from urllib.parse import quote

from .. import __version__
from ..command_output import one_line
from .finding import ADVICE, HARD_CODED, MKTEMP, Finding

_SHOWN = 120  # characters of the text
_SUMMARY = {HARD_CODED: "A hard-coded path in system temp", MKTEMP: "A temp file's name without the file"}
_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json"


def text(findings: Sequence[Finding]) -> str:
    """A line for each."""
    return "".join(f"{one_line(item.path)}:{item.line}:{item.column}: {_message(item)}\n" for item in findings)


def as_json(findings: Sequence[Finding]) -> str:
    """An array of objects."""
    return json.dumps([{**asdict(item), "advice": item.advice} for item in findings], indent=2) + "\n"


def github(findings: Sequence[Finding]) -> str:
    """Workflow commands, which GitHub shows at the line."""
    return "".join(
        f"::error file={_property(item.path)},line={item.line},col={item.column},title=tmp-redirect {item.rule}"
        f"::{_data(_message(item))}\n"
        for item in findings
    )


def sarif(findings: Sequence[Finding]) -> str:
    """A SARIF 2.1.0 log."""
    rules = [
        {"id": rule, "shortDescription": {"text": _SUMMARY[rule]}, "help": {"text": advice}}
        for rule, advice in ADVICE.items()
    ]
    driver = {"name": "tmp-redirect", "version": __version__, "rules": rules}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(item) for item in findings],
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


FORMATS: dict[str, Callable[[Sequence[Finding]], str]] = {
    "text": text, "json": as_json, "sarif": sarif, "github": github,
}  # fmt: skip


def _message(item: Finding) -> str:
    shown = item.text if len(item.text) <= _SHOWN else item.text[:_SHOWN] + "…"
    return one_line(f"{item.what}: {shown}; {item.advice}")


def _result(item: Finding) -> dict[str, object]:
    uri = quote(item.path, errors="surrogateescape")
    return {
        "ruleId": item.rule,
        "ruleIndex": list(ADVICE).index(item.rule),
        "level": "error",
        "message": {"text": _message(item)},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": f"file://{uri}" if uri.startswith("/") else uri},
                    "region": {"startLine": item.line, "startColumn": item.column},
                }
            }
        ],
    }


def _data(value: str) -> str:
    return value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")
