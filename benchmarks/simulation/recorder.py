"""Notes which calls the shim makes of `os`, be that the real one or the modelled one, and what comes of each."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

CHANGES = ("mkdir", "rename", "unlink", "rmdir", "chmod")
HOLDER = re.compile(r"~[^~/]+~[0-9a-f-]+~\d+~\d+~\d+~\d+")
_CALLS = (*CHANGES, "open", "stat", "fstat", "access", "statvfs", "listdir", "scandir")
_TESTS = ("exists", "lexists", "isdir", "islink")


class Recorder:
    """Stands for `system`, which is `os` or is like it. `calls` are lines as `unlink <root>/.leases/wf/over: ENOENT`.

    Files below /proc are nobody's business but this host's. Process numbers and descriptors, which differ from run to
    run, aren't in the lines; a list of names is in order, which it needn't be; a removed directory is ENOENT here and
    ESTALE on NFS, of which both say ENOENT.
    """

    def __init__(self, system: Any, root: str) -> None:
        self._system = system
        self._root = root
        self.calls: list[str] = []
        self.path = SimpleNamespace(
            dirname=system.path.dirname,
            samestat=system.path.samestat,
            **{name: self._recorded("stat", getattr(system.path, name)) for name in _TESTS},
        )

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._system, name)
        return self._recorded(name, found) if name in _CALLS else found

    def changes(self) -> int:
        """How many calls have changed the file system."""
        done = [call for call in self.calls if not call.endswith(tuple(errno.errorcode.values()))]
        return sum(call.startswith((*CHANGES, "create")) for call in done)

    def _recorded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            outcome = ""
            try:
                result = function(*args, **options)
                if name == "listdir":
                    result = sorted(result)
                    outcome = f": {[*map(self._plain, result)]}"
                return result
            except OSError as error:
                found = errno.ENOENT if error.errno == errno.ESTALE else error.errno or 0
                outcome = f": {errno.errorcode[found]}"
                raise
            finally:
                if not str(args[0]).startswith("/proc/s") and "/stat" not in str(args[0]):
                    verb = "create" if name == "open" and args[1] & self._system.O_CREAT else name
                    names = " ".join(self._plain(arg) for arg in args if isinstance(arg, str))
                    self.calls.append(f"{verb} {names}{outcome}")

        return call

    def _plain(self, name: str) -> str:
        return HOLDER.sub("~holder", name.replace(self._root, "<root>"))
