"""When a workflow of Celery tasks has ended, and what becomes of its workspace then.

It has ended with a task that is final where nothing is left to come: the task has no callbacks, chain or chord, no
other task of the workflow runs, and none was published that hasn't ended. The last is known from marks among the
leases, which whoever publishes a task makes and whoever has run it removes: so they outlive a process that is killed,
whose task is delivered again. A member of a group that was published by a program without the shim doesn't know its
siblings, so it ends nothing: then the sweep does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from celery import states

from ..errors import InvalidWorkflowId
from ..lifecycle import purge_if_over, unmark
from ..lifecycle.leases import OVER, mark, quote, turn
from ..lifecycle.purge import purge
from ..observers import tell
from ..scope import owe
from ..settings import Settings
from ..settings import current as current_settings
from ..workflow_id import check

CANVAS = "tmp_redirect_canvas"  # the header of a message that says of which canvas the task is that has published it
_TO_COME_AGAIN = (states.RETRY, states.REJECTED)


def note_published(workflow: object, task_id: str) -> None:
    """A task of a workflow is about to be published, or its message goes back to the queue."""
    settings = current_settings()
    if settings.keep != "all" and workflow is not None:
        with contextlib.suppress(InvalidWorkflowId):  # the task will say it
            workflow, pending = check(workflow), _pending(task_id)
            try:
                mark(settings, workflow, pending)
            except OSError:  # the disk is full, or a program has no volume
                owe(workflow, pending)


def note_ended(workflow: str, task_id: str, state: str, *, comes_again: bool) -> bool:
    """A task has ended in `state` and is about to leave its scope: none of it is to come. Whether it was noted to be.

    While its lease is there: whoever ends the workflow meanwhile then finds the lease or nothing, and a lease is what
    it marks a workflow as over for. A mark that outlived the lease would hide from it that somebody is about to end.
    """
    settings = current_settings()
    if settings.keep == "all" or comes_again or _is_kept(settings, state):
        return False
    return unmark(settings, workflow, _pending(task_id))


def end(workflow: str, task_id: str, request: Mapping[str, Any], state: str, *, comes_again: bool, noted: bool) -> None:
    """A task has ended in `state`, and has left its scope: if its workflow has ended with it, purge the workspace.

    `noted` is what `note_ended` has said.
    """
    settings = current_settings()
    if settings.keep == "all":
        return
    failure = f"failed~{quote(canvas_of(request, task_id))}" if settings.keep == "failed" else ""
    with contextlib.suppress(OSError):
        if _is_kept(settings, state):
            if comes_again or not turn(settings, workflow, _pending(task_id), failure):
                mark(settings, workflow, failure)
            tell("kept")
        elif not _ends_something(request, state, noted=noted):
            purge_if_over(settings, workflow, failure)
        elif any(name.startswith("lease~") for name in purge(settings, workflow, unless=failure).users):
            # Who uses it may end no workflow of its own accord: a script, a task that has passed its work on and is
            # about to end, a process that is about to be killed. Again, as it may have gone before the mark was there.
            mark(settings, workflow, OVER)
            purge(settings, workflow, unless=failure)


def canvas_of(request: Mapping[str, Any], task_id: str) -> str:
    """What tells the tasks of one publication of a workflow from those of the next.

    The members of a group that a program publishes have no root in common, and what they publish has theirs.
    """
    chain, headers = request.get("chain"), request.get("headers")
    # The last task of a chain is the first here.
    group = (chain[0].get("options") or {}).get("group_id") if chain else request.get("group")
    named = request.get(CANVAS) or (headers.get(CANVAS) if isinstance(headers, Mapping) else None)
    return str(named or group or request.get("root_id") or task_id)


def _ends_something(request: Mapping[str, Any], state: str, *, noted: bool) -> bool:
    if state in _TO_COME_AGAIN or request.get("chord"):
        return False
    if state == states.SUCCESS and (request.get("chain") or request.get("callbacks")):
        return False
    # The body of a chord has the group's id, but no place in it.
    return noted or not request.get("group") or request.get("group_index") is None


def _is_kept(settings: Settings, state: str) -> bool:
    return settings.keep == "failed" and state == states.FAILURE


def _pending(task_id: str) -> str:
    return f"pending~{quote(task_id)}"
