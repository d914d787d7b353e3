"""The completion scripts, in the real shells, which read what a person types on a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from services.common.tmp_redirect import cli, completion
from services.common.tmp_redirect.command_output import CONFIGURATION

IDS = ("wf-1", "wf-2", "two words", "$(touch ran)", "`touch ran`", "a;touch ran", "it's", "*", "工作流", '"', "~", "-x")
OPTIONS = sorted(
    {(command.name, option) for command in cli.COMMANDS for option in ("--help",)}
    | {("sweep", "--older-than"), ("sweep", "--dry-run"), ("run", "--workflow"), ("scan-logs", "--allow")}
)
SHELL_START = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "PS1='READY> '; bind 'set enable-bracketed-paste off'"),
    "zsh": (
        ["zsh", "-f", "-i"],
        "autoload -Uz compinit && compinit -D; PROMPT='READY> '; unsetopt prompt_sp; unset zle_bracketed_paste",
    ),
    "tcsh": (["tcsh", "-f", "-i"], "set edit prompt='READY> '"),
}
STUB = {  # says what the line means when it is run
    "bash": "tmp-redirect() { printf '<%s>' \"$@\"; echo; }",
    "zsh": "tmp-redirect() { printf '<%s>' \"$@\"; echo; }",
    "tcsh": "alias tmp-redirect printf \"'<%s>'\"",
}


def shell(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed here")
    return path


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The path of the script for a shell, as a process printed it."""
    directory = tmp_path_factory.mktemp("completion")

    def script(name: str) -> Path:
        path = directory / name
        if not path.exists():
            command = [sys.executable, "-m", "services.common.tmp_redirect", "completion", name]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            assert done.stderr == ""
            path.write_text(done.stdout, encoding="utf-8")
        return path

    return script


@pytest.fixture
def here(tmp_path: Path, root: Path) -> Path:
    """A working directory, and beside it the root with workflows, whose ids strangers have chosen."""
    for workflow in IDS:
        (root / workflow / "tmp").mkdir(parents=True)
    for name in (".outside", ".cache"):
        (root / name).mkdir()
    (root / "no-directory").touch()
    directory = tmp_path / "here"
    for name in ("src", "docs"):
        (directory / name).mkdir(parents=True)
    for name in ("worker.log", "notes.txt"):
        (directory / name).touch()
    return directory


def environment(root: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(root),
        "LC_ALL": "C.UTF-8",
        "TERM": "dumb",
        "TMP_REDIRECT_ROOT": str(root),
    }


Complete = Callable[..., list[str]]


@pytest.fixture
def bash(script: Callable[[str], Path], here: Path, root: Path) -> Complete:
    """What bash has found for the last of these words when a person asks for it."""

    def complete(*words: str, before: str = "") -> list[str]:
        line = " ".join(map(shlex.quote, ("tmp-redirect", *words)))
        code = (
            f"{before}\nsource {script('bash')}\n"
            "function=$(complete -p tmp-redirect); function=${function#*-F }; function=${function%% *}\n"
            f"COMP_WORDS=({line}); COMP_CWORD={len(words)}; COMP_LINE={shlex.quote(line)}; COMP_POINT=${{#COMP_LINE}}\n"
            '"$function" tmp-redirect "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"\n'
            "[[ ${#COMPREPLY[@]} = 0 ]] || printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        done = subprocess.run(
            [shell("bash"), "--norc", "--noprofile", "-c", code],
            env=environment(root),
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        return done.stdout.splitlines()

    return complete


@pytest.fixture
def fish(script: Callable[[str], Path], here: Path, root: Path) -> Complete:
    """What fish has found for the last of these words."""

    def complete(*words: str) -> list[str]:
        line = " ".join(("tmp-redirect", *words))
        done = subprocess.run(
            [shell("fish"), "--no-config", "-c", f"source {script('fish')}; complete -C {shlex.quote(line)}"],
            env=environment(root),
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        return [line.split("\t")[0] for line in done.stdout.splitlines()]

    return complete


COMPLETED = [
    (["s"], ["status", "sweep", "scan", "scan-logs"]),
    (["scan-"], ["scan-logs"]),
    (["--v"], ["--version"]),
    (["sweep", "--d"], ["--dry-run"]),
    (["sweep", "--dry-run", "--older"], ["--older-than"]),
    (["scan", "--format", "s"], ["sarif"]),
    (["run", "--mode", ""], ["off", "warn", "enforce"]),
    (["run", "--guard", "calls,k"], ["calls,kernel"]),
    (["run", "--guard", "audit", "--workflow", "wf-"], ["wf-1", "wf-2"]),
    (["run", "--workflow", "no"], []),
    (["run", "--workflow", "."], []),
    (["completion", ""], list(completion.SHELLS)),
]


@pytest.mark.parametrize(("words", "expected"), COMPLETED, ids=lambda value: " ".join(value))
def test_bash_completes(bash: Complete, words: list[str], expected: list[str]) -> None:
    assert sorted(bash(*words)) == sorted(expected)


def test_fish_completes(fish: Complete) -> None:
    for words, expected in COMPLETED:
        assert sorted(fish(*words)) == sorted(expected), words
    assert "cat" in fish("run", "--workflow", "wf-1", "--", "ca")
    assert fish("run", "--", "cat", "wor") == ["worker.log"]
    assert {"wf-1", "工作流", "$(touch ran)"} <= set(fish("run", "--workflow", ""))
    assert fish("run", "--root", "src", "--workflow", "") == []


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_bash_and_fish_know_the_options_of_each_command(request, command: str, option: str) -> None:
    for name in filter(shutil.which, ("bash", "fish")):
        assert request.getfixturevalue(name)(command, option) == [option]


def test_bash_completes_paths(bash: Complete, here: Path, root: Path) -> None:
    assert sorted(bash("scan", "")) == ["docs", "notes.txt", "src", "worker.log"]
    assert bash("scan", "docs", "s") == ["src"]
    assert bash("scan-logs", "wor") == ["worker.log"]
    for command in ("demo", "run", "status", "sweep"):
        assert sorted(bash(command, "--root", "")) == ["docs", "src"]
    (here / "src" / "video").mkdir()
    assert bash("run", "--root", "src", "--workflow", "") == ["video"]


def test_the_command_after_run_is_completed_as_it_would_be_alone(bash: Complete) -> None:
    assert {"cat", "cd"} <= set(bash("run", "--workflow", "wf-1", "--", "c"))
    assert set(bash("run", "ca")) >= {"cat"}
    assert bash("run", "--", "cat", "") == []  # bash's own then: files
    assert bash("run", "--", "sort", "--r") == []  # not ours
    assert bash("run", "--", "sort", "--root", "") == []
    assert bash("run", "--", "sweep", "--mode", "") == []
    offset = '{ COMPREPLY=("offset $1"); }'
    for name in ("_comp_command_offset", "_command_offset"):  # of bash-completion, new and old
        assert bash("run", "--mode", "warn", "--", "git", "co", before=f"{name}() {offset}") == ["offset 5"]
    assert bash("sweep", "--", "", before=f"_command_offset() {offset}") == []


def test_ids_are_quoted_and_not_run(bash: Complete, here: Path) -> None:
    offered = bash("run", "--workflow", "")
    read = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {' '.join(offered)}"], capture_output=True, text=True, check=True, cwd=here
    )
    assert sorted(read.stdout.splitlines()) == sorted(IDS)
    assert bash("run", "--workflow", "\\$") == [r"\$\(touch\ ran\)"]
    assert bash("run", "--workflow", "工") == ["工作流"]
    assert sorted(entry.name for entry in here.iterdir()) == ["docs", "notes.txt", "src", "worker.log"]


class Terminal:
    """A shell on a terminal, with the script, in which `tmp-redirect` says what arguments it was given."""

    def __init__(self, name: str, script: Path, here: Path, root: Path) -> None:
        program, prepare = SHELL_START[name]
        self._above, below = pty.openpty()
        try:
            self._child = subprocess.Popen(
                [shell(name), *program[1:]],
                stdin=below, stdout=below, stderr=below,
                env=environment(root), cwd=here, start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(below)
        self._said = b""
        load = f'eval "$(cat {script})"' if name == "zsh" else f"source {script}"
        self._type(f"{prepare}\n{load}\n{STUB[name]}\necho LOADE''D\n".encode())
        self._until(b"LOADED\r?\n.*READY> ")

    def arguments(self, typed: str) -> list[str]:
        """What is typed, with tabs, and then run: the arguments that it means."""
        self._said = b""
        self._type(typed.encode())
        self._type(b"\n")
        self._until(b"(<.*>)\\s*READY> ")
        (said,) = re.findall(rb"^(<.*>)\s*READY> ", self._said, re.DOTALL | re.MULTILINE)
        return re.findall("<(.*?)>", said.decode(), re.DOTALL)

    def close(self) -> None:
        self._child.kill()
        self._child.wait()
        os.close(self._above)

    def _type(self, keys: bytes) -> None:
        os.write(self._above, keys)

    def _until(self, expected: bytes) -> None:
        end = time.monotonic() + 30
        while not re.search(expected, self._said, re.DOTALL):
            ready, _, _ = select.select([self._above], [], [], max(0, end - time.monotonic()))
            assert ready, self._said
            self._said += os.read(self._above, 2**16)


TYPED = {
    "stat\t--js\t": ["status", "--json"],
    "sweep --older\t6h --dry\t": ["sweep", "--older-than", "6h", "--dry-run"],
    "scan --format sa\t": ["scan", "--format", "sarif"],
    "scan do\t": ["scan", "docs"],
    "scan-\twor\t": ["scan-logs", "worker.log"],
    "status --root sr\t": ["status", "--root", "src"],
}
TYPED_NOT_IN_TCSH = {  # which knows no functions
    "scan --exclude x docs no\tsr\t": ["scan", "--exclude", "x", "docs", "notes.txt", "src"],
    "run --workflow tw\t-- dirnam\tx": ["run", "--workflow", "two words", "--", "dirname", "x"],
    "run --workflow \\$\t--mode e\t-- true": ["run", "--workflow", "$(touch ran)", "--mode", "enforce", "--", "true"],
    "run --workflow 工\t-- cat wor\t": ["run", "--workflow", "工作流", "--", "cat", "worker.log"],
    "run --root src --workflow vi\t-- true": ["run", "--root", "src", "--workflow", "video", "--", "true"],
}


@pytest.mark.parametrize("name", list(SHELL_START))
def test_on_a_terminal(name: str, script: Callable[[str], Path], here: Path, root: Path) -> None:
    shell(name)
    (here / "src" / "video").mkdir()
    terminal = Terminal(name, script(name), here, root)
    try:
        for typed, arguments in (TYPED | (TYPED_NOT_IN_TCSH if name != "tcsh" else {})).items():
            said = [argument.rstrip("/") for argument in terminal.arguments(f"tmp-redirect {typed}")]
            assert said == arguments, typed
        assert not (here / "ran").exists()
    finally:
        terminal.close()


def test_without_shtab(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert cli.main(["completion", "bash"]) == CONFIGURATION
    output = capsys.readouterr()
    assert (output.out, output.err) == (
        "",
        "tmp-redirect completion: shtab is needed and not installed: pip install 'shtab>=1.13'\n",
    )
