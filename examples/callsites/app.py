"""The platform's Celery worker: `celery -A examples.callsites.app worker`.

Every task takes the workflow's context, a dict, and returns it with its own results added: the next task's argument.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from celery import Celery, Task

from examples.callsites import (
    area_detection,
    audio_separation,
    directory_download,
    directory_upload,
    settings,
    storage,
    video,
)

Context = dict[str, Any]

app = Celery("callsites", broker=settings.BROKER_URL, backend=settings.RESULT_BACKEND)
app.conf.update(
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_track_started=True,
    worker_max_tasks_per_child=100,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
)


@app.task(bind=True)  # type: ignore[untyped-decorator]
def cut_frames(self: Task, context: Context) -> Context:
    """Fetch the workflow's video and cut it into frames and sound."""
    shared = Path(context["shared_storage_path"])
    movie, audio = shared / "input.mkv", shared / "audio.wav"
    storage.connect().fget_object(settings.S3_BUCKET, context["video"], str(movie))
    frames = video.cut_frames(movie, shared / "frames")
    video.extract_audio(movie, audio)
    return {**context, "frames": frames, "audio_path": str(audio)}


@app.task(bind=True)  # type: ignore[untyped-decorator]
def upload_frames(self: Task, context: Context) -> Context:
    """Store the frames as an archive (call site 1)."""
    workflow_id = context["workflow_id"]
    frames = Path(context["shared_storage_path"], "frames")
    archive = directory_upload.compress_and_upload(frames, f"{workflow_id}/frames.zip", workflow_id)
    return {**context, "archive": archive}


@app.task(bind=True)  # type: ignore[untyped-decorator]
def fetch_frames(self: Task, context: Context) -> Context:
    """Fetch the archive again, as a task on another machine would (call site 2)."""
    directory = Path(context["shared_storage_path"], "fetched")
    names = directory_download.download_and_extract(context["archive"], directory, context["workflow_id"])
    return {**context, "fetched": [str(directory / name) for name in names]}


@app.task(bind=True)  # type: ignore[untyped-decorator]
def detect_area(self: Task, context: Context) -> Context:
    """Look at the fetched frames in a child process (call site 3)."""
    return {**context, "area": area_detection.detect_area(context["fetched"], context["workflow_id"])}


@app.task(bind=True)  # type: ignore[untyped-decorator]
def separate_audio(self: Task, context: Context) -> Context:
    """Analyse the sound in a child process (call site 4)."""
    return {**context, "audio": audio_separation.separate(Path(context["audio_path"]), context["workflow_id"])}
