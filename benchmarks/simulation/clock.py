"""Virtual time: greenlets that wait for a moment of it, and are woken in that order."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

from greenlet import GreenletExit, getcurrent, greenlet


class Clock:
    """`time` is that of the event which is being worked on, in seconds; `end` is when nothing is woken any more."""

    def __init__(self, time: float = 0.0) -> None:
        self.time = time
        self.end = float("inf")
        self._numbers = count()  # of two that wait for the same moment the first comes first
        self._waiting: list[tuple[float, int, greenlet]] = []
        self._loop = getcurrent()
        self._is_over = False

    def at(self, time: float, function: Callable[[], object]) -> None:
        """Have `function` run in a greenlet of its own from that time on."""
        heapq.heappush(self._waiting, (time, next(self._numbers), greenlet(function, self._loop)))

    def wait(self, time: float) -> None:
        """Let others go on until it's that time; to be called in a greenlet of this clock."""
        if self._is_over:
            raise GreenletExit
        if time > self.end or (self._waiting and self._waiting[0][0] < time):
            heapq.heappush(self._waiting, (time, next(self._numbers), getcurrent()))
            self._loop.switch()
        else:
            self.time = max(self.time, time)

    def run(self, end: float = float("inf")) -> None:
        """Until nobody waits, or it's `end`: who still waits then can go on with another call."""
        self._loop, self.end = getcurrent(), end
        while self._waiting and self._waiting[0][0] <= end:
            time, _, waiting = heapq.heappop(self._waiting)
            self.time = max(self.time, time)
            waiting.parent = self._loop
            waiting.switch()

    def abandon(self) -> None:
        """End all who wait. Left to the garbage collector they'd end when the real file system is in place again."""
        self._is_over, self._loop = True, getcurrent()
        for _, _, waiting in self._waiting:
            waiting.parent = self._loop
            waiting.throw()
        self._waiting.clear()
