"""Other programs that Python starts belong to the workflow of the code that starts them, with any environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

WITH_CHILDREN = {"PYTHONPATH": "{overlay}:{helpers}", "TMPDIR": "/tmp", "TEMP": "/dev/shm"}


@pytest.mark.promise
@pytest.mark.fresh(env=WITH_CHILDREN)
def test_inherited_environment(root: Path, tmp_path: Path, overlay: Path, helpers: Path):
    """`os.environ` isn't changed: it is shared by the workflows of a process."""
    import os

    from children import seen_by, with_inherited_environment

    from services.common.tmp_redirect import workflow

    before = dict(os.environ)
    note = f"{tmp_path}/note"
    for asked in ("wf-1", 'it\'s "a" $workflow; 工作流', "x" * 255):
        directory = f"{root}/{asked}/tmp"
        with workflow(asked):
            for name, run in with_inherited_environment().items():
                assert seen_by(run, note) == (directory, [directory] * 4 + [asked]), name
    outside = f"{root}/.outside/svc/tmp"
    for name, run in with_inherited_environment().items():
        assert seen_by(run, note) == (outside, [outside] * 4 + [""]), name
    assert dict(os.environ) == before


@pytest.mark.promise
@pytest.mark.fresh(env=WITH_CHILDREN)
def test_given_environment(root: Path, tmp_path: Path, overlay: Path, helpers: Path):
    """The caller's mapping is not changed, and what it says on purpose is obeyed."""
    import os
    from collections import ChainMap

    from children import VARIABLES, seen_by, with_environment

    from services.common.tmp_redirect import workflow

    note, elsewhere = f"{tmp_path}/note", f"{root}/wf-1/scratch"
    of_another = dict.fromkeys(VARIABLES[:4], f"{root}/wf-2/tmp") | {"TMP_REDIRECT_SCOPE": "wf-2"}
    directory = f"{root}/wf-1/tmp"
    os.makedirs(elsewhere)
    usual = (directory, [directory] * 4 + ["wf-1"])
    environments = [
        ({}, usual),
        (os.environ.copy(), usual),
        (os.environ, usual),
        (dict(os.environ) | of_another, usual),
        ({"PATH": "/bin", **of_another}, usual),
        ({"TMPDIR": ""}, usual),
        ({"TMPDIR": "/var/tmp/x", "TMP": "/tmp"}, usual),
        ({b"TMPDIR": b"/tmp", b"PATH": b"/bin"}, usual),
        (ChainMap({"A": "b"}, {"TMPDIR": "/tmp"}), usual),
        ({"TMPDIR": elsewhere}, (elsewhere, [elsewhere] + [directory] * 3 + ["wf-1"])),
        ({b"TMPDIR": b"/dev/shm"}, ("/dev/shm", ["/dev/shm"] + [directory] * 3 + ["wf-1"])),
        (dict(os.environ) | {"TMP": "/dev"}, (directory, [directory, "/dev", directory, directory, "wf-1"])),
    ]
    made = []
    for env, expected in environments:
        copy = dict(env)
        with workflow("wf-1"):
            for name, run in with_environment().items():
                place, variables = seen_by(lambda command: run(command, env), note)
                assert (place, variables) == expected, (name, env, place, variables)
                made.append(place)
        assert dict(env) == copy
    os.system("rmdir /dev/shm/tmp.*")
    assert made.count("/dev/shm") == len(with_environment())


@pytest.mark.fresh(env=WITH_CHILDREN)
def test_an_environment_made_from_nothing_is_left_alone_outside(tmp_path: Path, overlay: Path, helpers: Path):
    from children import with_environment

    note = f"{tmp_path}/note"
    for name, run in with_environment().items():
        run(f"/usr/bin/env >{note}", {"FRUIT": "orange"})
        with open(note) as file:
            seen = dict(line.split("=", 1) for line in file.read().splitlines())
        assert not [variable for variable in seen if variable not in ("FRUIT", "PWD", "SHLVL", "_")], (name, seen)


@pytest.mark.promise
@pytest.mark.fresh(env=WITH_CHILDREN)
def test_preexec_fn(root: Path, tmp_path: Path, overlay: Path, helpers: Path):
    """It may change the environment that the child inherits, also past `os.environ`."""
    import os
    import subprocess

    from children import seen_by

    from services.common.tmp_redirect import workflow

    directory = f"{root}/wf-1/tmp"
    for env in (None, {}):
        run = lambda command: subprocess.run(
            ["/bin/sh", "-c", command], env=env, preexec_fn=lambda: os.putenv("FRUIT", "apple"), check=True
        )
        with workflow("wf-1"):
            assert seen_by(run, f"{tmp_path}/note") == (directory, [directory] * 4 + ["wf-1"]), env
            if env is None:
                run('test "$FRUIT" = apple')
    assert os.environ["TMPDIR"] == "/tmp"


@pytest.mark.fresh(env={"PYTHONWARNDEFAULTENCODING": "1"})
def test_a_warning_is_about_the_line_that_starts_the_child():
    import subprocess
    import warnings

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        subprocess.Popen(["true"], text=True).wait()
    assert [warning.filename for warning in caught] in ([], [__file__]), caught


@pytest.mark.promise
@pytest.mark.fresh(env=WITH_CHILDREN)
def test_python_children(root: Path, overlay: Path, helpers: Path):
    """A child interpreter comes up in the workflow, with the shim where `PYTHONPATH` is kept; else `TMPDIR` is left."""
    import json
    import os
    import subprocess
    import sys

    from services.common.tmp_redirect import workflow

    code = (
        "import json, sys, tempfile\n"
        "shim = sys.modules.get('services.common.tmp_redirect')\n"
        "json.dump([tempfile.mkdtemp(), shim is not None and shim.current_workflow()], sys.stdout)"
    )
    path = {"PYTHONPATH": os.environ["PYTHONPATH"]}
    for env, options, expected in (
        (None, (), "wf-1"),
        (path, (), "wf-1"),
        ({**path, "TMP_REDIRECT": "off"}, (), False),
        ({}, (), False),
        (None, ("-I",), False),
        (None, ("-S",), False),
    ):
        with workflow("wf-1"):
            out = subprocess.run(
                [sys.executable, *options, "-c", code], env=env, capture_output=True, check=True
            ).stdout
        made, current = json.loads(out)
        assert os.path.dirname(made) == f"{root}/wf-1/tmp", (env, options, made)
        assert current == expected, (env, options, current)


@pytest.mark.promise
@pytest.mark.fresh(env={"TMP_REDIRECT_SCOPE": "wf-1", "PYTHONPATH": "{overlay}:{helpers}"})
def test_children_of_a_child_of_a_task(root: Path, tmp_path: Path, overlay: Path, helpers: Path):
    """A process that runs for one workflow all its life, and never enters a scope."""
    from children import seen_by, with_environment

    directory = f"{root}/wf-1/tmp"
    for name, run in with_environment().items():
        if name.startswith(("subprocess", "asyncio")):
            expected = (directory, [directory] * 4 + ["wf-1"])
            assert seen_by(lambda command: run(command, {}), f"{tmp_path}/note") == expected, name


@pytest.mark.fresh(env={"TMP_REDIRECT_OUTSIDE": "raise", "PYTHONPATH": "{overlay}:{helpers}"})
def test_children_start_where_no_workspace_can_be_had(root: Path, tmp_path: Path, overlay: Path, helpers: Path):
    """To start a child isn't to ask for a temp file; what the child is told is no way into system temp."""
    import os
    import shutil
    import subprocess

    outside = f"{root}/.outside/svc/tmp"
    run = lambda: subprocess.run("echo $TMPDIR; ! mktemp", shell=True, capture_output=True, text=True, check=True)
    assert run().stdout == f"{outside}\n"
    assert not os.path.exists(outside)
    shutil.rmtree(root)
    assert run().stdout == f"{outside}\n"


@pytest.mark.fresh
def test_what_a_program_sees_of_children_is_unchanged():
    import inspect
    import os
    import pickle
    import subprocess

    names = ("system", "posix_spawn", "posix_spawnp", "execv", "execve")
    from services.common.tmp_redirect import install, uninstall

    for name in names:
        function = getattr(os, name)
        assert pickle.loads(pickle.dumps(function)) == function
        assert (function.__name__, function.__module__) == (name, "posix")
        assert inspect.signature(function).parameters or name
    start = subprocess.Popen._execute_child
    assert list(inspect.signature(subprocess.Popen).parameters)[:3] == ["args", "bufsize", "executable"]

    class Popen(subprocess.Popen):
        def __init__(self, command, **options):
            super().__init__(["sh", "-c", command], **options)

    assert Popen("exit 3", env={}).wait() == 3
    for wrong in ({"env": 3}, {"env": ["A=b"]}, {"no_such_option": 1}, {"env": {"A": 1}}):
        try:
            subprocess.Popen(["true"], **wrong)
        except (TypeError, AttributeError):
            pass
        else:
            raise AssertionError(wrong)
    for call in (lambda: os.execve("/no/such", ["x"], {}), lambda: os.execv("/no/such", ["x"])):
        try:
            call()
        except FileNotFoundError:
            pass
        else:
            raise AssertionError
    uninstall()
    assert "built-in" in repr(os.system) and "built-in" in repr(os.execve)
    assert subprocess.Popen._execute_child is start.__wrapped__
    install()
    assert subprocess.Popen._execute_child is not start.__wrapped__


@pytest.mark.promise
@pytest.mark.fresh
def test_a_program_that_knows_of_os_only(root: Path):
    import os
    import sys

    from services.common.tmp_redirect import workflow

    with workflow("wf-1"):
        assert os.system("exec >/dev/null; /bin/mktemp") == 0
    assert len(os.listdir(root / "wf-1" / "tmp")) == 1
    assert "wrapt" not in sys.modules and "asyncio" not in sys.modules


@pytest.mark.promise
def test_uvloop(shim_env: dict[str, str], root: Path, helpers: Path) -> None:
    """uvloop starts processes in C."""
    pytest.importorskip("uvloop", reason="uvloop is not installed")
    code = (
        "import asyncio, sys, uvloop\n"
        "from services.common.tmp_redirect import workflow\n"
        "async def main():\n"
        "    for env in (None, {}):\n"
        "        with workflow('wf-1'):\n"
        "            await (await asyncio.create_subprocess_exec('/bin/mktemp', env=env)).wait()\n"
        "            await (await asyncio.create_subprocess_shell('/bin/mktemp', env=env)).wait()\n"
        "    assert type(asyncio.get_running_loop()).__module__ == 'uvloop'\n"
        "loop = uvloop.new_event_loop()\n"
        "loop.run_until_complete(main())\n"
        "loop.close()\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], env=shim_env, stdout=subprocess.DEVNULL, timeout=60, check=True, cwd=root
    )
    assert len(os.listdir(root / "wf-1" / "tmp")) == 4
