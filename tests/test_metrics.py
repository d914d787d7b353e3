"""Metrics are what happened, as Prometheus gets them: by HTTP, or from the files of all processes.

`prometheus_client` reads the files here, in a process without the shim.
"""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from examples.servers import Servers, free_port
from tests.celery_workers import answer
from tests.conftest import until

X = "/tmp/tmp-redirect-x"
ENTERED = "tmp_redirect_scopes_entered_total"
ACTIVE = "tmp_redirect_scopes_active"
VIOLATIONS = "tmp_redirect_violations_total"
PREPARE = f"""
import contextlib, os, sys, threading
import prometheus_client
from prometheus_client import REGISTRY
from services.common.tmp_redirect import install, uninstall, workflow

def value(name, **labels):
    return REGISTRY.get_sample_value("tmp_redirect_" + name, labels)

def names():
    return sorted(metric.name for metric in REGISTRY.collect() if metric.name.startswith("tmp_redirect"))

def attempt():
    with contextlib.suppress(PermissionError):
        open({X!r}, "w").close()
        os.remove({X!r})
"""


def run(code: str, env: dict[str, str], **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PREPARE + code]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False, **options)


def passes(code: str, env: dict[str, str]) -> None:
    done = run(code, env)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def shared(home: Path) -> Path:
    """The directory of multiprocess mode."""
    directory = home / "metrics"
    directory.mkdir()
    return directory


@pytest.fixture
def multi_env(shim_env: dict[str, str], shared: Path) -> dict[str, str]:
    return {**shim_env, "PROMETHEUS_MULTIPROC_DIR": str(shared)}


def total(directory: Path, name: str, **labels: str) -> float | None:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(directory))
    return registry.get_sample_value(name, labels)


@pytest.mark.promise
def test_a_scrape_by_http(shim_env: dict[str, str]) -> None:
    code = """
import urllib.request
server, thread = prometheus_client.start_http_server(0, addr="127.0.0.1")
with workflow("wf-1"), workflow("wf-2"):
    attempt()
    attempt()
    text = urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics").read().decode()
server.shutdown()
thread.join()
print(text)
"""
    done = run(code, shim_env)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for expected in (
        "tmp_redirect_scopes_entered_total 2.0",
        "# TYPE tmp_redirect_scopes_active gauge",
        "tmp_redirect_scopes_active 2.0",
        'tmp_redirect_violations_total{layer="calls"} 2.0',
        'tmp_redirect_violations_total{layer="audit"} 0.0',
        "tmp_redirect_workspaces_purged_total 0.0",
        "tmp_redirect_workspaces_kept_total 0.0",
        "tmp_redirect_workspaces_deferred_total 0.0",
        "tmp_redirect_freed_bytes_total 0.0",
        "# TYPE tmp_redirect_workspaces gauge",
    ):
        assert expected in lines, done.stdout


@pytest.mark.promise
def test_each_layer_counts_its_own(shim_env: dict[str, str]) -> None:
    code = """
import _io
attempt()
for _ in range(2):
    with contextlib.suppress(PermissionError):
        _io.FileIO("/tmp/tmp-redirect-x", "w")
assert (value("violations_total", layer="calls"), value("violations_total", layer="audit")) == (1, 2)
"""
    done = run(code, {**shim_env, "TMP_REDIRECT_GUARD": "calls,audit"})
    Path(X).unlink(missing_ok=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.promise
def test_what_is_told_of_workspaces(shim_env: dict[str, str]) -> None:
    code = """
from services.common.tmp_redirect.observers import tell
tell("purged"); tell("purged"); tell("freed", 2**40); tell("kept"); tell("deferred"); tell("something new")
for counter, expected in {"purged": 2, "kept": 1, "deferred": 1}.items():
    assert value(f"workspaces_{counter}_total") == expected
assert value("freed_bytes_total") == 2**40
assert value("workspaces", state="live") is None  # no sweep has run: nothing is known
for amount in (7, 5):
    tell("live_workspaces", amount); tell("kept_workspaces", amount * 10)
assert (value("workspaces", state="live"), value("workspaces", state="kept")) == (5, 50)
"""
    passes(code, shim_env)


@pytest.mark.promise
def test_threads_are_counted_exactly(multi_env: dict[str, str], shim_env: dict[str, str], shared: Path) -> None:
    code = """
own = prometheus_client.Counter("own", "Of the program.")
sys.setswitchinterval(1e-5)
def work():
    for number in range(300):
        own.inc()
        with workflow(f"wf-{number % 7}"):
            attempt()
def scrape():
    while not done:
        REGISTRY.get_sample_value("tmp_redirect_scopes_entered_total")
done = []
scraper = threading.Thread(target=scrape)
scraper.start()
threads = [threading.Thread(target=work) for _ in range(8)]
[thread.start() for thread in threads]; [thread.join() for thread in threads]
done.append(True)
scraper.join()
"""
    check = """
assert (value("scopes_entered_total"), value("scopes_active"), value("violations_total", layer="calls")) == (
    2400, 0, 2400)
"""
    passes(code + check, shim_env)
    passes(code, multi_env)  # the end of the process writes what is left
    assert (total(shared, ENTERED), total(shared, ACTIVE), total(shared, VIOLATIONS, layer="calls")) == (2400, 0, 2400)


@pytest.mark.promise
@pytest.mark.parametrize("is_multi", [False, True], ids=["single", "multi"])
def test_a_violation_while_a_lock_of_the_metrics_is_held(
    shim_env: dict[str, str], multi_env: dict[str, str], is_multi: bool
) -> None:
    code = """
import signal
own = prometheus_client.Counter("own", "Of the program.")
attempts = 0
def handle(*_):
    global attempts
    attempts += 1
    attempt()
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
while attempts < 500:
    own.inc()
    value("scopes_active")
signal.setitimer(signal.ITIMER_REAL, 0)

labelled = prometheus_client.Gauge("labelled", "Of the program.", ["label"])
from prometheus_client import values
import inspect
lock = inspect.getclosurevars(values.ValueClass.inc).nonlocals.get("lock") or labelled._lock
with lock:
    attempt()
assert value("violations_total", layer="calls") == attempts + 1
"""
    passes(code, multi_env if is_multi else shim_env)


@pytest.mark.promise
@pytest.mark.parametrize("is_multi", [False, True], ids=["single", "multi"])
def test_uninstall_and_reload(shim_env: dict[str, str], multi_env: dict[str, str], is_multi: bool) -> None:
    code = """
import importlib
from services.common.tmp_redirect import guard, observers
from services.common.tmp_redirect.guard import violations
attempt()
before = names()
assert len(before) == 8, before
importlib.reload(prometheus_client)
assert names() == before and value("violations_total", layer="calls") == 1
observed, listened = list(observers._observers), list(violations._listeners)
assert len(observed) == len(listened) == 1
for _ in range(3):
    uninstall()
    assert names() == [] and not observers._observers and not violations._listeners
    install()
    assert names() == before
    attempt()
assert value("violations_total", layer="calls") == (4 if "PROMETHEUS_MULTIPROC_DIR" in os.environ else 1)
for name in [name for name in sys.modules if name.split(".")[0] == "prometheus_client"]:
    del sys.modules[name]
import prometheus_client
REGISTRY = prometheus_client.REGISTRY
assert names() == before
assert len(observers._observers) == len(violations._listeners) == 1
for collector in list(REGISTRY._collector_to_names):
    REGISTRY.unregister(collector)
uninstall()
"""
    done = run(code, multi_env if is_multi else shim_env)
    assert done.returncode == 0, done.stderr
    assert "no metrics" not in done.stderr


@pytest.mark.promise
def test_forked_children_count_their_own(multi_env: dict[str, str], shared: Path) -> None:
    code = """
import multiprocessing, subprocess
def work():
    with workflow("wf-2"):
        attempt()
    os._exit(0)
with workflow("wf-1"):
    attempt()
    children = [multiprocessing.get_context("fork").Process(target=work) for _ in range(3)]
    [child.start() for child in children]; [child.join() for child in children]
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    if os.fork() == 0:
        pass  # leaves the scope that its parent has entered, and ends as the parent does
    else:
        os.wait()
"""
    passes(code, multi_env)
    assert (total(shared, ENTERED), total(shared, ACTIVE), total(shared, VIOLATIONS, layer="calls")) == (4, 0, 4)


@pytest.mark.promise
def test_a_prefork_worker(
    client: Celery, servers: Servers, worker_env: dict[str, str], shared: Path, home: Path
) -> None:
    port = free_port()
    env = {**worker_env, "PROMETHEUS_MULTIPROC_DIR": str(shared), "METRICS_PORT": str(port)}
    counts = [3, 0, 1, 5, 2, 2, 4, 1, 0, 7, 1, 1]
    with servers.celery_worker("worker", "metrics_app", env, concurrency=2) as worker:
        results = [client.send_task("metrics_app.attempt", args=(times,)) for times in counts]
        children = {answer(result) for result in results}
        assert len(children) == 2
        note = home / "pid"
        client.send_task("metrics_app.die", args=(str(note),), ignore_result=True)
        until(lambda: note.exists() and not Path(f"/proc/{note.read_text(encoding='ascii') or 'self'}").exists())
        answer(client.send_task("metrics_app.attempt", args=(1,)))
        assert (total(shared, ACTIVE) or 0) >= 1  # of the process that was killed
        until(lambda: f"\n{ACTIVE} 0.0\n" in scrape(port))  # the last task's result comes before its end
        text = scrape(port)
        worker.stop()
    assert f'\n{VIOLATIONS}{{layer="calls"}} {sum(counts) + 1}.0\n' in text
    assert total(shared, "own_tasks_total") == len(counts) + 1
    assert total(shared, VIOLATIONS, layer="calls") == sum(counts) + 1
    killed = 2  # times that the scope of the killed task was entered: by its process, then by the main one
    assert total(shared, ENTERED) == 2 * (len(counts) + 1) + killed
    assert "no metrics" not in worker.log.read_text(encoding="utf-8")


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        text: str = response.read().decode()
    return text


@pytest.mark.promise
def test_files_in_system_temp_are_a_violation_of_the_program_which_goes_on(
    shim_env: dict[str, str], root: Path
) -> None:
    Path(X).mkdir()
    try:
        code = """
from services.common.tmp_redirect import report
assert "PROMETHEUS_MULTIPROC_DIR" in os.environ and names() == []
assert [violation.call for violation in report().violations] == ["open"]
try:
    prometheus_client.Counter("own", "Of the program.")
except PermissionError as error:
    assert type(error).__name__ == "TmpFallbackError"
else:
    sys.exit(1)
"""
        done = run(code, {**shim_env, "PROMETHEUS_MULTIPROC_DIR": X})
        assert done.returncode == 0, done.stderr
        assert "\ntmp_redirect: no metrics for Prometheus: TmpFallbackError: [Errno 13] tmp_redirect" in done.stderr
        assert not list(Path(X).iterdir())
    finally:
        for file in Path(X).iterdir():
            file.unlink()
        Path(X).rmdir()


OLD = """
import sys
from types import ModuleType
class Gauge:
    def __init__(self, name, text, labels=(), *, registry, multiprocess_mode):
        if multiprocess_mode == "mostrecent":
            raise ValueError("Invalid multiprocess mode: " + multiprocess_mode)
class Counter:
    def __init__(self, *_, registry): pass
    def labels(self, _): return self
class MutexValue: pass
class values: ValueClass = MutexValue = MutexValue
REGISTRY = None
"""


@pytest.mark.promise
def test_a_version_that_is_too_old(shim_env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "prometheus_client.py").write_text(OLD, encoding="utf-8")
    env = {**shim_env, "PYTHONPATH": f"{shim_env['PYTHONPATH']}:{tmp_path}"}
    done = subprocess.run(
        [sys.executable, "-c", "import prometheus_client; print('goes on')"],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "goes on\n")
    assert done.stderr == (
        "tmp_redirect: no metrics for Prometheus: ImportError: prometheus-client 0.18 or later is needed\n"
    )


@pytest.mark.promise
def test_a_name_that_the_program_uses(shim_env: dict[str, str]) -> None:
    code = """
uninstall()
prometheus_client.Gauge("tmp_redirect_scopes_active", "Of the program.")
install()
from services.common.tmp_redirect import observers
assert names() == ["tmp_redirect_scopes_active"] and not observers._observers
"""
    done = run(code, shim_env)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("tmp_redirect: no metrics for Prometheus: ") == 1
    assert "Duplicated timeseries" in done.stderr


@pytest.mark.fresh(stderr="")
def test_nothing_is_loaded_without_prometheus_client(shim_env: dict[str, str]) -> None:
    import sys

    from services.common.tmp_redirect import workflow

    with workflow("wf-1"):
        pass
    try:
        import prometheus_client  # noqa: F401
    except ImportError:
        pass
    else:
        raise AssertionError
    assert not [name for name in sys.modules if "prometheus" in name]


def test_nothing_is_said_where_it_is_not_imported(shim_env: dict[str, str]) -> None:
    code = "import sys, tempfile; tempfile.mkdtemp(); assert not [name for name in sys.modules if 'prom' in name]"
    done = subprocess.run([sys.executable, "-c", code], env=shim_env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
