"""In every pool of Celery, each of several workflows at once has its temp files to itself, whatever its tasks start.

Tasks meet inside the worker, so that they do overlap, and name their files after the workflow that asked for them.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.watcher import Watcher
from tests.celery_workers import answer, workspace
from tests.sites import Site

TOGETHER = {"prefork": 4, "solo": 1, "threads": 8, "gevent": 8, "eventlet": 8}  # so many tasks are inside at once


@pytest.fixture(scope="module")
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, overlay: Path, helpers: Path, mode: str
) -> Iterator[Site]:
    """A worker with the pool that the test names."""
    pool = request.param
    if pool not in ("prefork", "solo", "threads"):
        pytest.importorskip(pool)
    with Site(tmp_path_factory.mktemp(pool), overlay, helpers, mode).at_work("pool_app", pool, TOGETHER[pool]) as site:
        yield site


def run_together(site: Site, way: str) -> dict[str, dict[str, Any]]:
    """What the tasks of as many workflows as fit in say; their files are where they belong, and nowhere else."""
    together = TOGETHER[site.pool]
    workflows = [site.workflow() for _ in range(max(together, 2))]
    for workflow in workflows[::2]:
        (site.root / workflow / "tmp").mkdir(parents=True)  # these are watched before the first file can come

    def arguments(number: int) -> dict[str, Any]:
        meeting = site.root / "meetings" / workflows[number // together * together]
        context = {"workflow_id": workflows[number]}
        return {"context": context, "way": way, "meeting": str(meeting), "expected": together}

    with Watcher(["/tmp", "/var/tmp", site.root]) as watcher:
        results = [
            site.client.send_task("pool_app.together", kwargs=arguments(number)) for number in range(len(workflows))
        ]
        answers = dict(zip(workflows, map(answer, results), strict=True))
    seen = defaultdict(set)
    for path in watcher.created:
        if path.name.startswith("pool@"):
            seen[path.name.split("@")[1]].add(str(path))
    for workflow, said in answers.items():
        home = workspace(site.root, workflow)
        places = {os.path.dirname(path) for path in said["paths"] if path != home}  # gettempdir() is among them
        assert places | {os.path.dirname(path) for path in seen[workflow]} == {home}
        left = {path for path in said["paths"] if os.path.lexists(path) and path != home}
        assert left and left <= seen[workflow] <= set(said["paths"])
        assert said["gettempdir"] == home
    assert not [path for path in watcher.created if not path.is_relative_to(site.root) and "pytest-of" not in str(path)]
    return answers


def in_pools(*pools: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("site", pools, indirect=True, scope="module")


@pytest.mark.promise
@in_pools(*TOGETHER)
def test_tasks_that_overlap(site: Site) -> None:
    answers = run_together(site, "in_step")
    assert len({said["pid"] for said in answers.values()}) == (4 if site.pool == "prefork" else 1)


@pytest.mark.promise
@in_pools("threads", "gevent", "eventlet")
def test_what_the_tasks_of_a_process_share_does_not_change(site: Site) -> None:
    for said in run_together(site, "in_step").values():
        assert said["at_start"]["environ"]
        assert {name: said[name] for name in ("environ", "tempdir")} == said["at_start"]


@pytest.mark.promise
@in_pools(*TOGETHER)
def test_what_outlives_its_task_is_outside(site: Site) -> None:
    """And so in no workflow of the tasks that run by then, in the same process."""
    kwargs = {"context": {"workflow_id": site.workflow("ended")}}
    answer(site.client.send_task("pool_app.leave_behind", kwargs=kwargs))
    run_together(site, "what_was_left_behind_works")
    outside = str(site.root / ".outside" / "svc" / "tmp")
    for name in ("thread", "item"):
        paths = json.loads((site.root / "behind" / name).read_text(encoding="utf-8"))
        assert {os.path.dirname(path) for path in paths if path != outside} == {outside}


@pytest.mark.promise
@in_pools(*TOGETHER)
@pytest.mark.parametrize(
    "way",
    [
        "thread",
        "thread_of_a_thread",
        "timer",
        "own_executor",
        "shared_executor",
        "done_callback",
        "python_child",
        "python_child_with_a_stale_environment",
        "native_child",
        "native_child_without_environment",
        "os_system",
        "os_popen",
        "os_posix_spawn",
    ],
)
def test_what_a_task_starts(site: Site, way: str) -> None:
    run_together(site, way)


@pytest.mark.promise
@in_pools("prefork", "solo", "threads")
def test_coroutines(site: Site) -> None:
    run_together(site, "coroutines")


@pytest.mark.promise
@in_pools("gevent")
@pytest.mark.parametrize("way", ["gevent_spawn", "gevent_pool", "gevent_threadpool"])
def test_what_a_task_starts_with_gevent(site: Site, way: str) -> None:
    run_together(site, way)


@pytest.mark.promise
@in_pools("eventlet")
@pytest.mark.parametrize("way", ["eventlet_spawn", "eventlet_pool", "eventlet_tpool"])
def test_what_a_task_starts_with_eventlet(site: Site, way: str) -> None:
    run_together(site, way)
