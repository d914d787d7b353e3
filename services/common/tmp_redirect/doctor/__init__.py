"""`tmp-redirect doctor`: whether the shim can do its work here, with these settings, and what to do where it can't.

It looks from outside: at the environment, at a fresh interpreter started as a service would be, and at the directories
that the shim works in. So it also works where the shim can't start. docs/doctor.md lists what it says.
"""

from .command import add_arguments, run

__all__ = ["add_arguments", "run"]
