"""Threads and work items belong to the workflow of the code that started or submitted them."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.mark.promise
@pytest.mark.fresh
def test_threads(root: Path):
    import tempfile
    import threading

    from services.common.tmp_redirect import workflow

    made = {}

    def make(key):
        made[key] = tempfile.mkdtemp(prefix=f"{threading.current_thread().name}-")

    class Overriding(threading.Thread):
        def run(self):
            make("a thread that overrides run")

    def nested():
        thread = threading.Thread(target=make, args=["a thread of a thread"])
        thread.start()
        thread.join()

    with workflow("wf-1"):
        threads = [
            threading.Thread(target=make, args=["a thread"]),
            threading.Timer(0, make, ["a timer"]),
            Overriding(),
            threading.Thread(target=nested),
            threading.Thread(target=make, args=["a daemon"], daemon=True),
        ]
        with workflow("wf-2"):
            made_elsewhere = threading.Thread(target=make, args=["a thread that another workflow made"])
        threads.append(made_elsewhere)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    thread = threading.Thread(target=make, args=["outside"])
    thread.start()
    thread.join()
    outside = Path(made.pop("outside"))
    assert outside.parent == root / ".outside" / "svc" / "tmp", outside
    assert len(made) == 6
    assert {Path(path).parent for path in made.values()} == {root / "wf-1" / "tmp"}, made
    assert len(list((root / "wf-1" / "tmp").iterdir())) == 6
    assert not (root / "wf-2" / "tmp").exists() or not list((root / "wf-2" / "tmp").iterdir())


@pytest.mark.promise
@pytest.mark.fresh
def test_a_thread_that_outlives_its_workflow_is_outside(root: Path):
    import tempfile
    import threading

    from services.common.tmp_redirect import current_workflow, workflow

    left, made = threading.Event(), []

    def outlive():
        made.append(tempfile.mkdtemp())
        left.wait()
        made.append(tempfile.mkdtemp())
        assert current_workflow() is None
        with workflow("wf-2"):
            made.append(tempfile.mkdtemp())

    with workflow("wf-1"):
        thread = threading.Thread(target=outlive, daemon=True)
        thread.start()
    left.set()
    thread.join()
    expected = [root / "wf-1" / "tmp", root / ".outside" / "svc" / "tmp", root / "wf-2" / "tmp"]
    assert [Path(path).parent for path in made[1:]] == expected[1:], made
    assert Path(made[0]).parent in expected[:2]  # it may have begun when the scope was left already


@pytest.mark.promise
@pytest.mark.fresh
def test_work_items_of_a_shared_pool(root: Path):
    """Eight workflows at once submit to one pool, whose threads the first of them starts."""
    import tempfile
    import threading
    from concurrent.futures import ThreadPoolExecutor

    from services.common.tmp_redirect import workflow

    pool = ThreadPoolExecutor(8)
    barrier = threading.Barrier(8)
    made = []

    def note(asked):
        made.append((asked, tempfile.mkdtemp(prefix=f"{asked}-")))

    def work(asked):
        barrier.wait()
        note(asked)
        barrier.wait()

    def submit(asked):
        with workflow(asked):
            called = threading.Event()
            future = pool.submit(work, asked)
            future.add_done_callback(lambda future: (note(asked), called.set()))
            future.result()
            list(pool.map(note, [asked] * 3))
            called.wait()

    for _ in range(3):
        workflows = [threading.Thread(target=submit, args=[f"wf-{number}"]) for number in range(8)]
        for thread in workflows:
            thread.start()
        for thread in workflows:
            thread.join()
    assert len(made) == 3 * 8 * 5
    for asked, path in made:
        assert Path(path).parent == root / asked / "tmp", (asked, path)
    made.clear()
    with workflow("wf-1"):
        entered, left = threading.Event(), threading.Event()
        late = pool.submit(lambda: (entered.set(), left.wait(), note("late")))
        entered.wait()
    left.set()
    late.result()
    pool.submit(note, "outside").result()
    pool.shutdown()
    assert [Path(path).parent for _, path in made] == [root / ".outside" / "svc" / "tmp"] * 2, made


@pytest.mark.promise
@pytest.mark.fresh
def test_multiprocessing_thread_pool(root: Path):
    import tempfile
    import threading
    from multiprocessing.pool import ThreadPool

    from services.common.tmp_redirect import workflow

    made = []

    def note(asked, *_):
        path = tempfile.mkdtemp(prefix=f"{asked}-")
        made.append((asked, path))
        return path

    def fail(_):
        raise ValueError

    with workflow("first"):
        pool = ThreadPool(2)
    for asked in ("wf-1", "wf-2"):
        with workflow(asked):
            event = threading.Event()
            pool.apply(note, (asked,))
            pool.apply_async(note, (asked,), callback=lambda _: (note(asked), event.set())).get()
            event.wait()
            event.clear()
            pool.apply_async(fail, (asked,), error_callback=lambda _: (note(asked), event.set())).wait()
            event.wait()
            pool.map(note, [asked] * 2)
            event.clear()
            pool.map_async(note, [asked], callback=lambda _: (note(asked), event.set())).get()
            event.wait()
            pool.starmap(note, [(asked, 1), (asked, 2)])
            list(pool.imap(note, (note(asked) and asked for _ in range(2))))
            list(pool.imap_unordered(note, (note(asked) and asked for _ in range(2)), chunksize=2))
    pool.close()
    pool.join()
    assert len(made) == 2 * (1 + 2 + 1 + 2 + 2 + 2 + 4 + 4)
    for asked, path in made:
        assert Path(path).parent == root / asked / "tmp", (asked, path)


@pytest.mark.promise
@pytest.mark.fresh
def test_asyncio(root: Path):
    import asyncio
    import sys
    import tempfile

    from services.common.tmp_redirect import workflow

    def note(asked):
        return asked, tempfile.mkdtemp(prefix=f"{asked}-")

    async def child(asked):
        code = "import tempfile; print(tempfile.mkdtemp())"
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
        out, _ = await process.communicate()
        shell = await asyncio.create_subprocess_shell("mktemp -d", stdout=asyncio.subprocess.PIPE, env={})
        out_of_shell, _ = await shell.communicate()
        return [(asked, path) for path in (out + out_of_shell).decode().split()]

    async def work(asked, everyone):
        with workflow(asked):
            everyone.append(asked)
            while len(everyone) < 8:
                await asyncio.sleep(0)
            loop = asyncio.get_running_loop()
            made = await asyncio.gather(
                asyncio.to_thread(note, asked),
                loop.run_in_executor(None, note, asked),
                asyncio.create_task(later(asked)),
            )
            called = loop.create_future()
            loop.call_soon_threadsafe(lambda: called.set_result(note(asked)))
            return [*made, note(asked), await called, *await child(asked)]

    async def later(asked):
        await asyncio.sleep(0)
        return note(asked)

    async def main():
        everyone = []
        return await asyncio.gather(*(work(f"wf-{number}", everyone) for number in range(8)))

    made = [pair for pairs in asyncio.run(main()) for pair in pairs]
    assert len(made) == 8 * 7
    for asked, path in made:
        assert Path(path).parent == root / asked / "tmp", (asked, path)


@pytest.mark.fresh
def test_what_a_program_sees_of_threads_is_unchanged():
    import inspect
    import pickle
    import threading
    from concurrent.futures import Future, ThreadPoolExecutor
    from multiprocessing.pool import Pool

    from services.common.tmp_redirect import uninstall, workflow

    methods = [
        (threading.Thread, "start"), (threading.Thread, "_bootstrap_inner"), (ThreadPoolExecutor, "submit"),
        (Future, "add_done_callback"), (Pool, "apply_async"), (Pool, "_map_async"), (Pool, "imap"),
    ]  # fmt: skip
    originals = [owner.__dict__[name] for owner, name in methods]
    with workflow("wf-1"):
        pass
    for (owner, name), original in zip(methods, originals):
        patched = owner.__dict__[name]
        assert patched is not original
        assert inspect.signature(patched) == inspect.signature(original)
        assert (patched.__name__, patched.__module__) == (original.__name__, original.__module__)
    assert pickle.loads(pickle.dumps(threading.Thread.start)) is threading.Thread.start
    with ThreadPoolExecutor(1) as pool:
        for wrong in (lambda: pool.submit(), lambda: pool.submit(fn=print)):
            try:
                wrong()
            except TypeError as error:
                assert "submit" in str(error) and "call_in" not in str(error), error
            else:
                raise AssertionError
        assert isinstance(pool.submit(1).exception(), TypeError)
        assert pool.submit(dict, fn=1, scope=2, function=3).result() == {"fn": 1, "scope": 2, "function": 3}
    uninstall()
    assert [owner.__dict__[name] for owner, name in methods] == originals


@pytest.mark.promise
@pytest.mark.fresh
def test_contexts_of_threads_in_python_3_14(root: Path):
    """From 3.14 on a thread runs in `_context`: a copy of the starter's, an empty one, or the caller's own."""
    import contextvars
    import tempfile
    import threading

    from services.common.tmp_redirect import workflow

    class Thread(threading.Thread):
        """As Python 3.14 has it, on top of an older one."""

        def __init__(self, context, **options):
            super().__init__(**options)
            self._context = context

        def run(self):
            self._context.run(super().run)

    made = []
    with workflow("wf-2"):
        of_another = contextvars.copy_context()
        with workflow("wf-1"):
            for context in (contextvars.Context(), contextvars.copy_context(), of_another):
                thread = Thread(context, target=lambda: made.append(tempfile.mkdtemp()))
                thread.start()
                thread.join()
    assert [Path(path).parent.parent.name for path in made] == ["wf-1", "wf-1", "wf-2"], made


@pytest.mark.fresh
def test_a_pool_of_interpreters_is_left_alone():
    """Python 3.14's pickles its work items, and a scope can't be: it is known by its name."""
    from concurrent.futures import ThreadPoolExecutor

    from services.common.tmp_redirect import workflow

    class InterpreterPoolExecutor(ThreadPoolExecutor):
        pass

    with workflow("wf-1"), InterpreterPoolExecutor(1) as pool:
        assert pool.submit(lambda: __import__("sys")._getframe(1).f_code.co_name).result() == "run"


@pytest.mark.fresh
def test_entering_scopes_at_once_installs_once():
    import threading

    from services.common.tmp_redirect import workflow

    original = threading.Thread.start
    barrier = threading.Barrier(8)

    def enter(number):
        barrier.wait()
        with workflow(f"wf-{number}"):
            assert threading.Thread.start is not original
            assert threading.Thread.start.__wrapped__ is original

    errors = []
    threading.excepthook = errors.append
    threads = [threading.Thread(target=enter, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


@pytest.mark.fresh
def test_a_scope_is_entered_while_another_thread_imports_what_is_to_be_patched(root: Path):
    import sys
    import threading

    from services.common.tmp_redirect import patches

    sys.path.insert(0, str(root))
    (root / "slow.py").write_text(
        "import threading\nbegun, end = threading.Event(), threading.Event()\n"
        "sys = __import__('sys'); sys.slow = begun, end\n"
        "def install(): begun.set(); end.wait()\ninstall()\ndef function(): pass\n"
    )
    importer = threading.Thread(target=lambda: __import__("slow"))
    importer.start()
    while not hasattr(sys, "slow"):
        pass
    begun, end = sys.slow
    begun.wait()
    assert not hasattr(sys.modules["slow"], "function")
    main = threading.get_ident()

    def go_on_when_it_is_waited_for():
        while not end.is_set():
            frame, names = sys._current_frames()[main], []
            while frame:
                names.append(frame.f_code.co_name)
                frame = frame.f_back
            if "when_imported" in names:
                end.set()

    waiting = threading.Thread(target=go_on_when_it_is_waited_for)
    waiting.start()
    part = patches.Patches()
    try:
        part.when_imported("slow", lambda module, part: part.replace(module, "function", print))
    finally:
        end.set()
        importer.join()
        waiting.join()
    assert sys.modules["slow"].function is print
    part.undo()


@pytest.mark.parametrize(
    "ask",
    ["workspace", *(pytest.param(ask, marks=pytest.mark.promise) for ask in ("gettempdir", "mkdtemp", "for_child"))],
)
@pytest.mark.fresh
def test_a_scope_is_left_by_another_thread_at_any_line(root: Path, ask: str):
    import contextvars
    import itertools
    import os
    import sys
    import tempfile
    from concurrent.futures import ThreadPoolExecutor

    from services.common.tmp_redirect import scope
    from services.common.tmp_redirect.propagate.environment import for_child

    homes = {str(root / ".outside" / "svc" / "tmp"): 0, str(root / "wf-1" / "tmp"): 0}
    asks = {
        "gettempdir": tempfile.gettempdir,
        "workspace": scope.workspace,
        "mkdtemp": lambda: os.path.dirname(tempfile.mkdtemp()),
        "for_child": lambda: for_child(None)["TMPDIR"],
    }
    ours = os.path.dirname(scope.__file__)

    def left_at(line):
        """Whether asking took so many lines of the shim; the scope was left at that one, or after all."""
        entered, lines = scope.enter("wf-1"), itertools.count(1)

        def trace(frame, event, argument):
            if not frame.f_code.co_filename.startswith(ours):
                return None
            if event == "line" and next(lines) == line:
                sys.settrace(None)
                pool.submit(scope.leave, entered).result()
            return None if entered.left else trace

        sys.settrace(trace)
        try:
            home = asks[ask]()
        finally:
            sys.settrace(None)
        homes[home] += 1
        reached = entered.left
        if not reached:
            scope.leave(entered)
        assert [path.name for path in (root / ".leases" / "wf-1").glob("lease~*")] == []
        return reached

    with ThreadPoolExecutor(1) as pool:
        asks[ask]()
        pool.submit(int).result()
        lines = next(line for line in itertools.count(1) if not contextvars.copy_context().run(left_at, line))
    assert lines > 3
    assert all(homes.values()), homes
    assert sum(homes.values()) == lines


@pytest.mark.fresh
def test_threads_never_get_the_same_name_of_a_lease():
    import sys
    from concurrent.futures import ThreadPoolExecutor

    from services.common.tmp_redirect.lifecycle import new_name

    sys.setswitchinterval(1e-6)
    with ThreadPoolExecutor(4) as pool:
        names = list(pool.map(lambda _: [new_name("purge") for _ in range(500)], range(40)))
    assert len({name for some in names for name in some}) == 40 * 500


@pytest.mark.fresh
def test_a_child_is_started_while_another_thread_removes_a_variable(root: Path):
    import os
    import sys

    from services.common.tmp_redirect import workflow
    from services.common.tmp_redirect.propagate.environment import for_child

    listed = []
    os.environ["GOES"] = "1"  # the last of them

    def remove(frame, event, argument):  # as another thread could, when the names have been listed
        if frame.f_code is type(os.environ).__iter__.__code__:
            listed.append(True)
        elif listed and frame.f_code is type(os.environ).__getitem__.__code__:
            sys.settrace(None)
            del os.environ["GOES"]

    with workflow("wf-1"):
        for_child(None)  # which imports what it needs
        sys.settrace(remove)
        environ = for_child(None)
    assert "GOES" not in os.environ
    assert "GOES" not in environ
    assert environ["TMP_REDIRECT_SCOPE"] == "wf-1"
    assert environ["PATH"] == os.environ["PATH"]
