"""The flag, the ini option and the marker, which exist whether or not system temp is watched.

`tmp_redirect_pytest.py` runs this file from its path, without the package around it: so it imports nothing of it.
"""

from __future__ import annotations

import sys

import _pytest.nodes
import pytest

NAME = "tmp_redirect options"
MARKER = "allow_system_tmp"
CHOICES = ("refuse", "allow")


def register(pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the options, once."""
    if not pluginmanager.has_plugin(NAME):
        pluginmanager.register(sys.modules[__name__], NAME)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flag and the ini option."""
    parser.getgroup("tmp_redirect").addoption(
        "--system-tmp",
        choices=CHOICES,
        help="refuse: a test that would create something in system temp fails. allow: it may, and is listed.",
    )
    parser.addini("system_tmp", help="as --system-tmp: refuse or allow", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers", f"{MARKER}(reason): the test may create files in system temp, for the reason that is given"
    )


def choice(config: pytest.Config) -> str | None:
    """What the flag, else the ini option says; `None` where neither does. Raises `pytest.UsageError`."""
    for namespace in (config.option, getattr(config, "known_args_namespace", None)):
        flag = getattr(namespace, "system_tmp", None)
        if flag is not None:
            return str(flag)
    if getattr(config, "known_args_namespace", None) is None:
        return None  # the ini file is not read yet
    ini = config.getini("system_tmp")
    if ini and ini not in CHOICES:
        raise pytest.UsageError(f"system_tmp = {ini!r} in {config.inipath} is not allowed: refuse or allow")
    return ini or None


def reasons(node: _pytest.nodes.Node) -> list[str]:
    """The reasons of the markers that stand on a test, its class and its module; "" for one that gives none."""
    given = (mark.kwargs.get("reason", mark.args[0] if mark.args else "") for mark in node.iter_markers(MARKER))
    return [reason.strip() if isinstance(reason, str) else "" for reason in given]
