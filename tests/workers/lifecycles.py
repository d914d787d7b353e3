"""Actors on one root that are killed after a change of the file system, each in a process of its own.

Run with the shim on. `python lifecycles.py exhaust` kills each actor after every single change it makes, alone and
beside a bystander who uses the workspace; `python lifecycles.py random SEED KILLS` lets actors work at the same time
and kills them at random. After each kill the others go on: nothing that is used may be lost, nobody may wait long, and
nothing may be left after the next sweep. Prints the number of kills.
"""

from __future__ import annotations

import copy
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from celery import states
from changes import call_after

from services.common.tmp_redirect.integrations import celery_ends
from services.common.tmp_redirect.lifecycle.sweep import sweep
from services.common.tmp_redirect.scope import current as current_scope
from services.common.tmp_redirect.scope import enter, leave, return_to
from services.common.tmp_redirect.settings import current

QUICK = 2  # seconds that nobody may wait for what was killed
LOST = 3  # exit status of an actor whose file is gone
ROOT = Path(current().root)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fork(actor: Callable[[], None], changes: int | None = None) -> int:
    """Run an actor in a child that is killed after so many changes; its process number."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            call_after(changes, die)
            if changes == 0:
                die()
            actor()
            status = 0
        except FileNotFoundError:
            traceback.print_exc()
            status = LOST
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return pid


def was_killed(pid: int) -> bool:
    """Wait for an actor; it ended well or was killed."""
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, -signal.SIGKILL), f"an actor ended with status {status}"
    return status != 0


def use(workflow: str, name: str) -> None:
    """Leave files in the workspace, some below, and find them there."""
    directory = Path(tempfile.gettempdir())
    assert directory == ROOT / workflow / "tmp", directory
    path = directory / f"{name}-{os.getpid()}"
    with open(path, "x", encoding="utf-8") as file:
        file.write(name)
    below = Path(tempfile.mkdtemp())
    with open(below / "file", "x", encoding="utf-8"):
        pass
    os.stat(path)
    os.stat(below / "file")


class Task:
    """What Celery's integration does for a task that ends in `state`, from its publication on."""

    def __init__(self, workflow: str, state: str = states.SUCCESS, name: str = "task") -> None:
        self.workflow, self.state, self.name = workflow, state, name

    def __call__(self) -> None:
        task_id = f"{self.name}-{os.getpid()}"
        celery_ends.note_published(self.workflow, task_id)
        before = current_scope()
        enter(self.workflow, f"app.task:{task_id}")
        use(self.workflow, self.name)
        noted = celery_ends.note_ended(self.workflow, task_id, self.state, comes_again=False)
        return_to(before)
        celery_ends.end(self.workflow, task_id, {"root_id": task_id}, self.state, comes_again=False, noted=noted)


class ByHand:
    """A script that uses the workspace."""

    def __init__(self, workflow: str) -> None:
        self.workflow = workflow

    def __call__(self) -> None:
        scope = enter(self.workflow)
        use(self.workflow, "by-hand")
        leave(scope)


class Outside:
    """A process outside any workflow, which keeps its lease until it ends."""

    def __call__(self) -> None:
        descriptor, path = tempfile.mkstemp()
        os.close(descriptor)
        os.stat(path)


class Sweeper:
    """A sweep for which everything is old enough; `at_last` also what was published and never begun."""

    def __init__(self, *, at_last: bool = False) -> None:
        self.at_last = at_last

    def __call__(self) -> None:
        settings = copy.copy(current())
        if self.at_last:
            settings.ttl = -1
        done = sweep(settings, -1)  # the clock of the file system is a coarse one
        assert not done.deferred, done.deferred


class Bystander:
    """A process that uses a workspace until it is told to let go, and then says whether its file was there."""

    def __init__(self, workflow: str) -> None:
        self._ready, self._go = os.pipe(), os.pipe()
        self.pid = fork(lambda: self._hold(workflow))
        os.close(self._ready[1])
        os.close(self._go[0])
        assert os.read(self._ready[0], 1), "it has ended before"

    def _hold(self, workflow: str) -> None:
        scope = enter(workflow, "app.bystander:1")
        path = Path(tempfile.gettempdir()) / "bystander"
        path.touch()
        os.write(self._ready[1], b"x")
        os.read(self._go[0], 1)
        os.stat(path)
        leave(scope)

    def let_go(self) -> None:
        os.write(self._go[1], b"x")
        os.close(self._ready[0])
        os.close(self._go[1])
        assert not was_killed(self.pid)


def others_go_on(workflows: Sequence[str], bystanders: Sequence[Bystander] = ()) -> None:
    """A task starts at once and a sweep does no harm; when all have let go, the next sweep leaves nothing."""
    begin = time.monotonic()
    for workflow in workflows:
        assert not was_killed(fork(Task(workflow, name="next")))
    assert time.monotonic() - begin < QUICK, "somebody waited for a process that was killed"
    assert not was_killed(fork(Sweeper()))
    for bystander in bystanders:
        bystander.let_go()
    assert not was_killed(fork(Sweeper(at_last=True)))
    left = {str(path.relative_to(ROOT)) for path in ROOT.rglob("*")}
    assert left <= {".leases", ".leases/.outside", ".outside", ".trash"}, sorted(left)


def actors(workflow: str) -> list[Callable[[], None]]:
    return [Task(workflow), Task(workflow, states.FAILURE), Task(workflow, states.RETRY), ByHand(workflow), Outside(),
            Sweeper()]  # fmt: skip


def exhaust() -> int:
    """Kill every actor after each of its changes, until one comes to its end."""
    kills = 0
    for number in range(len(actors(""))):
        for with_bystander in (False, True):
            for changes in range(1000):
                workflow = f"wf-{number}-{with_bystander}-{changes}"
                bystanders = [Bystander(workflow)] if with_bystander else []
                actor = actors(workflow)[number]
                if isinstance(actor, Sweeper):  # it finds what others have left
                    was_killed(fork(ByHand(workflow)))
                    was_killed(fork(Task(workflow, states.FAILURE), 9))
                killed = was_killed(fork(actor, changes))
                others_go_on([workflow], bystanders)
                if not killed:
                    assert changes > 2, "it made no changes"
                    break
                kills += 1
            else:
                raise AssertionError("an actor never came to its end")
    return kills


def at_random(seed: int, wanted: int) -> int:
    """Let actors work at the same time and kill some of them, until so many were killed."""
    choose = random.Random(seed)
    kills = round_number = 0
    while kills < wanted:
        round_number += 1
        workflows = [f"wf-{round_number}-a", f"wf-{round_number}-b"]
        bystanders = [Bystander(choose.choice(workflows)) for _ in range(choose.randrange(3))]
        crowd = [choose.choice(actors(choose.choice(workflows))) for _ in range(choose.randrange(2, 7))]
        pids = [fork(actor, choose.choice([None, *range(25)])) for actor in crowd]
        kills += sum(map(was_killed, pids))
        others_go_on(workflows, bystanders)
    return kills


if __name__ == "__main__":
    os.setpgrp()
    try:
        print(exhaust() if sys.argv[1] == "exhaust" else at_random(int(sys.argv[2]), int(sys.argv[3])))
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)  # bystanders of a run that has failed
