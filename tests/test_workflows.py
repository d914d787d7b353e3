"""Every call site with a real worker: nothing in system temp, and each file in the workspace of its own workflow.

The five call sites of `examples/callsites`, and their child processes, run in two workflows at the same time: with a
real Celery worker, broker, object storage and ffmpeg, in `enforce`. What counts is what inotify reported.

To add a call site: make it a task in `examples/callsites/app.py` and a step of the chain in
`examples/callsites/gateway.py`, log `temp file of <site> for <workflow id>: <path>`, let the file's name contain
`.<INSTANCE>.`, and give the number of these files in `SITES` of `examples/demo.py`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from examples import demo
from examples.evidence import Pass, TempFile, judge_redirected
from examples.servers import Servers
from tests.conftest import lay_over

RunPass = Callable[..., Pass]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """A directory to work in, and the environment that tells the platform where its broker and its storage are."""
    directory = tmp_path_factory.mktemp("platform")
    # A source tree may be in system temp: it shall get no `__pycache__` while that is watched.
    servers = Servers(directory, {**demo.clean_environment(), "PYTHONDONTWRITEBYTECODE": "1"})
    with servers.broker() as broker, servers.object_storage() as storage:
        yield directory, {**servers.env, **demo.platform_settings(broker, storage)}


@pytest.fixture
def run_workflows(platform: tuple[Path, dict[str, str]], mode: str) -> RunPass:
    """Runs the workflows from the given source tree."""
    directory, env = platform

    def run(name: str, source: Path = demo.REPOSITORY) -> Pass:
        env_of_pass = {**env, "PYTHONPATH": str(source)}
        return demo.run_pass(name, directory / name, env_of_pass, lambda: None, redirect=mode == "enforce")

    return run


def findings(run: Pass) -> list[str]:
    """What is wrong. In system temp any file counts: a call site that was overlooked doesn't mark its files."""
    strays = [f"{path} was created in system temp" for path in run.in_system_temp(run.created)]
    return [*judge_redirected(run, demo.EXPECTED), *strays]


@pytest.mark.promise
def test_every_call_site(run_workflows: RunPass) -> None:
    assert findings(run_workflows("guard")) == []


def changed_source(directory: Path, old: str, new: str) -> Path:
    """A source tree whose first call site is another."""
    lay_over(directory)
    shutil.copytree(
        demo.REPOSITORY / "examples", directory / "examples", ignore=shutil.ignore_patterns("__pycache__", ".*")
    )
    call_site = directory / "examples" / "callsites" / "directory_upload.py"
    text = call_site.read_text(encoding="utf-8")
    assert text.count(old) == 1
    call_site.write_text(text.replace(old, new), encoding="utf-8")
    return directory


@pytest.mark.promise
def test_a_call_site_that_names_system_temp_fails_its_workflow(run_workflows: RunPass, tmp_path: Path) -> None:
    run = run_workflows("names-tmp", changed_source(tmp_path, "tempfile.gettempdir()", '"/tmp"'))
    assert "TmpFallbackError" in findings(run)[0]
    assert run.in_system_temp(run.created) == []
    log = (run.root.parent / "worker.log").read_text(encoding="utf-8")
    for workflow in demo.WORKFLOWS:
        [refused] = run.files_of("directory_upload", workflow)
        assert refused.path.parent == Path("/tmp")
        assert re.search(rf"TmpFallbackError: .* refused open of '{refused.path}' in system temp", log)
    assert re.search(rf"refused: open of '/tmp/\S+' at {tmp_path}/examples/callsites/directory_upload\.py:\d+ in", log)


def test_a_file_that_another_program_makes_in_system_temp_is_found(run_workflows: RunPass, tmp_path: Path) -> None:
    work = "        _compress(directory, archive)\n"
    shell = """        __import__("subprocess").run(["sh", "-c", "rm $(mktemp /tmp/rogue-XXXXXX)"], check=True)\n"""
    found = findings(run_workflows("another-program", changed_source(tmp_path, work, work + shell)))
    assert [re.sub("-.{6} ", "-* ", finding) for finding in found] == ["/tmp/rogue-* was created in system temp"] * 2


def test_a_new_call_site_has_to_be_listed(tmp_path: Path) -> None:
    file = TempFile("newcomer", "video-1", tmp_path / "workflows" / "video-1" / "tmp" / "x.mark.json")
    run = Pass("pass", tmp_path, tmp_path / "workflows", "mark", outside="gateway", files=[file], created=[file.path])
    assert "pass: newcomer of video-1 is none of the expected call sites" in findings(run)
