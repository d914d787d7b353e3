"""Every call site of the platform does its work, with real ffmpeg and object storage. Nothing here knows the shim."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.callsites import gateway
from examples.callsites.app import app


@pytest.fixture
def eager() -> Iterator[None]:
    """Tasks run here, one after the other."""
    app.conf.task_always_eager = True
    yield
    app.conf.task_always_eager = False


@pytest.mark.usefixtures("storage_server", "eager")
def test_workflows_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workflows = ["video-1", "video-2"]
    assert gateway.main(str(tmp_path), *workflows) == 0
    summary = json.loads(capsys.readouterr().out)
    for workflow in workflows:
        outcome = summary[workflow]
        assert outcome["states"] == ["SUCCESS", "FAILURE"]
        assert len(outcome["archived"]) == outcome["frames"]
        assert outcome["audio"]["seconds"] == 1
