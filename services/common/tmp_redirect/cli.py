"""The `tmp-redirect` command."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import doctor
from . import run as run_command
from .lifecycle import status_command, sweep_command
from .scan import command as scan
from .scan import logs as scan_logs

OK, FINDINGS, USAGE, CONFIGURATION = 0, 1, 2, 78  # 78 is EX_CONFIG of sysexits.h


@dataclass(frozen=True)
class Command:
    """A subcommand: what to add to its parser, and what to run with the options that this parses."""

    name: str
    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status; a usage error exits with status 2, as argparse does."""
    options = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tmp-redirect", description="Keep every workflow's temp files in that workflow's own directory."
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        subparser = subparsers.add_parser(command.name, help=command.summary, description=command.summary)
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    return parser


def _add_demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, metavar="DIR", help="work in this directory instead of a new one")
    parser.add_argument("--keep", action="store_true", help="leave the work directory, logs included, at the end")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _demo(options: argparse.Namespace) -> int:
    checkout = Path(__file__).resolve().parents[3]
    if not (checkout / "examples" / "demo.py").is_file():
        print(
            f"tmp-redirect demo: {checkout} has no examples/demo.py: the demo runs from a source checkout only",
            file=sys.stderr,
        )
        return CONFIGURATION
    sys.path.insert(0, str(checkout))  # first, since `examples` is a name that others use too
    from examples.demo import run

    return run(root=options.root, keep=options.keep, as_json=options.json)


COMMANDS = (
    Command(
        "demo",
        "show where the temp files of five call sites go, without and with the redirection",
        _add_demo_arguments,
        _demo,
    ),
    Command("run", "run any command with the shim", run_command.add_arguments, run_command.run),
    Command("doctor", "say whether the shim can do its work here", doctor.add_arguments, doctor.run),
    Command(
        "status",
        "say what workspaces there are, who uses them, and why they are kept",
        status_command.add_arguments,
        status_command.run,
    ),
    Command("sweep", "remove what nobody uses any more", sweep_command.add_arguments, sweep_command.run),
    Command(
        "scan",
        "find what would put files into system temp, in code and configuration",
        scan.add_arguments,
        scan.run,
    ),
    Command("scan-logs", "find the system-temp paths that log files name", scan_logs.add_arguments, scan_logs.run),
)
