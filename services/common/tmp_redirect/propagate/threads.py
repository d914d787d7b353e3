"""A thread belongs to the workflow of the code that started it.

`start` is where that is known, and `_bootstrap_inner` runs first in the new thread, also where a subclass overrides
`run`. A thread that outlives the scope is outside from then on.
"""

from types import ModuleType
from typing import Any

from ..patches import Patches
from ..scope import adopt, current, is_set_in
from .wrapping import wrap


def install(module: ModuleType, patches: Patches) -> None:
    """Have the threads of the module `threading` pass the scope on."""
    wrap(patches, module.Thread, "start", _start)
    wrap(patches, module.Thread, "_bootstrap_inner", _bootstrap_inner)


def _start(original: Any, thread: Any) -> None:
    thread._tmp_redirect_scope = current()
    original(thread)


def _bootstrap_inner(original: Any, thread: Any) -> None:
    scope = thread.__dict__.pop("_tmp_redirect_scope", None)
    if scope is not None:
        # From Python 3.14 on a thread runs in a context that may be a copy of the starter's, or the caller's own.
        context = getattr(thread, "_context", None)
        if context is None:
            adopt(scope)
        elif not is_set_in(context):
            context.run(adopt, scope)
    original(thread)
