"""Life and death of a workspace: who uses it, when it is taken away, and what is left for the next sweep.

holders.py and leases.py say who uses one, purge.py takes it away where nobody does, removal.py removes a tree exactly,
sweep.py finds what is due. Children load this at their first temp file: only the leases come with it.
"""

import os

from .leases import OVER, mark, new_name, take, unmark

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..settings import Settings

__all__ = ["mark", "new_name", "purge_if_over", "take", "unmark"]


def purge_if_over(settings: "Settings", workflow: str | None, unless: str = "") -> None:
    """Take the workspace away if its workflow has ended while it was in use, and it isn't any more.

    `unless` names a file among the leases that keeps it.
    """
    if os.path.exists(f"{settings.leases_of(workflow)}/{OVER}"):
        from .purge import purge

        purge(settings, workflow, unless=unless)
