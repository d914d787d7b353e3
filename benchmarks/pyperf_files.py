"""The samples of calls as files of pyperf: for `pyperf compare_to`, `hist`, `stats` and `check`.

They are not taken by pyperf's runner. It measures one side after the other, a process at a time; where processors are
shared, the machine is another one by then. On a busy one, where processes of both sides took turns, it took seven
times as long for half of the calls, and its intervals were two to ten times as wide as those of turns of milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


def save(directory: Path, version: str, taken: Mapping[tuple[str, str], Sequence[Sequence[float]]]) -> None:
    """Write `<version>-<side>.json` for each side: of each call the samples, in seconds, of each process."""
    import pyperf

    directory.mkdir(parents=True, exist_ok=True)
    for side in {side for side, _ in taken}:
        benchmarks = [
            pyperf.Benchmark(
                [
                    pyperf.Run(values, metadata={"name": name, "python_version": version}, collect_metadata=False)
                    for values in processes
                ]
            )
            for (of, name), processes in taken.items()
            if of == side
        ]
        pyperf.BenchmarkSuite(benchmarks).dump(str(directory / f"{version}-{side}.json"), replace=True)
