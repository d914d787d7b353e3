"""The demo, as a user runs it: it tells the truth, notices a shim that doesn't work, and leaves nothing behind.

That nothing is left in system temp is checked after every test, by `nothing_left_behind`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from examples.watcher import Watcher
from tests.conftest import REPOSITORY, lay_over, until

COMMAND = [sys.executable, "-m", "services.common.tmp_redirect", "demo"]
PATIENCE = 60
SYSTEM_TEMP = Path("/tmp").resolve()


def demo(*options: str | Path, checkout: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *options], cwd=checkout, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def test_what_it_prints_is_true(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with Watcher([SYSTEM_TEMP]) as watcher:
        done = demo("--json", "--keep", "--root", root)
    assert done.returncode == 0
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["ok"] is True
    assert document["findings"] == []

    [work] = root.iterdir()
    assert done.stderr == f"tmp-redirect demo: kept {work}\n"
    workflows = Path(document["root"])
    assert workflows == work / "after" / "workflows"

    files = {"directory_upload": 1, "directory_download": 1, "area_detection": 2, "audio_separation": 2}
    expected = {(site, workflow): number for site, number in files.items() for workflow in ("video-1", "video-2")}
    expected["file_service", None] = 4
    assert {(row["site"], row["workflow"]): len(row["after"]) for row in document["call_sites"]} == expected
    seen = {str(path) for path in watcher.created}
    for row in document["call_sites"]:
        home = workflows / (row["workflow"] or ".outside/gateway") / "tmp"
        assert {Path(path).parent for path in row["before"]} == {SYSTEM_TEMP}
        assert {Path(path).parent for path in row["after"]} == {home}
        assert len(row["before"]) == len(row["after"])
        assert {*row["before"], *row["after"]} <= seen

    left_before, left_after = document["left_behind"]["before"], document["left_behind"]["after"]
    assert {Path(entry["path"]).parent for entry in left_before} == {SYSTEM_TEMP}
    assert {str(path) for path in workflows.glob("**/tmp/**/*") if path.is_file()} == {e["path"] for e in left_after}
    for entries in (left_before, left_after):
        assert {(entry["site"], entry["workflow"]) for entry in entries} == {
            ("audio_separation", "video-1"),
            ("audio_separation", "video-2"),
        }
    assert {path for row in document["call_sites"] for path in row["before"]} <= {*document["in_system_temp"]["before"]}
    assert document["in_system_temp"]["after"] == []


def test_its_tables(tmp_path: Path) -> None:
    root = tmp_path / "new"
    done = demo("--root", root)
    assert done.returncode == 0
    assert done.stderr == ""
    last = "OK all 16 temp files went to the workspace of their own workflow, none to system temp"
    assert done.stdout.splitlines()[-1] == last
    rows = [" ".join(line.replace("│", "").split()) for line in done.stdout.splitlines()]
    for site in ("directory_upload video-1 1", "directory_download video-1 1", "area_detection video-1 2"):
        assert f"{site} {SYSTEM_TEMP} $ROOT/video-1/tmp" in rows
    assert f"file_service none active 4 {SYSTEM_TEMP} $ROOT/.outside/gateway/tmp" in rows
    assert "after nothing in system temp" in rows
    assert not root.exists()


@pytest.mark.parametrize(
    ("file", "content", "finding"),
    [
        ("sitecustomize.py", "", "directory_upload of video-1 went to /tmp instead of"),
        ("services/common/tmp_redirect/calls.py", "broken", "worker ended with status 78"),
    ],
)
def test_a_shim_that_does_not_work_is_noticed(tmp_path: Path, file: str, content: str, finding: str) -> None:
    checkout, root = tmp_path / "checkout", tmp_path / "root"
    root.mkdir()
    lay_over(checkout)
    shutil.copytree(REPOSITORY / "examples", checkout / "examples", ignore=shutil.ignore_patterns("__pycache__", ".*"))
    (checkout / file).write_text(content, encoding="utf-8")
    done = demo("--root", root, checkout=checkout)
    assert done.returncode == 1
    assert f"FAILED second pass: {finding}" in done.stdout
    assert "OK all" not in done.stdout
    assert list(root.iterdir()) == []


def test_ctrl_c_in_the_middle(tmp_path: Path) -> None:
    root = tmp_path / "new"
    process = subprocess.Popen(
        [*COMMAND, "--root", root],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        until(lambda: a_file_is_left_in_system_temp(root))
        assert len(processes_in(root)) > 5
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.terminate()
        process.communicate()
    assert process.returncode == 130
    assert output == ""
    assert errors == "tmp-redirect demo: interrupted by SIGINT, cleaned up\n"
    assert processes_in(root) == []
    assert not root.exists()


def a_file_is_left_in_system_temp(root: Path) -> bool:
    """Whether the first pass has got as far as the call site that leaves its file."""
    logs = root.glob("tmp-redirect-demo-*/before/worker.log")
    return any("temp file of audio_separation" in log.read_text(encoding="utf-8") for log in logs)


def processes_in(root: Path) -> list[str]:
    """The commands of processes that work below the root, as all that the demo starts do, if it still exists or not."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if root in (process / "cwd").readlink().parents:
                found.append((process / "cmdline").read_text(encoding="utf-8"))
        except OSError:  # it has ended, or is none of ours
            continue
    return found


def test_a_root_that_cannot_be_used(tmp_path: Path) -> None:
    missing, file = tmp_path / "missing" / "root", tmp_path / "file"
    file.touch()
    for root, reason in ((missing, "No such file or directory"), (file, "Not a directory")):
        done = demo("--root", root)
        assert (done.returncode, done.stdout) == (78, "")
        assert done.stderr == f"tmp-redirect demo: cannot use {root}: {reason}\n"


def test_outside_a_checkout(overlay: Path) -> None:
    done = demo(checkout=overlay)
    assert (done.returncode, done.stdout) == (78, "")
    reason = f"{overlay} has no examples/demo.py: the demo runs from a source checkout only"
    assert done.stderr == f"tmp-redirect demo: {reason}\n"


def test_a_usage_error() -> None:
    done = demo("--unknown")
    assert (done.returncode, done.stdout) == (2, "")
    assert "unrecognized arguments: --unknown" in done.stderr


def test_packages_that_are_missing() -> None:
    without_site_packages = [sys.executable, "-S", *COMMAND[1:]]
    done = subprocess.run(without_site_packages, cwd=REPOSITORY, env={}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == "tmp-redirect demo: celery is not installed: pip install 'tmp-redirect[demo]'\n"
