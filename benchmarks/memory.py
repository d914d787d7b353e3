"""Whether a worker grows with the number of workflows that it has seen: memory, time, descriptors, files in the root.

One process runs tasks of distinct workflows, each with everything that the default settings bring: the workspace is
made and leased, and as the workflow ends with the task, it is taken away again. Memory is read after the first of
them, when all is loaded and warm, and again after ever more. Beside it stands the same worker without the shim, which
takes turns with it: its growth is Celery's own.

In a solo worker the process that runs tasks is also the one that fetches them, so it has more of its own to keep.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.batches import ABSENT, ON, Batches, Kind, environments, workers
from benchmarks.figures import BYTES, COUNT, Row, Target, compare
from benchmarks.sides import Sides

FIRST, MOST = 1_000, 100_000
POINTS = (FIRST, 3_000, 10_000, 30_000, MOST)
POOLS = {"prefork": MOST, "solo": 10_000}
CHUNK = 2_000  # messages in the queue at once
RSS, PSS, DESCRIPTORS, ENTRIES = "RSS", "PSS", "descriptors", "entries in the root"
LOOKS = {
    RSS: (BYTES, Target(added=2**20)),
    PSS: (BYTES, Target(added=2**20)),
    DESCRIPTORS: (COUNT, Target(added=0)),
    ENTRIES: (COUNT, Target(added=0)),
}


def measure(version: str, sides: Sides, most: int = MOST) -> Iterator[Row]:
    """The rows of workers that have run up to `most` tasks each, for the interpreter that runs this."""
    for pool, tasks in POOLS.items():
        points = [point for point in POINTS if point <= min(most, tasks)]
        seen: dict[str, list[dict[str, int]]] = {ABSENT: [], ON: []}
        with workers(sides, environments(sides), pool) as batches:
            done = 0
            for point in points:
                seconds: dict[str, list[float]] = {ABSENT: [], ON: []}
                while done < point:
                    chunk = min(CHUNK, point - done)
                    for name, taken in seconds.items():
                        taken.append(batches.run(Kind(name), chunk))
                    done += chunk
                for name, looks in seen.items():
                    looks.append(_look(batches, name, sides.directory / "root"))
                yield compare(version, f"{pool} worker, a task", seconds[ON], seconds[ABSENT], at=point)
                shim, stock = ([seen[name][-1][RSS]] for name in (ON, ABSENT))
                yield compare(version, f"{pool} worker, {RSS}", shim, stock, unit=BYTES, at=point)
        for name, looks in seen.items():
            shown = f"{pool} worker, {'shim' if name == ON else 'no shim'}, after {points[-1]:,} tasks; {FIRST:,}"
            for what, (unit, target) in LOOKS.items():
                if name == ON or what != ENTRIES:
                    limit = target if name == ON else Target()
                    yield compare(version, f"{shown}: {what}", [looks[-1][what]], [looks[0][what]], limit, unit)


def _look(batches: Batches, queue: str, root: Path) -> dict[str, int]:
    """What there is now of each of `LOOKS`: PSS is what it shares with others, divided by their number."""
    process = Path("/proc") / batches.process(queue)
    time.sleep(1)  # until it has told the worker's main process of the end
    lines = (process / "smaps_rollup").read_text().splitlines()
    kibibytes = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
    return {
        RSS: 1024 * kibibytes["Rss"],
        PSS: 1024 * kibibytes["Pss"],
        DESCRIPTORS: len(list((process / "fd").iterdir())),
        ENTRIES: _entries(root),
    }


def _entries(root: Path) -> int:
    """How many entries there are in the root, its leases and the trash: where workflows leave something behind."""
    return sum(
        len(list(directory.iterdir())) for directory in (root, root / ".leases", root / ".trash") if directory.exists()
    )
