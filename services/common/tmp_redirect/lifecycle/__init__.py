"""Life and death of a workspace: who uses it, when it is taken away, and what is left for the next sweep.

holders.py and leases.py say who uses one, purge.py takes it away where nobody does, removal.py removes a tree exactly,
sweep.py finds what is due. Children load this at their first temp file: only the leases come with it.
"""

import os

from ..patches import loading
from .leases import OVER, borrowed, hand_over, mark, new_name, take, unmark

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..settings import Settings

__all__ = ["hand_over", "is_over", "mark", "new_name", "purge_if_over", "take", "unmark"]


def is_over(settings: "Settings", workflow: str | None, failure: str = "") -> bool:
    """Whether the workflow has ended while its workspace was in use, and no failure keeps that.

    Any failure does, or, for a task, its own canvas' `failure`: those of earlier runs are over with this one.
    """
    leases = settings.leases_of(workflow)
    if not os.path.exists(f"{leases}/{OVER}"):
        return False
    if settings.keep != "failed":
        return True
    try:
        found = [borrowed(name) or name for name in os.listdir(leases)]
    except FileNotFoundError:
        return False  # somebody has just purged it
    return failure not in found if failure else not any(name.startswith("failed~") for name in found)


def purge_if_over(settings: "Settings", workflow: str | None, failure: str = "") -> None:
    """Take the workspace away if its workflow is over, unless somebody else uses it; `failure` as of `is_over`."""
    if is_over(settings, workflow, failure):
        with loading:
            from .purge import purge

        purge(settings, workflow, unless=failure)
