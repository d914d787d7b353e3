"""Show where the temp files of unmodified code go, without the redirection and with it.

Two workflows run at the same time through the five call sites of `examples.callsites`, in a real Celery worker with a
real broker and object storage: first with `TMP_REDIRECT` unset, then with `TMP_REDIRECT=enforce`. What counts is what
the kernel reported through inotify; the call sites' logs only tell whose file it was, and each must agree with the
other. Nothing that the shim counts or says about itself is used.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from examples.evidence import OUTSIDE, SYSTEM_TEMP, Pass, judge, logged_files
from examples.servers import MissingPieceError, ObjectStorage, ServerError, Servers

if TYPE_CHECKING:
    from typing_extensions import Self

REPOSITORY = Path(__file__).resolve().parent.parent
APP = "examples.callsites.app"
GATEWAY = "gateway"
WORKER = "worker"
WORKFLOWS = ("video-1", "video-2")
PASS_SECONDS = 90

# How many temp files each call site makes for a workflow, those of child processes and of the failing task included.
SITES = {"directory_upload": 1, "directory_download": 1, "area_detection": 2, "audio_separation": 2}
EXPECTED = {(site, workflow): count for site, count in SITES.items() for workflow in WORKFLOWS}
EXPECTED["file_service", OUTSIDE] = 2 * len(WORKFLOWS)  # an upload and a download for each

# Module -> distribution; the servers' own are looked up when they're started.
PACKAGES = {
    "celery": "celery",
    "redis": "redis",
    "minio": "minio",
    "imageio_ffmpeg": "imageio-ffmpeg",
    "inotify_simple": "inotify_simple",
    "rich": "rich",
}

OK, FINDINGS, CONFIGURATION = 0, 1, 78


class ConfigurationError(RuntimeError):
    """The demo can't run with what it was given, and the message says why."""


class InterruptionError(Exception):
    """The user, or the system, wants the demo to end."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}, cleaned up")
        self.number = number


class Signals:
    """Remembers a signal to end until `check` raises it, where nothing is half started or half cleaned up."""

    def __init__(self) -> None:
        self._received: int | None = None

    def __enter__(self) -> Self:
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        self._previous = {number: signal.signal(number, self._receive) for number in numbers}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise if a signal has come in."""
        if self._received is not None:
            raise InterruptionError(self._received)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = number


def run(*, root: Path | None = None, keep: bool = False, as_json: bool = False) -> int:
    """Run the demo and return its exit status: 0 only if every file of every call site went where it should.

    It works in a new directory, below `root` if given, which it leaves in place at the end if `keep` is set.
    """
    try:
        require_packages()
        with Signals() as signals, work_directory(root, keep=keep) as directory:
            return compare(directory, signals.check, as_json=as_json)
    except InterruptionError as error:
        return _complain(error, 128 + error.number)
    except (ConfigurationError, MissingPieceError) as error:
        return _complain(error, CONFIGURATION)
    except (ServerError, OSError) as error:
        return _complain(error, FINDINGS)


def require_packages() -> None:
    """Raise if a package that the demo needs is missing."""
    for module, distribution in PACKAGES.items():
        if importlib.util.find_spec(module) is None:
            raise MissingPieceError(distribution)


@contextlib.contextmanager
def work_directory(root: Path | None, *, keep: bool) -> Iterator[Path]:
    """Make a new directory, below `root` if given, and remove it and all that's in it at the end."""
    made_root = False
    try:
        if root is not None:
            made_root = not root.exists()
            if made_root:
                root.mkdir()
        directory = Path(os.path.realpath(tempfile.mkdtemp(prefix="tmp-redirect-demo-", dir=root)))
    except OSError as error:
        raise ConfigurationError(f"cannot use {root or tempfile.gettempdir()}: {error.strerror}") from error
    try:
        yield directory
    finally:
        if keep:
            print(f"tmp-redirect demo: kept {directory}", file=sys.stderr)
        else:
            shutil.rmtree(directory)
            if root is not None and made_root:
                root.rmdir()


def compare(directory: Path, check: Callable[[], None], *, as_json: bool) -> int:
    """Make both passes in the directory, print what they show and return the exit status."""
    from rich.console import Console

    from examples.report import print_json, print_tables

    servers = Servers(directory, clean_environment(), check)
    with (
        Console(stderr=True).status("starting broker and object storage") as status,
        servers.broker() as broker,
        servers.object_storage() as storage,
    ):
        env = {**servers.env, **platform_settings(broker, storage)}
        status.update("first pass: redirection off")
        before = run_pass("first pass", directory / "before", env, check, redirect=False)
        if before.errors:
            raise ServerError(f"nothing to compare with: {before.errors[0]}")
        status.update("second pass: redirection on")
        after = run_pass("second pass", directory / "after", env, check, redirect=True)
        status.update("stopping")
    check()
    findings = judge(before, after, EXPECTED)
    (print_json if as_json else print_tables)(before, after, EXPECTED, findings)
    return FINDINGS if findings else OK


def clean_environment() -> dict[str, str]:
    """Return this process's environment without any redirection in it, and with the repository on PYTHONPATH."""
    unwanted = {"TMPDIR", "TMP", "TEMP", "TEMPDIR"}
    env = {name: v for name, v in os.environ.items() if name not in unwanted and not name.startswith("TMP_REDIRECT")}
    inherited = [entry for entry in env.get("PYTHONPATH", "").split(os.pathsep) if entry and entry != str(REPOSITORY)]
    return {**env, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *inherited])}


def platform_settings(broker: str, storage: ObjectStorage) -> dict[str, str]:
    """Return the environment variables that tell the platform where its servers are."""
    return {
        "CELERY_BROKER_URL": f"{broker}/0",
        "CELERY_RESULT_BACKEND": f"{broker}/1",
        "S3_ENDPOINT": storage.endpoint,
        "S3_ACCESS_KEY": storage.access_key,
        "S3_SECRET_KEY": storage.secret_key,
    }


def run_pass(name: str, directory: Path, env: dict[str, str], check: Callable[[], None], *, redirect: bool) -> Pass:
    """Run all workflows once under the watcher's eyes, and gather the evidence."""
    from examples.watcher import Watcher

    run = Pass(name, directory.parent, directory / "workflows", secrets.token_hex(4), outside=GATEWAY)
    run.root.mkdir(parents=True)
    env = {**env, "INSTANCE": run.instance, "S3_BUCKET": directory.name}
    watcher = Watcher([*filter(Path.is_dir, SYSTEM_TEMP), run.work])
    try:
        with watcher:
            if blind := set(watcher.roots) & set(watcher.unwatched):
                raise ConfigurationError(f"cannot watch {blind.pop()}: not permitted to list it")
            run_workflows(run, Servers(directory, env, check), redirect=redirect)
        run.created = watcher.created
        run.files = logged_files(directory / f"{process}.log" for process in (WORKER, GATEWAY))
        run.left_behind = [path for path in run.marked if os.path.lexists(path)]
        return run
    finally:
        run.created = watcher.created
        remove_traces(run)


def remove_traces(run: Pass) -> None:
    """Remove from system temp what this pass made there: its random mark is in no other program's names."""
    for path in run.in_system_temp(run.marked):
        path.unlink(missing_ok=True)
    for path in run.in_system_temp(run.scratch):
        shutil.rmtree(path, ignore_errors=True)  # gone already, unless the worker was killed


def run_workflows(run: Pass, servers: Servers, *, redirect: bool) -> None:
    """Start a worker, have the gateway run the workflows, and keep the summary that it prints."""

    def environment(service: str) -> dict[str, str]:
        settings = {
            "TMP_REDIRECT": "enforce",
            "TMP_REDIRECT_ROOT": str(run.root),
            "TMP_REDIRECT_SERVICE": service,
            "TMP_REDIRECT_KEEP": "all",  # what is left is shown
        }
        return {**servers.env, **(settings if redirect else {})}

    command = [sys.executable, "-m", "examples.callsites.gateway", str(run.root), *WORKFLOWS]
    try:
        with (
            servers.celery_worker(WORKER, APP, environment(WORKER)) as worker,
            servers.process(GATEWAY, command, environment(GATEWAY)) as gateway,
        ):
            run.scratch = {file.parent for file in worker.open_files() if file.parent.name.startswith("pymp-")}
            if status := servers.wait_end(gateway, PASS_SECONDS, needed=[worker]):
                run.errors.append(f"the gateway ended with status {status}:\n{gateway.tail()}")
            else:
                run.summary = json.loads(gateway.output.read_text())
    except json.JSONDecodeError:
        run.errors.append(f"the gateway printed more than its summary:\n{gateway.tail()}")
    except ServerError as error:
        run.errors.append(str(error))


def _complain(error: Exception, status: int) -> int:
    print(f"tmp-redirect demo: {error}", file=sys.stderr)
    return status
