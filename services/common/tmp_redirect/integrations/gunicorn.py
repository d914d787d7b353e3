"""gunicorn's heartbeat files stay on a fast local file system.

A worker touches its file every second, and is killed when it can't: network storage would make healthy workers die.
Stock puts the file into `tempfile`'s directory, which is the workspace on the shared volume now.
"""

import sys
from types import ModuleType

from ..errors import WorkspaceError
from ..patches import Patches
from ..propagate import prepare_sockets


def install(module: ModuleType, patches: Patches) -> None:
    """Make the socket directory the default of `worker_tmp_dir` in the module `gunicorn.config`."""
    try:
        directory = prepare_sockets()
    except WorkspaceError as error:
        # As without a default: the workspace outside any workflow.
        sys.stderr.write(f"tmp_redirect: gunicorn's heartbeat files go to the root's file system: {error.strerror}\n")
        return
    patches.replace(module.WorkerTmpDir, "default", directory)
