"""`tmp-redirect run`: any command with the shim, whatever it is: a Python program, a shell, a binary.

It becomes the command (execve), so that signals, the exit status and the process number are the command's own.
"""

from __future__ import annotations

import argparse
import errno
import os
import posix  # its execve is not patched: where this process has the shim itself, the environment is right already
import shutil
import signal
import sys

from .command_output import CONFIGURATION, USAGE, one_line, say
from .errors import InvalidWorkflowId, KernelLayerError, SettingsError, WorkspaceError
from .kernel import MARK, install
from .location import AUTOLOAD, SITECUSTOMIZE
from .root_option import add_root, as_given
from .settings import DIRECTORIES, Settings
from .workspace import check_root, prepare, prepare_outside

_CANNOT_RUN, _NOT_FOUND = 126, 127  # as shells have it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `run` needs to `parser`."""
    parser.usage = "tmp-redirect run [--workflow ID] [--mode MODE] [--guard LAYERS] [--root DIR] -- COMMAND..."
    parser.add_argument(
        "--workflow", type=_workflow, metavar="ID", help="the workflow that the command runs for (TMP_REDIRECT_SCOPE)"
    )
    parser.add_argument("--mode", metavar="MODE", help="enforce, warn or off (TMP_REDIRECT; without both, enforce)")
    parser.add_argument("--guard", metavar="LAYERS", help="the layers of the guard (TMP_REDIRECT_GUARD)")
    add_root(parser)
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="and its arguments")


def run(options: argparse.Namespace) -> int:
    """Become the command; an exit status where that can't be: 2, 78, or, as shells have it, 126 or 127."""
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        return say("run", "no command; for example: tmp-redirect run --workflow wf-1 -- ffmpeg -version", USAGE)
    env = _environment(options)
    try:
        settings = Settings(env)
        if settings.mode != "off":
            if not os.path.isfile(SITECUSTOMIZE):
                return say("run", f"{SITECUSTOMIZE} is missing, and nothing starts the shim without it", CONFIGURATION)
            env |= _for_the_command(settings, env)
    except (SettingsError, InvalidWorkflowId, WorkspaceError, KernelLayerError) as error:
        return say("run", one_line(getattr(error, "strerror", None) or str(error)), CONFIGURATION)
    program = shutil.which(command[0], path=env.get("PATH", os.defpath))
    if program is None:
        return _cannot_run(command[0])
    sys.stdout.flush()
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores, and execve would hand on
        signal.signal(number, signal.SIG_DFL)
    try:
        posix.execve(program, command, env)
    except OSError as error:
        what = "the interpreter that its first line names is missing" if error.errno == errno.ENOENT else error.strerror
        return say("run", f"{one_line(program)}: {what}", _CANNOT_RUN)


def _workflow(value: str) -> str:
    if not value:  # as of a variable that is not set; outside any workflow is not what was meant
        raise argparse.ArgumentTypeError("it is empty; give a workflow id, or leave the option out")
    return value


def _cannot_run(command: str) -> int:
    if os.sep in command and os.path.exists(command):
        what = "Is a directory" if os.path.isdir(command) else "Permission denied; chmod +x it, or name its interpreter"
        return say("run", f"{one_line(command)}: {what}", _CANNOT_RUN)
    hint = "" if os.sep in command else "; is it installed here, and on PATH?"
    return say("run", f"{one_line(command)}: command not found{hint}", _NOT_FOUND)


def _environment(options: argparse.Namespace) -> dict[str, str]:
    given = {
        "TMP_REDIRECT": options.mode or os.environ.get("TMP_REDIRECT") or "enforce",
        "TMP_REDIRECT_GUARD": options.guard,
        "TMP_REDIRECT_ROOT": options.root,
        "TMP_REDIRECT_SCOPE": options.workflow,
    }
    return {**os.environ, **{name: as_given(value) for name, value in given.items() if value is not None}}


def _for_the_command(settings: Settings, env: dict[str, str]) -> dict[str, str]:
    """What its environment has beside the settings; the kernel layer is installed here, where the tree begins."""
    check_root(settings)
    changes = {}
    if settings.scope is not None or settings.outside == "service":
        workspace = prepare_outside(settings) if settings.scope is None else prepare(settings, settings.scope)
        changes = dict.fromkeys(DIRECTORIES, workspace)
    if "kernel" in settings.guard:
        install(settings)
        changes[MARK] = os.environ.get(MARK, "")
    paths = env.get("PYTHONPATH", "").split(os.pathsep) if env.get("PYTHONPATH") else []
    if AUTOLOAD not in paths:
        changes["PYTHONPATH"] = os.pathsep.join([AUTOLOAD, *paths])
    return changes
