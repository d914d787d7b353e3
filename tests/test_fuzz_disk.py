"""Whatever lies in a root: status and sweep end well, what is in use stays, and so does all that isn't ours."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.tmp_redirect import cli
from services.common.tmp_redirect.command_output import CONFIGURATION, FINDINGS, OK, USAGE
from services.common.tmp_redirect.lifecycle.holders import own_holder
from tests.fuzzing import SOAK, TRICKY, fuzz

OLD = 1_000_000_000  # seconds since the epoch
KINDS = ["lease", "purge", "pending", "failed", "over", "ours", "lease~lease", "", "Lease", "clock"]
HOLDERS = [
    *("", "h~b~n~1~1", "h~b~n~x~1", "h~b~n~٣~1", f"h~b~n~{'9' * 90}~1", "~~~~", "h~b~n~-1~1", "h~b~n~1", "=d800=~1"),
]
LABELS = ["", "~1", "~1~label", "~1~=110000=", "~1~=d800=", "~1~=1b=[31m", "~1~\udcff", "~1~a~b~c", "~\n", "~1~=a="]
LABELS += ["~1~failed=7e=x", "~1~over", "~1~=2e==2e==2f=beside", "~1~ours=7e==2f==2e==2e==2f==2e==2e==2f=beside"]
NAMES = [name for name in TRICKY if name not in ("", ".", "..") and not {"/", "\0", "\ud800"} & set(name)]
NAMES = [name for name in NAMES if len(os.fsencode(name)) < 200]
NAME = st.sampled_from(NAMES) | st.binary(min_size=1, max_size=8).map(os.fsdecode).filter(
    lambda name: name not in (".", "..") and not {"/", "\0"} & set(name)
)
MARK = st.tuples(*map(st.sampled_from, (KINDS, HOLDERS, LABELS))).map(lambda parts: "~".join(parts[:2]) + parts[2])
MARK = MARK.filter(lambda name: name not in ("", ".", "..")) | NAME
PLACE = st.sampled_from(
    ["{}", ".trash", ".leases", ".leases/{}", ".outside", ".outside/{}", ".leases/.outside/{}", "{}/tmp"]
)
ENTRY = st.tuples(PLACE, NAME, MARK, st.sampled_from(["file", "file", "directory", "link", "fifo"]), st.booleans())


@pytest.fixture
def around(no_settings: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, socket_dir: Path) -> Iterator[Path]:
    directory = tmp_path / "around"
    directory.mkdir()
    monkeypatch.setenv("TMP_REDIRECT_ROOT", str(directory / "workflows"))
    monkeypatch.setenv("TMP_REDIRECT_SOCKET_DIR", str(socket_dir))
    yield directory
    shutil.rmtree(directory)


def make(root: Path, place: str, name: str, mark: str, kind: str, *, old: bool) -> None:
    """One entry; nothing where another is in its way."""
    directory = root / place.format(name)
    with suppress(FileExistsError, NotADirectoryError):
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / mark
        if kind == "directory":
            path.mkdir()
        elif kind == "link":
            path.symlink_to(root.parent)
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            with path.open("xb") as file:
                file.write(b"{\0")
        if old:
            os.utime(path, (OLD, OLD), follow_symlinks=False)


def run(*arguments: str) -> tuple[int, Any]:
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        status = cli.main([*arguments, "--json"])
    assert "Traceback" not in err.getvalue()
    return status, json.loads(out.getvalue())


def users_files(root: Path) -> set[Path]:
    """What neither is in a place of ours nor in a workspace."""
    found = set()
    for path in root.parent.rglob("*"):
        names = path.relative_to(root.parent).parts[1:]
        if (
            names
            and names[0] not in (".trash", ".leases", ".outside")
            and "tmp" not in names[1:2]
            and not path.is_dir()
        ):
            found.add(path)
    return found


@given(entries=st.lists(ENTRY, max_size=10), everything=st.booleans())
@fuzz(30)
def test_a_root_with_anything_in_it(entries: list[Any], everything: bool, around: Path) -> None:
    root = around / "workflows"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for place, name, mark, kind, old in entries:
        make(root, place, name, mark, kind, old=old)
    unread = "lease~what nobody has written"  # counts until the TTL is over
    for workflow, lease in (("used", f"lease~{own_holder()}~1~fuzz"), ("unread", unread)):
        make(root, f"{workflow}/tmp", "", "file", "file", old=True)
        make(root, f".leases/{workflow}", "", lease, "file", old=False)
    (around / "beside").write_text("", encoding="utf-8")
    theirs = users_files(root)
    arguments = ["sweep", "--all"] if everything else ["sweep", "--older-than", "0"]

    status, shown = run("status")
    assert status == OK
    assert {"used", "unread"} <= {workspace["workflow"] for workspace in shown["workspaces"]}
    before = sorted(root.parent.rglob("*"))
    assert run(*arguments, "--dry-run")[0] in (OK, FINDINGS)
    assert sorted(root.parent.rglob("*")) == before
    assert run(*arguments)[0] in (OK, FINDINGS)
    assert users_files(root) == theirs
    assert (root / "used/tmp/file").exists() and (root / "unread/tmp/file").exists()
    assert run("status")[0] == OK
    if SOAK:
        run("sweep")


WORDS = [
    *("demo", "run", "doctor", "status", "sweep", "scan", "scan-logs", "install-site", "completion", "nonsense"),
    *("--", "-", "--json", "--root", "--root=", "--limit", "--watch", "--watch=nan", "--older-than", "--all"),
    *("--dry-run", "--mode", "--workflow", "--guard", "--format", "--exclude", "--allow", "--allow=/tmp/x"),
    *("--help", "-h", "--version", "--a", "--j", "0"),
]
# The others would go on with what they do.
HARMLESS = ("status", "sweep", "scan-logs", "run", "completion", "nonsense", "--json", "--")
WORD = st.sampled_from(WORDS) | st.sampled_from([word for word in TRICKY if "\0" not in word and "\ud800" not in word])


@given(command=st.sampled_from(HARMLESS), words=st.lists(WORD, max_size=4))
@fuzz(100)
def test_any_command_line(command: str, words: list[str], around: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from services.common.tmp_redirect import run as run_command

    monkeypatch.setattr(run_command.posix, "execve", lambda *_: 0)
    monkeypatch.setattr(run_command.signal, "signal", lambda *_: None)
    monkeypatch.chdir(around)
    (around / "workflows").mkdir(exist_ok=True)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    words = [word for word in words if word != "-" or command != "scan-logs"]  # which would wait for standard input
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as err:
        try:
            status = cli.main([command, *words])
        except SystemExit as ended:
            status = ended.code  # type: ignore[assignment]
    assert status in (OK, FINDINGS, USAGE, CONFIGURATION, 126, 127), (status, err.getvalue())
    assert "Traceback" not in err.getvalue()
