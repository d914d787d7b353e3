"""The pytest plugin: a test that would create something in system temp fails, even if its code swallows the error.

`-p services.common.tmp_redirect.pytest_plugin` and `PYTEST_PLUGINS` ask for it: it is at work from there on, and with
it the shim. Where the distribution is merely installed, `tmp_redirect_pytest.py` loads it if something asks for it.

PYTEST_DONT_REWRITE: this may be imported before pytest marks what it rewrites, which it then warns about.
"""

from __future__ import annotations

import os

import pytest

from .under_pytest import options, plugin


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    """Go to work, unless `TMP_REDIRECT=off` says no; this hook is called when a plugin is registered."""
    options.register(pluginmanager)
    if os.environ.get("TMP_REDIRECT") != "off":
        plugin.activate(pluginmanager)


def pytest_report_header() -> str | None:
    """Say that nothing is watched, where that was asked for."""
    off = os.environ.get("TMP_REDIRECT") == "off"
    return "tmp_redirect: off, as TMP_REDIRECT says: system temp is not watched" if off else None
