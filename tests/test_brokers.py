"""Brokers, serializers and message protocols: whatever carries a message, its task stays in its workflow.

The tasks leave files behind; the evidence is a listing of all directories that they may have come to.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain, signature
from celery.states import READY_STATES, SUCCESS

from examples.debian import MissingPackageError, unpacked
from examples.servers import Servers
from tests.celery_workers import PATIENCE

CONTENT_TYPES = {
    "json": "application/json",
    "pickle": "application/x-python-serialize",
    "msgpack": "application/x-msgpack",
}
EACH = list(itertools.product(("valkey", "rabbitmq"), CONTENT_TYPES, (1, 2)))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Servers:
    directory = tmp_path_factory.mktemp("servers")
    return Servers(directory, {"PATH": os.environ["PATH"], "TMPDIR": str(directory)})


@pytest.fixture(scope="module")
def valkey(running: Servers) -> Iterator[str]:
    with running.broker() as url:
        yield url


@pytest.fixture(scope="module")
def rabbitmq(running: Servers) -> Iterator[str]:
    try:
        with running.rabbitmq() as url:
            yield url
    except MissingPackageError as error:
        pytest.skip(str(error))


@dataclass(frozen=True)
class Site:
    """A worker, a client that sends tasks to it, and the directory below which all temp files should come to be."""

    client: Celery
    results: Any
    directory: Path
    serializer: str
    protocol: int

    def send(self, task: str, workflow: str | None, *args: Any, **options: Any) -> str:
        """Send a task and return its id."""
        context = {"context": {"workflow_id": workflow}} if workflow is not None else {}
        kwargs = {**context, **options.pop("kwargs", {})}
        return str(self.client.send_task(f"broker_app.{task}", args=args, kwargs=kwargs, **options).id)

    def answer(self, task_id: str) -> Any:
        """Wait for a task and return what it returned."""
        deadline = time.monotonic() + PATIENCE
        while (meta := self.results.get_task_meta(task_id))["status"] not in READY_STATES:
            assert time.monotonic() < deadline, f"task {task_id} is {meta['status']}"
            time.sleep(0.01)
        assert meta["status"] == SUCCESS, meta
        return meta["result"]

    def left(self, name: str) -> dict[str, set[str]]:
        """Where the files are whose names begin with `name`: the directories, and the names in each."""
        return listing(self.directory, name)


def listing(directory: Path, name: str) -> dict[str, set[str]]:
    found = defaultdict(set)
    for path in directory.rglob(f"{name}*"):
        if path.is_file() and ".leases" not in path.parts:
            found[str(path.parent.relative_to(directory))].add(path.name.rpartition(".")[0])
    return dict(found)


def files(*names: str) -> set[str]:
    return {f"{name}.{maker}" for name in names for maker in ("py", "sh")}


@pytest.fixture(scope="module", params=EACH, ids=["-".join(map(str, each)) for each in EACH])
def site(
    request: pytest.FixtureRequest,
    running: Servers,
    valkey: str,
    overlay: Path,
    helpers: Path,
    mode: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    name, serializer, protocol = request.param
    url = request.getfixturevalue(name)
    messages, results = (f"{valkey}/0" if name == "valkey" else url), f"{valkey}/1"
    directory = tmp_path_factory.mktemp("site")
    for each in ("workflows", "elsewhere"):
        (directory / each).mkdir()
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{overlay}:{helpers}",
        "TMP_REDIRECT": mode,
        "TMP_REDIRECT_ROOT": str(directory / "workflows"),
        "TMP_REDIRECT_SERVICE": "svc",
        "TMP_REDIRECT_KEEP": "all",  # tests look at what tasks left
        "TMPDIR": str(directory / "elsewhere"),
        "HOME": str(directory),
        "C_FORCE_ROOT": "1",
        "BROKER": messages,
        "BACKEND": results,
        "TASK_SERIALIZER": serializer,
        "TASK_PROTOCOL": str(protocol),
    }
    # One process: of two, one could note that a task is tried again after the other has noted its success.
    with running.celery_worker(directory.name, "broker_app", env, concurrency=1):
        client = Celery("client", broker=messages, set_as_current=False)
        client.conf.update(task_serializer=serializer, task_protocol=protocol)
        # Asked apart from the client: results of a client that has this backend would subscribe to their task there,
        # and unsubscribe when they are freed, whenever that is and whether or not the server is still running.
        backend = Celery("results", backend=results, set_as_current=False).backend
        yield Site(client, backend, directory, serializer, protocol)
        backend.client.connection_pool.disconnect()
        client.close()


@pytest.mark.promise
def test_each_task_is_in_its_own_workflow(site: Site) -> None:
    workflows = ("wf-1", "a workflow", "工作流")
    results = [
        site.send("leave", workflow, f"own-{number}-{turn}")
        for turn in "ab"
        for number, workflow in enumerate(workflows)
    ]
    for result in results:
        site.answer(result)
    assert site.left("own") == {
        f"workflows/{workflow}/tmp": files(f"own-{number}-a", f"own-{number}-b")
        for number, workflow in enumerate(workflows)
    }


@pytest.mark.promise
def test_a_published_task_inherits_the_workflow(site: Site) -> None:
    published = site.answer(site.send("publish", "出版", "published", 2))
    assert site.answer(site.answer(published)) is None
    assert site.left("published") == {"workflows/出版/tmp": files("published-2", "published-1", "published-0")}


@pytest.mark.promise
def test_the_workflow_is_in_the_message_header(site: Site) -> None:
    task_id = site.answer(site.send("publish", "wf-1", "unread", 1, kwargs={"queue": "unread"}))
    with (
        site.client.connection_for_read() as connection,
        closing(connection.SimpleQueue("unread", no_ack=True, accept=[site.serializer])) as queue,
    ):
        message = queue.get(timeout=PATIENCE)
    assert message.headers["tmp_redirect_workflow"] == "wf-1"
    assert message.content_type == CONTENT_TYPES[site.serializer]
    assert ("task" in message.headers) == (site.protocol == 2)
    assert message.properties["correlation_id"] == task_id


@pytest.mark.promise
def test_a_header_names_the_workflow(site: Site) -> None:
    header = {"tmp_redirect_workflow": "of-header"}
    site.answer(site.answer(site.send("publish", None, "headed", 1, headers=header)))
    assert site.left("headed") == {"workflows/of-header/tmp": files("headed-1", "headed-0")}


@pytest.mark.promise
def test_a_retried_task_stays_in_its_workflow(site: Site) -> None:
    results = [
        site.send("retry", "retried", "retried"),
        site.send("retry", None, "again", headers={"tmp_redirect_workflow": "retried"}),
    ]
    for result in results:
        site.answer(result)
    for name in ("retried", "again"):
        assert site.left(f"{name}-") == {"workflows/retried/tmp": files(f"{name}-0", f"{name}-1", f"{name}-2")}


@pytest.mark.promise
def test_a_chain_stays_in_the_workflow_of_its_first_task(site: Site) -> None:
    contexts: list[dict[str, Any]] = [{"context": {"workflow_id": "chained"}}, {}, {}]
    steps = [
        signature("broker_app.leave", (f"chain-{number}",), kwargs, immutable=True, app=site.client)
        for number, kwargs in enumerate(contexts)
    ]
    site.answer(chain(*steps, app=site.client).apply_async().id)
    assert site.left("chain-") == {"workflows/chained/tmp": files("chain-0", "chain-1", "chain-2")}


IN_ONE_PROCESS = """
import os
import tempfile
import threading

from celery.contrib.testing.worker import start_worker

from broker_app import app, leave_files, publish

SECONDS = 30
arrived, go_on = threading.Event(), threading.Event()


@app.task
def pause(name, context):
    leave_files(f"{name}-before")
    arrived.set()
    assert go_on.wait(SECONDS)
    leave_files(f"{name}-after")


def answer(result):
    return result.get(timeout=SECONDS, interval=0.01)


def state():
    # Celery tells its own children about logging.
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("CELERY_", "_MP_FORK_"))}
    return {**environ, "tempfile.tempdir": tempfile.tempdir}


def check(when):
    now = state()
    changed = sorted(name for name in {*now, *at_first} if now.get(name) != at_first.get(name))
    if changed:
        print(f"changed {when}: {', '.join(changed)}")


at_first = state()
with start_worker(app, perform_ping_check=False):
    for name, workflow in (("one", "wf-1"), ("two", "a workflow")):
        arrived.clear()
        go_on.clear()
        result = pause.delay(name, context={"workflow_id": workflow})
        assert arrived.wait(SECONDS)
        check("during a task")
        tempfile.NamedTemporaryFile(prefix=f"{name}-main.py.", delete=False).close()
        go_on.set()
        answer(result)
        check("after a task")
    answer(app.AsyncResult(answer(publish.delay("three", 1, context={"workflow_id": "wf-1"}))))
    check("after a task that published another")
check("after the worker")
"""


@pytest.mark.promise
def test_a_worker_in_a_thread_leaves_its_process_alone(
    shim_env: dict[str, str], overlay: Path, helpers: Path, root: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", IN_ONE_PROCESS],
        env={
            **shim_env,
            "PYTHONPATH": f"{overlay}:{helpers}",
            "TMPDIR": str(elsewhere),
            "BROKER": "memory://",
            "BACKEND": "cache+memory://",
        },
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert listing(tmp_path, "") == {
        "workflows/wf-1/tmp": files("one-before", "one-after", "three-1", "three-0"),
        "workflows/a workflow/tmp": files("two-before", "two-after"),
        "workflows/.outside/svc/tmp": {"one-main.py", "two-main.py"},
    }


def test_rabbitmq_listens_on_one_local_port_and_leaves_no_process(servers: Servers) -> None:
    directory = os.fsencode(servers.directory)

    def processes() -> dict[int, str]:
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # ended since, or somebody else's
                if directory in (process / "environ").read_bytes():
                    found[int(process.name)] = (process / "comm").read_text(encoding="utf-8").strip()
        return found

    assert not processes()
    try:
        with servers.rabbitmq() as url:
            started = processes()
            assert "beam.smp" in started.values()
            assert not {"epmd", "inet_gethost"} & set(started.values())
            assert listeners(started) == {f"127.0.0.1:{url.rpartition(':')[2]}"}
    except MissingPackageError as error:
        pytest.skip(str(error))
    assert not processes()


def listeners(processes: Iterable[int]) -> set[str]:
    """The addresses of all IP sockets on which these processes listen; IPv6 ones as the kernel writes them."""
    sockets = set()
    for process in processes:
        for descriptor in Path("/proc").glob(f"{process}/fd/*"):
            with suppress(OSError):  # closed since
                sockets.add(os.readlink(descriptor))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            address, state, inode = (line.split()[column] for column in (1, 3, 9))
            if state == "0A" and f"socket:[{inode}]" in sockets:
                host, port = address.split(":")
                if table == "tcp":
                    host = ".".join(str(byte) for byte in reversed(bytes.fromhex(host)))
                found.add(f"{host}:{int(port, 16)}")
    return found


def program(directory: Path, name: str, script: str) -> None:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o700)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of programs which are found before the system's, or instead of them."""
    directory = tmp_path / "programs"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


def test_without_apt(programs: Path, tmp_path: Path) -> None:
    with pytest.raises(
        MissingPackageError, match=r"^Debian's some-server can't be installed here: there is no apt-get and no dpkg$"
    ):
        unpacked(["some-server"], tmp_path / "unpacked")
    assert not (tmp_path / "unpacked").exists()


@pytest.mark.parametrize(
    ("apt", "dpkg", "reason"),
    [
        ("echo 'E: no such package' >&2; exit 100", "", "no such package"),
        ("[ $1 = update ] && echo 'W: Failed to fetch it' >&2; exit 100", "", "Failed to fetch it"),
        (
            ": >a.deb; : >b.deb",
            '[ "$2" != "${2%/a.deb}" ] && : >"$3/a" && exit 0; echo no space >&2; exit 1',
            "no space",
        ),
    ],
    ids=["no package", "no network", "half unpacked"],
)
def test_what_is_not_complete_is_not_there(programs: Path, tmp_path: Path, apt: str, dpkg: str, reason: str) -> None:
    program(programs, "apt-get", f'while [ "${{1#-o}}" != "$1" ]; do shift; done; {apt}')
    program(programs, "dpkg", dpkg)
    with pytest.raises(MissingPackageError, match=f"^Debian's some-server can't be installed here: {reason}$"):
        unpacked(["some-server", "its-runtime"], tmp_path / "unpacked")
    assert not list((tmp_path / "unpacked").iterdir())
    program(programs, "apt-get", ": >a.deb")
    program(programs, "dpkg", ': >"$3/a"')
    directory = unpacked(["some-server"], tmp_path / "unpacked")
    assert os.listdir(directory) == ["a"]
    program(programs, "apt-get", "exit 1")
    assert unpacked(["some-server"], tmp_path / "unpacked") == directory
    assert os.listdir(tmp_path / "unpacked") == ["some-server"]
