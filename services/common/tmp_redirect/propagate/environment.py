"""The variables that tell other programs where temp files go, and a Python child which workflow it runs for.

Native code (`getenv`), `os.system` and children read the environment. In a process that runs one task at a time,
`os.environ` itself follows the scope. Elsewhere it is shared by workflows, and each child is given its own.
"""

import os
import threading

from ..errors import WorkspaceError
from ..patches import installed, loading
from ..scope import Scope, current, workspace
from ..settings import DIRECTORIES, is_system_temp
from ..settings import current as current_settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

SCOPE = "TMP_REDIRECT_SCOPE"


def for_child(environ: "Mapping[Any, Any] | None") -> "Mapping[Any, Any] | None":
    """What a child of the running code is given for the environment that its caller asked for.

    `None` stands for `os.environ`. The caller's mapping is never changed: it is returned as it is where it suits the
    scope, otherwise a copy of it. Outside any workflow, an environment that was made from nothing stays as it is.
    """
    if environ is not None and not hasattr(environ, "items"):
        return environ  # not what subprocess takes: it says so itself
    base = os.environ if environ is None else environ
    changes = changes_for_child(base)
    if not changes:
        return environ
    taken = {*changes, *map(os.fsencode, changes)}
    kept = {name: value for name, value in _items(base) if name not in taken}
    return kept | {name: value for name, value in changes.items() if value is not None}


def changes_for_child(environ: "Mapping[Any, Any]") -> dict[str, str | None]:
    """What a child of the running code is to see otherwise than in `environ`, `None` for what it is not to see."""
    if installed() is None:
        return {}  # uninstalled, but bound by name before
    scope = current()
    changes: dict[str, str | None] = {}
    if _get(environ, "TMP_REDIRECT") is None:  # made from nothing, not from an environment of ours
        if scope.workflow is None:
            return {}
        ours = {name: value for name, value in _items(os.environ) if name.startswith("TMP_REDIRECT")}
        changes |= {name: value for name, value in ours.items() if _get(environ, name) is None}
    for name, wanted in _variables(scope).items():
        found = _get(environ, name)
        if found != wanted and not (name in DIRECTORIES and _is_meant(name, found, scope)):
            changes[name] = wanted
    return changes


def change(changes: dict[str, str | None]) -> None:
    """Change `os.environ`."""
    for name, value in changes.items():
        if value is None:
            if name in os.environ:  # pop would decode what nobody wants
                del os.environ[name]
        elif os.environ.get(name) != value:
            os.environ[name] = value


class Environment:
    """The variables of this process as they were, and what they are while a workflow runs.

    For a process that runs one task at a time, in the thread that makes this. What to set follows from the scope
    alone, so nothing that goes wrong in one task changes what the next one gets.
    """

    def __init__(self) -> None:
        settings = current_settings()
        self._outside: dict[str, str | None] = {SCOPE: None}
        for name in DIRECTORIES:
            value = os.environ.get(name)
            foreign = value is not None and settings.is_foreign(os.path.abspath(value), None)
            self._outside[name] = None if foreign else value
        self._thread = threading.get_ident()
        self._first: str | None = None

    def follow(self, scope: Scope) -> None:
        """Set the variables for `scope`; outside a workflow, as they were. Threads of a task change nothing."""
        if threading.get_ident() == self._thread:
            if scope.workflow is None:
                change(self._outside)
            elif self._first in (None, scope.workflow):  # many a process has only one, and ctypes is dear to load
                self._first = scope.workflow
                change(_variables(scope))
            else:
                with loading:
                    from .putenv import put

                put(SCOPE, scope.workflow)
                directory = _directory(scope)
                for name in DIRECTORIES:
                    put(name, directory)


def _variables(scope: Scope) -> dict[str, str | None]:
    return {SCOPE: scope.workflow, **dict.fromkeys(DIRECTORIES, _directory(scope))}


def _directory(scope: Scope) -> str:
    """The workspace; where it can't be had, its path all the same: to start a child is not to ask for a temp file."""
    prepared = scope.prepared  # read once: another thread may leave the scope
    if prepared is None:
        try:
            return workspace()
        except WorkspaceError:
            return current_settings().workspace_of(scope.workflow)
    return prepared


def _is_meant(name: str, value: str | None, scope: Scope) -> bool:
    """Whether the program put this directory there on purpose, rather than having inherited or copied it."""
    settings = current_settings()
    if not value or value == settings.inherited.get(name):
        return False
    path = os.path.abspath(value)
    in_root = path.startswith(settings.root + "/")
    return not settings.is_foreign(path, scope.workflow) and (in_root or not is_system_temp(path))


def _items(environ: "Mapping[Any, Any]") -> "Iterable[tuple[Any, Any]]":
    """The variables; of `os.environ` also while another thread removes some, where its `items` raises `KeyError`."""
    if environ is not os.environ:
        return environ.items()
    found = ((name, environ.get(name)) for name in environ)
    return ((name, value) for name, value in found if value is not None)


def _get(environ: "Mapping[Any, Any]", name: str) -> str | None:
    """The value of a variable; subprocess takes names and values as bytes, too."""
    value = environ.get(name)
    if value is None and environ is not os.environ:
        value = environ.get(os.fsencode(name))
    return value if value is None or isinstance(value, str) else os.fsdecode(value)
