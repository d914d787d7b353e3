"""Whatever the functions that create get: they do what they do without the guard, or it refuses.

How a path may be spelled is the subject of test_path_forms; here it is what isn't a path, or hardly one, and what
stands beside it. Nothing raises another exception than without the guard, and nothing is made beside an allowed prefix.
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.tmp_redirect.guard import policy
from services.common.tmp_redirect.settings import SYSTEM_TEMP, Settings
from tests.fuzzing import TRICKY, fuzz

TOKEN = f"tmp-redirect-fuzz-{os.getpid()}"  # in the name of all that is made
LEVELS = 5  # up, at most: by a directory and two steps, and TRICKY has `../..`


class PathLike:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __fspath__(self) -> Any:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value

    def __repr__(self) -> str:
        return f"PathLike({self.value!r})"


KINDS = [str, str, str, os.fsencode, PathLike, lambda path: PathLike(os.fsencode(path)), Path]
KINDS += [lambda path: bytearray(os.fsencode(path)), lambda path: memoryview(os.fsencode(path)), lambda path: [path]]
# No descriptor that is open, `True` for one: the first of two attempts would close it.
NO_PATHS = [None, -1, 10**6, 2**70, 1.5, (), object, PathLike(1), PathLike(None), PathLike(ValueError("mine")), ""]
# The last name always has the token: nothing else is ever made or removed.
DIRECTORIES = [
    "/tmp/",
    "/var/tmp/",
    "//tmp/",
    "/tmp/./",
    "/usr/../tmp/",
    "tmp/",
    "",
    "./",
    "../",
    "/tmp/<stage>/",
    *["<home>/"] * 3,  # where much is made
]
DIRECTORIES += [
    f"/tmp/<stage>/{name}/" for name in ("allowed", "allowedx", "out", "up", "loop", "chain", "missing", "file")
]
STEPS = [
    "allowed/",
    "allowed/../",
    "../",
    "./",
    "/",
    "allowedx/../allowed/",
    "up/",
    "<stage>/",
    *(f"{name}/" for name in TRICKY),
]
FLAGS = [
    os.O_CREAT | os.O_WRONLY,
    os.O_CREAT | os.O_EXCL | os.O_RDWR,
    os.O_CREAT,
    os.O_RDONLY,
    -1,
    2**40,
    None,
    "w",
    1.0,
]
MODES = [
    *["w", "a", "x", "w+b", "wb"] * 3,
    "r",
    "r+",
    "rw",
    "",
    "W",
    "wx",
    "U",
    None,
    b"w",
    ["w"],
    1,
    "w" * 5000,
    "\ud800",
]
FDS = [*["none"] * 9, "home", "stage", "closed", -1, -100, 2**31, 2**70, True, None, "0", 1.5]

PATHS = st.tuples(
    st.sampled_from(DIRECTORIES),
    st.lists(st.sampled_from(STEPS), max_size=2).map("".join),
    st.sampled_from([name.replace("/", "") for name in TRICKY]),
    st.sampled_from(["", "", "", "/", "/."]),
    st.sampled_from(KINDS),
)


def operations(source: str) -> dict[str, Any]:
    import io
    import posix
    import sqlite3

    return {
        "open": lambda path, mode, flags, fd: open(path, mode).close(),
        "io.open": lambda path, mode, flags, fd: io.open(file=path, mode=mode).close(),  # noqa: UP020
        "os.open": lambda path, mode, flags, fd: posix.close(os.open(path, flags, 0o600, **fd)),
        "os.mkdir": lambda path, mode, flags, fd: os.mkdir(path, 0o700, **fd),
        "os.mkfifo": lambda path, mode, flags, fd: os.mkfifo(path, **fd),
        "os.mknod": lambda path, mode, flags, fd: os.mknod(path, **fd),
        "os.symlink": lambda path, mode, flags, fd: os.symlink("nowhere", path, **fd),
        "os.link": lambda path, mode, flags, fd: os.link(source, path, **_dst(fd)),
        "os.rename": lambda path, mode, flags, fd: os.rename(source, path, **_dst(fd)),
        "os.replace": lambda path, mode, flags, fd: os.replace(source, path, **_dst(fd)),
        "sqlite3": lambda path, mode, flags, fd: sqlite3.connect(path).close(),
    }


def _dst(fd: dict[str, Any]) -> dict[str, Any]:
    return {f"dst_{name}": value for name, value in fd.items()}


class Ground:
    """A stage in system temp and a directory elsewhere, with links in, out, up and round; `source` may be moved."""

    def __init__(self, home: str) -> None:
        import posix  # its functions are not guarded

        self.posix, self.home, self.stage, self.source = posix, home, f"/tmp/{TOKEN}", f"{home}/source"
        for path in (self.stage, *(f"{self.stage}/{name}" for name in ("allowed", "allowedx")), f"{home}/{TOKEN}"):
            with suppress(FileExistsError):
                posix.mkdir(path)
        links = {"out": home, "up": "..", "loop": "loop", "file": "/etc/passwd", "chain": "chain0"}
        links |= {f"chain{number}": f"chain{number + 1}" for number in range(50)}
        for name, text in links.items():
            posix.symlink(text, f"{self.stage}/{name}")
        posix.close(posix.open(self.source, os.O_CREAT | os.O_WRONLY))
        self.fds = {name: posix.open(path, os.O_RDONLY) for name, path in (("home", home), ("stage", self.stage))}

    def made(self) -> set[str]:
        """What has been made in system temp and isn't below what is allowed."""
        found = set()
        for directory in ("/tmp", "/var/tmp", self.stage, f"{self.stage}/allowedx"):
            found |= {f"{directory}/{name}" for name in self.posix.listdir(directory) if TOKEN in name}
        return found

    def clean(self, before: set[str]) -> None:
        """Remove all that has the token in its name and wasn't there before."""
        above = [self.home.rsplit("/", levels)[0] for levels in range(1, LEVELS + 1)]
        places = (self.home, f"{self.home}/{TOKEN}", *above, f"{self.stage}/allowed", "/", "/var", "/etc", "/usr")
        beside = {f"{place}/{name}" for place in places for name in self.posix.listdir(place) if TOKEN in name}
        for path in (self.made() | beside) - before - {f"{self.home}/{TOKEN}"}:
            (self.posix.rmdir if os.path.isdir(path) and not os.path.islink(path) else self.posix.unlink)(path)
        self.posix.close(self.posix.open(self.source, os.O_CREAT | os.O_WRONLY))

    def remove(self) -> None:
        import shutil

        for descriptor in self.fds.values():
            self.posix.close(descriptor)
        shutil.rmtree(self.stage)


def attempts() -> None:
    """In a process with the shim."""
    from services.common.tmp_redirect import TmpFallbackError, install, is_active, report, uninstall

    ground = Ground(os.getcwd())
    shim = is_active()
    before = ground.made()
    seen = dict.fromkeys(("refused", "made", "failed"), 0)

    def attempt(operation: str, path: Any, mode: Any, flags: Any, fd: Any) -> BaseException | None:
        options = (
            {} if fd == "none" else {"dir_fd": ground.fds.get(fd, 999) if fd in ("home", "stage", "closed") else fd}
        )
        try:
            operations(ground.source)[operation](path, mode, flags, options)
        except Exception as error:
            return error
        return None

    @given(
        st.sampled_from(list(operations(""))),
        PATHS | st.sampled_from(NO_PATHS),
        *map(st.sampled_from, (MODES, FLAGS, FDS)),
    )
    @fuzz(400)
    def as_without(operation: str, parts: Any, mode: Any, flags: Any, fd: Any) -> None:
        path = parts
        if isinstance(parts, tuple) and parts:
            directory, steps, name, end, kind = parts
            text = (directory + steps).replace("<stage>", TOKEN).replace("<home>", ground.home) + TOKEN + name + end
            try:
                path = kind(text)
            except UnicodeEncodeError:
                path = text
        uninstall()
        stock = attempt(operation, path, mode, flags, fd)
        in_temp = ground.made() - before
        ground.clean(before)
        if shim:
            install()
        total = report().total
        ours = attempt(operation, path, mode, flags, fd)
        made = ground.made() - before
        ground.clean(before)
        assert not made, (ours, made)
        if isinstance(ours, TmpFallbackError):
            seen["refused"] += 1
            assert in_temp or stock is not None
            assert report().total == total + 1
        else:
            seen["failed" if ours else "made"] += 1
            assert not in_temp
            if stock is not None and type(ours) is not type(stock):  # of two wrong arguments, either may be told
                uninstall()
                stock = attempt(operation, path, "r", os.O_RDONLY, "none")
                ground.clean(before)
            assert type(ours) is type(stock), (ours, stock)
            assert report().total == total

    try:
        as_without()
        print(seen)
        assert min(seen.values()) > 10, seen
    finally:
        ground.remove()


@pytest.fixture
def home() -> Iterator[Path]:
    """So far below the user's own that what is made there goes with it."""
    above = Path.home() / f".tmp-redirect-{uuid.uuid4().hex[:8]}"
    home = above.joinpath(*map(str, range(1, LEVELS)), "home")
    home.mkdir(parents=True)
    yield home
    import shutil

    shutil.rmtree(above)


@pytest.mark.promise
def test_what_is_hardly_a_path(shim_env: dict[str, str], root: Path, home: Path) -> None:
    env = {**shim_env, "SOAK": os.environ.get("SOAK", ""), "HYPOTHESIS_STORAGE_DIRECTORY": str(root / ".hypothesis")}
    env["PYTHONDONTWRITEBYTECODE"] = "1"  # the shim's own tree is in system temp here
    env["PYTHONPATH"] += f":{Path(__file__).parents[1]}"
    program = "import os\nfrom tests import test_fuzz_paths as test\n"
    program += "os.environ['TMP_REDIRECT_ALLOW'] = f'/tmp/{test.TOKEN}/allowed'\ntest.attempts()"
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, cwd=home, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-8000:]


@pytest.mark.parametrize("leads_to", [*SYSTEM_TEMP, "/", "/var", "/proc/self/root/var/tmp"])
def test_a_link_does_not_allow_all_of_system_temp(
    leads_to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A root, or an allowed prefix, may be a link; not one to system temp itself, or to what holds it."""
    link = tmp_path / "link"
    link.symlink_to(leads_to)
    (tmp_path / "inner").mkdir()
    for variable in ("TMP_REDIRECT_ROOT", "TMP_REDIRECT_ALLOW"):
        monkeypatch.setattr(policy, "current", lambda value=link, name=variable: Settings({name: str(value)}))
        assert not policy._is_allowed(f"/tmp/{TOKEN}")
        assert not policy._is_allowed(f"/var/tmp/{TOKEN}")
        assert policy._is_allowed(f"{link}/x")
        other = tmp_path / f"other-{variable}"
        other.symlink_to("inner")
        monkeypatch.setattr(policy, "current", lambda value=other, name=variable: Settings({name: str(value)}))
        assert policy._is_allowed(f"{tmp_path}/inner/x")
