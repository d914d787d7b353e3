"""The layers of the guard, and whether this kernel, or this image, has what the layer kernel takes."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

from ..kernel import availability, is_restricted
from .case import Case
from .finding import Finding, from_message


def guard(case: Case) -> Iterator[Finding]:
    """Which layers there are, and what they let through."""
    layers, allowed = case.settings.guard, ":".join(case.settings.allow)
    text = ",".join(layers) + (f", TMP_REDIRECT_ALLOW lets through {allowed}" if allowed else "")
    if "audit" in layers:
        text += ": audit sees all Python code, but copy.deepcopy takes twice as long"
        yield Finding("guard", "note", text, "keep audit to tests and debugging")
    elif "calls" not in layers:
        text += ": what the kernel refuses isn't logged, so nobody learns who was refused"
        yield Finding("guard", "note", text, "TMP_REDIRECT_GUARD=calls,kernel")
    else:
        yield Finding("guard", "ok", text)


def kernel(case: Case) -> Iterator[Finding]:
    """Whether the layer kernel can be had."""
    asked = "kernel" in case.settings.guard
    if case.image:
        if asked:
            yield _in_image(case)
        return
    abi, reason = availability()
    if not asked:
        could = "it could be had here" if reason is None else f"it could not be had here: {reason.partition('; ')[0]}"
        yield Finding("kernel", "ok", f"not asked for; {could}")
    elif case.settings.mode != "enforce":
        yield Finding("kernel", "note", f"asked for, but it does nothing in the mode {case.settings.mode}")
    elif reason is not None:
        yield from_message("kernel", case.fatal, reason)
    else:
        text = f"Landlock ABI {abi}; this process is {'' if is_restricted() else 'not '}restricted"
        yield Finding("kernel", "ok", text)


def _in_image(case: Case) -> Finding:
    path = case.facts.path if case.facts else []
    if next(iter(metadata.distributions(name="landlockpy", path=path)), None) is None:
        text = "TMP_REDIRECT_GUARD has kernel, but landlockpy isn't installed"
        return Finding("kernel", case.fatal, text, "pip install 'landlockpy>=0.2,<0.3' in the image")
    return Finding("kernel", "ok", "landlockpy is installed; whether the kernel has Landlock is seen where it runs")
