"""Call site 5: the gateway's uploads and downloads pass through temp files while no workflow is active."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from typing import BinaryIO

from minio import Minio

from examples.callsites import settings

logger = logging.getLogger(__name__)


class FileService:
    """Files of the gateway's clients, kept in the object storage."""

    def __init__(self, client: Minio, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def upload(self, stream: BinaryIO, object_name: str) -> str:
        """Store what the client sends and return its name in the bucket."""
        with tempfile.NamedTemporaryFile(delete=False, suffix=f".{settings.INSTANCE}.upload") as temporary:
            logger.info("temp file of file_service for -: %s", temporary.name)
            shutil.copyfileobj(stream, temporary)
        try:
            self._client.fput_object(self._bucket, object_name, temporary.name)
        finally:
            os.remove(temporary.name)
        return object_name

    def download(self, object_name: str) -> bytes:
        """Return the content of a stored file."""
        with tempfile.NamedTemporaryFile(delete=False, suffix=f".{settings.INSTANCE}.download") as temporary:
            logger.info("temp file of file_service for -: %s", temporary.name)
        try:
            self._client.fget_object(self._bucket, object_name, temporary.name)
            with open(temporary.name, "rb") as file:
                return file.read()
        finally:
            os.remove(temporary.name)
