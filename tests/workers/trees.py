"""Grows trees of ways to run code: a node makes temp files and starts its children, each in the way that it names.

A node is a JSON object:

    do        the way in which it is started: a name in `KINDS`
    workflow  the workflow id that it names, or null: then it works for the workflow that started it
    name      the beginning of the names of its files
    files     how many files it makes
    children  nodes that it starts, all of them before it waits for the first

Which workflow a file belongs to is not in the tree. Only the test knows, and nothing here can be made to fit.

As a program it takes lists of trees, from its arguments or else from the lines of its input, grows those of a list at
once, and writes a line about each list: null, or the traceback of what went wrong.

A kind is a generator: it starts the node, yields, and waits for the node when it is resumed. Modules that few nodes
need are imported late, since most interpreters that run this live for one node.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import BaseContext
    from multiprocessing.pool import Pool

Node = dict[str, Any]

STALE = dict(os.environ)
faulthandler.register(signal.SIGUSR2, sys.__stderr__)  # so that what hangs can say where


def grow(node: Node) -> None:
    """What a node does, wherever it runs."""
    half = node["files"] // 2
    with named(node), ExitStack() as started:
        make_files(node["name"], range(half))
        for child in node["children"]:
            started.enter_context(start(child))
        make_files(node["name"], range(half, node["files"]))


def start(node: Node) -> AbstractContextManager[None]:
    """Start a node; leaving the context waits for it, and raises what it raised."""
    return contextmanager(KINDS[node["do"]])(node)


def run(node: Node) -> None:
    with start(node):
        pass


def named(node: Node) -> AbstractContextManager[Any]:
    """The scope of the workflow that the node names."""
    if node["workflow"] is None:
        return nullcontext()
    from services.common.tmp_redirect import workflow

    return workflow(node["workflow"])


def make_files(name: str, numbers: range) -> None:
    """One file or directory a number, which stays."""
    for number in numbers:
        FILES[number % len(FILES)](name)


FILES: list[Callable[[str], object]] = [
    lambda name: os.close(tempfile.mkstemp(prefix=name)[0]),
    lambda name: tempfile.mkdtemp(prefix=name),
    lambda name: tempfile.NamedTemporaryFile(prefix=name, delete=False).close(),
    lambda name: os.close(tempfile.mkstemp(prefix=name.encode())[0]),
    lambda name: os.mkdir(tempfile.mktemp(prefix=name)),
    lambda name: tempfile.NamedTemporaryFile(prefix=name.encode(), delete=False, mode="w", encoding="utf-8").close(),
    lambda name: open(os.path.join(tempfile.gettempdir(), f"{name}gettempdir"), "x", encoding="utf-8").close(),
    lambda name: tempfile.mkdtemp(prefix=name.encode()),
]


class Call:
    """A call of `grow` whose outcome somebody else waits for."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.outcome: Future[None] = Future()

    def __call__(self, *_: Any) -> None:
        try:
            grow(self.node)
        except BaseException as error:
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(None)


# In the same thread


def call(node: Node) -> Iterator[None]:
    grow(node)
    yield


# Threads


class OwnRun(threading.Thread):
    def __init__(self, call: Call) -> None:
        super().__init__()
        self.call = call

    def run(self) -> None:
        self.call()


def thread(make: Callable[[Call], threading.Thread], node: Node) -> Iterator[None]:
    call = Call(node)
    thread = make(call)
    thread.start()
    yield
    call.outcome.result()
    thread.join()


# Pools


def executor(make: Callable[[], Executor], node: Node) -> Iterator[None]:
    with make() as executor:
        future = executor.submit(grow, node)
        yield
        future.result()


def pool(make: Callable[[], Pool], submit: str, node: Node) -> Iterator[None]:
    with make() as pool:
        yield from in_pool(lambda: pool, submit, node)
        pool.close()
        pool.join()


def in_executor(shared: Callable[[], Executor], node: Node) -> Iterator[None]:
    future = shared().submit(grow, node)
    yield
    future.result()


def in_pool(shared: Callable[[], Pool], submit: str, node: Node) -> Iterator[None]:
    if submit == "imap":
        results = shared().imap(grow, [node])
        yield
        results.next()
    else:
        result = shared().apply_async(grow, (node,)) if submit == "apply" else shared().map_async(grow, [node])
        yield
        result.get()


def callback(shared: Callable[[], Executor], node: Node) -> Iterator[None]:
    """Called by a thread of the pool, since the work isn't done before the callback is there."""
    call, added = Call(node), threading.Event()
    shared().submit(added.wait).add_done_callback(call)
    added.set()
    yield
    call.outcome.result()


def thread_pool(size: int = 2) -> Pool:
    from multiprocessing.pool import ThreadPool

    return ThreadPool(size)


def process_pool(method: str, size: int = 1) -> Executor:
    from concurrent.futures import ProcessPoolExecutor

    return ProcessPoolExecutor(size, start_method(method))


def multiprocessing_pool(method: str) -> Pool:
    return start_method(method).Pool(1)


def start_method(name: str) -> BaseContext:
    """Of multiprocessing, which names its semaphores so that the test can tell which are left of its own."""
    import multiprocessing

    prefix = os.path.basename(os.environ["TMP_REDIRECT_SOCKET_DIR"])
    multiprocessing.current_process()._config["semprefix"] = f"/{prefix}"
    return multiprocessing.get_context(name)


class Shared:
    """A pool that serves all workflows of the process: it is made, and starts its threads, for the first of them."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make
        self.pools: dict[int, Any] = {}  # of a process; a forked one keeps its parent's, to free it would take locks
        self.renew_lock()
        os.register_at_fork(after_in_child=self.renew_lock)

    def renew_lock(self) -> None:
        self.lock = threading.Lock()

    def __call__(self) -> Any:
        with self.lock:
            if os.getpid() not in self.pools:
                self.pools[os.getpid()] = self.make()
            return self.pools[os.getpid()]


shared_executor = Shared(lambda: ThreadPoolExecutor(4))
shared_thread_pool = Shared(lambda: thread_pool(4))
shared_process_pool = Shared(lambda: process_pool("spawn", 2))


# Coroutines


def loop(node: Node) -> Iterator[None]:
    """An event loop that ends with the node; its children run on it, too."""
    import asyncio

    asyncio.run(COROUTINES[node["do"]](node))
    yield


async def coroutine(node: Node) -> None:
    """What `grow` does, with children that take turns at each await."""
    import asyncio

    half = node["files"] // 2
    with named(node):
        make_files(node["name"], range(half))
        await asyncio.sleep(0)
        await asyncio.gather(
            *(
                COROUTINES[child["do"]](child) if child["do"] in COROUTINES else asyncio.to_thread(run, child)
                for child in node["children"]
            )
        )
        make_files(node["name"], range(half, node["files"]))


async def to_thread(node: Node) -> None:
    import asyncio

    await asyncio.to_thread(grow, node)


async def run_in_executor(shared: Callable[[], Executor | None], node: Node) -> None:
    import asyncio

    await asyncio.get_running_loop().run_in_executor(shared(), grow, node)


async def anyio_thread(node: Node) -> None:
    import anyio.to_thread

    await anyio.to_thread.run_sync(grow, node)


async def asyncio_child(node: Node) -> None:
    import asyncio

    process = await asyncio.create_subprocess_exec(*interpreter(node), stdout=asyncio.subprocess.PIPE)
    answer, _ = await process.communicate()
    check(answer, node)


async def asyncio_shell(node: Node) -> None:
    import asyncio

    process = await asyncio.create_subprocess_shell(mktemp(node))
    check_status(await process.wait(), node)


# Children that are interpreters


def interpreter(node: Node, *options: str) -> list[str]:
    """The command that grows the node in an interpreter of its own."""
    return [sys.executable, *options, os.path.abspath(__file__), json.dumps([node | {"do": "call"}])]


def child(env: Callable[[], dict[str, str] | None], node: Node, *options: str) -> Iterator[None]:
    with subprocess.Popen(interpreter(node, *options), stdout=subprocess.PIPE, env=env()) as process:
        yield
        check(process.communicate()[0], node)


def from_nothing() -> dict[str, str]:
    """What an interpreter needs to find the shim, and a task its broker; the shim's own settings are not in it."""
    return {name: os.environ[name] for name in ("PYTHONPATH", "BROKER", "BACKEND") if name in os.environ}


def check(answer: bytes, node: Node) -> None:
    failure = json.loads(answer) if answer else "there is no answer, see the log"
    if failure is not None:
        raise RuntimeError(f"{node['name']} ({node['do']}): {failure}")


# Children that are other programs


def mktemp(node: Node) -> str:
    """A script that makes the node's files by a program that knows nothing of Python."""
    return "{ " + "; ".join([f"mktemp -t {node['name']}XXXXXX"] * node["files"]) + "; } >/dev/null"


def program(execute: Callable[[str], int | None], node: Node) -> Iterator[None]:
    check_status(execute(mktemp(node)), node)
    yield


def check_status(status: object, node: Node) -> None:
    if status:
        raise RuntimeError(f"{node['name']} ({node['do']}): the status is {status}")


def fork_and_exec(script: str) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            os.execvp("sh", ["sh", "-c", script])
        finally:
            os._exit(127)
    return os.waitpid(pid, 0)[1]


def posix_spawn(spawn: Callable[..., int], script: str) -> int:
    return os.waitpid(spawn("/bin/sh", ["sh", "-c", script], os.environ), 0)[1]


# multiprocessing


def process(method: str, node: Node) -> Iterator[None]:
    """Not judged by its status: one that is forked in a thread of an executor has 1 (`_python_exit` joins itself)."""
    context = start_method(method)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=send_answer, args=(node, sender))
    process.start()
    sender.close()
    yield
    with receiver:
        check(receiver.recv_bytes(), node)
    process.join()


def send_answer(node: Node, sender: Connection) -> None:
    sender.send_bytes(answer([node | {"do": "call"}]))


# Celery. Nobody waits for a published task here: its id has the node's name, so the test can.


def context(node: Node) -> dict[str, Any]:
    named = {} if node["workflow"] is None else {"workflow_id": node["workflow"]}
    return {**named, "tree": {**node, "workflow": None}}


def signature(node: Node) -> Any:
    """The task that grows the node; those below it that are a link are published by its worker when it has ended."""
    import tree_app

    links = [child for child in node["children"] if child["do"] == "link"]
    others = [child for child in node["children"] if child["do"] != "link"]
    task = tree_app.grow.si(context=context({**node, "children": others}))
    return task.set(task_id=f"task-{node['name']}", link=[signature(link) for link in links])


def task(node: Node) -> Iterator[None]:
    signature(node).apply_async()
    yield


def apply(node: Node) -> Iterator[None]:
    import tree_app

    tree_app.grow.apply(kwargs={"context": context(node)}, throw=True)
    yield


def direct(node: Node) -> Iterator[None]:
    import tree_app

    tree_app.grow(context=context(node))
    yield


COROUTINES: dict[str, Callable[[Node], Any]] = {
    "coroutine": coroutine,
    "to_thread": to_thread,
    "run_in_executor": partial(run_in_executor, lambda: None),
    "run_in_shared_executor": partial(run_in_executor, shared_executor),
    "anyio_thread": anyio_thread,
    "asyncio_child": asyncio_child,
    "asyncio_shell": asyncio_shell,
}
KINDS: dict[str, Callable[[Node], Iterator[None]]] = {
    "call": call,
    "thread": partial(thread, lambda call: threading.Thread(target=call)),
    "thread_subclass": partial(thread, OwnRun),
    "timer": partial(thread, lambda call: threading.Timer(0, call)),
    "executor": partial(executor, ThreadPoolExecutor),
    "thread_pool": partial(pool, thread_pool, "apply"),
    "thread_pool_map": partial(pool, thread_pool, "map"),
    "thread_pool_imap": partial(pool, thread_pool, "imap"),
    "shared_executor": partial(in_executor, shared_executor),
    "shared_thread_pool": partial(in_pool, shared_thread_pool, "apply"),
    "shared_thread_pool_imap": partial(in_pool, shared_thread_pool, "imap"),
    "callback": partial(callback, shared_executor),
    **dict.fromkeys(COROUTINES, loop),
    "child": partial(child, lambda: None),
    "child_stale": partial(child, lambda: STALE),
    "child_from_nothing": partial(child, from_nothing),
    "child_without_shim": lambda node: child(dict, node, "-S"),
    "shell": partial(program, lambda script: subprocess.run(script, shell=True, check=False).returncode),
    "system": partial(program, os.system),
    "popen": partial(program, lambda script: os.popen(script).close()),
    "posix_spawn": partial(program, partial(posix_spawn, os.posix_spawn)),
    "posix_spawnp": partial(program, partial(posix_spawn, os.posix_spawnp)),
    "spawnvp": partial(program, lambda script: os.spawnvp(os.P_WAIT, "sh", ["sh", "-c", script])),
    "spawnve": partial(program, lambda script: os.spawnve(os.P_WAIT, "/bin/sh", ["sh", "-c", script], {})),
    "fork_and_exec": partial(program, fork_and_exec),
    **{f"process_{method}": partial(process, method) for method in ("fork", "spawn", "forkserver")},
    "process_pool_fork": partial(executor, partial(process_pool, "fork")),
    "process_pool_spawn": partial(executor, partial(process_pool, "spawn")),
    "process_pool_forkserver": partial(executor, partial(process_pool, "forkserver")),
    "shared_process_pool": partial(in_executor, shared_process_pool),
    "multiprocessing_pool_fork": partial(pool, partial(multiprocessing_pool, "fork"), "imap"),
    "multiprocessing_pool_spawn": partial(pool, partial(multiprocessing_pool, "spawn"), "apply"),
    "task": task,
    "apply": apply,
    "direct": direct,
}


def preload() -> None:
    """Import what kinds import late: a child that is forked while a thread imports never gets that module."""
    for module in ("asyncio", "anyio._backends._asyncio", "concurrent.futures.process", "multiprocessing.pool"):
        import_module(module)
    from services.common import tmp_redirect

    assert tmp_redirect.workflow


def answer(trees: list[Node]) -> bytes:
    """Grow the trees at once; how it went, in JSON: null, or the traceback of what went wrong."""
    try:
        grow({"workflow": None, "name": "", "files": 0, "children": trees})
        failure = None
    except BaseException:
        failure = traceback.format_exc()
    return json.dumps(failure).encode()


def main() -> None:
    if len(sys.argv) == 1 or ("fork" in sys.argv[1] and not sys.flags.no_site):
        preload()
    for line in sys.argv[1:] or sys.stdin:
        os.write(1, answer(json.loads(line)) + b"\n")


if __name__ == "__main__":
    import trees  # so that this module is the same one for what it pickles, and for tasks

    trees.main()
