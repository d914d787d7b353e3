"""The guard: code that puts temp files into system temp, instead of its workflow's workspace, fails CI.

To use it, copy this file into your tests, change GUARDED, and have pytest, coverage, ruff and tmp-redirect where the
tests run. Nobody else may write to system temp meanwhile: run it in a container.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.common.tmp_redirect.testing.call_sites import call_sites, unreached

GUARDED = Path(__file__).resolve().parents[1] / "examples" / "callsites"  # your code and configuration, with its tests

TMP_REDIRECT = [sys.executable, "-m", "services.common.tmp_redirect"]
PLUGIN = "services.common.tmp_redirect.pytest_plugin"
SYSTEM_TEMP = ("/tmp", "/var/tmp")


@dataclass
class Run:
    """What the tests of the guarded code did: their exit status, all they printed and logged, and what they left."""

    status: int
    output: str
    log: Path
    env: dict[str, str]
    executed: dict[str, set[int]]
    left: set[str]


@pytest.fixture(scope="module")
def run(pytestconfig: pytest.Config) -> Iterator[Run]:
    """The tests of the guarded code are run once, with the shim, the plugin, and coverage to see what they reach."""
    # Not in system temp, as tmp_path is: logs shorten paths, and then nobody can tell one from the other.
    directory = pytestconfig.cache.mkdir("tmp-redirect-guard")
    shutil.rmtree(directory)
    directory.mkdir()
    root, log, coverage = directory / "workflows", directory / "run.log", directory / "coverage.ini"
    root.mkdir()
    coverage.write_text(f"[run]\nsource = {GUARDED}\ndata_file = {root}/.coverage\npatch = subprocess\n", "utf-8")
    env = {
        "TMP_REDIRECT": "enforce",
        "TMP_REDIRECT_GUARD": "calls,audit",
        **os.environ,
        "TMP_REDIRECT_ROOT": str(root),
        "PYTHONDONTWRITEBYTECODE": "1",  # a checkout may be in system temp
    }

    def measured(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        options = [sys.executable, "-m", "coverage", command, "--rcfile", str(coverage), *arguments]
        with log.open("a", encoding="utf-8") as file:
            return subprocess.run(options, env=env, stdout=file, stderr=file, check=False)

    before = in_system_temp()
    logged = ["-s", "-o", "log_cli=true", "--log-cli-level=DEBUG"]
    done = measured("run", "-m", "pytest", "-p", PLUGIN, "-p", "no:cacheprovider", *logged, str(GUARDED))
    left = in_system_temp() - before
    measured("combine", "--quiet")
    report = root / "coverage.json"
    measured("json", "--quiet", "-o", str(report))
    files = json.loads(report.read_text(encoding="utf-8"))["files"] if report.exists() else {}
    executed = {os.path.abspath(file): set(lines["executed_lines"]) for file, lines in files.items()}
    yield Run(done.returncode, log.read_text(encoding="utf-8"), log, env, executed, left)
    shutil.rmtree(directory)


def in_system_temp() -> set[str]:
    """What is there now, but for what pytest itself keeps there."""
    return {
        f"{directory}/{name}"
        for directory in SYSTEM_TEMP
        for name in os.listdir(directory)
        if not name.startswith("pytest-of-")
    }


def test_no_source_names_system_temp() -> None:
    done = subprocess.run([*TMP_REDIRECT, "scan", str(GUARDED)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_test_violates(run: Run) -> None:
    assert run.status == 0, run.output


def test_nothing_is_left_in_system_temp(run: Run) -> None:
    assert run.left == set()


def test_every_call_site_is_reached(run: Run) -> None:
    missed = unreached(call_sites(GUARDED), run.executed)
    assert not missed, "no test reaches these call sites, so nothing is known of them:\n" + "\n".join(map(str, missed))


def test_no_log_names_system_temp(run: Run) -> None:
    command = [*TMP_REDIRECT, "scan-logs", str(run.log)]
    done = subprocess.run(command, env=run.env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
