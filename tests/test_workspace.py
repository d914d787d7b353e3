"""Where a workspace can't be had, the error says so, and nothing is created anywhere else.

File systems that are full or read-only are small tmpfs mounts in a mount namespace of the test's own.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from services.common.tmp_redirect.errors import InvalidWorkflowId, WorkspaceError
from services.common.tmp_redirect.settings import Settings
from services.common.tmp_redirect.workspace import check_root, prepare, prepare_outside
from tests.installation import HOME

NOBODY = 65534


@pytest.fixture
def settings(root: Path) -> Settings:
    return Settings({"TMP_REDIRECT": "enforce", "TMP_REDIRECT_ROOT": str(root), "TMP_REDIRECT_SERVICE": "svc"})


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_created_once_and_used_again(settings: Settings, root: Path) -> None:
    path = Path(prepare(settings, "wf-1"))
    (path / "file").touch()
    assert prepare(settings, "wf-1") == str(path) == str(root / "wf-1" / "tmp")
    assert (path / "file").exists()
    assert mode_of(path) == 0o700


def test_the_directory_of_the_workflow_is_the_users(settings: Settings, root: Path) -> None:
    old = os.umask(0o027)
    try:
        prepare(settings, "wf-1")
    finally:
        os.umask(old)
    assert mode_of(root / "wf-1") == 0o750
    (root / "wf-2").mkdir(mode=0o711)
    (root / "wf-2" / "frames").mkdir()
    prepare(settings, "wf-2")
    assert mode_of(root / "wf-2") == 0o711


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000])
def test_the_mode_of_a_workspace_is_exact(root: Path, umask: int) -> None:
    settings = Settings({"TMP_REDIRECT_ROOT": str(root), "TMP_REDIRECT_DIR_MODE": "2770"})
    old = os.umask(umask)
    try:
        path = Path(prepare(settings, "wf-1"))
    finally:
        os.umask(old)
    assert mode_of(path) == 0o2770


def test_outside_is_shared_as_the_root_is(settings: Settings, root: Path) -> None:
    root.chmod(0o1777)
    path = Path(prepare_outside(settings))
    assert path == root / ".outside" / "svc" / "tmp"
    assert mode_of(root / ".outside") == 0o1777
    assert mode_of(path) == mode_of(path.parent) == 0o700


def test_a_missing_root(settings: Settings, root: Path) -> None:
    root.rmdir()
    with pytest.raises(
        WorkspaceError, match=r"workflow 'wf-1' can't have .*/wf-1/tmp: the root .* doesn't exist; mount"
    ):
        prepare(settings, "wf-1")
    with pytest.raises(WorkspaceError, match="set TMP_REDIRECT_ROOT to the directory that is meant"):
        check_root(settings)
    with pytest.raises(WorkspaceError, match="outside any workflow can't have"):
        prepare_outside(settings)
    assert not root.exists()


@pytest.mark.parametrize("where", ["wf-1", "wf-1/tmp"])
def test_a_file_in_the_way(settings: Settings, root: Path, where: str) -> None:
    (root / where).parent.mkdir(exist_ok=True)
    (root / where).write_text("mine", encoding="utf-8")
    with pytest.raises(WorkspaceError, match=f"workflow 'wf-1' can't have .*/{where} is not a directory; remove it"):
        prepare(settings, "wf-1")
    assert (root / where).read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("where", ["wf-1", "wf-1/tmp"])
@pytest.mark.parametrize("kind", ["directory", "system temp", "another workflow", "dangling"])
def test_a_symlink_planted(settings: Settings, root: Path, tmp_path: Path, where: str, kind: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    Path(prepare(settings, "wf-2"))
    target = {
        "directory": victim,
        "system temp": Path("/tmp"),
        "another workflow": root / "wf-2",
        "dangling": Path("/no"),
    }
    (root / where).parent.mkdir(exist_ok=True)
    (root / where).symlink_to(target[kind])
    with pytest.raises(WorkspaceError, match=f"/{where} is a symbolic link to .* links are not followed") as caught:
        prepare(settings, "wf-1")
    assert caught.value.filename == str(root / "wf-1" / "tmp")
    assert not list(victim.iterdir())
    assert [entry.name for entry in (root / "wf-2").iterdir()] == ["tmp"]


def test_too_little_space(root: Path) -> None:
    settings = Settings({"TMP_REDIRECT_ROOT": str(root), "TMP_REDIRECT_MIN_FREE": "9999T"})
    with pytest.raises(WorkspaceError, match=r"No space left on device, or no more than TMP_REDIRECT_MIN_FREE"):
        prepare(settings, "wf-1")
    with pytest.raises(WorkspaceError, match="TMP_REDIRECT_MIN_FREE"):
        check_root(settings)


@pytest.mark.parametrize("value", ["../../etc", ".", "", "a\0b", "a\nb", "x" * 300])
def test_a_bad_id_creates_nothing(settings: Settings, root: Path, value: str) -> None:
    with pytest.raises(InvalidWorkflowId):
        prepare(settings, value)
    assert not list(root.iterdir())


def test_chinese_and_the_longest_id(settings: Settings, root: Path) -> None:
    for workflow in ("工作流-视频处理", "x" * 255):
        assert Path(prepare(settings, workflow)).is_dir()
    assert len(list(root.iterdir())) == 2


def as_nobody(code: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    if os.geteuid() != 0:
        pytest.skip("only root can start a process as another user")
    # Imported first: the other user may not be able to read this interpreter's files.
    imports = "import os, tempfile, random, services.common.tmp_redirect.lifecycle, traceback, linecache\n"
    prefix = f"{imports}os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
    return subprocess.run(
        [sys.executable, "-c", prefix + code], env=env, capture_output=True, text=True, check=False, cwd="/"
    )


@pytest.mark.promise
@pytest.mark.parametrize("made_by", ["nobody yet", "root"])
def test_a_root_that_this_user_cannot_write(shim_env: dict[str, str], root: Path, made_by: str) -> None:
    open_up(root)
    if made_by == "root":
        prepare(Settings(shim_env), "wf-1")
    shim_env["TMP_REDIRECT_SCOPE"] = "wf-1"
    before = set(os.listdir("/tmp"))
    done = as_nobody("import tempfile; tempfile.mkstemp()", shim_env)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "WorkspaceError: [Errno 13] workflow 'wf-1' can't have" in last
    assert f"Permission denied for uid {NOBODY}; see TMP_REDIRECT_DIR_MODE" in last
    assert set(os.listdir("/tmp")) == before


def open_up(directory: Path) -> None:
    """Let other users pass through to `directory`."""
    for parent in directory.parents:
        if parent == Path("/"):
            break
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)


MOUNTED = """
import os, pathlib, subprocess, sys, tempfile
root = pathlib.Path(os.environ["TMP_REDIRECT_ROOT"])
before = {d: sorted(os.listdir(d)) for d in ("/tmp", "/var/tmp", ".")}
calls = (tempfile.mkstemp, tempfile.NamedTemporaryFile, tempfile.TemporaryFile, tempfile.mkdtemp, tempfile.mktemp)
for attempt in calls:
    try:
        attempt()
    except OSError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\\n")
    else:
        sys.exit(f"{attempt.__name__} went through to {tempfile.gettempdir()}")
assert before == {d: sorted(os.listdir(d)) for d in before}
"""


def in_mount_namespace(mount: str, root: Path, env: dict[str, str]) -> list[str]:
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespace can be made here: unshare -m is missing or not permitted")
    script = f'{mount.format(root=root)} && exec {sys.executable} -c "$BODY"'
    done = subprocess.run(
        [unshare, "-m", "sh", "-c", script],
        env={**env, "BODY": MOUNTED, "TMP_REDIRECT_SCOPE": "wf-1"},
        capture_output=True, text=True, check=False, cwd="/",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 5
    return lines


@pytest.mark.promise
def test_a_read_only_file_system(shim_env: dict[str, str], root: Path) -> None:
    for line in in_mount_namespace("mount -t tmpfs -o ro tmpfs {root}", root, shim_env):
        assert line.startswith("WorkspaceError: [Errno 30] workflow 'wf-1' can't have")
        assert "Read-only file system" in line


@pytest.mark.promise
def test_a_read_only_file_system_with_the_workspace_on_it(shim_env: dict[str, str], root: Path) -> None:
    mount = "mount -t tmpfs tmpfs {root} && mkdir -p {root}/wf-1/tmp && mount -o remount,ro {root}"
    for line in in_mount_namespace(mount, root, shim_env):
        assert line.startswith("WorkspaceError: [Errno 30] workflow 'wf-1' can't have")
        assert "Read-only file system" in line


@pytest.mark.promise
@pytest.mark.parametrize(
    "fill",
    [
        "mount -t tmpfs -o size=64k tmpfs {root} && ! cat /dev/zero 2>/dev/null >{root}/full",
        "mount -t tmpfs -o size=64k tmpfs {root}; mkdir -p {root}/wf-1/tmp; ! cat /dev/zero 2>/dev/null >{root}/full",
        "mount -t tmpfs -o size=64k,nr_inodes=3 tmpfs {root} && touch {root}/a {root}/b",
    ],
    ids=["before the workspace exists", "with the workspace on it", "no inodes left"],
)
def test_a_full_disk(shim_env: dict[str, str], root: Path, fill: str) -> None:
    for line in in_mount_namespace(fill, root, shim_env):
        assert line.startswith("WorkspaceError: [Errno 28] workflow 'wf-1' can't have")
        assert "No space left on device" in line
        assert "free space on that file system" in line


@pytest.mark.promise
@pytest.mark.fresh
def test_a_scope_that_has_been_left_is_outside(root: Path):
    import contextvars
    import tempfile

    from services.common.tmp_redirect import current_workflow, workflow

    with workflow("wf-1"):
        inside = contextvars.copy_context()
        assert inside.run(tempfile.gettempdir) == f"{root}/wf-1/tmp"
        with workflow("wf-2"):
            assert tempfile.gettempdir() == f"{root}/wf-2/tmp"
        assert current_workflow() == "wf-1"
    assert inside.run(current_workflow) is None
    assert inside.run(tempfile.gettempdir) == f"{root}/.outside/svc/tmp"


@pytest.mark.promise
@pytest.mark.fresh
def test_the_public_api(root: Path):
    import asyncio
    import os

    from services.common.tmp_redirect import (
        InvalidWorkflowId,
        current_workflow,
        get_temp_path,
        gettempdir,
        is_active,
        workflow,
    )  # fmt: skip

    assert is_active()
    assert current_workflow() is None

    @workflow("wf-1")
    def decorated(a: int, *, b: int) -> tuple[str | None, str, int]:
        return current_workflow(), gettempdir(), a + b

    @workflow("wf-2")
    async def coroutine() -> str | None:
        await asyncio.sleep(0)
        return current_workflow()

    async def both() -> list[str | None]:
        return list(await asyncio.gather(coroutine(), coroutine()))

    assert decorated(1, b=2) == ("wf-1", f"{root}/wf-1/tmp", 3)
    assert decorated.__name__ == "decorated"
    assert asyncio.run(both()) == ["wf-2", "wf-2"]
    first, second = get_temp_path("wf-3", ".zip"), get_temp_path("wf-3", suffix=".zip")
    assert first != second
    assert os.path.dirname(first) == f"{root}/wf-3/tmp"
    assert first.endswith(".zip")
    assert os.listdir(f"{root}/wf-3/tmp") == []
    for bad in (lambda: workflow("../x"), lambda: get_temp_path(".."), lambda: get_temp_path("a", "/x")):
        try:
            bad()
        except (InvalidWorkflowId, ValueError):
            pass
        else:
            raise AssertionError
    try:
        with workflow("wf-1"):
            raise KeyError("through")
    except KeyError:
        pass

    def generator():
        yield

    once = workflow("wf-1")
    with once:
        for bad, kind in ((once.__enter__, RuntimeError), (lambda: workflow("wf-1")(generator), TypeError)):
            try:
                bad()
            except kind:
                pass
            else:
                raise AssertionError
    assert current_workflow() is None


def test_with_the_shim_off_the_api_uses_stock(tmp_path: Path) -> None:
    code = (
        "from services.common.tmp_redirect import workflow, get_temp_path, gettempdir, is_active, report\n"
        "import tempfile\n"
        "with workflow('wf-1') as directory: assert directory == gettempdir() == tempfile.gettempdir() == '/tmp'\n"
        "assert get_temp_path('wf-1').startswith('/tmp/tmp') and not is_active() and report().total == 0\n"
    )
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(HOME)}
    subprocess.run([sys.executable, "-c", code], env=env, check=True, cwd="/")
