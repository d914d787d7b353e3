"""Which layer catches what: each cell of the table in docs/guard.md.

A canary is a program that makes one file in system temp, and swallows the error if it can't. What became of it is asked
of the file system; without the shim the file must be there, or the table would say nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import imageio_ffmpeg
import pytest

from services.common.tmp_redirect.kernel import availability

DOCS = Path(__file__).resolve().parents[1] / "docs" / "guard.md"
X = "/tmp/tmp-redirect-canary"
NOTHING = "nothing was made"
CANARIES = {
    "`tempfile.mkstemp()`": "import tempfile\ntempfile.mkstemp(prefix='tmp-redirect-canary')",
    "`gettempdir` bound before the shim ran": (
        "import early\nwith open(early.gettempdir() + '/tmp-redirect-canary', 'w'): pass"
    ),
    '`tempfile.mkstemp(dir="/tmp")`': "import tempfile\ntempfile.mkstemp(dir='/tmp', prefix='tmp-redirect-canary')",
    "`tempfile.mktemp()`, and `open` of it": (
        "import tempfile\nwith open(tempfile.mktemp(prefix='tmp-redirect-canary'), 'w'): pass"
    ),
    '`open("/tmp/x", "w")`': f"with open({X!r}, 'w'): pass",
    "`open` of a path made at run time": (
        "import os\nwith open(os.sep + os.sep.join(['tmp', 'tmp-redirect-canary']), 'w'): pass"
    ),
    "`os.mkdir`, `os.rename`, `os.symlink`, ...": f"""
        import os
        for create in (os.mkdir, lambda path: os.symlink("nowhere", path), lambda path: os.rename("source", path)):
            with open("source", "w"): pass
            attempt(create, {X!r} + "-" + str(id(create)))
        """,
    "`sqlite3.connect`": f"import sqlite3\nsqlite3.connect({X!r}).close()",
    "`os.mkfifo`, `os.mknod`": f"""
        import os
        attempt(os.mkfifo, {X!r})
        attempt(os.mknod, {X + "-2"!r})
        """,
    "`os.open` of a relative path with `dir_fd`": f"""
        import os
        directory = os.open({os.path.dirname(X)!r}, os.O_RDONLY)
        os.open({os.path.basename(X)!r}, os.O_CREAT | os.O_WRONLY, dir_fd=directory)
        """,
    "`_io.open`, `io.FileIO`, `open` bound before the shim ran": f"""
        import _io, early
        attempt(_io.FileIO, {X!r}, "w")
        attempt(_io.open, {X + "-2"!r}, "w")
        attempt(early.open, {X + "-3"!r}, "w")
        """,
    "`bind` of a socket": f"""
        import socket
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind({X!r})
        """,
    "a thread that calls `open`": f"""
        import threading
        thread = threading.Thread(target=attempt, args=(open, {X!r}, "w"))
        thread.start()
        thread.join()
        """,
    "a child Python that calls `open`": """
        import subprocess, sys
        subprocess.run([sys.executable, "-c", "open('/tmp/tmp-redirect-canary', 'w')"], stderr=subprocess.DEVNULL)
        """,
    "a child Python started with `-S`": """
        import subprocess, sys
        subprocess.run([sys.executable, "-S", "-c", "open('/tmp/tmp-redirect-canary', 'w')"], stderr=subprocess.DEVNULL)
        """,
    "a C function, through `ctypes`": f"""
        import ctypes
        libc = ctypes.CDLL(None)
        libc.fopen({X.encode()!r}, b"w")
        """,
    "a C program": f"import os, subprocess\nsubprocess.run([os.environ['CREATES'], 'fopen', {X!r}])",
    '`sh -c "echo > /tmp/x"`': f"import os\nos.system('echo > {X} 2>&1')",
    "`ffmpeg -y ... /tmp/x.wav`": f"""
        import os, subprocess
        source = ["-f", "lavfi", "-i", "sine=duration=0.1"]
        subprocess.run([os.environ["FFMPEG"], "-nostdin", "-loglevel", "quiet", "-y", *source, {X + ".wav"!r}])
        """,
    "a log line that names `/tmp/x`": f"import logging\nlogging.warning('writing %s', {X!r})",
}
PRELUDE = """
def attempt(function, *args):
    try:
        made = function(*args)
    except OSError:
        return
    if hasattr(made, "close"):
        made.close()
"""


def table() -> dict[str, dict[str, str]]:
    """The cells by row and column, as the document has them."""
    lines = DOCS.read_text(encoding="utf-8").split("## What is caught")[1].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    columns = [cell.strip("`") for cell in rows[0][1:]]
    return {row[0]: dict(zip(columns, row[1:], strict=True)) for row in rows[1:]}


TABLE = table()


def test_each_row_is_tested() -> None:
    assert list(TABLE) == list(CANARIES)


@pytest.fixture
def canary(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    body = textwrap.indent(textwrap.dedent(CANARIES[request.param]).strip(), "    ")
    script = tmp_path / "canary.py"
    script.write_text(f"{PRELUDE}\ntry:\n{body}\nexcept Exception:\n    pass\n", encoding="utf-8")
    return script


@pytest.fixture
def canary_env(shim_env: dict[str, str], tmp_path: Path, creates: Path) -> dict[str, str]:
    """With a module that is imported before the shim runs, as those that `.pth` files name are."""
    early = tmp_path / "early"
    early.mkdir()
    (early / "early.py").write_text("from builtins import open\nfrom tempfile import gettempdir\n", encoding="utf-8")
    chained = "import early, os, sys, runpy\nrunpy.run_path(os.environ['SITE'], run_name='sitecustomize')\n"
    (early / "sitecustomize.py").write_text(chained, encoding="utf-8")
    overlay = shim_env["PYTHONPATH"]
    return {
        **shim_env,
        "PYTHONPATH": f"{early}:{overlay}",
        "SITE": f"{overlay}/sitecustomize.py",
        "PYTHONDONTWRITEBYTECODE": "1",
        "CREATES": str(creates),
        "FFMPEG": imageio_ffmpeg.get_ffmpeg_exe(),
    }


def made_by(command: list[str], env: dict[str, str], script: Path) -> tuple[set[str], subprocess.CompletedProcess[str]]:
    """What the command made in system temp, which is removed, and how it ended."""
    before = set(os.listdir("/tmp"))
    options = {"env": env, "cwd": script.parent, "capture_output": True, "text": True, "timeout": 60}
    done = subprocess.run(command, **options, check=False)
    made = {name for name in set(os.listdir("/tmp")) - before if name.startswith("tmp-redirect-canary")}
    for name in made:
        path = Path("/tmp", name)
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return made, done


def outcome(made: set[str], root: Path) -> str:
    moved = any(path.name.startswith("tmp-redirect-canary") for path in root.rglob("*"))
    return "-" if made else "moved" if moved else NOTHING


def in_layer(layer: str) -> Callable[[Path, dict[str, str], Path], str]:
    def check(script: Path, env: dict[str, str], root: Path) -> str:
        made, done = made_by([sys.executable, str(script)], {**env, "TMP_REDIRECT_GUARD": layer}, script)
        assert done.returncode == 0, done.stderr
        return outcome(made, root)

    return check


def in_plugin(script: Path, env: dict[str, str], root: Path) -> str:
    body = textwrap.indent(script.read_text(encoding="utf-8"), "    ")
    test = script.with_name("test_canary.py")
    test.write_text(f"def test_canary():\n{body}", encoding="utf-8")
    plugin = ["-p", "services.common.tmp_redirect.pytest_plugin"] if env["TMP_REDIRECT"] != "off" else []
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *plugin, str(test)]
    made, done = made_by(command, {**env, "TMP_REDIRECT_GUARD": "calls,audit"}, script)
    if done.returncode == 0:
        return outcome(made, root)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "/tmp/tmp-redirect-canary" in done.stdout
    assert not made
    return "fails"


def in_scan(script: Path, env: dict[str, str], root: Path) -> str:
    return _found([sys.executable, "-m", "services.common.tmp_redirect", "scan", str(script)], env)


def in_scan_logs(script: Path, env: dict[str, str], root: Path) -> str:
    _, done = made_by([sys.executable, str(script)], {**env, "TMP_REDIRECT": "off"}, script)
    log = script.with_suffix(".log")
    log.write_text(done.stdout + done.stderr, encoding="utf-8")
    return _found([sys.executable, "-m", "services.common.tmp_redirect", "scan-logs", str(log)], env)


def _found(command: list[str], env: dict[str, str]) -> str:
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in {0, 1}, done.stderr
    return "found" if done.returncode else "-"


CHECKS = {
    "calls": in_layer("calls"),
    "audit": in_layer("audit"),
    "kernel": in_layer("kernel"),
    "plugin": in_plugin,
    "scan": in_scan,
    "scan-logs": in_scan_logs,
}
OF_THE_SHIM = ("calls", "audit", "kernel", "plugin")
NAMES_IT_ONLY = "a log line that names `/tmp/x`"
CELLS = [
    pytest.param(
        row, row, column, id=f"{column}-{row}",
        marks=[pytest.mark.promise] if column in OF_THE_SHIM and cell != "-" else [],
    )
    for row, cells in TABLE.items()
    for column, cell in cells.items()
]  # fmt: skip


@pytest.mark.parametrize(("canary", "row", "column"), CELLS, indirect=["canary"])
def test_cell(canary: Path, canary_env: dict[str, str], root: Path, row: str, column: str) -> None:
    if column == "kernel" and availability().reason:
        pytest.skip(str(availability().reason))
    found = CHECKS[column](canary, canary_env, root)
    if found == NOTHING:
        found = "-" if row == NAMES_IT_ONLY else "refused"
    assert found == TABLE[row][column]


@pytest.mark.parametrize(("canary", "row"), [(row, row) for row in CANARIES], indirect=["canary"], ids=list(CANARIES))
def test_without_the_shim_it_is_in_system_temp(canary: Path, canary_env: dict[str, str], row: str) -> None:
    made, done = made_by([sys.executable, str(canary)], {**canary_env, "TMP_REDIRECT": "off"}, canary)
    assert done.returncode == 0, done.stderr
    assert bool(made) == (row != NAMES_IT_ONLY), done.stderr
