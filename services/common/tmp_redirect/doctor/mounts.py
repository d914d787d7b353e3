"""The file system that a path is on, as `/proc/self/mountinfo` has it (proc(5)), and what that means for a root."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from ..settings import is_below

_ESCAPED = re.compile(r"\\([0-7]{3})")

NETWORK = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "smb2", "smb3"}
)
_LAYERS = frozenset({"overlay", "aufs", "fuse.fuse-overlayfs"})
_MEANINGS = {
    "tmpfs": "temp files take memory, which counts against the container's limit, and go when it is restarted",
    "ramfs": "temp files take memory without a limit, and go when it is restarted",
    "9p": "a directory of the host (WSL2, gVisor, a virtual machine): slow, and without sockets",
    "virtiofs": "a directory of the host of a virtual machine",
    "cifs": "an SMB share: no sockets, and modes and owners are what its mount options say",
    "vfat": "no modes, no owners and no links",
    "exfat": "no modes, no owners and no links",
}
_MEANINGS |= dict.fromkeys(("smb2", "smb3"), _MEANINGS["cifs"])


class Mount(NamedTuple):
    """Where a file system is mounted, what it is, and the options of the mount and of the file system."""

    point: str
    type: str
    options: frozenset[str]


def mountinfo() -> str:
    """What the kernel says of this process' mounts; nothing where there is no /proc."""
    try:
        return Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def mount_of(path: str, mountinfo: str) -> Mount | None:
    """The mount that the absolute, resolved `path` is on; of several at one point, the last is on top.

    `None` where the text has none. Lines that can't be read are passed over.
    """
    found = None
    for line in mountinfo.split("\n"):
        before, separator, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if not separator or len(fields) < 6:
            continue
        point = _unescaped(fields[4])
        if is_below(path, point) and (found is None or len(point) >= len(found.point)):
            options = frozenset(f"{fields[5]},{kind[2] if len(kind) > 2 else ''}".split(","))
            found = Mount(point, kind[0], options)
    return found


def meaning(mount: Mount) -> tuple[str, str]:
    """What it means for a root, and what to do; empty where there is nothing to say."""
    if mount.type in _LAYERS:
        advice = "mount a volume there, if several containers work on a workflow or files shall stay"
        return "the container's own layer, not a volume: its files go with it, and no other container sees them", advice
    if "nocto" in mount.options:
        return "nocto: hosts don't see each other's leases in time", "mount it without nocto"
    if mount.type.startswith("fuse.") and mount.type not in NETWORK:
        return "in user space: what is below decides, and object stores have no rename of directories", "see operations"
    if mount.type in _MEANINGS:
        return _MEANINGS[mount.type], "use a volume on a disk, or NFS, if that matters here"
    if "noexec" in mount.options:
        text = "noexec: what torch, triton and numba compile into .cache can't be loaded"
        return text, "mount it without noexec, or point their cache variables elsewhere"
    return "", ""


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)
