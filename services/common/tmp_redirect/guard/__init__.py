"""Turns attempts to create something in system temp into violations: policy.py decides, violations.py keeps them.

What sees the attempts is loaded at each interpreter start, where a package is dear: that is calls.py and kernel.py,
beside this.
"""

from .policy import check
from .violations import Report, report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

    from ..patches import Patches
    from ..settings import Settings
    from .landlock import Availability

__all__ = ["Report", "availability", "check", "install_sqlite", "report", "restrict"]


def install_sqlite(module: "ModuleType", patches: "Patches") -> None:
    """Put the check in front of what creates files in the module `sqlite3`."""
    from .sqlite import install

    install(module, patches)


def restrict(settings: "Settings") -> None:
    """See `landlock.restrict`."""
    from .landlock import restrict

    restrict(settings)


def availability() -> "Availability":
    """See `landlock.availability`."""
    from .landlock import availability

    return availability()
