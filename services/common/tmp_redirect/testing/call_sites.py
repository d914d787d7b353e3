"""Where code makes temp files: the calls of `tempfile` that leave the choice of the directory to it.

Read from the source, so that a guard can tell that its tests have reached each of them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

_FUNCTIONS = frozenset({
    "NamedTemporaryFile", "SpooledTemporaryFile", "TemporaryDirectory", "TemporaryFile", "gettempdir", "gettempdirb",
    "mkdtemp", "mkstemp", "mktemp",
})  # fmt: skip


class CallSite(NamedTuple):
    """A call: the file, its lines from `first` to `last`, and the function of `tempfile`."""

    file: Path
    first: int
    last: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.first}: tempfile.{self.function}"


def call_sites(code: Path) -> list[CallSite]:
    """The call sites in the Python files below the directory `code`, or in the file `code`.

    Raises `SyntaxError` for a file that is no Python.
    """
    files = sorted(code.rglob("*.py")) if code.is_dir() else [code]
    return [site for file in files for site in _in_file(file)]


def unreached(sites: Iterable[CallSite], executed: dict[str, set[int]]) -> list[CallSite]:
    """Those of `sites` of which no line is among the `executed` ones, by the absolute path of the file."""
    return [site for site in sites if not executed.get(str(site.file), set()) & set(range(site.first, site.last + 1))]


def _in_file(file: Path) -> Iterator[CallSite]:
    tree = ast.parse(file.read_bytes(), str(file))
    modules, functions = _names_of_tempfile(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = None
            if isinstance(node.func, ast.Name):
                function = functions.get(node.func.id)
            elif isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) in modules:
                function = node.func.attr
            if function in _FUNCTIONS and not _names_a_directory(node):
                yield CallSite(file, node.lineno, node.end_lineno or node.lineno, str(function))


def _names_of_tempfile(tree: ast.AST) -> tuple[set[str], dict[str, str]]:
    """What the module calls `tempfile`, and what it calls which of its functions."""
    modules: set[str] = set()
    functions: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name for alias in node.names if alias.name == "tempfile"}
        elif isinstance(node, ast.ImportFrom) and node.module == "tempfile":
            functions |= {alias.asname or alias.name: alias.name for alias in node.names}
    return modules, functions


def _names_a_directory(call: ast.Call) -> bool:
    return any(
        keyword.arg == "dir" and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is None)
        for keyword in call.keywords
    )
