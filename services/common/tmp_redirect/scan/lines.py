"""Finds what shell scripts, YAML, Dockerfiles and env files would put into system temp, line by line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from .finding import HARD_CODED, Finding
from .kinds import DOCKERFILE, ENV, SHELL, YAML
from .noqa import suppressed_lines, suppresses_file
from .paths import NAMES, Found, system_temp_paths
from .shell import created, creates

_COMMENT = re.compile(r"(?<=\s)#(?!\{).*|^\s*#.*")
_INSTRUCTION = re.compile(r"\s*(?:ONBUILD\s+)?([A-Za-z]+)\s")
_SHOWN = re.compile(r"\s*cat\s*<<-?\s*[\"']?(\w+)[\"']?\s*$")  # what is printed is not done
_ABSENT = re.compile(r"[\"']?state[\"']?[:=]\s*[\"']?absent")
_JINJA_TEST = re.compile(r"[\"']\s+is\s")
_TMPFS = re.compile(r"type=tmpfs\S*$|--tmpfs[ =][\"']?$")
_KEY = re.compile(r"""^(?P<indent>\s*(?:-\s+)*)["']?(?P<key>[A-Za-z_][\w. -]*)["']?:(?=\s|$)(?P<value>.*)$""")
_SAID = frozenset((
    *("name", "description", "short_description", "summary", "title", "msg", "fail_msg", "success_msg", "message"),
    *("help", "notes", "doc", "comment", "when", "that", "assert", "failed_when", "changed_when", "until", "src"),
    *("tmpfs", "label", "regexp", "pattern", "example", "examples", "stat", "removes", "paths-ignore", "exclude"),
))  # fmt: skip


def findings(path: str, text: str, kind: str) -> Iterator[Finding]:
    """What is in the file at `path`, which has this text and is of this kind."""
    if not any(name in text for name in NAMES) or suppresses_file(text, HARD_CODED):
        return
    lines = text.splitlines()
    out = suppressed_lines(lines, HARD_CODED)
    for number, found in _JUDGES[kind](lines):
        if number not in out:
            shown = lines[number - 1].strip()
            yield Finding(path, number, found.start + 1, HARD_CODED, f"{_WHAT[kind]}: {found.path}", shown)


def _shell(lines: list[str]) -> Iterator[tuple[int, Found]]:
    earlier = shown_until = ""
    for number, line in enumerate(lines, 1):
        if shown_until:
            shown_until = "" if line.strip() == shown_until else shown_until
            continue
        code = _without_comment(line, earlier)
        shown = _SHOWN.match(code)
        shown_until = shown[1] if shown else ""
        for found in created(code, earlier):
            if not _TMPFS.search(code[: found.start]):
                yield number, found
        earlier = earlier + code.rstrip()[:-1] + " " if code.rstrip().endswith("\\") else ""


def _dockerfile(lines: list[str]) -> Iterator[tuple[int, Found]]:
    earlier = ""
    for number, line in enumerate(lines, 1):
        if line.lstrip().startswith("#"):
            continue  # also between the lines of an instruction
        instruction = _INSTRUCTION.match(earlier or line)
        word = instruction[1].upper() if instruction else ""
        for found in system_temp_paths(line) if word in ("ENV", "ARG") else created(line, earlier):
            if word not in ("LABEL", "FROM", "MAINTAINER") and not _TMPFS.search(line[: found.start]):
                yield number, found
        earlier = earlier + line.rstrip()[:-1] + " " if line.rstrip().endswith("\\") else ""


def _env(lines: list[str]) -> Iterator[tuple[int, Found]]:
    for number, line in enumerate(lines, 1):
        yield from ((number, found) for found in system_temp_paths(_without_comment(line)))


def _yaml(lines: list[str]) -> Iterator[tuple[int, Found]]:
    keys: list[tuple[int, str]] = []  # those that a line is below, with their indentation
    removed = _removed(lines)
    earlier = above = ""
    for number, line in enumerate(lines, 1):
        code = _without_comment(line, earlier)
        if not code.strip():
            continue
        match = _KEY.match(code)
        indent = len(match["indent"]) if match else len(code) - len(code.lstrip())
        item = not match and code.lstrip().startswith("- ")
        while keys and (keys[-1][0] > indent or (keys[-1][0] == indent and not item)):
            keys.pop()
        if match:
            keys.append((indent, match["key"].lower()))
        if not any(key in _SAID for _, key in keys[-2:]) and "type: tmpfs" not in above and number not in removed:
            start = match.start("value") if match else len(code) - len(code.lstrip("- \t"))
            for found in _in_value(code[start:], earlier):
                yield number, Found(found.start + start, found.path)
        above = code
        earlier = earlier + code.rstrip()[:-1] + " " if code.rstrip().endswith("\\") else ""


def _in_value(value: str, earlier: str) -> Iterator[Found]:
    whole = value.lstrip(" \"'[{>|-")
    for found in system_temp_paths(value):
        after = value[found.start + len(found.path) :]
        if _JINJA_TEST.match(after):
            continue
        if (whole.startswith(found.path) and not earlier) or creates(earlier + value[: found.start], found.path, after):
            yield found


def _removed(lines: list[str]) -> set[int]:
    """The numbers of the lines that name what Ansible is told to remove."""
    absent = [number for number, line in enumerate(lines, 1) if _ABSENT.search(line)]
    siblings: set[int] = set()
    for number in absent:
        if number not in siblings and _ABSENT.match(lines[number - 1].strip()):
            siblings.update(_siblings(lines, number))
    return siblings.union(absent)


def _siblings(lines: list[str], number: int) -> Iterator[int]:
    """The numbers of the lines of the same block that are indented as that one."""
    indent = _indent(lines[number - 1])
    for others in (range(number, 0, -1), range(number, len(lines) + 1)):
        for other in others:
            line = lines[other - 1]
            if not line.strip() or _indent(line) < indent:
                break
            if _indent(line) == indent:
                yield other


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _without_comment(line: str, earlier: str = "") -> str:
    for match in _COMMENT.finditer(line):
        before = earlier + line[: match.start()]
        if before.count('"') % 2 == 0 and before.count("'") % 2 == 0:
            return line[: match.start()]
    return line


_JUDGES: dict[str, Callable[[list[str]], Iterator[tuple[int, Found]]]] = {
    SHELL: _shell, DOCKERFILE: _dockerfile, ENV: _env, YAML: _yaml,
}  # fmt: skip
_WHAT = {SHELL: "system temp in a command", DOCKERFILE: "system temp in an image", ENV: "system temp in a variable"} | {
    YAML: "system temp in a setting"
}
