"""Sweeps: how long one takes for how many workspaces, and what several at once share."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.simulation.file_system import FileSystem, Inode
from benchmarks.simulation.server import Model
from benchmarks.simulation.system import ROOT, Instead, System
from services.common.tmp_redirect.lifecycle.sweep import Sweep, sweep
from services.common.tmp_redirect.settings import LEASES, TMP

DAY = 86_400.0
_DIRECTORY, _FILE = 0o040700, 0o100600


@dataclass(frozen=True)
class Stock:
    """What a sweep finds: workspaces that are too young, and some that are due, each with so many files in it."""

    young: int
    due: int = 0
    failed: bool = True  # else their workflows have succeeded, with TMP_REDIRECT_KEEP=all
    files: int = 0


@dataclass
class Outcome:
    """What each sweeper has done, in seconds from the begin of the first to its end; operations are those of all."""

    seconds: list[float]
    sweeps: list[Sweep]
    operations: int
    changes: int
    left: int  # workspaces


def simulate(stock: Stock, model: Model, sweepers: int = 1, seed: int = 0) -> Outcome:
    """Sweepers on hosts of their own, which begin at once."""
    system = System(ROOT, model, seed)
    seconds: list[float] = []
    sweeps: list[Sweep] = []
    with Instead(system, "failed" if stock.failed else "all", ROOT) as settings:
        for number in range(stock.due):
            put(system.files, f"due-{number:08}", stock)
        begin = system.clock.time = 2 * DAY
        for number in range(stock.young):
            put(system.files, f"young-{number:08}", stock)

        def run() -> None:
            sweeps.append(sweep(settings))
            seconds.append(system.process.now - begin)

        for number in range(sweepers):
            system.begin(begin, system.new_process(f"sweeper-{number}"), run)
        system.clock.run()
        left = sum(not name.startswith(".") for name in system.files.entries(system.files.root))
    return Outcome(seconds, sweeps, system.server.calls.total(), system.server.changes, left)


def put(files: FileSystem, workflow: str, stock: Stock) -> None:
    """What a workflow leaves that has failed, or has succeeded where everything is kept: the test compares it."""
    directory = files.make(files.root, workflow, _DIRECTORY | 0o755)
    workspace = files.make(directory, TMP, _DIRECTORY)
    for number in range(stock.files):
        files.make(workspace, f"file-{number}", _FILE)
    leases = files.make(_leases(files), workflow, _DIRECTORY)
    files.make(leases, "ours~gateway~0~0~1~1~1", _FILE)
    if stock.failed:
        files.make(leases, f"failed~{workflow}", _FILE)


def _leases(files: FileSystem) -> Inode:
    found = files.find(files.root, LEASES)
    return found if found is not None else files.make(files.root, LEASES, _DIRECTORY | 0o755)
