"""How long an NFS server takes: a network in between, and a queue where more is asked for than it can do at once."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from benchmarks.simulation.clock import Clock
from benchmarks.simulation.file_system import Inode

T = TypeVar("T")


@dataclass(frozen=True)
class Model:
    """Parameters; times in seconds. Where the defaults are from is in docs/scale.md."""

    round_trip: float = 0.0005  # network and protocol, there and back
    commit: float = 0.002  # a change, until it is in stable storage
    operations: int = 55_000  # a second, of any kind
    changes: int = 25_000  # a second
    service: float = 0.0001  # the server's processor, for an operation
    readdir: int = 128  # entries that one READDIR brings
    one_by_one: int = 0  # 1: changes of a directory one at a time, each until it is in stable storage
    spread: float = 0.5  # of the times: 0 none, 1 exponential; their mean stays
    directory_seconds: float = 30.0  # acdirmin of nfs(5)
    file_seconds: float = 3.0  # acregmin


class Station:
    """Does so many things at once that it is `rate` a second where each takes `seconds`."""

    def __init__(self, rate: int, seconds: float) -> None:
        slots = max(1, round(rate * seconds))
        self.seconds = slots / rate
        self._free = [0.0] * slots

    def take(self, now: float, seconds: float) -> float:
        """When it begins with what takes `seconds` and has come `now`."""
        begin = max(now, self._free[0])
        heapq.heapreplace(self._free, begin + seconds)
        return begin


class Server:
    """`calls` counts the operations by their kind, `changes` those that have changed something."""

    def __init__(self, clock: Clock, model: Model, seed: int = 0) -> None:
        self.clock = clock
        self.model = model
        self.calls: Counter[str] = Counter()
        self.changes = 0
        self._processor = Station(model.operations, model.service)
        self._storage = Station(model.changes, model.commit)
        self._random = random.Random(seed)  # noqa: S311

    def call(
        self,
        kind: str,
        now: float,
        action: Callable[[], T],
        wait: Callable[[float], None],
        changing: Sequence[Inode] = (),
    ) -> tuple[T, float]:
        """What `action` returns, and when the caller has its answer. Raises what it raises, as `Refused`.

        `changing` are the directories that it changes.
        """
        half = self._vary(self.model.round_trip) / 2
        wait(now + half)
        begin = self._processor.take(self.clock.time, self._processor.seconds)
        seconds = self._vary(self._storage.seconds) if kind in CHANGES else 0.0
        if self.model.one_by_one:
            for directory in changing:
                begin = max(begin, directory.free)
            for directory in changing:
                directory.free = begin + self._processor.seconds + seconds
        if begin > self.clock.time:
            wait(begin)
        self.calls[kind] += 1
        end = begin + self._processor.seconds
        try:
            result = action()
        except OSError as error:
            raise Refused(error, end + half) from None
        if kind in CHANGES:
            self.changes += 1
            end = self._storage.take(end, seconds) + seconds
        return result, end + half

    def _vary(self, seconds: float) -> float:
        spread = self.model.spread
        return seconds * (1 - spread + spread * self._random.expovariate(1)) if spread else seconds


class Refused(Exception):  # noqa: N818 - it carries the error
    """An operation that has failed, of which the caller knows at `time`."""

    def __init__(self, error: OSError, time: float) -> None:
        super().__init__(error, time)
        self.error = error
        self.time = time


CHANGES = frozenset({"OPEN new", "CREATE", "REMOVE", "RENAME", "SETATTR"})
