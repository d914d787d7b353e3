"""Turns attempts to create something in system temp into violations.

policy.py decides, violations.py keeps them, journal.py writes them down for whoever looks later. What sees the attempts
is loaded at each interpreter start, where a package is dear: that is calls.py and kernel.py, beside this.
"""

from .policy import check, tolerate
from .violations import Report, Violation, listen, report, summarise

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

    from ..patches import Patches
    from ..settings import Settings
    from .landlock import Availability

__all__ = [
    "Report", "Violation", "availability", "check", "install_audit", "install_sqlite", "journal_path", "listen",
    "report", "restrict", "summarise", "tolerate",
]  # fmt: skip


def install_sqlite(module: "ModuleType", patches: "Patches") -> None:
    """Put the check in front of what creates files in the module `sqlite3`."""
    from .sqlite import install

    install(module, patches)


def install_audit(patches: "Patches") -> None:
    """See `audit.install`."""
    from .audit import install

    install(patches)


def restrict(settings: "Settings") -> None:
    """See `landlock.restrict`."""
    from .landlock import restrict

    restrict(settings)


def availability() -> "Availability":
    """See `landlock.availability`."""
    from .landlock import availability

    return availability()


def journal_path() -> str:
    """See `journal.path`."""
    from .journal import path

    return path()
