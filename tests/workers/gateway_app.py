"""The gateway of the tests: endpoints that say where temp files are, of their own code and of all that they start."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Annotated, Any

import anyio.from_thread
import anyio.to_thread
from apis import paths_of_every_api
from fastapi import BackgroundTasks, Depends, FastAPI, Query, Request, UploadFile
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from services.common import tmp_redirect

APIS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "apis.py")
PATIENCE = 30  # seconds until a request that waits for others gives up
STEP = 0.005

Paths = dict[str, list[str]]


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    # Threads that outlive a request, apart from those that the endpoints' own work needs.
    with ThreadPoolExecutor(64) as app.state.late:
        yield


app = FastAPI(lifespan=lifespan)
BEFORE = (dict(os.environ), tempfile.tempdir)


def changed() -> list[str]:
    """What all requests share, and isn't as it was when the process started."""
    environment, tempdir = BEFORE
    names = {name for name in (*environment, *os.environ) if environment.get(name) != os.environ.get(name)}
    return sorted(names) if tempfile.tempdir == tempdir else [*sorted(names), "tempfile.tempdir"]


def where() -> dict[str, Any]:
    """Which process, loop and kind of thread this is."""
    try:
        loop = type(asyncio.get_running_loop()).__module__
    except RuntimeError:
        loop = None
    return {"pid": os.getpid(), "loop": loop, "main_thread": threading.current_thread() is threading.main_thread()}


@app.exception_handler(tmp_redirect.InvalidWorkflowId)
async def invalid(_: Request, error: tmp_redirect.InvalidWorkflowId) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status_code=422)


class Meeting:
    """Where concurrent requests wait for each other, in whatever worker process each of them is."""

    def __init__(self, workflow: str, together: int) -> None:
        self.workflow = workflow
        self.together = together
        self.directory = os.environ["MEETING"]

    def note(self, kind: str, content: object = None) -> None:
        path = os.path.join(self.directory, f"{kind}.{self.workflow}")
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            json.dump(content, file)
        os.rename(f"{path}.new", path)

    def noted(self, kind: str) -> list[str]:
        prefix = f"{kind}."
        names = [name for name in os.listdir(self.directory) if not name.endswith(".new")]
        return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]

    async def at(self, step: str) -> None:
        self.note(step)
        await waiting(lambda: len(self.noted(step)) == self.together)

    def at_in_thread(self, step: str) -> None:
        self.note(step)
        waiting_in_thread(lambda: len(self.noted(step)) == self.together)

    def over(self, kind: str, workflows: list[str]) -> bool:
        """Whether all these have noted it."""
        return {*workflows} <= {*self.noted(kind)}


async def waiting(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the other requests didn't come"
        await asyncio.sleep(STEP)


def waiting_in_thread(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the other requests didn't come"
        time.sleep(STEP)


def native(prefix: str) -> list[str]:
    """A command that makes a file and prints its path, and knows nothing but its environment."""
    return ["mktemp", "-t", f"{prefix}XXXXXX"]


def child(prefix: str) -> list[str]:
    """A command that uses every API and prints the paths as JSON."""
    return [sys.executable, APIS, prefix]


def read(output: bytes) -> list[str]:
    paths: list[str] = json.loads(output) if output.startswith(b"[") else os.fsdecode(output).splitlines()
    return paths


async def execute(command: list[str], **options: Any) -> list[str]:
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, **options)
    output, _ = await process.communicate()
    assert process.returncode == 0
    return read(output)


async def execute_in_shell(command: list[str]) -> list[str]:
    process = await asyncio.create_subprocess_shell(shlex.join(command), stdout=subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0
    return read(output)


def run(command: list[str], **options: Any) -> list[str]:
    return read(subprocess.run(command, stdout=subprocess.PIPE, check=True, **options).stdout)


def run_in_shell(command: list[str]) -> list[str]:
    return run([shlex.join(command)], shell=True)


def in_new_thread(function: Callable[[], list[str]]) -> list[str]:
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.extend(function()))
    thread.start()
    thread.join()
    return found


async def probe(prefix: str) -> list[str]:
    return paths_of_every_api(prefix)


def ways_from_async(prefix: str) -> dict[str, Callable[[], Awaitable[list[str]]]]:
    every = functools.partial(paths_of_every_api, prefix)
    own = {"PATH": os.environ["PATH"]}
    return {
        "the endpoint": lambda: probe(prefix),
        "create_task": lambda: asyncio.create_task(probe(prefix)),
        "asyncio.to_thread": lambda: asyncio.to_thread(every),
        "run_in_executor": lambda: asyncio.get_running_loop().run_in_executor(None, every),
        "anyio.to_thread": lambda: anyio.to_thread.run_sync(every),
        "run_in_threadpool": lambda: run_in_threadpool(every),
        "subprocess_exec": lambda: execute(native(prefix)),
        "subprocess_exec, Python": lambda: execute(child(prefix)),
        "subprocess_exec, own environment": lambda: execute(native(prefix), env=own),
        "subprocess_shell": lambda: execute_in_shell(native(prefix)),
        "subprocess_shell, Python": lambda: execute_in_shell(child(prefix)),
        "subprocess.run in a thread": lambda: asyncio.to_thread(run, native(prefix)),
    }


def ways_from_sync(prefix: str) -> dict[str, Callable[[], list[str]]]:
    every = functools.partial(paths_of_every_api, prefix)

    def in_new_pool() -> list[str]:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(every).result()

    return {
        "the endpoint": every,
        "Thread": lambda: in_new_thread(every),
        "ThreadPoolExecutor": in_new_pool,
        "anyio.from_thread": lambda: anyio.from_thread.run(probe, prefix),
        "subprocess.run": lambda: run(native(prefix)),
        "subprocess.run, Python": lambda: run(child(prefix)),
        "subprocess.run, own environment": lambda: run(native(prefix), env={"PATH": os.environ["PATH"]}),
        "subprocess.run, shell": lambda: run_in_shell(native(prefix)),
    }


def in_the_background(meeting: Meeting, background: BackgroundTasks) -> None:
    """Start, in the scope, what runs when the endpoint has left it and has answered."""
    prefix = f"left-{meeting.workflow}-"
    found: Paths = {}

    async def from_async() -> None:
        found["background, async"] = [*await probe(prefix), *await execute(native(prefix))]

    def from_sync() -> None:
        found["background, sync"] = [*paths_of_every_api(prefix), *run(native(prefix))]
        meeting.note("background", found)

    background.add_task(from_async)
    background.add_task(from_sync)


def late_in_thread(left: threading.Event, prefix: str) -> list[str]:
    assert left.wait(PATIENCE)
    return [*paths_of_every_api(prefix), *run(native(prefix))]


async def late(left: asyncio.Event, prefix: str) -> list[str]:
    await asyncio.wait_for(left.wait(), PATIENCE)
    return [*await probe(prefix), *await execute(native(prefix))]


Workflows = Annotated[list[str], Query(default_factory=list)]


@app.post("/workflow/async")
async def workflow_from_async(
    workflow: str, together: int, background: BackgroundTasks, outlives: Workflows
) -> dict[str, Any]:
    """Do everything in the scope, in step with `together` requests, and leave it after those that this one outlives."""
    meeting, prefix = Meeting(workflow, together), f"left-{workflow}-"
    left, left_for_threads = asyncio.Event(), threading.Event()
    inside: Paths = {}
    with tmp_redirect.workflow(workflow):
        for step, way in ways_from_async(f"inside-{workflow}-").items():
            await meeting.at(step)
            inside[step] = await way()
        in_the_background(meeting, background)
        task = asyncio.create_task(late(left, prefix))
        future = asyncio.get_running_loop().run_in_executor(app.state.late, late_in_thread, left_for_threads, prefix)
        await meeting.at("the end")
        changes = changed()
        await waiting(lambda: meeting.over("background", outlives))
        inside["the endpoint, later"] = await probe(f"inside-{workflow}-")
    left.set()
    left_for_threads.set()
    after = {"create_task": await task, "run_in_executor": await future, "the endpoint": await probe(prefix)}
    return {"inside": inside, "left": after, "changed": changes, **where()}


@app.post("/workflow/sync")
def workflow_from_sync(
    workflow: str, together: int, background: BackgroundTasks, outlives: Workflows
) -> dict[str, Any]:
    """The same in a worker thread."""
    meeting, prefix = Meeting(workflow, together), f"left-{workflow}-"
    left = threading.Event()
    inside: Paths = {}
    with tmp_redirect.workflow(workflow):
        for step, way in ways_from_sync(f"inside-{workflow}-").items():
            meeting.at_in_thread(step)
            inside[step] = way()
        in_the_background(meeting, background)
        future = app.state.late.submit(late_in_thread, left, prefix)
        meeting.at_in_thread("the end")
        changes = changed()
        waiting_in_thread(lambda: meeting.over("background", outlives))
        inside["the endpoint, later"] = paths_of_every_api(f"inside-{workflow}-")
    left.set()
    after = {"ThreadPoolExecutor": future.result(), "the endpoint": paths_of_every_api(prefix)}
    return {"inside": inside, "left": after, "changed": changes, **where()}


async def scoped(workflow: str) -> AsyncIterator[None]:
    with tmp_redirect.workflow(workflow):
        yield


@app.get("/workflow/dependency", dependencies=[Depends(scoped)])
def workflow_from_dependency(workflow: str, together: int) -> list[str]:
    Meeting(workflow, together).at_in_thread("dependency")
    return [*paths_of_every_api("dependency-"), *run(native("dependency-"))]


@app.get("/outside/async")
async def outside_from_async(prefix: str) -> dict[str, Any]:
    return {"paths": paths_of_every_api(prefix), "changed": changed(), **where()}


@app.get("/outside/sync")
def outside_from_sync(prefix: str) -> dict[str, Any]:
    return {"paths": paths_of_every_api(prefix), "changed": changed(), **where()}


def received(file: Any) -> dict[str, Any]:
    """What has been uploaded, and the path of the file it is in, which has no name."""
    rolled = file._rolled  # asked first, as fileno() makes it roll over
    return {
        "rolled": rolled,
        "path": os.readlink(f"/proc/self/fd/{file.fileno()}").removesuffix(" (deleted)"),
        "digest": hashlib.sha256(file.read()).hexdigest(),
    }


@app.post("/upload/async")
async def upload_from_async(file: UploadFile) -> dict[str, Any]:
    return received(file.file)


@app.post("/upload/sync")
def upload_from_sync(file: UploadFile) -> dict[str, Any]:
    return received(file.file)


@app.post("/upload/workflow")
async def upload_in_workflow(workflow: str, request: Request) -> dict[str, Any]:
    """The endpoint enters the scope before it reads what is sent."""
    with tmp_redirect.workflow(workflow):
        async with request.form() as form:
            return received(form["file"].file)


class Bucket:
    """Takes the place of the object storage, and notes the files that it was given."""

    def __init__(self) -> None:
        self.content = b""
        self.paths: list[str] = []

    def fput_object(self, _: str, __: str, path: str) -> None:
        self.paths.append(path)
        with open(path, "rb") as file:
            self.content = file.read()

    def fget_object(self, _: str, __: str, path: str) -> None:
        self.paths.append(path)
        with open(path, "wb") as file:
            file.write(self.content)


@app.post("/file-service")
def file_service(file: UploadFile) -> dict[str, Any]:
    """The target's call site: `NamedTemporaryFile(delete=False)`, on the way in and on the way out."""
    from examples.callsites.file_service import FileService

    bucket = Bucket()
    service = FileService(bucket, "bucket")  # type: ignore[arg-type]
    name = service.upload(file.file, "video.mkv")
    return {"digest": hashlib.sha256(service.download(name)).hexdigest(), "paths": bucket.paths}
