"""Run the suites of others without the shim and with it, in each interpreter, and compare each test's outcome.

The exit status is 0 where no test differs but those in differences.txt, 1 where one does, where a listed one doesn't
any more, and where a suite couldn't be run; 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import interpreters
from benchmarks.sides import REPOSITORY, PlaceError, sides
from tests.conformance import cpython, differences, junit
from tests.conformance.both import Both, check_namespaces
from tests.conformance.comparison import Comparison, compare
from tests.conformance.pytest_suites import SUITES
from tests.conformance.suite import Suite, SuiteError
from tests.conformance.verdict import Job, document, judged

DOCUMENT = REPOSITORY / "docs" / "conformance.md"
NAMES = (*cpython.NAMES, *SUITES)


def main() -> int:
    """Run what the command line asks for and print what came of it."""
    parser = _parser()
    options = parser.parse_args()
    if unknown := set(options.suites) - set(NAMES):
        parser.error(f"no such suite: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    # A shell that starts this in the background has it ignored: then some of CPython's tests never end.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    jobs = []
    for python in options.python or filter(cpython.package, interpreters.everywhere()):
        version, real = interpreters.identify(python)
        if real is None:
            parser.error(f"{python} is no Python: {version}")
        jobs += [Job(version, python, name) for name in options.suites or NAMES]
    try:
        listed = differences.read()
        check_namespaces()
        with sides(REPOSITORY, options.root) as place, ThreadPoolExecutor(options.jobs) as pool:
            found = dict(zip(jobs, pool.map(lambda job: _run(job, place.directory, options), jobs), strict=True))
    except (PlaceError, SuiteError, ValueError) as error:
        parser.error(str(error))
    table, complaints = judged(found, listed)
    print(table)
    print("\n".join(complaints) or "OK no test differs")
    if options.write:
        DOCUMENT.write_text(document(table, listed), encoding="utf-8")
    return bool(complaints)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="suite", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument("--python", action="append", type=Path, help="an interpreter; may be repeated; default: all")
    parser.add_argument("--guard", default="calls", help="layers of the guard, with commas between; default: calls")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="suites at once, each with two runs")
    parser.add_argument("--write", action="store_true", help=f"write the table to {DOCUMENT.relative_to(REPOSITORY)}")
    parser.add_argument("--root", type=Path, default=REPOSITORY.parent, help="where to put a directory for the run")
    parser.add_argument("--logs", type=Path, default=REPOSITORY / "logs", help="where those of what differs go")
    return parser


def _run(job: Job, place: Path, options: argparse.Namespace) -> Comparison | SuiteError:
    """Compare a suite's two runs, and print at once what is noteworthy of them."""
    work = place / f"{job.version}-{job.name}"
    (work / "suite").mkdir(parents=True)
    try:
        result = compare(_prepared(job, work, place / "shim", options.guard), options.logs / job.version / job.name)
        print("\n".join((f"{job.version} {job.name}: {len(result.differing)} differ", *result.details())), flush=True)
        return result
    except SuiteError as error:
        print(f"{job.version} {job.name}: {error}", flush=True)
        return error
    finally:
        shutil.rmtree(work)


def _prepared(job: Job, work: Path, shim: Path, guard: str) -> Both:
    if job.name in SUITES:
        suite: Suite = SUITES[job.name]
        python = suite.prepare(work / "suite", job.python)
        directory = suite.directory(work / "suite")
        return Both(suite, python, work, shim, guard, select=lambda test: junit.node_id(directory, test))
    package = cpython.package(job.python)
    if package is None:
        raise SuiteError("this interpreter came without CPython's suites")
    suite = cpython.Cpython(job.name, package)
    python = suite.prepare(work / "suite", job.python)
    return Both(suite, python, work, shim, guard, from_log=cpython.from_log)


if __name__ == "__main__":
    sys.exit(main())
