"""`tmp-redirect doctor`: each finding, in the condition that it is about, by the command in a process of its own."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from services.common.tmp_redirect.doctor import (
    bounded,
    configuration,
    directories,
    finding,
    interpreter,
    layers,
    leftovers,
    loading,
    mounts,
    operations,
    paths,
    report,
    sockets,
    versions,
)
from services.common.tmp_redirect.doctor.case import Case
from services.common.tmp_redirect.doctor.finding import Finding
from services.common.tmp_redirect.doctor.interpreter import Answer, Facts
from services.common.tmp_redirect.kernel import availability
from services.common.tmp_redirect.lifecycle.leases import new_name
from services.common.tmp_redirect.settings import Settings
from tests import conftest
from tests.conftest import PACKAGE, REPOSITORY
from tests.environments import virtual_environment
from tests.seccomp import SECCOMP
from tests.test_sitecustomize import foreign
from tests.test_sweep import listing as full_listing

MODULE = ("-m", "services.common.tmp_redirect")
NO_CAPABILITIES = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")  # modes count for root, too
DAY = 86400

Found = dict[str, list[Finding]]


def listing(root: Path) -> dict[str, object]:
    """What is there, and whether it was touched; the root itself has had an entry for a moment."""
    return {path: status for path, status in full_listing(root).items() if path != f"{root}/."}


class Doctor:
    """Runs the command, which must not change the root, nor say anything but what was asked of it."""

    def __init__(self, env: dict[str, str], root: Path) -> None:
        self.env = env
        self.root = root

    def run(self, *options: str, command: tuple[str, ...] = (), **more: str) -> subprocess.CompletedProcess[str]:
        before = listing(self.root) if self.root.is_dir() else None
        command = command or (sys.executable, *MODULE)
        done = subprocess.run(
            [*command, "doctor", *options],
            env=self.env | more, capture_output=True, text=True, timeout=60, check=False, cwd="/",
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        assert (listing(self.root) if self.root.is_dir() else None) == before
        return done

    def __call__(self, *options: str, command: tuple[str, ...] = (), **more: str) -> tuple[int, Found]:
        """The status, and what was found by its subject, without what there must be no more to say about."""
        done = self.run("--json", *options, command=command, **more)
        found: Found = {}
        for element in json.loads(done.stdout):
            assert element["text"] and (element["weight"] == "ok" or element["advice"] or element["weight"] == "note")
            found.setdefault(element["subject"], []).append(Finding(**element))
        assert list(found) == [subject for subject in finding.SUBJECTS if subject in found]
        weights = {one.weight for several in found.values() for one in several}
        assert done.returncode == max(finding.STATUS[weight] for weight in weights)
        return done.returncode, found


@pytest.fixture
def doctor(shim_env: dict[str, str], root: Path) -> Doctor:
    return Doctor(shim_env, root)


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter of the version that runs the tests, with no packages."""
    base = conftest.interpreter(conftest.THIS)
    return str(virtual_environment(tmp_path_factory.mktemp("bare") / "venv", base).python)


@pytest.fixture
def in_mounts() -> Callable[[str], tuple[str, ...]]:
    """A command prefix: the rest runs in mounts of its own, which a shell script makes."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespace can be made here: unshare -m is missing or not permitted")

    def prefix(script: str) -> tuple[str, ...]:
        return ("unshare", "-m", "sh", "-ec", f'{script}\nexec "$@"', "sh", sys.executable, *MODULE)

    return prefix


def case_of(env: dict[str, str], answer: Answer | None = None) -> Case:
    answer = answer or Answer(0, None, "", False)
    return Case(env, Settings(env), [], answer, answer.facts, image=False)


def only(found: Found, subject: str) -> Finding:
    (one,) = found[subject]
    return one


@pytest.mark.promise
def test_all_is_well(doctor: Doctor, overlay: Path, root: Path, socket_dir: Path) -> None:
    status, found = doctor()
    assert status == 0
    assert tuple(found) == finding.SUBJECTS
    notes = {subject for subject, several in found.items() if {one.weight for one in several} != {"ok"}}
    assert notes <= {"file system", "space", "leftovers", "paths"}  # of the machine that this runs on
    assert only(found, "settings").text == f"mode enforce, guard calls, root {root}"
    assert only(found, "shim").text == f"a fresh interpreter loads it, by {overlay}/sitecustomize.py"
    assert only(found, "PYTHONPATH").text == str(overlay)
    assert only(found, "package").text.endswith(f", {overlay / PACKAGE}")
    assert only(found, "root").text == f"{root} can be written"
    assert only(found, "service").text == "svc"
    assert only(found, "sockets").text.startswith(f"{socket_dir} can be made, and has ")
    assert "modes and locks work" in only(found, "operations").text
    assert list(root.iterdir()) == []
    assert not socket_dir.exists()


# How it is shown


def on_terminal(env: dict[str, str], columns: int, *options: str) -> str:
    """What it writes to a terminal of that width."""
    leader, follower = pty.openpty()
    try:
        command = [sys.executable, *MODULE, "doctor", *options]
        env = {**env, "COLUMNS": str(columns), "TERM": "xterm"}
        with subprocess.Popen(command, env=env, stdin=follower, stdout=follower, stderr=subprocess.PIPE) as child:
            os.close(follower)
            follower = -1
            said = b""
            while True:
                try:
                    more = os.read(leader, 1 << 16)
                except OSError:  # the terminal is closed
                    break
                said += more
            assert child.stderr is not None and child.stderr.read() == b""
        return said.decode().replace("\r\n", "\n")
    finally:
        os.close(leader)
        if follower != -1:
            os.close(follower)


def test_the_worst_and_the_verdict_come_last(doctor: Doctor, root: Path) -> None:
    root.rmdir()
    done = doctor.run(TMPDIR="/tmp", TMP_REDIRECT_SOCKET_DIR="/no/such")
    lines = done.stdout.splitlines()
    weights = [line.split()[0] for line in lines[:-1] if not line.startswith(" ")]
    assert weights == sorted(weights, key=finding.WEIGHTS.index)
    assert {"ok", "note", "problem", "stops"} == set(weights)
    assert lines[-3].startswith(f"stops    root           the root {root} doesn't exist")
    assert lines[-2].strip().startswith("-> mount the shared volume there")
    assert lines[-1].startswith("with the shim, processes end here with status 78: 1 reason, 1 problem, ")
    assert done.returncode == 78
    assert "\x1b" not in done.stdout
    columns = {line.index(line.split(maxsplit=2)[1]) for line in lines[:-1] if not line.startswith(" ")}
    assert columns == {9}


@pytest.mark.parametrize(
    ("more", "verdict"),
    [
        ({}, "the shim can do its work here"),
        ({"TMP_REDIRECT": "off"}, "the shim is off: programs run as without it"),
        ({"TMP_REDIRECT_SOCKET_DIR": "/no/such"}, "the shim doesn't do all its work here: 1 problem"),
    ],
)
def test_verdicts(doctor: Doctor, more: dict[str, str], verdict: str) -> None:
    assert doctor.run(**({"TMP_REDIRECT": "enforce"} | more)).stdout.splitlines()[-1].startswith(verdict)


def test_colours_are_for_terminals(shim_env: dict[str, str]) -> None:
    coloured = on_terminal(shim_env, 90)
    assert "\x1b[32mok " in coloured
    plain = on_terminal({**shim_env, "NO_COLOR": "1"}, 90)
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", plain)
    assert "\x1b" not in on_terminal(shim_env, 90, "--json")
    for line in re.sub(r"\x1b\[[0-9;]*m", "", coloured).splitlines():
        assert len(line) <= 90


def test_without_rich_it_looks_the_same(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = [Finding("root", "stops", "a\x1b[31m\nb", "c [red]d"), Finding("shim", "ok", "fine")]
    report.show(found, is_off=False)
    with_rich = capsys.readouterr().out
    monkeypatch.setattr(report, "has_rich", lambda: False)
    report.show(found, is_off=False)
    assert capsys.readouterr().out == with_rich
    assert "a\\x1b[31m\\nb\n" in with_rich and "-> c [red]d\n" in with_rich


def test_a_reader_that_ends_early_is_no_error(shim_env: dict[str, str]) -> None:
    command = f"{shlex.join([sys.executable, *MODULE])} doctor | true"
    done = subprocess.run(["sh", "-c", command], env=shim_env, capture_output=True, text=True, check=False)
    assert done.stderr == ""


# Settings, mode, service


def test_all_bad_settings_are_named(doctor: Doctor) -> None:
    bad = {"TMP_REDIRECT_GUARD": "x", "TMP_REDIRECT_TTL": "soon", "TMP_REDIRECT": "enforec"}
    status, found = doctor(**bad)
    assert status == 78
    assert {one.weight for one in found["settings"]} == {"stops"}
    for variable, value in bad.items():
        (one,) = [one for one in found["settings"] if one.text.startswith(f"{variable}={value!r} is not allowed: ")]
        assert one.advice == f"correct {variable}"
    assert only(found, "shim").weight == "stops"
    assert "mode" not in found


@pytest.mark.promise
@pytest.mark.parametrize(
    ("mode_", "weight", "status", "said"),
    [
        ("enforce", "stops", 78, "can't start, the process ends with status 78: SettingsError"),
        ("warn", "problem", 1, "can't start, the process goes on WITHOUT it: SettingsError"),
    ],
)
def test_a_shim_that_can_not_start(doctor: Doctor, mode: str, mode_: str, weight: str, status: int, said: str) -> None:
    mode_ = mode if mode == "off" else mode_
    ended, found = doctor(TMP_REDIRECT=mode_, TMP_REDIRECT_GUARD="x")
    assert ended == status
    assert only(found, "settings").weight == only(found, "shim").weight == weight
    assert only(found, "shim").text.startswith(said)
    assert only(found, "root").weight == "ok"  # the rest is looked at all the same


def test_a_shim_that_is_broken(doctor: Doctor, own_overlay: Path) -> None:
    calls = own_overlay / PACKAGE / "calls.py"
    calls.write_text(calls.read_text().replace('patches.replace(module, "open"', 'patches.replace(module, "opem"'))
    status, found = doctor(TMP_REDIRECT="enforce")
    assert (status, only(found, "shim").weight) == (78, "stops")
    assert "AttributeError: io has no opem to patch" in only(found, "shim").text


def test_a_part_of_the_shim_that_breaks_later(doctor: Doctor, own_overlay: Path) -> None:
    (own_overlay / PACKAGE / "redirect.py").write_text("import no_such_module\n")
    status, found = doctor(TMP_REDIRECT="enforce")
    assert (status, only(found, "shim").weight) == (78, "stops")
    assert "No module named 'no_such_module'" in only(found, "shim").text


def test_what_is_no_setting(doctor: Doctor) -> None:
    _, found = doctor(TMP_REDIRECT_GAURD="s3cret", TMP_REDIRECT_SCOPE="wf-1")
    notes = [one for one in found["settings"] if one.weight == "note"]
    assert [one.text.split(":")[0] for one in notes] == [
        "TMP_REDIRECT_GAURD is no setting, and nothing reads it",
        "TMP_REDIRECT_SCOPE=wf-1",
    ]
    assert "s3cret" not in str(found)


def test_the_modes() -> None:
    for value, weight, text in (
        ("", "note", "the shim is off: nothing is redirected or guarded"),
        ("off", "note", "the shim is off: nothing is redirected or guarded"),
        ("warn", "note", "warn: temp files are redirected; what uses system temp is logged, and goes through"),
        ("enforce", "ok", "enforce: temp files are redirected, and what uses system temp is refused"),
    ):
        (one,) = configuration.mode(case_of({"TMP_REDIRECT": value}))
        assert one[1:3] == (weight, text)


def test_while_it_is_off_nothing_is_wrong(doctor: Doctor, root: Path) -> None:
    root.rmdir()
    bad = {"TMP_REDIRECT_SOCKET_DIR": "/no/such", "TMP_REDIRECT_GUARD": "x", "PYTHONPATH": str(REPOSITORY)}
    status, found = doctor(TMP_REDIRECT="off", **bad)
    assert status == 0
    assert {only(found, subject).weight for subject in ("settings", "sockets", "root", "shim")} == {"note"}


def test_the_name_of_the_service(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    _, found = doctor(TMP_REDIRECT_SERVICE="", KUBERNETES_SERVICE_HOST="10.0.0.1")
    assert only(found, "service").weight == "note"
    assert f"the host name {os.uname().nodename} is used" in only(found, "service").text
    monkeypatch.setattr(configuration, "_SIGNS_OF_A_CONTAINER", ())
    for host, weight in (("node-7", "ok"), ("3f2a9c0d1e5b", "note")):
        case = case_of({"TMP_REDIRECT_SERVICE": host})
        case.environ.clear()
        (one,) = configuration.service(case)
        assert one.weight == weight


# The guard


def test_the_layers_of_the_guard() -> None:
    for value, weight, text in (
        ("calls", "ok", "calls, TMP_REDIRECT_ALLOW lets through /tmp/models"),
        ("calls,audit", "note", "audit sees all Python code"),
        ("kernel", "note", "what the kernel refuses isn't logged"),
    ):
        (one,) = layers.guard(case_of({"TMP_REDIRECT_GUARD": value, "TMP_REDIRECT_ALLOW": "/tmp/models"}))
        assert one.weight == weight and text in one.text


def without_landlock(error: str) -> tuple[str, ...]:
    code = f"{SECCOMP}\nforbid(444, errno.{error})\nos.execvp(sys.argv[1], sys.argv[1:])"
    return ("env", "-u", "TMP_REDIRECT", sys.executable, "-c", code, "env")


@pytest.mark.parametrize(
    ("error", "reason"), [("ENOSYS", "has no Landlock"), ("EPERM", "the container forbids Landlock")]
)
def test_why_the_kernel_layer_can_not_be_had(doctor: Doctor, error: str, reason: str) -> None:
    before = without_landlock(error)
    status, found = doctor(command=(*before, sys.executable, *MODULE))
    assert (status, only(found, "kernel").weight) == (0, "ok")
    assert reason in only(found, "kernel").text
    with_mode = (*before, "TMP_REDIRECT=enforce", "TMP_REDIRECT_GUARD=calls,kernel", sys.executable, *MODULE)
    status, found = doctor(command=with_mode)
    assert (status, only(found, "kernel").weight, only(found, "shim").weight) == (78, "stops", "stops")
    assert reason in only(found, "kernel").text
    assert "or take kernel out of TMP_REDIRECT_GUARD" in only(found, "kernel").advice


@pytest.mark.promise
def test_the_kernel_layer_at_work(doctor: Doctor) -> None:
    if availability().reason:
        pytest.skip(str(availability().reason))
    status, found = doctor(TMP_REDIRECT_GUARD="calls,kernel")
    assert (status, only(found, "kernel").weight) == (0, "ok")
    assert re.fullmatch(r"Landlock ABI \d+; this process is restricted", only(found, "kernel").text)
    _, found = doctor(TMP_REDIRECT="warn", TMP_REDIRECT_GUARD="calls,kernel")
    assert "it does nothing in the mode warn" in only(found, "kernel").text


# Whether it is loaded


def by_path(python: str, overlay: Path, *flags: str) -> tuple[str, ...]:
    return (python, *flags, str(overlay / PACKAGE))


def test_no_python_path(doctor: Doctor, bare: str, overlay: Path) -> None:
    del doctor.env["PYTHONPATH"]
    status, found = doctor(command=by_path(bare, overlay), TMP_REDIRECT="enforce")
    assert (status, only(found, "shim").weight, only(found, "PYTHONPATH").weight) == (1, "problem", "problem")
    assert "runs unpatched" in only(found, "shim").text
    assert only(found, "PYTHONPATH").advice == f"PYTHONPATH={overlay}, or run tmp-redirect install-site"
    status, found = doctor(command=by_path(bare, overlay), TMP_REDIRECT="enforce", PYTHONPATH="/app:/srv")
    assert only(found, "PYTHONPATH").advice.startswith(f"PYTHONPATH={overlay}:/app:/srv, ")
    status, found = doctor(command=by_path(bare, overlay), TMP_REDIRECT="off")
    assert (status, only(found, "PYTHONPATH")[1:3]) == (0, ("ok", "unset"))


@pytest.mark.parametrize("entry", ["", "app", "."])
def test_entries_that_depend_on_the_directory(doctor: Doctor, overlay: Path, entry: str) -> None:
    _, found = doctor(TMP_REDIRECT="enforce", PYTHONPATH=f"{overlay}:{entry}")
    assert [one.weight for one in found["PYTHONPATH"]] == ["note", "ok"]
    assert "isn't absolute, or empty" in found["PYTHONPATH"][0].text


@pytest.mark.parametrize("flag", ["-I", "-E", "-S"])
def test_flags_that_bypass_it(doctor: Doctor, bare: str, overlay: Path, flag: str) -> None:
    status, found = doctor(command=by_path(bare, overlay, flag), TMP_REDIRECT="enforce")
    assert (status, only(found, "flags").weight, only(found, "shim").weight) == (1, "problem", "problem")
    assert only(found, "flags").text.startswith(f"{flag} keeps Python from loading the shim")
    assert ("install-site" in only(found, "flags").advice) is (flag != "-S")
    assert only(found, "shim").advice == f"start Python without {flag}"


@pytest.mark.parametrize("flag", ["-s", "-P"] if sys.version_info >= (3, 11) else ["-s"])
def test_flags_that_do_not(doctor: Doctor, bare: str, overlay: Path, flag: str) -> None:
    status, found = doctor(command=by_path(bare, overlay, flag), TMP_REDIRECT="enforce", PYTHONNOUSERSITE="1")
    assert (status, only(found, "flags").weight, only(found, "shim").weight) == (0, "ok", "ok")


def test_a_pth_file_loads_it_in_spite_of_flags(doctor: Doctor, bare: str, overlay: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([bare, "-m", "venv", "--without-pip", venv], check=True)
    (site_packages,) = venv.glob("lib/python*/site-packages")
    code = f"import sys; sys.path.insert(0, {str(overlay)!r}); import sitecustomize; sys.path.pop(0)\n"
    (site_packages / "shim.pth").write_text(code, encoding="utf-8")
    del doctor.env["PYTHONPATH"]
    status, found = doctor(command=by_path(str(venv / "bin/python"), overlay, "-I"), TMP_REDIRECT="enforce")
    assert (status, only(found, "flags").text) == (0, "the shim is loaded in spite of -I")
    assert only(found, "PYTHONPATH").text == "unset; the shim is loaded without it"
    assert only(found, "sitecustomize").weight == "ok"
    status, found = doctor(command=by_path(str(venv / "bin/python"), overlay, "-S"), TMP_REDIRECT="enforce")
    assert (status, only(found, "flags").weight) == (1, "problem")


CHAINING = """
import importlib.util, os, sys
here = os.path.dirname(__file__)
for entry in sys.path[sys.path.index(here) + 1 :]:
    path = os.path.join(entry, "sitecustomize.py")
    if os.path.exists(path):
        spec = importlib.util.spec_from_file_location("sitecustomize", path)
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
        break
"""


def test_a_sitecustomize_that_it_shadows(doctor: Doctor, bare: str, overlay: Path, tmp_path: Path) -> None:
    other, further = foreign(tmp_path / "other"), foreign(tmp_path / "further")
    path = f"{overlay}:{other}:{further}"
    status, found = doctor(command=by_path(bare, overlay), TMP_REDIRECT="enforce", PYTHONPATH=path)
    assert (status, only(found, "sitecustomize").weight) == (0, "ok")
    ours = overlay / "sitecustomize.py"
    expected = f"{other}/sitecustomize.py: {ours} has run it, which shadows it; not run, as without the shim: "
    assert only(found, "sitecustomize").text.startswith(f"{expected}{further}/sitecustomize.py")


def test_a_sitecustomize_that_comes_first(doctor: Doctor, bare: str, overlay: Path, tmp_path: Path) -> None:
    other = foreign(tmp_path / "other")
    path = f"{other}:{overlay}"
    status, found = doctor(command=by_path(bare, overlay), TMP_REDIRECT="enforce", PYTHONPATH=path)
    assert (status, only(found, "shim").weight) == (1, "problem")
    assert f"{other}/sitecustomize.py is found first, and doesn't run ours" in only(found, "shim").advice
    assert only(found, "PYTHONPATH").weight == "ok"
    (other / "sitecustomize.py").write_text(CHAINING, encoding="utf-8")
    status, found = doctor(command=by_path(bare, overlay), TMP_REDIRECT="enforce", PYTHONPATH=path)
    assert (status, only(found, "shim").weight) == (0, "ok")
    assert str(other) in only(found, "sitecustomize").text


def test_a_sitecustomize_that_fails(doctor: Doctor, bare: str, overlay: Path, tmp_path: Path) -> None:
    other = foreign(tmp_path / "other", "raise ValueError('redis://:s3cret@host')\n")
    path = f"{overlay}:{other}"
    status, found = doctor(command=by_path(bare, overlay), TMP_REDIRECT="enforce", PYTHONPATH=path)
    assert (status, only(found, "shim").weight, only(found, "sitecustomize").weight) == (1, "ok", "problem")
    assert f"one fails at each start: {other}/sitecustomize.py" in only(found, "sitecustomize").text
    assert "s3cret" not in str(found)


def test_an_interpreter_that_ends_before_it_runs_anything(doctor: Doctor, overlay: Path, tmp_path: Path) -> None:
    text = "import os, sys\nif sys.argv[0] == '-c': sys.stderr.write('s3cret\\n'); os._exit(3)\n"
    other = foreign(tmp_path / "other", text)
    status, found = doctor(TMP_REDIRECT="enforce", PYTHONPATH=f"{overlay}:{other}")
    assert (status, only(found, "shim").weight) == (1, "problem")
    assert only(found, "shim").text == "a fresh interpreter ends with status 3"
    assert "s3cret" not in str(found)


def test_an_interpreter_that_talks_at_its_start(doctor: Doctor, overlay: Path, tmp_path: Path) -> None:
    text = "import os, sys\nif sys.argv[0] == '-c': print('no line end', end=''); sys.stdout.flush()\n"
    other = foreign(tmp_path / "other", text)
    _, found = doctor(TMP_REDIRECT="enforce", PYTHONPATH=f"{overlay}:{other}")
    assert only(found, "shim").weight == "ok"


def test_an_interpreter_that_does_not_start(
    shim_env: dict[str, str], overlay: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What it starts holds its stdout open, and is still there when it has been killed.
    text = "import os, signal\nif os.fork() == 0: signal.alarm(2)\nsignal.pause()\n"
    shim_env["PYTHONPATH"] = str(foreign(tmp_path / "other", text))
    monkeypatch.setattr(interpreter, "SECONDS", 0.3)
    monkeypatch.setattr(loading, "SECONDS", 0.3)
    answer = interpreter.ask(shim_env)
    assert answer == Answer(None, None, "", False)
    (one,) = loading.shim(case_of(shim_env, answer))
    assert (one.weight, one.text) == ("problem", "a fresh interpreter has not started within 0.3 s")


def test_ctrl_c_is_quiet(shim_env: dict[str, str], overlay: Path, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    os.mkfifo(begun)
    reading = os.open(begun, os.O_RDONLY | os.O_NONBLOCK)
    tell = f"os.write(os.open({str(begun)!r}, os.O_WRONLY), b'x')"
    text = f"import os, signal, sys\nif sys.argv[0] == '-c': {tell}; signal.pause()\n"
    env = {**shim_env, "PYTHONPATH": f"{overlay}:{foreign(tmp_path / 'other', text)}"}
    command = [sys.executable, *MODULE, "doctor"]
    with subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as child:
        assert select.select([reading], [], [], 30)[0]
        os.close(reading)
        os.killpg(child.pid, signal.SIGINT)
        assert child.communicate(timeout=30) == ("", "")
    assert child.returncode == 130


def test_ctrl_c_ends_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    parent = os.getpid()

    def interrupts() -> Iterator[Finding]:
        os.kill(parent, signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()
        yield Finding("root", "ok", "went on")

    with pytest.raises(KeyboardInterrupt):
        list(bounded.bounded("root", interrupts))
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def test_a_package_that_this_user_can_not_read(doctor: Doctor, own_overlay: Path) -> None:
    if shutil.which("setpriv") is None or os.geteuid() != 0:
        pytest.skip("without root and setpriv there is no other user")
    (own_overlay / PACKAGE / "integrations" / "celery.py").chmod(0)
    command = (*NO_CAPABILITIES, sys.executable, *MODULE)
    status, found = doctor(command=command, TMP_REDIRECT="enforce")
    assert (status, only(found, "package").weight) == (78, "stops")
    assert only(found, "package").text.endswith(
        f"can't read 1 of its files: {own_overlay / PACKAGE}/integrations/celery.py"
    )
    assert only(found, "package").advice == f"chmod -R a+rX {own_overlay / PACKAGE}"


@pytest.mark.promise
def test_a_doctor_of_another_package(doctor: Doctor, overlay: Path, own_overlay: Path, tmp_path: Path) -> None:
    # By its path, unless the shim has loaded the package before.
    del doctor.env["PYTHONPATH"]
    code = (
        "import os, runpy, sys; sys.path.insert(0, sys.argv.pop(1)); os.environ['PYTHONPATH'] = sys.argv.pop(1); "
        "os.environ['TMP_REDIRECT'] = sys.argv.pop(1); "
        "[sys.modules.pop(name) for name in list(sys.modules) if name.startswith('services')]; "
        "runpy.run_module('services.common.tmp_redirect', run_name='__main__')"
    )
    mode = doctor.env["TMP_REDIRECT"]
    command = (sys.executable, "-c", code, str(overlay), str(own_overlay), mode)
    _, found = doctor(command=("env", "-u", "TMP_REDIRECT", *command))
    assert only(found, "package").weight == "note"
    assert (
        only(found, "package").text == f"{own_overlay / PACKAGE} is loaded, and this doctor is of {overlay / PACKAGE}"
    )
    assert only(found, "package").advice == f"python {own_overlay / PACKAGE} doctor"


@pytest.mark.promise
def test_bytecode_that_can_not_be_cached(doctor: Doctor, own_overlay: Path) -> None:
    _, found = doctor(PYTHONDONTWRITEBYTECODE="1")
    assert only(found, "bytecode").weight == "note"
    assert only(found, "bytecode").advice == f"in the image: RUN python -m compileall -q {own_overlay / PACKAGE}"
    subprocess.run([sys.executable, "-m", "compileall", "-q", own_overlay / PACKAGE], check=True)
    _, found = doctor(PYTHONDONTWRITEBYTECODE="1")
    assert only(found, "bytecode").weight == "ok"


# Versions


def dist_info(directory: Path, name: str, version: str) -> None:
    directory.mkdir(exist_ok=True)
    info = directory / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("wrapt", "celery", "weights", "status"),
    [
        ("1.16.0", "5.3.4", ("ok", "ok"), 0),
        ("2.99", "5.7.99", ("ok", "ok"), 0),
        ("1.15.0", "5.7.0", ("problem", "ok"), 1),
        ("3.0.0rc1", "5.7.0", ("problem", "ok"), 1),
        ("2.0.0", "5.2.7", ("ok", "problem"), 1),
        ("2.0.0", "5.8.0", ("ok", "problem"), 1),
        ("2.0.0", "main", ("ok", "problem"), 1),
        ("2.0.0", None, ("ok", "ok"), 0),
        (None, "5.7.0", ("stops", "ok"), 78),
        (None, None, ("ok", "ok"), 0),
    ],
)
def test_versions(
    doctor: Doctor,
    bare: str,
    overlay: Path,
    tmp_path: Path,
    wrapt: str | None,
    celery: str | None,
    weights: tuple[str, str],
    status: int,
) -> None:
    packages = tmp_path / "packages"
    for name, version in (("wrapt", wrapt), ("celery", celery)):
        if version is not None:
            dist_info(packages, name, version)
    path = f"{overlay}:{packages}"
    ended, found = doctor(command=by_path(bare, overlay), TMP_REDIRECT="enforce", PYTHONPATH=path)
    assert (ended, (only(found, "wrapt").weight, only(found, "celery").weight)) == (status, weights)
    if weights[0] == "problem":
        assert only(found, "wrapt").advice == "pip install 'wrapt>=1.16,<3'"
    if weights[1] == "problem":
        assert only(found, "celery").advice == "pip install 'celery>=5.3,<5.8'"


def test_the_versions_are_those_that_the_project_requires() -> None:
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    for name, tested in versions.TESTED.items():
        first, end = (".".join(map(str, bound)) for bound in tested)
        assert f'"{name}>={first},<{end}"' in text
    first, end = versions.PYTHON
    assert f'requires-python = ">={first[0]}.{first[1]}"' in text
    supported = {(3, int(minor)) for minor in re.findall(r"Python :: 3\.(\d+)", text)}
    assert supported == {(3, minor) for minor in range(first[1], end[1])}


def test_an_untested_python(monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = versions.python(case_of({}))
    assert one.weight == "ok"
    monkeypatch.setattr(versions, "PYTHON", ((3, 10), (3, 10)))
    (one,) = versions.python(case_of({}))
    assert one.weight == "note"


# Where temp files go


def test_variables_that_name_system_temp(home: Path) -> None:
    (one,) = directories.variables(case_of({"TMPDIR": "/tmp/", "TEMP": "/var/tmp/x", "TMP": str(home)}))
    assert one.weight == "note"
    assert one.text.startswith("TMPDIR=/tmp/ TEMP=/var/tmp/x: native code in this process goes there")
    (one,) = directories.variables(case_of({"TMPDIR": str(home)}))
    assert one[1:3] == ("ok", f"TMPDIR={home}; the shim gives children its own")


@pytest.mark.promise
def test_a_tempdir_that_was_assigned(doctor: Doctor, overlay: Path, tmp_path: Path, home: Path) -> None:
    for directory, weight, text in (("/tmp/x", "problem", "each temp file is refused"), (home, "note", "is obeyed")):
        other = foreign(tmp_path / weight, f"import tempfile\ntempfile.tempdir = {str(directory)!r}\n")
        _, found = doctor(PYTHONPATH=f"{overlay}:{other}")
        assert only(found, "tempfile").weight == weight
        assert only(found, "tempfile").text.startswith(f"tempfile.tempdir is {str(directory)!r} at the start already")
        assert text in only(found, "tempfile").text


# The root


def test_roots_that_can_not_be_used(doctor: Doctor, root: Path) -> None:
    doctor.env["TMP_REDIRECT"] = "warn"  # a worker ends with status 78 in this mode as well
    root.rmdir()
    status, found = doctor()
    assert (status, only(found, "root").weight) == (78, "stops")
    assert only(found, "root").text == f"the root {root} doesn't exist"
    assert only(found, "root").advice.startswith("mount the shared volume there, or create it")
    root.symlink_to("/nowhere")
    assert only(doctor()[1], "root").text == f"the root {root} doesn't exist"
    root.unlink()
    root.write_text("")
    status, found = doctor()
    assert (status, only(found, "root").weight) == (78, "stops")
    assert only(found, "root").text == f"the root can't be used: {root} is not a directory"
    assert "space" not in found and "operations" not in found


def test_a_root_of_another_user(doctor: Doctor, root: Path) -> None:
    if shutil.which("setpriv") is None or os.geteuid() != 0:
        pytest.skip("without root and setpriv there is no other user")
    os.chown(root, 1001, 1001)
    try:
        status, found = doctor(command=(*NO_CAPABILITIES, sys.executable, *MODULE), TMP_REDIRECT="enforce")
    finally:
        os.chown(root, 0, 0)
    assert (status, only(found, "root").weight) == (78, "stops")
    assert "Permission denied for uid 0" in only(found, "root").text
    assert only(found, "file system")


@pytest.mark.parametrize(
    ("script", "subject", "text"),
    [
        ("mount -t tmpfs -o ro tmpfs {root}", "root", "Read-only file system"),
        ("mount --bind {root} {root}; mount -o remount,bind,ro {root}", "root", "Read-only file system"),
        ("mount -t tmpfs -o size=64k tmpfs {root}; ! cat /dev/zero 2>/dev/null >{root}/full", "space", "0 B of 64"),
        ("mount -t tmpfs -o size=64k,nr_inodes=3 tmpfs {root}; touch {root}/a {root}/b", "space", "0 of 3 inodes"),
    ],
    ids=["read-only", "read-only for us", "full", "no inodes"],
)  # fmt: skip
def test_file_systems_that_can_not_be_written(
    doctor: Doctor, root: Path, in_mounts: Callable[[str], tuple[str, ...]], script: str, subject: str, text: str
) -> None:
    status, found = doctor(command=in_mounts(script.format(root=root)), TMP_REDIRECT="enforce")
    assert (status, only(found, subject).weight) == (78, "stops")
    assert text in only(found, subject).text
    assert "operations" not in found
    if subject == "root":
        assert only(found, "file system")


def test_little_space(doctor: Doctor, root: Path, in_mounts: Callable[[str], tuple[str, ...]]) -> None:
    status, found = doctor(TMP_REDIRECT="enforce", TMP_REDIRECT_MIN_FREE="9999T")
    assert (status, only(found, "space").weight) == (78, "stops")
    assert "TMP_REDIRECT_MIN_FREE is 9.8 PiB" in only(found, "space").text
    script = f"mount -t tmpfs -o size=1m tmpfs {root}; head -c 1000000 /dev/zero >{root}/nearly"
    status, found = doctor(command=in_mounts(script), TMP_REDIRECT="enforce")
    assert (status, only(found, "space").weight, only(found, "operations").weight) == (0, "note", "ok")
    script = f"mount -t tmpfs -o size=1m tmpfs {root}"
    _, found = doctor(command=in_mounts(script), TMP_REDIRECT="enforce")
    assert only(found, "space").weight == "ok"


def test_an_overlay_and_memory(
    doctor: Doctor, root: Path, tmp_path: Path, in_mounts: Callable[[str], tuple[str, ...]]
) -> None:
    memory = tmp_path / "memory"
    memory.mkdir()
    mount = (
        f"mount -t tmpfs tmpfs {memory}; mkdir {memory}/lower {memory}/upper {memory}/work; mount -t overlay overlay "
        f"-o lowerdir={memory}/lower,upperdir={memory}/upper,workdir={memory}/work {root}"
    )
    command = in_mounts(mount)
    if subprocess.run([*command[: command.index(sys.executable)], "true"], capture_output=True, check=False).returncode:
        pytest.skip("overlayfs can't be mounted here")
    status, found = doctor(command=command, TMP_REDIRECT="enforce")
    assert (status, only(found, "file system").weight, only(found, "operations").weight) == (0, "note", "ok")
    assert only(found, "file system").text.startswith(f"overlay, mounted at {root}: the container's own layer")
    _, found = doctor(command=in_mounts(f"mount -t tmpfs tmpfs {root}"), TMP_REDIRECT="enforce")
    assert only(found, "file system").text.startswith(f"tmpfs, mounted at {root}: temp files take memory")


MOUNTINFO = """\
21 1 0:20 / / rw,relatime - overlay overlay rw,lowerdir=/a,upperdir=/b
22 21 0:21 / /proc rw,nosuid - proc proc rw
30 21 8:1 /data /share rw,relatime shared:1 master:2 - ext4 /dev/sda1 rw
31 30 0:40 / /share/workflows rw,relatime - nfs4 server:/export rw,vers=4.2,hard
32 30 0:41 / /share/with\\040space rw,noexec - xfs /dev/sdb rw
33 30 0:42 / /share/over rw - ext4 /dev/sdc rw
34 33 0:43 / /share/over rw - tmpfs tmpfs rw
35 30 0:44 / /share/nocto rw - nfs server:/export rw,nocto
36 30 0:45 / /share/wsl rw - 9p drvfs rw
37 30 0:46 / /share/cifs rw - cifs //server/share rw
38 30 0:47 / /share/s3 rw - fuse.s3fs s3fs rw
a line that can't be read
39 30 0:48
"""


@pytest.mark.parametrize(
    ("path", "point", "kind", "text"),
    [
        ("/share/workflows", "/share/workflows", "nfs4", ""),
        ("/share/workflows/wf-1/tmp", "/share/workflows", "nfs4", ""),
        ("/share/workflows-2", "/share", "ext4", ""),
        ("/srv", "/", "overlay", "the container's own layer, not a volume"),
        ("/share/with space/x", "/share/with space", "xfs", "noexec"),
        ("/share/over", "/share/over", "tmpfs", "temp files take memory"),
        ("/share/nocto", "/share/nocto", "nfs", "nocto"),
        ("/share/wsl", "/share/wsl", "9p", "a directory of the host"),
        ("/share/cifs", "/share/cifs", "cifs", "an SMB share"),
        ("/share/s3", "/share/s3", "fuse.s3fs", "in user space"),
    ],
)
def test_file_systems(path: str, point: str, kind: str, text: str) -> None:
    mount = mounts.mount_of(path, MOUNTINFO)
    assert mount is not None and (mount.point, mount.type) == (point, kind)
    said, advice = mounts.meaning(mount)
    assert said.startswith(text) and bool(said) == bool(advice) == bool(text)


def test_without_proc(doctor: Doctor, root: Path, in_mounts: Callable[[str], tuple[str, ...]]) -> None:
    assert mounts.mount_of("/", "") is None
    done = doctor.run(command=in_mounts("mount -t tmpfs tmpfs /proc"), TMP_REDIRECT="enforce")
    assert "note     file system    /proc/self/mountinfo says nothing about" in done.stdout


# What is done there


@pytest.fixture
def tried(root: Path) -> Callable[..., list[Finding]]:
    def tried(**settings: str) -> list[Finding]:
        return list(operations.operations(Settings({"TMP_REDIRECT_ROOT": str(root), **settings})))

    return tried


Tried = Callable[..., list[Finding]]


class Posix:
    """The module posix, in which some functions are others."""

    def __init__(self, **others: Any) -> None:
        self.others = others

    def __getattr__(self, name: str) -> Any:
        return self.others.get(name) or getattr(os, name)


def test_operations_leave_the_root_as_it_was(tried: Tried, root: Path) -> None:
    (root / ".trash" / "x").mkdir(parents=True)
    (root / "wf-1" / "tmp").mkdir(parents=True)
    before = listing(root)
    assert [one.weight for one in tried()] == ["ok", "ok"]
    assert listing(root) == before


def test_what_a_killed_doctor_has_left_is_removed(tried: Tried, root: Path) -> None:
    live = new_name(operations.KIND)
    kind, host, boot, namespace, _, _, number = live.split("~")
    dead = f"{kind}~{host}~{boot}~{namespace}~999999999~1~{number}"
    elsewhere = live.replace(host, "node-7", 1)
    for name in (live, dead, elsewhere):
        (root / name / "away").mkdir(parents=True)
    tried()
    assert {path.name for path in root.iterdir()} == {live, elsewhere}


KILLED = """
import os, signal, sys
from services.common.tmp_redirect.doctor.operations import operations
from services.common.tmp_redirect.settings import Settings
sys.path.insert(0, sys.argv[1])
from changes import call_after
call_after(int(sys.argv[2]), lambda: os.kill(os.getpid(), signal.SIGKILL))
list(operations(Settings(os.environ)))
"""


def test_killed_after_each_change(tried: Tried, root: Path, helpers: Path, shim_env: dict[str, str]) -> None:
    env = {**shim_env, "TMP_REDIRECT": "off"}
    for changes in range(1, 100):
        done = subprocess.run([sys.executable, "-c", KILLED, helpers, str(changes)], env=env, check=False)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        assert len(list(root.iterdir())) == 1
        tried()
        assert list(root.iterdir()) == []
    assert changes > 8


def test_a_file_that_is_not_made_exclusively(tried: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
    def shared(path: str, flags: int, *mode: int, dir_fd: int) -> int:
        return os.open(path, flags & ~os.O_EXCL, *mode, dir_fd=dir_fd)

    monkeypatch.setattr(operations, "posix", Posix(open=shared))
    (one,) = [one for one in tried() if one.weight == "problem"]
    assert one.text == "open(O_CREAT | O_EXCL) makes a file that exists: two processes may take one lease"


@pytest.mark.parametrize("function", ["rename", "unlink", "rmdir"])
def test_a_directory_that_can_not_be_renamed_or_removed(
    tried: Tried, root: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(operations, "posix", Posix(**{function: fails}))
    (one,) = [one for one in tried() if one.weight == "problem"]
    assert "renaming a directory with an open file in it, and removing both, fails: Invalid cross-device" in one.text
    assert list(root.iterdir()) == []


def test_modes_and_owners_that_are_not_kept(tried: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "os", Posix(chmod=lambda *_, **__: None, geteuid=lambda: 1001))
    notes = [one for one in tried(TMP_REDIRECT_DIR_MODE="2770") if one.weight == "note"]
    assert re.fullmatch(r"a directory has the mode 0\d{3}, not 2770, as it was told", notes[0].text)
    assert notes[1].text.startswith(f"what uid 1001 makes belongs to uid {os.getuid()}")


@pytest.mark.parametrize("function", ["lockf", "flock"])
def test_files_that_can_not_be_locked(tried: Tried, root: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    def fails(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    fails.__name__ = function
    monkeypatch.setattr(fcntl, function, fails)
    (one,) = [one for one in tried() if one.weight == "note"]
    assert one.text.startswith(f"files can't be locked ({function}: Function not implemented)")
    assert list(root.iterdir()) == []


def test_upper_and_lower_case(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        assert list(operations._case(descriptor)) == []
        (tmp_path / "FILE").touch()  # as if it were another name of `file`
        (one,) = operations._case(descriptor)
    finally:
        os.close(descriptor)
    assert one.weight == "problem" and "two workflows whose ids differ only there" in one.text


@pytest.mark.parametrize(
    ("skew", "text"), [(3600, "3600 s behind this host's"), (-3600, "3600 s ahead of this host's")]
)
def test_clocks_that_differ(tried: Tried, monkeypatch: pytest.MonkeyPatch, skew: int, text: str) -> None:
    monkeypatch.setattr(operations, "time", SimpleNamespace(time=lambda: time.time() + skew))
    clock = tried()[-1]
    assert (clock.subject, clock.weight) == ("clock", "problem")
    assert text in clock.text


def test_a_disk_that_fills_up_meanwhile(tried: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(operations, "posix", Posix(mkdir=full))
    (one,) = tried()
    assert (one.weight, one.advice) == ("problem", "see space")


# Whose it is


def test_directories_of_another_user(doctor: Doctor, root: Path) -> None:
    if shutil.which("setpriv") is None or os.geteuid() != 0:
        pytest.skip("without root and setpriv there is no other user")
    command = (*NO_CAPABILITIES, sys.executable, *MODULE)
    doctor.env["TMP_REDIRECT"] = "enforce"
    (root / "wf-1" / "tmp").mkdir(parents=True)
    (root / "wf-2").mkdir()
    (root / ".leases").mkdir()
    for path in (root / "wf-1" / "tmp", root / "wf-2", root / ".leases"):
        path.chmod(0o700)
        os.chown(path, 1001, 1001)
    status, found = doctor(command=command)
    whose = "(it belongs to uid 1001, gid 1001, with the mode 0700)"
    assert [(one.weight, one.text) for one in found["user"]] == [
        ("problem", f"uid 0, gid 0 can't use {root}/.leases {whose}"),
        ("note", f"uid 0, gid 0 can't use {root}/wf-1/tmp and 1 more {whose}: a task of that workflow would fail here"),
    ]
    assert status == 1
    assert all("TMP_REDIRECT_DIR_MODE=2770" in one.advice for one in found["user"])
    (root / ".outside").mkdir(mode=0o755)
    os.chown(root / ".outside", 1001, 1001)
    status, found = doctor(command=command)
    assert (status, found["user"][0].weight) == (78, "stops")  # a worker ends
    assert found["user"][0].text.startswith(f"uid 0, gid 0 can't use {root}/.outside and 1 more (")
    status, found = doctor(command=command, TMP_REDIRECT_OUTSIDE="raise")
    assert (status, found["user"][0].weight) == (1, "problem")
    assert only(doctor()[1], "user").weight == "ok"  # root may all
    (root / ".trash").symlink_to("/")
    assert f"can't use {root}/.trash (it is not a directory)" in only(doctor()[1], "user").text


def test_a_root_that_others_may_write(doctor: Doctor, root: Path) -> None:
    root.chmod(0o1777)
    _, found = doctor(TMP_REDIRECT="enforce")
    assert only(found, "user").weight == ("note" if os.geteuid() == 0 else "ok")
    assert "others may write there, but not in workspaces that this service makes" in only(found, "user").text
    _, found = doctor(TMP_REDIRECT="enforce", TMP_REDIRECT_DIR_MODE="2770")
    assert only(found, "user").weight == "ok"


def test_the_length_of_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = Settings({"TMP_REDIRECT_ROOT": "/share/workflows"})
    monkeypatch.setattr(paths.os, "statvfs", lambda _: SimpleNamespace(f_namemax=255))
    (one,) = paths.paths(settings)
    around = len("/share/workflows/" + "/tmp/")
    text = (
        f"a path may have {4095 - around - 255:,} bytes for any workflow id, and that of a socket {107 - around - 36} "
    )
    assert one.weight == "ok" and text in one.text
    (one,) = paths.paths(Settings({"TMP_REDIRECT_ROOT": "/" + "x" * 60}))
    assert one.weight == "note" and "shorten TMP_REDIRECT_ROOT" in one.advice
    monkeypatch.setattr(paths.os, "statvfs", lambda _: SimpleNamespace(f_namemax=143))
    (one,) = paths.paths(settings)
    assert one.weight == "note" and "names have at most 143 bytes there" in one.text


# Sockets


def test_directories_for_sockets_that_can_not_be_used(doctor: Doctor, home: Path) -> None:
    (home / "file").touch()
    (home / "link").symlink_to(home)
    (home / "closed").mkdir(mode=0o500)
    (home / "theirs").mkdir()
    for directory, text in (
        (home / "file", "it is not a directory"),
        (home / "link", "it is not a directory"),
        (home / "no" / "such", f"{home}/no is no directory, so it can't be made"),
    ):
        (one,) = sockets.sockets(case_of({"TMP_REDIRECT_SOCKET_DIR": str(directory)}))
        assert one[1:3] == ("problem", f"{directory}: {text}")
        assert one.advice.startswith("set TMP_REDIRECT_SOCKET_DIR to a short path")
    if os.geteuid() == 0 and shutil.which("setpriv"):
        os.chown(home / "theirs", 1001, 1001)
        _, found = doctor(TMP_REDIRECT="enforce", TMP_REDIRECT_SOCKET_DIR=f"{home}/theirs")
        assert "it belongs to uid 1001" in only(found, "sockets").text
        command = (*NO_CAPABILITIES, sys.executable, *MODULE)
        _, found = doctor(command=command, TMP_REDIRECT="enforce", TMP_REDIRECT_SOCKET_DIR=f"{home}/closed")
        assert f"uid 0 can't write {home}/closed" in only(found, "sockets").text


def test_file_systems_for_sockets(
    doctor: Doctor, home: Path, in_mounts: Callable[[str], tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = in_mounts(f"mount -t tmpfs -o ro tmpfs {home}")
    _, found = doctor(command=command, TMP_REDIRECT="enforce", TMP_REDIRECT_SOCKET_DIR=str(home))
    assert "it is full or read-only" in only(found, "sockets").text
    case = case_of({"TMP_REDIRECT_SOCKET_DIR": str(home)})
    monkeypatch.setattr(sockets, "mountinfo", lambda: MOUNTINFO.replace("/share/workflows", str(home)))
    (one,) = sockets.sockets(case)
    assert (one.weight, one.text) == (
        "problem",
        f"{home}: nfs4 is a network file system, which has no sockets that work everywhere",
    )


# Leftovers


def test_leftovers_by_age(doctor: Doctor) -> None:
    ages = {"tmpaaaaaaaa": 60, "tmpbbbbbbbb.zip": 7200, "pymp-cccccccc": 2 * DAY, "tmpdddddddd": 30 * DAY, "mine": DAY}
    made = [Path("/var/tmp") / name for name in ages]
    before = only(leftovers_in(doctor), "/var/tmp")
    try:
        for path, age in zip(made, ages.values(), strict=True):
            if path.name.startswith("pymp"):
                path.mkdir()
                (path / "x").write_bytes(b"x" * 100_000)
            else:
                path.write_bytes(b"x" * 1000)
            os.utime(path, (time.time() - age,) * 2)
        found = only(leftovers_in(doctor), "/var/tmp")
        if before.weight == "ok":
            assert found.weight == "note"
            expected = (
                r"/var/tmp: 4 entries, 1\d\d KiB, the oldest 30d old; 1 under 1h, 1 under 1d, 1 under 7d, 1 older"
            )
            assert re.fullmatch(expected, found.text)
        assert "find /var/tmp -maxdepth 1 -name 'tmp*' -mtime +7" in found.advice
    finally:
        for path in made:
            subprocess.run(["rm", "-rf", path], check=True)


def leftovers_in(doctor: Doctor) -> Found:
    _, found = doctor(TMP_REDIRECT="enforce")
    return {one.text.split(":")[0].split(" can't")[0]: [one] for one in found["leftovers"]}


def test_the_root_is_not_left_over(doctor: Doctor) -> None:
    root = Path("/var/tmp/tmp-redirect-doctor/workflows")
    before = only(leftovers_in(doctor), "/var/tmp")
    try:
        root.mkdir(parents=True)
        doctor.env["TMP_REDIRECT_ROOT"] = str(root)
        assert only(leftovers_in(doctor), "/var/tmp") == before
    finally:
        shutil.rmtree(root.parent)


def test_too_many_leftovers_for_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    directory = Path("/var/tmp/tmpeeeeeeee")
    directory.mkdir()
    try:
        monkeypatch.setattr(leftovers, "SECONDS", 0)
        texts = [one.text for one in leftovers.leftovers(case_of({}))]
    finally:
        directory.rmdir()
    assert all("in the first 0 s " in text for text in texts)


# Nothing ends it, nothing holds it up


def test_what_fails_becomes_a_finding() -> None:
    def fails() -> Iterator[Finding]:
        yield Finding("root", "ok", "so far")
        raise RuntimeError("broken")

    found = list(bounded.bounded("root", fails))
    assert [one.text for one in found] == ["so far", "it can't be looked at: RuntimeError: broken"]
    assert found[-1].weight == "problem"

    def ends() -> Iterator[Finding]:
        raise SystemExit(3)
        yield

    (one,) = bounded.bounded("root", ends)
    assert one.text.startswith("it can't be looked at: SystemExit")


SILENT = """
import ctypes, os, sys
server = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
if ctypes.CDLL(None).mount(b"silent", os.fsencode(sys.argv[1]), b"fuse", 0, options):
    sys.exit(99)
from services.common.tmp_redirect.doctor import bounded
bounded.SECONDS = 0.3
from services.common.tmp_redirect import cli
sys.exit(cli.main(["doctor", "--json"]))
"""


def test_a_file_server_that_does_not_answer(
    shim_env: dict[str, str], root: Path, in_mounts: Callable[[str], tuple[str, ...]]
) -> None:
    if not os.path.exists("/dev/fuse"):
        pytest.skip("a file system that doesn't answer takes /dev/fuse")
    command = in_mounts(":")
    prefix = command[: command.index(sys.executable)]
    done = subprocess.run(
        [*prefix, sys.executable, "-c", SILENT, root],
        env={**shim_env, "TMP_REDIRECT": "enforce"}, capture_output=True, text=True, timeout=60, check=False, cwd="/",
    )  # fmt: skip
    if done.returncode == 99:
        pytest.skip("FUSE is not allowed here")
    found = {element["subject"]: element for element in json.loads(done.stdout)}
    assert (done.returncode, found["root"]["weight"]) == (1, "problem")
    assert found["root"]["text"] == "no answer within 0.3 s"
    assert found["sockets"]["weight"] == "ok"


# What an interpreter start lets through where the shim can't start


@pytest.fixture
def broken(shim_env: dict[str, str]) -> dict[str, str]:
    return {**shim_env, "TMP_REDIRECT": "enforce", "TMP_REDIRECT_GUARD": "nonsense"}


def ended(command: list[str], env: dict[str, str], cwd: Path) -> int:
    done = subprocess.run(
        command, env=env, cwd=cwd, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert done.stderr.startswith("tmp_redirect: can't start, the process ")
    goes_on = "the process goes on WITHOUT it: " in done.stderr
    assert goes_on == bool(done.stdout), done.stderr
    return 0 if goes_on else done.returncode


@pytest.mark.parametrize(
    "words",
    [
        [*MODULE, "doctor"],
        ["-X", "dev", "-W", "ignore", "-Xutf8", "-u", "-bs", *MODULE, "doctor", "--image"],
        ["-sm", MODULE[1], "doctor", "--json"],
        ["{overlay}/services/common/tmp_redirect", "doctor"],
        ["{overlay}/services/common/tmp_redirect/__main__.py", "doctor"],
        ["{bin}/tmp-redirect", "doctor"],
    ],
    ids=" ".join,
)
def test_the_doctor_goes_on(broken: dict[str, str], overlay: Path, tmp_path: Path, words: list[str]) -> None:
    script = tmp_path / "tmp-redirect"
    run = f"runpy.run_module({MODULE[1]!r}, run_name='__main__')"
    script.write_text(f"import runpy, sys\nsys.path.insert(0, {str(overlay)!r})\n{run}\n", encoding="utf-8")
    words = [word.format(overlay=overlay, bin=tmp_path) for word in words]
    assert ended([sys.executable, *words], broken, tmp_path) == 0


NOT_THE_DOCTOR = [
    ["-c", "print('ran')"],
    ["-c", "print('ran')", "doctor"],
    ["-c", "print('ran')", "tmp-redirect", "doctor"],
    ["-cprint('ran')", "tmp-redirect", "doctor"],
    ["-bscprint('ran')", "tmp-redirect", "doctor"],
    ["-", "tmp-redirect", "doctor"],
    ["script.py", "tmp-redirect", "doctor"],
    ["script.py", "-m", MODULE[1], "doctor"],
    ["-m", "script", "doctor"],
    ["-mscript", MODULE[1], "doctor"],
    ["-m", "script", "-m", MODULE[1], "doctor"],
    ["-X", "tmp-redirect", "script.py", "doctor"],
    ["tmp-redirect/script.py", "doctor"],
    ["tmp-redirect", "status"],
    ["tmp-redirect", "status", "doctor"],
    ["tmp-redirect"],
    ["tmp-redirect-2", "doctor"],
    [*MODULE, "sweep"],
    [*MODULE, "--", "doctor"],
    ["{overlay}/services/common/tmp_redirect", "status"],
    [],
]


@pytest.mark.promise
@pytest.mark.parametrize("words", NOT_THE_DOCTOR, ids=" ".join)
def test_nothing_else_does(broken: dict[str, str], mode: str, overlay: Path, tmp_path: Path, words: list[str]) -> None:
    script = "import sys\nsys.argv[:] = ['tmp-redirect', 'doctor']\nprint('ran')\n"
    directory = tmp_path / "here"
    directory.mkdir()
    for name in ("script.py", "tmp-redirect", "tmp-redirect-2"):
        (directory / name).write_text(script)
    if "tmp-redirect/script.py" in words:
        (directory / "tmp-redirect").unlink()
        (directory / "tmp-redirect").mkdir()
        (directory / "tmp-redirect" / "script.py").write_text(script)
    words = [word.format(overlay=overlay) for word in words]
    broken["TMP_REDIRECT"] = mode
    assert ended([sys.executable, *words], broken, directory) == 78


@pytest.mark.promise
def test_a_part_that_fails_later_is_not_let_through_by_words(
    own_overlay: Path, shim_env: dict[str, str], tmp_path: Path
) -> None:
    """A program may put any words into `sys.argv`."""
    (own_overlay / PACKAGE / "redirect.py").write_text("import no_such_module\n")
    code = "import sys; sys.argv[:] = ['tmp-redirect', 'doctor']; import tempfile; print('ran')"
    assert ended([sys.executable, "-c", code], shim_env, tmp_path) == 78


# In the build of an image


@pytest.mark.promise
def test_a_good_image(doctor: Doctor, overlay: Path, root: Path, mode: str) -> None:
    """There is no root, no volume and nothing else of where it will run."""
    root.rmdir()
    dist = root.parent / "packages"
    dist_info(dist, "wrapt", "2.0.0")
    dist_info(dist, "celery", "5.7.0")
    python = conftest.interpreter(conftest.THIS)
    del doctor.env["TMP_REDIRECT_SERVICE"]
    status, found = doctor("--image", command=by_path(python, overlay), PYTHONPATH=f"{overlay}:{dist}")
    assert status == 0
    assert {one.weight for several in found.values() for one in several} == {"ok"}
    later = {"kernel", "service", "root", "file system", "space", "operations", "clock", "user", "paths", "sockets"}
    assert set(finding.SUBJECTS) - set(found) == later | {"leftovers"}
    assert only(found, "shim").text.endswith(f"by {overlay}/sitecustomize.py")


@pytest.mark.parametrize(
    ("more", "status", "subject", "weight"),
    [
        ({"TMP_REDIRECT": "off"}, 1, "mode", "problem"),
        ({"TMP_REDIRECT": ""}, 1, "mode", "problem"),
        ({"PYTHONPATH": "/srv"}, 1, "shim", "problem"),
        ({"TMP_REDIRECT_GUARD": "x"}, 78, "settings", "stops"),
        ({"TMP_REDIRECT_GUARD": "calls,kernel"}, 78, "kernel", "stops"),
    ],
)
def test_images_that_are_not_good(
    doctor: Doctor, bare: str, overlay: Path, more: dict[str, str], status: int, subject: str, weight: str
) -> None:
    ended, found = doctor("--image", command=by_path(bare, overlay), **({"TMP_REDIRECT": "enforce"} | more))
    assert (ended, only(found, subject).weight) == (status, weight)


def test_the_kernel_layer_in_an_image(doctor: Doctor, overlay: Path, tmp_path: Path) -> None:
    """The kernel that builds it has no say: here it has no Landlock."""
    dist_info(tmp_path / "packages", "landlockpy", "0.2.0")
    before = without_landlock("ENOSYS")
    command = (*before, "TMP_REDIRECT=enforce", "TMP_REDIRECT_GUARD=calls,kernel", sys.executable, *MODULE)
    status, found = doctor("--image", command=command, PYTHONPATH=f"{overlay}:{tmp_path}/packages")
    assert (status, only(found, "kernel").weight, only(found, "shim").weight) == (0, "ok", "ok")


# The document


def test_the_document_explains_each_subject() -> None:
    text = (REPOSITORY / "docs" / "doctor.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.partition("| subject |")[2].splitlines() if line.startswith("| `")]
    subjects = [row[0].strip("| `") for row in rows]
    assert list(dict.fromkeys(subjects)) == list(finding.SUBJECTS)
    for row in rows:
        assert len(row) == 3 and all(cell.strip("| ") for cell in row), row
    for weight in finding.WEIGHTS:
        assert f"`{weight}`" in text


def test_the_command_has_only_documented_options() -> None:
    from services.common.tmp_redirect.doctor import add_arguments

    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    text = (REPOSITORY / "docs" / "doctor.md").read_text(encoding="utf-8")
    options = {option for action in parser._actions for option in action.option_strings}
    assert options == {"--json", "--image"}
    assert all(option in text for option in options)


def test_the_names_of_facts_are_those_that_are_told(shim_env: dict[str, str]) -> None:
    answer = interpreter.ask(shim_env)
    assert answer.status == 0 and isinstance(answer.facts, Facts)
