"""One side of the comparison of calls: reads `<name><TAB><number of calls>`, answers with the seconds of one call.

Runs in a process that the shim has patched or not, so it knows nothing of the shim. Standard library only.
"""

from __future__ import annotations

import sys
import tempfile
import timeit
from pathlib import Path

SETUP = """
import copy, json, pickle, tempfile
frames = [{"path": f"/frames/{number:06}.jpg", "box": [0.1, 0.2, 0.3, 0.4], "text": ""} for number in range(20)]
context = {"workflow_id": "wf-1", "input": {"video": "a.mp4"}, "stages": {"detect": {"frames": frames}}}
"""
CALLS = {
    "tempfile.gettempdir()": "tempfile.gettempdir()",
    "NamedTemporaryFile create and close": "tempfile.NamedTemporaryFile().close()",
    "open for writing": "open(path, 'w').close()",
    "open for writing, relative path": "open(name, 'w').close()",
    "open for reading": "open(path).close()",
    "copy.deepcopy": "copy.deepcopy(context)",
    "json": "json.loads(json.dumps(context))",
    "pickle": "pickle.loads(pickle.dumps(context))",
}


def main() -> None:
    """Say where temp files go and whether `open` is stock, then time calls until the input ends."""
    path = Path.cwd() / "file"  # in the workspace
    path.touch()
    names = {"path": str(path), "name": path.name}
    timers = {name: timeit.Timer(call, SETUP, globals=names) for name, call in CALLS.items()}  # without the GC
    print(tempfile.gettempdir(), type(open).__name__, sep="\t", flush=True)
    for line in sys.stdin:
        name, number = line.rstrip("\n").split("\t")
        print(timers[name].timeit(int(number)) / int(number), flush=True)


if __name__ == "__main__":
    main()
