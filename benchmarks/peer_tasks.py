"""What a Celery task costs with the shim and with its peers: workers take turns with batches, all on one processor.

All are compared with a worker whose temp files go to one directory (`TMPDIR`), which costs nothing. Of all of them only
the shim also removes what it has made, and it alone looks whether somebody else uses it.
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks import namespaces
from benchmarks.batches import ON, Kind, workers
from benchmarks.cpus import one_cpu
from benchmarks.figures import SHIM, Row, compare
from benchmarks.peers import NAIVE
from benchmarks.sides import Sides

TMPDIR, BY_HAND, NAMESPACE, NAIVE_SHIM = "TMPDIR only", "edited by hand", "mount namespace", "naive shim"
BESIDE = f"; {TMPDIR}"
WHAT = {"nothing": "Celery task that does nothing", "one_file": "Celery task that makes a temp file"}


def measure(version: str, sides: Sides, rounds: int, tasks: int) -> list[Row]:
    """The rows of tasks beside peers, for the interpreter that runs this."""
    env_of = environments(sides)
    rows = []
    for task, what in WHAT.items():
        kinds = {TMPDIR: Kind(TMPDIR, task), SHIM: Kind(ON, task), NAIVE_SHIM: Kind(NAIVE_SHIM, task)}
        if task == "one_file":
            kinds[BY_HAND] = Kind(TMPDIR, "one_file_by_hand")
        if NAMESPACE in env_of:
            kinds[NAMESPACE] = Kind(NAMESPACE, f"{task}_in_namespace")
        with one_cpu(0), workers(sides, env_of) as batches:
            seconds = batches.in_turns(kinds, rounds, tasks)
        stock = seconds.pop(TMPDIR)
        rows += [compare(version, f"{what}{BESIDE}", taken, stock, side=side) for side, taken in seconds.items()]
    return rows


def environments(sides: Sides) -> dict[str, dict[str, str]]:
    """Those of the workers, by the name of their queue; one in which no namespace is allowed is left out, and said."""
    bare = {**sides.absent, "BENCHMARK_ROOT": str(sides.directory / "peers")}
    found = {
        TMPDIR: {**bare, **sides.same_place},
        ON: sides.on,
        NAIVE_SHIM: {**bare, "PYTHONPATH": str(NAIVE)},
    }
    program = [sys.executable, namespaces.__file__, str(sides.directory / "namespace")]
    tried = subprocess.run(program, capture_output=True, text=True, check=False)
    if tried.returncode:
        print(f"bench: no mount namespace is allowed here: {tried.stderr.splitlines()[-1]}", file=sys.stderr)
    else:
        found[NAMESPACE] = bare
    return found
