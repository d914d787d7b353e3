"""What a run has found, and the file that it is kept in: times in seconds, no host's name."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.figures import Row
from benchmarks.isolation import Landed


@dataclass(frozen=True)
class Results:
    """The rows of a run and where files landed; `machine` says on what, `date` when it began."""

    machine: dict[str, Any]
    date: str
    rows: list[Row]
    landed: list[Landed]

    def as_json(self) -> str:
        """The results as text."""
        rows, landed = [row.as_json() for row in self.rows], [asdict(one) for one in self.landed]
        return json.dumps({"date": self.date, "machine": self.machine, "rows": rows, "landed": landed}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Results:
        """The results that `as_json` made text of."""
        plain = json.loads(text)
        rows, landed = [Row.from_json(row) for row in plain["rows"]], [Landed(**one) for one in plain["landed"]]
        return cls(plain["machine"], plain["date"], rows, landed)
