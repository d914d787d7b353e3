"""`python -m services.common.tmp_redirect`, or `python <this directory>`, which doesn't import the packages above it.

The console script leads here too, see `tmp_redirect_entry`.
"""

import os
import sys

PACKAGE = "services.common.tmp_redirect"


def load_package() -> str:
    """Load the package from its path, unless there is one already; returns the name that it is known by.

    In this process nobody else imports its parents, so there may be empty ones: the import system asks for them.
    """
    from importlib.util import module_from_spec, spec_from_file_location
    from types import ModuleType

    for parent in ("services", "services.common"):
        sys.modules.setdefault(parent, ModuleType(parent)).__path__ = []
    if PACKAGE not in sys.modules:
        directory = os.path.dirname(os.path.abspath(__file__))
        spec = spec_from_file_location(PACKAGE, os.path.join(directory, "__init__.py"))
        assert spec is not None and spec.loader is not None  # noqa: PT018, S101 - for the type checker
        sys.modules[PACKAGE] = package = module_from_spec(spec)
        spec.loader.exec_module(package)
    return PACKAGE


if not __package__:
    # Python has put this directory on the path, where errors.py and others would be in the way of everybody's.
    here = os.path.realpath(os.path.dirname(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry) != here]
raise SystemExit(__import__(f"{__package__ or load_package()}.cli", fromlist=["main"]).main())
