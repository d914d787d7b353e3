"""The `audit` layer, alone: what raises an event before it creates something in system temp is seen, C code's too.

`calls` is not installed, and whether a file was created is asked of the file system. No `.pyc` is written: the shim's
own tree is in system temp here, where that would be a violation, and rightly so.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

AUDIT = {"TMP_REDIRECT_GUARD": "audit", "PYTHONDONTWRITEBYTECODE": "1"}
BOTH = {**AUDIT, "TMP_REDIRECT_GUARD": "calls,audit", "TMP_REDIRECT": "warn"}


@pytest.mark.promise
@pytest.mark.fresh(env=AUDIT)
def test_what_raises_an_event_is_refused(root: Path):  # noqa: F821 - of the fresh interpreter
    import _io
    import builtins
    import io
    import os
    import pathlib
    import posix
    import shutil
    import socket
    import sqlite3
    import tempfile

    from services.common.tmp_redirect import TmpFallbackError, report

    assert type(builtins.open) is type(os.mkdir) is type(len), "calls is at work too"
    source = root / "source"
    source.write_text("text")
    archive = shutil.make_archive(str(root / "archive"), "zip", root)
    x = "/tmp/tmp-redirect-x"
    below = os.open("/tmp", os.O_RDONLY)
    os.chdir("/var/tmp")
    attempts = [
        lambda: open(x, "w"),
        lambda: open(x.encode(), "ab"),
        lambda: open(pathlib.Path(x), "x"),
        lambda: open("relative", "w"),
        lambda: _io.open(x, "w"),
        lambda: io.FileIO(x, "w"),
        lambda: os.open(x, os.O_CREAT | os.O_WRONLY),
        lambda: posix.open(x, os.O_CREAT | os.O_WRONLY),
        lambda: posix.open("/tmp", os.O_TMPFILE | os.O_RDWR),
        lambda: posix.mkdir(x),
        lambda: posix.mkdir("tmp-redirect-x", dir_fd=below),
        lambda: posix.rename(source, x),
        lambda: posix.replace(source, "tmp-redirect-x", dst_dir_fd=below),
        lambda: posix.link(source, x),
        lambda: posix.symlink(source, x),
        lambda: posix.symlink(source, "tmp-redirect-x", dir_fd=below),
        lambda: os.makedirs(x + "/a/b"),
        lambda: posix.truncate(x, 1),
        lambda: sqlite3.connect(x),
        lambda: sqlite3.connect(f"file:{x}", uri=True),
        lambda: socket.socket(socket.AF_UNIX).bind(x),
        lambda: socket.socket(socket.AF_UNIX).bind(x.encode()),
        lambda: shutil.copyfile(source, x),
        lambda: shutil.copy(source, x),
        lambda: shutil.copy2(source, "/tmp"),
        lambda: shutil.copytree(root, x),
        lambda: shutil.move(source, x),
        lambda: shutil.move(source, "/tmp"),
        lambda: shutil.make_archive(x, "zip", root),
        lambda: shutil.unpack_archive(archive, x),
        lambda: shutil.unpack_archive(archive, "/tmp"),
        lambda: tempfile.mkstemp(dir="/tmp"),
        lambda: tempfile.mkdtemp(dir="/var/tmp"),
        lambda: tempfile.NamedTemporaryFile(dir="/tmp"),
        lambda: tempfile.TemporaryFile(dir="/tmp"),
        lambda: tempfile.TemporaryDirectory(dir="/tmp"),
    ]
    before = {directory: set(os.listdir(directory)) for directory in ("/tmp", "/var/tmp")}
    for number, attempt in enumerate(attempts):
        count = report().total
        try:
            attempt()
        except TmpFallbackError as error:
            assert error.filename.startswith(("/tmp/", "/var/tmp/")), (number, error.filename)
        else:
            raise AssertionError(f"attempt {number} went through")
        assert report().total > count, number
        assert {directory: set(os.listdir(directory)) for directory in before} == before, number
    assert source.read_text() == "text"


@pytest.mark.fresh(env=AUDIT)
def test_correct_code_is_left_alone(root: Path, tmp_path: Path):  # noqa: F821
    import os
    import socket
    import sqlite3
    import tempfile

    from services.common.tmp_redirect import report

    home = os.open(root, os.O_RDONLY)
    os.chdir(tmp_path)  # which is in system temp
    os.close(os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=home))  # the event doesn't tell where
    assert (root / "x").exists()
    os.close(os.open(tmp_path, os.O_PATH | os.O_TMPFILE))
    assert open(__file__).read()
    open(__file__, "r+").close()
    open(1, "w", closefd=False).close()
    os.truncate(os.open(root / "x", os.O_RDWR), 3)
    os.truncate(root / "x", 2)
    os.makedirs("/tmp", exist_ok=True)
    try:
        os.mkdir(tmp_path)
    except FileExistsError:
        pass
    socket.socket(socket.AF_UNIX).bind("\0tmp-redirect-abstract")
    socket.socket(socket.AF_INET).bind(("127.0.0.1", 0))
    socket.socket(socket.AF_UNIX).bind(os.fsencode(os.path.relpath(root / "socket")))
    sqlite3.connect(":memory:").close()
    sqlite3.connect(f"file:{root}/x.db", uri=True).close()
    with tempfile.NamedTemporaryFile() as file:
        assert file.name.startswith(str(root))
    assert report().total == 0, report().violations


@pytest.mark.promise
@pytest.mark.fresh(env=BOTH)
def test_what_two_layers_see_counts_once(tmp_path: Path):  # noqa: F821
    import _io
    import os
    import shutil
    import sqlite3

    from services.common.tmp_redirect import report

    attempts = [
        lambda: open(tmp_path / "opened", "w").close(),
        lambda: os.close(os.open(tmp_path / "os-opened", os.O_CREAT)),
        lambda: os.mkdir(tmp_path / "made"),
        lambda: os.rename(tmp_path / "opened", tmp_path / "renamed"),
        lambda: os.link(tmp_path / "renamed", tmp_path / "linked"),
        lambda: os.symlink("renamed", tmp_path / "symlinked"),
        lambda: shutil.copyfile(__file__, tmp_path / "copied"),
        lambda: sqlite3.connect(tmp_path / "base.db").close(),
        lambda: _io.open(tmp_path / "past-calls", "w").close(),
    ]
    for number, attempt in enumerate(attempts, 1):
        attempt()
        assert report().total == number, (number, report().violations)
    assert len(report().violations) == len(attempts)


@pytest.mark.promise
@pytest.mark.fresh(env=AUDIT)
def test_after_uninstall_the_hook_is_inert():
    import os

    from services.common.tmp_redirect import install, report, uninstall

    for _ in range(3):
        uninstall()
        open("/tmp/tmp-redirect-x", "w").close()
        os.remove("/tmp/tmp-redirect-x")
        install()
        total = report().total
        try:
            open("/tmp/tmp-redirect-x", "w")
        except PermissionError:
            assert report().total == total + 1, "there is more than one hook"
        else:
            raise AssertionError


@pytest.mark.promise
def test_an_event_when_the_interpreter_ends(python: str, shim_env: dict[str, str]) -> None:
    code = (
        "import _io, os, sys\n"
        "class Late:\n"
        "    def __init__(self): self.open, self.write = _io.open, os.write\n"
        "    def __del__(self):\n"
        "        self.open('/dev/null', 'w').close()\n"
        "        self.write(1, b'quiet')\n"
        "sys.late = Late()\n"
        "try: _io.open('/tmp/tmp-redirect-x', 'w')\n"
        "except PermissionError: pass\n"
        "else: raise AssertionError\n"
    )
    env = {**shim_env, **AUDIT}
    done = subprocess.run([python, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "quiet"), done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.promise
def test_compiled_files_in_system_temp_are_seen_and_imports_go_on(shim_env: dict[str, str], tmp_path) -> None:
    (tmp_path / "module.py").write_text("value = 3\n", encoding="utf-8")
    env = {**shim_env, **AUDIT, "PYTHONPATH": f"{shim_env['PYTHONPATH']}:{tmp_path}"}
    del env["PYTHONDONTWRITEBYTECODE"]
    done = subprocess.run(
        [sys.executable, "-c", "import module; print(module.value)"],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr
    assert not (tmp_path / "__pycache__").exists()
    assert f"refused: os.mkdir of '{tmp_path}/__pycache__' at <string>:1" in done.stderr
