"""Judges what is in a Python file: what ruff found, and the literals that it doesn't look at.

Ruff sees strings that begin with a directory of system temp, wherever they are. The syntax tree tells those that only
mention it (a docstring, a comparison, a message, a file that is read or removed), and has what ruff leaves out: the
arguments of `tempfile`, bytes, paths inside a string, commands.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Sequence

from ..settings import DIRECTORIES
from .finding import HARD_CODED, MKTEMP, Finding, NotChecked
from .noqa import suppressed_lines, suppresses_file
from .paths import NAMES, system_temp_paths
from .ruff import Hit
from .shell import created

_TEMPFILE = ("mkdtemp", "mkstemp", "NamedTemporaryFile", "TemporaryFile", "SpooledTemporaryFile", "TemporaryDirectory")
_COMMANDS = (
    "system", "popen", "Popen", "run", "call", "check_call", "check_output", "getoutput", "getstatusoutput",
    "create_subprocess_shell", "create_subprocess_exec",
)  # fmt: skip
_MENTIONS = frozenset((
    *("startswith", "endswith", "removeprefix", "removesuffix", "find", "index", "count", "split", "strip"),
    *("match", "fullmatch", "search", "compile", "findall", "escape", "relpath", "commonpath", "is_relative_to"),
    *("exists", "lexists", "isfile", "isdir", "islink", "is_file", "is_dir", "stat", "lstat", "access", "getsize"),
    *("listdir", "scandir", "walk", "glob", "iglob", "remove", "unlink", "rmtree", "rmdir", "read_text", "read_bytes"),
    *("debug", "info", "warning", "warn", "error", "exception", "critical", "log", "print", "echo", "fail", "skip"),
    *("statvfs", "disk_usage"),
))  # fmt: skip
_SAID = (
    "help", "description", "metavar", "epilog", "msg", "message", "match", "reason", "examples", "ids",
    "return_value", "side_effect",
)  # fmt: skip
_WORD = re.compile(
    r"[=:]$|[=:][/\w.:-]*$|^-[A-Za-z]$|^\w[\w+.-]*:/+"
)  # --dir=/tmp/x, -o/tmp/x, file:///tmp/x, /a:/tmp/x
_READING = ("r", "rb", "rt", "br")


def findings(path: str, source: bytes, hits: Sequence[Hit]) -> Iterator[Finding]:
    """What is in the file. Raises `NotChecked` if it can't be parsed."""
    unparsable = next((hit for hit in hits if hit.rule is None), None)
    if unparsable:
        raise NotChecked(f"line {unparsable.line} can't be parsed: {unparsable.message}")
    for hit in hits:
        if hit.rule == MKTEMP:
            yield Finding(path, hit.line, hit.column, MKTEMP, "a name without a file", "tempfile.mktemp")
    if any(hit.rule == HARD_CODED for hit in hits) or any(name.encode() in source for name in NAMES):
        try:
            encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
            text = source.decode(encoding)
        except (SyntaxError, ValueError, LookupError) as error:
            raise NotChecked(f"it can't be decoded: {error}") from None
        read_by_ruff = encoding.startswith("utf-8")
        try:
            file = _File(text, hits, read_by_ruff=read_by_ruff)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            if not read_by_ruff:
                raise NotChecked(f"it can't be parsed: {error}") from None
            yield from _unjudged(path, hits)  # its syntax is newer than this interpreter
        else:
            yield from file.findings(path)


def _unjudged(path: str, hits: Sequence[Hit]) -> Iterator[Finding]:
    for hit in hits:
        if hit.rule == HARD_CODED:
            literal = hit.message.partition('"')[2].rstrip('"')
            yield Finding(path, hit.line, hit.column, HARD_CODED, "hard-coded system-temp path", literal)


class _File:
    def __init__(self, text: str, hits: Sequence[Hit], *, read_by_ruff: bool) -> None:
        module = ast.parse(text)
        self._lines = re.split(r"\r\n|\r|\n", text)
        self._parents = {child: parent for parent in ast.walk(module) for child in ast.iter_child_nodes(parent)}
        self._hits = [(hit.line, hit.column) for hit in hits if hit.rule == HARD_CODED]
        self._read_by_ruff = read_by_ruff
        self._all_out = suppresses_file(text, HARD_CODED)
        self._out = suppressed_lines(self._lines, HARD_CODED)

    def findings(self, path: str) -> Iterator[Finding]:
        for node in self._parents:
            literal = _text(node)
            if literal is None or isinstance(self._parents[node], ast.JoinedStr):
                continue
            assert isinstance(node, ast.expr)  # noqa: S101 - for mypy
            found = next(system_temp_paths(literal), None)
            if found is None or self._is_said(node):
                continue
            start, end = self._place(node.lineno, node.col_offset), self._place(*_end(node))
            if any(start <= hit < end for hit in self._hits):
                is_finding = found.start == 0 and not _is_prose(literal)
            else:
                is_finding = self._ruff_misses(node, literal, found.start) and not self._is_out(node)
            if is_finding:
                yield Finding(path, *start, HARD_CODED, "hard-coded system-temp path", literal)

    def _place(self, line: int, offset: int) -> tuple[int, int]:
        return line, len(self._lines[line - 1].encode()[:offset].decode(errors="replace")) + 1

    def _is_out(self, node: ast.expr) -> bool:
        return self._all_out or not self._out.isdisjoint(range(node.lineno, _end(node)[0] + 1))

    def _ruff_misses(self, node: ast.expr, literal: str, start: int) -> bool:
        """Whether `node`, which ruff has not found, is a finding; ruff's silence may be its noqa."""
        call, keyword = self._call(node)
        name = _name(call.func) if call else ""
        if name in _TEMPFILE:
            return start == 0 and keyword in ("dir", None)
        if start == 0 and not _is_prose(literal) and (_is_bytes(node) or not self._read_by_ruff):
            return True
        if name in _COMMANDS and start > 0:
            return any(True for _ in created(literal))
        return start > 0 and not _is_prose(literal) and bool(_WORD.search(literal[:start]))

    def _is_said(self, node: ast.expr) -> bool:
        """Whether a literal only mentions a path: nothing is created there."""
        parent = self._parents[node]
        while isinstance(parent, (ast.Tuple, ast.List, ast.Set, ast.BinOp, ast.Starred)):
            parent = self._parents[parent]
        if self._is_appended(node):
            return True
        if isinstance(parent, (ast.Expr, ast.Compare, ast.Raise, ast.match_case, ast.MatchValue, ast.Assert)):
            return True
        call, keyword = self._call(node)
        if call is None:
            return False
        name, modes = _name(call.func), call.args[1:2]
        method = self._parents[call]
        if name in ("Path", "PosixPath") and isinstance(method, ast.Attribute):
            outer = self._parents[method]
            if isinstance(outer, ast.Call):
                call, name, modes = outer, method.attr, outer.args[:1]
        return (
            name in _MENTIONS
            or keyword in _SAID
            or name.startswith("assert")
            or name.endswith(("Error", "Exception", "Warning"))
            or (name == "open" and _reads(call, modes))
            or (name == "call" and parent is call)  # of a mock, or of a program
            or (name in ("get", "getenv") and bool(call.args) and _text(call.args[0]) in DIRECTORIES)
        )

    def _is_appended(self, node: ast.expr) -> bool:
        """Whether `node` goes on with a path that isn't known: `root + "/tmp"`."""
        sum_ = self._parents[node]
        if not isinstance(sum_, ast.BinOp) or not isinstance(sum_.op, ast.Add) or sum_.right is not node:
            return False
        return not (_text(sum_.left) or "").endswith(("=", " ", ":"))

    def _call(self, node: ast.expr) -> tuple[ast.Call | None, str | None]:
        """The call that `node` is an argument of, also in a list or an expression, and the keyword if it has one."""
        parent = self._parents[node]
        while isinstance(parent, (ast.Tuple, ast.List, ast.BinOp, ast.Starred)):
            parent = self._parents[parent]
        keyword = None
        if isinstance(parent, ast.keyword):
            keyword, parent = parent.arg, self._parents[parent]
        if isinstance(parent, ast.Attribute):  # "/tmp/{}".format
            parent = self._parents[parent]
        return (parent, keyword) if isinstance(parent, ast.Call) else (None, None)


def _text(node: ast.AST) -> str | None:
    """What a literal says; what an f-string puts in is `{}`."""
    if isinstance(node, ast.JoinedStr) or type(node).__name__ == "TemplateStr":
        return "".join(_text(part) or "{}" for part in node.values)  # type: ignore[attr-defined]
    if not isinstance(node, ast.Constant):
        return None
    if isinstance(node.value, bytes):
        return node.value.decode("utf-8", "surrogateescape")
    return node.value if isinstance(node.value, str) else None


def _end(node: ast.expr) -> tuple[int, int]:
    return node.end_lineno or node.lineno, node.end_col_offset or node.col_offset


def _is_bytes(node: ast.expr) -> bool:
    return (isinstance(node, ast.Constant) and isinstance(node.value, bytes)) or type(node).__name__ == "TemplateStr"


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _is_prose(literal: str) -> bool:
    """A path in system temp hardly ever has a blank in it; a sentence or a command has."""
    return len(literal.split()) > 1


def _reads(call: ast.Call, modes: Sequence[ast.expr]) -> bool:
    modes = [*modes, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    return all(_text(mode) in _READING for mode in modes)
