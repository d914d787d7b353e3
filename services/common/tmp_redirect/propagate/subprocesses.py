"""Children that are started by `subprocess` and `os` get the environment of the scope, whatever their caller passes.

All of `subprocess`, `os.popen` and asyncio's subprocesses come down to `Popen`; `os.spawn*`, the other `os.exec*` and
`pty.spawn` to `os.execv` and `os.execve`. gevent has a `Popen` of its own, and uvloop starts processes in C.
"""

import os

from ..calls import StandIn
from ..patches import loading
from ..settings import DIRECTORIES
from .wrapping import wrap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

    from ..patches import Patches


def install(module: "ModuleType", patches: "Patches") -> None:
    """Have `Popen` of the module `subprocess`, or `gevent.subprocess`, and the functions of `os` pass the scope on."""
    # Not __init__: it warns of its caller, two frames above.
    wrap(patches, module.Popen, "_execute_child", _execute_child)
    if getattr(os.system, "__self__", None) is not _OS:
        for name in _Os.names:
            patches.replace(os, name, getattr(_OS, name))


def install_uvloop(module: "ModuleType", patches: "Patches") -> None:
    """Have the event loop of the module `uvloop` pass the scope on to children."""
    for name in ("subprocess_exec", "subprocess_shell"):
        wrap(patches, module.Loop, name, _subprocess)


def install_gevent(module: "ModuleType", patches: "Patches") -> None:
    """Have the functions of the module `gevent.os` that replace those of `os` pass the scope on."""
    for name in ("posix_spawn", "posix_spawnp"):
        wrap(patches, module, name, _posix_spawn)


def _for_child(environ: "Any") -> "Any":
    with loading:  # not before the first child is started: many import subprocess and start none
        from .environment import for_child

    return for_child(environ)


def _execute_child(
    original: "Any",
    popen: "Any",
    args: "Any",
    executable: "Any",
    preexec_fn: "Any",
    close_fds: "Any",
    pass_fds: "Any",
    cwd: "Any",
    env: "Any",
    *rest: "Any",
) -> None:
    if env is None and preexec_fn is not None:
        preexec_fn = _changing_environment(preexec_fn)
    else:
        env = _for_child(env)
    original(popen, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest)


def _changing_environment(preexec_fn: "Any") -> "Any":
    """`preexec_fn` may change `os.environ` in the child, which then inherits it: so that is where we do it, too."""
    with loading:
        from .environment import change, changes_for_child

    changes = changes_for_child(os.environ)

    def prepare() -> None:
        change(changes)
        preexec_fn()

    return prepare if changes else preexec_fn


def _subprocess(original: "Any", loop: "Any", /, *args: "Any", **options: "Any") -> "Any":
    options["env"] = _for_child(options.get("env"))
    return original(loop, *args, **options)


def _posix_spawn(original: "Any", path: "Any", argv: "Any", env: "Any", /, *args: "Any", **options: "Any") -> "Any":
    return original(path, argv, _for_child(env), *args, **options)


class _Os(StandIn):
    """Bound methods, as in calls.py: these functions are passed to process pools, which pickle them."""

    name = "os"
    names = ("system", "posix_spawn", "posix_spawnp", "execv", "execve")

    def __init__(self) -> None:
        self.originals = {name: getattr(os, name) for name in self.names}

    def system(self, command: "Any") -> int:
        environ = _for_child(None)
        if environ is not None:
            # system(3) takes no environment, so the shell that it starts sets it; on the same line, for its messages.
            import shlex

            from .environment import SCOPE

            names = [name for name in (*DIRECTORIES, SCOPE) if name in environ]
            assignments = "".join(f"export {name}={shlex.quote(environ[name])}; " for name in names)
            command = os.fsencode(f"{assignments}{'' if SCOPE in environ else f'unset {SCOPE}; '}") + os.fsencode(
                command
            )
        status: int = self.originals["system"](command)
        return status

    def posix_spawn(self, path: "Any", argv: "Any", env: "Any", /, **options: "Any") -> int:
        pid: int = self.originals["posix_spawn"](path, argv, _for_child(env), **options)
        return pid

    def posix_spawnp(self, path: "Any", argv: "Any", env: "Any", /, **options: "Any") -> int:
        pid: int = self.originals["posix_spawnp"](path, argv, _for_child(env), **options)
        return pid

    def execv(self, path: "Any", argv: "Any", /) -> None:
        environ = _for_child(None)
        if environ is None:
            self.originals["execv"](path, argv)
        else:
            self.originals["execve"](path, argv, environ)

    def execve(self, path: "Any", argv: "Any", env: "Any") -> None:
        self.originals["execve"](path, argv, _for_child(env))


_OS = _Os()
for _name in _Os.names:
    _method, _original = getattr(_Os, _name), getattr(os, _name)
    _method.__doc__, _method.__module__ = _original.__doc__, _original.__module__
