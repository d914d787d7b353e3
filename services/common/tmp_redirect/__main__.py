"""`python -m services.common.tmp_redirect`."""

from .cli import main

raise SystemExit(main())
