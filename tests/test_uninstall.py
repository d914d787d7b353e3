"""Installing can be undone: each module and class that a part patches is as it was, to the identical object."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from services.common.tmp_redirect import startup

MODULES = sorted({*startup._PARTS, *startup._SWITCHING_PARTS, "io", "builtins", "inspect", "os", "sqlite3"})
# Green versions of the standard library's modules patch it when they are imported.
GREEN = ("gevent", "eventlet")
SCRIPT = """
import importlib, os, sys
modules = {}
for name in NAMES:
    try:
        modules[name] = importlib.import_module(name)
    except ImportError:
        continue

def snapshot():
    seen = {}
    for module in modules.values():
        for name, value in list(vars(module).items()):
            seen[module.__name__, name] = value
            if isinstance(value, type):
                for attribute, inner in list(vars(value).items()):
                    seen[module.__name__, name, attribute] = inner
    from celery import signals
    for name in signals.__all__:
        seen["receivers", name] = [receiver for _, receiver in getattr(signals, name).receivers]
    seen["supports"] = os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks
    seen["supports"] = tuple(frozenset(functions) for functions in seen["supports"])
    seen["meta_path"], seen["environ"] = list(sys.meta_path), dict(os.environ)
    return seen

def changed(before, after):
    return [key for key in {**before, **after} if before.get(key) is not after.get(key) and (
        isinstance(key, tuple) and key[0] != "receivers" or before.get(key) != after.get(key))]

import services.common.tmp_redirect as shim
from services.common.tmp_redirect import install, is_active, uninstall, workflow
os.environ["TMP_REDIRECT"] = "enforce"
"""


def run(script: str, shim_env: dict[str, str], names: list[str]) -> subprocess.CompletedProcess[str]:
    env = {**shim_env, "TMP_REDIRECT": ""}
    code = f"NAMES = {names!r}\n{SCRIPT}\n{script}"
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=env, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("green", ["", *GREEN])
def test_all_is_as_it_was(shim_env: dict[str, str], root: Path, green: str) -> None:
    names = [name for name in MODULES if not name.startswith(GREEN) or (green and name.startswith(green))]
    done = run(
        "import tempfile\n"
        "tempfile._get_candidate_names()  # made at the first use\n"
        "before = snapshot()\n"
        "for _ in range(2):\n"
        "    install()\n"
        "    with workflow('wf-1'):\n"
        "        tempfile.mkdtemp()\n"
        "    patched = changed(before, snapshot())\n"
        "    assert len(patched) > 50, patched\n"
        "    for part in ('tempfile', 'subprocess', 'threading', 'celery.app.task', 'multiprocessing.pool'):\n"
        "        assert [key for key in patched if key[0] == part], part\n"
        "    uninstall()\n"
        "    assert not is_active()\n"
        "    left = changed(before, snapshot())\n"
        "    assert not left, left\n",
        shim_env,
        names,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert len(list((root / "wf-1" / "tmp").iterdir())) == 2


INSTALLED_AT_ONCE = [
    "tempfile._get_default_tempdir", "subprocess.Popen._execute_child", "multiprocessing.spawn.prepare",
    "multiprocessing.connection.arbitrary_address", "celery.worker.request.Request.on_timeout",
    "gunicorn.config.WorkerTmpDir.default",
]  # fmt: skip
INSTALLED_LATER = [
    "threading.Thread._bootstrap_inner", "concurrent.futures.thread.ThreadPoolExecutor.submit",
    "multiprocessing.pool.Pool.imap_unordered", "multiprocessing.process.BaseProcess._bootstrap",
]  # fmt: skip


@pytest.mark.parametrize("missing", [*INSTALLED_AT_ONCE, *INSTALLED_LATER])
def test_a_patch_that_fails_takes_the_others_back(shim_env: dict[str, str], root: Path, missing: str) -> None:
    """As a future version of Python or of a library may bring it about."""
    owner, _, name = missing.rpartition(".")
    if find_spec(package := owner.partition(".")[0]) is None:
        pytest.skip(f"{package} is not installed")
    later = missing in INSTALLED_LATER
    done = run(
        "tops = {name.partition('.')[0] for name in modules}\n"
        f"owner = eval({owner!r}, {{top: sys.modules[top] for top in tops}})\n"
        f"for kind in getattr(owner, '__mro__', [owner]):\n"
        f"    if {name!r} in vars(kind):\n"
        f"        delattr(kind, {name!r})\n"
        "before = snapshot()\n"
        f"{'install(); before = snapshot()' if later else ''}\n"
        "try:\n"
        f"    {'workflow(str(1)).__enter__()' if later else 'install()'}\n"
        "except AttributeError as error:\n"
        f"    assert {name!r} in str(error), error\n"
        "else:\n"
        "    raise AssertionError('installed')\n"
        f"assert is_active() is {later}\n"
        "left = changed(before, snapshot())\n"
        "assert not left, left\n",
        shim_env,
        [name for name in MODULES if not name.startswith(GREEN)],
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
