"""The shim in pytest's process for the length of a session, and everything as it was before afterwards."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile

import pytest

from .. import startup
from ..errors import KernelLayerError, SettingsError, WorkspaceError
from ..location import AUTOLOAD
from ..settings import SYSTEM_TEMP_PREFIXES, Settings, current
from ..workspace import check_root


class Environment:
    """Changes of `os.environ`, and what was there before."""

    def __init__(self) -> None:
        self._before: dict[str, str | None] = {}

    def set(self, name: str, value: str) -> None:
        """Set a variable, here and so for children."""
        self._before.setdefault(name, os.environ.get(name))
        os.environ[name] = value

    def restore(self) -> None:
        """Put all variables back."""
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._before.clear()


class Shim:
    """Installs the shim where it isn't at work, with a root of its own where there is none."""

    def __init__(self) -> None:
        self.temporary_root: str | None = None
        self._environment = Environment()
        self._was_active = startup.is_active()
        self._reinstalled = False
        self._allowed: tuple[str, ...] | None = None

    def start(self) -> None:
        """Raises `pytest.UsageError`, and leaves everything as it was, where it can't be installed."""
        try:
            self._install()
            settings = current()
            check_root(settings)
            if settings.outside == "raise":
                raise SettingsError(
                    "TMP_REDIRECT_OUTSIDE",
                    "raise",
                    "pytest itself needs temp files outside any workflow, for tmp_path and to capture output",
                )
        except (SettingsError, WorkspaceError, KernelLayerError) as error:
            self.stop()
            raise pytest.UsageError(f"tmp_redirect: {' '.join(str(error).split())}") from None
        self._allowed = settings.allow

    def stop(self) -> None:
        """Put everything back, and remove the root if it was made here."""
        if self._reinstalled:
            startup.uninstall()
        elif self._allowed is not None and startup.is_active():
            current().allow = self._allowed
        self._environment.restore()
        if self._reinstalled and self._was_active:
            startup.install()
        self.remove_root()

    def remove_root(self) -> None:
        """Remove the root if it was made here."""
        if self.temporary_root is not None:
            shutil.rmtree(self.temporary_root, ignore_errors=True)
            self.temporary_root = None

    def allow(self, directories: list[str]) -> None:
        """Let files be created below those `directories` that are below system temp."""
        settings = current()
        new = [path for path in directories if path.startswith(SYSTEM_TEMP_PREFIXES) and path not in settings.allow]
        if new:
            settings.allow = (*settings.allow, *new)
            self._environment.set("TMP_REDIRECT_ALLOW", ":".join(path for path in settings.allow if ":" not in path))

    def _install(self) -> None:
        rootless = not os.environ.get("TMP_REDIRECT_ROOT") and not os.path.isdir(Settings.root)
        if not self._was_active or rootless:
            startup.uninstall()  # which forgets the settings, too
            self._reinstalled = True
            if not os.environ.get("TMP_REDIRECT"):
                self._environment.set("TMP_REDIRECT", "enforce")
            if rootless:
                self.temporary_root = tempfile.mkdtemp(prefix="tmp-redirect-pytest-")
                self._environment.set("TMP_REDIRECT_ROOT", self.temporary_root)
            startup.install()
        if not _is_found_by_children():
            rest = os.environ.get("PYTHONPATH")
            self._environment.set("PYTHONPATH", f"{AUTOLOAD}{os.pathsep}{rest}" if rest else AUTOLOAD)


def _is_found_by_children() -> bool:
    """Whether an interpreter that is started from here runs our sitecustomize, as this one did or by PYTHONPATH."""
    started_with = getattr(sys.modules.get("sitecustomize"), "__file__", None) or ""
    named = [os.path.abspath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return AUTOLOAD in named or os.path.dirname(os.path.abspath(started_with)) == AUTOLOAD
