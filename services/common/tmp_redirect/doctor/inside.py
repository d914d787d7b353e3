"""What a fresh interpreter tells of itself: this file isn't imported, but run with `-c`, as by a service."""

import json
import os
import sys
import tempfile

PACKAGE = "services.common.tmp_redirect"
MARK = "tmp-redirect doctor: "  # before what is told, as others may write to stdout at a start, too


def facts() -> "dict[str, object]":
    """As JSON has them; `None` for what there isn't."""
    package, patches = sys.modules.get(PACKAGE), sys.modules.get(PACKAGE + ".patches")
    installed = patches.installed() if patches else None
    redirect = sys.modules.get(PACKAGE + ".redirect")
    is_ours = installed is not None and redirect is not None and tempfile.tempdir is redirect._ours
    return {
        "path": [os.path.abspath(entry) for entry in sys.path if entry],  # with -c, an empty one stands first
        "package": getattr(package, "__file__", None),
        "version": getattr(package, "__version__", None),
        "active": installed is not None,
        # It has given the shim its function for failures; its module may have been replaced by what it shadows.
        "loaded_by": getattr(getattr(getattr(installed, "_on_failure", None), "__code__", None), "co_filename", None),
        "sitecustomize": getattr(sys.modules.get("sitecustomize"), "__file__", None),
        "tempdir": None if is_ours or tempfile.tempdir is None else os.fsdecode(tempfile.tempdir),
    }


if __name__ == "__main__":
    sys.stdout.write(f"\n{MARK}{json.dumps(facts())}\n")
