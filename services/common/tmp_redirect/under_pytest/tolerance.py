"""Whether violations may happen at the moment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..guard import tolerate


class Tolerance:
    """`on` says whether they may, in this process and in children that it starts; switched by `switch`."""

    def __init__(self) -> None:
        self.on = False
        self._all = False
        self._mode = os.environ.get("TMP_REDIRECT", "enforce")

    def switch(self, *, on: bool) -> bool:
        """Let them happen, or no more; returns what it was before."""
        before, self.on = self.on, on or self._all
        if self.on != before:
            tolerate(on=self.on or self._mode == "warn")  # of a session around this one, perhaps
            os.environ["TMP_REDIRECT"] = "warn" if self.on else self._mode
        return before

    @contextmanager
    def switched(self, *, on: bool) -> Iterator[None]:
        """Let them happen, or not, for a while."""
        before = self.switch(on=on)
        try:
            yield
        finally:
            self.switch(on=before)

    def allow_all(self, *, on: bool) -> None:
        """Let them happen whatever is switched, or no more."""
        self._all = on
        self.switch(on=False)
