"""What operators get wrong, and what surrounds them: each command says what is wrong and what to do, or does its work.

Never is a traceback seen, which is for bugs of ours.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from services.common.tmp_redirect import cli
from services.common.tmp_redirect.settings import VARIABLES
from tests.test_sweep import as_nobody
from tests.test_workspace import open_up

WORKFLOW = "工作流-1"
FINE = {  # a command line that works, and its status, for each command that prints something of its own
    "--help": 0,
    "status": 0,
    "sweep --dry-run": 0,
    "scan 文件.py": 1,
    "scan-logs 工作.log": 1,
    "doctor": 0,
    "completion bash": 0,
}
AS_JSON = {
    "status --json": 0,
    "sweep --dry-run --json": 0,
    "scan 文件.py --json": 1,
    "scan-logs 工作.log --json": 1,
    "doctor --json": 0,
}
NEED_SETTINGS = ("status", "sweep --dry-run", "scan-logs 工作.log", "run -- false")
NEED_ROOT = ("status", "status --json", "sweep", "sweep --dry-run", "run -- false", "run --workflow wf-1 -- false")
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def here(tmp_path: Path, root: Path) -> Path:
    """A working directory with what the commands are given."""
    (root / WORKFLOW / "tmp").mkdir(parents=True)
    directory = tmp_path / "here"
    directory.mkdir()
    (directory / "文件.py").write_text('open("/tmp/é", "w")\n', encoding="utf-8")
    (directory / "工作.log").write_text("wrote /tmp/工作\n", encoding="utf-8")
    return directory


@pytest.fixture
def start(env: dict[str, str], here: Path) -> Iterator[Start]:
    """Starts the command line by a shell, so that it may redirect."""

    def start(arguments: str, redirected: str = "", **more: str) -> subprocess.Popen[str]:
        ours = f"{sys.executable} -m services.common.tmp_redirect"
        return subprocess.Popen(
            ["bash", "-c", f"{ours} {arguments} {redirected}"],
            env=env | more, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            encoding="utf-8", errors="replace",
        )  # fmt: skip

    return start


def ended(started: dict[str, subprocess.Popen[str]]) -> dict[str, tuple[int, str, str]]:
    """The status, stdout and stderr of each; they run at the same time."""
    found = {}
    for arguments, child in started.items():
        out, err = child.communicate(timeout=60)
        found[arguments] = child.returncode, out, err
        assert "Traceback" not in err and "Exception ignored" not in err, f"{arguments}: {err}"
    return found


def test_each_command_is_tried_here() -> None:
    tried = {arguments.split()[0] for arguments in (*FINE, *NEED_ROOT)}
    assert {command.name for command in cli.COMMANDS} - tried <= {"demo", "install-site", "uninstall-site"}


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_below_stdout(start: Start, unbuffered: str) -> None:
    lines = FINE if unbuffered else FINE | AS_JSON
    started = {arguments: start(arguments, ">/dev/full", PYTHONUNBUFFERED=unbuffered) for arguments in lines}
    for arguments, (status, _, err) in ended(started).items():
        last = "tmp-redirect: the output could not be written: No space left on device; what is there is incomplete"
        assert (status, err.splitlines()[-1]) == (74, last), arguments
        assert "not read to its end" not in err


def test_a_reader_that_ends_early(start: Start) -> None:
    redirected = "3>&2 2>&3 | true; exit ${PIPESTATUS[0]}"
    started = {arguments: start(arguments, redirected) for arguments in FINE}
    for arguments, (status, _, err) in ended(started).items():
        assert status in (FINE[arguments], 141), arguments
        assert len(err.splitlines()) <= 1, err


def test_a_full_disk_below_stderr(start: Start) -> None:
    started = {arguments: start(arguments, "2>/dev/full") for arguments in [*FINE, "nonsense"]}
    for arguments, (status, _, _) in ended(started).items():
        assert status == FINE.get(arguments, 2), arguments


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_closed_streams(start: Start, closed: str) -> None:
    lines = FINE | {"nonsense": 2, "scan-logs - <&-": 2} | (AS_JSON if closed == "2>&-" else {})
    for arguments, (status, out, _) in ended({words: start(words, closed) for words in lines}).items():
        assert status == lines[arguments], arguments
        if arguments in AS_JSON:
            json.loads(out)  # what is said on stderr doesn't go there


@pytest.mark.parametrize(
    "locale",
    [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "latin-1"}],
    ids=["C", "ASCII", "Latin-1"],
)
def test_a_locale_that_can_not_say_a_workflow_s_id(start: Start, locale: dict[str, str]) -> None:
    dry = "sweep --dry-run --older-than 0"
    for arguments, (status, out, _) in ended({words: start(words, **locale) for words in [*FINE, dry]}).items():
        assert status == FINE.get(arguments, 0), arguments
        if arguments in ("status", dry) and "PYTHONUTF8" not in locale:  # there it can't be the name of a directory
            assert WORKFLOW in out or WORKFLOW.encode("unicode_escape").decode() in out


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_bad_setting(
    variable: str, env: dict[str, str], here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(here)
    for name, value in {**env, variable: "x/\x1b"}.items():
        monkeypatch.setenv(name, value)
    for arguments in NEED_SETTINGS:
        assert cli.main(arguments.split()) == 78, arguments
        output = capsys.readouterr()
        assert output.err.startswith(f"tmp-redirect {arguments.split()[0]}: {variable}=")
        assert "is not allowed" in output.err
        assert "\x1b" not in output.err


def roots(tmp_path: Path) -> dict[str, str]:
    """Roots that can't be used, and what is said of them."""
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    return {
        f"{tmp_path}/nope": "doesn't exist; mount the shared volume there, or create it, or set TMP_REDIRECT_ROOT",
        f"{tmp_path}/file": "is not a directory; remove it, or set TMP_REDIRECT_ROOT",
        f"{tmp_path}/file/x": "is not a directory; remove it, or set TMP_REDIRECT_ROOT",
        f"{tmp_path}/loop": "set TMP_REDIRECT_ROOT to the directory that is meant",
        f"{tmp_path}/{'a' * 300}": "set TMP_REDIRECT_ROOT to the directory that is meant",
        "/dev/null": "is not a directory",
        "/": "TMP_REDIRECT_ROOT='/' is not allowed",
        "/tmp": "TMP_REDIRECT_ROOT='/tmp' is not allowed",
    }


@pytest.mark.parametrize("arguments", NEED_ROOT)
def test_a_root_that_can_not_be_used(
    arguments: str, env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    command, *rest = arguments.split()
    for root, expected in roots(tmp_path).items():
        assert cli.main([command, "--root", root, *rest]) == 78, root
        output = capsys.readouterr()
        assert expected in output.err, root
        assert (output.out, len(output.err.splitlines())) == ("", 1)


@pytest.mark.parametrize("mode", [0o000, 0o300, 0o500])
def test_a_root_of_another_user(mode: int, env: dict[str, str], root: Path) -> None:
    open_up(root)
    root.chmod(mode)
    for arguments in ("status --json", "sweep", "sweep --dry-run"):
        done = as_nobody(env, *arguments.split())
        if arguments == "status --json" and mode == 0o500:
            continue  # it may not be read by others either
        assert done.returncode == 78, done.stderr
        assert "Permission denied for uid" in done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["status", "sweep"])
def test_a_root_that_was_left_empty_or_is_relative(
    command: str, env: dict[str, str], root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:  # --root "$UNSET" is not the default root
        cli.main([command, "--root", ""])
    assert exit_.value.code == 2
    assert "argument --root: it is empty; give a directory, or leave the option out" in capsys.readouterr().err
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TMP_REDIRECT_ROOT")
    monkeypatch.chdir(root.parent)
    assert cli.main([command, "--root", root.name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out).get("root", str(root)) == str(root)


@pytest.mark.parametrize("library", ["rich", "ruff", "shtab", "landlockpy", "prometheus_client", "celery", "wrapt"])
def test_a_library_that_is_not_installed(
    library: str, env: dict[str, str], here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(here)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    if library == "ruff":
        monkeypatch.setenv("PATH", str(here))
        monkeypatch.setattr("sysconfig.get_path", lambda name: str(here))
    for name in [library, *(name for name in sys.modules if name.startswith(f"{library}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    needs = {
        "ruff": "scan 文件.py",
        "shtab": "completion bash",
        "landlockpy": "run --guard kernel -- false",
    }
    for arguments in {*FINE, needs.get(library, "status")} - {"--help", "doctor"}:
        status = cli.main(arguments.split())
        said = capsys.readouterr().err
        if arguments == needs.get(library):
            assert status in (2, 78)
            assert re.search(rf"{library}\b.*install ", said), said
        else:
            assert status == FINE[arguments], said


INTERRUPT = """
import os, signal, sys
from services.common.tmp_redirect import cli
parent = os.getpid()

class Interrupter:  # at each import, a child of this process is interrupted
    def find_spec(self, name, *_):
        if os.getpid() != parent:
            return
        child = os.fork()
        if not child:
            os.kill(os.getpid(), signal.SIGINT)
        else:
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            print('interrupted' if status == 130 else f'{name}: {status}')

sys.meta_path.insert(0, Interrupter())
try:
    status = cli.main(sys.argv[1:])
except SystemExit as ended:
    status = ended.code
if os.getpid() != parent:
    os._exit(status)
sys.exit(status)
"""


@pytest.mark.parametrize("arguments", [*FINE, "run -- true"])
def test_ctrl_c_while_modules_are_loaded(arguments: str, env: dict[str, str], here: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPT, *arguments.split()],
        env={**env, "PYTHONUNBUFFERED": "1"}, cwd=here, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == FINE.get(arguments, 0)
    assert "Traceback" not in done.stderr and "ignored" not in done.stderr
    lines = done.stdout.splitlines()
    assert lines.count("interrupted") > 5
    assert not [line for line in lines if re.fullmatch(r"[\w.]+: -?\d+", line)]


Look = Callable[..., str]


@pytest.fixture
def look(env: dict[str, str], here: Path) -> Look:
    """What a command writes to a terminal."""

    def look(arguments: Sequence[str], columns: int = 80, **more: str) -> str:
        above, below = pty.openpty()
        try:
            fcntl.ioctl(below, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
            subprocess.run(
                [sys.executable, *arguments],
                env={**env, "TERM": "xterm-256color", **more},
                cwd=here, stdin=below, stdout=below, stderr=below, check=False, timeout=60,
            )  # fmt: skip
            os.write(below, b"\0")  # where it ends
            said = b""
            while not said.endswith(b"\0"):
                said += os.read(above, 2**16)
            return said[:-1].decode()
        finally:
            os.close(above)
            os.close(below)

    return look


OURS = ("-m", "services.common.tmp_redirect")
LONG_SWEEP = (
    "import sys\n"
    "from services.common.tmp_redirect import cli\n"
    "from services.common.tmp_redirect.lifecycle import sweep_command\n"
    "sweep_command.LONG = -1\n"
    "sys.exit(cli.main(['sweep', '--dry-run']))"
)
DEMO = (
    "import sys\n"
    "sys.path.insert(0, sys.argv[1])\n"
    "from pathlib import Path\n"
    "from examples.evidence import Pass\n"
    "from examples.report import print_tables\n"
    "run = Pass('a pass', Path('/x'), Path('/x/workflows'), 'mark', outside='gateway')\n"
    "print_tables(run, run, {('site', 'wf-1'): 1}, ['something is wrong'])"
)
COLOURED = (
    ("status",),
    ("sweep", "--dry-run"),
    ("doctor",),
    ("scan", "文件.py"),
    ("scan-logs", "工作.log"),
    ("--help",),
)
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])[;m]")


@pytest.mark.parametrize("more", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_no_colours_where_they_are_not_wanted(look: Look, more: dict[str, str]) -> None:
    repository = str(Path(__file__).resolve().parents[1])
    for arguments in (*((*OURS, *words) for words in COLOURED), ("-c", LONG_SWEEP), ("-c", DEMO, repository)):
        said = look(arguments, **more)
        assert said
        assert not COLOUR.search(said), said
        if "TERM" in more:
            assert "\x1b" not in said


def test_colours_where_they_are_wanted(look: Look) -> None:
    repository = str(Path(__file__).resolve().parents[1])
    for more in ({}, {"NO_COLOR": ""}):  # which counts only if it is not empty
        assert COLOUR.search(look(("-c", DEMO, repository), **more))
        assert COLOUR.search(look(("-c", LONG_SWEEP), **more))
        assert "\x1b[1m" in look((*OURS, "status"), **more)


def test_no_escape_codes_where_stdout_is_no_terminal(start: Start) -> None:
    for arguments, (_, out, err) in ended({words: start(words, TERM="xterm-256color") for words in FINE}).items():
        assert "\x1b" not in out + err, arguments


def test_a_narrow_terminal(look: Look) -> None:
    for arguments in COLOURED:
        said = look((*OURS, *arguments), columns=20)
        assert said and "Traceback" not in said
    said = look((*OURS, "status"), columns=20)
    assert WORKFLOW in said  # as it is in a line that the terminal wraps
    assert "┃" not in said
    assert "┃" in look((*OURS, "status"), columns=80)


def test_watching_on_a_dumb_terminal(look: Look) -> None:
    said = look((*OURS, "status", "--watch"), TERM="dumb")
    assert said == "tmp-redirect status: --watch needs a terminal that can do more than TERM=dumb says\r\n"
