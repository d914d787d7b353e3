"""The books: what became of each task and each file, from what was noted as it happened.

A task is published under an id and has to end; it runs again where its worker was killed. A file is lost that an
earlier step left and a later one misses, unless the workflow was over in between: a task whose worker died after
everything had ended is delivered again, and finds nothing.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

SUCCEEDED, INTENDED, NO_SPACE, BROKER = "succeeded", "failed as intended", "failed on a full disk", "lost by the broker"
LATE = 5  # seconds after the disk is back in which a task may fail that met it
Event = dict[str, Any]
Windows = Sequence[tuple[float, float]]


def met(windows: Windows, since: float, until: float) -> bool:
    """Whether one of the times at which the disk was full was in between."""
    return any(begin <= until and since <= end + LATE for begin, end in windows)


@dataclass
class Workflow:
    """What is known of one: `tasks` has the outcome of each id, `None` while it is to come, `run_of` its run."""

    tasks: dict[str, str | None] = field(default_factory=dict)
    run_of: dict[str, int] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)  # by which event a step left its files
    over: int = -1  # by which event it was over last, so that its workspace went
    events: Counter[str] = field(default_factory=Counter)
    history: list[Event] = field(default_factory=list)
    first: float = 0
    latest: float = 0

    @property
    def open(self) -> list[str]:
        """The tasks that have not ended."""
        return [task for task, outcome in self.tasks.items() if outcome is None]

    def outcomes(self, run: int) -> set[str | None]:
        """Those of the tasks of one publication."""
        return {outcome for task, outcome in self.tasks.items() if self.run_of[task] == run}

    def met(self, windows: Windows) -> bool:
        """Whether it went on at one of these times."""
        return met(windows, self.first, self.latest)

    def is_touched(self, windows: Windows) -> bool:
        """Whether a task was killed or lost, or met a full disk: then its workspace may have to wait for a sweep."""
        was_killed = self.events["begun"] != self.events["ended"] or self.events["begun"] != self.events["published"]
        was_twice = self.events["published"] != len(self.tasks) + self.events["retried"]
        return was_killed or was_twice or BROKER in self.tasks.values() or self.met(windows)


class Ledger:
    """The sum of all events; `windows` are the times at which the disk was full, as they come to be known."""

    def __init__(self, windows: Windows) -> None:
        self.windows = windows
        self.workflows: dict[str, Workflow] = {}
        self.number = 0
        self.counts: Counter[str] = Counter()
        self.lost: dict[str, list[str]] = {}  # by workflow
        self.unexpected: list[str] = []

    def take(self, event: Event) -> None:
        """Enter the next event."""
        self.number += 1
        workflow = self.workflows.setdefault(event["workflow"], Workflow(first=event["time"]))
        workflow.latest = event["time"]
        workflow.events[event["event"]] += 1
        workflow.history.append(event)
        getattr(self, f"_{event['event']}")(workflow, event)

    def _published(self, workflow: Workflow, event: Event) -> None:
        workflow.tasks[event["id"]] = None
        workflow.run_of[event["id"]] = event["run"]

    def _begun(self, workflow: Workflow, event: Event) -> None:
        self.counts["begun"] += 1

    def _ended(self, workflow: Workflow, event: Event) -> None:
        self.counts["ended"] += 1
        if event["state"] == "RETRY":
            workflow.events["retried"] += 1
            self.counts["retried"] += 1
        else:
            self._told(workflow, event)

    def _told(self, workflow: Workflow, event: Event) -> None:
        """The task has ended, as itself or the broker says."""
        workflow.tasks[event["id"]] = self._outcome(event)
        if not workflow.open and not workflow.outcomes(event["run"]) & {INTENDED, BROKER}:
            workflow.over = self.number

    def _outcome(self, event: Event) -> str:
        if event["state"] == "SUCCESS":
            return SUCCEEDED
        if event["failure"].startswith("IntendedError"):
            return INTENDED
        if event["state"] == BROKER:
            return BROKER
        if event["errno"] in (errno.ENOSPC, errno.EROFS) or met(self.windows, event["time"], event["time"]):
            self.counts["clear"] += event["errno"] in (errno.ENOSPC, errno.EROFS)
            return NO_SPACE
        self.unexpected.append(f"{event['workflow']} {event['name']} {event['state']} {event['failure']}")
        return "unexpected"

    def _left(self, workflow: Workflow, event: Event) -> None:
        workflow.left[f"{event['run']}.{event['name']}"] = self.number
        self.counts["left"] += event["files"] + 1

    def _read(self, workflow: Workflow, event: Event) -> None:
        self.counts["read"] += event["files"] + 1
        if not event["wrong"]:
            return
        if workflow.left.get(event["earlier"], -1) < workflow.over:
            self.counts["read after the end"] += 1
        else:
            self.lose(event["workflow"], f"as {event['run']}.{event['name']} read it: {event['wrong']}")

    def lose(self, workflow: str, what: str) -> None:
        """Note a loss."""
        self.lost.setdefault(workflow, []).append(f"{workflow}: {what}")

    def tasks(self) -> Counter[str | None]:
        """How many tasks had each outcome."""
        return Counter(outcome for workflow in self.workflows.values() for outcome in workflow.tasks.values())
