"""Turns attempts to create something in system temp into violations: policy.py decides, violations.py keeps them.

What sees the attempts is loaded at each interpreter start, where a package is dear: that is calls.py, beside this.
"""

from .policy import check
from .violations import Report, report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

    from ..patches import Patches

__all__ = ["Report", "check", "install_sqlite", "report"]


def install_sqlite(module: "ModuleType", patches: "Patches") -> None:
    """Put the check in front of what creates files in the module `sqlite3`."""
    from .sqlite import install

    install(module, patches)
