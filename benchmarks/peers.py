"""What others load at interpreter start, beside the shim: in one environment, by turns, and checked to be at work.

OpenTelemetry's and ddtrace's `sitecustomize` are started as `opentelemetry-instrument` and `ddtrace-run` do, through
`PYTHONPATH`, with the instrumentations of Celery and threads, without exporters and without an agent: nothing is sent.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.figures import Row, compare
from benchmarks.sides import Sides
from benchmarks.starts import in_turns, launch
from benchmarks.venvs import Venv

NAIVE = Path(__file__).parent / "naive"
BESIDE = ", in a virtual environment"
_ABSENT = "absent"


@dataclass(frozen=True)
class Peer:
    """What to install, the directory of its `sitecustomize`, its settings, and a module that it has loaded."""

    requirements: tuple[str, ...]
    directory: str
    module: str
    settings: Mapping[str, str] = field(default_factory=dict)


PEERS = {
    "naive shim": Peer(("wrapt==2.5.2",), str(NAIVE), "wrapt"),
    "OpenTelemetry": Peer(
        (
            "opentelemetry-distro==0.66b1",
            "opentelemetry-instrumentation-celery==0.66b1",
            "opentelemetry-instrumentation-threading==0.66b1",
        ),
        "opentelemetry/instrumentation/auto_instrumentation",
        "opentelemetry.instrumentation.threading",
        {f"OTEL_{what}_EXPORTER": "none" for what in ("TRACES", "METRICS", "LOGS")},
    ),
    "ddtrace": Peer(
        ("ddtrace==4.16.0",),
        "ddtrace/bootstrap",
        "ddtrace.bootstrap.preload",
        {
            "DD_TRACE_AGENT_URL": "unix:///nonexistent",
            **{
                f"DD_{what}_ENABLED": "false"
                for what in (
                    "CRASHTRACKING",
                    "INSTRUMENTATION_TELEMETRY",
                    "REMOTE_CONFIGURATION",
                    "SYMBOL_DATABASE_UPLOAD",
                )
            },
        },
    ),
}


def measure(version: str, sides: Sides, venv: Venv, rounds: int) -> Iterator[Row]:
    """The rows of starts with the shim and with each peer that can be installed; the others are named on stderr."""
    bare = {**sides.same_place, "HOME": str(sides.directory)}
    environments = {_ABSENT: bare, "shim": {**bare, **sides.in_workflow}}
    loaded = {"shim": "services.common.tmp_redirect"}
    for name, peer in PEERS.items():
        if reason := venv.install(*peer.requirements):
            print(f"bench: no rows of {name} in {version}: {reason}", file=sys.stderr)
            continue
        environments[name] = {**bare, **peer.settings, "PYTHONPATH": str(venv.packages / peer.directory)}
        loaded[name] = peer.module
    for side, module in loaded.items():
        code = f"import sys; sys.exit({module!r} not in sys.modules)"
        launch(venv.python, code, environments[side], 0)
        launch(venv.python, code, bare, 1)
    for code, command in (("pass", "python -c pass"), ("import tempfile", 'python -c "import tempfile"')):
        seconds = in_turns(venv.python, code, environments, rounds)
        for side in loaded:
            yield compare(version, f"{command}{BESIDE}", seconds[side], seconds[_ABSENT], side=side)
