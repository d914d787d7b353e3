"""Variables of the environment that change with every task, in memory of ours.

glibc's setenv(3), which `os.environ` calls, keeps every value that it was ever given: a worker would grow by 0.66 KiB
with each new workflow. putenv(3) takes a string that stays the caller's and may be written again. Two by turns for
each variable, so that native code that reads the environment meanwhile never sees half a value.
"""

import ctypes
import os

_MOST = 8192  # bytes of a name and its value; longer ones go the usual way

_putenv = ctypes.CDLL(None).putenv
_buffers: "dict[bytes, list[ctypes.Array[ctypes.c_char]]]" = {}  # never freed: the environment points there


def put(name: str, value: str) -> None:
    """As `os.environ[name] = value`."""
    key, encoded = os.fsencode(name), os.fsencode(value)
    if len(key) + len(encoded) + 2 > _MOST or b"\0" in encoded:
        os.environ[name] = value
        return
    buffers = _buffers.get(key)
    if buffers is None:
        buffers = _buffers[key] = [ctypes.create_string_buffer(_MOST) for _ in range(2)]
    buffers.reverse()
    buffers[0].value = key + b"=" + encoded
    if _putenv(buffers[0]) == 0:
        os.environ._data[key] = encoded  # type: ignore[attr-defined]
    else:  # there is no memory for a longer list of variables
        os.environ[name] = value
