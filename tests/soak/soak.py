"""The course of a soak: start everything, publish and watch until all workflows have ended, sweep, see what is left."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import redis

from examples.servers import Process, Servers
from examples.watcher import Watcher

from . import plan, report, watch
from .faults import Disk, Worker, happen, sweep, sweep_until
from .ledger import BROKER, INTENDED, NO_SPACE, SUCCEEDED, Ledger, Workflow

HELPERS = Path(__file__).parent
AT_ONCE = 24  # workflows; of few a quarter, so that things go wrong one after the other
FAULTS_AT_ONCE = 2
MOST_RUNS = 4  # of a workflow that its user starts again
PATIENCE = 120  # seconds without any event after which the rest is given up
GRACE = 10  # seconds within which a workspace goes when its workflow has ended
SILENCE = 5  # seconds without an event of a workflow after which the broker is asked for its tasks


class PatientServers(Servers):
    """Of a machine that the soak itself keeps busy."""

    def wait_ready(self, process: Process, is_ready: Callable[[], bool], seconds: float = PATIENCE) -> None:
        super().wait_ready(process, is_ready, seconds)


class Soak:
    """One run, in a directory of its own, in which `app` is what has the shim."""

    def __init__(self, directory: Path, workflows: int, seed: str, pools: list[str], mode: str) -> None:
        self.workflows, self.seed, self.pools = workflows, seed, pools
        self.directory = directory
        self.disk = Disk(directory / "disk")
        self.sockets = directory / "sockets"
        self.servers = PatientServers(directory / "servers", {"PATH": os.environ["PATH"]})
        self.servers.directory.mkdir()
        self.env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{directory / 'app'}:{HELPERS.parent / 'workers'}:{HELPERS}",
            "TMP_REDIRECT": mode,
            "TMP_REDIRECT_ROOT": str(self.disk.root),
            "TMP_REDIRECT_SERVICE": "svc",
            "TMP_REDIRECT_SOCKET_DIR": str(self.sockets),
            "HOME": str(directory),
            "C_FORCE_ROOT": "1",
        }
        self.ledger = Ledger(self.disk.windows)
        self.runs: dict[int, int] = {}  # of workflows that have not ended: how often they were published before
        self.ending: dict[str, float] = {}  # workflows that have ended: until when their workspaces must be gone
        self.late: dict[str, list[str]] = {}  # those whose workspaces were not: what was there
        self.counts: Counter[str] = Counter()
        self.leaked: list[str] = []
        self.memory: dict[str, tuple[watch.Memory, watch.Memory]] = {}  # of a worker of each pool, before and after
        self.suspects: dict[str, float] = {}  # tasks of which nothing was heard for a while, since when
        self.mortal: dict[str, Worker] = {}  # of each pool the worker that is killed now and then
        self.queued: dict[str, int] = {}  # the messages that the broker has at the end
        self.latest = time.monotonic()

    def run(self, minutes: float) -> int:
        """The exit status: 1 where the books don't balance."""
        with ExitStack() as stack:
            stack.enter_context(self.disk.mounted())
            broker = stack.enter_context(self.servers.broker())
            self.env.update(BROKER=f"{broker}/0", BACKEND=f"{broker}/1")
            self.queues = stack.enter_context(redis.Redis.from_url(self.env["BROKER"]))
            self.results = stack.enter_context(redis.Redis.from_url(self.env["BACKEND"]))
            watcher = stack.enter_context(Watcher([*watch.SYSTEM_TEMP, self.disk.root]))
            with (
                self._workers() as (steady, mortal),
                self.servers.process("gateway", [sys.executable, HELPERS / "gateway.py"], self.env),
            ):
                self.mortal = mortal
                self._go_on(steady, mortal, time.monotonic() + 60 * minutes)
            self._clean_up()
            watcher.sync()
            return report.show(self, watcher)

    @contextmanager
    def _workers(self) -> Iterator[tuple[list[Worker], dict[str, Worker]]]:
        """Two for each pool: one that goes on to the end, and one that is killed now and then."""
        steady, mortal = (
            [Worker(f"{pool}-{kind}", self.servers, self.env) for pool in self.pools] for kind in ("steady", "mortal")
        )
        with ThreadPoolExecutor(2) as threads:  # a start takes a second of a processor
            try:
                list(threads.map(Worker.start, [*steady, *mortal]))
                yield steady, {worker.pool: worker for worker in mortal}
            finally:
                list(threads.map(Worker.stop, [*steady, *mortal]))

    def _go_on(self, steady: list[Worker], mortal: dict[str, Worker], deadline: float) -> None:
        faults, happened, ended = list(plan.faults(self.seed, self.workflows, self.pools)), [], threading.Event()
        published, before, began = 0, {}, time.monotonic()
        with ThreadPoolExecutor(1 + FAULTS_AT_ONCE) as threads:
            sweeps = threads.submit(sweep_until, ended, self.env, self.directory)
            try:
                while not self._is_over(published, deadline, happened):
                    self._take()
                    self._settle()
                    # Not ahead of what is to go wrong meanwhile.
                    while (
                        published < self.workflows
                        and len(self.runs) < min(AT_ONCE, 1 + self.workflows // 4)
                        and time.monotonic() < deadline
                        and sum(not future.done() for future in happened) < FAULTS_AT_ONCE
                    ):
                        self._publish(published, 0, [])
                        published += 1
                        while faults and faults[0].at < published:
                            happened.append(threads.submit(happen, faults.pop(0), mortal, self.disk, self.seed))
                        if published % 100 == 0:
                            print(f"{published} workflows, {time.monotonic() - began:.0f} s", flush=True)
                    if not before and published >= self.workflows / 10:
                        before = {w.pool: (w.process, watch.memory(w.process)) for w in steady}
                    time.sleep(0.02)
            finally:
                ended.set()
        self.queued = self._queued()
        # Of a worker that would not start, as the disk was in trouble, the last line says why.
        self.faults = Counter(str(f.exception()).splitlines()[-1] if f.exception() else f.result() for f in happened)
        self.sweeps = sweeps.result()
        self.memory = {pool: (numbers, watch.memory(worker)) for pool, (worker, numbers) in before.items()}

    def _is_over(self, published: int, deadline: float, happened: list[Future[str]]) -> bool:
        if time.monotonic() - self.latest > PATIENCE:
            return True  # the ledger will tell
        is_published = published == self.workflows or time.monotonic() > deadline
        is_settled = not self.runs and not self.ending
        return is_published and is_settled and all(f.done() for f in happened) and not self._queued()

    def _queued(self) -> dict[str, int]:
        """How many messages the broker has, by queue and by the worker that has taken and not acknowledged them."""
        unacked = {key.decode(): self.queues.hlen(key) for key in self.queues.scan_iter("unacked_key-*")}
        queued = unacked | {pool: self.queues.llen(pool) for pool in self.pools}
        return {key: number for key, number in queued.items() if number}

    def _publish(self, number: int, run: int, earlier: list[str]) -> None:
        stages = plan.workflow(self.seed, number, self.pools)
        for step in (step for stage in stages for step in stage):
            step["run"] = run
        self.results.rpush("wanted", json.dumps({"stages": stages, "earlier": earlier}))
        self.runs[number] = run
        self.counts["runs"] += 1

    def _take(self) -> None:
        for event in map(json.loads, self.results.lrange("journal", self.ledger.number, -1)):
            self.ledger.take(event)
            self.latest = time.monotonic()

    def _settle(self) -> None:
        """Look after the workflows that have ended, and those of which nothing is heard any more."""
        for number, run in list(self.runs.items()):
            name = f"wf-{number}"
            workflow = self.ledger.workflows.get(name)
            first = len(plan.workflow(self.seed, number, self.pools)[0])
            if workflow is None or list(workflow.run_of.values()).count(run) < first:
                continue  # its publication is under way
            if workflow.open:
                if time.time() - workflow.latest > SILENCE:
                    self._ask(name, workflow)
                continue
            if self.disk.is_in_trouble:
                continue  # its user waits until there is space
            del self.runs[number]
            self._end(number, name, run, workflow)
        for name, until in list(self.ending.items()):
            left = [place for place in (f"{name}/tmp", f".leases/{name}") if (self.disk.root / place).exists()]
            if not left or time.monotonic() > until:
                del self.ending[name]
                if left:
                    self.late[name] = [*left, *(path.name for path in self.disk.root.glob(f".leases/{name}/*"))]

    def _end(self, number: int, name: str, run: int, workflow: Workflow) -> None:
        outcomes = workflow.outcomes(run)
        if outcomes == {SUCCEEDED}:
            self.counts["succeeded"] += 1
            self.ending[name] = time.monotonic() + GRACE
            return
        is_as_planned = outcomes <= {SUCCEEDED, INTENDED} and not workflow.is_touched(self.disk.windows)
        if is_as_planned and not (self.disk.root / name / "tmp").is_dir():
            self.ledger.lose(name, "the workspace, though a task had failed")
        if run + 1 < MOST_RUNS and (outcomes & {NO_SPACE, BROKER} or number % 2):
            self._publish(number, run + 1, list(workflow.left) if is_as_planned else [])
        else:
            self.counts["failed"] += 1

    def _ask(self, name: str, workflow: Workflow) -> None:
        """Note the end of tasks whose process was killed just before it would have, or that the broker lost."""
        is_idle = time.time() - workflow.latest > 4 * SILENCE and not self._queued()
        for task in workflow.open:
            result = json.loads(self.results.get(f"celery-task-meta-{task}") or "{}")
            state, failure = result.get("status"), ""
            if state == "FAILURE":
                failure = result["result"]["exc_type"]
            elif state != "SUCCESS":
                state = BROKER if is_idle else None
            if state and time.time() - self.suspects.setdefault(task, time.time()) > SILENCE:
                event = {"event": "told", "time": time.time(), "workflow": name, "name": "?", "id": task}
                event |= {"run": workflow.run_of[task], "state": state, "failure": failure, "errno": None}
                self.results.rpush("journal", json.dumps(event))

    def _clean_up(self) -> None:
        """Look at what is kept of failed workflows, and sweep it away."""
        root = self.disk.root
        for name, left in self.late.items():  # only now it's known which tasks were delivered again
            if self.ledger.workflows[name].is_touched(self.disk.windows):
                self.counts["left to a sweep"] += 1
            else:
                self.leaked.append(f"the workspace of {name}, {GRACE} s after it succeeded: {', '.join(left)}")
        self.misplaced = watch.with_other_content(root)
        self.counts["kept"] = sum(1 for _ in root.glob("*/tmp"))
        self.leaked += watch.processes(root)
        last = sweep({**self.env, "TMP_REDIRECT_TTL": "0s"}, self.directory)
        said = last.communicate()[0].decode()
        if last.returncode:
            self.leaked.append(f"the last sweep ended with status {last.returncode}: {said}")
        self.leaked += watch.remains(root, self.sockets)
