"""Which shim the tests are about: the installed wheel, as users have it; with an editable installation, this checkout.

Tests and examples come from the checkout, which is on the path before the installation. So this says where the package
is, before anything imports it.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import services.common

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = Path("services/common/tmp_redirect")


def _home() -> Path:
    try:
        site_packages = Path(str(distribution("tmp-redirect").locate_file("")))
    except PackageNotFoundError:
        return REPOSITORY
    return site_packages if (site_packages / PACKAGE / "__init__.py").is_file() else REPOSITORY


HOME = _home()  # what the package is imported from
AUTOLOAD = HOME / PACKAGE / "autoload" if HOME != REPOSITORY else HOME  # where its sitecustomize.py is
services.common.__path__ = [str(HOME / PACKAGE.parent)]
