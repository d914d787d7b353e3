"""What the environment asks for: settings, mode, and the name of the service."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from ..kernel import MARK
from ..settings import VARIABLES
from .case import Case
from .finding import Finding

_SIGNS_OF_A_CONTAINER = ("/.dockerenv", "/run/.containerenv")
_CONTAINER_ID = re.compile(r"[0-9a-f]{12}")


def settings(case: Case) -> Iterator[Finding]:
    """Whether all variables hold what they may, and whether one is spelled as none of ours is."""
    found = case.settings
    for error in case.errors:
        yield Finding("settings", case.fatal, str(error), f"correct {error.variable}")
    if not case.errors:
        yield Finding("settings", "ok", f"mode {found.mode}, guard {','.join(found.guard)}, root {found.root}")
    for name in sorted(case.environ):
        if name.startswith("TMP_REDIRECT") and name not in (*VARIABLES, MARK):
            yield Finding(
                "settings", "note", f"{name} is no setting, and nothing reads it", "look for a spelling mistake"
            )
    if found.scope is not None:
        text = f"TMP_REDIRECT_SCOPE={found.scope}: all that isn't a task runs in that workflow"
        yield Finding("settings", "note", text, "don't set it for a service; the shim sets it for children")


def mode(case: Case) -> Iterator[Finding]:
    """What the shim does with it."""
    if any(error.variable == "TMP_REDIRECT" for error in case.errors):
        return
    if case.is_off:
        advice = "TMP_REDIRECT=warn or enforce switches it on"
        weight = "problem" if case.image else "note"
        yield Finding("mode", weight, "the shim is off: nothing is redirected or guarded", advice)
    elif case.settings.mode == "warn":
        text = "warn: temp files are redirected; what uses system temp is logged, and goes through"
        yield Finding("mode", "note", text, "set TMP_REDIRECT=enforce when the log has nothing new")
    else:
        yield Finding("mode", "ok", "enforce: temp files are redirected, and what uses system temp is refused")


def service(case: Case) -> Iterator[Finding]:
    """What the workspace outside any workflow is named after."""
    name = case.settings.service
    if case.environ.get("TMP_REDIRECT_SERVICE"):
        yield Finding("service", "ok", name)
    elif _is_container(case.environ, name):
        text = f"TMP_REDIRECT_SERVICE isn't set, so the host name {name} is used, which each new container has anew"
        advice = (
            "set it to the service's name; else each container leaves a directory in .outside, and a log of its own"
        )
        yield Finding("service", "note", text, advice)
    else:
        yield Finding("service", "ok", f"{name}, the host name, as TMP_REDIRECT_SERVICE isn't set")


def _is_container(environ: dict[str, str], host: str) -> bool:
    signs = any(map(os.path.exists, _SIGNS_OF_A_CONTAINER)) or "KUBERNETES_SERVICE_HOST" in environ
    return signs or _CONTAINER_ID.fullmatch(host) is not None
