"""Each way in which Python starts another program, as a function that runs a shell command and waits for its end.

Used in fresh interpreters and in tasks of real workers: standard library only.
"""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
from collections.abc import Callable
from typing import Any


def with_inherited_environment() -> dict[str, Callable[[str], object]]:
    """The ways that take no environment, or were given none."""

    def forked(execute: Callable[..., Any], *args: Any) -> None:
        pid = os.fork()
        if pid == 0:
            execute(*args)
        os.waitpid(pid, 0)

    def in_terminal(command: str) -> None:
        pty.spawn(["sh", "-c", command], lambda descriptor: os.read(descriptor, 1024), lambda _: b"")

    async def executed(command: str) -> None:
        await (await asyncio.create_subprocess_exec("sh", "-c", command)).wait()

    async def in_shell(command: str) -> None:
        await (await asyncio.create_subprocess_shell(command)).wait()

    return {
        "subprocess.run": lambda command: subprocess.run(["sh", "-c", command], check=True),
        "subprocess.run env=None": lambda command: subprocess.run(["sh", "-c", command], check=True, env=None),
        "subprocess.call shell=True": lambda command: subprocess.call(command, shell=True),
        "subprocess.check_call": lambda command: subprocess.check_call(["sh", "-c", command]),
        "subprocess.check_output": lambda command: subprocess.check_output(["sh", "-c", command]),
        "subprocess.getoutput": subprocess.getoutput,
        "subprocess.Popen close_fds=False": lambda command: subprocess.Popen(  # posix_spawn(3), where it is used
            ["/bin/sh", "-c", command], close_fds=False, restore_signals=False
        ).wait(),
        "os.system": os.system,
        "os.system bytes": lambda command: os.system(os.fsencode(command)),
        "os.popen": lambda command: os.popen(command).close(),
        "os.spawnv": lambda command: os.spawnv(os.P_WAIT, "/bin/sh", ["sh", "-c", command]),
        "os.spawnl": lambda command: os.spawnl(os.P_WAIT, "/bin/sh", "sh", "-c", command),
        "os.spawnvp": lambda command: os.spawnvp(os.P_WAIT, "sh", ["sh", "-c", command]),
        "os.spawnlp": lambda command: os.spawnlp(os.P_WAIT, "sh", "sh", "-c", command),
        "os.execv": lambda command: forked(os.execv, "/bin/sh", ["sh", "-c", command]),
        "os.execl": lambda command: forked(os.execl, "/bin/sh", "sh", "-c", command),
        "os.execvp": lambda command: forked(os.execvp, "sh", ["sh", "-c", command]),
        "os.execlp": lambda command: forked(os.execlp, "sh", "sh", "-c", command),
        "pty.spawn": in_terminal,
        "asyncio.create_subprocess_exec": lambda command: asyncio.run(executed(command)),
        "asyncio.create_subprocess_shell": lambda command: asyncio.run(in_shell(command)),
    }


def with_environment() -> dict[str, Callable[[str, Any], object]]:
    """The ways that are given an environment."""

    def forked(execute: Callable[..., Any], *args: Any) -> None:
        pid = os.fork()
        if pid == 0:
            execute(*args)
        os.waitpid(pid, 0)

    async def executed(command: str, env: Any) -> None:
        await (await asyncio.create_subprocess_exec("/bin/sh", "-c", command, env=env)).wait()

    async def in_shell(command: str, env: Any) -> None:
        await (await asyncio.create_subprocess_shell(command, env=env)).wait()

    sh = ["sh", "-c"]
    return {
        "subprocess.run": lambda command, env: subprocess.run(["/bin/sh", "-c", command], check=True, env=env),
        "subprocess.Popen by position": lambda command, env: subprocess.Popen(
            command, -1, None, None, None, None, None, True, True, None, env
        ).wait(),
        "subprocess.call shell=True": lambda command, env: subprocess.call(command, shell=True, env=env),
        "os.posix_spawn": lambda command, env: os.waitpid(os.posix_spawn("/bin/sh", [*sh, command], env), 0),
        "os.posix_spawnp": lambda command, env: os.waitpid(os.posix_spawnp("sh", [*sh, command], env), 0),
        "os.spawnve": lambda command, env: os.spawnve(os.P_WAIT, "/bin/sh", [*sh, command], env),
        "os.spawnle": lambda command, env: os.spawnle(os.P_WAIT, "/bin/sh", *sh, command, env),
        "os.spawnvpe": lambda command, env: os.spawnvpe(os.P_WAIT, "sh", [*sh, command], env),
        "os.spawnlpe": lambda command, env: os.spawnlpe(os.P_WAIT, "sh", *sh, command, env),
        "os.execve": lambda command, env: forked(os.execve, "/bin/sh", [*sh, command], env),
        "os.execle": lambda command, env: forked(os.execle, "/bin/sh", *sh, command, env),
        "os.execvpe": lambda command, env: forked(os.execvpe, "sh", [*sh, command], env),
        "os.execlpe": lambda command, env: forked(os.execlpe, "sh", *sh, command, env),
        "asyncio.create_subprocess_exec": lambda command, env: asyncio.run(executed(command, env)),
        "asyncio.create_subprocess_shell": lambda command, env: asyncio.run(in_shell(command, env)),
    }


VARIABLES = ("TMPDIR", "TMP", "TEMP", "TEMPDIR", "TMP_REDIRECT_SCOPE")


def seen_by(run: Callable[[str], object], note: str) -> tuple[str, list[str]]:
    """Where a native program that `run` starts makes a directory, and the variables it sees."""
    values = "".join(f'; echo "${name}"' for name in VARIABLES)
    run(f"{{ /bin/mktemp -d{values}; }} >{note}")
    with open(note, encoding="utf-8") as file:
        made, *variables = file.read().splitlines()
    os.unlink(note)
    return os.path.dirname(made), variables
