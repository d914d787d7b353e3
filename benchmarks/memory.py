"""Whether a worker grows with the number of workflows that it has seen: memory, descriptors, and files in the root.

One process runs tasks of distinct workflows, each with everything that the default settings bring: the workspace is
made and leased, and as the workflow ends with the task, it is taken away again. Memory is read after the first of
them, when all is loaded and warm, and again after very many. Beside it stands the same worker without the shim: its
growth is Celery's own.

In a solo worker the process that runs tasks is also the one that fetches them, so it has more of its own to keep.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.celery_tasks import ABSENT, APP, environments
from benchmarks.figures import BYTES, COUNT, Row, Target, compare
from benchmarks.sides import Sides

FIRST = 1_000
POOLS = ("prefork", "solo")
CHUNK = 2_000  # messages in the queue at once: the publisher is not to run ahead by more
WAIT_SECONDS = 300
RSS, PSS, DESCRIPTORS, ENTRIES = "RSS", "PSS", "descriptors", "entries in the root"
LOOKS = {
    RSS: (BYTES, Target(added=2**20)),
    PSS: (BYTES, Target(added=2**20)),
    DESCRIPTORS: (COUNT, Target(added=0)),
    ENTRIES: (COUNT, Target(added=0)),
}


def measure(version: str, sides: Sides, tasks: int) -> Iterator[Row]:
    """The rows of a worker that has run `tasks` tasks, for the interpreter that runs this."""
    from examples.servers import Servers

    logs = sides.directory / "memory-logs"
    logs.mkdir()
    servers = Servers(logs, env=sides.absent)
    first = min(FIRST, tasks // 10)
    without: dict[str, float] = {}
    with servers.broker() as url:
        for pool in POOLS:
            for side, env in environments(sides, url).items():
                with servers.celery_worker(f"{pool}-{side}", APP, env, concurrency=1, pool=pool):
                    worker = _Worker(url, side, sides.directory / "root")
                    worker.run(first)
                    before = worker.look()
                    begin = time.monotonic()
                    worker.run(tasks - first)
                    by_task = (time.monotonic() - begin) / (tasks - first)
                    after = worker.look()
                has_shim = side != ABSENT
                shown = f"{pool} worker, {'shim' if has_shim else 'no shim'}, after {tasks:,} tasks; {first:,}"
                for what, (unit, target) in LOOKS.items():
                    if has_shim or unit == BYTES or what == DESCRIPTORS:
                        limit = target if has_shim and first == FIRST else Target()
                        yield compare(version, f"{shown}: {what}", [after[what]], [before[what]], limit, unit)
                if has_shim:
                    yield compare(version, f"{pool} worker, a task of {tasks:,}", [by_task], [without[pool]])
                else:
                    without[pool] = by_task


class _Worker:
    """A worker with one process, that takes what is put into the queue of `side`."""

    def __init__(self, url: str, side: str, root: Path) -> None:
        import redis
        from celery import Celery

        self._root = root

        self._store: Any = redis.Redis.from_url(url + "/1", socket_timeout=None)
        self._app: Any = Celery("benchmark", broker=url + "/0")
        self._queue = side

    def run(self, tasks: int) -> None:
        """Have tasks run, each of a workflow of its own, and wait for the end of the last."""
        waiting = 0
        for begin in range(0, tasks, CHUNK):
            for _ in range(min(CHUNK, tasks - begin)):
                context = {"workflow_id": str(uuid.uuid4())}
                self._app.send_task("nothing", [], {"context": context}, queue=self._queue)
            self._app.send_task("process", ["processes"], queue=self._queue)
            waiting += 1
            if waiting > 1:
                self._process()
                waiting -= 1
        for _ in range(waiting):
            self._process()

    def look(self) -> dict[str, int]:
        """What there is now of each of `LOOKS`: PSS is what it shares with others, divided by their number."""
        self._app.send_task("process", ["processes"], queue=self._queue)
        process = Path("/proc") / self._process()
        time.sleep(1)  # until it has told the worker's main process of the end
        lines = (process / "smaps_rollup").read_text().splitlines()
        kibibytes = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
        return {
            RSS: 1024 * kibibytes["Rss"],
            PSS: 1024 * kibibytes["Pss"],
            DESCRIPTORS: len(list((process / "fd").iterdir())),
            ENTRIES: _entries(self._root),
        }

    def _process(self) -> str:
        said = self._store.blpop(["processes"], timeout=WAIT_SECONDS)
        if said is None:
            raise RuntimeError(f"{CHUNK:,} tasks took more than {WAIT_SECONDS} s")
        number: str = said[1].decode()
        return number


def _entries(root: Path) -> int:
    """How many entries there are in the root, its leases and the trash: where workflows leave something behind."""
    return sum(
        len(list(directory.iterdir())) for directory in (root, root / ".leases", root / ".trash") if directory.exists()
    )
