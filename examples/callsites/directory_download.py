"""Call site 2: an archive is downloaded into a named temp file, extracted and the temp file removed."""

from __future__ import annotations

import logging
import os
import tempfile
import zipfile
from pathlib import Path

from examples.callsites import settings, storage

logger = logging.getLogger(__name__)


def download_and_extract(object_name: str, directory: Path, workflow_id: str) -> list[str]:
    """Extract the archive of that name into the directory and return the files it contained."""
    with tempfile.NamedTemporaryFile(delete=False, suffix=f".{settings.INSTANCE}.archive.zip") as temporary:
        archive = temporary.name
    logger.info("temp file of directory_download for %s: %s", workflow_id, archive)
    try:
        storage.connect().fget_object(settings.S3_BUCKET, object_name, archive)
        with zipfile.ZipFile(archive) as zipped:
            zipped.extractall(directory)
            return sorted(zipped.namelist())
    finally:
        os.remove(archive)
