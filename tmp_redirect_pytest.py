"""The pytest plugin where it is merely installed: does nothing until a flag, an ini option or the environment asks.

The entry point leads here rather than into the package. Pytest imports what an entry point names, in every test run;
and the package's parents are those of the system that the shim is laid over: `services/common/__init__.py` there
connects to Redis and may end the process. So the package is loaded from its path without them, as sitecustomize does.

PYTEST_DONT_REWRITE: there is nothing to rewrite.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pytest

PACKAGE = "services.common.tmp_redirect"
_DIRECTORY = Path(__file__).resolve().parent.joinpath(*PACKAGE.split("."))
T = TypeVar("T")


def _load(name: str, path: Path) -> ModuleType:
    """The module `name`, from the cache or from its path."""
    if name in sys.modules:
        return sys.modules[name]
    spec: Any = spec_from_file_location(name, path)
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_options = _load("tmp_redirect_pytest_options", _DIRECTORY / "under_pytest" / "options.py")


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the options, which exist also where nothing is watched."""
    _options.register(pluginmanager)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # before pytest opens the temp files that it captures output in
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, T, T]:
    """Load the plugin if it is asked for, before any conftest."""
    chosen = _options.choice(early_config) is not None
    named = "tmp_redirect" in early_config.known_args_namespace.plugins
    if chosen or named or os.environ.get("TMP_REDIRECT", "") not in ("", "off"):
        _load(PACKAGE, _DIRECTORY / "__init__.py")
        early_config.pluginmanager.import_plugin(f"{PACKAGE}.pytest_plugin")
    return (yield)
