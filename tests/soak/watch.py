"""What is seen from outside, by inotify and in /proc: where files came into being, what is left, how workers grow."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from examples.servers import Process
from examples.watcher import Watcher

SYSTEM_TEMP = (Path("/tmp"), Path("/var/tmp"))
OTHERS = ("pytest-of-", "pip-")  # what test runs and installers keep there
OURS = (".cache", "violations.jsonl", "lost+found")  # what no sweep takes away


Memory = dict[int, tuple[int, int]]


def marked(watcher: Watcher) -> Iterator[tuple[Path, str]]:
    """The files that say which workflow they are of, once each, and that workflow."""
    for path in watcher.created:
        if path.name.startswith("soak@") and ".trash" not in path.parts:
            yield path, path.name.split("@")[1]


def misplaced(watcher: Watcher, root: Path) -> list[tuple[Path, str]]:
    """Those that are not in the workspace of their workflow."""
    return [(path, workflow) for path, workflow in marked(watcher) if path.parent != root / workflow / "tmp"]


def with_other_content(root: Path) -> list[str]:
    """Files in workspaces whose content names another workflow."""
    wrong = []
    for path in root.glob("*/tmp/*"):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            words = path.read_text(encoding="utf-8").split() if path.is_file() else []
            if words and words[0].startswith("wf-") and words[0] != path.parts[-3]:
                wrong.append(f"{path} is of {words[0]}")
    return wrong


def in_system_temp(watcher: Watcher) -> list[str]:
    """Whatever came into being there."""
    return [
        str(path)
        for path in watcher.created
        for temp in SYSTEM_TEMP
        if path.is_relative_to(temp) and not path.relative_to(temp).parts[0].startswith(OTHERS)
    ]


def remains(root: Path, sockets: Path) -> list[str]:
    """What is left of workspaces, leases, trash and sockets."""
    left = [path for path in root.rglob("*") if not any(part in OURS for part in path.relative_to(root).parts)]
    kept = (root / ".leases", root / ".leases/.outside", root / ".trash", root / ".outside")
    empty = {*kept, *(path.parent for path in root.glob(".outside/*/violations.jsonl"))}
    return [str(path) for path in left if path not in empty] + [str(path) for path in sockets.glob("*")]


def processes(root: Path) -> list[str]:
    """Those that have this root in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"TMP_REDIRECT_ROOT={root}\0".encode() in (process / "environ").read_bytes():
                found.append(f"{process.name} {(process / 'cmdline').read_text().replace(chr(0), ' ')}")
    return found


def memory(worker: Process) -> Memory:
    """KiB of each process of a worker, in proportion where it's shared (PSS), and its descriptors."""
    found = {}
    for process in (worker._popen.pid, *worker.descendants()):
        with contextlib.suppress(OSError):  # ended since
            lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()
            pss = next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
            found[process] = (pss, len(os.listdir(f"/proc/{process}/fd")))
    return found
