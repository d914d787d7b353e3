"""The simulation of benchmarks/simulate.py: its file system against the real one, its times against arithmetic."""

from __future__ import annotations

import errno
import os
import re
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.simulation import groups, load, sweeps
from benchmarks.simulation.operations import (
    ROOT,
    SITUATIONS,
    Modelled,
    Real,
    Situation,
    on_model,
    on_real,
    paths,
    play,
)
from benchmarks.simulation.recorder import HOLDER, Recorder
from benchmarks.simulation.server import Model
from benchmarks.simulation.system import Instead, System
from benchmarks.simulation.worker import Task
from services.common.tmp_redirect.lifecycle import leases
from services.common.tmp_redirect.lifecycle import sweep as sweep_module
from services.common.tmp_redirect.lifecycle.sweep import Sweep, sweep
from services.common.tmp_redirect.settings import current
from tests.conftest import REPOSITORY

STEADY = Model(spread=0.0)
FAILED, OURS = "failed~wf", "ours~gateway~0~0~1~1~1"
FAILS = Situation("", "failed", (), state="FAILURE")
EVERY = [*SITUATIONS, Situation("none", "none", ())]


def plain(tree: list[str]) -> list[str]:
    """Without the numbers of processes."""
    return sorted(HOLDER.sub("~holder", path) for path in tree)


def in_any_order(calls: dict[str, list[str]]) -> dict[str, list[str]]:
    """A directory is listed in an order of the file system's own."""
    return {step: sorted(found) for step, found in calls.items()}


@pytest.mark.parametrize("situation", EVERY, ids=lambda each: f"{each.name}-{each.keep}")
def test_the_protocol_does_the_same_on_both_file_systems(
    situation: Situation, capfd: pytest.CaptureFixture[str]
) -> None:
    with on_real(situation.keep) as real:
        play(situation, real)
        tree = real.tree()
    with on_model(situation.keep, STEADY) as model:
        play(situation, model)
    assert {step: asked.changes for step, asked in model.asked.items()} == real.changes
    order = in_any_order if situation.files else dict
    assert order(model.calls) == order(real.calls)
    assert plain(model.tree()) == plain(tree)
    assert capfd.readouterr().err == "", "the integration says it when it can't do what comes after a task"
    assert situation.keep == "all" or sum(map(len, real.calls.values())) > 40


def test_a_sweep_does_the_same_on_both_file_systems() -> None:
    """Of what is too young, then of what is due: the real one can't make files that are old."""
    with on_real("failed") as real:
        on_disk = swept(real)
    with on_model("failed", STEADY) as model:
        assert swept(model) == on_disk
    assert [outcome for _, outcome, _ in on_disk] == [(0, {"young": 1}, []), (1, {}, [])]
    assert on_disk[1][2] == [".leases", ".trash"]


def swept(side: Real | Modelled) -> list[tuple[object, ...]]:
    """The calls of two sweeps, what they say they have done, and what is left."""
    play(Situation("", "failed", (), state="FAILURE", files=1), side)
    done = []
    for older_than in (60, -120):
        found = Sweep()
        side.step("sweep", lambda _: sweep(current(), older_than, done=found), Task("", ""))
        outcome = len(found.removed), dict(found.kept), found.deferred
        done.append((side.calls["sweep"], outcome, plain(side.tree())))
    return done


PLAY = """
import os
import sys
from benchmarks.simulation.operations import SITUATIONS, Real, play
from benchmarks.simulation.system import Instead
for number, situation in enumerate(SITUATIONS):
    side = Real(f"{sys.argv[1]}/root-{number}")
    with Instead(side.recorder, situation.keep, side.root):
        play(situation, side)
    print(side.root, *(call.split(" ")[0] for calls in side.calls.values() for call in calls))
"""
KINDS = {"openat": "open", "mkdirat": "mkdir", "unlinkat": "remove", "fstatfs": "statvfs", "renameat": "rename"}
SAME = {"create": "open", "unlink": "remove", "rmdir": "remove", "renameat2": "rename", "mkdir": "mkdir"}


def test_the_kernel_sees_the_same_calls(strace: tuple[str, ...], tmp_path: Path) -> None:
    command = [*strace, "-e", f"trace={','.join((*KINDS, 'unlink,rmdir,rename,renameat2,mkdir'))}", sys.executable]
    for number in range(len(SITUATIONS)):
        (tmp_path / f"root-{number}").mkdir()
    done = subprocess.run([*command, "-c", PLAY, tmp_path], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    trace = (tmp_path / "trace").read_text().splitlines()
    for situation, line in zip(SITUATIONS, done.stdout.splitlines(), strict=True):
        root, *calls = line.split()
        noted = Counter(SAME.get(call, call) for call in [*calls, *["open"] * situation.files])
        names = [found[1] for each in trace if root in each and (found := re.search(r"(\w+)\(", each))]
        seen = Counter(KINDS.get(name) or SAME.get(name, name) for name in names)
        assert Counter({kind: noted[kind] for kind in KINDS.values()}) == seen
    assert "rename" in done.stdout


@pytest.mark.parametrize(("round_trip", "commit"), [(0.0005, 0.002), (0.01, 0.0), (0.0, 0.01)])
def test_who_is_alone_waits_for_the_latencies(round_trip: float, commit: float) -> None:
    model = Model(round_trip, commit, operations=10_000, changes=int(1 / commit) if commit else 10**9, spread=0.0)
    with on_model("failed", model) as side:
        play(SITUATIONS[0], side)
    for asked in side.asked.values():
        expected = asked.calls.total() * (round_trip + 1 / 10_000) + asked.changes * commit
        assert asked.seconds == pytest.approx(expected, abs=1e-6)
    assert side.asked["task 2"].changes == 4


@pytest.mark.parametrize(("changes", "one_by_one", "seconds"), [(100, 0, 2.0), (100_000, 0, 0.013), (100_000, 1, 2.02)])
def test_a_server_serves_no_more_than_it_can(changes: int, one_by_one: int, seconds: float) -> None:
    """200 directories in one, at once."""
    model = Model(0.001, 0.01, 10**6, changes, spread=0.0, one_by_one=one_by_one)
    system = System(ROOT, model)
    done = []
    with Instead(system, "failed", ROOT):

        def make(number: int) -> None:
            system.mkdir(f"{ROOT}/{number}")
            done.append(system.process.now)

        for number in range(200):
            system.begin(0.0, system.new_process(f"host-{number}"), make, number)
        system.clock.run()
    assert max(done) == pytest.approx(seconds, rel=0.05)
    assert system.server.calls == {"ACCESS": 200, "GETATTR": 200, "CREATE": 200}


def test_hosts_believe_what_they_have_seen() -> None:
    """As tests/test_nfs.py::test_clients_believe_what_they_have_seen, on another stand-in."""
    system = System(ROOT, STEADY)

    def on(host: str, function) -> object:
        found = []
        system.begin(system.clock.time, system.new_process(host), lambda: found.append(function()))
        system.clock.run()
        return found[0]

    def error(function) -> str:
        try:
            function()
        except OSError as raised:
            return errno.errorcode[raised.errno]
        return "none"

    exists = system.path.exists
    assert not on("two", lambda: exists(f"{ROOT}/new"))
    on("one", lambda: system.mkdir(f"{ROOT}/new"))
    assert not on("two", lambda: exists(f"{ROOT}/new")), "as it was"
    descriptor = on("two", lambda: system.open(ROOT, os.O_DIRECTORY))
    assert on("two", lambda: exists(f"{ROOT}/new")), "it has been asked for when it was opened"
    directory = on("two", lambda: system.open("new", os.O_DIRECTORY, dir_fd=descriptor))
    on("one", lambda: system.rmdir(f"{ROOT}/new"))
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    assert on("two", lambda: error(lambda: system.open("file", flags, dir_fd=directory))) == "ESTALE"
    assert on("two", lambda: error(lambda: system.open("new", os.O_DIRECTORY, dir_fd=descriptor))) == "ENOENT"
    on("one", lambda: system.mkdir(f"{ROOT}/new"))
    on("two", lambda: system.sleep(31))
    assert on("two", lambda: exists(f"{ROOT}/new")), "nothing is believed for longer than acdirmin"


def test_nothing_leads_to_the_real_file_system(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    system = System(ROOT, STEADY)
    with pytest.raises(AttributeError):
        system.link  # noqa: B018
    assert not system.path.exists(str(tmp_path / "file"))


def test_who_is_alive_is_told_as_the_shim_does() -> None:
    system = System(ROOT, STEADY)
    one, two, ended = (system.new_process(host) for host in ("one", "two", "one"))
    system.alive.discard(("one", ended.pid))
    found: list[tuple[object, object]] = []
    with Instead(system, "failed", ROOT):
        marks: list[str] = []
        for process in (one, two, ended):
            system.begin(0.0, process, lambda: marks.append(leases.new_name("lease", "a~b")))
        system.begin(
            0.0,
            one,
            lambda: found.extend((system.holder_is_alive(each), leases.holder_is_alive(each)) for each in marks),
        )
        system.clock.run()
    assert found == [(True, True), (None, None), (False, False)]


def test_a_group_is_cleaned_up_and_nobody_fails() -> None:
    for group in (groups.Group(30, 30, end=1.0), groups.Group(40, 10, seconds=0.05)):
        done = groups.simulate(group, Model())
        assert (len(done.runs), done.errors, done.late, done.left) == (group.tasks, [], 0, [])


def test_the_same_seed_gives_the_same_numbers() -> None:
    case = load.Load(workflows=10, workers=50, warm_up=1, window=1, duration=0.05)
    one, two, other = (load.simulate(case, Model(), seed) for seed in (1, 1, 2))
    assert [run.added for run in one.runs] == [run.added for run in two.runs] != [run.added for run in other.runs]
    assert one.errors == 0
    assert len(one.runs) > 20


def test_what_a_sweep_finds_is_what_a_failed_workflow_leaves() -> None:
    with on_real("failed") as real:
        play(FAILS, real)
        tree = real.tree()
    system = System(ROOT, STEADY)
    sweeps.put(system.files, "wf", sweeps.Stock(1))
    assert plain(list(paths(system.files.root))) == plain(tree)
    modes = {path: stat.S_IMODE(system.files.existing(system.files.root, path).mode) for path in ("wf", ".leases")}
    assert modes == {"wf": 0o755, ".leases": 0o755}


def test_sweepers_at_once_share_what_is_due() -> None:
    one, four = (sweeps.simulate(sweeps.Stock(20, 200, files=3), STEADY, sweepers) for sweepers in (1, 4))
    for done in (one, four):
        assert sum(len(each.removed) for each in done.sweeps) == 200
        assert [each.deferred for each in done.sweeps] == [[]] * len(done.sweeps)
        assert done.left == 20
    assert max(four.seconds) < max(one.seconds) / 2.5


def test_what_another_host_removes_while_it_is_looked_at_is_not_deferred(monkeypatch: pytest.MonkeyPatch) -> None:
    """On NFS its directory, which is open here, is stale then."""
    system, look, raised = System(ROOT, STEADY), sweep_module._own_stamp, []

    def look_too_late(parent: int) -> float:
        for above, name in ((("wf",), "tmp"), ((), "wf"), ((".leases", "wf"), FAILED), ((".leases",), "wf")):
            directory = system.files.root
            for each in above:
                directory = system.files.existing(directory, each)
            system.files.remove(directory, name, is_directory=name != FAILED)
        try:
            return look(parent)
        except OSError as error:
            raised.append(error.errno)
            raise

    monkeypatch.setattr(sweep_module, "_own_stamp", look_too_late)
    sweeps.put(system.files, "wf", sweeps.Stock(0, 1))
    system.files.remove(
        system.files.existing(system.files.existing(system.files.root, ".leases"), "wf"), OURS, is_directory=False
    )
    done = Sweep()
    with Instead(system, "failed", ROOT):
        system.begin(0.0, system.new_process("sweeper"), lambda: sweep(current(), -60, done=done))
        system.clock.run()
    assert raised == [errno.ESTALE]
    assert (done.deferred, done.removed, done.kept) == ([], [], {})


def test_the_command_prints_tables() -> None:
    env = {**os.environ, "PYTHONHASHSEED": "0"}  # else it starts itself once more
    command = [sys.executable, "benchmarks/simulate.py", "operations", "--round-trip", "0.001"]
    options = {"cwd": REPOSITORY, "env": env, "capture_output": True, "text": True}
    done = subprocess.run(command, check=False, **options)
    assert (done.returncode, done.stdout[:13]) == (0, "| situation |"), done.stderr
    assert len(done.stdout.splitlines()) > 15
    wrong = subprocess.run([*command[:2], "no-such"], check=False, **options)
    assert wrong.returncode == 2
    assert "no such part: no-such" in wrong.stderr


def test_a_recorder_says_what_has_come_of_a_call(tmp_path: Path) -> None:
    recorder = Recorder(os, str(tmp_path))
    recorder.mkdir(f"{tmp_path}/a")
    with pytest.raises(FileExistsError):
        recorder.mkdir(f"{tmp_path}/a")
    assert recorder.calls == ["mkdir <root>/a", "mkdir <root>/a: EEXIST"]
    assert recorder.changes() == 1
