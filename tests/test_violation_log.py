"""What is said of violations: lines on stderr, JSON lines on the shared volume, a summary; and that it harms nobody.

The lines are read from the processes' stderr and from the file, as an operator would.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

X = "/tmp/tmp-redirect-x"


@pytest.fixture
def warn(shim_env: dict[str, str], mode: str) -> dict[str, str]:
    return {**shim_env, "TMP_REDIRECT": "warn" if mode == "enforce" else "off", "TMP_REDIRECT_SCOPE": "wf-1"}


def run(code: str, env: dict[str, str], *prefix: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the code; it is the calling code's to remove what it makes in system temp."""
    command = [*prefix, sys.executable, "-c", code]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False, **options)


def journal(root: Path, service: str = "svc") -> list[dict[str, Any]]:
    file = root / ".outside" / service / "violations.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


TWO_SITES = f"""
def report_of(number):
    for _ in range(number):
        open({X!r}, "w").close()
report_of(3)
import os
os.remove({X!r})
os.mkdir({X!r})
os.rmdir({X!r})
"""


@pytest.mark.promise
def test_each_call_site_is_logged_once_and_summed_up(warn: dict[str, str], root: Path) -> None:
    done = run(TWO_SITES, warn)
    assert (done.returncode, done.stdout) == (0, "")
    entries = journal(root)
    pid = entries[0]["pid"]
    summary = f"tmp_redirect: summary: pid {pid} would have used system temp 4 times, at 2 call sites; each is logged"
    assert done.stderr.splitlines() == [
        f"tmp_redirect: violation: open of {X!r} at <string>:4 in report_of, workflow 'wf-1', pid {pid}",
        f"tmp_redirect: violation: os.mkdir of {X!r} at <string>:8 in <module>, workflow 'wf-1', pid {pid}",
        f"{summary} above and in {root}/.outside/svc/violations.jsonl",
    ]
    for entry in entries:
        assert entry.pop("time").endswith("Z")
    common = {"verdict": "violation", "path": X, "workflow": "wf-1", "service": "svc", "pid": pid}
    assert entries == [
        {**common, "call": "open", "where": "<string>:4", "function": "report_of"},
        {**common, "call": "os.mkdir", "where": "<string>:8", "function": "<module>"},
    ]


@pytest.mark.promise
def test_enforce_says_refused(shim_env: dict[str, str], root: Path) -> None:
    done = run(f"open({X!r}, 'w')", shim_env)
    assert done.returncode == 1
    assert [entry["verdict"] for entry in journal(root)] == ["refused"]
    assert done.stderr.startswith(f"tmp_redirect: refused: open of {X!r}")
    assert "would have used system temp once, at 1 call site" in done.stderr.splitlines()[-1]


def test_nothing_is_said_where_nothing_happened(warn: dict[str, str], root: Path) -> None:
    done = run("import tempfile; tempfile.mkdtemp()", warn)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert journal(root) == []


CHILDREN = f"""
import {{package}} as package, os, sys
if __name__ == "__main__":
    open({X!r}, "w").close()
    for method in ("fork", "spawn"):
        child = package.get_context(method).Process(target=os.mkdir, args=({X!r} + method,))
        child.start(); child.join()
        os.rmdir({X!r} + method)
    os.remove({X!r})
"""


@pytest.mark.promise
@pytest.mark.parametrize("package", ["multiprocessing", "billiard"])
def test_each_process_counts_its_own(warn: dict[str, str], root: Path, tmp_path: Path, package: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(CHILDREN.format(package=package), encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], env=warn, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    entries = [entry for entry in journal(root) if entry["path"].startswith(X)]
    assert [entry["call"] for entry in entries] == ["open", "os.mkdir", "os.mkdir"]
    assert len({entry["pid"] for entry in entries}) == 3
    for entry in entries:
        assert done.stderr.count(f"pid {entry['pid']} would have used system temp once, at 1 call site") == 1


@pytest.mark.promise
def test_threads_are_counted_exactly(warn: dict[str, str]) -> None:
    code = (
        "import os, threading\n"
        "from services.common.tmp_redirect import report\n"
        f"def attempts():\n    for _ in range(2000): open({X!r}, 'w').close()\n"
        "threads = [threading.Thread(target=attempts) for _ in range(8)]\n"
        "[thread.start() for thread in threads]; [thread.join() for thread in threads]\n"
        f"os.remove({X!r})\n"
        "[violation] = report().violations\n"
        "print(report().total, violation.count)\n"
    )
    done = run(code, warn)
    assert done.stdout == "16000 16000\n", done.stderr


@pytest.mark.promise
def test_two_first_violations_at_once_are_summed_up(warn: dict[str, str]) -> None:
    done = run(
        "import threading\n"
        "def other():\n"
        f"    open({X!r}, 'w').close()\n"
        "try:\n"
        "    from services.common.tmp_redirect.guard import violations\n"
        "    say = violations.say\n"
        "    def hold_up(line):\n"
        "        violations.say = say\n"
        "        thread = threading.Thread(target=other)\n"
        "        thread.start()\n"
        "        thread.join()\n"
        "        say(line)\n"
        "    violations.say = hold_up\n"
        f"    open({X!r}, 'w').close()\n"
        "finally:\n"
        "    import os\n"
        f"    os.remove({X!r})\n",
        warn,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stderr.splitlines()] == ["violation:", "violation:", "summary:"]


@pytest.mark.promise
def test_the_file_is_bounded(warn: dict[str, str], root: Path) -> None:
    service = root / ".outside" / "svc"
    service.mkdir(parents=True)
    (service / "violations.jsonl").write_text("x" * (2**20 - 10), encoding="ascii")
    done = run(TWO_SITES, warn)
    assert done.returncode == 0
    assert [entry["call"] for entry in journal(root)] == ["os.mkdir"]
    old = (service / "violations.jsonl.1").read_text(encoding="utf-8")
    assert (2**20 < len(old) < 2**20 + 1000, '"call": "open"' in old) == (True, True)


@pytest.mark.promise
@pytest.mark.parametrize("in_the_way", ["link", "fifo", "directory", "file for the service"])
def test_what_is_in_the_way_of_the_file_harms_nobody(
    warn: dict[str, str], root: Path, tmp_path: Path, in_the_way: str
) -> None:
    service = root / ".outside" / "svc"
    service.mkdir(parents=True)
    file = service / "violations.jsonl"
    if in_the_way == "link":
        (tmp_path / "elsewhere").write_text("", encoding="ascii")
        file.symlink_to(tmp_path / "elsewhere")
    elif in_the_way == "fifo":
        os.mkfifo(file)
    elif in_the_way == "directory":
        file.mkdir()
    else:
        service.rmdir()
        service.write_text("", encoding="ascii")
    done = run(TWO_SITES, warn)
    assert done.returncode == 0
    assert [line.split()[1] for line in done.stderr.splitlines()] == ["violation:", "violation:", "summary:"]
    assert done.stderr.endswith("each is logged above\n")
    if in_the_way == "link":
        assert (tmp_path / "elsewhere").read_text(encoding="ascii") == ""


@pytest.mark.promise
def test_a_full_disk_harms_nobody(warn: dict[str, str], root: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespace can be made here: unshare -m is missing or not permitted")
    script = f'mount -t tmpfs -o size=16k tmpfs {root}; cat /dev/zero >{root}/filler 2>/dev/null; exec "$@"'
    done = run(TWO_SITES, warn, unshare, "-m", "sh", "-c", script, "sh")
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stderr.splitlines()] == ["violation:", "violation:", "summary:"]
    with open("/dev/full", "w", encoding="ascii") as full:
        command = [sys.executable, "-c", TWO_SITES]
        assert subprocess.run(command, env=warn, stderr=full, check=False).returncode == 0
    assert [entry["call"] for entry in journal(root)] == ["open", "os.mkdir"]


@pytest.mark.promise
def test_a_stderr_that_is_closed_or_has_become_a_file(warn: dict[str, str], root: Path, tmp_path: Path) -> None:
    closed = subprocess.run(
        ["sh", "-c", f'exec {sys.executable} -c "$BODY" 2>&-'], env={**warn, "BODY": TWO_SITES}, check=False
    )  # fmt: skip
    assert closed.returncode == 0
    reused = tmp_path / "data"
    code = f"import os, sys\nsys.__stderr__.close()\nos.open({str(reused)!r}, os.O_CREAT | os.O_RDWR)\n{TWO_SITES}"
    assert run(code, {**warn, "TMP_REDIRECT_ALLOW": str(reused)}).returncode == 0
    assert reused.read_text(encoding="ascii") == ""
    assert [entry["call"] for entry in journal(root)] == ["open", "os.mkdir"] * 2


@pytest.mark.promise
def test_a_signal_handler_while_locks_are_held(warn: dict[str, str], root: Path) -> None:
    code = f"""
import logging, logging.handlers, os, queue, signal, sys, threading

lock = threading.Lock()
class Stderr:
    def write(self, text):
        with lock:
            return sys.__stderr__.write(text)
    def flush(self): pass
sys.stderr = Stderr()
messages = queue.Queue()
logging.basicConfig(handlers=[logging.handlers.QueueHandler(messages)])
logging.raiseExceptions = True

def handler(*_):
    open({X!r}, "w").close()
    os.mkdir({X!r} + "d")
signal.signal(signal.SIGALRM, handler)
with lock, messages.mutex, logging._lock:
    signal.raise_signal(signal.SIGALRM)
os.remove({X!r})
os.rmdir({X!r} + "d")
print("went on")
"""
    done = run(code, warn)
    assert (done.returncode, done.stdout) == (0, "went on\n")
    assert [entry["call"] for entry in journal(root)] == ["open", "os.mkdir"]


@pytest.mark.promise
@pytest.mark.parametrize("layers", ["calls", "audit", "calls,audit"])
def test_a_program_whose_logging_uses_system_temp(warn: dict[str, str], layers: str) -> None:
    code = f"""
import logging, os, sys

class ToSystemTemp(logging.Handler):
    def emit(self, record):
        with open({X!r}, "a") as file:
            file.write(self.format(record))
logging.basicConfig(handlers=[ToSystemTemp()])
class Stderr:
    def write(self, text): logging.error(text)
    def flush(self): pass
sys.stderr = Stderr()
for number in range(3):
    logging.error("message %d", number)
print(open({X!r}).read())
os.remove({X!r})
"""
    env = {**warn, "TMP_REDIRECT_GUARD": layers, "PYTHONDONTWRITEBYTECODE": "1"}
    done = run(code, env)
    assert (done.returncode, done.stdout) == (0, "".join(f"ERROR:root:message {n}" for n in range(3)) + "\n")
    assert "would have used system temp 3 times, at 1 call site" in done.stderr


@pytest.mark.promise
def test_a_listener_that_raises_is_ignored_and_can_leave(warn: dict[str, str]) -> None:
    code = (
        "import os\n"
        "from services.common.tmp_redirect.guard import listen\n"
        "heard = []\n"
        "stop = [listen(lambda *_: 1 / 0), listen(lambda *what: heard.append(what))]\n"
        f"def attempt():\n    open({X!r}, 'w').close()\n    os.remove({X!r})\n"
        "attempt(); attempt(); [end() for end in stop]; attempt()\n"
        "print(len(heard), heard[0][0].count, heard[0][1], heard[0][2].f_code.co_name)\n"
    )
    done = run(code, warn)
    assert done.stdout == f"2 3 {X} attempt\n", done.stderr


@pytest.mark.promise
def test_a_broker_that_is_away_holds_nobody_up(warn: dict[str, str]) -> None:
    code = (
        "import os, celery, celery.app.trace\n"
        "from services.common.tmp_redirect.integrations.celery_events import _pending, send_pending\n"
        f"open({X!r}, 'w').close()\nos.remove({X!r})\n"
        "for url in ('redis://127.0.0.1:1', 'amqp://127.0.0.1:1', 'memory://'):\n"
        "    send_pending(celery.Celery(broker=url), 'worker@localhost')\n"
        "    print(len(_pending))\n"
    )
    done = run(code, warn)
    assert (done.returncode, done.stdout) == (0, "1\n1\n0\n"), done.stderr
