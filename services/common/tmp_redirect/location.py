"""Where this package is, and where its `sitecustomize.py` is: in a wheel inside it, else where it is imported from."""

import os

PACKAGE = os.path.dirname(os.path.abspath(__file__))
HOME = os.path.dirname(os.path.dirname(os.path.dirname(PACKAGE)))  # what it is imported from
# At the top of site-packages it would be in the way of everybody's sitecustomize.
_INSIDE = os.path.join(PACKAGE, "autoload")
AUTOLOAD = _INSIDE if os.path.isdir(_INSIDE) else HOME  # what PYTHONPATH has to name
SITECUSTOMIZE = os.path.join(AUTOLOAD, "sitecustomize.py")
