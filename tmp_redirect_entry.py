"""What the console script leads to: the package's `__main__.py`, which is run by its path.

Not a module of the package, as an import of one would execute the package's parents: see `tmp_redirect_pytest`.

PYTEST_DONT_REWRITE: there is nothing to rewrite.
"""

import runpy
from pathlib import Path


def main() -> None:
    """Run the command line; it ends the process with its exit status."""
    package = Path(__file__).parent / "services" / "common" / "tmp_redirect"
    runpy.run_path(str(package / "__main__.py"), run_name="__main__")
