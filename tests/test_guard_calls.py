"""The `calls` layer: what creates something in system temp raises in enforce, and is logged and done in warn.

Each body runs in a fresh interpreter with the working directory in system temp where that is the point. Whether a file
was created is asked of the file system.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

WARN = {"TMP_REDIRECT": "warn"}


@pytest.mark.promise
@pytest.mark.fresh
def test_every_call_that_creates(root: Path):
    import errno
    import os
    import pathlib
    import shutil
    import sqlite3
    import tempfile

    from services.common.tmp_redirect import TmpFallbackError, report

    home = root / "home"
    home.mkdir()
    source = home / "source"
    source.write_text("text")
    os.chdir("/var/tmp")
    below = os.open("/tmp", os.O_RDONLY)
    x = "/tmp/tmp-redirect-x"
    attempts = [
        lambda: open(x, "w"),
        lambda: open(x, "ab"),
        lambda: open(x, mode="x"),
        lambda: open(file=x, mode="w+"),
        lambda: open(x.encode(), "w"),
        lambda: open(pathlib.Path(x), "w"),
        lambda: open("relative", "w"),
        lambda: open("../../tmp/tmp-redirect-x", "w"),
        lambda: open("//tmp/tmp-redirect-x", "w"),
        lambda: open("/./tmp/tmp-redirect-x", "w"),
        lambda: open("/usr/../tmp/tmp-redirect-x", "w"),
        lambda: open(x, "w"),
        lambda: pathlib.Path(x).open("w"),
        lambda: pathlib.Path(x).write_bytes(b""),
        lambda: pathlib.Path(x).touch(),
        lambda: pathlib.Path(x).mkdir(),
        lambda: pathlib.Path(x).mkdir(parents=True, exist_ok=True),
        lambda: pathlib.Path(x).symlink_to(source),
        lambda: source.rename(x),
        lambda: source.replace(x),
        lambda: os.open(x, os.O_CREAT | os.O_WRONLY),
        lambda: os.open(x, type("Flags", (), {"__index__": lambda self: os.O_CREAT | os.O_WRONLY})()),
        lambda: os.open("tmp-redirect-x", os.O_CREAT | os.O_WRONLY, dir_fd=below),
        lambda: os.open("/tmp", os.O_TMPFILE | os.O_RDWR),
        lambda: os.mkdir(x),
        lambda: os.mkdir(path=x, mode=0o700),
        lambda: os.mkdir("relative"),
        lambda: os.mkdir("tmp-redirect-x", dir_fd=below),
        lambda: os.makedirs(x + "/a/b"),
        lambda: os.rename(source, x),
        lambda: os.replace(source, x),
        lambda: os.rename(source, "tmp-redirect-x", dst_dir_fd=below),
        lambda: os.link(source, x),
        lambda: os.symlink(source, x),
        lambda: os.mkfifo(x),
        lambda: os.mknod(x),
        lambda: shutil.copy(source, x),
        lambda: shutil.copytree(home, x),
        lambda: shutil.make_archive(x, "zip", home),
        lambda: sqlite3.connect(x),
        lambda: sqlite3.connect(f"file:{x}", uri=True),
        lambda: sqlite3.dbapi2.connect(pathlib.Path(x)),
        lambda: tempfile.mkstemp(dir="/tmp"),
        lambda: tempfile.mkdtemp(dir="/var/tmp"),
        lambda: tempfile.NamedTemporaryFile(dir="/tmp"),
        lambda: tempfile.NamedTemporaryFile(dir=b"/tmp"),
        lambda: tempfile.TemporaryFile(dir="/tmp"),
        lambda: tempfile.TemporaryDirectory(dir="/tmp"),
    ]
    before = {directory: set(os.listdir(directory)) for directory in ("/tmp", "/var/tmp")}
    for number, attempt in enumerate(attempts):
        count = report().total
        try:
            attempt()
        except TmpFallbackError as error:
            assert isinstance(error, PermissionError)
            assert error.errno == errno.EACCES
            assert error.filename.startswith(("/tmp/", "/var/tmp/")), (number, error.filename)
        else:
            raise AssertionError(f"attempt {number} went through")
        assert report().total > count, number
        assert {directory: set(os.listdir(directory)) for directory in before} == before, number
    assert source.read_text() == "text"


@pytest.mark.promise
@pytest.mark.fresh
def test_relative_paths_that_lead_into_system_temp(root: Path):
    import os

    from services.common.tmp_redirect import TmpFallbackError

    inner = root / "inner"
    inner.mkdir()
    for directory, attempt in (
        ("/", lambda: open("tmp/tmp-redirect-x", "w")),
        ("/var", lambda: open("./tmp/tmp-redirect-x", "w")),
        ("/var", lambda: os.open("tmp", os.O_TMPFILE | os.O_RDWR)),
        ("/tmp", lambda: os.open(".", os.O_TMPFILE | os.O_RDWR)),
        (inner, lambda: os.mkdir("../../../../../../../../../tmp/tmp-redirect-x")),
    ):
        os.chdir(directory)
        try:
            attempt()
        except TmpFallbackError as error:
            assert error.filename.startswith(("/tmp/", "/var/tmp/"))
        else:
            raise AssertionError(f"went through from {directory}")
        assert not os.path.exists("/tmp/tmp-redirect-x")
    os.chdir(inner)
    inner.rmdir()
    try:
        os.mkdir("../../../../../../../../../tmp/tmp-redirect-x")
    except TmpFallbackError as error:
        assert error.filename == "/tmp/tmp-redirect-x"
    else:
        raise AssertionError("went through from a directory that was removed")


@pytest.mark.fresh
def test_relative_paths_elsewhere_and_file_descriptors_load_nothing(home: Path):
    """CPython's own test_audit looks at all that is opened and unmarshalled while it writes a file."""
    import os
    import sys

    os.chdir(home)
    before = set(sys.modules)
    open("file", "w").close()
    os.mkdir("directory")
    os.rename("file", "directory/file")
    open(os.open("file", os.O_CREAT | os.O_WRONLY), "w").close()

    assert set(sys.modules) == before


@pytest.mark.fresh
def test_what_is_no_creation_in_system_temp(root: Path):
    import os
    import pathlib
    import sqlite3
    import tempfile

    from services.common.tmp_redirect import report

    assert open("/proc/self/status").read()
    assert os.listdir("/tmp") is not None
    os.close(os.open("/tmp", os.O_RDONLY))
    os.close(os.open("/tmp", os.O_PATH | os.O_TMPFILE))
    pathlib.Path("/tmp").mkdir(exist_ok=True)
    os.makedirs("/tmp", exist_ok=True)
    pathlib.Path(__file__).parent.mkdir(parents=True, exist_ok=True)
    assert open(__file__).read()
    for mode in ("r+", "+r", "rt+", "tr", "br+", "b+r", "+rt"):
        with open(__file__, mode):
            pass
    for call in (os.mkdir, os.mkfifo, os.mknod, pathlib.Path.mkdir):
        try:
            call(pathlib.Path("/tmp"))
        except FileExistsError:
            pass
        else:
            raise AssertionError(call)
    sqlite3.connect(":memory:").close()
    sqlite3.connect("").close()
    sqlite3.connect(f"file:{root}/x.db?mode=memory", uri=True).close()
    sqlite3.connect(f"{root}/x.db").close()
    for name in (f"{root}/x", f"{root}/../workflows/y", f"{root}//z"):
        with open(name, "w"), open(1, "w", closefd=False):
            pass
    os.rename(f"{root}/x", f"{root}/xx")
    os.symlink("/tmp", f"{root}/link")
    tempfile.mkdtemp(dir=root)
    with open("/dev/null", "w"):
        pass
    assert report().total == 0, report().violations


@pytest.mark.fresh
def test_a_link_out_of_system_temp_is_followed(root: Path, link_to_root: Path):
    from services.common.tmp_redirect import report

    with open(link_to_root / "x", "w"):
        pass
    assert (root / "x").exists()
    assert report().total == 0


@pytest.fixture
def link_to_root(tmp_path: Path, root: Path) -> Path:
    link = tmp_path / "link"
    link.symlink_to(root)
    return link


@pytest.mark.promise
@pytest.mark.fresh(env={"TMP_REDIRECT_ALLOW": "{permitted}:/var/tmp/other/"})
def test_what_may_be_written_below_system_temp(permitted: Path):
    import os

    from services.common.tmp_redirect import TmpFallbackError

    with open(permitted / "x", "w"):
        pass
    os.mkdir(permitted / "d")
    try:
        open(f"{permitted}x", "w")
    except TmpFallbackError:
        pass
    else:
        raise AssertionError


@pytest.fixture
def permitted(tmp_path: Path) -> Path:
    directory = tmp_path / "permitted"
    directory.mkdir()
    return directory


@pytest.mark.promise
@pytest.mark.fresh(env=WARN, stderr="tmp_redirect: violation: open of '{tmp_path}/x' at {tmp_path}/body.py:")
def test_warn_logs_one_violation_a_call_site_and_goes_on(tmp_path: Path):
    import os

    stderr, log = os.dup(2), os.pipe()
    os.set_blocking(log[0], False)
    os.dup2(log[1], 2)
    for number in range(3):
        open(tmp_path / f"x{number or ''}", "w").close()
    os.mkdir(tmp_path / "d")
    from services.common.tmp_redirect import report

    logged = os.read(log[0], 9999)
    os.dup2(stderr, 2)
    os.write(2, logged)
    assert len(logged.splitlines()) == 2, logged
    assert [(v.call, v.count) for v in report().violations] == [("open", 3), ("os.mkdir", 1)]
    assert report().total == 4
    file, line = report().violations[0].where.split(":")
    assert "open(tmp_path" in Path(file).read_text().splitlines()[int(line) - 1]
    assert (tmp_path / "x2").exists()
    assert (tmp_path / "d").exists()


@pytest.mark.promise
@pytest.mark.fresh(env={**WARN, "TMP_REDIRECT_SCOPE": "wf-1"})
def test_warn_lets_everything_through(tmp_path: Path):
    import os
    import sqlite3
    import tempfile

    from services.common.tmp_redirect import report

    os.chdir(tmp_path)
    log = os.pipe()
    os.set_blocking(log[0], False)
    os.dup2(log[1], 2)
    attempts = {
        "open": lambda: open("relative", "w").close(),
        "os.open": lambda: os.close(os.open(tmp_path / "opened", os.O_CREAT | os.O_WRONLY)),
        "os.mkdir": lambda: os.mkdir(tmp_path / "made"),
        "os.rename": lambda: os.rename("relative", "renamed"),
        "os.symlink": lambda: os.symlink("renamed", "link"),
        "sqlite3.connect": lambda: sqlite3.connect(tmp_path / "base.db").close(),
        "os.mkdir ": lambda: tempfile.mkdtemp(dir=tmp_path),
        "os.open ": lambda: tempfile.NamedTemporaryFile(dir=tmp_path).close(),
        "os.open  ": lambda: tempfile.TemporaryFile(dir=tmp_path).close(),
        "os.mkdir  ": lambda: tempfile.TemporaryDirectory(dir=tmp_path).cleanup(),
    }
    for number, (name, attempt) in enumerate(attempts.items(), 1):
        attempt()
        [line] = os.read(log[0], 9999).decode().splitlines()
        assert report().total == number, name
        assert line.startswith(f"tmp_redirect: violation: {name.strip()} of '{tmp_path}/")
        assert "workflow 'wf-1'" in line
    assert {"opened", "made", "renamed", "link", "base.db"} <= set(os.listdir(tmp_path))


@pytest.mark.promise
@pytest.mark.fresh(env={"TMP_REDIRECT_SCOPE": "wf-1"})
def test_a_swallowed_violation_is_still_reported():
    import contextlib
    import os
    import shutil
    import tempfile

    with contextlib.suppress(OSError):
        shutil.copy(__file__, "/tmp/tmp-redirect-x")
    with contextlib.suppress(OSError):
        tempfile.mkstemp(dir="/tmp")
    from services.common.tmp_redirect import report

    first, second = report().violations
    assert first.path == "/tmp/tmp-redirect-x"
    for violation, called in ((first, "shutil.copy"), (second, "tempfile.mkstemp")):
        file, line = violation.where.split(":")  # of the caller of the standard library
        assert called in Path(file).read_text().splitlines()[int(line) - 1]
    tempfile.gettempdir()
    with contextlib.suppress(OSError):
        os.mkdir("/tmp/tmp-redirect-x")
    assert report().violations[-1].workflow == "wf-1"


@pytest.mark.fresh
def test_replacements_behave_as_what_they_replace(root: Path):
    import builtins
    import copy
    import inspect
    import io
    import os
    import pickle
    import shutil

    assert open is io.open is builtins.open
    assert shutil.rmtree.avoids_symlink_attacks
    for function in (open, os.open, os.mkdir, os.rename, os.link, os.symlink, os.mkfifo):
        for same in (pickle.loads(pickle.dumps(function)), copy.copy(function), copy.deepcopy(function)):
            assert same.__name__ == function.__name__
        assert pickle.loads(pickle.dumps(function)) == function
        assert inspect.signature(function).parameters
        assert inspect.isbuiltin(function)
    assert open.__module__ in ("io", "_io")  # the second from Python 3.12 on
    assert os.mkdir.__doc__.startswith("Create a directory")
    assert os.open in os.supports_dir_fd
    assert os.link in os.supports_follow_symlinks

    class Keeps:
        open = open
        mkdir = os.mkdir

    Keeps().mkdir(root / "d")
    with Keeps().open(root / "f", "w") as file:
        file.write("x")
    for bad in (
        lambda: open(),
        lambda: open("x", []),
        lambda: open(None, "w"),
        lambda: os.mkdir(None),
        lambda: os.mkdir(3),
    ):
        try:
            bad()
        except TypeError:
            pass
        else:
            raise AssertionError
    for bad in (lambda: open("a\0b", "w"), lambda: os.mkdir("a\0b"), lambda: open(root / "x", "wr")):
        try:
            bad()
        except ValueError:
            pass
        else:
            raise AssertionError


def test_the_warning_about_a_missing_encoding_names_the_caller(python: str, shim_env: dict[str, str]) -> None:
    code = "open('/dev/null')\n\nopen('/dev/null', 'w')\nopen('/dev/null', encoding='utf-8')\nopen('/dev/null', 'rb')"
    command = [python, "-X", "warn_default_encoding", "-c", code]
    ours = subprocess.run(command, env=shim_env, capture_output=True, text=True, check=True)
    stock = subprocess.run(command, env={"PATH": shim_env["PATH"]}, capture_output=True, text=True, check=True)
    assert "<string>:3: EncodingWarning" in ours.stderr
    assert [line for line in ours.stderr.splitlines() if "<string>" in line] == [
        line for line in stock.stderr.splitlines() if "<string>" in line
    ]


@pytest.mark.promise
@pytest.mark.fresh
def test_errors_cross_process_pools(root: Path):
    import pickle

    from services.common.tmp_redirect import (
        InvalidWorkflowId,
        SettingsError,
        TmpFallbackError,
        WorkspaceError,
        workflow,
    )

    caught: list[BaseException] = [SettingsError("NAME", "value", "something else")]
    for attempt in (lambda: open("/tmp/tmp-redirect-x", "w"), lambda: workflow(""), lambda: workflow("x").__enter__()):
        (root / "x").write_text("in the way") if not (root / "x").exists() else None
        try:
            attempt()
        except Exception as error:
            caught.append(error)
    assert [type(e) for e in caught] == [SettingsError, TmpFallbackError, InvalidWorkflowId, WorkspaceError]
    for error in caught:
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.args) == (type(error), str(error), error.args)
        assert vars(again) == vars(error)
    assert pickle.loads(pickle.dumps(caught[1])).filename == "/tmp/tmp-redirect-x"


@pytest.mark.promise
def test_a_violation_when_the_interpreter_ends(python: str, shim_env: dict[str, str]) -> None:
    code = (
        "import os, sys\n"
        "class Late:\n"
        "    def __init__(self): self.open, self.write = open, os.write\n"
        "    def __del__(self):\n"
        "        self.open('/dev/null', 'w').close()\n"
        "        try: self.open('/tmp/tmp-redirect-x', 'w')\n"
        "        except PermissionError as error: self.write(2, str(error).encode())\n"
        "sys.late = Late()\n"
    )
    done = subprocess.run([python, "-c", code], env=shim_env, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert not os.path.exists("/tmp/tmp-redirect-x")
    assert "refused" in done.stderr


@pytest.mark.promise
def test_a_python_that_is_called_by_a_shell_is_guarded(shim_env: dict[str, str]) -> None:
    done = subprocess.run(
        ["sh", "-c", f"cd /tmp && {sys.executable} -c 'open(\"tmp-redirect-x\", \"w\")'"],
        env=shim_env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "TmpFallbackError: [Errno 13] tmp_redirect refused open of '/tmp/tmp-redirect-x' in" in done.stderr
