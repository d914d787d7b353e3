"""Call site 3: parameters are written to a JSON temp file whose path a child Python gets as its argument."""

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

EXECUTOR = Path(__file__).with_name("executors") / "detect_area.py"

logger = logging.getLogger(__name__)


def detect_area(frames: list[str], workflow_id: str) -> dict[str, Any]:
    """Have a child process look at the frames and return what it found."""
    with tempfile.NamedTemporaryFile(
        mode="w", encoding="utf-8", delete=False, suffix=f".{settings.INSTANCE}.params.json"
    ) as temporary:
        json.dump({"workflow_id": workflow_id, "frames": frames}, temporary)
    parameters = temporary.name
    logger.info("temp file of area_detection for %s: %s", workflow_id, parameters)
    try:
        child = subprocess.run(
            [sys.executable, str(EXECUTOR), parameters],
            env=os.environ.copy(),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    finally:
        os.remove(parameters)
    answer: dict[str, Any] = json.loads(child.stdout)
    return answer
