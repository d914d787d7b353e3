"""Where temp files land, with the shim and with its peers: looked up on disk after two tasks of two workflows.

In a prefork worker one after the other, in the threads and gevent pools both at once. Each file
says who made it, and is looked for in all directories in question; where there is none, the call raised.
"""

from __future__ import annotations

import contextlib
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.batches import ON, Batches, workers
from benchmarks.peer_tasks import BY_HAND, NAIVE_SHIM, NAMESPACE, TMPDIR, environments
from benchmarks.sides import SYSTEM_TEMP, Sides

NOTHING, SHIM = "nothing", "shim"
OWN, OTHER, SHARED, OUTSIDE, SYSTEM, NONE = "own", "another's", "shared", "outside", "system temp", "none"
MOST = 1000  # bytes that such a file has
POOLS = {"prefork": 1, "threads": 2, "gevent": 2}  # tasks at once
SITES = ("tempfile", "in a thread", "in a library", "Python child", "mktemp in a shell", '"/tmp/..." written out')


@dataclass(frozen=True)
class Landed:
    """How many of a call site's two files landed where."""

    python: str
    way: str
    pool: str
    site: str
    where: dict[str, int]


def measure(version: str, sides: Sides) -> Iterator[Landed]:
    """Where the files of each call site land, for the interpreter that runs this."""
    found = environments(sides)
    bare = {**sides.absent, "BENCHMARK_ROOT": str(sides.directory / "peers")}
    ways = {NOTHING: bare, TMPDIR: found[TMPDIR], NAIVE_SHIM: found[NAIVE_SHIM], BY_HAND: bare}
    if NAMESPACE in found:
        ways[NAMESPACE] = found[NAMESPACE]
    ways[SHIM] = {**found[ON], "TMP_REDIRECT_KEEP": "all", "BENCHMARK_ROOT": str(sides.directory / "root")}
    for pool, at_once in POOLS.items():
        for way, env in ways.items():
            with workers(sides, {way: env}, pool, app="isolation_app", concurrency=at_once) as batches:
                landed = _landed(batches, way, at_once, Path(env["BENCHMARK_ROOT"]), sides.workspace)
            for site in SITES:
                yield Landed(version, way, pool, site, dict(landed[site]))


def _landed(batches: Batches, way: str, at_once: int, root: Path, shared: Path) -> dict[str, Counter[str]]:
    run = str(uuid.uuid4())
    workflows = [f"{run}-{name}" for name in "ab"]
    for workflow in workflows:
        context = {"workflow_id": workflow, "run": run if at_once > 1 else workflow}
        batches.send("make", {"context": context, "way": way, "others": at_once - 1}, way)
        if at_once == 1:
            batches.heard(f"{workflow} done")
    for _ in range(at_once if at_once > 1 else 0):
        batches.heard(f"{run} done")
    places: dict[Path, str] = {root / workflow / "tmp": workflow for workflow in workflows}
    places |= {shared: SHARED} | {Path(directory): SYSTEM for directory in SYSTEM_TEMP}
    places |= dict.fromkeys(root.glob(".outside/*/tmp"), OUTSIDE)
    landed = {site: Counter({NONE: len(workflows)}) for site in SITES}
    for directory, place in places.items():
        for path, workflow, site in _files(directory, run):
            where = OWN if place == workflow else OTHER if place in workflows else place
            landed[site].update({where: 1, NONE: -1})
            path.unlink()
    return {site: +counts for site, counts in landed.items()}


def _files(directory: Path, run: str) -> Iterator[tuple[Path, str, str]]:
    """The files of a run in a directory, and what each says: its workflow and call site."""
    for path in directory.glob("*"):
        with contextlib.suppress(OSError):  # somebody else's, removed since
            is_ours = path.is_file() and not path.is_symlink() and path.stat().st_size < MOST
            words = path.read_text(errors="replace").split("\t") if is_ours else []
            if words and words[0].startswith(run):
                yield path, words[1], words[2]
