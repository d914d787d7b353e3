"""What a seed stands for: workflows, each a chain of steps and groups over several pools, and what goes wrong."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

POOLS = ("prefork", "threads", "gevent", "eventlet", "solo")
WAYS = ("thread", "thread_of_a_thread", "timer", "own_executor", "done_callback", "python_child", "native_child")
WAYS += ("python_child_with_a_stale_environment", "native_child_without_environment", "os_system", "os_popen")
WAYS += ("os_posix_spawn", "plain", "child_that_spawns")
OF_POOLS = {
    "prefork": ("coroutines",),  # Celery's processes are daemons, which multiprocessing refuses children
    "solo": ("coroutines", "spawned_process", "forked_process"),
    "threads": ("coroutines", "spawned_process"),
    "gevent": ("gevent_spawn", "gevent_pool", "gevent_threadpool"),
    "eventlet": ("eventlet_spawn", "eventlet_pool", "eventlet_tpool"),
}
ACTS = ("fail", "retry", "publish")  # one step in eight does each
FAULTS = {
    "child": 12,
    "worker": 25,
    "main process": 60,
    "full": 60,
    "no inodes": 120,
    "read-only": 120,
}  # workflows per fault
Step = dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """`kind` happens when workflow number `at` is published, to a worker of `pool` where it's the end of one."""

    at: int
    kind: str
    pool: str


def workflow(seed: str, number: int, pools: Sequence[str]) -> list[list[Step]]:
    """The stages of a workflow: the steps in one run at the same time."""
    dice = random.Random(f"{seed} {number}")
    stages: list[list[Step]] = []
    for stage in range(dice.randint(1, 4)):
        is_group = dice.random() < 0.4 and (not stages or len(stages[-1]) == 1)  # Celery has no chord after a group
        members = dice.randint(2, 4) if is_group else 1
        stages.append([_step(dice, f"wf-{number}", f"{stage}.{member}", pools) for member in range(members)])
    return stages


def _step(dice: random.Random, workflow: str, name: str, pools: Sequence[str]) -> Step:
    pool = dice.choice(pools)
    step = {"workflow": workflow, "name": name, "pool": pool, "way": dice.choice(WAYS + OF_POOLS[pool])}
    step["act"] = dice.choice((*ACTS, *("",) * 5))
    step["told"] = name.startswith("0.") or dice.random() < 0.5  # by its own arguments which workflow it is of
    step["patient"] = dice.random() < 0.5  # it comes again where there is no space
    if step["act"] == "fail" and dice.random() < 0.5:
        step["act"] = ""
    if step["act"] == "publish":
        step["side"] = {**_step(dice, workflow, f"{name}s", pools), "act": ""}
    return step


def faults(seed: str, workflows: int, pools: Sequence[str]) -> Iterator[Fault]:
    """What goes wrong, in the order in which it does: each kind once at least."""
    dice = random.Random(seed)
    kinds = [kind for kind, each in FAULTS.items() for _ in range(max(1, workflows // each))]
    for at, kind in sorted((dice.randrange(workflows), kind) for kind in kinds):
        if kind != "child" or "prefork" in pools:
            yield Fault(at, kind, "prefork" if kind == "child" else dice.choice(pools))
