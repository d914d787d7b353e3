"""Judges the paths of a shell command: those that it would create or set, not those that it reads, tests or removes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..settings import DIRECTORIES
from .paths import Found, system_temp_paths

_NO_CREATORS = frozenset((
    *("[", "[[", "test", "assert", "case", "for", "exit", "return", "unset", "wait", "sleep"),
    *("rm", "rmdir", "unlink", "shred", "chmod", "chown", "chgrp", "kill", "pkill", "umount"),
    *("cat", "ls", "less", "head", "tail", "wc", "stat", "file", "du", "df", "find", "readlink", "realpath"),
    *("basename", "dirname", "grep", "egrep", "fgrep", "diff", "cmp", "sed", "awk", "cut", "sort", "uniq"),
    *("md5sum", "sha256sum", "source", ".", "dpkg", "rpm", "gpg", "printf", "log"),
))  # fmt: skip
_TO_THE_LAST = frozenset(("cp", "mv", "ln", "rsync", "scp", "install", "COPY", "ADD"))
# The first word after one is read.
_INTERPRETER = re.compile(r"[\"']?(?:.*python[\d.]*\W*|(?:ba|da|k|z)?sh|perl|ruby|node)$")
_DEFAULT = re.compile(rf"\$\{{(?:{'|'.join(DIRECTORIES)}):?[-=][\"']?$")  # what sets TMPDIR is asked first
_WRITTEN = re.compile(
    r"(?:>[>|&]?|(?:^|\s)(?:-[oOCdT]|--(?:output|out|dir|target|dest|log|cache|tmp|temp|prefix|root|file)[\w-]*)[\s=]|"
    r"\btee\s(?:-\w\s)?|\bof=)\s*[\"']?$"
)
_READ = re.compile(r"<\s*[\"']?$|\btar\s(?:-\S+\s)*-?\w*[tx]\w*f\s+[\"']?$")
_WORDS = "then|do|else|if|elif|while|until|!|RUN|CMD|HEALTHCHECK"
_BEGINS_A_COMMAND = re.compile(rf"\|\||&&|[;|&({{`\n]|(?<!\S)(?:{_WORDS})\s")
_ENDS_A_COMMAND = re.compile(r"[;|&)`\n#]")
_PREFIX = re.compile(r"^(?:(?:[A-Za-z_]\w*=\S*|sudo|env|exec|time|command|nohup|nice|-\S+|@)\s+)+")
_JOINED = re.compile(r"[\w)\]\"']\s*[~+]\s*[\"']$")  # {{ home ~ "/tmp" }}
_EXPANSION = re.compile(r"\$\([^()]*\)|\$?\{[^{}]*\}|`[^`]*`")
_QUOTED = re.compile(r"^\s*(?:\[?[\"'])*\s*")  # also as a JSON array
_NEAR, _LONGEST = 1 << 9, 1 << 12  # characters before a path in which an option, and the command's name, is looked for


def created(text: str, earlier: str = "") -> Iterator[Found]:
    """The system-temp paths that the command `text` would create or set; `earlier` is the part on lines before it."""
    for found in system_temp_paths(text):
        if creates(earlier + text[: found.start], found.path, text[found.start + len(found.path) :]):
            yield found


def creates(before: str, path: str, after: str) -> bool:
    """Whether a command would create or set `path`, which stands between `before` and `after`."""
    near = before[-_NEAR:]
    if _goes_on(before) or _DEFAULT.search(near) or _READ.search(near):
        return False
    if _WRITTEN.search(near):
        return True
    command = _QUOTED.sub("", _BEGINS_A_COMMAND.split(_EXPANSION.sub("x", before[-_LONGEST:]))[-1])
    words = [word for word in _PREFIX.sub("", command).split() if word.strip("\"'")]
    if not words:  # the path is that of the command itself, or a pattern of `case`
        return before.rstrip("\"' ").endswith("=(")
    name = words[0].rsplit("/", 1)[-1]
    if name in _TO_THE_LAST:
        rest = _ENDS_A_COMMAND.split(after)[0].split()
        return not any(word.strip("\"',]") and not word.startswith("-") for word in _whole_words(rest, after))
    if _INTERPRETER.match(name) and all(word.startswith("-") for word in words[1:]):
        return False
    return name not in _NO_CREATORS and not name.startswith("echo")


def _whole_words(words: list[str], after: str) -> list[str]:
    return words if not after or after[0].isspace() else words[1:]  # the first is the rest of the path's own word


def _goes_on(before: str) -> bool:
    """Whether a quote right before a path is a closing one, or joins it to another: `"$ROOT"/tmp`."""
    quote = before[-1:]
    if _JOINED.search(before[-_NEAR:]):
        return True
    return quote in ('"', "'", "`") and before.count(quote) % 2 == 0 and before[-2:-1] not in (quote, " ", "=", "(", "")
