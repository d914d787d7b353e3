"""Everything in tempfile resolves to the workspace; what a program says about its directories is obeyed as by stock.

The bodies run in fresh interpreters and look at the paths themselves.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from apis import every_api

IN_SCOPE = {"TMP_REDIRECT_SCOPE": "wf-1"}


def test_the_list_of_apis_is_whole() -> None:
    """`apis` has a call of each public name of tempfile that makes something."""
    import tempfile

    making = {
        name for name in tempfile.__all__ if name not in ("TMP_MAX", "gettempprefix", "gettempprefixb", "tempdir")
    }
    assert making == {name.split()[0] for name in every_api()} - {"bytes"}


@pytest.mark.promise
@pytest.mark.fresh(env={**IN_SCOPE, "PYTHONPATH": "{overlay}:{helpers}"})
def test_every_api_in_a_scope(root: Path, overlay: Path, helpers: Path):
    import os

    from apis import every_api

    workspace = str(root / "wf-1" / "tmp")
    for name, make in every_api().items():
        paths = make()
        assert paths, name
        assert all(os.path.dirname(path) == workspace or path == workspace for path in paths), (name, paths)


@pytest.mark.promise
@pytest.mark.fresh(env={"PYTHONPATH": "{overlay}:{helpers}"})
def test_every_api_outside(root: Path, overlay: Path, helpers: Path):
    import os

    from apis import every_api

    workspace = str(root / ".outside" / "svc" / "tmp")
    for name, make in every_api().items():
        paths = make()
        assert paths, name
        assert all(os.path.dirname(path) == workspace or path == workspace for path in paths), (name, paths)


@pytest.mark.promise
@pytest.mark.fresh(env={**IN_SCOPE, "PYTHONPATH": "{early}:{overlay}:{helpers}"})
def test_every_api_bound_before_the_shim_ran(root: Path, early: Path, overlay: Path, helpers: Path):
    import os
    import sys

    import sitecustomize

    assert sitecustomize.early["gettempdir"] is not sys.modules["tempfile"].gettempdir
    from apis import every_api

    workspace = str(root / "wf-1" / "tmp")
    for name, make in every_api(sitecustomize.early).items():
        paths = make()
        assert all(os.path.dirname(path) == workspace or path == workspace for path in paths), (name, paths)


@pytest.fixture
def early(tmp_path: Path) -> Path:
    """A launcher's sitecustomize that uses tempfile, caches its directory, and then chains to the one it shadows."""
    directory = tmp_path / "early"
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(
        "import tempfile\n"
        "from tempfile import *\n"
        "from tempfile import gettempdirb\n"
        "tempfile.tempdir = '/tmp'\n"
        "early = {name: getattr(tempfile, name) for name in tempfile.__all__}\n"
        "import sys, importlib.machinery as m, importlib.util as u\n"
        "s = m.PathFinder.find_spec('sitecustomize', sys.path[sys.path.index(__file__.rpartition('/')[0]) + 1:])\n"
        "shadowed = u.module_from_spec(s)\n"
        "s.loader.exec_module(shadowed)\n",
        encoding="utf-8",
    )
    return directory


@pytest.mark.promise
@pytest.mark.fresh(env=IN_SCOPE)
def test_what_is_built_on_tempfile(root: Path):
    import shutil
    import tempfile
    import zipfile

    workspace = root / "wf-1" / "tmp"
    archive = Path(shutil.make_archive(tempfile.mktemp(), "zip", __file__.rpartition("/")[0], "body.py"))
    assert archive.parent == workspace
    with zipfile.ZipFile(tempfile.NamedTemporaryFile(suffix=".zip", delete=False), "w") as packed:
        packed.writestr("member", b"data")
    assert Path(packed.filename).parent == workspace
    assert len(list(workspace.iterdir())) == 2


@pytest.mark.promise
@pytest.mark.fresh(env=IN_SCOPE)
def test_files_without_a_name_are_in_the_workspace(root: Path):
    import os
    import tempfile

    with tempfile.TemporaryFile() as unnamed, tempfile.SpooledTemporaryFile(max_size=10) as spooled:
        spooled.write(b"more than ten bytes")
        for file in (unnamed, spooled):
            assert os.readlink(f"/proc/self/fd/{file.fileno()}").startswith(f"{root}/wf-1/tmp/")


@pytest.mark.fresh(env=IN_SCOPE)
def test_the_cache_is_as_stock(root: Path):
    import tempfile

    assert tempfile.gettempdir() is tempfile.gettempdir()
    assert tempfile.tempdir is not None
    assert isinstance(tempfile.gettempdirb(), bytes)


@pytest.mark.fresh(env=IN_SCOPE)
def test_a_directory_that_the_program_assigns(root: Path):
    import os
    import tempfile

    saved = tempfile.tempdir
    for value in ("/dev/shm", b"/dev/shm"):
        tempfile.tempdir = value
        assert tempfile.gettempdir() == "/dev/shm"
        handle, path = tempfile.mkstemp()
        os.close(handle)
        os.unlink(path)
        assert os.path.dirname(path) in ("/dev/shm", b"/dev/shm")
    for reset in (None, saved):
        tempfile.tempdir = reset
        assert tempfile.gettempdir() == f"{root}/wf-1/tmp"


@pytest.mark.promise
@pytest.mark.fresh(env=IN_SCOPE)
def test_system_temp_assigned_is_a_violation(root: Path):
    import os
    import tempfile

    from services.common.tmp_redirect import TmpFallbackError, report

    for value in ("/tmp", "/var/tmp", b"/tmp", "/tmp/../tmp/x"):
        tempfile.tempdir = value
        try:
            tempfile.mkstemp()
        except TmpFallbackError as error:
            assert error.filename.startswith(os.path.normpath(os.fsdecode(value)))
        else:
            raise AssertionError(value)
    assert report().total == 4
    tempfile.tempdir = None
    assert tempfile.gettempdir() == f"{root}/wf-1/tmp"


@pytest.mark.promise
@pytest.mark.fresh
def test_the_directory_of_another_workflow_is_never_obeyed(root: Path):
    import tempfile

    from services.common.tmp_redirect import workflow

    with workflow("wf-a") as of_a:
        tempfile.tempdir = tempfile.gettempdir()
        assert tempfile.gettempdir() == of_a
    with workflow("wf-b") as of_b:
        assert tempfile.gettempdir() == of_b
        tempfile.tempdir = str(root / "wf-b")
        assert tempfile.gettempdir() == str(root / "wf-b")
    assert tempfile.gettempdir() == f"{root}/.outside/svc/tmp"


@pytest.mark.fresh(env=IN_SCOPE)
def test_a_changed_environment_counts_when_the_program_resets_tempdir(root: Path):
    import os
    import tempfile

    os.environ["TMPDIR"] = "/dev/shm"
    assert tempfile.gettempdir() == f"{root}/wf-1/tmp"
    tempfile.tempdir = None
    assert tempfile.gettempdir() == "/dev/shm"
    for useless in ("/tmp", "/no/such/directory", ""):
        os.environ["TMPDIR"] = useless
        tempfile.tempdir = None
        assert tempfile.gettempdir() == f"{root}/wf-1/tmp"


@pytest.mark.promise
@pytest.mark.fresh(env=IN_SCOPE)
def test_no_probe_and_no_fallback(root: Path):
    import tempfile

    assert tempfile._get_default_tempdir() == f"{root}/wf-1/tmp"
    try:
        tempfile._get_default_tempdir(["/tmp", "/var/tmp", "/usr/tmp"])
    except FileNotFoundError as error:
        assert "/usr/tmp" in str(error)
    else:
        raise AssertionError


@pytest.mark.promise
@pytest.mark.fresh(env=IN_SCOPE)
def test_a_reload_is_redirected_again(root: Path):
    import importlib
    import tempfile

    importlib.reload(tempfile)
    assert tempfile.gettempdir() == f"{root}/wf-1/tmp"
    from services.common.tmp_redirect import uninstall

    uninstall()
    assert tempfile.tempdir is None


@pytest.mark.fresh(env=IN_SCOPE)
def test_uninstall_restores_the_identical_objects(root: Path):
    from services.common.tmp_redirect import install, is_active, uninstall

    uninstall()
    import builtins
    import io
    import os
    import pathlib
    import sqlite3
    import sys
    import tempfile

    owners = (builtins, io, os, tempfile, sqlite3, sqlite3.dbapi2, pathlib)
    before = [dict(vars(owner)) for owner in owners]
    sets = [set(s) for s in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks)]
    path = list(sys.meta_path)
    install()
    assert is_active()
    install()
    changed = [name for old, owner in zip(before, owners) for name in old if vars(owner)[name] is not old[name]]
    assert {"open", "mkdir", "gettempdir", "tempdir", "connect", "symlink"} <= set(changed)
    uninstall()
    uninstall()
    assert not is_active()
    for old, owner in zip(before, owners):
        assert all(vars(owner)[name] is old[name] for name in old), owner
    assert sets == [set(s) for s in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks)]
    assert path == sys.meta_path


@pytest.mark.fresh(env=IN_SCOPE)
def test_the_module_looks_as_it_did(root: Path):
    import importlib.machinery
    import inspect
    import pickle
    import tempfile

    assert type(tempfile.__loader__) is importlib.machinery.SourceFileLoader
    assert tempfile.__spec__.loader is tempfile.__loader__
    assert pickle.loads(pickle.dumps(tempfile.gettempdir)) is tempfile.gettempdir
    assert not inspect.signature(tempfile.gettempdir).parameters


@pytest.mark.promise
@pytest.mark.fresh(env={"TMP_REDIRECT_OUTSIDE": "raise"})
def test_outside_can_be_forbidden(root: Path):
    import tempfile

    from services.common.tmp_redirect import WorkspaceError, workflow

    try:
        tempfile.mkdtemp()
    except WorkspaceError as error:
        assert "TMP_REDIRECT_OUTSIDE=raise" in str(error)
    else:
        raise AssertionError
    with workflow("wf-1"):
        tempfile.mkdtemp()
    assert sorted(entry.name for entry in root.iterdir()) == [".leases", "wf-1"]


@pytest.mark.promise
@pytest.mark.fresh
def test_a_fork_keeps_its_scope(root: Path):
    import os
    import tempfile

    from services.common.tmp_redirect import workflow

    with workflow("wf-1"):
        child = os.fork()
        if child == 0:
            os._exit(0 if tempfile.mkdtemp().startswith(f"{root}/wf-1/tmp/") else 1)
        assert os.waitpid(child, 0)[1] == 0


def test_stock_would_have_used_system_temp(tmp_path: Path) -> None:
    """What the tests above rest on: without the shim, and without `TMPDIR`, tempfile uses /tmp."""
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", "import tempfile; print(tempfile.gettempdir())"],
        env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout == "/tmp\n"
