"""The sweep as a Celery task, `tmp_redirect.sweep`, which every worker has: for Celery's beat.

It runs in no workflow; its result is numbers, as a root may have very many workspaces.
"""

from __future__ import annotations

from typing import Any

from ..lifecycle.sweep import sweep
from ..setting_values import duration
from ..settings import current as current_settings

SWEEP = "tmp_redirect.sweep"


def register(sender: Any, **_: Any) -> None:
    """Give the application of a worker the task."""
    sender.app.task(_sweep, name=SWEEP, ignore_result=False)


def _sweep(older_than: str | None = None) -> dict[str, Any]:
    """Sweep the root; `older_than` is a duration as of the command, `24h`. Raises `ValueError` or `WorkspaceError`."""
    done = sweep(current_settings(), None if older_than is None else duration(older_than))
    return {
        "removed": len(done.removed),
        "trash": len(done.trash),
        "kept": dict(done.kept),
        "deferred": len(done.deferred),
        "bytes": done.bytes,
        "inodes": done.inodes,
        "sockets": done.sockets,
    }
