"""The command line: what it says and its exit statuses; what the commands do is tested beside them."""

from __future__ import annotations

import argparse

import pytest

from services.common.tmp_redirect import cli


def test_help_names_every_command_and_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("usage: tmp-redirect ")
    for command in cli.COMMANDS:
        assert f"{command.name} {command.summary}" in said


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "arguments are required: COMMAND"),
        (["unknown"], "invalid choice: 'unknown'"),
        (["demo", "--unknown"], "unrecognized arguments: --unknown"),
        (["demo", "--root"], "argument --root: expected one argument"),
        (["demo", "more"], "unrecognized arguments: more"),
    ],
)
def test_a_usage_error_is_status_2(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == cli.USAGE == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("usage: tmp-redirect")
    assert complaint in output.err.splitlines()[-1]


def test_a_command_gets_its_options_and_gives_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--status", type=int)

    command = cli.Command("end", "end with a status", add_arguments, lambda options: int(options.status))
    monkeypatch.setattr(cli, "COMMANDS", (command,))
    assert cli.main(["end", "--status", "42"]) == 42


def test_ctrl_c_is_status_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        pass

    def interrupt(options: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "COMMANDS", (cli.Command("wait", "wait", add_arguments, interrupt),))
    assert cli.main(["wait"]) == 130
