"""Random trees of tasks, threads, executors and children: each file is in the workspace of the workflow that asked.

Hypothesis makes the trees, two to eight workflows at once, and reduces what fails. A node of a tree may name a
workflow; one that names none works for the node that started it, and that is all the expectation there is. Where the
files are is what the kernel's inotify reports. `tests/workers/trees.py` grows them.

`make soak` goes on with other trees until it has checked 10,000 files in each place. `make soak SOAK=7` repeats those
of the seed 7.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from celery import Celery, exceptions
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st

from examples.servers import Process, Servers
from examples.watcher import Watcher
from tests.celery_workers import PATIENCE

Node = dict[str, Any]

SOAK = os.environ.get("SOAK", "")  # "" for the short run, "new", or the seed of an earlier run
SOAK_FILES = 10_000
SHRINK_SECONDS = 30
END_SECONDS = 10

WORKFLOWS = [
    *("wf-1", "WF-1", "wf-1 ", "a workflow", "工作流-视频", "ж" * 127, "x" * 255, "None", "0", "-n", "~", "$HOME"),
    *("%s{0}", 'it\'s "quoted"; \\', "a:b=c"),
]

HERE = ["call", "thread", "thread_subclass", "timer", "executor", "thread_pool", "thread_pool_map", "thread_pool_imap"]
COROUTINES = ["coroutine", "to_thread", "anyio_thread", "run_in_executor"]
SHARED = ["shared_executor", "shared_thread_pool", "shared_thread_pool_imap", "callback", "run_in_shared_executor"]
CHILDREN = ["child", "child_stale", "child_from_nothing", "asyncio_child"]
PROGRAMS = ["shell", "system", "popen", "posix_spawn", "posix_spawnp", "spawnvp", "spawnve", "fork_and_exec"]
PROGRAMS += ["asyncio_shell"]
PROCESSES = ["process_fork", "process_spawn", "process_forkserver", "multiprocessing_pool_fork"]
PROCESSES += ["multiprocessing_pool_spawn", "process_pool_fork", "process_pool_spawn", "process_pool_forkserver"]
PROCESSES += ["shared_process_pool"]
TASKS = ["task", "apply", "direct"]

SIMPLE = [*HERE, *COROUTINES, *CHILDREN, *PROGRAMS]
ANYTHING = [*SIMPLE, *SHARED, *PROCESSES, "child_without_shim"]
ON_A_LOOP = [*COROUTINES, "run_in_shared_executor", "asyncio_child", "asyncio_shell"]


@dataclass(frozen=True)
class Ground:
    """Where trees grow: what their roots are, and which kinds are possible there and in an interpreter below."""

    root: str
    kinds: list[str]
    in_children: list[str]

    def kinds_below(self, kind: str, beside: list[str]) -> list[str]:
        """The kinds that are possible below a node, given those that are possible beside it."""
        if kind in PROGRAMS:
            return []
        if kind == "child_without_shim":
            # Nobody there gives TMPDIR to a child that is started with an empty environment.
            return [*HERE, "coroutine", "to_thread", *(program for program in PROGRAMS if program != "spawnve")]
        if kind in PROCESSES:
            return SIMPLE  # it may be daemonic, or forked while another thread held a lock
        if kind in CHILDREN:
            return self.in_children
        if kind in ("task", "link"):
            return [*self.kinds, "link"]
        # A pool whose threads all wait for another pool, whose threads all wait for the first, is stuck.
        impossible = {"link", *(SHARED if kind in SHARED else [])}
        return [below for below in beside if below not in impossible]


WITH_TASKS = [*ANYTHING, *TASKS]
PROCESS = Ground("thread", ANYTHING, ANYTHING)
POOLS = {
    # The processes of prefork are daemonic, so they may not have any. Greenlets share a thread, which has one loop.
    "prefork": Ground("task", [kind for kind in WITH_TASKS if kind not in PROCESSES], WITH_TASKS),
    "threads": Ground("task", WITH_TASKS, WITH_TASKS),
    "gevent": Ground("task", [kind for kind in WITH_TASKS if kind not in PROCESSES + ON_A_LOOP], WITH_TASKS),
}
if SOAK:
    POOLS["solo"] = Ground("task", WITH_TASKS, WITH_TASKS)  # it runs one tree at a time


FILES = st.integers(1, 8)


@st.composite
def nodes(
    draw: st.DrawFn, ground: Ground, kinds: list[str], workflows: st.SearchStrategy[str | None], depth: int
) -> Node:
    """A node of one of `kinds`; it and the nodes below it name `workflows`."""
    kind = draw(st.sampled_from(kinds))
    if not can_name(kind):
        workflows = st.none()
    below = ground.kinds_below(kind, kinds)
    children = st.lists(nodes(ground, below, workflows, depth - 1), max_size=4) if below and depth else st.just([])
    return {"do": kind, "workflow": draw(workflows), "files": draw(FILES), "children": draw(children)}


def can_name(kind: str) -> bool:
    """Whether the shim is there to take the name of a workflow."""
    return kind not in PROGRAMS and kind != "child_without_shim"


@st.composite
def forests(draw: st.DrawFn, ground: Ground) -> list[Node]:
    """Trees of two to eight workflows, which name each other's at times."""
    workflows = draw(st.lists(st.sampled_from(WORKFLOWS), min_size=2, max_size=8, unique=True))
    node = nodes(ground, ground.kinds, st.none() | st.sampled_from(workflows), depth=2 if SOAK else 1)
    children = st.lists(node, max_size=4)
    return [
        {"do": ground.root, "workflow": workflow, "files": draw(FILES), "children": draw(children)}
        for workflow in workflows
    ]


def each_kind(ground: Ground) -> Iterator[list[Node]]:
    """Forests with every kind, once for the workflow that it inherits and once for another: chance leaves some out."""

    def tree(kinds: list[str], workflow: str, other: str | None) -> Node:
        return node(ground.root, workflow, [branch(kind, other if can_name(kind) else None) for kind in kinds])

    def branch(kind: str, workflow: str | None) -> Node:
        below = [kind for kind in ground.kinds_below(kind, ground.kinds) if kind in ("call", "thread", "task", "link")]
        return node(kind, workflow, [node(kind, None, []) for kind in below])

    def node(kind: str, workflow: str | None, children: list[Node]) -> Node:
        return {"do": kind, "workflow": workflow, "files": 8, "children": children}

    for start in range(0, len(ground.kinds), 8):
        kinds = ground.kinds[start : start + 8]
        yield [tree(kinds, "wf-1", None), tree(kinds, "工作流-视频", "x" * 255)]


NAME = re.compile(r"tree\d+-")
_numbers = itertools.count(1)


def with_names(node: Node) -> Node:
    """The node, with a name that no other node has, in this forest or another."""
    return {**node, "name": f"tree{next(_numbers)}-", "children": [with_names(child) for child in node["children"]]}


class Driver:
    """A process with the shim and without Celery, which grows each tree in a thread."""

    def __init__(self, program: Path, env: dict[str, str], log: Path) -> None:
        self._command = [sys.executable, str(program)]
        self._env = env
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def grow(self, forest: list[Node]) -> list[str]:
        """What went wrong; a process that hangs is replaced."""
        process = self._process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(forest).encode() + b"\n")
        process.stdin.flush()
        answer = process.stdout.readline() if select.select([process.stdout], [], [], PATIENCE)[0] else b""
        if not answer:
            dump_stacks(process.pid)
            return ["there is no answer", *self.stop()]
        failure = json.loads(answer)
        return [] if failure is None else [failure]

    def stop(self) -> list[str]:
        """End it; what of it went on."""
        process, self._process = self._process, None
        if process is None:
            return []
        with process:
            assert process.stdin is not None
            process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
            left = not wait_until(lambda: not members(process.pid), END_SECONDS)
            if left:
                os.killpg(process.pid, signal.SIGKILL)
        return ["it doesn't end, or something that it started"] if left else []

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command,
                env=self._env,
                cwd=self._log.parent,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )


class Worker:
    """A real worker with a real broker, which grows each tree in a task."""

    def __init__(self, client: Celery, start: Callable[[], AbstractContextManager[Process]]) -> None:
        self._client = client
        self._start = start
        self._running = ExitStack()
        self._process: Process | None = None

    def grow(self, forest: list[Node]) -> list[str]:
        """What went wrong in the tasks of the forest, those that tasks publish included; a worker that hangs is
        replaced.
        """
        process = self._process = self._process or self._running.enter_context(self._start())
        for node in forest:
            context = {"workflow_id": node["workflow"], "tree": {**node, "workflow": None}}
            self._client.send_task("tree_app.grow", kwargs={"context": context}, task_id=f"task-{node['name']}")
        deadline = time.monotonic() + PATIENCE
        try:
            return [failure for node in forest for failure in self._failures(node, deadline)]
        except exceptions.TimeoutError:
            dump_stacks(process._popen.pid)
            self.stop()
            self._client.control.purge()
            return ["a task does not end"]

    def stop(self) -> None:
        self._running.close()
        self._process = None

    def _failures(self, node: Node, deadline: float) -> list[str]:
        if node["do"] in ("task", "link"):
            result = self._client.AsyncResult(f"task-{node['name']}")
            try:
                result.get(timeout=max(deadline - time.monotonic(), 0.1))
            except exceptions.TimeoutError:
                self._client.backend.remove_pending_result(result)  # or it asks the broker when that is gone
                raise
            except Exception as error:
                return [f"{result.id}: {error!r}\n{result.traceback or ''}"]
        return [failure for child in node["children"] for failure in self._failures(child, deadline)]


@dataclass
class Checker:
    """Compares what the watcher saw with what the nodes were asked for."""

    root: Path
    watcher: Watcher
    files: int = 0
    trees: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    _seen: int = 0

    def problems(self, forest: list[Node]) -> list[str]:
        """What is wrong about the files of a forest that has grown."""
        self.watcher.sync()
        created = self.watcher.created[self._seen :]
        self._seen += len(created)
        found: dict[str, list[Path]] = {}
        for path in created:
            if name := NAME.match(path.name):
                found.setdefault(name[0], []).append(path)
        stray = [path for path in created if not path.is_relative_to(self.root) and "pytest-of" not in str(path)]
        problems = [f"{path} is in system temp" for path in stray]
        for node, workflow, way in asked_for(forest):
            places = Counter(str(path.parent) for path in found.get(node["name"], []))
            if places != {str(self.root / workflow / "tmp"): node["files"]}:
                problems.append(
                    f"{way}: {node['files']} files of {workflow[:20]!r} were asked for, and made: {dict(places)}"
                )
            self.files += sum(places.values())
            self.kinds[node["do"]] += 1
        self.trees += len(forest)
        return problems


def asked_for(forest: list[Node], inherited: str = "", way: str = "") -> Iterator[tuple[Node, str, str]]:
    """Each node, the workflow that its files belong to, and the way to it."""
    for node in forest:
        workflow, here = inherited, f"{way}{node['do']}"
        if node["workflow"] is not None:
            workflow, here = node["workflow"], f"{here} of {node['workflow'][:20]!r}"
        yield node, workflow, here
        yield from asked_for(node["children"], workflow, f"{here} > ")


def check(ground: Ground, grow: Callable[[list[Node]], list[str]], checker: Checker, examples: int) -> None:
    """Grow each kind, then `examples` random forests; in a soak more of them until enough files were checked."""
    failed: dict[str, float] = {}

    def every_file_is_where_it_belongs(forest: list[Node]) -> None:
        text = json.dumps(forest)
        if failed and text not in failed and time.monotonic() > min(failed.values()) + SHRINK_SECONDS:
            hypothesis.reject()  # it has been reduced for long enough
        named = [with_names(node) for node in forest]
        problems = [*grow(named), *checker.problems(named)]
        if problems:
            failed.setdefault(text, time.monotonic())
            pytest.fail("\n".join(problems), pytrace=False)

    for forest in each_kind(ground):
        every_file_is_where_it_belongs(forest)
    settings = hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        report_multiple_bugs=False,
    )
    random_forests = settings(hypothesis.given(forests(ground))(every_file_is_where_it_belongs))
    first_seed = secrets.randbits(32) if SOAK == "new" else int(SOAK or 0)
    print(f"SOAK={first_seed}")
    for seed in itertools.count(first_seed):
        hypothesis.seed(seed)(random_forests)()
        if not SOAK or checker.files >= SOAK_FILES:
            break
    print(f"{checker.files} files of {checker.trees} trees, {dict(checker.kinds)}")


@pytest.fixture
def checker(root: Path) -> Iterator[Checker]:
    with Watcher(["/tmp", "/var/tmp", root]) as watcher:
        yield Checker(root, watcher)
    for path in watcher.created:
        if NAME.match(path.name) and not path.is_relative_to(root):  # what the shim should have prevented
            path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)


@pytest.fixture
def sockets() -> Iterator[str]:
    """A short directory for sockets; neither they nor semaphores are left in shared memory."""
    with tempfile.TemporaryDirectory(prefix="trees-", dir="/dev/shm") as directory:
        yield directory
        assert not os.listdir(directory)
    mine = f"sem.{os.path.basename(directory)}"
    assert wait_until(lambda: not [name for name in os.listdir("/dev/shm") if name.startswith(mine)], END_SECONDS)


def members(group: int) -> list[int]:
    """The processes of a group."""
    found = []
    for name in os.listdir("/proc"):
        with suppress(ValueError, ProcessLookupError):
            if os.getpgid(int(name)) == group:
                found.append(int(name))
    return found


def dump_stacks(group: int) -> None:
    """Have each process of a group that can do it write to the log where its threads are."""
    for process in members(group):
        with suppress(FileNotFoundError, ProcessLookupError):
            caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{process}/status").read_text(encoding="utf-8"))
            if caught and int(caught[1], 16) >> signal.SIGUSR2 - 1 & 1:
                os.kill(process, signal.SIGUSR2)
                time.sleep(0.05)  # or they write at once, and nobody can read it


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.promise
def test_trees_in_a_process(
    shim_env: dict[str, str], overlay: Path, helpers: Path, tmp_path: Path, checker: Checker, sockets: str
) -> None:
    env = {**shim_env, "PYTHONPATH": f"{overlay}:{helpers}", "TMP_REDIRECT_SOCKET_DIR": sockets}
    log = tmp_path / "driver.log"
    driver = Driver(helpers / "trees.py", env, log)
    try:
        check(PROCESS, driver.grow, checker, 20)
    finally:
        left = driver.stop()
        print_end_of(log)
    assert not left


@pytest.mark.promise
@pytest.mark.parametrize("pool", POOLS)
def test_trees_in_tasks(
    servers: Servers, worker_env: dict[str, str], client: Celery, checker: Checker, sockets: str, pool: str
) -> None:
    env = {**worker_env, "TMP_REDIRECT_SOCKET_DIR": sockets}
    concurrency = 2 if pool == "prefork" else 8
    names = (f"trees{number}" for number in itertools.count())
    worker = Worker(client, lambda: servers.celery_worker(next(names), "tree_app", env, concurrency, pool))
    try:
        check(POOLS[pool], worker.grow, checker, 10)
    finally:
        worker.stop()
        for log in sorted(servers.directory.glob("trees*.log")):
            print_end_of(log)


def print_end_of(log: Path) -> None:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    print("\n".join([line for line in lines if ": INFO/" not in line][-1000:]))
