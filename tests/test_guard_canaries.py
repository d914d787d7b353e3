"""The proof of tests/test_guard.py: a copy, with its path changed, turns red where a canary is in the guarded code.

Each canary is tried with the layer that catches it, and with that layer or the whole shim off: then what is left in
system temp must turn the copy red. Errors are swallowed, as the worst code does.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from services.common.tmp_redirect.kernel import availability

GUARD = Path(__file__).with_name("test_guard.py")
X = "/tmp/tmp-redirect-canary"
CODE = """
import contextlib
import logging
import os
import subprocess
import sys
import tempfile
import threading
from _io import open as captured

def work():
    with tempfile.NamedTemporaryFile() as file:
        logging.info("temp file: %s", file.name)
    with contextlib.suppress(OSError):
        canary()

def canary():
    {canary}
"""
TEST = "import guarded\n\ndef test_work():\n    guarded.work()\n"
SCAN, VIOLATES, LEFT, REACHED, LOGS = (
    "test_no_source_names_system_temp",
    "test_no_test_violates",
    "test_nothing_is_left_in_system_temp",
    "test_every_call_site_is_reached",
    "test_no_log_names_system_temp",
)
OFF = {"TMP_REDIRECT": "off"}
CALLS = {"TMP_REDIRECT_GUARD": "calls"}
KERNEL = {"TMP_REDIRECT_GUARD": "calls,kernel"}
TEMPFILE = "os.close(tempfile.mkstemp(prefix='tmp-redirect-canary')[0])"
CAPTURED = "captured(os.environ['X'], 'w').close()"
OPEN = f"open({X!r}, 'w').close()"
THREAD = "t = threading.Thread(target=os.mkdir, args=[os.environ['X']]); t.start(); t.join()"
CHILD = """subprocess.run([sys.executable, '-c', 'import os; os.mkdir(os.environ["X"])'], stderr=subprocess.DEVNULL)"""
NATIVE = "subprocess.run([os.environ['CREATES'], 'fopen', os.environ['X']], check=True)"
CASES = [
    ("no canary", "pass", {}, set()),
    ("tempfile", TEMPFILE, {}, set()),
    ("tempfile", TEMPFILE, OFF, {LEFT, LOGS}),
    ("a captured original", CAPTURED, {}, {VIOLATES, LOGS}),
    ("a captured original", CAPTURED, CALLS, {LEFT}),
    ("open", OPEN, {}, {SCAN, VIOLATES, LOGS}),
    ("open", f"{OPEN}  # noqa: S108", {}, {VIOLATES, LOGS}),
    ("open", f"{OPEN}  # noqa: S108", OFF, {LEFT, LOGS}),
    ("a thread", THREAD, {}, {VIOLATES, LOGS}),
    ("a thread", THREAD, OFF, {LEFT, LOGS}),
    ("a child", CHILD, {}, {VIOLATES, LOGS}),
    ("a child", CHILD, OFF, {LEFT, LOGS}),
    ("a C program", NATIVE, {}, {LEFT}),
    ("a C program", NATIVE, KERNEL, {VIOLATES, LOGS}),  # the test fails, and says how
    ("a log line", "logging.info('writing %s', os.environ['X'])", {}, {LOGS}),
    ("a call site that no test reaches", "return\n    tempfile.mkdtemp()", {}, {REACHED}),
]


@pytest.mark.parametrize(("canary", "env", "red"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_guard_turns_red(
    canary: str, env: dict[str, str], red: set[str], home: Path, overlay: Path, creates: Path
) -> None:
    if env is KERNEL and availability().reason:
        pytest.skip(str(availability().reason))
    guarded = home / "guarded"
    guarded.mkdir()
    (guarded / "guarded.py").write_text(CODE.format(canary=canary), encoding="utf-8")
    (guarded / "test_guarded.py").write_text(TEST, encoding="utf-8")
    text, changed = re.subn(
        "(?m)^GUARDED = .*$", f"GUARDED = Path({str(guarded)!r})", GUARD.read_text(encoding="utf-8")
    )
    assert changed == 1
    (home / "test_guard.py").write_text(text, encoding="utf-8")
    (home / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    before = set(os.listdir("/tmp"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rf", "--tb=short", "test_guard.py"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(overlay), "CREATES": str(creates), "X": X, **env},
        cwd=home, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    for name in set(os.listdir("/tmp")) - before:
        if name.startswith("tmp-redirect-canary"):
            path = Path("/tmp", name)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    assert "ERROR" not in done.stdout, done.stdout
    assert set(re.findall(r"FAILED test_guard.py::(\w+)", done.stdout)) == red, done.stdout + done.stderr
