"""The settings: environment variables, read once per process."""

import os

TYPE_CHECKING = False  # typing would be an import at every interpreter start
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_NAMES = ("/tmp", "/var/tmp", "/usr/tmp")  # noqa: S108 - these are what the shim keeps programs out of


def _with_what_they_resolve_to() -> tuple[str, ...]:
    # realpath would cost 40 µs of each interpreter start, and hardly ever is one of these a link.
    for path in ("/tmp", "/var", "/var/tmp", "/usr", "/usr/tmp"):  # noqa: S108
        try:
            os.readlink(path)
        except OSError:
            continue
        return tuple(dict.fromkeys((*_NAMES, *map(os.path.realpath, _NAMES))))
    return _NAMES


SYSTEM_TEMP = _with_what_they_resolve_to()
SYSTEM_TEMP_PREFIXES = tuple(directory + "/" for directory in SYSTEM_TEMP)
TMP = "tmp"  # of a workflow's directory: the workspace
OUTSIDE = ".outside"  # a workflow id can't start with a dot
CACHE = ".cache"
LEASES = ".leases"
TRASH = ".trash"
VARIABLES = (
    "TMP_REDIRECT", "TMP_REDIRECT_ROOT", "TMP_REDIRECT_GUARD", "TMP_REDIRECT_ALLOW", "TMP_REDIRECT_SERVICE",
    "TMP_REDIRECT_OUTSIDE", "TMP_REDIRECT_WORKFLOW_FROM", "TMP_REDIRECT_KEEP", "TMP_REDIRECT_TTL",
    "TMP_REDIRECT_DIR_MODE", "TMP_REDIRECT_MIN_FREE", "TMP_REDIRECT_SOCKET_DIR", "TMP_REDIRECT_SCOPE",
)  # fmt: skip
DIRECTORIES = ("TMPDIR", "TMP", "TEMP", "TEMPDIR")  # in which other programs are told where temp files go
MODES = ("off", "warn", "enforce")
KEEPS = ("all", "failed", "none")
_WORDS = {"mode": MODES, "keep": KEEPS}


class Settings:
    """One attribute a variable; see the table in docs/settings.md. An empty variable counts as unset.

    `inherited` are the variables that name a temp directory, as they were when the settings were read.

    Raises `SettingsError` for the first variable that holds what it may not.
    """

    mode = "off"
    root = "/share/workflows"
    guard: tuple[str, ...] = ("calls",)
    allow: tuple[str, ...] = ()
    service = ""  # the host name, if it is not set
    outside = "service"
    workflow_from: tuple[tuple[str, ...], ...] = (
        ("kwargs", "context", "workflow_id"), ("args", "0", "workflow_id"), ("kwargs", "workflow_id"),
        ("header",), ("root_id",),
    )  # fmt: skip
    keep = "failed"
    ttl = 24 * 3600
    dir_mode = 0o700
    min_free = 0
    socket_dir = "/dev/shm/tmp-redirect"  # noqa: S108
    scope: str | None = None

    def __init__(self, environ: "Mapping[str, str]") -> None:
        self.inherited = {name: environ.get(name) for name in DIRECTORIES}
        for name in VARIABLES:
            value: "Any" = environ.get(name)
            if value:
                attribute = name[len("TMP_REDIRECT_") :].lower() or "mode"
                if not _is_plain(attribute, value):
                    from .setting_values import parse

                    value = parse(name, value)
                setattr(self, attribute, value)
        if not self.service:
            self.service = (os.uname().nodename if hasattr(os, "uname") else "") or "unnamed"

    def workspace_of(self, workflow: str | None) -> str:
        """`<root>/<workflow id>/tmp`, or outside any workflow `<root>/.outside/<service>/tmp`; it need not exist."""
        return f"{self._directory_of(workflow)}/{TMP}"

    def leases_of(self, workflow: str | None) -> str:
        """`<root>/.leases/<workflow id>`, or outside any `<root>/.leases/.outside/<service>`; it need not exist."""
        return "/".join((self.root, LEASES, *self.place_of(workflow)))

    def place_of(self, workflow: str | None) -> tuple[str, ...]:
        """The names that lead from the root to the directory that a workspace is in."""
        return (OUTSIDE, self.service) if workflow is None else (workflow,)

    def cache_of(self, library: str) -> str:
        """`<root>/.cache/<library>`, which all workflows and services share; it need not exist."""
        return f"{self.root}/{CACHE}/{library}"

    def for_service(self, service: str) -> "Settings":
        """The same settings as another service has them."""
        other = object.__new__(Settings)
        other.__dict__.update(self.__dict__, service=service)
        return other

    def is_foreign(self, path: str, workflow: str | None) -> bool:
        """Whether the absolute, normalised `path` is in the root, but not in the directory of `workflow`."""
        return is_below(path, self.root) and not is_below(path, self._directory_of(workflow))

    def _directory_of(self, workflow: str | None) -> str:
        return "/".join((self.root, *self.place_of(workflow)))


_current: Settings | None = None


def current() -> Settings:
    """The settings of this process, read at the first call. Raises `SettingsError`."""
    global _current
    if _current is None:
        _current = Settings(os.environ)
    return _current


def forget() -> None:
    """Let the next `current()` read the environment again: a new installation begins."""
    global _current
    _current = None


def is_below(path: str, directory: str) -> bool:
    """Whether the absolute, normalised `path` is `directory` or lies below it."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def is_system_temp(path: str) -> bool:
    """Whether the absolute, normalised `path` is a system temp directory or lies below one."""
    return path in SYSTEM_TEMP or path.startswith(SYSTEM_TEMP_PREFIXES)


def _is_plain(attribute: str, value: str) -> bool:
    """Whether `value` is certainly one that its parser would take as it is.

    It nearly always is, and not loading the parsers saves 0.1 ms of each interpreter start.
    """
    if attribute in _WORDS:
        return value in _WORDS[attribute]
    if attribute == "root":
        plain = value[:1] == "/" != value[-1] and value.isprintable() and value not in SYSTEM_TEMP
        return plain and "//" not in value and "/." not in value
    return (
        attribute in ("service", "scope") and value.isascii() and value.replace("-", "").isalnum() and len(value) < 99
    )
