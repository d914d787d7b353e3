"""Workers that the tests of a module share, and where the files are that their tasks left.

Starting a worker takes longer than most tests. Each test has workflows of its own, and its files are named after them.
"""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from pprint import pformat
from typing import Any

from celery import Celery, Signature, signature

from examples.servers import Process, Servers
from examples.watcher import Watcher
from tests.celery_workers import workspace

PATIENCE = 20  # seconds until what a task leaves is missing
OUTSIDE = "outside"  # as a workflow: none at all
_numbers = itertools.count(1)


class Site:
    """A broker with a worker of an application, a client, and an empty root for workspaces."""

    def __init__(self, directory: Path, overlay: Path, helpers: Path, mode: str) -> None:
        self.root = directory / "workflows"
        self.root.mkdir()
        logs = directory / "servers"
        logs.mkdir()
        self.servers = Servers(logs, {"PATH": os.environ["PATH"], "TMPDIR": str(logs)})
        self.env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{overlay}:{helpers}",
            "TMP_REDIRECT": mode,
            "TMP_REDIRECT_ROOT": str(self.root),
            "TMP_REDIRECT_SERVICE": "svc",
            "TMP_REDIRECT_KEEP": "all",  # tests look at what tasks left
            "HOME": str(directory),
            "C_FORCE_ROOT": "1",
        }
        self.pool = ""
        self.client: Celery
        self.worker: Process

    @contextmanager
    def at_work(self, app: str, pool: str, concurrency: int, **env: str) -> Iterator[Site]:
        """Run the broker and the worker; further variables of the environment are keyword arguments."""
        with ExitStack() as stack:
            broker = stack.enter_context(self.servers.broker())
            self.pool = pool
            self.env.update(BROKER=f"{broker}/0", BACKEND=f"{broker}/1", **env)
            worker = self.servers.celery_worker("worker", app, self.env, concurrency, pool)
            self.worker = stack.enter_context(worker)
            self.client = Celery("client", broker=self.env["BROKER"], backend=self.env["BACKEND"], set_as_current=False)
            try:
                yield self
            finally:
                # Results unsubscribe when they are freed, and failed tests keep theirs until the server is gone.
                self.client.backend.result_consumer.cancel_for = lambda _: None
                self.client.close()
                self.worker.stop(seconds=0)  # its tasks are done, and pools of greenlets take 5 s to end

    def workflow(self, name: str = "wf") -> str:
        """The id of a workflow that no other test has."""
        return f"{name}-{next(_numbers)}"

    def told(self, workflow: str, step: str, task: str = "step", **kwargs: Any) -> Signature:
        """A task whose arguments name its workflow."""
        return self.untold(workflow, step, task, context={"workflow_id": workflow}, **kwargs)

    def untold(self, workflow: str, step: str, task: str = "step", **kwargs: Any) -> Signature:
        """A task that only names its files after the workflow that it should be in."""
        arguments = {"mark": [workflow, step], **kwargs}
        name = task if "." in task else f"canvas_app.{task}"
        return signature(name, kwargs=arguments, immutable=True, app=self.client)

    @contextmanager
    def watched(self) -> Iterator[Marks]:
        """Watch the root and system temp."""
        with Watcher(["/tmp", "/var/tmp", self.root]) as watcher:
            yield Marks(self.root, watcher)


class Marks:
    """The files that tasks have left since the watch began: `mark@<workflow>@<step>@...`, two for each mark."""

    def __init__(self, root: Path, watcher: Watcher) -> None:
        self.root = root
        self.watcher = watcher

    def check(self, expected: Mapping[str, Sequence[str]], repeats: Sequence[str] = ()) -> None:
        """Wait until each workflow has the marks of its steps: these, and no others, each where it belongs.

        Celery may do the steps in `repeats` more than once. Marks of other workflows only have to be where they belong.
        """
        wanted = Counter((workflow, step) for workflow, steps in expected.items() for step in steps)
        self.wait(wanted)
        found, wrong = self.found(), {}
        for workflow, step in sorted({*found, *wanted}):
            places, marks = found[workflow, step], wanted[workflow, step]
            as_often = len(places) == 2 * marks or (step in repeats and len(places) > 2 * marks > 0)
            if set(places) - {self.home(workflow)} or not (as_often or workflow not in expected):
                wrong[workflow, step] = f"{marks} marks wanted in {self.home(workflow)}", places
        assert not wrong, pformat(wrong, width=160)
        assert self.strays() == [], "in system temp"

    def wait(self, wanted: Mapping[tuple[str, str], int]) -> None:
        """Return when there are as many marks of each workflow and step, wherever; or when it takes too long."""
        deadline = time.monotonic() + PATIENCE
        while any(len(self.found()[key]) < 2 * marks for key, marks in wanted.items()):
            if time.monotonic() > deadline:
                return
            time.sleep(0.01)

    def found(self) -> defaultdict[tuple[str, str], list[str]]:
        """The directories of the files, by workflow and step."""
        self.watcher.sync()
        places = defaultdict(list)
        for path in self.watcher.created:
            if path.name.startswith("mark@"):
                _, workflow, step, _ = path.name.split("@")
                places[workflow, step].append(str(path.parent))
        return places

    def strays(self) -> list[Path]:
        """Whatever came into being in system temp."""
        self.watcher.sync()
        return [
            path for path in self.watcher.created if not path.is_relative_to(self.root) and "pytest-of" not in str(path)
        ]

    def home(self, workflow: str) -> str:
        """Where the files of a workflow belong, or those of no workflow."""
        return workspace(self.root, ".outside/svc" if workflow == OUTSIDE else workflow)
