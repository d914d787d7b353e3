"""What is shown of a measurement: the median, how far it is to be trusted, and whether it reaches its target."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

SECONDS, BYTES, COUNT = "s", "B", ""
SHIM = "shim"


@dataclass(frozen=True)
class Estimate:
    """A median and its 95% confidence interval."""

    median: float
    low: float
    high: float


def estimate(values: Sequence[float]) -> Estimate:
    """The median of independent values; the interval lies between two of them (sign test), so outliers don't matter."""
    ordered = sorted(values)
    outermost = max(0, math.floor(len(ordered) / 2 - 0.98 * math.sqrt(len(ordered))))
    return Estimate(statistics.median(ordered), ordered[outermost], ordered[-1 - outermost])


@dataclass(frozen=True)
class Target:
    """The most that a ratio may be, and what may be added in the row's unit; a row without a target only informs."""

    ratio: float | None = None
    added: float | None = None


@dataclass(frozen=True)
class Row:
    """One comparison: `shim` and `stock` are in `unit`, `ratio` and `added` come from samples taken side by side.

    Where `side` isn't the shim, `shim` is what that peer takes. `at` says how many there were, in a curve of growth.
    """

    python: str
    what: str
    shim: float
    stock: float
    ratio: Estimate
    added: Estimate
    target: Target
    unit: str = SECONDS
    side: str = SHIM
    at: int | None = None

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Row:
        """The row that `as_json` made plain values of."""
        values = {name: value for name, value in plain.items() if name != "verdict"}
        parts = {"ratio": Estimate(**plain["ratio"]), "added": Estimate(**plain["added"])}
        return cls(**{**values, **parts, "target": Target(**plain["target"])})

    @property
    def verdict(self) -> str:
        """Whether the medians reach the target, to its two decimals, and whether noise could decide otherwise."""
        limits = [
            (value, limit)
            for value, limit in ((self.ratio, self.target.ratio), (self.added, self.target.added))
            if limit is not None
        ]
        if not limits:
            return ""
        reached = all(_is_within(value.median, limit) for value, limit in limits)
        if reached:
            sure = all(_is_within(value.high, limit) for value, limit in limits)
        else:
            sure = any(not _is_within(value.low, limit) for value, limit in limits)
        return ("reached" if reached else "not reached") + ("" if sure else " (within noise)")

    def as_json(self) -> dict[str, object]:
        """The row as plain values."""
        return {**asdict(self), "verdict": self.verdict}


def _is_within(value: float, limit: float) -> bool:
    # A target of 1.00x can't be meant more exactly than it is written.
    return value <= limit + (0.005 if limit >= 1 else 0)


def compare(
    python: str,
    what: str,
    shim: Sequence[float],
    stock: Sequence[float],
    target: Target = Target(),
    unit: str = SECONDS,
    side: str = SHIM,
    at: int | None = None,
) -> Row:
    """The row of two series in `unit`, of which those with the same index were taken side by side."""
    pairs = list(zip(shim, stock, strict=True))
    return Row(
        python,
        what,
        statistics.median(shim),
        statistics.median(stock),
        estimate([ours / theirs for ours, theirs in pairs]),
        estimate([ours - theirs for ours, theirs in pairs]),
        target,
        unit,
        side,
        at,
    )
