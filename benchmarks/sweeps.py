"""The sweep, which looks at every workspace there is: against programs that walk the same tree, and how it grows.

`find` takes part as it is usually called in its place: `-newermt` says what is young, `-depth -delete` removes. The
tree is as the shim leaves it where a task failed: `<root>/<workflow id>/tmp`, here with two files, and marks among the
leases. No program can set the time stamp that says when an inode changed (ctime), so the age that is asked for differs
instead: nothing is a day old yet, and everything is older than no time.

All runs find the tree in the page cache, as what has just made it leaves it there. The time is that of the whole
command, with the start of its interpreter, as `find` has none to start.

A process begins with the peak of the one that it was forked from (getrusage(2): `ru_maxrss` outlives exec), so the
command tells its own (proc(5): `VmHWM`). It is compared with that of a sweep of an empty root.
"""

from __future__ import annotations

import itertools
import shutil
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.figures import BYTES, SECONDS, Row, Target, compare
from benchmarks.sides import Sides

SIZES = {1_000: (20, 10), 10_000: (6, 3), 100_000: (3, 1)}  # workspaces; rounds of looking, and of removing
LARGEST = max(SIZES)
STATUS = 10_000
FIND = Target(ratio=2.0)  # where a sweep reads what find reads, too
INFORMS = Target()
CONTENT = b"x" * 100
NEEDED = ("find", "du")
DAY, NOTHING = "24h", "0"  # --older-than
_COMMAND = """
import sys
from services.common.tmp_redirect.cli import main
status = main(sys.argv[2:])
with open("/proc/self/status") as lines, open(sys.argv[1], "w") as peak:
    peak.write(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
sys.exit(status)
"""


def missing(shim: Path) -> list[str]:
    """The programs that these rows need and this machine or the shim in the directory `shim` lacks."""
    lacking = [name for name in NEEDED if shutil.which(name) is None]
    has_sweep = (shim / "services/common/tmp_redirect/lifecycle/sweep_command.py").exists()
    return lacking if has_sweep else [*lacking, "tmp-redirect sweep"]


def measure(version: str, sides: Sides, *, quick: bool) -> list[Row]:
    """The rows of the sweep, for the interpreter that runs this."""
    sizes = {min(SIZES): (3, 1)} if quick else SIZES
    bench = Bench(sides, version)
    for size, (looks, removals) in sizes.items():
        bench.measure(size, looks, removals, with_status=size == STATUS or quick)
    return [*bench.rows, *bench.growth()]


@dataclass
class _Run:
    """What a command took: `peak` is 0 for one that doesn't tell it."""

    seconds: float
    peak: int


@dataclass
class _Series:
    """Runs of two commands that took turns."""

    shim: list[_Run] = field(default_factory=list)
    stock: list[_Run] = field(default_factory=list)


class Bench:
    """Measures commands on one root, which it fills."""

    def __init__(self, sides: Sides, version: str) -> None:
        self._env = sides.on
        self._directory = sides.directory
        self.root = sides.directory / "sweep"
        self._empty = sides.directory / "empty"
        self._version = version
        self._by_size: dict[int, _Series] = {}
        self.rows: list[Row] = []
        self._empty.mkdir(exist_ok=True)

    def young(self, size: int, rounds: int) -> Row:
        """The row of a sweep for which nothing is due, against `find`, in a root that has `size` workspaces."""
        series, newer = _Series(), self._find("-newermt", "24 hours ago")
        self._run(newer)  # once, for the page cache
        for _ in range(rounds):
            series.stock.append(self._run(newer))
            series.shim.append(self._sweep(DAY, says=f"kept {size:,} workspaces"))
        shim, stock = ([run.seconds for run in runs] for runs in (series.shim, series.stock))
        return compare(self._version, "sweep, all young; find -newermt", shim, stock, at=size)

    def measure(self, size: int, looks: int, removals: int, *, with_status: bool) -> None:
        """Add the rows of a root with `size` workspaces."""
        make(self.root, size)
        newer, none_newer = self._find("-newermt", "24 hours ago"), self._find("-newermt", "now")
        young, dry, status, due, delete = (_Series() for _ in range(5))
        idle: list[_Run] = []
        self._run(newer)  # once, for the page cache
        for _ in range(looks):
            young.stock.append(self._run(newer))
            young.shim.append(self._sweep(DAY, says=f"kept {size:,} workspaces"))
            idle.append(self._sweep(DAY, says="removed 0 workspaces", root=self._empty))
            dry.stock.append(self._run(none_newer))
            dry.shim.append(self._sweep(NOTHING, "--dry-run", says=f"would remove {size:,} workspaces"))
            if with_status:
                status.stock.append(self._run(["du", "-s", str(self.root)]))
                status.shim.append(self._ours("status", "--root", str(self.root), says=f"{size:,} workspaces"))
        for number in range(removals):
            if number:
                make(self.root, size)
            due.stock.append(self._run(none_newer))
            due.shim.append(self._sweep(NOTHING, says=f"removed {size:,} workspaces"))
            left = [path for place in (self.root, self.root / ".leases") for path in place.glob("[!.]*")]
            if left:
                raise RuntimeError(f"the sweep has left {len(left)} directories, as {left[0]}")
            make(self.root, size)
            delete.stock.append(self._run(self._find("-mindepth", "1", "-depth", "-delete")))
        delete.shim = due.shim
        self._by_size[size] = young

        what, target = f"sweep of {size:,} workspaces", FIND if size == LARGEST else INFORMS
        self._add(f"{what}, all young; find -newermt", young, target)
        self._add(f"{what}, all due, --dry-run; find -newermt", dry, target)
        self._add(f"{what}, all due; find -newermt", due)
        self._add(f"{what}, all due; find -depth -delete", delete)
        if with_status:
            self._add(f"status of {size:,} workspaces; du -s", status)
        for name, series in (("all young", young), ("all due", due)):
            self._compare(
                f"{what}, {name}, peak memory; of an empty root",
                [run.peak for run in series.shim],
                [run.peak for run in idle[: len(series.shim)]],
                unit=BYTES,
            )

    def clear(self) -> None:
        """Remove the root."""
        shutil.rmtree(self.root)

    def growth(self) -> list[Row]:
        """How much longer a sweep takes by workspace where there are ten times as many; 1.0 is a straight line."""
        self.rows = []
        sizes = sorted(self._by_size)
        for smaller, larger in itertools.pairwise(sizes):
            by_workspace = [
                [statistics.median(run.seconds for run in self._by_size[size].shim) / size]
                for size in (larger, smaller)
            ]
            what = f"sweep, all young, by workspace: of {larger:,}; of {smaller:,}"
            self._compare(what, by_workspace[0], by_workspace[1])
        return self.rows

    def _add(self, what: str, series: _Series, target: Target = INFORMS) -> None:
        shim, stock = ([run.seconds for run in runs] for runs in (series.shim, series.stock))
        self._compare(what, shim, stock, target)

    def _compare(
        self, what: str, shim: Sequence[float], stock: Sequence[float], target: Target = INFORMS, unit: str = SECONDS
    ) -> None:
        self.rows.append(compare(self._version, what, shim, stock, target, unit))

    def _find(self, *expression: str) -> list[str]:
        return ["find", str(self.root), *expression]

    def _sweep(self, older_than: str, *options: str, says: str, root: Path | None = None) -> _Run:
        where = ("--root", str(root or self.root))
        return self._ours("sweep", "--older-than", older_than, *options, *where, says=says)

    def _ours(self, *arguments: str, says: str) -> _Run:
        return self._run([sys.executable, "-c", _COMMAND, str(self._directory / "peak"), *arguments], says)

    def _run(self, command: Sequence[str], says: str = "") -> _Run:
        """Run a command that must succeed, and whose output must have `says` in it."""
        output, peak = self._directory / "output", self._directory / "peak"
        peak.write_text("0")
        with output.open("wb") as file:
            begin = time.perf_counter()
            subprocess.run(command, env=self._env, stdin=subprocess.DEVNULL, stdout=file, check=True)
            seconds = time.perf_counter() - begin
        if says and says not in output.read_text():
            raise RuntimeError(f"{command} doesn't say {says!r}, but: {output.read_text()[-500:]}")
        return _Run(seconds, 1024 * int(peak.read_text()))


def make(root: Path, size: int, first: int = 0) -> None:
    """Fill the directory with workspaces until there are `size`; `first` of them are there."""
    root.mkdir(exist_ok=True)
    leases = root / ".leases"
    leases.mkdir(exist_ok=True)
    for number in range(first, size):
        workflow = f"workflow-{number:08}"
        directory, marks = root / workflow / "tmp", leases / workflow
        for made in (directory.parent, directory, marks):
            made.mkdir(0o700)
        for path, content in (
            (directory / "tmpabcdefgh", CONTENT),
            (directory / "frame-000001.png", CONTENT),
            (marks / "ours", b""),
            (marks / f"failed~{uuid.uuid5(uuid.NAMESPACE_OID, workflow)}", b""),
        ):
            path.write_bytes(content)
