"""Who uses a workspace, who takes it away, and what holds when any of them is killed in the middle."""

from __future__ import annotations

import json
import os
import posix
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from services.common.tmp_redirect.lifecycle import purge as purge_module
from services.common.tmp_redirect.settings import Settings

SOAK = os.environ.get("SOAK")
KILLS = 1000 if SOAK else 40


def run(shim_env: dict[str, str], helpers: Path, *arguments: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, helpers / "lifecycles.py", *arguments],
        env={**shim_env, "TMP_REDIRECT_KEEP": "failed", **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.promise
@pytest.mark.parametrize("keep", ["failed", "none"])
def test_killed_after_every_change(shim_env: dict[str, str], helpers: Path, keep: str) -> None:
    kills = int(run(shim_env, helpers, "exhaust", TMP_REDIRECT_KEEP=keep))
    assert kills > 75


@pytest.mark.promise
@pytest.mark.timeout(1800)
def test_killed_at_random_among_others(shim_env: dict[str, str], helpers: Path) -> None:
    seed = SOAK if SOAK and SOAK != "new" else str(secrets.randbelow(10**9))
    print(f"SOAK={seed}")
    assert int(run(shim_env, helpers, "random", seed, str(KILLS))) >= KILLS


class Program:
    """A Python program with the shim that runs a body up to each `wait()`, and goes on when it is told to."""

    HEAD = "import os, sys, tempfile\ndef wait(said=''):\n    print(said, flush=True)\n    sys.stdin.readline()\n"

    def __init__(self, body: str, env: dict[str, str], *prefix: str) -> None:
        self.popen = subprocess.Popen(
            [*prefix, sys.executable, "-c", self.HEAD + body],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def says(self) -> str:
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        assert line, self.popen.stderr and self.popen.stderr.read()
        return line.strip()

    def go_on(self) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()

    def end(self) -> None:
        _, errors = self.popen.communicate("\n" * 9)
        assert self.popen.returncode == 0, errors


@contextmanager
def program(body: str, env: dict[str, str], *prefix: str) -> Iterator[Program]:
    running = Program(body, env, *prefix)
    try:
        yield running
    finally:
        running.popen.kill()
        for file in (running.popen.stdin, running.popen.stdout, running.popen.stderr):
            assert file is not None
            file.close()  # not read to the end: a child that outlives it may hold it open
        running.popen.wait()


PURGE = """
from services.common.tmp_redirect.lifecycle.purge import purge
from services.common.tmp_redirect.settings import current
print(purge(current(), {workflow!r}).state)
"""
SWEEP = """
import json
from services.common.tmp_redirect.lifecycle.sweep import sweep
from services.common.tmp_redirect.settings import current
done = sweep(current(), -1)
print(json.dumps([done.removed, dict(done.kept), done.deferred]))
"""


def purge(env: dict[str, str], workflow: str = "wf", *prefix: str) -> str:
    return python(PURGE.format(workflow=workflow), env, *prefix)


def python(body: str, env: dict[str, str], *prefix: str) -> str:
    done = subprocess.run([*prefix, sys.executable, "-c", body], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


HOLD = """
from services.common.tmp_redirect import workflow
with workflow("wf"):
    open(tempfile.gettempdir() + "/held", "x").close()
    wait()
    os.stat(tempfile.gettempdir() + "/held")
wait()
"""


@pytest.mark.promise
def test_what_a_live_process_uses_stays(shim_env: dict[str, str], root: Path) -> None:
    with program(HOLD, shim_env) as holder:
        holder.says()
        assert purge(shim_env) == "in use"
        assert (root / "wf" / "tmp" / "held").exists()
        holder.go_on()
        holder.says()
        assert purge(shim_env) == "purged"
        assert not (root / "wf" / "tmp").exists()
        assert not list((root / ".trash").iterdir())
        assert not (root / ".leases" / "wf").exists()
        holder.end()


@pytest.mark.promise
def test_what_a_killed_process_used_does_not(shim_env: dict[str, str], root: Path) -> None:
    with program(HOLD, shim_env) as holder:
        holder.says()
        holder.popen.kill()
        holder.popen.wait()
        assert [name.partition("~")[0] for name in leases_of(root)] == ["lease"]
        assert purge(shim_env) == "purged"
        assert not (root / ".leases" / "wf").exists()


@pytest.mark.promise
@pytest.mark.parametrize("way", ["python child", "forked child"])
def test_what_outlives_its_scope_uses_the_workspace(shim_env: dict[str, str], root: Path, way: str) -> None:
    starts = {
        "python child": "import subprocess\n    subprocess.Popen([sys.executable, '-c', child])",
        "forked child": "os.fork() or run(child)",
    }
    body = f"""
from services.common.tmp_redirect import workflow
r, w = os.pipe()
os.set_inheritable(w, True)
child = f'''
import os, tempfile
open(tempfile.gettempdir() + "/used", "x").close()
os.write({{w}}, b"x")
while not os.path.exists({str(root / "let-go")!r}): __import__("time").sleep(0.005)
os.stat(tempfile.gettempdir() + "/used")
os.write({{w}}, b"y")
'''
def run(child):
    try:
        exec(child)
    finally:
        os._exit(0)
with workflow("wf"):
    {starts[way]}
    os.close(w)
    assert os.read(r, 1)
wait()
assert os.read(r, 1) == b"y"
os.wait()
wait()
"""
    body = body.replace("Popen([sys.executable, '-c', child])", "Popen([sys.executable, '-c', child], close_fds=False)")
    with ExitStack() as stack:
        stack.callback((root / "let-go").touch)
        starter = stack.enter_context(program(body, shim_env))
        starter.says()
        assert purge(shim_env) == "in use"
        (root / "let-go").touch()
        starter.go_on()
        starter.says()
        assert purge(shim_env) == "purged"
        starter.end()


def host(name: str, boot_id: Path) -> tuple[str, ...]:
    """A command prefix: another host, with a name, a boot id and processes of its own."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("another host takes root and unshare")
    script = f'hostname {name} && mount --bind {boot_id} /proc/sys/kernel/random/boot_id && exec "$@"'
    return ("unshare", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script, "sh")


@pytest.fixture
def hosts(tmp_path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    prefixes = []
    for name in ("alpha", "beta"):
        boot_id = tmp_path / name
        boot_id.write_text(f"{secrets.token_hex(4)}-{secrets.token_hex(2)}-4000-8000-{secrets.token_hex(6)}\n")
        prefixes.append(host(name, boot_id))
    done = subprocess.run([*prefixes[0], "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"namespaces are not allowed here: {done.stderr}")
    return prefixes[0], prefixes[1]


def leases_of(root: Path, workflow: str = "wf") -> list[str]:
    directory = root / ".leases" / workflow
    return (
        sorted(path.name for path in directory.iterdir() if not path.name.startswith("ours"))
        if directory.exists()
        else []
    )


@pytest.mark.promise
def test_two_hosts_of_which_one_dies(
    shim_env: dict[str, str], root: Path, hosts: tuple[tuple[str, ...], tuple[str, ...]]
) -> None:
    alpha, beta = hosts
    env = {**shim_env, "TMP_REDIRECT_TTL": "1h"}
    held = HOLD.replace("/held", '/held-" + os.uname().nodename + "')
    with program(held, env, *alpha) as one, program(held, env, *beta) as other:
        one.says()
        other.says()
        assert [lease.split("~")[1] for lease in leases_of(root)] == ["alpha", "beta"]
        assert len({lease.split("~")[2] for lease in leases_of(root)}) == 2
        one.popen.kill()
        one.popen.wait()
        for here in (alpha, beta, ()):  # a new process on the dead host's machine doesn't know it either
            assert purge(env, "wf", *here) == "in use"
        other.go_on()
        other.says()  # its file was there until now
        assert purge(env, "wf", *beta) == "in use", "alpha may be alive for all that beta knows"
        assert '"in use": 1' in python(SWEEP, env, *beta)
        [lease] = leases_of(root)
        an_hour_ago = time.time() - 3601
        os.utime(root / ".leases" / "wf" / lease, (an_hour_ago, an_hour_ago))
        assert purge(env, "wf", *beta) == "in use", "only a sweep takes a lease for expired"
        removed = python(SWEEP, env, *beta)
        assert str(root / "wf" / "tmp") in removed
        assert not (root / "wf" / "tmp").exists()
        assert leases_of(root) == []
        other.end()


IMPATIENT = """
from services.common.tmp_redirect.lifecycle import purge_if_over, leases
leases.PATIENCE = {patience}
"""
HALTED = """
from services.common.tmp_redirect.lifecycle import purge_if_over, purge
from services.common.tmp_redirect.settings import current
purge.PATIENCE = {patience}
judge = purge._judge
def halt(*arguments):
    found = judge(*arguments)
    {halt}
    return found
purge._judge = halt
print(purge.purge(current(), "wf").state, flush=True)
wait()
"""


@pytest.mark.promise
def test_a_purge_that_died_on_another_host_is_in_the_way_for_a_while(
    shim_env: dict[str, str], root: Path, hosts: tuple[tuple[str, ...], tuple[str, ...]]
) -> None:
    alpha, beta = hosts
    (root / "wf" / "tmp").mkdir(parents=True)
    with program(HALTED.format(halt="os._exit(9)", patience=10), shim_env, *alpha) as dying:
        dying.popen.wait()
    assert [name.partition("~")[0] for name in leases_of(root)] == ["purge"]
    begin = time.monotonic()
    with program(IMPATIENT.format(patience=1.5) + HOLD, shim_env, *beta) as holder:
        holder.says()
        assert time.monotonic() - begin > 1.5
        assert [name.partition("~")[0] for name in leases_of(root)] == ["lease"]
        holder.end()


@pytest.mark.promise
def test_a_purge_that_was_halted_gives_up(shim_env: dict[str, str], root: Path) -> None:
    """As on a virtual machine that is paused: when it goes on, somebody has begun to use the workspace."""
    (root / "wf" / "tmp").mkdir(parents=True)
    with ExitStack() as stack:
        purging = stack.enter_context(program(HALTED.format(halt="wait()", patience=1), shim_env))
        purging.says()
        holder = stack.enter_context(program(IMPATIENT.format(patience=1) + HOLD, shim_env))
        holder.says()
        purging.go_on()
        assert purging.says() == "deferred"
        purging.end()
        holder.go_on()
        assert holder.says() == "", "its file is there"
        holder.end()
        assert purge(shim_env) == "purged"


def test_a_purge_whose_last_call_took_too_long_puts_the_workspace_back(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the file server was away: somebody may have taken the purge for dead, and begun."""
    workspace = root / "wf" / "tmp"
    workspace.mkdir(parents=True)
    (workspace / "file").touch()
    rename, late = posix.rename, time.clock_gettime(purge_module._CLOCK) + 60

    def slow(*arguments: str, **options: int) -> None:
        monkeypatch.setattr(purge_module.time, "clock_gettime", lambda _: late)
        rename(*arguments, **options)

    monkeypatch.setattr(purge_module.posix, "rename", slow)
    outcome = purge_module.purge(Settings({"TMP_REDIRECT_ROOT": str(root)}), "wf")
    assert (outcome.state, "too long" in outcome.reason) == ("deferred", True)
    assert os.listdir(workspace) == ["file"]
    assert os.listdir(root / ".trash") == []
    assert leases_of(root) == []


def test_the_environment_follows_a_thousand_workflows_without_growing(shim_env: dict[str, str], root: Path) -> None:
    """What setenv(3) of glibc would keep; a native child tells what is there."""
    body = f"""
import subprocess
from services.common.tmp_redirect.propagate import Environment
from services.common.tmp_redirect.scope import current, enter, return_to
def grown():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
environment, before = Environment(), current()
for number in range(6000):
    workflow = f"{{number}}-" + "x" * 100
    enter(workflow)
    environment.follow(current())
    return_to(before)
    if number % 1000 == 0:
        environment.follow(current())
        assert "TMP_REDIRECT_SCOPE" not in os.environ and "TMPDIR" not in os.environ
        enter(workflow)
        environment.follow(current())
        env = subprocess.run(["/usr/bin/env"], env=None, capture_output=True, text=True, check=True).stdout.splitlines()
        assert f"TMPDIR={root}/{{workflow}}/tmp" in env and f"TMP_REDIRECT_SCOPE={{workflow}}" in env
        assert os.system(f'test "$TMPDIR" = {root}/{{workflow}}/tmp && test "$TEMP" = "$TMPDIR"') == 0
        return_to(before)
    if number == 2000:
        start = grown()
environment.follow(current())
assert "TMP_REDIRECT_SCOPE" not in os.environ and "TMPDIR" not in os.environ
assert grown() - start < 2**20, grown() - start
"""
    python(Program.HEAD + body, shim_env)


FULL = """
import json, os, sys, tempfile
from services.common.tmp_redirect.integrations.celery_ends import end, note_ended, note_published
from services.common.tmp_redirect.scope import enter, leave

root, parts = os.environ["TMP_REDIRECT_ROOT"], int(sys.argv[1])
marks = lambda: sorted(name for name in os.listdir(f"{root}/.leases/wf") if not name.startswith("ours"))
is_there = lambda: os.path.isdir(f"{root}/wf/tmp")

def ends(task, state="SUCCESS", **request):
    noted = note_ended("wf", task, state, comes_again=False)
    end("wf", task, {"root_id": "canvas", **request}, state, comes_again=False, noted=noted)

def run(task):
    scope = enter("wf")
    file = tempfile.mkstemp()
    leave(scope)
    ends(task)

for task in ("publisher", "side", "failing"):
    note_published("wf", task)
scope = enter("wf")
assert tempfile.mkstemp()[1].startswith(f"{root}/wf/tmp/")
fillers = []
try:
    while True:
        fillers.append(f"{root}/filler-{len(fillers)}")
        os.mkdir(fillers[-1])
except OSError:
    fillers.pop()
names = [f"part-{number}" for number in range(parts)]
for name in names:
    note_published("wf", name)
leave(scope)
assert is_there() and len(marks()) == 4, marks()  # the lease stands for what could not be noted
ends("publisher", chain=[{"options": {}}])
if sys.argv[2] == "fails":
    ends("failing", "FAILURE")
    assert "failed~canvas" in marks(), marks()
else:
    ends("failing")
for filler in fillers:
    os.rmdir(filler)
ends("side")
assert is_there(), "the files of a task to come are lost"
for name in names:
    assert is_there()
    run(name)
print(json.dumps([is_there(), marks() if is_there() else []]))
"""


@pytest.mark.promise
@pytest.mark.parametrize(
    ("parts", "how", "left"),
    [
        (1, "succeeds", [False, []]),
        (2, "succeeds", [True, ["pending~=several="]]),  # for the sweep
        (1, "fails", [True, ["failed~canvas"]]),
    ],
)
def test_what_is_published_and_fails_while_there_is_no_space_is_noted_all_the_same(
    shim_env: dict[str, str], parts: int, how: str, left: list[object]
) -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("a file system of its own takes root and unshare")
    mount = 'mount -t tmpfs -o nr_inodes=100 tmpfs "$TMP_REDIRECT_ROOT" && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", sys.executable, "-c", FULL, str(parts), how],
        env={**shim_env, "TMP_REDIRECT_KEEP": "failed"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == left
