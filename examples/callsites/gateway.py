"""The platform's entrance, a program here: `python -m examples.callsites.gateway STORAGE WORKFLOW...`.

Uploads a video for each workflow, runs all workflows at the same time, downloads what they produced, and prints a
summary by workflow as JSON. The status is 1 when a workflow didn't go as it should.
"""

from __future__ import annotations

import io
import json
import logging
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from celery import chain
from celery.result import AsyncResult

from examples.callsites import app as tasks
from examples.callsites import settings, storage, video
from examples.callsites.file_service import FileService

TIMEOUT = 60

logger = logging.getLogger(__name__)


def main(shared_storage: str, *workflows: str) -> int:
    """Run the workflows and print what became of them."""
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s: %(levelname)s/%(name)s] %(message)s")
    logger.info("temp directory: %s", tempfile.gettempdir())
    client = storage.connect()
    storage.ensure_bucket(client, settings.S3_BUCKET)
    service = FileService(client, settings.S3_BUCKET)
    contexts = [prepare(service, Path(shared_storage, workflow), workflow) for workflow in workflows]
    running = [(context["workflow_id"], submit(context), submit_broken(context)) for context in contexts]
    summary = {workflow: collect(service, result, broken) for workflow, result, broken in running}
    print(json.dumps(summary))
    return 0 if all(outcome["states"] == ["SUCCESS", "FAILURE"] for outcome in summary.values()) else 1


def prepare(service: FileService, shared: Path, workflow: str) -> dict[str, Any]:
    """Upload the workflow's video and return the context its tasks start with."""
    shared.mkdir(parents=True, exist_ok=True)
    movie = shared / "original.mkv"
    video.generate(movie)
    with movie.open("rb") as stream:
        name = service.upload(stream, f"{workflow}/input.mkv")
    return {"workflow_id": workflow, "shared_storage_path": str(shared), "video": name}


def submit(context: dict[str, Any]) -> AsyncResult:
    """Start the workflow's chain: the first task gets the context, each later one what the previous one returned."""
    first = tasks.cut_frames.signature(kwargs={"context": context}, immutable=True)
    steps = (tasks.upload_frames, tasks.fetch_frames, tasks.detect_area, tasks.separate_audio)
    return chain(first, *(step.s() for step in steps)).apply_async()


def submit_broken(context: dict[str, Any]) -> AsyncResult:
    """Start a task of the same workflow that's bound to fail: the sound it shall work on was never stored."""
    missing = {**context, "audio_path": str(Path(context["shared_storage_path"], "never-stored.wav"))}
    return tasks.separate_audio.signature(kwargs={"context": missing}, immutable=True).apply_async()


def collect(service: FileService, result: AsyncResult, broken: AsyncResult) -> dict[str, Any]:
    """Wait for both, and return their states and the results of the first."""
    context = result.get(timeout=TIMEOUT, propagate=False)
    broken.get(timeout=TIMEOUT, propagate=False)
    outcome: dict[str, Any] = {"states": [result.state, broken.state]}
    if not result.successful():
        return {**outcome, "error": repr(context)}
    archive = service.download(context["archive"])
    with zipfile.ZipFile(io.BytesIO(archive)) as zipped:
        return {**outcome, "archived": zipped.namelist(), **{key: context[key] for key in ("frames", "area", "audio")}}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
