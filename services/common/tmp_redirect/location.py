"""Where this package is, and where its `sitecustomize.py` is: in a wheel inside it, else where it is imported from."""

import os

PACKAGE = os.path.dirname(os.path.abspath(__file__))
HOME = os.path.dirname(os.path.dirname(os.path.dirname(PACKAGE)))  # what it is imported from
# At the top of site-packages it would be in the way of everybody's sitecustomize.
_AUTOLOAD = os.path.join(PACKAGE, "autoload")
SITECUSTOMIZE = os.path.join(_AUTOLOAD if os.path.isdir(_AUTOLOAD) else HOME, "sitecustomize.py")
