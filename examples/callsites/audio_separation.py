"""Call site 4: a child Python writes its result to a JSON temp file, which stays behind when the child fails."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from examples.callsites import settings

EXECUTOR = Path(__file__).with_name("executors") / "separate_audio.py"

logger = logging.getLogger(__name__)


class SeparationError(RuntimeError):
    """The child process could not separate the audio."""


def separate(audio: Path, workflow_id: str) -> dict[str, Any]:
    """Have a child process analyse the sound and return its result."""
    with tempfile.NamedTemporaryFile(
        mode="w", delete=False, suffix=f".{settings.INSTANCE}.result.json", encoding="utf-8"
    ) as temporary:
        output = temporary.name
    logger.info("temp file of audio_separation for %s: %s", workflow_id, output)
    child = subprocess.run(
        [sys.executable, str(EXECUTOR), str(audio), output],
        env=os.environ.copy(),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if child.returncode != 0:
        # `output` is not removed on this way out: a leak of the kind found in the wild, and kept on purpose
        raise SeparationError(f"no result for {audio.name}: {child.stdout.strip()}")
    status = json.loads(child.stdout)
    with open(status["output"], encoding="utf-8") as file:
        result: dict[str, Any] = json.load(file)
    os.remove(output)
    return result
