"""Variables of the environment that change with every task, in memory of ours.

glibc's setenv(3), which `os.environ` calls, keeps every value that it was ever given: a worker would grow by 0.66 KiB
with each new workflow. putenv(3) takes a string that stays the caller's and may be written again. Two by turns for
each variable, so that native code that reads the environment meanwhile never sees half a value.
"""

import ctypes
import os

_MOST = 8192  # bytes of a name and its value; longer ones go the usual way

_putenv = ctypes.CDLL(None).putenv
# By name: the bytes up to the equals sign, and two buffers, which are never freed, as the environment points there.
_strings: "dict[str, tuple[bytes, list[ctypes.Array[ctypes.c_char]]]]" = {}


def put(name: str, value: str) -> None:
    """As `os.environ[name] = value`."""
    if name not in _strings:
        _strings[name] = os.fsencode(name) + b"=", [ctypes.create_string_buffer(_MOST) for _ in range(2)]
    start, buffers = _strings[name]
    encoded = os.fsencode(value)
    if len(start) + len(encoded) >= _MOST or b"\0" in encoded:
        os.environ[name] = value
        return
    buffers.reverse()
    buffers[0].value = start + encoded
    if _putenv(buffers[0]) == 0:
        os.environ._data[start[:-1]] = encoded  # type: ignore[attr-defined]
    else:  # there is no memory for a longer list of variables
        os.environ[name] = value
