"""The ledger as it is printed, and whether the books balance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from examples.watcher import Watcher

from . import watch
from .ledger import BROKER, INTENDED, NO_SPACE, SUCCEEDED

if TYPE_CHECKING:
    from .soak import Soak

ACCOUNTED = (SUCCEEDED, INTENDED, NO_SPACE, BROKER)
MOST_NAMED = 40
MOST_TOLD = 3


def show(soak: Soak, watcher: Watcher) -> int:
    """Print it; the exit status, 1 where something is wrong."""
    ledger, counts, tasks = soak.ledger, soak.counts, soak.ledger.tasks()
    unaccounted = [
        *ledger.unexpected,
        *(f"{task} of {name}" for name, w in ledger.workflows.items() for task in w.open),
    ]
    wrong = {
        "unaccounted for": unaccounted,
        "misplaced": [*soak.misplaced, *_misplaced(soak, watcher)],
        "lost": [line for lines in ledger.lost.values() for line in lines],
        "leaked": soak.leaked,
        "system temp": watch.in_system_temp(watcher),
    }
    published, runs = len(ledger.workflows), counts["runs"]
    _row("workflows", f"{published}, {counts['succeeded']} succeeded, {counts['failed']} failed; {runs} runs")
    _row("went wrong", ", ".join(f"{number} {fault}" for fault, number in soak.faults.items()))
    statuses, said = soak.sweeps
    _row("sweeps", ", ".join(f"{number} of status {status}" for status, number in statuses.items()))
    for status, text in said.items():
        if status:
            _row("", f"{status}: {text.strip()}")
    _row("tasks", f"{tasks.total()} = {' + '.join(f'{tasks[o]} {o}' for o in ACCOUNTED)} + {len(unaccounted)}")
    again = ledger.counts["begun"] - ledger.counts["ended"]
    _row("", f"{ledger.counts['retried']} retried, {again} killed and run again")
    if soak.queued:
        _row("", f"the broker still has {soak.queued}")
    _row("no space", f"{ledger.counts['clear']} errors that say so, the others are of a child")
    files, after = sum(1 for _ in watch.marked(watcher)), ledger.counts["read after the end"]
    _row("files", f"{files}; {ledger.counts['read']} read back, {after} of them by tasks run again after the end")
    _row("kept", f"{counts['kept']} workspaces of workflows that failed; {counts['left to a sweep']} for a sweep")
    for pool, (before, after) in soak.memory.items():
        (kib, few), (more, many) = (_sums(numbers, before.keys() & after.keys()) for numbers in (before, after))
        _row(f"memory, {pool}", f"{more - kib:+} KiB of {kib}, {many - few:+} descriptors of {few}")
    for what, found in wrong.items():
        _row(what, str(len(found)))
    print(*[line for found in wrong.values() for line in found][:MOST_NAMED], sep="\n")
    unended = [name for name, workflow in ledger.workflows.items() if workflow.open]
    late = [name for name in soak.late if not ledger.workflows[name].is_touched(soak.disk.windows)]
    for name in [*list(ledger.lost)[:MOST_TOLD], *unended[:MOST_TOLD], *late[:MOST_TOLD]]:
        _tell(soak, name)
    return 1 if any(wrong.values()) else 0


def _row(what: str, value: str) -> None:
    print(f"{what:18}{value}")


def _tell(soak: Soak, name: str) -> None:
    """What has happened to a workflow, in seconds since it was published."""
    workflow = soak.ledger.workflows[name]
    print(f"{name}, published at 0 s:")
    troubles = [(begin, f"the disk is in trouble for {end - begin:.1f} s") for begin, end in soak.disk.windows]
    kills = [(kill, f"{worker.name} is killed") for worker in soak.mortal.values() for kill in worker.kills]
    events = [(event["time"], _told(event)) for event in workflow.history]
    faults = [fault for fault in (*troubles, *kills) if -60 < fault[0] - workflow.first < 300]
    for time, line in sorted([*events, *faults]):
        print(f"{time - workflow.first:8.2f} {line}")


def _told(event: dict[str, Any]) -> str:
    names = ("id", "worker", "state", "failure", "earlier", "wrong")
    more = [str(event[name]) for name in names if event.get(name)]
    return " ".join([event["event"], f"{event['run']}.{event['name']}", *more])


def _misplaced(soak: Soak, watcher: Watcher) -> Iterator[str]:
    """What outlives a task is outside, such as the greenlets of one that failed when another of them had no space."""
    outside = soak.disk.root / ".outside/svc/tmp"
    for path, workflow in watch.misplaced(watcher, soak.disk.root):
        if path.parent != outside or not soak.ledger.workflows[workflow].met(soak.disk.windows):
            yield str(path)


def _sums(numbers: watch.Memory, processes: set[int]) -> tuple[int, int]:
    return sum(numbers[p][0] for p in processes), sum(numbers[p][1] for p in processes)
