"""`tmp-redirect run`: real commands in processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import imageio_ffmpeg
import pytest

from services.common.tmp_redirect.cli import main
from services.common.tmp_redirect.kernel import availability
from tests.conftest import PACKAGE

X = Path("/tmp/tmp-redirect-x")
OURS = ("TMP_REDIRECT", "LC_CTYPE")  # the second is what Python adds to a C locale (PEP 538)
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(env: dict[str, str], mode: str) -> Run:
    """Runs `tmp-redirect run` with these arguments; the command alone, where the shim shall be off."""

    def run(*arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        ours = [sys.executable, "-m", "services.common.tmp_redirect", "run"]
        command = list(map(str, arguments))
        if mode == "off":
            ours, command = [], command[command.index("--") + 1 :]
        return subprocess.run(
            [*ours, *command], env=env | more, capture_output=True, text=True, timeout=60, check=False, cwd="/"
        )

    return run


def workspace(root: Path, workflow: str | None) -> str:
    return str(root / (".outside/svc" if workflow is None else workflow) / "tmp")


@pytest.mark.promise
@pytest.mark.parametrize("workflow", [None, "wf-1", "--"])
def test_any_command_uses_the_workspace(run: Run, root: Path, workflow: str | None) -> None:
    options = [] if workflow is None else [f"--workflow={workflow}"]
    shell = run(*options, "--", "sh", "-c", "echo $TMPDIR $TMP $TEMP $TEMPDIR; rm $(mktemp)")
    assert (shell.stdout.split(), shell.stderr) == ([workspace(root, workflow)] * 4, "")
    code = "import tempfile; print(tempfile.gettempdir()); open('/tmp/tmp-redirect-x', 'w')"
    python = run(*options, "--", sys.executable, "-c", code)
    assert python.stdout == f"{workspace(root, workflow)}\n"
    assert "TmpFallbackError" in python.stderr
    assert not X.exists()


def test_the_tree_that_it_was_run_from_is_put_on_the_path(env: dict[str, str], overlay: Path, tmp_path: Path) -> None:
    launcher = (
        f"import runpy, sys; sys.path.insert(0, {str(overlay)!r}); runpy.run_module('services.common.tmp_redirect')"
    )
    code = "import os, sys; print(os.environ['PYTHONPATH'], sys.modules['services.common.tmp_redirect'].__file__)"
    command = [sys.executable, "-c", launcher, "run", "--", sys.executable, "-c", code]
    env = {**env, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [f"{overlay}:{tmp_path}", f"{overlay / PACKAGE}/__init__.py"], done.stderr


def test_exit_status_and_signals_are_the_command_s_own(env: dict[str, str], run: Run) -> None:
    assert run("--", "sh", "-c", "exit 7").returncode == 7
    assert run("--", "sh", "-c", "kill -KILL $$").returncode == -signal.SIGKILL
    command = [sys.executable, "-m", "services.common.tmp_redirect", "run", "--"]
    script = "trap 'echo got it; exit 5' TERM; echo ready; while :; do read line; done"
    with subprocess.Popen(
        [*command, "bash", "-c", script], env=env, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout and child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGTERM)
        assert child.communicate()[0] == "got it\n"
        assert child.returncode == 5


def test_signals_that_python_ignores_are_not_ignored_by_the_command(env: dict[str, str], run: Run) -> None:
    show = ["grep", "SigIgn", "/proc/self/status"]
    stock = subprocess.run(show, env=env, capture_output=True, text=True, check=True)
    assert run("--", *show).stdout == stock.stdout


def test_off_is_the_command_alone(run: Run, env: dict[str, str], root: Path) -> None:
    for arguments, more in ((["--mode", "off"], {}), ([], {"TMP_REDIRECT": "off"})):
        done = run(*arguments, "--", "env", **more)
        seen = dict(line.split("=", 1) for line in done.stdout.splitlines())
        assert {name: value for name, value in seen.items() if name not in OURS} == env
    assert list(root.iterdir()) == []


@pytest.mark.promise
def test_options_win_over_the_environment(run: Run, root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    code = "import os, tempfile; print(tempfile.gettempdir(), os.environ['TMP_REDIRECT'])"
    done = run(
        "--root", other, "--workflow", "b", "--mode", "warn", "--", sys.executable, "-c", code,
        TMP_REDIRECT="enforce", TMP_REDIRECT_SCOPE="a",
    )  # fmt: skip
    assert done.stdout == f"{other}/b/tmp warn\n"


@pytest.mark.promise
def test_native_code_is_refused_by_the_kernel(run: Run, creates: Path) -> None:
    if availability().reason:
        pytest.skip(str(availability().reason))
    sound = ["-f", "lavfi", "-i", "sine=duration=0.1"]
    commands: list[list[str | Path]] = [
        [creates, "fopen", X],
        ["sh", "-c", f"echo > {X}"],
        [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-loglevel", "quiet", "-y", *sound, "-f", "wav", X],
    ]
    try:
        for command in commands:
            assert run("--guard", "kernel", "--", *command).returncode not in {0, 78}
            assert not X.exists()
            assert run("--mode", "off", "--", *command).returncode == 0
            X.unlink()
    finally:
        X.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([], 2, "no command; for example: tmp-redirect run --workflow wf-1 -- ffmpeg -version"),
        (["--"], 2, "no command"),
        (["--unknown", "--", "true"], 2, ""),
        (["--mode", "enforec", "--", "true"], 78, "TMP_REDIRECT='enforec' is not allowed: one of off, warn, enforce"),
        (["--guard", "x", "--", "true"], 78, "TMP_REDIRECT_GUARD='x' is not allowed"),
        (["--workflow", "../x", "--", "true"], 78, "TMP_REDIRECT_SCOPE='../x' is not allowed"),
        (["--root", "/nope", "--", "true"], 78, "the root /nope doesn't exist; mount"),
        (["--", "no-such-command"], 127, "no-such-command: command not found"),
        (["--", __file__], 126, f"{__file__}: Permission denied; chmod +x it"),
        (["--", "/dev/null"], 126, "/dev/null: Permission denied"),
        (["--", "/usr"], 126, "/usr: Is a directory"),
        (["--", "./no-such-command"], 127, "./no-such-command: command not found"),
    ],
)
def test_what_can_not_be_run_is_one_line(env: dict[str, str], arguments: list[str], status: int, said: str) -> None:
    command = [sys.executable, "-m", "services.common.tmp_redirect", "run", *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    if said:
        assert done.stderr.startswith("tmp-redirect run: ")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("option", ["--workflow", "--root"])
def test_an_option_of_a_variable_that_is_not_set(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", option, "", "--", "true"])
    assert ended.value.code == 2
    assert f"argument {option}: it is empty; give" in capsys.readouterr().err


def test_a_script_without_its_interpreter(env: dict[str, str], tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n", encoding="utf-8")
    script.chmod(0o755)
    command = [sys.executable, "-m", "services.common.tmp_redirect", "run", "--", str(script)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 126
    assert "script: the interpreter that its first line names is missing" in done.stderr


def test_a_file_that_is_no_program(env: dict[str, str], tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_bytes(b"\0")
    script.chmod(0o755)
    command = [sys.executable, "-m", "services.common.tmp_redirect", "run", "--", str(script)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (126, f"tmp-redirect run: {script}: Exec format error\n")
