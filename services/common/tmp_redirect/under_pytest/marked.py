"""What the marker allows: to a test, and to fixtures of wider scopes."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

import pytest

from . import options
from .tolerance import Tolerance

T = TypeVar("T")


class Marked:
    """The hooks that let violations happen where the marker stands."""

    def __init__(self, tolerance: Tolerance) -> None:
        self._tolerance = tolerance

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, T, T]:
        """Let a marked test and its children do it, from its setup to its teardown."""
        with self._tolerance.switched(on=any(options.reasons(item))):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, T, T]:
        """Let a fixture do it where the marker is on all of its scope.

        Which test a session's fixture begins and ends with is chance, under xdist more so.
        """
        if fixturedef.scope == "function":
            return (yield)
        on = any(options.reasons(request.node))
        before: list[bool] = []
        fixturedef.addfinalizer(lambda: before and self._tolerance.switch(on=before.pop()))  # called after its own
        with self._tolerance.switched(on=on):
            result = yield
        fixturedef.addfinalizer(lambda: before.append(self._tolerance.switch(on=on)))
        return result
