"""One side of the growth with threads: reads `<name><TAB><threads><TAB><number>`, answers with the seconds of one call.

The threads call at once, `number` times each. With an argument, the id, the process is in a workflow as a task is;
without one it knows nothing of the shim. Standard library only.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import threading
import time
from collections.abc import Callable

START = "Thread start and join"
CALLS: dict[str, Callable[[], object]] = {
    "tempfile.gettempdir()": tempfile.gettempdir,
    "NamedTemporaryFile create and close": lambda: tempfile.NamedTemporaryFile().close(),
}


def main() -> None:
    """Say where temp files go and whether `open` is stock, then time calls until the input ends."""
    with contextlib.ExitStack() as stack:
        if len(sys.argv) > 1:
            from services.common.tmp_redirect import workflow

            stack.enter_context(workflow(sys.argv[1]))
        print(tempfile.gettempdir(), type(open).__name__, sep="\t", flush=True)
        for line in sys.stdin:
            name, threads, number = line.rstrip("\n").split("\t")
            time_them = _start if name == START else _call
            print(time_them(name, int(threads), int(number)), flush=True)


def _start(_: str, count: int, number: int) -> float:
    begin = time.perf_counter()
    for _turn in range(number):
        threads = [threading.Thread(target=int) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return (time.perf_counter() - begin) / number / count


def _call(name: str, count: int, number: int) -> float:
    barrier, call = threading.Barrier(count + 1), CALLS[name]

    def run() -> None:
        barrier.wait()
        for _ in range(number):
            call()

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    begin = time.perf_counter()
    barrier.wait()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - begin) / number / count


if __name__ == "__main__":
    main()
