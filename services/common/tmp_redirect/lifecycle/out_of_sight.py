"""Lets go of what processes hold that can't be seen from here, on the operator's word that they were stopped.

Those of other hosts, and of PID namespaces that aren't below this one, as other containers are for a container.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress

from ..errors import WorkspaceError
from ..settings import LEASES, OUTSIDE, Settings
from ..workspace import open_existing
from .holders import Holder, own_holder
from .leases import HELD, holder_is_alive, holder_of, kind_of, names, remove
from .sweep import ids


def release(settings: Settings, *, dry_run: bool) -> list[str]:
    """Remove, among the leases, what is held by nobody who can be seen from here; in a dry run only say what.

    The names are taken at once and no process uses one twice, so that whoever begins after that isn't affected.
    Raises `WorkspaceError` where no process can be seen.
    """
    if own_holder().start == 0:
        raise WorkspaceError(
            errno.ENOENT,
            "which processes are alive can't be seen here, so nothing can be taken for stopped: "
            "/proc must be mounted, for the PID namespace of this process",
            "/proc",
        )
    unseen = list(_held_out_of_sight(settings))
    numbers = _numbers_in_namespaces()
    released = [(place, name) for place, name in unseen if not _is_seen(name, numbers)]
    for place, name in () if dry_run else released:
        with suppress(OSError):  # then it counts, and the sweep says so
            directory = open_existing(settings, LEASES, *place)
            try:
                remove(directory, name)
            finally:
                os.close(directory)
    return [name for _, name in released]


def _held_out_of_sight(settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Where below the leases it is, and the name of each file of which it can't be known whether somebody is behind."""
    for above in ((), (OUTSIDE,)):
        with suppress(OSError):  # the sweep finds it as well, and says why it is kept
            for name in ids(settings, LEASES, *above):
                with suppress(OSError):
                    directory = open_existing(settings, LEASES, *above, name)
                    try:
                        found = names(directory)
                    finally:
                        os.close(directory)
                    for file in found:
                        if kind_of(file) in HELD and holder_is_alive(file) is None:
                            yield (*above, name), file


def _numbers_in_namespaces() -> dict[int, list[int]]:
    """For each number that a process has in a PID namespace below ours, the numbers it may have here (proc(5), NSpid).

    A container's processes are seen so on its host.
    """
    found: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with suppress(OSError), open(f"/proc/{entry}/status", encoding="ascii", errors="replace") as status:
                for line in status:
                    if line.startswith("NSpid:") and len(line.split()) > 2:
                        found.setdefault(int(line.split()[-1]), []).append(int(entry))
    return found


def _is_seen(name: str, numbers: dict[int, list[int]]) -> bool:
    holder, own = holder_of(name), own_holder()
    return (
        holder is not None
        and holder.boot == own.boot
        and any(
            Holder(own.host, own.boot, own.namespace, number, holder.start).is_alive()
            for number in numbers.get(holder.pid, ())
        )
    )
