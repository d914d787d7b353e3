"""Turns attempts to create something in system temp into violations: calls.py sees them, policy.py decides."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..patches import Patches


def install(layers: tuple[str, ...], patches: "Patches") -> None:
    """Install the layers that `TMP_REDIRECT_GUARD` names."""
    if "calls" in layers:
        from .calls import install as install_calls

        install_calls(patches)
