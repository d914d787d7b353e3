"""Forks while another thread is in the middle of an import."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

PATIENCE = 10  # seconds
MOMENT = 1  # seconds in which a fork would be over that doesn't wait


class Halting:
    """A finder that halts the import of one module until a fork is tried, and for a moment longer if it waits."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.halted, self.forking, self.forked = threading.Event(), threading.Event(), threading.Event()
        os.register_at_fork(before=self.forking.set, after_in_parent=self.forked.set)
        self.has_halted = False

    def find_spec(self, name: str, *_: object) -> None:
        if name == self.module and not self.has_halted:
            self.has_halted = True
            self.halted.set()
            self.forking.wait(PATIENCE)
            self.forked.wait(MOMENT)


def fork_during_import(module: str, use: Callable[[str], object]) -> int:
    """The status of a process that calls `use`, forked while a thread that calls it is importing `module`."""
    faulthandler.enable()  # so that what hangs says where when it is aborted
    halting = Halting(module)
    sys.meta_path.insert(0, halting)  # type: ignore[arg-type]

    def use_in_thread() -> None:
        try:
            use("thread")
        finally:
            halting.halted.set()

    thread = threading.Thread(target=use_in_thread)
    thread.start()
    halting.halted.wait(PATIENCE)
    if not halting.has_halted:
        raise AssertionError(f"{module} is not imported")
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            use("child")
            status = 0
        except BaseException as error:
            os.write(2, f"the child: {error!r}\n".encode())  # a traceback takes imports
        finally:
            os._exit(status)
    thread.join()
    deadline = time.monotonic() + PATIENCE
    while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGABRT)
        time.sleep(0.005)
    return os.waitstatus_to_exitcode(ended[1])
