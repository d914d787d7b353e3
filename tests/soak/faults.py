"""What goes wrong: workers and their processes are killed, the disk is full or read-only for a moment, sweeps go on."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from kombu import Connection

from examples.servers import Process, ServerError, Servers

from .plan import Fault

SIZE, INODES = "size=96m", "nr_inodes=8k"  # of the disk that the root is on
MOMENT = 1.5  # seconds that it is full
CONCURRENCY = {"prefork": 2, "threads": 3, "gevent": 3, "eventlet": 3, "solo": 1}
SWEEPS = (("--older-than", "60s"), ())
STARTS = 10  # of a worker; they take longer than what is wrong with the disk
PAUSE = 1  # seconds between two sweeps


class Worker:
    """A worker of one pool, which takes the tasks of the queue of that name, with whom else does."""

    def __init__(self, name: str, servers: Servers, env: Mapping[str, str]) -> None:
        self.name = name
        self.pool = name.partition("-")[0]
        self.servers = servers
        self.env = {**env, "WORKER": name}
        self.process: Process
        self.kills: list[float] = []  # when it or one of its processes was killed
        self._starts = 0
        self._stack = ExitStack()
        self._lock = threading.Lock()

    def start(self) -> None:
        self._starts += 1
        started = self.servers.celery_worker(
            f"{self.name}-{self._starts}", "tasks", self.env, CONCURRENCY[self.pool], self.pool
        )
        self.process = self._stack.enter_context(started)

    def stop(self) -> None:
        self._stack.close()

    def kill(self, *, whole: bool) -> None:
        """Kill its main process, or all that it has started too; have its tasks delivered again, and start another."""
        with self._lock:
            self.kills.append(time.time())
            if whole:
                self.process._signal_group(signal.SIGKILL)
            else:
                os.kill(self.process._popen.pid, signal.SIGKILL)
            os.waitid(os.P_PID, self.process._popen.pid, os.WEXITED | os.WNOWAIT)  # now it takes no more messages
            keys = {f"{name}_key": f"{name}_key-{self.name}" for name in ("unacked", "unacked_index", "unacked_mutex")}
            with Connection(self.env["BROKER"], transport_options={**keys, "visibility_timeout": 0}) as connection:
                channel = connection.default_channel
                channel.client.delete(keys["unacked_mutex_key"])  # it may have died with it
                channel.qos.restore_visible(num=10**6, interval=1)  # as clients do after an hour
            self._start_again()

    def _start_again(self) -> None:
        """As whoever looks after it would: it refuses to start while the disk is in trouble."""
        for _ in range(STARTS - 1):
            with contextlib.suppress(ServerError):
                self.start()
                return
        self.start()

    def kill_child(self, dice: random.Random) -> None:
        """Kill one of the processes of the pool, whatever it does at the moment."""
        main = self.process._popen.pid
        children = Path(f"/proc/{main}/task/{main}/children").read_text(encoding="ascii").split()
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # ended since
            if children:
                self.kills.append(time.time())
                os.kill(int(dice.choice(children)), signal.SIGKILL)


class Disk:
    """A file system of its own for the root; `windows` are the times at which it was full or read-only."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = directory / "workflows"
        self.windows: list[tuple[float, float]] = []
        self.is_mounted = False
        self._lock = threading.Lock()

    @property
    def is_in_trouble(self) -> bool:
        return any(end == float("inf") for _, end in self.windows)

    @contextlib.contextmanager
    def mounted(self) -> Iterator[None]:
        self.directory.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"{SIZE},{INODES}", "tmpfs", str(self.directory)]
        self.is_mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
        try:
            self.root.mkdir()
            yield
        finally:
            if self.is_mounted:
                subprocess.run(["umount", "--lazy", str(self.directory)], check=True)

    def trouble(self, kind: str) -> bool:
        """Be full, or read-only, for a moment; whether it was."""
        trouble = {"full": self._full, "no inodes": self._no_inodes, "read-only": self._read_only}[kind]
        with self._lock:
            begin = time.time()
            self.windows.append((begin, float("inf")))
            try:
                return self.is_mounted and trouble()
            finally:
                self.windows[-1] = (begin, time.time())

    def _full(self) -> bool:
        ballast, end = self.directory / "ballast", time.monotonic() + MOMENT
        with ballast.open("wb", buffering=0) as file:
            while time.monotonic() < end:
                with contextlib.suppress(OSError):  # as much as others have freed
                    while True:
                        file.write(bytes(1 << 16))
                time.sleep(0.002)
        ballast.unlink()
        return True

    def _no_inodes(self) -> bool:
        ballast, end, number = self.directory / "inodes", time.monotonic() + MOMENT, 0
        ballast.mkdir()
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                while True:
                    (ballast / str(number)).touch()
                    number += 1
            time.sleep(0.002)
        for entry in ballast.iterdir():
            entry.unlink()
        ballast.rmdir()
        return True

    def _read_only(self) -> bool:
        """By a mount above it, as there is always somebody who writes to the one below."""
        root = str(self.root)
        subprocess.run(["mount", "--bind", root, root], check=True)
        try:
            remount = ["mount", "-o", "remount,bind,ro", root]
            while subprocess.run(remount, capture_output=True, check=False).returncode:
                time.sleep(0.001)  # while somebody writes through this one already
            time.sleep(MOMENT)
        finally:
            subprocess.run(["umount", "--lazy", root], check=True)
        return True


def happen(fault: Fault, workers: Mapping[str, Worker], disk: Disk, seed: str) -> str:
    """Have it happen; what has."""
    if fault.kind == "child":
        workers[fault.pool].kill_child(random.Random(f"{seed} {fault.at}"))
    elif fault.kind in ("worker", "main process"):
        workers[fault.pool].kill(whole=fault.kind == "worker")
    elif not disk.trouble(fault.kind):
        return f"{fault.kind} left out: mount(2) is not allowed here"
    return fault.kind


def sweep(env: Mapping[str, str], directory: Path, *options: str) -> subprocess.Popen[bytes]:
    """Start a sweep."""
    command = [sys.executable, "-m", "services.common.tmp_redirect", "sweep", *options]
    return subprocess.Popen(command, env=dict(env), cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def sweep_until(ended: threading.Event, env: Mapping[str, str], directory: Path) -> tuple[Counter[int], dict[int, str]]:
    """Two sweeps at once, again and again; how many there were of each status, and what the last of each has said."""
    statuses: Counter[int] = Counter()
    said: dict[int, str] = {}
    while not ended.wait(PAUSE):
        for process in [sweep(env, directory, *options) for options in SWEEPS]:
            text = process.communicate()[0].decode()  # before there is a status
            said[process.returncode] = text
            statuses[process.returncode] += 1
    return statuses, said
