"""Fresh interpreters to run test bodies in, the check that tests leave nothing behind, and the shim-off run."""

from __future__ import annotations

import ast
import builtins
import inspect
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent import futures
from multiprocessing import connection, pool, process, spawn
from pathlib import Path

import pytest

from benchmarks.interpreters import VERSIONS
from tests.celery_workers import broker, call, client, servers, start, worker_env  # noqa: F401 - fixtures
from tests.environments import unpacked, wheel  # noqa: F401 - fixtures
from tests.installation import AUTOLOAD, HOME, PACKAGE, REPOSITORY  # noqa: F401 - REPOSITORY for test modules
from tests.tracing import strace  # noqa: F401 - a fixture

THIS = f"{sys.version_info.major}.{sys.version_info.minor}"
SYSTEM_TEMP = (Path("/tmp"), Path("/var/tmp"))
OTHERS = ("pytest-of-", "pip-")  # what pytest itself and installers beside the test run keep in system temp


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--shim-off", action="store_true", help="run the promises of the shim with the shim off: each must fail"
    )


def pytest_configure() -> None:
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as shells have it in the background; programs inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--shim-off"):
        return
    promises = [item for item in items if item.get_closest_marker("promise") and _runs_in(item) in (None, THIS)]
    config.hook.pytest_deselected(items=[item for item in items if item not in promises])
    items[:] = promises
    for item in items:
        item.add_marker(pytest.mark.xfail(strict=True, reason="the shim is off"))


def _runs_in(item: pytest.Item) -> str | None:
    """The version of the interpreter that a test asks for: without the shim, one says as much as four."""
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("python") if callspec else None


@pytest.fixture(scope="session")
def mode(request: pytest.FixtureRequest) -> str:
    """The mode that tests start processes in: enforce, or off in the shim-off run."""
    return "off" if request.config.getoption("--shim-off") else "enforce"


@pytest.fixture(scope="session")
def overlay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that looks as `/app` does with the shim laid over it, without any parent package."""
    directory = tmp_path_factory.mktemp("overlay")
    lay_over(directory)
    return directory


def lay_over(directory: Path) -> None:
    """Copy the shim into `directory`."""
    shutil.copytree(HOME / PACKAGE, directory / PACKAGE, ignore=shutil.ignore_patterns("__pycache__", "autoload"))
    shutil.copy(AUTOLOAD / "sitecustomize.py", directory)


@pytest.fixture(scope="session")
def helpers() -> Path:
    """The directory of what tests run in other processes; without a sitecustomize, unlike the checkout."""
    return Path(__file__).parent / "workers"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty root for workspaces; below system temp, where a root may be."""
    directory = tmp_path / "workflows"
    directory.mkdir()
    return directory


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory of the test's own that is not in system temp."""
    directory = Path.home() / f".tmp-redirect-{uuid.uuid4().hex[:8]}"
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def socket_dir() -> Iterator[Path]:
    """A directory for sockets, which doesn't exist; nothing may be left there."""
    directory = Path("/dev/shm") / f"tmp-redirect-{uuid.uuid4().hex[:8]}"
    yield directory
    left = sorted(directory.iterdir()) if directory.is_dir() else []
    shutil.rmtree(directory, ignore_errors=True)
    assert not left


@pytest.fixture
def shim_env(overlay: Path, root: Path, socket_dir: Path, mode: str) -> dict[str, str]:
    """The environment of a process with the shim: nothing inherited but `PATH`."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(overlay),
        "TMP_REDIRECT": mode,
        "TMP_REDIRECT_ROOT": str(root),
        "TMP_REDIRECT_SERVICE": "svc",
        "TMP_REDIRECT_KEEP": "all",  # tests look at what tasks left
        "TMP_REDIRECT_SOCKET_DIR": str(socket_dir),
    }


@pytest.fixture
def env(shim_env: dict[str, str]) -> dict[str, str]:
    """`shim_env` without a mode: the shim is off, or the command line says it."""
    return {name: value for name, value in shim_env.items() if name != "TMP_REDIRECT"}


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the settings out of the environment of this process."""
    for name in [name for name in os.environ if name.startswith("TMP_REDIRECT")]:
        monkeypatch.delenv(name)


@pytest.fixture
def own_overlay(tmp_path: Path, shim_env: dict[str, str]) -> Path:
    """An overlay of the test's own, which `shim_env` names."""
    directory = tmp_path / "app"
    directory.mkdir()
    lay_over(directory)
    shim_env["PYTHONPATH"] = str(directory)
    return directory


@pytest.fixture(params=VERSIONS)
def python(request: pytest.FixtureRequest) -> str:
    """The path of an interpreter of each supported version, without the packages of the test environment."""
    return interpreter(request.param)


def interpreter(version: str) -> str:
    """The path of a CPython of `version`: the one that runs the tests, pyenv's or the system's; else the test skips."""
    if version == THIS:
        return os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = sorted(pyenv.glob(f"{version}.*/bin/python"))
    candidate = str(found[-1]) if found else shutil.which(f"python{version}")
    if candidate is None or subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode != 0:
        pytest.skip(f"Python {version} is not installed here")
    return candidate


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run the body of a `fresh` test in an interpreter of its own; the fixtures it names are there as plain values."""
    marker = pyfuncitem.get_closest_marker("fresh")
    if marker is None:
        return None
    values = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.function).parameters}
    fixture = pyfuncitem._request.getfixturevalue
    script = Path(fixture("tmp_path")) / "body.py"
    script.write_text(_header(values) + _body(pyfuncitem), encoding="utf-8")
    env = {**fixture("shim_env"), **marker.kwargs.get("env", {})}
    if fixture("mode") == "off":
        env["TMP_REDIRECT"] = "off"
    env = {name: value.format(**values) for name, value in env.items()}
    done = subprocess.run(
        [fixture("python"), str(script)],
        env=env,
        cwd=script.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == marker.kwargs.get("status", 0), f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.stdout == "", "nothing may be written to stdout"
    expected = marker.kwargs.get("stderr")
    if expected is not None:
        assert expected.format(**values) in done.stderr
    return True


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A fresh test runs in every interpreter."""
    if metafunc.definition.get_closest_marker("fresh") and "python" not in metafunc.fixturenames:
        metafunc.fixturenames.append("python")
        metafunc.parametrize("python", VERSIONS, indirect=True)


def _header(values: dict[str, object]) -> str:
    lines = ["from pathlib import Path", *(f"{name} = {_literal(value)}" for name, value in values.items())]
    return "\n".join(lines) + "\n"


def _literal(value: object) -> str:
    return f"Path({str(value)!r})" if isinstance(value, Path) else repr(value)


def _body(item: pytest.Function) -> str:
    source = textwrap.dedent(inspect.getsource(item.function))
    function = ast.parse(source).body[0]
    assert isinstance(function, ast.FunctionDef)
    lines = source.splitlines()
    first = function.body[0].lineno - 1
    return textwrap.dedent("\n".join(lines[first:])) + "\n"


def until(condition: Callable[[], bool]) -> None:
    """Wait for what has to come within a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="session")
def creates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A C program; see its source."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("cc is not installed here")
    program = tmp_path_factory.mktemp("native") / "creates"
    source = Path(__file__).parent / "native" / "creates.c"
    subprocess.run([compiler, "-Wall", "-Werror", "-o", program, source], check=True)
    return program


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No file in system temp, process, thread, variable, import hook, patch, scope or socket outlives a test."""
    before = _surroundings()
    yield
    after = _surroundings()
    changed = {what: (before[what], after[what]) for what in before if before[what] != after[what]}
    assert not changed


def _surroundings() -> dict[str, object]:
    return {
        "system temp": {
            str(entry)
            for directory in SYSTEM_TEMP
            if directory.is_dir()
            for entry in directory.iterdir()
            if not entry.name.startswith(OTHERS)
        },
        "children": _children(),
        "threads": {thread.name for thread in threading.enumerate()},
        "environment": {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
        "import hooks": list(sys.meta_path),
        "working directory": os.getcwd(),
        "temp directory": tempfile.gettempdir(),
        "patches": [getattr(owner, name) for owner, name in PATCHED],
        "scope": _scope(),
        "socket directory": Path("/dev/shm/tmp-redirect").exists(),
    }


PATCHED = (
    *((builtins, "open"), (io, "open"), (tempfile, "gettempdir"), (tempfile, "_get_default_tempdir")),
    *((os, name) for name in ("open", "mkdir", "rename", "link", "system", "posix_spawn", "execv", "execve")),
    *((subprocess.Popen, "_execute_child"), (threading.Thread, "start"), (threading.Thread, "_bootstrap_inner")),
    *((futures.Future, "add_done_callback"), (futures.ThreadPoolExecutor, "submit"), (pool.Pool, "apply_async")),
    *((spawn, "prepare"), (process.BaseProcess, "_bootstrap"), (connection, "arbitrary_address")),
)


def _scope() -> str | None:
    scope = sys.modules.get("services.common.tmp_redirect.scope")
    return None if scope is None else scope.current_workflow()


def _children() -> set[str]:
    listing = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    return set(listing.read_text(encoding="ascii").split()) if listing.exists() else set()
