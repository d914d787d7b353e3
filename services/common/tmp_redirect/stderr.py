"""What the shim says in a program: on the descriptor of stderr that Python began with, whatever state that is in.

Not through `sys.stderr`: the program may have put something there that takes locks, or that leads to stdout, which
children's parents parse.
"""

import os
import sys


def say(line: str) -> None:
    """Write `tmp_redirect: ` and the line, which must not hold another; where that can't be, do nothing."""
    try:
        # A program that has closed it may have a file of its own under that number: then this raises.
        descriptor = sys.__stderr__.fileno()  # type: ignore[union-attr]
        os.write(descriptor, f"tmp_redirect: {line}\n".encode(errors="backslashreplace"))
    except Exception:  # noqa: BLE001, S110 - it is closed, gone or full; the program must not fail because of us
        pass
