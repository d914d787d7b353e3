"""The violations of all processes of a service, as JSON lines in `<root>/.outside/<service>/violations.jsonl`.

One line a call site and process, in one write(2) to a file opened with `O_APPEND`, so that lines of several processes
don't mix (on NFS, which has no such append, one may be lost). A file that has grown to `MOST` bytes becomes
`violations.jsonl.1`, and the one that was there before goes: it is a log, not a ledger.
"""

import json
import os
import posix  # its open is not guarded
import time

from ..settings import current
from ..workspace import open_service_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .violations import Violation

NAME = "violations.jsonl"
MOST = 2**20
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def path() -> str:
    """The absolute path of the file."""
    return f"{os.path.dirname(current().workspace_of(None))}/{NAME}"


def append(violation: "Violation", verdict: str) -> str:
    """Write a line; the absolute path of the file. Raises `OSError` where that can't be."""
    entry = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "verdict": verdict,
        "call": violation.call,
        "path": violation.path,
        "where": violation.where,
        "function": violation.function,
        "workflow": violation.workflow,
        "service": current().service,
        "pid": os.getpid(),
    }
    test = os.environ.get("PYTEST_CURRENT_TEST")
    if test:
        entry["test"] = test  # by which the pytest plugin finds what children of a test have done
    directory = open_service_directory(current())
    try:
        descriptor = posix.open(NAME, _FLAGS, current().dir_mode & 0o666, dir_fd=directory)
        try:
            os.write(descriptor, (json.dumps(entry) + "\n").encode())
            if os.fstat(descriptor).st_size >= MOST:
                os.rename(NAME, f"{NAME}.1", src_dir_fd=directory, dst_dir_fd=directory)
        finally:
            os.close(descriptor)
    finally:
        os.close(directory)
    return path()
