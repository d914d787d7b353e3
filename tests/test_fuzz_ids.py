"""Whatever is given as a workflow id: it is refused as what it is, or has `<root>/<id>/tmp`, and nobody else has."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.tmp_redirect import cli, run
from services.common.tmp_redirect.command_output import CONFIGURATION, USAGE
from services.common.tmp_redirect.errors import InvalidWorkflowId, SettingsError
from services.common.tmp_redirect.settings import DIRECTORIES, Settings
from services.common.tmp_redirect.workflow_id import check
from services.common.tmp_redirect.workspace import prepare
from tests.fuzzing import JSON, SOAK, TRICKY, TRICKY_TEXT, fuzz

IDS = TRICKY_TEXT | JSON | st.binary(max_size=20) | st.integers() | st.uuids()


def entries(directory: Path) -> set[bytes]:
    """The paths of all that is below `directory`, from there."""
    return {
        os.path.relpath(os.path.join(above, name), os.fsencode(directory))
        for above, names, files in os.walk(os.fsencode(directory))
        for name in (*names, *files)
    }


@pytest.fixture
def new_root(tmp_path: Path) -> Iterator[Any]:
    """Makes an empty root, with directories around it in which an escape would show."""

    def make() -> Path:
        shutil.rmtree(tmp_path / "around", ignore_errors=True)
        root = tmp_path / "around" / "workflows"
        root.mkdir(parents=True)
        return root

    return make


@given(IDS)
@fuzz(150)
def test_an_id_is_refused_or_has_its_directory(new_root: Any, value: object) -> None:
    root = new_root()
    settings = Settings({"TMP_REDIRECT_ROOT": str(root)})
    try:
        path = prepare(settings, value)  # type: ignore[arg-type]
    except InvalidWorkflowId as error:
        assert str(error).isprintable() and len(str(error)) < 400
        assert entries(root.parent) == {b"workflows"}
    else:
        name = os.fsencode(str(value))
        assert path == f"{root}/{value}/tmp"
        assert entries(root) == {name, name + b"/tmp"}
        assert entries(root.parent) == {b"workflows", b"workflows/" + name, b"workflows/" + name + b"/tmp"}


VARIANTS = [
    *(str.lower, str.upper, str.casefold, str.strip, lambda text: text + " ", lambda text: text + "."),
    *(lambda text, form=form: unicodedata.normalize(form, text) for form in ("NFC", "NFD", "NFKC", "NFKD")),
    *(lambda text: text + "\u200b", lambda text: text + "\0", lambda text: text + "/", lambda text: "./" + text),
]


@given(TRICKY_TEXT, st.sampled_from(VARIANTS))
@fuzz(100)
def test_two_ids_never_share_a_directory(new_root: Any, value: str, variant: Any) -> None:
    settings = Settings({"TMP_REDIRECT_ROOT": str(new_root())})
    ids = {value, variant(value)}
    made = set()
    for identity in ids:
        try:
            made.add(os.stat(prepare(settings, identity)).st_ino)
        except InvalidWorkflowId:
            made.add(-len(made) - 1)
    assert len(made) == len(ids)


@pytest.mark.parametrize("variable", ["TMP_REDIRECT_SCOPE", "TMP_REDIRECT_SERVICE"])
@given(value=TRICKY_TEXT)
@fuzz()
def test_an_id_in_the_environment(variable: str, value: str) -> None:
    try:
        settings = Settings({variable: value})
    except SettingsError:
        with pytest.raises(InvalidWorkflowId):
            check(value)
    else:
        if value:
            assert getattr(settings, variable.rpartition("_")[2].lower()) == check(value)


IN_AN_ENVIRONMENT = [value for value in TRICKY if "\0" not in value and "\ud800" not in value]


@pytest.mark.promise
def test_a_child_begins_in_the_scope_that_is_named_or_not_at_all(
    shim_env: dict[str, str], root: Path, tmp_path: Path
) -> None:
    program = "import os, sys, tempfile; sys.stdout.buffer.write(os.fsencode(tempfile.mkdtemp()))"
    for value in IN_AN_ENVIRONMENT[:: 1 if SOAK else 2]:
        env = {**shim_env, "TMP_REDIRECT_SCOPE": value}
        done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, check=False, cwd=tmp_path)
        try:
            workspace = root / (check(value) if value else ".outside/svc") / "tmp"
        except InvalidWorkflowId:
            assert (done.returncode, done.stdout) == (78, b"")
            assert done.stderr.count(b"\n") == 1 and done.stderr.decode().strip().isprintable()
        else:
            assert (done.returncode, done.stderr) == (0, b"")
            assert os.path.dirname(done.stdout) == os.fsencode(workspace)


@pytest.fixture
def run_command(no_settings: None, monkeypatch: pytest.MonkeyPatch, root: Path) -> Iterator[list[dict[str, str]]]:
    """What `tmp-redirect run` would have put into the environment of its command."""
    environments: list[dict[str, str]] = []
    monkeypatch.setenv("TMP_REDIRECT_ROOT", str(root))
    monkeypatch.setattr(run.posix, "execve", lambda program, command, env: environments.append(env))
    before = {number: signal.getsignal(number) for number in (signal.SIGPIPE, signal.SIGXFSZ)}
    yield environments
    for number, handler in before.items():
        signal.signal(number, handler)


@given(value=TRICKY_TEXT)
@fuzz()
def test_run_enters_the_workflow_that_is_named_or_ends(
    value: str, run_command: list[dict[str, str]], root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_command.clear()
    try:
        status = cli.main(["run", f"--workflow={value}", "--", "true"])
    except SystemExit as ended:
        assert (value, ended.code) == ("", USAGE)
        capsys.readouterr()
        return
    said = capsys.readouterr().err
    if run_command:
        assert (said, status) == ("", None)
        [env] = run_command
        assert {env[name] for name in DIRECTORIES} == {f"{root}/{check(value)}/tmp"}
        assert env["TMP_REDIRECT_SCOPE"] == value
        shutil.rmtree(root / value)
    else:
        assert status == CONFIGURATION
        assert said.endswith("\n") and said[:-1].isprintable()
        with pytest.raises(InvalidWorkflowId):
            check(value)
    assert entries(root) == set()


def by_scope(identity: Any, suffix: Any) -> None:
    """`workflow`, `get_temp_path` and `tempfile`, in a process with the shim."""
    from services.common.tmp_redirect import current_workflow, get_temp_path, workflow

    root = os.environ["TMP_REDIRECT_ROOT"]
    try:
        path = get_temp_path(identity, suffix)
    except (ValueError, TypeError) as error:
        assert isinstance(error, InvalidWorkflowId) or not isinstance(suffix, str) or {"/", "\0"} & set(suffix)
    else:
        assert os.path.dirname(path) == f"{root}/{identity}/tmp", path
        assert os.path.basename(path).endswith(suffix) and not os.path.lexists(path[:4000].encode(errors="replace"))
        assert os.path.dirname(os.path.abspath(path)) == f"{root}/{identity}/tmp", path
    try:
        entered = workflow(identity)
    except InvalidWorkflowId:
        assert current_workflow() is None
        return
    with entered as workspace, tempfile.NamedTemporaryFile() as file:
        assert current_workflow() == identity
        assert os.path.dirname(file.name) == workspace == f"{root}/{identity}/tmp"
    shutil.rmtree(f"{root}/{identity}", ignore_errors=True)


def by_message(task_id: Any, args: Any, kwargs: Any, request: dict[str, Any], context: Any) -> None:
    """A message that anybody has written, in a worker: the task runs in the scope that it names, or fails."""
    from celery import Celery, states
    from celery.app import trace

    from services.common.tmp_redirect import current_workflow

    seen = []
    app = Celery("fuzzed", set_as_current=False, broker="memory://", backend="cache+memory://")

    @app.task(name="fuzzed.task")
    def task(*args: Any, **kwargs: Any) -> None:
        seen.append((current_workflow(), tempfile.gettempdir()))

    tracer = trace.build_tracer(task.name, task, app=app, propagate=False, eager=False)
    if context is not None:
        kwargs = {**kwargs, "context": context}
    result = tracer(task_id, args, kwargs, {"id": task_id, **request})
    if seen:
        [(workflow, directory)] = seen
        assert isinstance(workflow, str) and check(workflow) == workflow
        assert directory == f"{os.environ['TMP_REDIRECT_ROOT']}/{workflow}/tmp"
    else:
        assert result.info.state == states.FAILURE, result
        assert isinstance(result.info.retval, InvalidWorkflowId), result
    assert current_workflow() is None


HEADER = "tmp_redirect_workflow"
NAMED = st.none() | st.dictionaries(st.sampled_from(["workflow_id", "x"]), IDS, max_size=2) | JSON
REQUESTS = st.fixed_dictionaries(
    {}, optional={"root_id": JSON, HEADER: IDS, "headers": JSON | st.fixed_dictionaries({HEADER: IDS}), "group": JSON}
)
MESSAGES = (st.uuids().map(str), st.lists(NAMED, max_size=2), st.dictionaries(st.text("cx"), JSON, max_size=2))


@pytest.mark.promise
@pytest.mark.parametrize("body", ["scopes", "messages"])
def test_every_door_of_a_process_with_the_shim(body: str, shim_env: dict[str, str], root: Path, tmp_path: Path) -> None:
    """In a process of its own, which imports this file."""
    env = {**shim_env, "SOAK": os.environ.get("SOAK", ""), "HYPOTHESIS_STORAGE_DIRECTORY": str(root / ".hypothesis")}
    env["PYTHONPATH"] += f":{Path(__file__).parents[1]}"
    command = [sys.executable, "-c", f"from tests import test_fuzz_ids; test_fuzz_ids.{body}()"]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {entry.name for entry in root.parent.iterdir()} <= {"workflows", "overlay", "body.py"}


def scopes() -> None:
    fuzz(100)(given(IDS, TRICKY_TEXT | st.binary(max_size=3) | st.none())(by_scope))()


def messages() -> None:
    fuzz(100)(given(*MESSAGES, REQUESTS, NAMED)(by_message))()
