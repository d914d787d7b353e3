"""The command line: what it says and its exit statuses; what the commands do is tested beside them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from services.common.tmp_redirect import __version__, cli
from services.common.tmp_redirect.command_output import CONFIGURATION, FINDINGS, OK, USAGE
from services.common.tmp_redirect.kernel import availability

EXAMPLES = [(command.name, example) for command in cli.COMMANDS for example in command.examples]
NOT_RUN = {"demo", "install-site", "uninstall-site"}  # it takes long, and they change the interpreter


def helped(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.main([*arguments, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_help_names_every_command_and_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    said = " ".join(helped(capsys).split())
    assert said.startswith("usage: tmp-redirect ")
    for command in cli.COMMANDS:
        assert f"{command.name} {command.summary}" in said


def test_help_names_every_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    listed = re.search(r"exit status:\n(.*)", helped(capsys), re.DOTALL)
    assert listed
    statuses = {
        int(number) for number in re.findall(r"\b(\d+)\b", "".join(re.findall(r"^  (.{9})", listed[1], re.MULTILINE)))
    }
    assert statuses == {OK, FINDINGS, USAGE, cli.OUTPUT, CONFIGURATION, 126, 127, cli.INTERRUPTED}


@pytest.mark.parametrize("command", cli.COMMANDS, ids=lambda command: command.name)
def test_help_of_a_command(
    command: cli.Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 1 <= len(command.examples) <= 4
    for columns in (20, 60, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        said = helped(capsys, command.name)
        assert said.startswith(f"usage: tmp-redirect {command.name}")
        assert "".join(command.description.split()) in "".join(said.split())
        for example in command.examples:
            assert f"\n  {example}\n" in said
            assert len(example) <= 118
        above, _, _ = said.partition("examples:")
        if columns >= 60:
            assert max(map(len, above.splitlines()[1:])) <= columns


@pytest.fixture
def project(tmp_path: Path, root: Path, shim_env: dict[str, str]) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Runs a line of a shell where there is what the examples name."""
    (root / "wf-1" / "tmp").mkdir(parents=True)
    (root / "wf-1" / "tmp" / "x").touch()
    programs, here = tmp_path / "bin", tmp_path / "here"
    for directory in (programs, here / "services", here / "tests", tmp_path / ".config" / "fish" / "completions"):
        directory.mkdir(parents=True)
    ours = f'exec {sys.executable} -m services.common.tmp_redirect "$@"'
    others = {"ffmpeg": "test -d $TMPDIR", "docker": "echo 'wrote /tmp/x'", "python": f'exec {sys.executable} "$@"'}
    for name, text in {"tmp-redirect": ours, **others}.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    (here / "report.py").write_text("import tempfile; tempfile.TemporaryFile()")
    for name in ("worker.log", "worker.log.1.gz", "docker-compose.yml", "services/app.py"):
        (here / name).touch()
    env = {
        name: value for name, value in shim_env.items() if name not in ("TMP_REDIRECT", "TMP_REDIRECT_KEEP")
    } | {"HOME": str(tmp_path), "PATH": f"{programs}:{os.environ['PATH']}"}  # fmt: skip

    def run(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["bash", "-c", line], env=env, cwd=here, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize(("name", "example"), EXAMPLES, ids=[example.split("  ")[0] for _, example in EXAMPLES])
def test_examples_work(
    name: str, example: str, root: Path, project: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    words = shlex.split(example.split("&&", maxsplit=1)[0], comments=True)
    if name in NOT_RUN or "--watch" in words:
        cli.parser([name]).parse_args(words[1:])
        return
    if "kernel" in example and (reason := availability().reason):
        pytest.skip(str(reason))
    done = project(example.replace("/srv/workflows", str(root)))
    assert (done.returncode, "Traceback" in done.stderr) in ((0, False), (1, False)), done.stderr
    assert done.returncode == 0 or name in ("scan", "scan-logs", "doctor"), done.stderr


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"tmp-redirect {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "tmp-redirect: error: no command; tmp-redirect --help lists them"),
        (["--unknown"], "tmp-redirect: error: unrecognized arguments: --unknown"),
        (["unknown"], "tmp-redirect: error: no command 'unknown'; tmp-redirect --help lists them"),
        (["statsu"], "error: no command 'statsu'; did you mean status?"),
        (["scan_log"], "error: no command 'scan_log'; did you mean scan-logs?"),
        (["\x1b[31m\udcff"], r"no command '\x1b[31m\udcff'"),
        (["demo", "--unknown"], "tmp-redirect demo: error: unrecognized arguments: --unknown"),
        (["demo", "--root"], "tmp-redirect demo: error: argument --root: expected one argument"),
        (["demo", "more"], "tmp-redirect demo: error: unrecognized arguments: more"),
    ],
)
def test_a_usage_error_is_status_2(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == USAGE == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("usage: tmp-redirect")
    assert complaint in output.err.splitlines()[-1]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets there be one command, `end --status N`, which does what is given."""

    def command(run: Callable[..., int]) -> None:
        module = SimpleNamespace(add_arguments=lambda parser: parser.add_argument("--status", type=int), run=run)
        monkeypatch.setitem(sys.modules, f"{cli.__package__}.end", module)  # type: ignore[arg-type]
        monkeypatch.setattr(cli, "COMMANDS", (cli.Command("end", "end with a status", "end", "End.", "end"),))

    return command


def test_a_command_gets_its_options_and_gives_the_status(command: Callable[..., None]) -> None:
    command(lambda options: int(options.status))
    assert cli.main(["end", "--status", "42"]) == 42


def test_ctrl_c_is_status_130(command: Callable[..., None]) -> None:
    def interrupt(options: object) -> int:
        raise KeyboardInterrupt

    command(interrupt)
    assert cli.main(["end"]) == 130


def test_a_bug_of_ours_is_seen(command: Callable[..., None]) -> None:
    def fail(options: object) -> int:
        raise OSError(28, "No space left on device")

    command(fail)
    with pytest.raises(OSError, match="No space left"):
        cli.main(["end"])


def loaded(arguments: str) -> set[str]:
    """The modules that a command line loads, beside those of an interpreter's start."""
    code = (
        "import json, sys; before = {*sys.modules}\n"
        "from services.common.tmp_redirect import cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(json.dumps([*{*sys.modules} - before]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments.split()], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("arguments", ["--help", "--version"])
def test_help_is_quick_for_it_loads_no_command(arguments: str) -> None:
    found = loaded(arguments)
    ours = {name.removeprefix("services.common.tmp_redirect.") for name in found if "tmp_redirect" in name}
    assert ours == {"services.common.tmp_redirect", "cli", "standard_streams"}
    assert not found & {"ast", "dataclasses", "inspect", "json", "pathlib", "rich", "subprocess", "typing"}


def test_a_command_loads_no_other() -> None:
    found = loaded("run")
    assert "services.common.tmp_redirect.run" in found
    assert not [name for name in found if name.endswith(("_command", ".command", ".logs", ".doctor", ".completion"))]


def test_no_command_loads_rich_before_it_is_needed() -> None:
    code = (
        "import sys\nfrom services.common.tmp_redirect import cli\n"
        "cli.parser([command.name for command in cli.COMMANDS])\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('rich', 'shtab', 'celery', 'wrapt')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
