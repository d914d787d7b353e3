"""The frameworks that switch between workflows: one file each, which alone knows its framework."""

from types import ModuleType

from ..patches import Patches


def trace_tasks(module: ModuleType, patches: Patches) -> None:
    """Have the tasks of the module `celery.app.trace` run in the scope of their workflow."""
    from .celery import install

    install(module, patches)
