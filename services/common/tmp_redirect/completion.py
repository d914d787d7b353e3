"""`tmp-redirect completion`: the script with which a shell completes the command line; shtab writes it from the parser.

Workflow ids are chosen by others, and what shtab has for lists that a command prints would run a `$(...)` in one. So
shells list them with functions of our own, which quote.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import combinations

from . import cli
from .command_output import CONFIGURATION, OK, say
from .setting_values import LAYERS
from .settings import MODES, Settings

SHELLS = ("bash", "zsh", "fish", "tcsh")
_CHOICES = {
    "MODE": MODES,
    "LAYERS": [",".join(layers) for number in range(len(LAYERS)) for layers in combinations(LAYERS, number + 1)],
}
_WORKFLOWS = {"bash": "_tmp_redirect_workflows", "zsh": "_tmp_redirect_workflows", "fish": "(_tmp_redirect_workflows)"}
_COMMAND = {"bash": "_tmp_redirect_commands", "zsh": "_tmp_redirect_command", "fish": "(_tmp_redirect_command)"}

_BASH = """\
_tmp_redirect_commands() {
    compgen -c -- "$1"
}

_tmp_redirect_workflows() (
    root=${TMP_REDIRECT_ROOT:-@ROOT@}
    for (( i = 2; i < COMP_CWORD; i++ )); do
        if [[ ${COMP_WORDS[i]} == --root ]]; then root=${COMP_WORDS[i + 1]}; fi
    done
    shopt -u failglob
    for directory in "$root/${1%%[^[:alnum:]_.-]*}"*/; do
        directory=${directory%/}
        printf -v id %q "${directory##*/}"
        if [[ -d $directory && $id == "$1"* && $id != .* ]]; then printf '%s\\n' "$id"; fi
    done
)
"""
_BASH_END = """
# After `run ... --`, the command that follows is completed as it would be alone.
_tmp_redirect() {
    local i
    if [[ ${COMP_WORDS[1]} == run ]]; then
        for (( i = 2; i < COMP_CWORD; i++ )); do
            if [[ ${COMP_WORDS[i]} == -- ]]; then _tmp_redirect_after $(( i + 1 )); return; fi
        done
    fi
    _shtab_tmp_redirect "$@"
}

_tmp_redirect_after() {
    if declare -F _comp_command_offset > /dev/null; then _comp_command_offset "$1"
    elif declare -F _command_offset > /dev/null; then _command_offset "$1"
    elif (( COMP_CWORD == $1 )); then mapfile -t COMPREPLY < <(compgen -c -- "${COMP_WORDS[COMP_CWORD]}")
    else COMPREPLY=(); compopt -o default 2> /dev/null
    fi
}

complete -o bashdefault -F _tmp_redirect tmp-redirect"""
_ZSH = """\
_tmp_redirect_workflows() {
    local root=${(Q)opt_args[--root]:-${TMP_REDIRECT_ROOT:-@ROOT@}}
    local -a ids=($root/*(N-/:t))
    compadd -a ids
}

_tmp_redirect_command() {
    if [[ $words[1] == -- ]]; then shift words; (( CURRENT-- )); fi
    _normal
}
"""
_FISH = """\
function _tmp_redirect_workflows
    set -l root @ROOT@
    test -n "$TMP_REDIRECT_ROOT"; and set root $TMP_REDIRECT_ROOT
    set -l words (commandline -opc)
    set -l at (contains -i -- --root $words); and set root $words[(math $at + 1)]
    for directory in $root/*/
        string replace -r '^.*/(.+)/$' '$1' -- $directory
    end
end

function _tmp_redirect_command
    set -l words (commandline -opc)
    set -l word (commandline -ct)
    if set -l at (contains -i -- -- $words)
        set -e words[1..$at]
        complete -C (string join ' ' -- (string escape -- $words) $word)
    else if not string match -q -- '-*' $word
        complete -C $word
    end
end
"""
_FUNCTIONS = {
    shell: text.replace("@ROOT@", Settings.root) for shell, text in (("bash", _BASH), ("zsh", _ZSH), ("fish", _FISH))
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `run` needs to `parser`."""
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))


def run(options: argparse.Namespace) -> int:
    """Print the script for a shell: 0, or 78 without shtab."""
    try:
        import shtab
    except ImportError:
        return say("completion", "shtab is needed and not installed: pip install 'shtab>=1.13'", CONFIGURATION)
    parser = cli.parser([command.name for command in cli.COMMANDS])
    complete = {"DIR": shtab.DIRECTORY, "FILE": shtab.FILE, "PATH": shtab.FILE, "ID": _WORKFLOWS, "COMMAND": _COMMAND}
    for action in _arguments(parser):
        if action.metavar in complete:
            vars(action)["complete"] = complete[action.metavar]
        elif action.metavar in _CHOICES:
            action.choices = _CHOICES[action.metavar]
    script: str = shtab.complete(parser, options.shell, preamble=_FUNCTIONS.get(options.shell, ""))
    if options.shell == "bash":
        script += _BASH_END
    elif options.shell == "zsh":
        script = script.replace('"(*):', '"*:')  # or only the first of several paths is completed
    print(script)
    return OK


def _arguments(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Those of all commands; each of these is left with its summary, which is one line."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for subparser in action.choices.values():
                subparser.description = None
                yield from subparser._actions
