"""The target's call sites under strace: no temp file of theirs, or of what they are built on, is in system temp."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from examples import demo
from examples.servers import Process, Servers
from tests.tracing import created, in_system_temp


@pytest.fixture
def traced(
    monkeypatch: pytest.MonkeyPatch, strace: tuple[str, ...], tmp_path: Path
) -> Callable[[], list[tuple[str, bool]]]:
    """Has the programs of the demo run under strace, and returns what they were to create."""
    start = Servers.process

    def process(
        servers: Servers, name: str, command: Any, env: Any = None
    ) -> AbstractContextManager[Process, bool | None]:
        if name not in (demo.WORKER, demo.GATEWAY):
            return start(servers, name, command, env)
        trace = [str(tmp_path / name) if word == str(tmp_path / "trace") else word for word in strace]
        return start(servers, name, [*trace, *command], env)

    monkeypatch.setattr(Servers, "process", process)
    return lambda: [entry for name in (demo.WORKER, demo.GATEWAY) for entry in created(tmp_path / name, tmp_path)]


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[dict[str, str]]:
    servers = Servers(tmp_path, demo.clean_environment())
    with servers.broker() as broker, servers.object_storage() as storage:
        yield {**servers.env, **demo.platform_settings(broker, storage)}


@pytest.mark.promise
def test_call_sites(
    platform: dict[str, str], traced: Callable[[], list[tuple[str, bool]]], tmp_path: Path, socket_dir: Path, mode: str
) -> None:
    env = {**platform, "TMP_REDIRECT_SOCKET_DIR": str(socket_dir)}
    directory = tmp_path / "after"
    run = demo.run_pass("traced", directory, env, lambda: None, redirect=mode != "off")
    assert not run.errors
    made = traced()
    assert not in_system_temp(made)
    # Heap arenas of billiard, made by the worker's main process before it forks; what the minio client downloads into.
    for expected in ("pymp-*", "pym-*", "*.part.minio"):
        found = [path for path, _ in made if fnmatch(os.path.basename(path), expected)]
        assert found, expected
        assert all(Path(path).is_relative_to(run.root) for path in found), found
    # What stock tempfile tries its directory with is nowhere.
    assert not [path for path, _ in made if re.fullmatch("[a-z0-9_]{8}", os.path.basename(path))]
