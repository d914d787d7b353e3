"""strace as a witness: what a program and all its children were to create, files without a name included."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CALLS = "openat,mkdirat,mknodat,renameat,renameat2,linkat,symlinkat"
OLDER_CALLS = "?open,?creat,?mkdir,?mknod,?rename,?link,?symlink,?openat2"  # not every architecture has them
# The last path is the one that is made. With -y, strace shows what directory a relative path counts from.
MADE = re.compile(r'\w+\((?:.*, )?(?:(?:AT_FDCWD|\d+)<(?P<at>[^>]*)>, )?"(?P<path>[^"]*)"(?P<flags>[^"]*)$')


@pytest.fixture
def strace(tmp_path: Path) -> tuple[str, ...]:
    """A command that runs another under its own process number, and notes what that and its children create."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed here")
    if subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace is not allowed here")
    options = ("-D", "-f", "-qq", "-y", "-s", "4096", "--seccomp-bpf", "-e", "signal=none")
    return ("strace", *options, "-e", f"trace={CALLS},{OLDER_CALLS}", "-o", str(tmp_path / "trace"))


def created(trace: Path, working_directory: Path) -> list[tuple[str, bool]]:
    """The paths that system calls were to create, and whether without a name: then it's the directory's."""
    found = []
    for line in trace.read_text(encoding="utf-8").splitlines():
        call = MADE.search(line)
        if call and ("open" not in line.partition("(")[0] or re.search("O_CREAT|O_TMPFILE", call["flags"])):
            path = os.path.normpath(working_directory / (call["at"] or "") / call["path"])
            found.append((path, "O_TMPFILE" in call["flags"]))
    return found


def in_system_temp(made: list[tuple[str, bool]]) -> list[str]:
    """Those of the paths that are in system temp, and not in what pytest keeps there."""
    return [path for path, _ in made if path.startswith(("/tmp/", "/var/tmp/")) and "/pytest-of-" not in path]
