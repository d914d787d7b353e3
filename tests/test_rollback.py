"""After a rollback a process is as if there had never been a shim. Python itself is the reference, run without it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from examples.servers import Process
from tests.celery_workers import Start, answer
from tests.test_sweep import inventory, things_of_the_user
from tests.tracing import created

DOCUMENT = Path(__file__).parents[1] / "docs" / "rollback.md"
OFF = [None, "", "off"]
RANDOM = re.compile(
    r"[a-z0-9_]{8}(?=(\.\w+)?$)|(?<=#)\d+"
)  # of tempfile's names; the kernel's, of a file that has none

INVENTORY = r"""
import sys
found = {"modules": sorted(sys.modules), "path": list(sys.path)}
found["finders"] = [getattr(finder, "__qualname__", repr(type(finder))) for finder in sys.meta_path]
found["hooks"] = [getattr(hook, "__qualname__", repr(hook)) for hook in sys.path_hooks]
found["tracing"] = [repr(sys.gettrace()), repr(sys.getprofile()), sys.excepthook is sys.__excepthook__]
import os
found["descriptors"] = sorted(os.listdir("/proc/self/fd"))
found["environment"] = dict(os.environ)
with open("/proc/self/maps") as file:
    found["mapped"] = sorted({line.split(maxsplit=5)[5].strip() for line in file if "/" in line})
with open("/proc/self/status") as file:
    shown = ("SigBlk", "SigIgn", "SigCgt", "NoNewPrivs", "Seccomp:", "Threads")
    found["status"] = [line for line in file if line.startswith(shown)]
import atexit, signal
found["callbacks at the end"] = atexit._ncallbacks()
found["signals"] = [repr(signal.getsignal(number)) for number in sorted(signal.valid_signals())]
import builtins, codecs, concurrent.futures.process, concurrent.futures.thread, glob, hashlib, importlib, io, json
import multiprocessing.connection, multiprocessing.managers, multiprocessing.pool, multiprocessing.process
import multiprocessing.spawn, multiprocessing.util, pathlib, runpy, shutil, sqlite3, subprocess, tempfile, threading

def code_of(value):
    code = value.__code__
    parts = (code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_argcount, code.co_flags)
    return [code.co_filename, code.co_firstlineno, hashlib.sha256(repr(parts).encode()).hexdigest()]

def describe(value, depth=0):
    value = getattr(value, "__func__", value)
    seen = [type(value).__name__, getattr(value, "__module__", None), getattr(value, "__qualname__", None)]
    if hasattr(value, "__code__"):
        seen.append(code_of(value))
    if isinstance(value, type) and depth == 0:
        seen.append({name: describe(inner, 1) for name, inner in vars(value).items()})
    return seen

packages = ("multiprocessing", "concurrent")
names = {name for name in sys.modules if name.startswith(packages)}
names |= {"builtins", "codecs", "glob", "importlib", "io", "os", "pathlib", "posix", "posixpath", "runpy", "shutil",
          "signal", "sqlite3", "subprocess", "sys", "tempfile", "threading", "_thread", "_io"}
found["functions"] = {
    name: {key: describe(value) for key, value in vars(sys.modules[name]).items()} for name in sorted(names)
}
found["supports"] = [sorted(function.__name__ for function in functions) for functions in (
    os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks, os.supports_effective_ids)]
found["modules later"] = sorted(sys.modules)
found["temp directory"] = [tempfile.tempdir, tempfile.gettempdir(), tempfile._candidate_tempdir_list()]
found["environment later"] = dict(os.environ) == found["environment"]
json.dump(found, sys.stdout)
"""


def look(python: str, env: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run([python, "-c", INVENTORY], env=env, cwd="/", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="session")
def look_at_stock() -> Callable[[str, dict[str, str]], dict[str, Any]]:
    looks: dict[str, dict[str, Any]] = {}

    def look_at_stock(python: str, env: dict[str, str]) -> dict[str, Any]:
        if python not in looks:
            looks[python] = look(python, without(env))
        return dict(looks[python])

    return look_at_stock


def without(env: dict[str, str]) -> dict[str, str]:
    """The environment of a process without the shim."""
    return {name: value for name, value in env.items() if not name.startswith(("TMP_REDIRECT", "PYTHONPATH"))}


def with_mode(env: dict[str, str], value: str | None) -> dict[str, str]:
    return {name: text for name, text in {**env, "TMP_REDIRECT": value}.items() if text is not None}


@pytest.mark.parametrize("value", OFF)
def test_off_is_as_without_the_shim(
    python: str, shim_env: dict[str, str], overlay: Path, look_at_stock: Callable[..., Any], value: str | None
) -> None:
    env = with_mode(shim_env, value)
    stock, off = look_at_stock(python, shim_env), look(python, env)
    # All that differs: one module, without which no interpreter could be told to start the shim, and where it is found.
    for modules in ("modules", "modules later"):
        assert set(off[modules]) - set(stock.pop(modules)) <= {"sitecustomize"}
        assert "sitecustomize" in off.pop(modules)
    assert [entry for entry in off.pop("path") if entry != str(overlay)] == stock.pop("path")
    given = off.pop("environment")
    assert {name: given[name] for name in env} == env
    assert {name: text for name, text in given.items() if name not in set(env) - set(without(env))} == stock.pop(
        "environment"
    )
    assert off == stock


@pytest.mark.promise
def test_with_the_shim_it_is_not(python: str, shim_env: dict[str, str], look_at_stock: Callable[..., Any]) -> None:
    """What the test above compares would show a shim that is at work."""
    stock, on = look_at_stock(python, shim_env), look(python, shim_env)
    for what in ("modules", "finders", "functions", "temp directory", "modules later"):
        assert on[what] != stock[what], what
    for module, name in (
        ("builtins", "open"), ("io", "open"), ("os", "mkdir"), ("tempfile", "gettempdir"), ("subprocess", "Popen"),
        ("multiprocessing.spawn", "prepare"), ("os", "posix_spawn"), ("sqlite3", "connect"),
    ):  # fmt: skip
        assert on["functions"][module][name] != stock["functions"][module][name], (module, name)


EVENTS = r"""
import sys
events = []
def listen(event, args):
    events.append([event, [arg if isinstance(arg, str) else type(arg).__name__ for arg in args]])
sys.addaudithook(listen)  # no process can list its hooks, but each sees those that come after it
import site
site.main()
seen, events = events, []
import json
json.dump(seen, sys.stdout)
"""


def events(python: str, env: dict[str, str], quiet: Path) -> Counter[str]:
    """What the interpreter did in its start from `site` on, C code included (PEP 578).

    It looks for modules in the working directory, which is `quiet`: one that changes meanwhile is listed once more.
    """
    done = subprocess.run([python, "-S", "-c", EVENTS], env=env, cwd=quiet, capture_output=True, text=True, check=True)
    return Counter(map(json.dumps, json.loads(done.stdout)))


@pytest.mark.parametrize("value", OFF)
def test_the_start_does_nothing_but_read_one_file(
    python: str, shim_env: dict[str, str], overlay: Path, value: str | None, tmp_path: Path
) -> None:
    env = with_mode(shim_env, value)
    events(python, env, tmp_path)  # the interpreter compiles it once
    stock, off = events(python, without(shim_env), tmp_path), events(python, env, tmp_path)
    assert len(stock) > 3
    more = [json.loads(event) for event in (off - stock).elements()]
    assert [event for event, _ in more if event not in ("open", "import", "exec", "marshal.loads", "os.listdir")] == []
    opened = {args[0] for event, args in more if event in ("open", "os.listdir")}
    cached = {entry for entry in opened if re.fullmatch(r"sitecustomize\.cpython-\d+\.pyc", os.path.basename(entry))}
    assert {entry for entry in opened - cached if entry not in (str(overlay), f"{overlay}/sitecustomize.py")} == set()
    assert all(entry.startswith(f"{overlay}/__pycache__/") for entry in cached)
    assert {args[0] for event, args in more if event == "import"} <= {"sitecustomize"}
    assert {json.loads(event)[0] for event in (stock - off).elements()} == set()


@pytest.mark.promise
def test_an_audit_hook_would_be_seen(python: str, shim_env: dict[str, str], tmp_path: Path) -> None:
    added = json.dumps(["sys.addaudithook", []])
    assert added not in events(python, without(shim_env), tmp_path)
    assert added in events(python, {**shim_env, "TMP_REDIRECT_GUARD": "calls,audit"}, tmp_path)


def made(strace: tuple[str, ...], env: dict[str, str], helpers: Path, tmp_path: Path) -> list[tuple[str, bool]]:
    """What a program that uses each API of tempfile has the kernel create, in order; names that are random are not."""
    code = (
        f"import os, shutil, sys; sys.path.insert(0, {str(helpers)!r}); sys.dont_write_bytecode = True\n"
        "from apis import paths_of_every_api\n"
        "for path in paths_of_every_api('probe-'):\n"
        "    if os.path.basename(path).startswith('probe-') and os.path.lexists(path):\n"
        "        (shutil.rmtree if os.path.isdir(path) else os.unlink)(path)\n"
    )
    trace = tmp_path / "trace"
    subprocess.run([*strace, sys.executable, "-c", code], env=env, cwd=tmp_path, check=True)
    return [(RANDOM.sub("*", path), nameless) for path, nameless in created(trace, tmp_path)]


@pytest.mark.promise
def test_system_calls_that_create(
    strace: tuple[str, ...], shim_env: dict[str, str], overlay: Path, helpers: Path, root: Path, tmp_path: Path
) -> None:
    stock = made(strace, without(shim_env), helpers, tmp_path)
    assert len(stock) > 8
    assert {os.path.dirname(path) for path, nameless in stock if not nameless} == {"/tmp"}
    for value in OFF:
        off = made(strace, with_mode(shim_env, value), helpers, tmp_path)
        # The interpreter keeps what it has compiled beside the source, once.
        assert [(path, nameless) for path, nameless in off if not path.startswith(f"{overlay}/__pycache__")] == stock
    on = made(strace, shim_env, helpers, tmp_path)
    assert not [path for path, _ in on if path.startswith("/tmp/probe-")]
    assert [path for path, _ in on if path.startswith(f"{root}/.outside/svc/tmp/probe-")]


def four_lines() -> list[str]:
    (block,) = re.findall(r"^```sh\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return block.splitlines()


@contextmanager
def docker(directory: Path) -> Iterator[tuple[Path, Callable[[Callable[[str], Process]], Process]]]:
    """A program of that name that has this test restart the worker, with the `TMP_REDIRECT` of who calls it."""
    asked, answered = directory / "asked", directory / "answered"
    os.mkfifo(asked)
    os.mkfifo(answered)
    (directory / "docker").write_text(
        '#!/bin/sh -e\ntest "$*" = "compose up --detach"\n'
        f'printf %s "$TMP_REDIRECT" > {asked}\nread -r _ < {answered}\n'
    )
    (directory / "docker").chmod(0o755)

    def serve(restart: Callable[[str], Process]) -> Process:
        worker = restart(asked.read_text())
        answered.write_text("up\n")
        return worker

    yield directory, serve


@pytest.mark.promise
def test_the_four_lines(
    client: Celery,
    start: Start,
    call: Callable[..., Any],
    worker_env: dict[str, str],
    shim_env: dict[str, str],
    helpers: Path,
    root: Path,
    tmp_path: Path,
) -> None:
    lines = four_lines()
    assert len(lines) == 4
    things_of_the_user(root, tmp_path / "elsewhere")
    before = inventory(root)
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    (nothing / "sitecustomize.py").touch()  # in place of that of the checkout
    files: list[str] = []

    def probe(workflow: str) -> list[str]:
        """Where the files of a task and of its child went."""
        found = call("probe", workflow)
        files.extend(path for path in found["paths"] if os.path.basename(path).startswith("probe-"))
        assert found["environment"]["TMP_REDIRECT_SCOPE"] in (None, workflow)
        return [RANDOM.sub("*", path) for path in [found["gettempdir"], *found["paths"]]]

    try:
        worker = start("before", PYTHONPATH=f"{nothing}:{helpers}", TMP_REDIRECT="")
        as_stock = probe("a")
        assert {os.path.dirname(path) for path in as_stock[1:]} <= {"/tmp", "/"}
        worker.stop()

        worker = start("with")
        for workflow in ("a", "new", "empty"):
            assert {os.path.dirname(path) for path in probe(workflow)[1:]} <= {
                f"{root}/{workflow}/tmp",
                f"{root}/{workflow}",
            }
        with pytest.raises(Exception, match="failed-"):
            answer(client.send_task("worker_app.fail", kwargs={"context": {"workflow_id": "fails"}}))
        call("locate", None)
        assert {entry.name for entry in root.iterdir()} >= {"new", "fails", ".leases"}

        with docker(tmp_path) as (programs, serve):

            def restart(mode: str) -> Process:
                worker.stop()
                return start("after", TMP_REDIRECT=mode)

            path = f"{programs}:{os.path.dirname(sys.executable)}:{worker_env['PATH']}"
            env = {**shim_env, "PATH": path, "TMP_REDIRECT": "enforce"}
            script = "set -e\n" + "\n".join(lines)
            with subprocess.Popen(["sh", "-c", script], env=env, stdout=subprocess.PIPE, text=True) as operator:
                worker = serve(restart)
                said, _ = operator.communicate(timeout=60)
        assert operator.returncode == 0, said
        assert f"nothing that the shim has made is left in {root}\n" in said
        assert inventory(root) == before

        assert probe("a") == as_stock
        assert inventory(root) == before
        worker.stop()
    finally:
        for path in files:
            if os.path.lexists(path):
                shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
    done = subprocess.run(
        ["tmp-redirect", "doctor", "--json"],
        env={**env, "TMP_REDIRECT": "off"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "the shim is off" in done.stdout
    assert inventory(root) == before
