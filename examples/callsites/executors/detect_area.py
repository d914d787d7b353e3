"""Child process of call site 3: finds the frame with the most detail, with a temp file of its own on the way.

Its parent parses what it prints: nothing but the answer goes to stdout.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from pathlib import Path

logger = logging.getLogger("detect_area")


def main(parameters: str) -> None:
    """Answer the request in the file `parameters`."""
    request = json.loads(Path(parameters).read_text(encoding="utf-8"))
    handle, scratch = tempfile.mkstemp(suffix=f".{os.environ.get('INSTANCE', 'local')}.areas.json")
    logger.info("temp file of area_detection (child) for %s: %s", request["workflow_id"], scratch)
    with os.fdopen(handle, "w") as file:
        json.dump({frame: Path(frame).stat().st_size for frame in request["frames"]}, file)
    areas = json.loads(Path(scratch).read_text())
    os.remove(scratch)
    print(json.dumps({"frames": len(areas), "richest": Path(max(areas, key=areas.get)).name}))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main(*sys.argv[1:])
