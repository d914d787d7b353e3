"""`os.environ` follows the scope, in a process that runs one task at a time.

Native code (`getenv`), `os.system` and children read the environment; a child interpreter comes up in the scope that
`TMP_REDIRECT_SCOPE` names. Where several tasks share the process this must not be used: they share the environment.
"""

import os
import threading

from ..scope import Scope

DIRECTORIES = ("TMPDIR", "TMP", "TEMP", "TEMPDIR")
SCOPE = "TMP_REDIRECT_SCOPE"


class Environment:
    """The variables of this process as they were, and what they are while a workflow runs.

    What to set follows from the scope alone, so nothing that goes wrong in one task changes what the next one gets.
    """

    def __init__(self) -> None:
        self._inherited = {name: os.environ.get(name) for name in (*DIRECTORIES, SCOPE)}
        self._thread = threading.get_ident()

    def follow(self, scope: Scope) -> None:
        """Set the variables for `scope`; outside a workflow, as they were. Threads of a task change nothing."""
        if threading.get_ident() != self._thread:
            return
        for name, inherited in self._inherited.items():
            value = inherited
            if scope.workflow is not None:
                value = scope.workflow if name == SCOPE else scope.workspace
            if value is None:
                os.environ.pop(name, None)
            elif os.environ.get(name) != value:
                os.environ[name] = value
