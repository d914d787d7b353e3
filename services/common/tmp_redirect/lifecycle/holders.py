"""Which process holds something, and whether it is still alive.

A process number alone says little: it is used again, and means another process in another PID namespace, as of a
container. So a holder is named by the boot of its machine, its PID namespace, its number and its start time
(proc(5), field 22 of /proc/<pid>/stat), and can be asked after only where the first two are ours.
"""

import os
import posix  # its open is not guarded, and nothing is created here

_UNKNOWN = "unknown"

_own: "tuple[int, Holder] | None" = None


class Holder:
    """A process: its host's name (only to be shown), and what tells it from every other one."""

    __slots__ = ("boot", "host", "namespace", "pid", "start")

    def __init__(self, host: str, boot: str, namespace: str, pid: int, start: int) -> None:
        self.host = host
        self.boot = boot
        self.namespace = namespace
        self.pid = pid
        self.start = start

    def __str__(self) -> str:
        return f"{self.host}~{self.boot}~{self.namespace}~{self.pid}~{self.start}"

    def is_alive(self) -> bool | None:
        """Whether the process runs; `None` for one of another host or PID namespace, of which nothing is known."""
        own = own_holder()
        if own.boot == _UNKNOWN or (self.boot, self.namespace) != (own.boot, own.namespace):
            return None
        return _start_of(self.pid) in (self.start, 0)


def own_holder() -> Holder:
    """That of this process."""
    global _own
    pid = os.getpid()
    if _own is None or _own[0] != pid:  # forked
        _own = pid, _this(pid)
    return _own[1]


def parse(text: str) -> "Holder | None":
    """The holder that `str` made `text` of; `None` for anything else."""
    parts = text.split("~")
    if len(parts) != 5 or not (parts[3].isdecimal() and parts[4].isdecimal()):
        return None
    return Holder(parts[0], parts[1], parts[2], int(parts[3]), int(parts[4]))


def _this(pid: int) -> Holder:
    host = "".join(char if char.isalnum() or char in "-._" else "_" for char in os.uname().nodename)
    host = host.encode()[:40].decode(errors="ignore") or "unnamed"
    try:
        if os.readlink("/proc/self") != str(pid):
            raise FileNotFoundError  # /proc is that of another PID namespace, and its numbers mean others
        boot = _read("/proc/sys/kernel/random/boot_id")[:13].decode()
        namespace = str(os.stat("/proc/self/ns/pid").st_ino)
        return Holder(host, boot, namespace, pid, _start_of(pid) or 0)
    except OSError:
        return Holder(host, _UNKNOWN, "0", pid, 0)


def _start_of(pid: int) -> int | None:
    """When the process started, in clock ticks since boot: `None` if it has ended, 0 if it lives but doesn't say."""
    try:
        state, *fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except OSError:
        try:
            os.kill(pid, 0)  # another user's processes may be hidden in /proc
        except (ProcessLookupError, OverflowError):
            return None
        except PermissionError:
            pass
        return 0
    return None if state in (b"Z", b"X") else int(fields[18])


def _read(path: str) -> bytes:
    descriptor = posix.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 1024)
    finally:
        os.close(descriptor)
