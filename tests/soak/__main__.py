"""Hours in minutes: workflows on workers of every pool, while workers are killed, the disk is full, and sweeps go on.

    python -m tests.soak [--workflows N] [--seed SEED] [--minutes N] [--pools prefork solo]

It ends with a ledger, whose evidence is not the shim's own: what inotify saw and what tasks noted in the broker.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from tests.conftest import lay_over

from .plan import POOLS
from .soak import Soak


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--workflows", type=int, default=1000)
    parser.add_argument(
        "--seed", default=secrets.token_hex(4), help="of an earlier run, which it printed: the same plan"
    )
    parser.add_argument("--minutes", type=float, default=30, help="after so many it publishes no more workflows")
    parser.add_argument("--pools", nargs="+", choices=POOLS, default=list(POOLS))
    parser.add_argument("--shim-off", action="store_true", help="which the ledger must notice")
    options = parser.parse_args(arguments)
    if options.workflows < 1:
        parser.error(f"--workflows {options.workflows}: at least one is needed")
    print(f"seed {options.seed}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="soak-", dir="/dev/shm"))
    try:
        (directory / "app").mkdir()
        lay_over(directory / "app")
        soak = Soak(directory, options.workflows, options.seed, options.pools, "off" if options.shim_off else "enforce")
        return soak.run(options.minutes)
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    sys.exit(main())
