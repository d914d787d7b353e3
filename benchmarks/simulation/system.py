"""What the shim's modules get instead of `os`, `posix` and `time`: the same calls on the modelled file system.

Only what the protocol uses is here, and nothing leads to the real file system: anything else is an `AttributeError`.
"""
# ruff: noqa: D102 - what a method does is said by the documentation of the function that it stands for

from __future__ import annotations

import errno
import os
import random
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from types import SimpleNamespace, TracebackType
from typing import Any

from benchmarks.simulation.client import Client, Process
from benchmarks.simulation.clock import Clock
from benchmarks.simulation.file_system import FileSystem, Inode, Status, error
from benchmarks.simulation.server import Model, Server
from services.common.tmp_redirect import lifecycle, scope, settings, workspace
from services.common.tmp_redirect.lifecycle import holders, leases, purge, removal, sweep, trees

MODULES = (lifecycle, scope, workspace, holders, leases, purge, removal, sweep, trees)
ROOT = "/share/workflows"
EPOCH = 1_700_000_000.0  # of the clock's zero
_CONSTANTS = (
    "O_RDONLY", "O_WRONLY", "O_CREAT", "O_EXCL", "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_PATH", "R_OK", "W_OK",
    "X_OK", "ST_RDONLY", "strerror",
)  # fmt: skip
_BOOT = "{:08x}-0000-4000-8000-000000000000\n"


class System:
    """A cluster of hosts on one file server, whose root is at the path `root`; `process` is the one that runs."""

    def __init__(self, root: str, model: Model, seed: int = 0) -> None:
        self.root = root
        self.clock = Clock()
        self.files = FileSystem(lambda: EPOCH + self.clock.time)
        self.server = Server(self.clock, model, seed)
        self.random = random.Random(seed)  # noqa: S311
        self.alive: set[tuple[str, int]] = set()
        self.process: Process = None  # type: ignore[assignment]
        self.path = SimpleNamespace(
            dirname=os.path.dirname,
            samestat=os.path.samestat,
            exists=lambda path: self._kind(path) is not None,
            lexists=lambda path: self._kind(path) is not None,
            isdir=lambda path: self._kind(path) == stat.S_IFDIR,
            islink=lambda _: False,
        )
        self.__dict__.update((name, getattr(os, name)) for name in _CONSTANTS)
        self._clients: dict[str, Client] = {}
        self._pids = count(1000)
        self._numbers = count(10)
        self._open: dict[int, Inode | bytes] = {}

    # The cluster.

    def new_process(self, host: str) -> Process:
        """A process on that host."""
        client = self._clients.get(host)
        if client is None:
            client = self._clients[host] = Client(self.server, self.files, self.wait)
        process = Process(client, host, next(self._pids))
        self.alive.add((host, process.pid))
        return process

    def begin(self, time: float, process: Process, function: Callable[..., object], *args: Any) -> None:
        """Have `function` run in `process` from that time on."""

        def run() -> None:
            self.process, holders._own = process, process.own  # type: ignore[assignment]  # noqa: SLF001
            process.now = self.clock.time
            function(*args)
            process.own = holders._own  # noqa: SLF001

        self.clock.at(time, run)

    def wait(self, time: float) -> None:
        """The running process waits; meanwhile others run, each with what their modules remember."""
        process, process_own = self.process, holders._own  # noqa: SLF001
        self.clock.wait(time)
        self.process, holders._own = process, process_own  # noqa: SLF001

    def holder_is_alive(self, name: str) -> bool | None:
        """As leases.py has it, but of other hosts without reading all of the name: groups ask millions of times."""
        return leases.holder_is_alive(name) if name.split("~", 2)[1] == self.process.host else None

    def abandon(self) -> None:
        """End all processes where they are."""
        self.clock.abandon()

    # `time`.

    def sleep(self, seconds: float) -> None:
        self.wait(self.process.now + seconds)
        self.process.now = self.clock.time

    def monotonic(self) -> float:
        return self.process.now

    def clock_gettime(self, _: int) -> float:
        return self.process.now

    def time(self) -> float:
        return EPOCH + self.process.now

    # `os`: of the process.

    def getpid(self) -> int:
        return self.process.pid

    def geteuid(self) -> int:
        return 0

    def uname(self) -> SimpleNamespace:
        return SimpleNamespace(nodename=self.process.host)

    def kill(self, pid: int, _: int) -> None:
        if (self.process.host, pid) not in self.alive:
            raise error(errno.ESRCH)

    def readlink(self, path: str) -> str:
        assert path == "/proc/self"
        return str(self.process.pid)

    def read(self, descriptor: int, _: int) -> bytes:
        content = self._open[descriptor]
        assert isinstance(content, bytes)
        return content

    # `os`: of the file system.

    def open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path.startswith("/proc/"):
            return self._new(self._proc(path))
        process = self.process
        directory, name = self._parent(path, dir_fd)
        if not name:
            process.client.get_attributes(process, directory)
            return self._new(directory)
        if flags & os.O_CREAT:
            return self._new(process.client.make(process, directory, name, stat.S_IFREG | mode))
        if flags & os.O_DIRECTORY:
            return self._new(process.client.open_directory(process, directory, name))
        return self._new(process.client.open_file(process, directory, name))

    def close(self, descriptor: int) -> None:
        closed = self._open.pop(descriptor)
        if isinstance(closed, Inode) and closed.entries is None:  # NFSv4 has an open state of files
            self.process.client.say(self.process, "CLOSE", closed)

    def mkdir(self, path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        directory, name = self._parent(path, dir_fd)
        self.process.client.make(self.process, directory, name, stat.S_IFDIR | mode)

    def unlink(self, path: str, *, dir_fd: int | None = None) -> None:
        self.process.client.remove(self.process, *self._parent(path, dir_fd), is_directory=False)

    def rmdir(self, path: str, *, dir_fd: int | None = None) -> None:
        self.process.client.remove(self.process, *self._parent(path, dir_fd), is_directory=True)

    def rename(self, source: str, target: str, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
        if source == target == ".":
            raise error(errno.EBUSY)  # the kernel asks nobody
        moved = (*self._parent(source, src_dir_fd), *self._parent(target, dst_dir_fd))
        self.process.client.rename(self.process, *moved)

    def stat(self, path: str, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> Status:
        if path == "/proc/self/ns/pid":
            return Status(Inode(7, 0, 0))
        return Status(self._existing(path, dir_fd))

    def fstat(self, descriptor: int) -> Status:
        return Status(self.process.client.attributes(self.process, self._inode(descriptor)))

    def access(self, path: str, mode: int, *, dir_fd: int, effective_ids: bool) -> bool:
        assert path == "."
        self.process.client.may_search(self.process, self._inode(dir_fd))
        return True

    def chmod(self, path: str, mode: int) -> None:
        inode = self._inode(int(path.removeprefix("/proc/self/fd/")))
        self.process.client.say(self.process, "SETATTR", inode)
        inode.mode = stat.S_IFMT(inode.mode) | mode

    def statvfs(self, descriptor: int) -> SimpleNamespace:
        self.process.client.say(self.process, "STATFS", self._inode(descriptor))
        return SimpleNamespace(f_flag=0, f_bfree=1 << 30, f_bavail=1 << 30, f_frsize=4096, f_files=1, f_ffree=1)

    def listdir(self, path: str | int) -> list[str]:
        return list(self._names(path)[0])

    @contextmanager
    def scandir(self, path: str | int) -> Iterator[Iterator[SimpleNamespace]]:
        yield map(_entry, *self._names(path))

    # Paths.

    def _names(self, path: str | int) -> tuple[tuple[str, ...], tuple[Inode, ...]]:
        process = self.process
        if isinstance(path, int):
            return process.client.names(process, self._inode(path))
        if path.startswith("/proc/self/fd/"):
            directory = self._inode(int(path.removeprefix("/proc/self/fd/")))
            process.client.get_attributes(process, directory)
        else:
            directory = process.client.open_directory(process, *self._parent(path, None))
        return process.client.names(process, directory)

    def _parent(self, path: str, dir_fd: int | None) -> tuple[Inode, str]:
        """The directory that it is in, and its name there, which is empty for the root."""
        if dir_fd is not None:
            assert "/" not in path
            return self._inode(dir_fd), path
        if not f"{path}/".startswith(f"{self.root}/"):
            raise error(errno.ENOENT)
        directory, (*above, name) = self.files.root, path[len(self.root) + 1 :].split("/")
        for step in above:
            found = self.process.client.look_up(self.process, directory, step)
            if found is None:
                raise error(errno.ENOENT)
            directory = found
        return directory, name

    def _existing(self, path: str, dir_fd: int | None) -> Inode:
        process = self.process
        directory, name = self._parent(path, dir_fd)
        found = process.client.look_up(process, directory, name) if name else directory
        if found is None:
            raise error(errno.ENOENT)
        return process.client.attributes(process, found)

    def _kind(self, path: str) -> int | None:
        try:
            return stat.S_IFMT(self._existing(path, None).mode)
        except OSError:
            return None

    def _new(self, what: Inode | bytes) -> int:
        descriptor = next(self._numbers)
        self._open[descriptor] = what
        return descriptor

    def _inode(self, descriptor: int) -> Inode:
        inode = self._open[descriptor]
        assert isinstance(inode, Inode)
        return inode

    def _proc(self, path: str) -> bytes:
        host = self.process.host
        if path == "/proc/sys/kernel/random/boot_id":
            return _BOOT.format(hash_of(host)).encode()
        pid = int(path.split("/")[2])
        if (host, pid) not in self.alive:
            raise error(errno.ENOENT)
        return f"{pid} (celery) S {' '.join(map(str, range(50)))}".encode()


def hash_of(text: str) -> int:
    """The same in each run, other than `hash`."""
    return int.from_bytes(text.encode(), "big") % 0xFFFFFFFB


def _entry(name: str, inode: Inode) -> SimpleNamespace:
    return SimpleNamespace(name=name, is_dir=lambda **_: inode.entries is not None)


class Instead:
    """While it's entered, the shim's modules have `what` instead of `os` and `posix`, and of `time` if it has that."""

    def __init__(self, what: Any, keep: str, root: str) -> None:
        environ = {"TMP_REDIRECT": "enforce", "TMP_REDIRECT_ROOT": root, "TMP_REDIRECT_KEEP": keep}
        self._settings = settings.Settings({**environ, "TMP_REDIRECT_SERVICE": "simulated"})
        self._settings.socket_dir = f"{root}/.none"  # sockets are never on the file server
        self._what = what
        self._undo: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> settings.Settings:
        for module in MODULES:
            for name in ("os", "posix", "time"):
                if hasattr(module, name) and (name != "time" or hasattr(self._what, "sleep")):
                    self._replace(module, name, self._what)
        self._replace(settings, "_current", self._settings)
        self._replace(holders, "_own", None)  # as of a process that has just begun
        self._replace(sweep, "random", getattr(self._what, "random", random))
        self._replace(purge, "holder_is_alive", getattr(self._what, "holder_is_alive", leases.holder_is_alive))
        return self._settings

    def _replace(self, module: Any, name: str, new: Any) -> None:
        self._undo.append((module, name, getattr(module, name)))
        setattr(module, name, new)

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, at: TracebackType | None
    ) -> None:
        if hasattr(self._what, "abandon"):
            self._what.abandon()
        while self._undo:
            setattr(*self._undo.pop())
