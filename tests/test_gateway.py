"""A real gateway, FastAPI under gunicorn with two uvicorn workers: requests are isolated, whatever they start.

The evidence is what inotify reports; for files without a name, /proc and strace.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.servers import Process, Servers, free_port
from examples.watcher import Watcher
from tests.conftest import REPOSITORY, SYSTEM_TEMP, until
from tests.tracing import created, in_system_temp

# The target's class takes uvloop where it is installed; of uvicorn's own, only the other one has asyncio's loop.
WORKERS = {"uvloop": "uvicorn.workers.UvicornWorker", "asyncio": "uvicorn.workers.UvicornH11Worker"}
STARTED = "Application startup complete."
PATIENCE = 30
SHM = Path("/dev/shm")
MINE = f"test-gateway-{os.getpid()}-"
WORKFLOWS = [*(f"workflow-{number}" for number in range(6)), "工作流-视频", "a workflow"]
CONTENT = os.urandom(3 * 2**20)  # Starlette keeps 1 MiB in memory
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Place:
    """Where a gateway lives: its root is below system temp, as a root may be; the rest, in /dev/shm, is local."""

    def __init__(self, directory: Path, local: Path) -> None:
        self.root = directory / "workflows"
        self.outside = self.workspace(".outside/svc")
        self.logs = directory / "servers"
        self.code = directory / "code"
        self.home = local / "home"
        self.meeting = local / "meeting"
        self.sockets = local / "sockets"
        self.local = local

    def workspace(self, workflow: str) -> Path:
        return self.root / workflow / "tmp"


class Gateway:
    """A gunicorn that runs."""

    def __init__(self, place: Place, loop: str, process: Process, client: httpx.Client) -> None:
        self.place = place
        self.loop = loop
        self.process = process
        self.pid = process._popen.pid
        self._client = client

    def wait_started(self, workers: int = 2) -> None:
        """Wait until so many workers have started since the beginning."""
        Servers(self.place.logs).wait_ready(self.process, lambda: self.log().count(STARTED) == workers, PATIENCE)

    def workers(self) -> set[int]:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="ascii")
        return {int(pid) for pid in children.split()}

    def log(self) -> str:
        return self.process.log.read_text(encoding="utf-8")

    def get(self, path: str, **parameters: Any) -> Any:
        return self._answer(self._client.get(path, params=parameters))

    def post(self, path: str, **parameters: Any) -> Any:
        return self._answer(self._client.post(path, params=parameters))

    def refuse(self, path: str, **parameters: Any) -> httpx.Response:
        """What is answered to a request that is expected to fail."""
        return self._client.post(path, params=parameters)

    def upload(self, path: str, **parameters: Any) -> Any:
        return self._answer(self._client.post(path, params=parameters, files={"file": ("video.mkv", CONTENT)}))

    def _answer(self, response: httpx.Response) -> Any:
        assert response.is_success, f"{response.status_code} for {response.url}\n{self.log()}"
        return response.json()


@contextlib.contextmanager
def a_place(directory: Path) -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix=MINE, dir=SHM) as local:
        place = Place(directory, Path(local))
        for made in (place.outside, place.logs, place.home, place.meeting):
            made.mkdir(parents=True)
        ignored = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(REPOSITORY / "examples", place.code / "examples", ignore=ignored)
        yield place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with a_place(tmp_path) as made:
        yield made


Serve = Callable[..., contextlib.AbstractContextManager[Gateway]]


@pytest.fixture(scope="module")
def serve(overlay: Path, helpers: Path, mode: str) -> Serve:
    """Runs a gateway for the duration of a block, and sees to its clean end."""

    @contextlib.contextmanager
    def run_gunicorn(
        place: Place, *options: str, loop: str = "uvloop", launcher: tuple[str, ...] = ()
    ) -> Iterator[Gateway]:
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{overlay}:{helpers}:{place.code}",
            "HOME": str(place.home),
            "MEETING": str(place.meeting),
            "TMP_REDIRECT": mode,
            "TMP_REDIRECT_ROOT": str(place.root),
            "TMP_REDIRECT_SERVICE": "svc",
            "TMP_REDIRECT_KEEP": "all",  # tests look at what tasks left
            "TMP_REDIRECT_SOCKET_DIR": str(place.sockets),
        }
        address = f"127.0.0.1:{free_port()}"
        command = [sys.executable, "-m", "gunicorn", "gateway_app:app", "--bind", address, "-k", WORKERS[loop]]
        servers = Servers(place.logs, env)
        with (
            servers.process("gunicorn", [*launcher, *command, "-w", "2", *options]) as process,
            httpx.Client(base_url=f"http://{address}", timeout=PATIENCE, trust_env=False) as client,
        ):
            gateway = Gateway(place, loop, process, client)
            yield gateway
            if process.returncode is None:
                stop(servers, gateway)
            until(lambda: session_of(gateway.pid) <= {gateway.pid})  # which is a zombie until it is waited for
            for directory in (place.sockets, place.home):
                assert not [path for path in directory.rglob("*") if not path.is_dir()]

    return run_gunicorn


def stop(servers: Servers, gateway: Gateway) -> None:
    """End it as an operator does."""
    workers = gateway.workers()
    os.kill(gateway.pid, signal.SIGTERM)
    assert servers.wait_end(gateway.process, PATIENCE) == 0
    assert workers
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def session_of(leader: int) -> set[int]:
    """The processes of the session that a process leads, so all that it has started."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            if int(stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[3]) == leader:
                found.add(int(stat.parent.name))
    return found


@pytest.fixture(autouse=True)
def nothing_left_in_shared_memory() -> Iterator[None]:
    before = set(SHM.glob(f"{MINE}*"))
    yield
    assert set(SHM.glob(f"{MINE}*")) == before


@pytest.fixture(scope="module", params=WORKERS)
def gateway(
    serve: Serve, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Gateway]:
    """One with each loop, for all tests that only send requests."""
    with a_place(tmp_path_factory.mktemp("gateway")) as place, serve(place, loop=request.param) as running:
        running.wait_started()
        yield running


@contextlib.contextmanager
def watching(place: Place) -> Iterator[Watcher]:
    """Watch what is created; none of it may be in system temp, where nothing but pytest has a place of its own."""
    with Watcher([*SYSTEM_TEMP, place.root, place.local]) as watcher:
        yield watcher
    assert not [
        path for path in watcher.created if not path.is_relative_to(place.local) and "pytest-of" not in str(path)
    ]


def named(watcher: Watcher, *prefixes: str) -> set[str]:
    return {str(path) for path in watcher.created if path.name.startswith(prefixes)}


def strays(paths: Iterable[str], home: Path) -> list[str]:
    """Those that are not of files in `home`, nor `home` itself, as `gettempdir` returns it."""
    return [path for path in paths if path != str(home) and os.path.dirname(path) != str(home)]


@pytest.mark.promise
@pytest.mark.parametrize("endpoint", ["async", "sync"])
def test_outside_any_workflow(gateway: Gateway, endpoint: str) -> None:
    prefix = f"outside-{endpoint}-"
    with watching(gateway.place) as watcher:
        answer = gateway.get(f"/outside/{endpoint}", prefix=prefix)
    assert answer["pid"] in gateway.workers()
    if endpoint == "async":
        assert answer["loop"].split(".")[0] == gateway.loop
    else:
        assert not answer["main_thread"]
    assert answer["changed"] == []
    assert strays(answer["paths"], gateway.place.outside) == []
    assert len(named(watcher, prefix)) == 8
    assert named(watcher, prefix) <= {*answer["paths"]}


@pytest.mark.promise
@pytest.mark.parametrize("endpoint", ["async", "sync"])
def test_an_upload_that_does_not_fit_into_memory(gateway: Gateway, endpoint: str) -> None:
    with watching(gateway.place) as watcher:
        answer = gateway.upload(f"/upload/{endpoint}")
    assert answer["rolled"]
    assert answer["digest"] == DIGEST
    assert strays([answer["path"]], gateway.place.outside) == []
    root, outside = gateway.place.root, gateway.place.outside
    leases = root / ".leases" / outside.parent.relative_to(root)
    # A worker may be at its first temp file, and take its lease.
    ours = {path for path in (outside, *outside.parents, leases, *leases.parents) if path.is_relative_to(root)}
    made = {path for path in watcher.created if path.is_relative_to(root)} - ours
    assert all(path.parent == leases and path.name.startswith("lease~") for path in made), made


@pytest.mark.promise
def test_uploads_that_are_read_in_workflows(gateway: Gateway) -> None:
    with watching(gateway.place), ThreadPoolExecutor(len(WORKFLOWS)) as pool:
        uploads = {name: pool.submit(gateway.upload, "/upload/workflow", workflow=name) for name in WORKFLOWS}
    for name, upload in uploads.items():
        answer = upload.result()
        assert answer["rolled"]
        assert answer["digest"] == DIGEST
        assert strays([answer["path"]], gateway.place.workspace(name)) == []


@pytest.mark.promise
def test_the_call_site_of_the_target(gateway: Gateway) -> None:
    with watching(gateway.place) as watcher:
        answer = gateway.upload("/file-service")
    assert answer["digest"] == DIGEST
    assert len(answer["paths"]) == 2
    assert strays(answer["paths"], gateway.place.outside) == []
    assert {*answer["paths"]} <= {str(path) for path in watcher.created}
    assert not [path for path in answer["paths"] if os.path.lexists(path)]


@pytest.mark.promise
@pytest.mark.parametrize("endpoint", ["async", "sync"])
def test_concurrent_workflows(gateway: Gateway, endpoint: str) -> None:
    place = gateway.place
    for note in place.meeting.iterdir():
        note.unlink()
    # These are watched before the first file can come, and end while the others are still inside.
    first, second = WORKFLOWS[::2], WORKFLOWS[1::2]
    for workflow in first:
        place.workspace(workflow).mkdir(parents=True, exist_ok=True)

    def send(workflow: str) -> Any:
        options = {"together": len(WORKFLOWS), "outlives": first if workflow in second else []}
        return gateway.post(f"/workflow/{endpoint}", workflow=workflow, **options)

    notes = {workflow: place.meeting / f"background.{workflow}" for workflow in WORKFLOWS}
    with watching(place) as watcher:
        with ThreadPoolExecutor(len(WORKFLOWS)) as pool:
            answers = dict(zip(WORKFLOWS, pool.map(send, WORKFLOWS)))
        until(lambda: all(note.exists() for note in notes.values()))
    assert {name for answer in answers.values() for name in answer["changed"]} == set()
    astray = []
    for workflow, answer in answers.items():
        left = {**answer["left"], **json.loads(notes[workflow].read_text(encoding="utf-8"))}
        for what, ways, home in (
            ("inside", answer["inside"], place.workspace(workflow)),
            ("left", left, place.outside),
        ):
            assert all(ways.values())
            astray += [(what, workflow, way, path) for way, paths in ways.items() for path in strays(paths, home)]
            asked = [path for paths in ways.values() for path in paths]
            seen = named(watcher, f"{what}-{workflow}-")
            assert seen <= {*asked}
            if what == "left" or workflow in first:
                unseen = {path for path in asked if f"/{what}-" in path} - seen
                assert len(unseen) == asked.count(str(home)) / 2  # those of tempfile.mktemp, which makes nothing
    assert astray == []


@pytest.mark.promise
def test_scopes_of_dependencies(gateway: Gateway) -> None:
    """A dependency that is an async generator and yields inside the scope, as in FastAPI's documentation."""

    def send(workflow: str) -> Any:
        return gateway.get("/workflow/dependency", workflow=f"dependency-{workflow}", together=len(WORKFLOWS))

    with watching(gateway.place), ThreadPoolExecutor(len(WORKFLOWS)) as pool:
        answers = dict(zip(WORKFLOWS, pool.map(send, WORKFLOWS)))
    homes = {workflow: gateway.place.workspace(f"dependency-{workflow}") for workflow in WORKFLOWS}
    assert [path for workflow, paths in answers.items() for path in strays(paths, homes[workflow])] == []


@pytest.mark.promise
@pytest.mark.fresh
def test_first_requests_that_come_at_once(root: Path) -> None:
    import sys
    import tempfile
    import threading
    from concurrent.futures import ThreadPoolExecutor

    from services.common.tmp_redirect import workflow

    found = {}
    installing, over = threading.Event(), threading.Event()
    pools = {name: ThreadPoolExecutor(1) for name in ("wf-1", "wf-2")}

    def request(name):
        with workflow(name):
            found[name] = pools[name].submit(tempfile.gettempdir).result()

    class SlowImport:
        """Holds up the first request with the first module that it needs, until the second had its chance."""

        def find_spec(self, name, path=None, target=None):
            sys.meta_path.remove(self)
            installing.set()
            over.wait(0.5)

    def second():
        installing.wait()
        request("wf-2")
        over.set()

    thread = threading.Thread(target=second)
    thread.start()
    sys.meta_path.insert(0, SlowImport())
    request("wf-1")
    installing.set()
    thread.join()
    for pool in pools.values():
        pool.shutdown()
    assert found == {name: str(root / name / "tmp") for name in pools}


def test_bad_ids(gateway: Gateway) -> None:
    with watching(gateway.place) as watcher:
        for bad in ("../../etc", "", ".", "a/b", "a\0b", "a\nb", "x" * 300):
            for endpoint in ("async", "sync"):
                answer = gateway.refuse(f"/workflow/{endpoint}", workflow=bad, together=1)
                assert answer.status_code == 422
                assert answer.json()["detail"].startswith(f"workflow id {bad!r}"[:80])
                assert "it must be one path component" in answer.json()["detail"]
    assert watcher.created == []


def heartbeats(gateway: Gateway) -> list[str]:
    """The paths of the workers' heartbeat files, which gunicorn removes as soon as it has made them."""
    links = []
    for pid in gateway.workers():
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed since
                links.append(os.readlink(descriptor).removesuffix(" (deleted)"))
    return [link for link in links if os.path.basename(link).startswith("wgunicorn-")]


@pytest.mark.promise
def test_heartbeats_are_on_local_storage(serve: Serve, place: Place) -> None:
    def fine() -> bool:
        return len(heartbeats(running)) == 2 and strays(heartbeats(running), place.sockets) == []

    with watching(place) as watcher, serve(place) as running:
        running.wait_started()
        before = running.workers()
        assert fine()
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        running.wait_started(3)
        assert fine()
        assert len(before & running.workers()) == 1
        assert running.get("/outside/async", prefix="outside-")["pid"] in running.workers()
        os.kill(running.pid, signal.SIGHUP)  # it reads its configuration again
        running.wait_started(5)
        until(lambda: len(running.workers()) == 2)
        assert fine()
    made = named(watcher, "wgunicorn-")
    assert len(made) >= 3  # those of the first two came when their new directory was perhaps not watched yet
    assert strays(made, place.sockets) == []


def test_heartbeats_are_where_the_user_wants_them(serve: Serve, place: Place) -> None:
    with watching(place), serve(place, "--worker-tmp-dir", str(SHM)) as running:
        running.wait_started()
        assert len(heartbeats(running)) == 2
        assert strays(heartbeats(running), SHM) == []


@pytest.mark.promise
def test_heartbeats_without_a_socket_directory(serve: Serve, place: Place) -> None:
    place.sockets.touch()
    with watching(place) as watcher, serve(place) as running:
        running.wait_started()
        assert len(heartbeats(running)) == 2
    assert len(named(watcher, "wgunicorn-")) == 2
    assert strays(named(watcher, "wgunicorn-"), place.outside) == []


@pytest.mark.promise
def test_heartbeats_in_system_temp_are_refused(serve: Serve, place: Place) -> None:
    with watching(place) as watcher, serve(place, "--worker-tmp-dir", "/tmp") as running:
        until(lambda: running.process.returncode is not None or STARTED in running.log())
        assert running.process.returncode == 255
    refusal = r"TmpFallbackError: \[Errno 13\] tmp_redirect refused .+ of '/tmp/wgunicorn-\w+' in system temp; use the "
    assert re.search(refusal, running.log())
    assert named(watcher, "wgunicorn-") == set()


@pytest.mark.promise
def test_what_strace_sees(serve: Serve, place: Place, tmp_path: Path, strace: tuple[str, ...]) -> None:
    """From the first instruction of the arbiter to the end of the last worker, files without a name included."""
    with serve(place, launcher=strace) as running:
        running.wait_started()
        for endpoint in ("async", "sync"):
            assert running.upload(f"/upload/{endpoint}")["digest"] == DIGEST
        running.upload("/upload/workflow", workflow="wf-1")
        running.get("/outside/sync", prefix="outside-")
    made = created(tmp_path / "trace", place.logs)
    assert not in_system_temp(made)
    unnamed = [Path(path) for path, without_a_name in made if without_a_name]
    assert set(unnamed) == {place.outside, place.workspace("wf-1")}
    assert unnamed.count(place.outside) == 4
    assert unnamed.count(place.workspace("wf-1")) == 1
    assert len([path for path, _ in made if os.path.basename(path).startswith("wgunicorn-")]) == 2
    assert len([path for path, _ in made if os.path.basename(path).startswith("outside-")]) == 8
