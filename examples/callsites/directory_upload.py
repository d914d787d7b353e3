"""Call site 1: a directory is compressed into a zip in the temp directory, uploaded and the zip removed."""

from __future__ import annotations

import logging
import os
import tempfile
import time
import uuid
import zipfile
from pathlib import Path

from examples.callsites import settings, storage

logger = logging.getLogger(__name__)


def compress_and_upload(directory: Path, object_name: str, workflow_id: str) -> str:
    """Upload the directory as one archive and return the archive's name in the bucket."""
    name = f"{directory.name}_compressed_{int(time.time())}_{uuid.uuid4().hex[:8]}.{settings.INSTANCE}.zip"
    archive = os.path.join(tempfile.gettempdir(), name)
    logger.info("compressing directory: %s -> %s", directory, archive)
    logger.info("temp file of directory_upload for %s: %s", workflow_id, archive)
    try:
        _compress(directory, archive)
        storage.connect().fput_object(settings.S3_BUCKET, object_name, archive)
    finally:
        if os.path.exists(archive):
            os.remove(archive)
    return object_name


def _compress(directory: Path, archive: str) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        for file in sorted(directory.rglob("*")):
            zipped.write(file, file.relative_to(directory))
