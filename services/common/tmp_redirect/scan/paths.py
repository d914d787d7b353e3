"""Finds the paths in a text that are in system temp.

A path is taken whole, from its first slash on, so that the end of another path is none: `/share/workflows/x/tmp/y`.
What stands before that slash decides whether the path begins there: `./tmp`, `$ROOT/tmp` and `https://host/tmp` don't.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from ..settings import SYSTEM_TEMP, is_system_temp

NAMES = tuple({os.path.basename(directory) for directory in SYSTEM_TEMP})  # every path in system temp has one of them

_STOPS = (
    r"""\s"'`<>|;,:=&?#\\()\[\]{}\x00-\x20\x7f-\xa1\xab\xb7\xbb\xbf"""
    r"\u2000-\u206f\u2190-\u21ff\u2500-\u257f\u27f0-\u27ff\u2900-\u297f"  # dashes and quotes, arrows, boxes
    r"\u3000-\u3004\u3008-\u3020\u3030\u303d-\u303f"  # the punctuation of Chinese, and what is as wide
    r"\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
)
_PAIRS = r"\([^()\s/]*\)|\[[^\[\]\s/]*\]|\{[^{}\s/]*\}"
# JSON may escape slashes, also in JSON.
_TOKEN = re.compile(rf"\\{{0,3}}/(?:[^{_STOPS}]+|\\{{1,3}}(?=/)|{_PAIRS})*")
_ESCAPES = re.compile(r"\\+(?=/)")
_END_OF_SENTENCE = re.compile(r"(?<=[^/.!])[.!]+$")
_UNSPACED = re.compile("[\u2e80-\U0010ffff]")  # 写入/tmp目录 is about /tmp: no blank ends the path
_LETTERS = "A-Za-z0-9_\u00aa\u00b5\u00ba\u00c0-\u1fff"  # of scripts that separate words by blanks
_LONGEST = 4096  # PATH_MAX
_BEFORE = 200  # characters before a path that are looked at

_GOES_ON = re.compile(
    rf"""(?:
      (?<!\\)[{_LETTERS}]                      # sub/tmp, $ROOT/tmp, host:80/tmp
    | \\[^\Wnrt]                               # C:\x/tmp; but \n, \r and \t are escaped blanks
    | [.~*]                                    # ./tmp, ~/tmp, */tmp
    | \$\([^()]*\) | [$%\#]?\{{[^{{}}]*\}}+    # $(pwd)/tmp, ${{ROOT}}/tmp, {{root}}/tmp
    | \$[@*!$?\#-]                             # $@/tmp
    | ://\[[0-9A-Fa-f:.]*\]                    # http://[::1]/tmp
    | (?:^|[^{_LETTERS}/.~-])[A-Za-z]:         # C:/tmp
    )$""",
    re.VERBOSE,
)
_BLANKS = " \t\"'"  # before most paths; also nothing
_SHORT_OPTION = re.compile(r"(?:^|[\s\"'=,])-[A-Za-z]$")  # cc -I/tmp/include
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:$")
_REMOTE = re.compile(r"\b(?:hdfs|viewfs|s3[an]?|gs|abfss?|wasbs?|dbfs):$", re.IGNORECASE)  # their URLs need no host
_SQLITE = re.compile(r"\bsqlite(?:\+\w+)?:$")  # sqlite:///tmp/x is below the working directory, sqlite:////tmp/x isn't
_REQUEST = re.compile(r".*\b(?:GET|HEAD|POST|PUT|DELETE|PATCH|OPTIONS) $")
_PROTOCOL = re.compile(r"\S* HTTP/\d")


class Found(NamedTuple):
    """A path in system temp, and where it begins in the text."""

    start: int
    path: str


def system_temp_paths(text: str) -> Iterator[Found]:
    """Each path of `text` that is in system temp, in order, as it is written there but for escaped slashes."""
    for token in _TOKEN.finditer(text):
        written = _ESCAPES.sub("", token.group()[:_LONGEST])
        if not any(name in written for name in NAMES):
            continue
        before = text[max(0, token.start() - _BEFORE) : token.start()]
        if written.startswith("//") and _SCHEME.search(before):
            local = _file_of_url(before, written)
        elif not _begins(before) or (_REQUEST.match(before[-9:]) and _PROTOCOL.match(text, token.end())):
            continue
        else:
            local = written
        path = _in_system_temp(local)
        if path:
            yield Found(token.start() + len(written) - len(local), path)


def _begins(before: str) -> bool:
    """Whether a slash after `before` is the first of a path."""
    if before[-1:] in _BLANKS:
        return True
    return not _GOES_ON.search(before) or bool(_SHORT_OPTION.search(before))


def _file_of_url(scheme: str, rest: str) -> str:
    """The path of the file that a URL is for; empty if it is another host's."""
    host, slash, path = rest[2:].partition("/")
    if host not in ("", "localhost") or _REMOTE.search(scheme):
        return ""
    return path if _SQLITE.search(scheme) else slash + path


def _in_system_temp(written: str) -> str | None:
    """The part of `written` that is a path in system temp."""
    if not written.startswith("/"):
        return None
    whole = _END_OF_SENTENCE.sub("", written)
    for path in (whole, _UNSPACED.split(whole, maxsplit=1)[0]):
        if is_system_temp("/" + os.path.normpath(path).lstrip("/")):
            return path
    return None
