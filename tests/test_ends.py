"""Real workers: a workspace is there as long as its workflow needs it, gone when that is over, kept when it failed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from celery import Signature, chain, chord, group, signature
from kombu import Connection

from examples.servers import Process
from tests.celery_workers import answer
from tests.sites import PATIENCE, Site

pytestmark = pytest.mark.promise
SOAK = os.environ.get("SOAK")
QUEUES = ("first", "second")


class Ends(Site):
    """A site with a worker for each of two queues, whose tasks are those of ends_app."""

    second: Process
    patience = PATIENCE
    waited_for: Path | None = None

    def until(self, workflow: str) -> Path:
        """A file that tasks wait for, which comes at the end of the test at the latest."""
        self.waited_for = self.root / f"until-{workflow}"
        return self.waited_for

    def wait_until(self, condition: Callable[[], bool]) -> bool:
        """Whether the condition becomes true; a result comes a little before its task has ended."""
        deadline = time.monotonic() + self.patience
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def task(self, workflow: str, task: str, queue: str = "first", **kwargs: Any) -> Signature:
        """The first of a workflow, or one that waits for none."""
        kwargs = {"context": {"workflow_id": workflow}, "name": task, **kwargs}
        return signature(f"ends_app.{task}", kwargs=kwargs, app=self.client, immutable=True).set(queue=queue)

    def then(self, task: str, queue: str = "first", **kwargs: Any) -> Signature:
        """One that goes on with the context that the one before has returned."""
        return signature(f"ends_app.{task}", kwargs={"name": task, **kwargs}, app=self.client).set(queue=queue)

    def files(self, workflow: str) -> list[str] | None:
        """What is in the workspace; `None` where there is none."""
        try:
            return sorted(os.listdir(self.root / workflow / "tmp"))
        except FileNotFoundError:
            return None

    def is_gone(self, workflow: str) -> bool:
        """Whether nothing is left of what the shim made for the workflow."""
        left = [(self.root / workflow), (self.root / ".leases" / workflow)]
        return not any(path.exists() for path in left) and not list((self.root / ".trash").glob("*"))

    def left(self, workflow: str) -> tuple[object, ...]:
        """What is in the way of `is_gone`."""
        places = [self.root / workflow, self.root / ".leases" / workflow, *(self.root / ".trash").rglob("*")]
        return self.files(workflow), self.marks(workflow), [str(place) for place in places if place.exists()]

    def sweep(self, **env: str) -> None:
        """Sweep as a program of its own, for which everything is old enough."""
        command = [sys.executable, "-m", "services.common.tmp_redirect", "sweep", "--older-than", "0s"]
        subprocess.run(command, env=self.env | env, check=True, stdout=subprocess.DEVNULL)

    def marks(self, workflow: str) -> list[str]:
        """The kinds of the files among the leases."""
        with contextlib.suppress(FileNotFoundError):
            found = os.listdir(self.root / ".leases" / workflow)
            return sorted(name.partition("~")[0] for name in found if not name.startswith("ours"))
        return []


@contextlib.contextmanager
def ends_at_work(
    directory: Path, overlay: Path, helpers: Path, mode: str, keep: str, pool: str = "prefork", concurrency: int = 2
) -> Iterator[Ends]:
    site = Ends(directory, overlay, helpers, mode)
    if mode == "off":
        site.patience = 1  # what is waited for won't come
    with site.at_work("ends_app", pool, concurrency, TMP_REDIRECT_KEEP=keep, QUEUE="first"), ExitStack() as stack:
        env = {**site.env, "QUEUE": "second"}
        site.second = stack.enter_context(site.servers.celery_worker("second", "ends_app", env, concurrency, pool))
        try:
            yield site
        finally:
            site.second.stop(seconds=0)


@pytest.fixture(scope="module", params=["failed"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, overlay: Path, helpers: Path, mode: str
) -> Iterator[Ends]:
    with ends_at_work(tmp_path_factory.mktemp("ends"), overlay, helpers, mode, request.param) as site:
        yield site


@pytest.fixture(autouse=True)
def nobody_waits(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that fails must not keep the worker's processes busy."""
    yield
    site = request.getfixturevalue("site") if "site" in request.fixturenames else None
    if site is not None and site.waited_for is not None:
        site.waited_for.touch()


keeping = pytest.mark.parametrize("site", ["failed", "none", "all"], indirect=True, scope="module")
failed_or_none = pytest.mark.parametrize("site", ["failed", "none"], indirect=True, scope="module")
failed_only = pytest.mark.parametrize("site", ["failed"], indirect=True, scope="module")
none_only = pytest.mark.parametrize("site", ["none"], indirect=True, scope="module")


@keeping
def test_a_chain_over_two_workers_that_is_retried_once(site: Ends) -> None:
    wf = site.workflow()
    tasks = [site.task(wf, "write"), site.then("retry_once", "second"), site.then("write", name="third"),
             site.then("write", "second", name="last")]  # fmt: skip
    said = answer(chain(tasks).apply_async())
    assert said["directory"] == str(site.root / wf / "tmp")
    everything = ["last", "retry_once-0", "retry_once-1", "third", "write"]
    assert said["seen"][-1] == everything, "each task finds what those before it have left"
    if site.env["TMP_REDIRECT_KEEP"] == "all":
        assert site.files(wf) == everything
    else:
        assert site.wait_until(lambda: site.is_gone(wf)), site.left(wf)


@keeping
def test_a_chain_over_two_workers_that_fails_in_the_middle(site: Ends) -> None:
    wf = site.workflow()
    tasks = [site.task(wf, "write"), site.then("retry_once", "second"), site.then("fail"), site.then("write", "second")]
    with pytest.raises(KeyError, match="on purpose") as caught:
        answer(chain(tasks).apply_async())
    assert str(site.root / wf / "tmp") in str(caught.value)
    if site.env["TMP_REDIRECT_KEEP"] == "none":
        assert site.wait_until(lambda: site.is_gone(wf)), site.left(wf)
    else:
        assert site.wait_until(
            lambda: site.marks(wf) == (["failed"] if site.env["TMP_REDIRECT_KEEP"] == "failed" else [])
        )
        assert site.files(wf) == ["fail", "retry_once-0", "retry_once-1", "write"]


@failed_only
def test_the_same_workflow_once_more_after_a_failure(site: Ends) -> None:
    wf = site.workflow()
    with pytest.raises(KeyError):
        answer(site.task(wf, "fail").apply_async())
    assert site.wait_until(lambda: site.marks(wf) == ["failed"])
    assert answer(site.task(wf, "write").apply_async())["seen"] == [["fail", "write"]]
    assert site.wait_until(lambda: site.is_gone(wf))


@failed_only
def test_the_same_workflow_once_more_after_a_failure_with_an_attempt_that_ends_last(site: Ends) -> None:
    """The next attempt succeeds while the one before it is about to end."""
    wf = site.workflow()
    until = site.until(wf)
    with pytest.raises(KeyError):
        answer(site.task(wf, "fail").apply_async())
    assert site.wait_until(lambda: site.marks(wf) == ["failed"])
    result = site.task(wf, "retry_once", until=str(until)).apply_async()
    assert answer(result)["seen"] == [["fail", "retry_once-0", "retry_once-1"]]
    assert Path(f"{until}.halted").exists()
    assert site.wait_until(lambda: "over" in site.marks(wf))
    until.touch()
    assert site.wait_until(lambda: site.is_gone(wf)), site.left(wf)


@failed_only
def test_a_group_of_which_one_fails_and_another_ends_later(site: Ends) -> None:
    wf = site.workflow()
    until = site.until(wf)
    members = group(site.task(wf, "hold", until=str(until)), site.task(wf, "fail", queue="second"))
    answer(site.task(wf, "publish", canvas=members).apply_async())
    assert site.wait_until(lambda: "failed" in site.marks(wf))
    until.touch()
    assert site.wait_until(lambda: {*site.marks(wf)} <= {"failed", "over"})
    swept = answer(site.client.send_task("tmp_redirect.sweep", queue="first"))
    assert swept["kept"]["young"] >= 1
    assert site.files(wf) == ["fail", "hold", "hold-after", "publish"]


PUBLISH = """
import json, os, sys
from celery import Celery
app = Celery(broker=os.environ["BROKER"], backend=os.environ["BACKEND"])
app.signature(json.loads(sys.argv[1])).apply_async()
"""


@failed_only
@pytest.mark.parametrize("how", ["alone", "in chains", "published by a member"])
def test_a_group_that_a_program_publishes_and_of_which_one_fails(site: Ends, how: str) -> None:
    """The program has the shim. No task has published the group, so its members have no root in common."""
    wf = site.workflow()
    until = site.until(wf)
    fails, holds = site.task(wf, "fail"), site.task(wf, "hold", queue="second", until=str(until))
    members = {
        "alone": [fails, holds],
        "in chains": [fails | site.task(wf, "write"), site.task(wf, "write") | holds],
        "published by a member": [fails, site.task(wf, "publish", canvas=holds)],
    }[how]
    subprocess.run([sys.executable, "-c", PUBLISH, json.dumps(group(members))], env=site.env, check=True)
    assert site.wait_until(lambda: "failed" in site.marks(wf) and "hold" in (site.files(wf) or []))
    until.touch()
    assert site.wait_until(lambda: {*site.marks(wf)} <= {"failed", "over"})
    assert {"fail", "hold", "hold-after"} <= {*(site.files(wf) or [])}


@failed_or_none
def test_a_chord(site: Ends) -> None:
    wf = site.workflow()
    header = [site.task(wf, "write", name=f"header-{number}", queue=QUEUES[number % 2]) for number in range(4)]
    said = answer(chord(header, site.then("body", "second"), app=site.client).apply_async())
    assert said["seen"][-1] == ["body", *(f"header-{number}" for number in range(4))]
    assert site.wait_until(lambda: site.is_gone(wf)), site.left(wf)


@failed_only
def test_a_group_in_a_chain(site: Ends) -> None:
    wf = site.workflow()
    middle = group(site.then("write", queue=queue, name=f"in-{queue}") for queue in QUEUES)
    said = answer(chain(site.task(wf, "write"), middle, site.then("body")).apply_async())
    assert said["seen"][-1] == ["body", "in-first", "in-second", "write"]
    assert site.wait_until(lambda: site.is_gone(wf)), site.left(wf)


@failed_or_none
def test_a_group_that_a_task_publishes(site: Ends) -> None:
    """The last of its members ends the workflow, whichever that is."""
    wf = site.workflow()
    members = group(site.task(wf, "write", name=f"{queue}-{n}", queue=queue) for queue in QUEUES for n in range(5))
    said = answer(site.task(wf, "publish", canvas=members).apply_async())
    assert said["directory"] == str(site.root / wf / "tmp")
    assert site.wait_until(lambda: site.is_gone(wf)), site.left(wf)


@failed_only
def test_a_group_that_a_program_without_the_shim_publishes_is_left_to_the_sweep(site: Ends) -> None:
    wf = site.workflow()
    for said in answer(group(site.task(wf, "write", name=f"member-{n}") for n in range(3)).apply_async()):
        assert said["directory"] == str(site.root / wf / "tmp")
    assert answer(site.task(site.workflow(), "write", queue="first").apply_async())
    assert site.files(wf) == ["member-0", "member-1", "member-2"]


@failed_only
def test_callbacks_and_what_is_published_on_the_side(site: Ends) -> None:
    wf = site.workflow()
    until = site.until(wf)
    task = site.task(wf, "publish", canvas=site.task(wf, "hold", queue="second", until=str(until)))
    task.link(site.task(wf, "write", name="linked"))
    answer(task.apply_async())
    assert site.wait_until(lambda: site.files(wf) == ["hold", "linked", "publish"])
    until.touch()
    assert site.wait_until(lambda: site.is_gone(wf)), site.left(wf)


@failed_only
@pytest.mark.parametrize("name", ["replaced", "reject_once", "ignore"])
def test_other_ways_to_end(site: Ends, name: str) -> None:
    """The workflow has a pending task until that has begun."""
    wf = site.workflow()
    said = answer(site.task(wf, "publish", canvas=site.task(wf, name)).apply_async())
    assert said["directory"] == str(site.root / wf / "tmp")
    assert site.wait_until(lambda: site.is_gone(wf)), site.left(wf)


@none_only
def test_a_task_that_is_revoked_before_it_begins(site: Ends) -> None:
    wf = site.workflow()
    until = site.until(wf)
    busy = [site.task(f"{wf}-busy", "hold", name=f"busy-{n}", until=str(until)).apply_async() for n in range(2)]
    assert site.wait_until(lambda: site.files(f"{wf}-busy") == ["busy-0", "busy-1"])
    revoked = site.task(wf, "write", name="revoked").set(task_id=f"{wf}-revoked", countdown=0)
    answer(site.task(wf, "publish", queue="second", canvas=revoked).apply_async())
    assert site.wait_until(lambda: site.marks(wf) == ["pending"]), site.left(wf)
    assert site.files(wf) == ["publish"]
    site.client.control.revoke(f"{wf}-revoked", destination=["worker@localhost"], reply=True)
    until.touch()
    for result in busy:
        answer(result)
    assert site.wait_until(lambda: site.is_gone(wf)), site.left(wf)


@none_only
def test_a_task_that_is_revoked_while_it_runs(site: Ends) -> None:
    wf = site.workflow()
    result = site.task(wf, "hold", until=str(site.until(wf))).apply_async()
    assert site.wait_until(lambda: site.files(wf) == ["hold"])
    result.revoke(terminate=True, signal="SIGKILL")
    assert site.wait_until(lambda: site.is_gone(wf)), site.left(wf)


@failed_or_none
def test_a_hard_time_limit(site: Ends) -> None:
    wf = site.workflow()
    result = site.task(wf, "never_end").apply_async()
    assert site.wait_until(lambda: site.files(wf) == ["never_end"])
    with pytest.raises(Exception, match="TimeLimitExceeded"):
        answer(result)
    if site.env["TMP_REDIRECT_KEEP"] == "none":  # its process was alive when it was over
        assert site.wait_until(lambda: site.is_gone(wf) or "over" in site.marks(wf)), site.left(wf)
        assert site.wait_until(lambda: site.sweep() or site.is_gone(wf)), site.left(wf)
    else:
        assert site.wait_until(lambda: "failed" in site.marks(wf))
        assert site.files(wf) == ["never_end"]


@failed_only
def test_a_process_that_is_killed_and_its_task_delivered_again(site: Ends) -> None:
    wf = site.workflow()
    tasks = [
        site.task(wf, "write"),
        site.then("kill_once", mark=str(site.root / f"killed-{wf}")),
        site.then("write", "second"),
    ]
    said = answer(chain(tasks).apply_async())
    assert said["seen"] == [["write"], ["kill_once", "write"], ["kill_once", "write"]]
    assert site.wait_until(lambda: site.is_gone(wf)), site.left(wf)


@failed_only
def test_the_same_workflow_again_while_its_first_run_ends(site: Ends) -> None:
    """As often as possible a run begins while the one before it takes the workspace away."""
    wf = site.workflow()
    for _ in range(60):
        results = [site.task(wf, "write", queue=queue, name=queue).apply_async() for queue in QUEUES * 2]
        for result in results:
            said = answer(result)
            assert said["directory"] == str(site.root / wf / "tmp")
            assert said["seen"][0], "the file that it made is there"
    assert site.wait_until(lambda: site.is_gone(wf)), site.left(wf)


@failed_only
def test_a_workspace_that_a_script_holds_goes_when_it_lets_go(site: Ends) -> None:
    wf = site.workflow()
    until = site.until(wf)
    holder = site.task(f"{wf}-holder", "hold_by_hand", queue="second", other=wf, until=str(until))
    del holder.kwargs["name"]
    result = holder.apply_async()
    assert site.wait_until(Path(f"{until}.holds").exists)
    answer(site.task(wf, "write").apply_async())
    assert site.wait_until(lambda: "over" in site.marks(wf)), site.marks(wf)
    assert site.files(wf) == ["by-hand", "write"]
    until.touch()
    assert answer(result) == ["by-hand", "write"]
    assert site.wait_until(lambda: site.is_gone(wf)), site.left(wf)


@none_only
def test_other_files_of_the_workflow_stay(site: Ends) -> None:
    wf = site.workflow()
    frames = site.root / wf / "frames"
    frames.mkdir(parents=True)
    (frames / "1.png").write_bytes(b"png")
    (site.root / wf / "result.json").write_text("{}", encoding="utf-8")
    said = answer(chain(site.task(wf, "write"), site.then("write", "second", name="last")).apply_async())
    assert said["directory"] == str(site.root / wf / "tmp")
    assert site.wait_until(lambda: not (site.root / ".leases" / wf).exists())
    assert (frames / "1.png").read_bytes() == b"png"
    assert sorted(os.listdir(site.root / wf)) == ["frames", "result.json"]


@pytest.mark.parametrize("pool", ["solo", "threads", "gevent", "eventlet"])
def test_the_other_pools(tmp_path: Path, overlay: Path, helpers: Path, mode: str, pool: str) -> None:
    if pool in ("gevent", "eventlet") and find_spec(pool) is None:
        pytest.skip(f"{pool} is not installed")
    with ends_at_work(tmp_path, overlay, helpers, mode, "failed", pool) as site:
        wf, failing = site.workflow(), site.workflow()
        tasks = [site.task(wf, "write"), site.then("retry_once", "second"), site.then("write", name="last")]
        said = answer(chain(tasks).apply_async())
        assert said["seen"][-1] == ["last", "retry_once-0", "retry_once-1", "write"]
        assert said["directory"] == str(site.root / wf / "tmp")
        assert site.wait_until(lambda: site.is_gone(wf)), site.left(wf)
        with pytest.raises(KeyError):
            answer(site.task(failing, "fail").apply_async())
        assert site.wait_until(lambda: site.marks(failing) == ["failed"])
        assert site.files(failing) == ["fail"]


def test_a_process_that_is_killed_after_any_change(tmp_path: Path, overlay: Path, helpers: Path, mode: str) -> None:
    """The shim's, from the end of one task to the end of the next chain, whose message is then delivered again."""
    with ends_at_work(tmp_path, overlay, helpers, mode, "none", concurrency=1) as site:
        for changes in range(1, 1000, 1 if SOAK else 8):
            wf, mark = site.workflow(), site.root / f"killed-{changes}"
            arm = site.task(f"{wf}-arm", "arm", changes=changes, mark=str(mark))
            del arm.kwargs["name"]
            arm.apply_async()
            said = answer(chain(site.task(wf, "write"), site.then("write", name="last")).apply_async())
            assert said["directory"] == str(site.root / wf / "tmp")
            assert "last" in said["seen"][-1], "its own file"
            if not mark.exists():
                break
            assert site.wait_until(lambda: site.sweep(TMP_REDIRECT_TTL="0s") or site.is_gone(wf)), (
                changes,
                site.left(wf),
            )
            assert site.wait_until(lambda: site.is_gone(f"{wf}-arm")), site.left(f"{wf}-arm")
        assert changes > 15


@pytest.mark.parametrize("canvas", ["chain", "callback", "chord"])
def test_a_worker_that_is_halted_at_the_end_of_a_task_while_the_last_one_ends(
    tmp_path: Path, overlay: Path, helpers: Path, mode: str, canvas: str
) -> None:
    """The workflow doesn't end with the task that others follow, and the last one finds somebody in the workspace."""
    published = 0 if canvas == "chord" else 1  # the mark of the task that this one publishes
    with ends_at_work(tmp_path, overlay, helpers, mode, "failed", concurrency=1) as site:
        for changes in (published + 1, published + 2):  # the task's own mark is removed, its lease is
            wf = site.workflow()
            until = site.until(wf)
            halted = Path(f"{until}.halted")
            halts = site.then("write_and_halt", changes=changes, until=str(until))
            last = site.then("write", "second", name="last")
            if canvas == "chain":
                result = chain(site.task(wf, "write"), halts, last).apply_async()
            elif canvas == "callback":
                result = site.client.AsyncResult(f"{wf}-last")
                site.task(wf, "write").set(link=halts.set(link=last.set(task_id=result.id))).apply_async()
            else:
                others = chord([halts, site.then("hold", "second", until=str(halted))], site.then("body", "second"))
                result = chain(site.task(wf, "write"), others).apply_async()
            said = answer(result)
            assert said["directory"] == str(site.root / wf / "tmp")
            assert answer(site.task(site.workflow(), "write", "second").apply_async()), "the end of the last is over"
            assert site.wait_until(halted.exists)
            until.touch()
            assert site.wait_until(lambda wf=wf: site.is_gone(wf)), (changes, site.left(wf))


def test_the_sweep_by_beat(tmp_path: Path, overlay: Path, helpers: Path, mode: str) -> None:
    with ends_at_work(tmp_path, overlay, helpers, mode, "all") as site:
        wf = site.workflow()
        assert answer(site.task(wf, "write").apply_async())["directory"] == str(site.root / wf / "tmp")
        files = ["--schedule", str(site.root / "schedule"), "--pidfile", str(site.root / "pid")]
        command = [sys.executable, "-m", "celery", "-A", "ends_app", "beat", *files]
        with site.servers.process("beat", command, {**site.env, "BEAT": "1", "TMP_REDIRECT_KEEP": "failed"}):
            assert site.wait_until(lambda: site.is_gone(wf)), site.left(wf)
        assert os.listdir(site.root / ".leases") == [".outside"], "what beat publishes is of no workflow"


def test_a_worker_that_is_killed_and_its_task_delivered_to_another(
    tmp_path: Path, overlay: Path, helpers: Path, mode: str
) -> None:
    with ends_at_work(tmp_path, overlay, helpers, mode, "failed", concurrency=1) as site:
        wf = site.workflow()
        until = site.until(wf)
        env = {**site.env, "QUEUE": "second"}
        result = site.task(wf, "hold", queue="second", until=str(until)).apply_async()
        assert site.wait_until(lambda: site.files(wf) == ["hold"])
        site.second._signal_group(signal.SIGKILL)
        with Connection(site.env["BROKER"], transport_options={"visibility_timeout": 0}) as connection:
            connection.default_channel.qos.restore_visible(interval=1)  # what Redis' clients do after an hour
        with site.servers.celery_worker("third", "ends_app", env, 1):
            until.touch()
            said = answer(result)
            assert said["seen"][0] == ["hold"]
            assert said["directory"] == str(site.root / wf / "tmp")
            assert site.wait_until(lambda: site.is_gone(wf)), site.left(wf)


def test_a_member_of_a_group_whose_worker_is_killed_while_another_ends(
    tmp_path: Path, overlay: Path, helpers: Path, mode: str
) -> None:
    """It runs again, finds what was left before, and the workflow ends with it."""
    with ends_at_work(tmp_path, overlay, helpers, mode, "failed", concurrency=1) as site:
        wf = site.workflow()
        untils = {queue: site.root / f"until-{queue}" for queue in QUEUES}
        members = group(site.task(wf, "hold", queue, name=queue, until=str(untils[queue])) for queue in QUEUES)
        answer(site.task(wf, "publish", canvas=members).apply_async())
        assert site.wait_until(lambda: site.files(wf) == ["first", "publish", "second"])
        site.second._signal_group(signal.SIGKILL)
        assert site.wait_until(lambda: site.second.returncode is not None)
        untils["first"].touch()
        answer(site.task(f"{wf}-next", "write").apply_async())  # the process has done with the member before
        assert site.files(wf) == ["first", "first-after", "publish", "second"]
        with Connection(site.env["BROKER"], transport_options={"visibility_timeout": 0}) as connection:
            connection.default_channel.qos.restore_visible(interval=1)
        with site.servers.celery_worker("third", "ends_app", {**site.env, "QUEUE": "second"}, 1):
            untils["second"].touch()
            assert site.wait_until(lambda: site.is_gone(wf)), site.left(wf)


@failed_only
def test_the_sweep_as_a_task(site: Ends) -> None:
    """It removes what is due, and has no workspace of its own."""
    wf = site.workflow()
    answer(group(site.task(wf, "write", name=f"member-{n}") for n in range(2)).apply_async())
    before = os.listdir(site.root)
    swept = answer(site.client.send_task("tmp_redirect.sweep", queue="first"))
    assert swept["kept"]["young"] >= 1
    assert site.files(wf) == ["member-0", "member-1"]
    assert site.wait_until(lambda: not site.marks(wf))
    swept = answer(site.client.send_task("tmp_redirect.sweep", ["0s"], queue="second"))
    assert swept["removed"] >= 1
    assert swept["inodes"] >= 3
    assert site.files(wf) is None
    assert {*os.listdir(site.root)} <= {*before}, "the sweep is no workflow"
    with pytest.raises(Exception, match="a whole number of seconds"):
        answer(site.client.send_task("tmp_redirect.sweep", ["tomorrow"], queue="second"))
