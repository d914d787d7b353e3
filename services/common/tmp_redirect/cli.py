"""The `tmp-redirect` command.

Only what `main` needs is imported, and only when it runs: Ctrl-C is then quiet from the beginning, and a command is as
quick to start as its own module.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Collection, Sequence
    from typing import NoReturn

OUTPUT = 74  # EX_IOERR
ANYWHERE = ("scan", "scan-logs")  # the rest is for Linux
INTERRUPTED, PIPE_ENDED = 128 + 2, 128 + 13  # as shells have it for SIGINT and SIGPIPE

_EPILOG = """\
The settings are environment variables; tmp-redirect doctor shows them.

exit status:
  0         all is well
  1         something was found, or could not be done
  2         the command line is wrong, or a file could not be checked
  74        the output could not be written
  78        with these settings, this root or these packages it can't be done
  126, 127  of run: the command can't be executed, or was not found
  130       interrupted by Ctrl-C
"""


class Command:
    """A subcommand. Its `module`, in this package, has `add_arguments(parser)` and `run(options)`, its exit status.

    `summary` is its line in the list of commands, `description` says more; each of the `examples` is a shell's line.
    """

    def __init__(self, name: str, summary: str, module: str, description: str, *examples: str) -> None:
        self.name = name
        self.summary = summary
        self.module = module
        self.description = description
        self.examples = examples

    def fill(self, parser: argparse.ArgumentParser) -> None:
        """Give `parser` the arguments and what to run with them."""
        module = __import__(f"{__package__}.{self.module}", fromlist=["run"])
        module.add_arguments(parser)
        parser.set_defaults(run=module.run, error=parser.error)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status; a usage error exits with status 2, as argparse does."""
    try:
        return _main(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        return INTERRUPTED


def _main(words: Sequence[str]) -> int:
    from .standard_streams import OutputError, usable

    try:
        with usable():
            return _run(words)
    except BrokenPipeError:
        return PIPE_ENDED
    except OutputError as error:
        print(f"tmp-redirect: the output could not be written: {error}; what is there is incomplete", file=sys.stderr)
        return OUTPUT


def _run(words: Sequence[str]) -> int:
    name = next((word for word in words if not word.startswith("-")), None)  # no option before it takes a value
    if name and name not in _names():
        parser(()).error(_no_such_command(name))
    if name and sys.platform != "linux" and name not in ANYWHERE:
        from .command_output import CONFIGURATION, say

        return say(name, f"this needs Linux; here are {' and '.join(ANYWHERE)}", CONFIGURATION)
    top = parser({name} if name else ())
    options, unknown = top.parse_known_args(words)
    error: Callable[[str], NoReturn] = getattr(options, "error", top.error)  # the command's shows its own usage
    if unknown:
        error(f"unrecognized arguments: {' '.join(unknown)}")
    if not name:
        error("no command; tmp-redirect --help lists them")
    run: Callable[[argparse.Namespace], int] = options.run
    return run(options)


def _names() -> list[str]:
    return [command.name for command in COMMANDS]


def _no_such_command(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, _names(), 1)
    return f"no command {name!r}{f'; did you mean {near[0]}?' if near else ''}; tmp-redirect --help lists them"


def parser(commands: Collection[str]) -> argparse.ArgumentParser:
    """The parser of the command line; only these commands have arguments, for each costs the import of its module."""
    from argparse import ArgumentParser, HelpFormatter

    from . import __version__

    class Formatter(HelpFormatter):
        """Fits a paragraph to the terminal, and leaves lines as they are."""

        def _fill_text(self, text: str, width: int, indent: str) -> str:
            return text if "\n" in text else super()._fill_text(text, width, indent)

    top = ArgumentParser(
        prog="tmp-redirect",
        description="Keep every workflow's temp files in that workflow's own directory.",
        epilog=_EPILOG,
        formatter_class=Formatter,
    )
    top.add_argument("--version", action="version", version=f"tmp-redirect {__version__}")
    subparsers = top.add_subparsers(title="commands", metavar="COMMAND")
    for command in COMMANDS:
        subparser = subparsers.add_parser(
            command.name,
            help=command.summary,
            description=command.description,
            epilog="\n  ".join(("examples:", *command.examples)),
            formatter_class=Formatter,
        )
        if command.name in commands:
            command.fill(subparser)
    return top


COMMANDS = (
    Command(
        "demo",
        "show where the temp files of five call sites go, without and with the redirection",
        "demo",
        "Run two workflows through five call sites that don't know the redirection, in a real Celery worker with a "
        "real broker and object storage, first without it and then with it, and show where the kernel saw their temp "
        "files. It needs a source checkout and the packages of the extra demo; make demo installs them.",
        "tmp-redirect demo                            # in a new directory, which it removes at the end",
        "tmp-redirect demo --root /var/lib/x --keep   # leave the logs and what the workflows wrote, to look at",
        "tmp-redirect demo --json",
    ),
    Command(
        "run",
        "run any command with the shim",
        "run",
        "Run any command, whatever it is written in, with the shim: temp files, also those of all processes that it "
        "starts, go to the workspace of the workflow, or outside any workflow to that of the service. The command "
        "takes the place of tmp-redirect, so that signals and the exit status are its own.",
        "tmp-redirect run --workflow wf-1 -- ffmpeg -i in.mkv out.mp4",
        "tmp-redirect run --mode warn -- python report.py             # what would raise is done, and logged",
        "tmp-redirect run --guard calls,kernel -- python report.py    # native code is refused system temp, too",
        "tmp-redirect run --root /srv/workflows -- sh -c 'ls $TMPDIR'",
    ),
    Command(
        "doctor",
        "say whether the shim can do its work here",
        "doctor",
        "Say whether the shim can do its work here: settings, a fresh interpreter, versions, the root and its file "
        "system, sockets, and what lies about in system temp; and what to do where it can't. It runs also where the "
        "shim can't start, and then ends with 78 as well.",
        "tmp-redirect doctor",
        "TMP_REDIRECT=enforce tmp-redirect doctor     # would it work, if it were on?",
        "TMP_REDIRECT=enforce tmp-redirect doctor --image     # in a Dockerfile: what an image alone can tell",
        "tmp-redirect doctor --json",
    ),
    Command(
        "status",
        "say what workspaces there are, who uses them, and why they are kept",
        "lifecycle.status_command",
        "Show the largest workspaces, who uses them and why they are kept, what is left over in system temp, and how "
        "much space there is. It changes nothing.",
        "tmp-redirect status",
        "tmp-redirect status --limit 0                # all of them, not only the 20 largest",
        "tmp-redirect status --watch 5                # look again every 5 seconds, until Ctrl-C",
        "tmp-redirect status --json > status.json",
    ),
    Command(
        "sweep",
        "remove what nobody uses any more",
        "lifecycle.sweep_command",
        "Remove the workspaces whose workflow has ended, or which were last used longer ago than TMP_REDIRECT_TTL, and "
        "complete what crashes have left half done. What a process uses is kept, and so is all that lies beside the "
        "workspaces. It may run at any time, by cron and on several hosts at once.",
        "tmp-redirect sweep --dry-run                 # what would go; changes nothing",
        "tmp-redirect sweep",
        "tmp-redirect sweep --older-than 6h --json",
        "tmp-redirect sweep --all                     # for a rollback: remove all that the shim has made",
    ),
    Command(
        "scan",
        "find what would put files into system temp, in code and configuration",
        "scan.command",
        "Check Python, shell, Dockerfiles, Compose files and other configuration for what would put files into system "
        "temp. The status is 1 where there is such a place, so that it can be a step of CI. It needs ruff, which the "
        "extra scan installs.",
        "tmp-redirect scan .",
        "tmp-redirect scan services docker-compose.yml --exclude tests",
        "tmp-redirect scan . --format sarif > scan.sarif",
    ),
    Command(
        "scan-logs",
        "find the system-temp paths that log files name",
        "scan.logs",
        "Print each path in system temp that log files name, with its file and line. The status is 1 where there is "
        "one.",
        "tmp-redirect scan-logs worker.log worker.log.1.gz",
        "docker logs worker 2>&1 | tmp-redirect scan-logs -",
        "tmp-redirect scan-logs --allow /tmp/models worker.log",
    ),
    Command(
        "install-site",
        "make this interpreter start the shim, without PYTHONPATH",
        "install_site",
        "Write the file that makes the interpreter that runs this command, a virtual environment's or the system's, "
        "load the shim at its start: a .pth file in its site directory, or, where the package is only on PYTHONPATH, a "
        "sitecustomize.py beside it. A new process has to prove that it works, else nothing is left. Nobody's file is "
        "overwritten. The shim does nothing until TMP_REDIRECT is warn or enforce.",
        "tmp-redirect install-site",
        "tmp-redirect install-site --dry-run",
    ),
    Command(
        "uninstall-site",
        "undo install-site",
        "uninstall_site",
        "Remove what install-site wrote for the interpreter that runs this command, unless somebody has changed it. Do "
        "this before the package is removed: what starts a shim that is gone ends a process with status 78 in enforce.",
        "tmp-redirect uninstall-site && pip uninstall tmp-redirect",
    ),
    Command(
        "completion",
        "print the script with which a shell completes this command",
        "completion",
        "Print the script with which a shell completes commands, options, their values, and workflow ids. It needs "
        "shtab, which the extra cli installs.",
        'eval "$(tmp-redirect completion bash)"                            # in ~/.bashrc; or zsh in ~/.zshrc',
        "tmp-redirect completion fish > ~/.config/fish/completions/tmp-redirect.fish",
        "tmp-redirect completion tcsh > ~/.tmp-redirect.tcsh               # and source it in ~/.tcshrc",
    ),
)
