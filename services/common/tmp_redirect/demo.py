"""`tmp-redirect demo`: the demo of a source checkout."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .command_output import CONFIGURATION, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `run` needs to `parser`."""
    parser.add_argument("--root", type=Path, metavar="DIR", help="work in this directory instead of a new one")
    parser.add_argument("--keep", action="store_true", help="leave the work directory, logs included, at the end")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(options: argparse.Namespace) -> int:
    """Run the demo: 0 if every file went where it should, else 1; 78 where it can't run."""
    checkout = Path(__file__).resolve().parents[3]
    if not (checkout / "examples" / "demo.py").is_file():
        reason = f"{checkout} has no examples/demo.py: the demo runs from a source checkout only"
        return say("demo", reason, CONFIGURATION)
    sys.path.insert(0, str(checkout))  # first, since `examples` is a name that others use too
    from examples.demo import run

    return run(root=options.root, keep=options.keep, as_json=options.json)
