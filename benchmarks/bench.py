"""Measure what the shim costs: each figure against the same without the shim, side by side in one run.

Timings are not tests: the exit status is 0 whenever it has measured.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[0] = str(REPOSITORY)  # run as a script: this directory is the package benchmarks, beside examples

from benchmarks import calls, celery_tasks, interpreters, memory, starts, sweeps, table  # noqa: E402 - found from here on only
from benchmarks.figures import Row  # noqa: E402
from benchmarks.sides import PlaceError, Sides, sides  # noqa: E402

PARTS = ("starts", "calls", "celery", "memory", "sweeps")


def main() -> int:
    """Measure what the command line asks for and print it."""
    parser = _parser()
    options = parser.parse_args()
    pythons = interpreters.everywhere() if options.all else options.python or [interpreters.this()]
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    versions = {}
    for python in pythons:
        version, real = interpreters.identify(python)
        if real is None:
            parser.error(f"{python} is no Python: {version}")
        versions[python] = version
    try:
        with sides(options.shim, options.root) as place:
            rows = list(_measure(versions, place, options.parts or PARTS, quick=options.quick))
    except PlaceError as error:
        parser.error(str(error))
    if options.json:
        print(json.dumps([row.as_json() for row in rows], indent=1))
    else:
        table.show(rows)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench.py", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--python", action="append", type=Path, help="an interpreter to measure; may be repeated")
    parser.add_argument("--all", action="store_true", help="every interpreter of pyenv and PATH, 3.10 to 3.13")
    parser.add_argument("--quick", action="store_true", help="few samples: only to see that it runs")
    parser.add_argument("--json", action="store_true", help="times in seconds, for programs")
    parser.add_argument("--root", type=Path, default=REPOSITORY.parent, help="where to put a directory for the run")
    parser.add_argument("--shim", type=Path, default=REPOSITORY, help="another checkout, to measure that one's shim")
    return parser


def _measure(versions: Mapping[Path, str], place: Sides, parts: Sequence[str], *, quick: bool) -> Iterator[Row]:
    for python, version in versions.items():
        if "starts" in parts:
            _tell(f"starts of {version}")
            yield from starts.measure(python, version, place, rounds=20 if quick else 300)
        if "calls" in parts:
            _tell(f"calls in {version}")
            yield from calls.measure(python, version, place, groups=3 if quick else 30, rounds=4 if quick else 10)
    version, _ = interpreters.identify(Path(sys.executable))  # the rest is for this one alone
    if _can_run("celery", parts, celery_tasks.missing(), "pip install 'tmp-redirect[demo]'"):
        _tell(f"Celery tasks in {version}")
        yield from celery_tasks.measure(version, place, rounds=3 if quick else 40, tasks=50 if quick else 200)
    if _can_run("memory", parts, celery_tasks.missing(), "pip install 'tmp-redirect[demo]'"):
        _tell(f"memory of Celery workers in {version}")
        yield from memory.measure(version, place, tasks=1_000 if quick else 100_000)
    if _can_run("sweeps", parts, sweeps.missing(place.directory / "shim"), "install them, or measure another checkout"):
        _tell(f"sweeps in {version}")
        yield from sweeps.measure(version, place, quick=quick)


def _can_run(part: str, parts: Sequence[str], lacking: Sequence[str], remedy: str) -> bool:
    if part in parts and lacking:
        _tell(f"no rows of {part}: there is no {', '.join(lacking)}; {remedy}")
    return part in parts and not lacking


def _tell(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # cleans up
    sys.exit(main())
