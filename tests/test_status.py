"""`tmp-redirect status` on trees that each test makes, mostly in a process of its own; it may change none of them."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from services.common.tmp_redirect import shown
from services.common.tmp_redirect.lifecycle import status, status_command, sweep
from services.common.tmp_redirect.settings import Settings
from tests.conftest import SYSTEM_TEMP
from tests.test_sweep import DAY, ELSEWHERE, as_nobody, listing, mark, settings, user_of, workspace  # noqa: F401
from tests.test_workspace import open_up

COMMAND = [sys.executable, "-m", "services.common.tmp_redirect", "status"]
Run = Callable[..., "subprocess.CompletedProcess[str]"]
Read = Callable[..., dict[str, Any]]


@pytest.fixture
def run(env: dict[str, str], root: Path) -> Run:
    """Runs the command in a process of its own, which must not change the root."""

    def run(*arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        before = listing(root)
        done = subprocess.run(
            [*COMMAND, *map(str, arguments)], env=env | more, capture_output=True, text=True, timeout=60, check=False
        )
        assert listing(root) == before
        return done

    return run


@pytest.fixture
def read(run: Run) -> Read:
    """Runs the command, and returns what it says; the workspaces by the workflow or service."""

    def read(*arguments: str | Path, **more: str) -> dict[str, Any]:
        done = run("--json", *arguments, **more)
        assert (done.returncode, done.stderr) == (0, "")
        result: dict[str, Any] = json.loads(done.stdout)
        result["of"] = {entry["workflow"] or entry["service"]: entry for entry in result["workspaces"]}
        assert len(result["of"]) == len(result["workspaces"])
        return result

    return read


def rows(output: str) -> list[list[str]]:
    """The cells of the table that rich has printed, without its heading."""
    lines = [line for line in output.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_nothing_yet(run: Run, read: Read, root: Path) -> None:
    (root / "plain").mkdir()
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"no workspaces\n{root}/.trash: nothing in the trash\n")
    result = read()
    assert result["workspaces"] == []
    assert result["totals"] == {"count": 0, "bytes": 0, "inodes": 0}
    assert result["trash"] == {"path": f"{root}/.trash", "count": 0, "bytes": 0, "oldest": None}
    assert (result["root"], result["ttl"], result["keep"]) == (str(root), DAY, "all")


def test_what_each_workspace_takes(read: Read, root: Path) -> None:
    directory = workspace(root, "a", "x", "deep/er/y")
    (directory / "large").write_bytes(b"x" * 100_000)
    workspace(root, ".outside/svc")
    (root / ".cache" / "numba" / "tmp").mkdir(parents=True)
    result = read()
    assert set(result["of"]) == {"a", "svc"}
    entry = result["of"]["a"]
    everything = [directory, *directory.rglob("*")]
    assert (entry["path"], entry["workflow"], entry["service"]) == (str(directory), "a", None)
    assert entry["inodes"] == len(everything) == 6
    assert entry["bytes"] == sum(os.lstat(path).st_blocks * 512 for path in everything) > 100_000
    assert entry["newest"] == max(os.lstat(path).st_ctime for path in everything)
    assert (result["of"]["svc"]["workflow"], result["of"]["svc"]["path"]) == (None, f"{root}/.outside/svc/tmp")
    assert result["totals"]["count"] == 2
    assert result["totals"]["inodes"] == 7
    assert result["totals"]["bytes"] == sum(entry["bytes"] for entry in result["workspaces"])


def test_who_uses_it(read: Read, env: dict[str, str], root: Path) -> None:
    workspace(root, "here", "x")
    workspace(root, "elsewhere", "x")
    began = mark(root, "elsewhere", f"{ELSEWHERE}.cut=28=1=29=", 60).stat().st_mtime
    mark(root, "elsewhere", "not ours")
    mark(root, "elsewhere", "lease~nonsense")
    with user_of(env, "here") as child:
        of = read()["of"]
        (lease,) = of["here"]["leases"]
        assert (lease["pid"], lease["alive"], lease["counts"]) == (child.pid, True, True)
        assert lease["task"] == "a task"
        assert abs(lease["since"] - time.time()) < 60
        assert of["here"]["kept"] == "in use"
        assert of["elsewhere"]["leases"] == [
            {"host": "node-7", "pid": 42, "task": "video.cut(1)", "since": began, "alive": None, "counts": True}
        ]
        assert of["elsewhere"]["kept"] == "in use"
        child.send_signal(signal.SIGKILL)
        child.wait()
        here = read()["of"]["here"]
        assert here["leases"] == [{**lease, "alive": False, "counts": False}]
        assert here["kind"] == "young"


@pytest.mark.parametrize(
    ("marks", "ttl", "kind", "kept"),
    [
        ([], "24h", "young", "used 0s ago: swept after 1d"),
        ([], "0", "due", "due"),
        ([(ELSEWHERE, 60), ("over", 0)], "24h", "in use", "in use"),
        ([(ELSEWHERE, 61)], "60", "young", "used 0s ago: swept after 1m"),
        ([("pending~task-1", 60), ("failed~root-1", 0)], "24h", "a task has not ended", "a task has not ended"),
        ([("pending~task-1", 61)], "60", "young", "used 0s ago: swept after 1m"),
        ([("failed~root-1", 0)], "90m", "a task failed", "a task failed: swept after 1h 30m"),
        ([("failed~root-1", 0)], "0", "due", "due"),
        ([("failed~1", 0), ("over", 0)], "24h", "a task failed", "a task failed: swept after 1d"),
        ([("over", 0)], "24h", "ended while in use", "ended while in use: the next sweep removes it"),
    ],
)  # fmt: skip
def test_why_it_is_kept(
    settings: Settings,  # noqa: F811
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    marks: list[tuple[str, float]],
    ttl: str,
    kind: str,
    kept: str,
) -> None:
    directory = workspace(root, "a", "x")
    settings = Settings({"TMP_REDIRECT_ROOT": str(root), "TMP_REDIRECT_TTL": ttl})
    for name, age in marks:
        mark(root, "a", name, age)
    newest = max(os.lstat(path).st_ctime for path in (directory, directory / "x"))
    monkeypatch.setattr(status, "time", SimpleNamespace(time=lambda: newest))
    (found,) = status.workspaces(settings)
    assert (found.kind, found.kept) == (kind, kept)
    assert found.not_begun == [name[len("pending~") :] for name, age in marks if "pending" in name and age == 60]
    assert found.failed == [name[len("failed~") :] for name, _ in marks if "failed" in name]
    assert found.over is any(name == "over" for name, _ in marks)


@pytest.mark.parametrize("keep", ["none", "all"])
def test_a_failure_keeps_nothing_where_keep_says_so(keep: str, root: Path) -> None:
    """As the sweep sees it."""
    workspace(root, "a", "x")
    mark(root, "a", "failed~1")
    mark(root, "a", "over")
    settings = Settings({"TMP_REDIRECT_ROOT": str(root), "TMP_REDIRECT_KEEP": keep})  # noqa: F811
    assert [found.kind for found in status.workspaces(settings)] == ["ended while in use"]
    assert sweep.sweep(settings, dry_run=True).removed == [f"{root}/a/tmp"]


def test_leases_without_a_workspace(read: Read, root: Path) -> None:
    mark(root, "to-come", "pending~task-1")
    mark(root, "was-there", "failed~root-1")
    (root / ".leases" / "empty").mkdir()
    of = read()["of"]
    assert {name: (entry["kept"], entry["inodes"]) for name, entry in of.items()} == {
        "to-come": ("a task has not ended", 0),
        "was-there": ("due", 0),
    }


def test_trash_and_space(read: Read, root: Path) -> None:
    (root / ".trash" / "left" / "deep").mkdir(parents=True)
    (root / ".trash" / "file").write_bytes(b"x" * 10_000)
    result = read()
    assert result["trash"]["count"] == 2
    assert result["trash"]["bytes"] > 10_000
    assert result["trash"]["oldest"] == (root / ".trash" / "left").stat().st_ctime
    there = os.statvfs(root)
    assert result["space"]["all_bytes"] == there.f_blocks * there.f_frsize
    assert 0 < result["space"]["free_bytes"] <= result["space"]["all_bytes"]
    assert result["space"]["all_inodes"] == (there.f_files or None)


def test_leftovers_in_system_temp(read: Read, run: Run, home: Path) -> None:
    left = [Path("/tmp/tmpabcdefgh"), Path("/tmp/pymp-abcdefgh"), Path("/var/tmp/wgunicorn-1"), Path("/tmp/mine")]
    root_there = Path("/tmp/tmp-redirect-status")
    try:
        (root_there / "workflows").mkdir(parents=True)
        here, there = (
            {pile["path"]: pile["count"] for pile in read("--root", directory)["system_temp"]}
            for directory in (home, root_there / "workflows")
        )
        assert there == {**here, "/tmp": here["/tmp"] - 1}
        before = {pile["path"]: pile["count"] for pile in read("--root", root_there / "workflows")["system_temp"]}
        assert set(before) == {os.path.realpath(path) for path in SYSTEM_TEMP}
        for path in left:
            path.touch()
        after = read("--root", root_there / "workflows")["system_temp"]
        counts = {pile["path"]: pile["count"] - before[pile["path"]] for pile in after}
        assert counts == {"/tmp": 2, "/var/tmp": 1}
        for path in left:
            path.unlink()
        left[0].mkdir()
        (left[0] / "x").write_bytes(b"x" * 100_000)
        (tmp,) = [pile for pile in read()["system_temp"] if pile["path"] == "/tmp"]
        assert tmp["bytes"] > 100_000
        assert 0 < tmp["oldest"] <= time.time()
        assert " left over, " in run().stdout
    finally:
        for path in left:
            subprocess.run(["rm", "-rf", path, root_there], check=True)


def test_the_largest_come_first(run: Run, root: Path) -> None:
    for number in range(1, 31):
        (workspace(root, f"wf-{number}") / "x").write_bytes(b"x" * number * 10_000)
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    shown_rows = rows(done.stdout)
    assert [row[0] for row in shown_rows] == [f"wf-{number}" for number in range(30, 10, -1)]
    bars = [row[2] for row in shown_rows]
    assert bars[0] == "█" * 12
    assert bars[10].startswith("█" * 7) and len(bars[10]) < 10
    lines = done.stdout.splitlines()
    assert any(line.startswith("and 10 more, which take ") for line in lines)
    assert any(line.startswith("30 workspaces: ") and line.endswith("30 used less than 1d ago") for line in lines)
    assert [row[0] for row in rows(run("--limit", "2").stdout)] == ["wf-30", "wf-29"]
    assert len(rows(run("--limit", "0").stdout)) == 30
    assert "more, which" not in run("--limit", "0").stdout


@pytest.mark.parametrize("with_rich", [True, False])
def test_hostile_names(
    env: dict[str, str],
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    with_rich: bool,
) -> None:
    names = {
        "[red]a": "[red]a",
        "[bold]": "[bold]",
        ":smile:": ":smile:",
        "a\u202eb": "a\\u202eb",
        "工作流": "工作流",
        "a\u2028b": "a\\u2028b",
    }
    for name in names:
        workspace(root, name, "x")
    workspace(root, "label")
    mark(root, "label", f"{ELSEWHERE}=1b=[31m")
    mark(root, "label\u202e", "pending~x")
    os.mkdir(os.fsencode(root) + b"/undecodable-\xff")
    os.mkdir(os.fsencode(root) + b"/undecodable-\xff/tmp")
    os.mkdir(os.fsencode(root) + b"/control-\x1b")
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(status_command, "has_rich", lambda: with_rich)
    options = SimpleNamespace(root=None, json=False, limit=0, watch=None)
    assert status_command.run(options) == 0  # type: ignore[arg-type]
    output = capsys.readouterr().out
    assert all(char.isprintable() or char == "\n" for char in output)
    first = [row[0] for row in rows(output)] if with_rich else [line.split("  ")[0] for line in output.splitlines()]
    assert set(names.values()) <= set(first)
    assert "label\\u202e" in first
    assert "video\\x1b[31m" in output
    assert "control" not in output and "undecodable" not in output  # they can't be ids


def test_without_rich_columns_are_aligned(
    env: dict[str, str],
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    workspace(root, "a", "x")
    workspace(root, "工作流-视频", "x", "y", "z")
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(status_command, "has_rich", lambda: False)
    options = SimpleNamespace(root=None, json=False, limit=0, watch=None)
    assert status_command.run(options) == 0  # type: ignore[arg-type]
    heading, first, second, *_ = capsys.readouterr().out.splitlines()
    assert heading.split() == ["workflow", "size", "inodes", "last", "use", "used", "by", "kept"]
    assert first.startswith("工作流-视频 ")
    assert second.startswith("a           ")
    assert heading.index("kept") == second.index("used 0s ago") == first.index("used 0s ago") + 5  # as many are wide


def test_ten_thousand_within_seconds(env: dict[str, str], root: Path) -> None:
    for number in range(10_000):
        directory = root / f"wf-{number}" / "tmp"
        directory.mkdir(parents=True)
        (directory / "x").write_bytes(b"x" * (200_000 if number == 5000 else 10))
    before = listing(root)
    began = time.monotonic()
    done = subprocess.run(COMMAND, env=env, capture_output=True, text=True, check=True)
    as_json = subprocess.run([*COMMAND, "--json"], env=env, capture_output=True, text=True, check=True)
    assert time.monotonic() - began < 30  # about three on a machine that does nothing else
    assert listing(root) == before
    assert rows(done.stdout)[0][0] == "wf-5000"
    assert "and 9,980 more, which take " in done.stdout
    assert "10,000 workspaces: " in done.stdout
    found = json.loads(as_json.stdout)
    assert len(found["workspaces"]) == found["totals"]["count"] == 10_000
    assert found["totals"]["inodes"] == 20_000


def test_workspaces_come_one_at_a_time(settings: Settings, root: Path) -> None:  # noqa: F811
    for number in range(3):
        workspace(root, f"wf-{number}", "x")
    found = status.workspaces(settings)
    first = next(found)
    for number in range(3):
        subprocess.run(["rm", "-r", root / f"wf-{number}"], check=True)
    assert first.inodes == 2
    assert list(found) == []


def test_what_can_not_be_read_says_so(env: dict[str, str], root: Path) -> None:
    open_up(root)
    workspace(root, "tmp-hidden", "x").chmod(0o700)
    workspace(root, "all-hidden", "x").parent.chmod(0o700)
    workspace(root, "partly", "x", "deep/y")
    (root / "partly" / "tmp" / "deep").chmod(0o700)
    workspace(root, "leases-hidden", "x")
    mark(root, "leases-hidden", ELSEWHERE).parent.chmod(0o700)
    done = as_nobody(env, "status", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    of = {entry["workflow"]: entry for entry in json.loads(done.stdout)["workspaces"]}
    for name in ("all-hidden", "leases-hidden"):
        assert (of[name]["kind"], of[name]["kept"]) == ("unreadable", "can't be read: Permission denied")
    assert of["leases-hidden"]["inodes"] == 2
    assert (of["partly"]["inodes"], of["partly"]["unread"]) == (3, 1)
    assert (of["tmp-hidden"]["inodes"], of["tmp-hidden"]["unread"]) == (1, 1)


@pytest.mark.parametrize("name", [".leases", ".outside"])
def test_no_link_is_followed(read: Read, root: Path, tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    workspace(elsewhere, "svc", "precious")
    (root / name).symlink_to(elsewhere)
    (root / "link").symlink_to(elsewhere / "svc")
    (root / "linked").mkdir()
    (root / "linked" / "tmp").symlink_to(elsewhere)
    of = read()["of"]
    assert set(of) == {"linked"}
    assert of["linked"]["inodes"] == 1
    assert of["linked"]["kind"] == ("unreadable" if name == ".leases" else "young")


@pytest.mark.parametrize("mode", ["off", "warn", "enforce"])
def test_the_shim_may_be_on_or_off(read: Read, root: Path, mode: str) -> None:
    workspace(root, "a", "x")
    assert set(read(TMP_REDIRECT=mode)["of"]) == {"a"}


def test_a_full_or_read_only_root_can_be_looked_at(env: dict[str, str], read: Read, root: Path) -> None:
    workspace(root, "a", "x")
    assert set(read(TMP_REDIRECT_MIN_FREE="9999T")["of"]) == {"a"}
    open_up(root)
    root.chmod(0o555)
    done = as_nobody(env, "status", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert [entry["workflow"] for entry in json.loads(done.stdout)["workspaces"]] == ["a"]


@pytest.mark.parametrize(
    ("arguments", "more", "status", "said"),
    [
        (["--watch"], {}, 2, "tmp-redirect status: --watch needs a terminal, and doesn't go with --json"),
        (["--watch", "--json"], {}, 2, "tmp-redirect status: --watch needs a terminal, and doesn't go with --json"),
        (["--watch", "0"], {}, 2, "argument --watch: '0' is not a number of seconds from 0.1 to 86400"),
        (["--watch", "nan"], {}, 2, "argument --watch: 'nan' is not a number of seconds from 0.1 to 86400"),
        (["--watch", "soon"], {}, 2, "argument --watch: 'soon' is not a number of seconds"),
        (["--limit", "-1"], {}, 2, "argument --limit: '-1' is not a whole number"),
        (["--limit", "all"], {}, 2, "argument --limit: 'all' is not a whole number"),
        (["more"], {}, 2, "unrecognized arguments: more"),
        (["--root", "/nope"], {}, 78, "tmp-redirect status: the root /nope doesn't exist; mount the shared volume"),
        (["--root", "nope"], {}, 78, "/nope doesn't exist; mount the shared volume there"),
        (["--root", "/dev/null"], {}, 78, "the root can't be used: /dev/null is not a directory"),
        ([], {"TMP_REDIRECT_KEEP": "some"}, 78, "TMP_REDIRECT_KEEP='some' is not allowed: one of all, failed, none"),
    ],
)
def test_nonsense_is_said_in_one_line(
    run: Run, arguments: list[str], more: dict[str, str], status: int, said: str
) -> None:
    done = run(*arguments, **more)
    assert (done.returncode, done.stdout) == (status, "")
    assert "Traceback" not in done.stderr
    assert said in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("arguments", [["--limit", "0"], ["--json"]])
def test_head_may_end_early(env: dict[str, str], root: Path, arguments: list[str]) -> None:
    for number in range(1000):
        (root / f"{number}-{'x' * 200}" / "tmp").mkdir(parents=True)
    with subprocess.Popen([*COMMAND, *arguments], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout and child.stderr
        assert child.stdout.readline()
        child.stdout.close()
        assert child.stderr.read() == b""
    assert child.returncode == 0


def test_an_encoding_that_knows_no_bars(run: Run, root: Path) -> None:
    workspace(root, "工作流", "x")
    done = run(PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, "")
    assert "############" in done.stdout and "\\u5de5" in done.stdout


def test_watch_shows_what_changes_until_ctrl_c(env: dict[str, str], root: Path) -> None:
    for number in range(50):
        workspace(root, f"first-{number}", "x")
    above, below = pty.openpty()
    seen = b""

    def wait_for(text: bytes) -> None:
        nonlocal seen
        deadline = time.monotonic() + 30
        while text not in seen:
            assert time.monotonic() < deadline, seen
            seen += os.read(above, 2**16)

    try:
        with subprocess.Popen(
            [*COMMAND, "--watch", "0.1"], env={**env, "TERM": "xterm", "LINES": "30", "COLUMNS": "120"},
            stdout=below, stderr=subprocess.PIPE,
        ) as child:  # fmt: skip
            wait_for(b"first-")
            wait_for(b"TMP_REDIRECT_TTL=1d")  # what is below the table fits the screen, too
            workspace(root, "second", *(f"{number}/x" for number in range(300)))
            wait_for(b"second")
            child.send_signal(signal.SIGINT)
            assert child.stderr and child.stderr.read() == b""
        assert child.returncode == 0
    finally:
        os.close(above)
        os.close(below)


def test_watch_without_rich(
    env: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(status_command, "has_rich", lambda: False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    options = SimpleNamespace(root=None, json=False, limit=0, watch=2.0)
    assert status_command.run(options) == 2  # type: ignore[arg-type]
    assert capsys.readouterr().err == "tmp-redirect status: --watch needs rich: pip install 'rich>=13'\n"


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 KiB"), (1023, "1.0 KiB"), (2**20, "1.0 MiB"), (150 * 2**20, "150 MiB")],
)
def test_sizes(number: int, said: str) -> None:
    assert shown.size(number) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-5, "0s"), (0, "0s"), (59.9, "59s"), (60, "1m"), (5400, "1h 30m"), (86400, "1d"), (90061, "1d 1h")],
)
def test_ages(seconds: float, said: str) -> None:
    assert shown.age(seconds) == said


def test_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(encoding="utf-8"))
    assert [shown.bar(part, 8 * 12) for part in (0, 1, 9, 96)] == ["", "▏", "█▏", "█" * 12]
    assert shown.bar(1, 10**9) == "▏"
    assert shown.bar(0, 0) == ""
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(encoding="ascii"))
    assert [shown.bar(part, 8 * 12) for part in (0, 1, 9, 96)] == ["", "#", "##", "#" * 12]
