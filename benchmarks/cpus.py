"""Both sides of a comparison on one processor: another may be slowed down by other programs, and by its own clock."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def one_cpu(turn: int) -> Iterator[None]:
    """Stay on one processor, each `turn` on the next one; processes that are started here stay there too."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(allowed)[turn % len(allowed)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
