"""Real workers with a real broker: each task's temp files are in its workflow's directory, whatever happens.

The file system is watched through inotify. Tasks name their files after the workflow that asked for them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain, signature

from examples.servers import Process, Servers
from examples.watcher import Watcher
from tests.celery_workers import Start, answer, workspace


@pytest.mark.promise
@pytest.mark.parametrize(("pool", "workers"), [("prefork", 2), ("solo", 2)])
def test_interleaved_workflows(client: Celery, start: Start, root: Path, pool: str, workers: int) -> None:
    workflows = [str(uuid.uuid4()) for _ in range(18)] + ["工作流-视频", "a workflow"]
    for workflow in workflows[::2]:
        (root / workflow / "tmp").mkdir(parents=True)  # these are watched before the first file can come
    for number in range(workers):
        start(f"worker{number}", pool=pool, concurrency=2)
    step = "worker_app.probe"
    with Watcher(["/tmp", "/var/tmp", root]) as watcher:
        results = [
            chain(
                signature(step, kwargs={"context": {"workflow_id": workflow}}, immutable=True, app=client),
                signature(step, app=client),
                signature(step, app=client),
                app=client,
            ).apply_async()
            for workflow in workflows
        ]
        contexts = [answer(result) for result in results]
    assert len({context["pid"] for context in contexts}) >= workers
    for workflow, context in zip(workflows, contexts, strict=True):
        assert context["workflow_id"] == workflow
        assert {os.path.dirname(path) for path in context["paths"]} == {workspace(root, workflow), str(root / workflow)}
    asked_for = {path for context in contexts for path in context["paths"] if "probe-" in path}
    seen = {str(path) for path in watcher.created if path.name.startswith("probe-")}
    for path in seen:
        workflow = os.path.basename(path).removeprefix("probe-").rpartition("-")[0]
        assert os.path.dirname(path) == workspace(root, workflow)
    watched_from_the_start = {path for path in asked_for if Path(path).parts[-3] in workflows[::2]}
    never_made = {path for path in asked_for if path not in seen}  # mktemp's, and what was gone before its watch
    assert len(seen & watched_from_the_start) == 10 * 3 * 2 * 8
    assert len(never_made & watched_from_the_start) == 10 * 3 * 2
    assert not [path for path in watcher.created if not path.is_relative_to(root) and "pytest-of" not in str(path)]


BAD_IDS = ["../../etc", ".", "", "a\0b", "a\nb", "x" * 300, "a/b", {"an": "object"}, True]


@pytest.mark.promise
@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_bad_id_fails_its_task_only(call: Callable[..., Any], start: Start, root: Path, pool: str) -> None:
    start(pool=pool)
    before = call("locate", "good")["pid"]
    with Watcher(["/tmp", "/var/tmp", root]) as watcher:
        for value in BAD_IDS:
            with pytest.raises(Exception, match="workflow id") as caught:
                call("probe", value)
            assert type(caught.value).__name__ == "InvalidWorkflowId"
            assert "one path component" in str(caught.value)
    assert not [path for path in watcher.created if "pytest-of" not in str(path)]
    assert not [path for path in watcher.created if path.is_relative_to(root)]
    after = call("locate", "工作流")
    assert after["gettempdir"] == workspace(root, "工作流")
    assert after["pid"] == before


@pytest.mark.promise
@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_an_unavailable_workspace_fails_its_task_only(
    call: Callable[..., Any], start: Start, root: Path, tmp_path: Path, pool: str
) -> None:
    start(pool=pool)
    pid = call("locate", "good")["pid"]
    victim = tmp_path / "victim"
    victim.mkdir()

    def fails(workflow: str, reason: str) -> None:
        with pytest.raises(Exception, match=reason) as caught:
            call("probe", workflow)
        assert type(caught.value).__name__ == "WorkspaceError"
        assert f"workflow {workflow!r}" in str(caught.value)
        assert workspace(root, workflow) in str(caught.value)
        assert call("locate", "good")["pid"] == pid

    for workflow in ("linked", "in-the-way"):
        (root / workflow).mkdir()
    (root / "linked" / "tmp").symlink_to(victim)
    (root / "in-the-way" / "tmp").touch()
    fails("linked", "is a symbolic link to")
    fails("in-the-way", "is not a directory")
    away = root.rename(tmp_path / "away")
    with pytest.raises(Exception, match=r"the root .* doesn't exist; mount the shared volume"):
        call("probe", "gone")
    away.rename(root)
    assert call("locate", "good")["gettempdir"] == workspace(root, "good")
    assert not list(victim.iterdir())


@pytest.fixture
def start_in(servers: Servers, worker_env: dict[str, str]) -> Iterator[Callable[[str], Process]]:
    """Starts a worker from a shell command that ends with `exec "$@"`; skips where its programs are missing."""
    with ExitStack() as stack:

        def start_worker(script: str) -> Process:
            program = script.split(maxsplit=1)[0]
            if shutil.which(program) is None or os.geteuid() != 0:
                pytest.skip(f"this takes root and {program}")
            celery = [sys.executable, "-m", "celery", "-A", "worker_app", "worker", "-c", "1", "-l", "INFO"]
            worker = stack.enter_context(servers.process("worker", ["sh", "-c", script, "sh", *celery], worker_env))
            servers.wait_ready(worker, lambda: " ready." in worker.log.read_text(encoding="utf-8"))
            return worker

        yield start_worker


@pytest.mark.promise
def test_a_disk_that_fills_up_or_becomes_read_only(
    call: Callable[..., Any], start_in: Callable[[str], Process], root: Path
) -> None:
    start_in(f'unshare -m sh -c \'mount -t tmpfs -o size=64k tmpfs {root} && exec "$@"\' sh "$@"')
    pid = call("locate", "good")["pid"]

    def inside(script: str) -> None:
        subprocess.run(["nsenter", "-t", str(pid), "-m", "sh", "-c", script], capture_output=True, check=True)

    for breaking, mending, reason in (
        (
            f"! cat /dev/zero >{root}/filler",
            f"rm {root}/filler",
            "No space left on device, or no more than TMP_REDIRECT",
        ),
        (f"mount --bind {root} {root}; mount -o remount,bind,ro {root}", f"umount {root}", "Read-only file system"),
    ):
        inside(breaking)
        for workflow in ("good", "new"):
            with pytest.raises(Exception, match=reason) as caught:
                call("probe", workflow)
            assert type(caught.value).__name__ == "WorkspaceError"
            assert f"workflow {workflow!r} can't have {workspace(root, workflow)}" in str(caught.value)
        inside(mending)
        after = call("locate", "good")
        assert (after["pid"], after["gettempdir"]) == (pid, workspace(root, "good"))


@pytest.mark.promise
def test_a_root_that_becomes_unwritable(
    call: Callable[..., Any], start_in: Callable[[str], Process], root: Path
) -> None:
    # A worker that runs as root but, unlike root, is bound by permissions.
    start_in('setpriv --bounding-set=-dac_override,-dac_read_search "$@"')
    pid = call("locate", "good")["pid"]
    root.chmod(0o555)
    try:
        with pytest.raises(Exception, match=r"workflow 'new' can't have .*: Permission denied for uid 0") as caught:
            call("probe", "new")
        assert type(caught.value).__name__ == "WorkspaceError"
        assert call("locate", "good")["pid"] == pid
    finally:
        root.chmod(0o700)
    assert call("locate", "new")["gettempdir"] == workspace(root, "new")


@pytest.mark.promise
def test_a_worker_with_an_unusable_root_does_not_start(worker_env: dict[str, str], root: Path, tmp_path: Path) -> None:
    root.rmdir()
    for mode in ("enforce", "warn"):
        env = {**worker_env, "TMP_REDIRECT": mode if worker_env["TMP_REDIRECT"] != "off" else "off"}
        done = subprocess.run(
            [sys.executable, "-m", "celery", "-A", "worker_app", "worker", "-c", "1", "--without-mingle"],
            env=env, capture_output=True, text=True, timeout=20, check=False, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 78
        assert done.stderr.splitlines()[-1] == (
            f"tmp_redirect: this worker can't start: the root {root} doesn't exist; mount the shared volume there, "
            "or create it, or set TMP_REDIRECT_ROOT to the directory that is meant"
        )
        assert "Traceback" not in done.stderr
    assert not root.exists()


@pytest.mark.promise
@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_where_the_id_is_found(client: Celery, start: Start, root: Path, pool: str) -> None:
    start(pool=pool)

    def locate(*args: Any, **options: Any) -> str:
        kwargs = options.pop("kwargs", {})
        directory: str = answer(client.send_task("worker_app.locate", args=args, kwargs=kwargs, **options))[
            "gettempdir"
        ]
        return directory

    header = {"headers": {"tmp_redirect_workflow": "of-header"}}
    assert locate(kwargs={"context": {"workflow_id": "a"}}) == workspace(root, "a")
    assert locate({"workflow_id": "b"}, **header) == workspace(root, "b")
    assert locate(kwargs={"workflow_id": "c"}) == workspace(root, "c")
    assert locate({"workflow_id": "b"}, kwargs={"context": {"workflow_id": "a"}}) == workspace(root, "a")
    assert locate({"workflow_id": 42}) == workspace(root, "42")
    assert locate({"workflow_id": None}, **header) == workspace(root, "of-header")
    assert locate("no dict", **header) == workspace(root, "of-header")
    task_id = str(uuid.uuid4())
    assert locate(task_id=task_id) == workspace(root, task_id)
    assert locate(root_id="of-the-canvas") == workspace(root, "of-the-canvas")


@pytest.mark.promise
def test_the_places_can_be_named(client: Celery, start: Start, root: Path) -> None:
    start(TMP_REDIRECT_WORKFLOW_FROM="args.1.job.id", TMPDIR="/dev/shm")
    result = client.send_task("worker_app.locate", args=[0, {"job": {"id": "named"}}])
    assert answer(result)["gettempdir"] == workspace(root, "named")
    for _ in range(2):
        outside = answer(client.send_task("worker_app.locate"))
        assert outside["gettempdir"] == str(root / ".outside" / "svc" / "tmp")
        assert outside["environment"] == {
            "TMPDIR": "/dev/shm", "TMP": None, "TEMP": None, "TEMPDIR": None, "TMP_REDIRECT_SCOPE": None,
        }  # fmt: skip


@pytest.mark.promise
@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_the_environment_of_a_task(
    call: Callable[..., Any], client: Celery, start: Start, root: Path, pool: str
) -> None:
    start(pool=pool, TMP_REDIRECT_WORKFLOW_FROM="kwargs.context.workflow_id", TEMP="/dev/shm")
    inherited = answer(client.send_task("worker_app.locate"))["environment"]
    assert inherited == {"TMPDIR": None, "TMP": None, "TEMP": "/dev/shm", "TEMPDIR": None, "TMP_REDIRECT_SCOPE": None}
    during = call("locate", "wf-1")["environment"]
    directory = workspace(root, "wf-1")
    assert during == {
        "TMPDIR": directory, "TMP": directory, "TEMP": directory, "TEMPDIR": directory, "TMP_REDIRECT_SCOPE": "wf-1",
    }  # fmt: skip
    call("change_environment", "wf-1")
    with pytest.raises(KeyError):
        call("fail", "wf-2")
    assert answer(client.send_task("worker_app.locate"))["environment"] == inherited
    assert call("locate", "wf-1")["environment"] == during


@pytest.mark.promise
def test_other_programs_obey_the_environment(call: Callable[..., Any], start: Start, root: Path) -> None:
    start()
    (root / "wf-1" / "tmp").mkdir(parents=True)
    with Watcher(["/tmp", "/var/tmp", root]) as watcher:
        made = call("shell", "wf-1", kwargs={"script": "mktemp; mktemp -d; seq 20000 | sort -S 1k | tail -n 1"}).split()
    assert [os.path.dirname(path) for path in made[:2]] == [workspace(root, "wf-1")] * 2
    assert made[2] == "9999"
    sorted_in = {str(path.parent) for path in watcher.created if path.name.startswith("sort")}
    assert sorted_in == {workspace(root, "wf-1")}
    assert not [path for path in watcher.created if not path.is_relative_to(root) and "pytest-of" not in str(path)]


@pytest.mark.promise
@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_ffmpeg_writes_where_the_environment_says(
    call: Callable[..., Any], start: Start, root: Path, pool: str
) -> None:
    """ffmpeg's `cache:` protocol is not among what this promises: it has /tmp built in, whatever TMPDIR says."""
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg, which ships ffmpeg, is missing")
    start(pool=pool)
    command = f"{imageio_ffmpeg.get_ffmpeg_exe()} -nostdin -loglevel error -f lavfi -i testsrc=duration=1"
    with Watcher(["/tmp", "/var/tmp", root]) as watcher:
        call(
            "shell", "wf-1", kwargs={"script": f'{command} -c:v libx264 -pass 1 -passlogfile "$TMPDIR/log" $TMP/x.mkv'}
        )
    made = {path for path in watcher.created if path.is_file() and path.suffix in {".mkv", ".log"}}
    assert {path.parent for path in made} == {root / "wf-1" / "tmp"}
    assert len(made) == 2
    assert not [path for path in watcher.created if not path.is_relative_to(root) and "pytest-of" not in str(path)]


@pytest.mark.promise
@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_retries_failures_and_nested_tasks(
    call: Callable[..., Any], client: Celery, start: Start, root: Path, pool: str
) -> None:
    start(pool=pool)
    notes = root / "retried" / "notes"
    notes.mkdir(parents=True)
    assert call("retry", "retried", context={"notes": str(notes)}) == [workspace(root, "retried")] * 3
    with pytest.raises(KeyError, match="failed-") as caught:
        call("fail", "failing")
    assert os.path.dirname(caught.value.args[0]) == workspace(root, "failing")
    for inner, expected in ((None, "outer"), ({"workflow_id": "inner"}, "inner")):
        before, during, after = call("nested", "outer", kwargs={"inner": inner})
        assert before == after
        assert before["gettempdir"] == before["environment"]["TMPDIR"] == workspace(root, "outer")
        assert during["gettempdir"] == during["environment"]["TMPDIR"] == workspace(root, expected)
    before, during, after = call("nested", "outer", kwargs={"inner": {"workflow_id": "../x"}})
    assert "InvalidWorkflowId" in during["error"]
    assert before == after
    assert before["gettempdir"] == workspace(root, "outer")


@pytest.mark.promise
def test_a_published_task_inherits_the_workflow(
    call: Callable[..., Any], client: Celery, start: Start, root: Path
) -> None:
    start()
    published = call("publish", "outer", kwargs={"inner": None})
    assert answer(client.AsyncResult(published))["gettempdir"] == workspace(root, "outer")
    published = call("publish", "outer", kwargs={"inner": {"workflow_id": "other"}})
    assert answer(client.AsyncResult(published))["gettempdir"] == workspace(root, "other")


@pytest.mark.promise
def test_children_that_are_replaced(
    call: Callable[..., Any], start: Start, root: Path, worker_env: dict[str, str]
) -> None:
    start(MAX_TASKS_PER_CHILD="1")
    places = [call("locate", f"wf-{number}") for number in range(3)]
    assert len({place["pid"] for place in places}) == 3
    for number, place in enumerate(places):
        assert place["gettempdir"] == place["environment"]["TMPDIR"] == workspace(root, f"wf-{number}")


@pytest.mark.promise
def test_a_violation_in_a_task(call: Callable[..., Any], start: Start, root: Path) -> None:
    start()
    with pytest.raises(
        Exception, match="refused open of '/tmp/tmp-redirect-x' in system temp, in workflow 'wf-1'"
    ) as caught:
        call("write", "wf-1", kwargs={"path": "/tmp/tmp-redirect-x"})
    assert type(caught.value).__name__ == "TmpFallbackError"
    assert not os.path.exists("/tmp/tmp-redirect-x")
    inside = str(root / "wf-1" / "tmp" / "x")
    assert call("write", "wf-1", kwargs={"path": inside}) == inside


@pytest.mark.promise
def test_warn_logs_a_violation_and_the_task_succeeds(
    call: Callable[..., Any], start: Start, root: Path, mode: str
) -> None:
    worker = start(TMP_REDIRECT="warn" if mode == "enforce" else "off")
    path = "/tmp/tmp-redirect-x"
    try:
        for _ in range(2):
            assert call("write", "wf-1", kwargs={"path": path}) == path
        assert os.path.exists(path)
    finally:
        Path(path).unlink(missing_ok=True)
    log = worker.log.read_text(encoding="utf-8")
    assert log.count(f"tmp_redirect: violation: open of '{path}' at ") == 1
    assert "worker_app.py:" in log
    assert "in write, workflow 'wf-1', pid" in log
    said = worker.output.read_text(encoding="utf-8")  # the tasks that it has
    assert [line for line in said.splitlines() if "tmp_redirect" in line] == ["  . tmp_redirect.sweep"]


@pytest.mark.promise
@pytest.mark.parametrize("pool", ["prefork", "solo", "threads"])
def test_violations_are_events_and_are_summed_up(
    call: Callable[..., Any], client: Celery, servers: Servers, start: Start, root: Path, mode: str, pool: str
) -> None:
    worker = start(pool=pool, TMP_REDIRECT="warn" if mode == "enforce" else "off")
    monitor = [sys.executable, "-m", "celery", "-b", client.conf.broker_url, "events", "--dump"]
    with servers.process("monitor", monitor, {"PATH": os.environ["PATH"]}) as dump:

        def said() -> str:
            return dump.output.read_text(encoding="utf-8")

        def say(word: str) -> bool:
            with client.events.default_dispatcher() as dispatcher:
                dispatcher.send(f"tests-{word}")
            return f"tests {word}" in said()

        servers.wait_ready(dump, lambda: say("begin"))
        path = "/tmp/tmp-redirect-x"
        for _ in range(2):  # an event is sent when its task has ended, before the next
            try:
                call("write", "wf-1", kwargs={"path": path})
            finally:
                os.path.exists(path) and os.remove(path)
        servers.wait_ready(dump, lambda: say("end"))
        [event] = [line for line in said().splitlines() if "task tmp violation" in line]
        assert f"path={path}, " in event
        assert "call=open, " in event
        assert "name=worker_app.write, " in event
        assert "workflow=wf-1" in event
        assert re.search(r"where=\S+/worker_app.py:\d+, ", event)
        assert event.startswith("worker@localhost [")
    worker.stop()
    log = worker.log.read_text(encoding="utf-8")
    assert log.count("tmp_redirect: violation: open of") == 1
    assert "would have used system temp 2 times, at 1 call site" in log


BY_NAME = """
from billiard.einfo import ExceptionInfo
from celery import Celery
from celery.contrib.testing.mocks import TaskMessage
from celery.exceptions import WorkerLostError
from celery.worker.request import Request

app = Celery(broker="memory://", backend="cache+memory://")


@app.task(name="step")
def step(context):
    pass


late, lost = (Request(TaskMessage("step", kwargs={"context": {"workflow_id": "wf-1"}}), app=app) for _ in range(2))
late.on_timeout(soft=True, timeout=1)
assert step.AsyncResult(late.id).state == "PENDING"
late.on_timeout(soft=False, timeout=1)
assert "TimeLimitExceeded" in repr(step.AsyncResult(late.id).result)
try:
    raise WorkerLostError
except WorkerLostError:
    lost.on_failure(exc_info=ExceptionInfo(), send_failed_event=False)
assert "WorkerLostError" in repr(step.AsyncResult(lost.id).result)
"""


def test_a_class_of_requests_that_passes_arguments_on_by_name(shim_env: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, "-c", BY_NAME], env=shim_env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
