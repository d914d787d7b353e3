"""Whatever calls a task, publishes it, repeats it or ends it, its temp files are where its arguments say.

A task whose arguments say nothing is in the workflow of what published it.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Signature, chain, chord, group
from celery.canvas import chunks, xmap, xstarmap
from celery.result import AsyncResult, result_from_tuple

from tests.celery_workers import PATIENCE, answer
from tests.sites import OUTSIDE, Site

ERRBACKS = ("published", "called")
FROM = "kwargs.context.workflow_id,args.0.workflow_id,kwargs.workflow_id,header"  # no id of the canvas, root_id


@pytest.fixture(scope="module")
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, overlay: Path, helpers: Path, mode: str
) -> Iterator[Site]:
    """A worker that runs several tasks at once, in the pool that the test names."""
    pool = request.param
    with Site(tmp_path_factory.mktemp(pool), overlay, helpers, mode).at_work("canvas_app", pool, 3) as site:
        yield site


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory, overlay: Path, helpers: Path, mode: str) -> Iterator[Site]:
    """A worker with one process, where a task without any id is outside."""
    site = Site(tmp_path_factory.mktemp("single"), overlay, helpers, mode)
    with site.at_work("canvas_app", "prefork", 1, TMP_REDIRECT_WORKFLOW_FROM=FROM) as site:
        yield site


in_pools = pytest.mark.parametrize("site", ["prefork", "threads"], indirect=True, scope="module")
in_prefork = pytest.mark.parametrize("site", ["prefork"], indirect=True, scope="module")


def published(site: Site, result: Any) -> Any:
    """The answer of what a task has published, of which the task returned the result as a tuple."""
    return answer(result_from_tuple(answer(result), app=site.client))


@pytest.mark.promise
@in_pools
def test_chain(site: Site) -> None:
    a, b = site.workflow(), site.workflow()
    with site.watched() as marks:
        canvases = [chain(site.told(wf, "1"), site.untold(wf, "2"), site.untold(wf, "3")) for wf in (a, b)]
        switching = site.workflow("first"), site.workflow("second")
        canvases.append(
            chain(site.told(switching[0], "1"), site.told(switching[1], "2"), site.untold(switching[1], "3"))
        )
        for result in [canvas.apply_async() for canvas in canvases]:
            answer(result)
        marks.check({a: ["1", "2", "3"], b: ["1", "2", "3"], switching[0]: ["1"], switching[1]: ["2", "3"]})


@pytest.mark.promise
@in_pools
def test_group(site: Site) -> None:
    workflows = [site.workflow() for _ in range(4)]
    with site.watched() as marks:
        answer(group(chain(site.told(wf, "1"), site.untold(wf, "2")) for wf in workflows).apply_async())
        outer = site.workflow("outer")
        inner = group(site.untold(outer, "1"), site.told(workflows[0], "3"), site.untold(outer, "2"))
        answer(site.told(outer, "0", "publish", canvas=inner).apply_async())
        marks.check({wf: ["1", "2"] for wf in workflows[1:]} | {workflows[0]: ["1", "2", "3"], outer: ["0", "1", "2"]})


@pytest.mark.promise
@in_pools
def test_chord(site: Site) -> None:
    a, b, c = site.workflow(), site.workflow(), site.workflow()
    with site.watched() as marks:
        header = [site.told(a, "1"), site.told(a, "2"), site.told(a, "3")]
        results = [
            chord(header, app=site.client)(site.untold(a, "body")),
            chord([site.told(b, "1"), site.told(b, "2")], app=site.client)(site.told(c, "body")),
            chain(
                site.told(c, "1"), group(site.untold(c, "2"), site.untold(c, "3")), site.untold(c, "4")
            ).apply_async(),
        ]
        for result in results:
            answer(result)
        marks.check({a: ["1", "2", "3", "body"], b: ["1", "2"], c: ["body", "1", "2", "3", "4"]})


@pytest.mark.promise
@in_pools
def test_the_items_of_map_starmap_and_chunks(site: Site) -> None:
    outer, a, b = site.workflow("outer"), site.workflow(), site.workflow()

    def items(name: str) -> list[dict[str, Any]]:
        """Of two workflows, of none, and of the first again."""
        return [
            {"workflow_id": a, "mark": [a, f"{name} 1"]},
            {"workflow_id": b, "mark": [b, f"{name} 2"]},
            {"mark": [outer, f"{name} 3"]},
            {"workflow_id": a, "mark": [a, f"{name} 4"]},
        ]

    def pairs(name: str) -> list[list[Any]]:
        return [[item, number] for number, item in enumerate(items(name))]

    item, pair = site.client.signature("canvas_app.item"), site.client.signature("canvas_app.pair")
    canvases = [
        xmap(item, items("map"), app=site.client),
        xstarmap(pair, pairs("starmap"), app=site.client),
        chunks(pair, pairs("chunks"), 3, app=site.client).group(),
    ]
    with site.watched() as marks:
        published_ones = [site.told(outer, "0", "publish", canvas=canvas).apply_async() for canvas in canvases]
        assert [published(site, result) for result in published_ones[:2]] == [[None] * 4, [0, 1, 2, 3]]
        names = ("map", "starmap", "chunks")
        marks.check(
            {
                outer: ["0", "0", "0", *(f"{name} 3" for name in names)],
                a: [f"{name} {number}" for name in names for number in (1, 4)],
                b: [f"{name} 2" for name in names],
            }
        )


@pytest.mark.promise
@in_pools
def test_a_direct_call(site: Site) -> None:
    outer, inner = site.workflow("outer"), site.workflow("inner")
    contexts = [{"workflow_id": inner, "mark": [inner, "called"]}, {"mark": [outer, "called"]}]
    with site.watched() as marks:
        answer(site.told(outer, "call", "call", contexts=contexts).apply_async())
        around = [f"{when} call {number}" for when in ("before", "after") for number in (0, 1)]
        marks.check({outer: [*around, *["called"] * 3], inner: ["called"] * 3})


@pytest.mark.promise
@in_pools
def test_a_direct_call_with_a_bad_id(site: Site) -> None:
    outer = site.workflow("outer")
    with site.watched() as marks:
        bad = [{"workflow_id": "../x", "mark": [outer, "bad"]}]
        with pytest.raises(Exception, match="workflow id") as caught:
            answer(site.told(outer, "call", "call", contexts=bad).apply_async())
        assert type(caught.value).__name__ == "InvalidWorkflowId"
        marks.check({outer: ["before call 0"]})


@pytest.mark.promise
@in_pools
def test_callbacks(site: Site) -> None:
    a, b, other = site.workflow(), site.workflow(), site.workflow()
    with site.watched() as marks:
        linked = site.told(a, "1")
        for callback in (site.untold(a, "linked"), site.told(other, "linked"), site.untold(a, "linked too")):
            linked.link(callback)
        linked.apply_async()
        failing = site.told(b, "1", "fail")
        failing.link(site.untold(b, "never"))
        failing.link_error(site.untold(b, "published", "errback_by_id").set(immutable=False))
        failing.link_error(site.untold(b, "called", "errback").set(immutable=False))
        with pytest.raises(KeyError):
            answer(failing.apply_async())
        marks.check({a: ["1", "linked", "linked too"], other: ["linked"], b: ["1", "published", "called"]})


@pytest.mark.promise
@in_pools
def test_replace(site: Site) -> None:
    a, b, c, d, other = (site.workflow() for _ in range(5))
    canvases = [
        site.told(a, "1", "replace", canvas=site.untold(a, "2")),
        site.told(b, "1", "replace", canvas=chain(site.untold(b, "2"), site.untold(b, "3"))),
        site.told(c, "1", "replace", canvas=group(site.untold(c, "2"), site.untold(c, "3"))),
        chain(
            site.told(d, "1", "replace", canvas=chain(site.told(other, "2"), site.untold(other, "3"))),
            site.untold(other, "4"),  # of the chain that the task was replaced in: it follows the last of these
        ),
    ]
    with site.watched() as marks:
        for result in [canvas.apply_async() for canvas in canvases]:
            answer(result)
        marks.check({a: ["1", "2"], b: ["1", "2", "3"], c: ["1", "2", "3"], d: ["1"], other: ["2", "3", "4"]})


@pytest.mark.promise
@in_pools
def test_retry(site: Site) -> None:
    a, b = site.workflow(), site.workflow()
    with site.watched() as marks:
        answer(chain(site.told(a, "try", "retry"), site.untold(a, "next")).apply_async())
        published(site, site.told(b, "0", "publish", canvas=site.untold(b, "try", "retry")).apply_async())
        tries = ["try 0", "try 1", "try 2"]
        marks.check({a: [*tries, "next"], b: ["0", *tries]})


@pytest.mark.promise
@in_pools
def test_what_is_applied_inside_a_task(site: Site) -> None:
    outer, inner, innermost = site.workflow("outer"), site.workflow("inner"), site.workflow("innermost")
    nested = site.told(inner, "2", "apply", canvas=chain(site.told(innermost, "3"), site.told(innermost, "4")))
    canvases = [
        site.told(outer, "a", "apply", canvas=site.untold(outer, "1")),
        site.told(outer, "b", "apply", canvas=nested),
        site.told(outer, "c", "apply", canvas=group(site.untold(outer, "5"), site.told(inner, "6"))),
    ]
    with site.watched() as marks:
        for canvas in canvases:  # whether a task may wait for another is one flag for all threads of Celery
            answer(canvas.apply_async())
        around = [f"{when} {name}" for when in ("before", "after") for name in "abc"]
        marks.check(
            {
                outer: [*around, "1", "5"],
                inner: ["before 2", "after 2", "6"],
                innermost: ["3", "4"],
            }
        )


@pytest.mark.promise
@in_pools
def test_what_is_published_inside_a_task(site: Site) -> None:
    outer, inner = site.workflow("outer"), site.workflow("inner")
    grandchild = site.told(inner, "1", "publish", canvas=site.untold(inner, "2"))
    with site.watched() as marks:
        published(site, site.told(outer, "a", "publish", canvas=site.untold(outer, "1")).apply_async())
        result = published(site, site.told(outer, "b", "publish", canvas=grandchild).apply_async())
        answer(result_from_tuple(result, app=site.client))
        by_name = site.untold(outer, "3", workflow_id=inner)  # in another place that is looked at
        by_name.kwargs["mark"] = [inner, "3"]
        published(site, site.told(outer, "c", "publish", canvas=by_name).apply_async())
        marks.check({outer: ["a", "1", "b", "c"], inner: ["1", "2", "3"]})


@pytest.mark.promise
@in_pools
def test_a_task_without_any_id_is_not_where_others_were(site: Site) -> None:
    workflows = [site.workflow() for _ in range(6)]
    own = [site.workflow("own") for _ in range(6)]
    with site.watched() as marks:
        results = [site.told(wf, "1").apply_async() for wf in workflows]
        results += [site.untold(wf, "1").apply_async(task_id=wf) for wf in own]
        for result in results:
            answer(result)
        marks.check({wf: ["1"] for wf in workflows + own})


@pytest.mark.promise
@in_pools
def test_batches(site: Site) -> None:
    workflows = [site.workflow() for _ in range(3)]
    outside = str(site.root / ".outside" / "svc" / "tmp")
    with site.watched() as marks:
        for result, wf in [(site.told(wf, "batched", "batch").apply_async(), wf) for wf in workflows]:
            around, inside, published_id = answer(result)
            assert around == [None, outside, outside]
            assert inside == [wf, str(site.root / wf / "tmp")]
            answer(AsyncResult(published_id, app=site.client))
        around = [f"{when} {wf}" for wf in workflows for when in ("before", "after")]
        marks.check({wf: ["batched", "published"] for wf in workflows} | {OUTSIDE: around})


@pytest.mark.promise
@in_prefork
def test_beat(site: Site) -> None:
    told = site.workflow("beat")
    (site.root / "beat").mkdir()
    files = ["--schedule", site.root / "beat" / "schedule", "--pidfile", site.root / "beat" / "pid"]
    command = [sys.executable, "-m", "celery", "-A", "canvas_app", "beat", *files]
    with site.watched() as marks, site.servers.process("beat", command, {**site.env, "BEAT": told}) as beat:
        marks.wait({(told, "told"): 2})
        assert beat.returncode is None, beat.tail()
        beat.stop()
        found = marks.found()
        assert set(found.pop((told, "told"))) == {marks.home(told)}
        assert found
        for (task_id, step), places in found.items():
            assert step == "untold"
            assert set(places) == {marks.home(task_id)}
        assert marks.strays() == []


EAGER = """
import tempfile
import canvas_app
from canvas_app import step, item, publish
from celery import chain, chord
canvas_app.app.conf.update(task_always_eager=True, task_eager_propagates=True)
told = lambda workflow, name: step.si(context={"workflow_id": workflow}, mark=[workflow, name])
untold = lambda workflow, name: step.si(mark=[workflow, name])
"""


def run_eagerly(site: Site, script: str, expected: dict[str, list[str]]) -> None:
    """Run a script where tasks are not sent to anyone, and look for the marks of its tasks."""
    env = {**site.env, "BROKER": "memory://", "BACKEND": "cache+memory://"}
    with site.watched() as marks:
        done = subprocess.run(
            [sys.executable, "-c", EAGER + script], env=env, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        marks.check(expected)


@pytest.fixture
def script(tmp_path: Path, overlay: Path, helpers: Path, mode: str) -> Site:
    """A root for workspaces, and no worker."""
    return Site(tmp_path, overlay, helpers, mode)


@pytest.mark.promise
def test_eager_tasks(script: Site) -> None:
    run_eagerly(
        script,
        """
outside = tempfile.gettempdir()
told("a", "1").delay()
publish.delay(told("b", "1"), context={"workflow_id": "a"}, mark=["a", "2"])
publish.delay(untold("a", "3"), context={"workflow_id": "a"}, mark=["a", "4"])
linked = told("b", "2")
linked.link(untold("b", "3"))
linked.delay()
item({"workflow_id": "a", "mark": ["a", "5"]})
item({"mark": ["outside", "1"]})
untold("own", "1").apply_async(task_id="own")
assert tempfile.gettempdir() == outside
""",
        {"a": ["1", "2", "3", "4", "5"], "b": ["1", "2", "3"], "own": ["1"], OUTSIDE: ["1"]},
    )


@pytest.mark.promise
def test_an_eager_canvas(script: Site) -> None:
    """Its later tasks are where the earlier ones were, as they are with a worker."""
    run_eagerly(
        script,
        """
chain(told("a", "1"), untold("a", "2"), told("b", "3"), untold("b", "4")).delay()
chord([told("c", "1"), told("c", "2")])(untold("c", "body"))
""",
        {"a": ["1", "2"], "b": ["3", "4"], "c": ["1", "2", "body"]},
    )


@pytest.mark.promise
def test_processes_that_run_one_task(script: Site) -> None:
    """The second task is in the second process, which Celery takes 5 s to start."""
    wf = script.workflow()
    with script.at_work("canvas_app", "prefork", 1, MAX_TASKS_PER_CHILD="1"), script.watched() as marks:
        answer(chain(script.told(wf, "1"), script.untold(wf, "2")).apply_async())
        marks.check({wf: ["1", "2"]})


def check_afterwards(site: Site) -> None:
    """The next tasks are outside if nothing names their workflow, and else where they should be."""
    wf = site.workflow("afterwards")
    with site.watched() as marks:
        for canvas in (site.untold(OUTSIDE, "1"), site.told(wf, "1"), site.untold(OUTSIDE, "2")):
            answer(canvas.apply_async())
        marks.check({OUTSIDE: ["1", "2"], wf: ["1"]})


def with_errbacks(site: Site, workflow: str, canvas: Signature) -> Signature:
    """With an error callback of each kind; neither is told the workflow."""
    canvas.link_error(site.untold(workflow, "published", "errback_by_id").set(immutable=False))
    canvas.link_error(site.untold(workflow, "called", "errback").set(immutable=False))
    return canvas


@pytest.mark.promise
def test_a_soft_time_limit(single: Site) -> None:
    wf = single.workflow()
    with single.watched() as marks:
        limited = with_errbacks(single, wf, single.told(wf, "limit", "wait_for_the_limit"))
        with pytest.raises(Exception, match="SoftTimeLimitExceeded"):
            answer(limited.apply_async(soft_time_limit=1))
        marks.check({wf: ["before limit", "after limit", *ERRBACKS]})
    check_afterwards(single)


@pytest.mark.promise
def test_a_hard_time_limit(single: Site) -> None:
    """Celery handles it in the main process of the worker, where no task runs; twice, as of 5.7."""
    told, inherits = single.workflow(), single.workflow()
    with single.watched() as marks:
        limited = with_errbacks(single, told, single.told(told, "limit", "wait_for_the_limit"))
        with pytest.raises(Exception, match="TimeLimitExceeded"):
            answer(limited.apply_async(time_limit=1))
        marks.check({told: ["before limit", *ERRBACKS]}, repeats=ERRBACKS)
    check_afterwards(single)
    with single.watched() as marks:
        limited = with_errbacks(single, inherits, single.untold(inherits, "limit", "wait_for_the_limit"))
        with pytest.raises(Exception, match="TimeLimitExceeded"):
            published(single, single.told(inherits, "0", "publish", canvas=limited.set(time_limit=1)).apply_async())
        marks.check({inherits: ["0", "before limit", *ERRBACKS]}, repeats=ERRBACKS)
    check_afterwards(single)


@pytest.mark.promise
def test_a_process_that_is_killed(single: Site) -> None:
    wf = single.workflow()
    with single.watched() as marks:
        with pytest.raises(Exception, match="Worker exited prematurely"):
            answer(with_errbacks(single, wf, single.told(wf, "1", "be_killed")).apply_async())
        marks.check({wf: ["1", *ERRBACKS, "signal"]})
    check_afterwards(single)


@pytest.mark.promise
def test_a_task_that_is_revoked_while_it_runs(single: Site) -> None:
    """Celery itself calls the error callbacks of a chord then, of all that there are: those of its body."""
    wf = single.workflow()
    with single.watched() as marks:
        body = with_errbacks(single, wf, single.untold(wf, "never"))
        header = [single.told(wf, "done"), single.told(wf, "revoked", "wait_for_the_limit")]
        result = chord(header, app=single.client)(body)
        marks.wait({(wf, "before revoked"): 1})
        single.client.control.revoke(result.parent[1].id, terminate=True)
        with pytest.raises(Exception, match=r"revoked|terminated"):
            result.get(timeout=PATIENCE)
        marks.check({wf: ["done", "before revoked", *ERRBACKS]})
    check_afterwards(single)


@pytest.mark.promise
def test_a_task_that_has_expired(single: Site) -> None:
    """It never gets to a process that runs tasks."""
    wf = single.workflow()
    with single.watched() as marks:
        body = with_errbacks(single, wf, single.untold(wf, "never"))
        with pytest.raises(Exception, match="expired"):
            chord([single.told(wf, "never").set(expires=-1)], app=single.client)(body).get(timeout=PATIENCE)
        marks.check({wf: ERRBACKS})
    check_afterwards(single)


@pytest.mark.promise
def test_a_soft_time_limit_at_any_moment(single: Site) -> None:
    """Also where the shim enters and leaves the workflow of a task: what comes next is not where that one was."""
    a, b = single.workflow("a"), single.workflow("b")
    outside = str(single.root / ".outside" / "svc" / "tmp")
    inherited = dict.fromkeys(("TMPDIR", "TMP", "TEMP", "TEMPDIR", "TMP_REDIRECT_SCOPE"))
    for line in itertools.count(1):
        note = single.root / f"interrupted-{line}"
        for canvas in (
            single.told(a, "1", "interrupt", line=line, note=str(note)),
            single.told(b, "1", "worker_app.locate"),
        ):
            canvas.apply_async().get(timeout=PATIENCE, propagate=False)
        if not note.exists():
            break
        for canvas in (single.told(b, "2", "batch_of_one"), single.untold(OUTSIDE, "3", "worker_app.locate")):
            place = answer(canvas.apply_async())
            assert (place["gettempdir"], place["environment"]) == (outside, inherited), note.read_text(encoding="utf-8")
    assert line > 10
