"""Libraries that keep a cache in the temp directory keep one for all workflows, and it is where the user wants it.

Each library is there as a module of its name that notes the environment it sees; some are there themselves.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from services.common.tmp_redirect import startup
from services.common.tmp_redirect.errors import WorkspaceError
from services.common.tmp_redirect.libraries import VARIABLES
from services.common.tmp_redirect.settings import Settings
from services.common.tmp_redirect.workspace import prepare_cache
from tests.test_workspace import NOBODY, mode_of, open_up

LIBRARIES = {
    "audio_separator": "AUDIO_SEPARATOR_MODEL_DIR",
    "fastembed": "FASTEMBED_CACHE_PATH",
    "joblib": "JOBLIB_TEMP_FOLDER",
    "matplotlib": "MPLCONFIGDIR",
    "numba": "NUMBA_CACHE_DIR",
    "tensorflow_hub": "TFHUB_CACHE_DIR",
    "tiktoken": "TIKTOKEN_CACHE_DIR",
    "torch": "TORCHINDUCTOR_CACHE_DIR",
    "triton": "TRITON_CACHE_DIR",
}
NOTES = "import os\nSEEN = dict(os.environ)\n"
IMPORTS = f"import importlib\nSEEN = {{name: importlib.import_module(name).SEEN for name in {sorted(LIBRARIES)!r}}}\n"
NO_HOME = "/proc/no-home"  # can't be made, not even by root
SYSTEM_TEMP = ("/tmp", "/var/tmp", "/dev/shm")


@pytest.fixture
def fakes(tmp_path: Path, shim_env: dict[str, str]) -> Path:
    """Modules named as the libraries are, on the path of `shim_env`; each notes the environment when it is executed."""
    directory = tmp_path / "fakes"
    for name in LIBRARIES:
        (directory / name).mkdir(parents=True)
        (directory / name / "__init__.py").write_text(NOTES, encoding="utf-8")
    (directory / "hooked.py").write_text("from hooks import calls\ncalls.append('code')\n", encoding="utf-8")
    shim_env["PYTHONPATH"] += f":{directory}"
    return directory


def run(python: str, code: str, env: dict[str, str], stderr: str | None = "") -> str:
    """What `code` prints in a process of its own, which may leave nothing in system temp."""
    before = {directory: sorted(os.listdir(directory)) for directory in SYSTEM_TEMP}
    done = subprocess.run(
        [python, "-c", code], env=env, capture_output=True, text=True, check=False, timeout=240, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    assert stderr is None or done.stderr == stderr
    assert {directory: sorted(os.listdir(directory)) for directory in SYSTEM_TEMP} == before
    return done.stdout


def seen(python: str, env: dict[str, str]) -> dict[str, str | None]:
    """What each library saw in its variable."""
    output = run(python, f"{IMPORTS}import json\nprint(json.dumps(SEEN))", env)
    return {library: json.loads(output)[library].get(LIBRARIES[library]) for library in LIBRARIES}


def tree(directory: Path) -> dict[str, tuple[int, int]]:
    """Each file below `directory`, and what changes when it is written again."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def test_the_tables_agree() -> None:
    assert {library: variables[0] for library, variables in VARIABLES.items()} == LIBRARIES
    assert set(startup._LIBRARIES) == set(LIBRARIES)
    text = (Path(__file__).parents[1] / "docs" / "libraries.md").read_text(encoding="utf-8")
    assert dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", text, re.MULTILINE)) == LIBRARIES


@pytest.mark.promise
@pytest.mark.parametrize("value", ["warn", "enforce"])
def test_what_a_library_sees_when_it_is_imported(
    python: str, shim_env: dict[str, str], fakes: Path, root: Path, value: str, mode: str
) -> None:
    shim_env["TMP_REDIRECT"] = value if mode == "enforce" else mode
    expected = {library: f"{root}/.cache/{library}" for library in LIBRARIES}
    for workflow in ({}, {"TMP_REDIRECT_SCOPE": "wf-1"}, {"TMP_REDIRECT_SCOPE": "wf-2"}):
        assert seen(python, {**shim_env, **workflow}) == expected
    assert sorted(path.name for path in root.iterdir()) == [".cache"]
    assert sorted(path.name for path in (root / ".cache").iterdir()) == sorted(LIBRARIES)


def test_nothing_with_the_shim_off(python: str, shim_env: dict[str, str], fakes: Path, root: Path) -> None:
    assert seen(python, {**shim_env, "TMP_REDIRECT": "off"}) == dict.fromkeys(LIBRARIES)
    assert not list(root.iterdir())


@pytest.mark.promise
def test_workflows_of_a_process_and_its_children_share_it(
    python: str, shim_env: dict[str, str], fakes: Path, root: Path
) -> None:
    """Children do so too that start without the shim, or are given a copy of the environment."""
    code = (
        "import os, subprocess, sys\n"
        "from services.common.tmp_redirect import workflow\n"
        "def child(*options, **more):\n"
        "    code = \"import os; print(os.environ['NUMBA_CACHE_DIR'])\"\n"
        "    return subprocess.check_output([sys.executable, *options, '-c', code], text=True, **more).strip()\n"
        "with workflow('wf-1'):\n"
        "    import numba\n"
        "    seen = {numba.SEEN['NUMBA_CACHE_DIR'], child(), child('-I'), child(env=dict(os.environ))}\n"
        "with workflow('wf-2'):\n"
        "    seen |= {os.environ['NUMBA_CACHE_DIR'], child(), child('-S')}\n"
        "print(*seen)\n"
    )
    assert run(python, code, shim_env) == f"{root}/.cache/numba\n"


def test_what_the_user_has_set_stays(python: str, shim_env: dict[str, str], fakes: Path, root: Path) -> None:
    own = {variable: f"/mine/{library}" for library, variable in LIBRARIES.items()}
    assert seen(python, {**shim_env, **own}) == {library: f"/mine/{library}" for library in LIBRARIES}
    assert not list(root.iterdir())


def test_another_variable_of_the_user_s(python: str, shim_env: dict[str, str], fakes: Path, root: Path) -> None:
    found = seen(python, {**shim_env, "TRITON_HOME": "/mine", "DATA_GYM_CACHE_DIR": "/mine"})
    assert found["triton"] is found["tiktoken"] is None
    assert set(LIBRARIES) - set(os.listdir(root / ".cache")) == {"triton", "tiktoken"}


@pytest.mark.promise
def test_an_empty_variable_counts_as_unset(python: str, shim_env: dict[str, str], fakes: Path, root: Path) -> None:
    empty = dict.fromkeys(LIBRARIES.values(), "")
    assert seen(python, {**shim_env, **empty}) == {library: f"{root}/.cache/{library}" for library in LIBRARIES}


@pytest.fixture
def settings(root: Path) -> Settings:
    return Settings({"TMP_REDIRECT": "enforce", "TMP_REDIRECT_ROOT": str(root)})


def test_the_modes_of_the_directories(root: Path) -> None:
    root.chmod(0o1777)
    shared = Settings({"TMP_REDIRECT_ROOT": str(root), "TMP_REDIRECT_DIR_MODE": "2770"})
    old = os.umask(0o077)
    try:
        path = Path(prepare_cache(shared, "numba"))
    finally:
        os.umask(old)
    assert path == root / ".cache" / "numba"
    assert str(path) == shared.cache_of("numba")
    assert (mode_of(path.parent), mode_of(path)) == (0o1777, 0o2770)


@pytest.mark.parametrize("where", [".cache", ".cache/numba"])
def test_links_are_not_followed(settings: Settings, root: Path, tmp_path: Path, where: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (root / where).parent.mkdir(exist_ok=True)
    (root / where).symlink_to(victim)
    with pytest.raises(WorkspaceError, match=f"library 'numba' can't have .*/{where} is a symbolic link") as caught:
        prepare_cache(settings, "numba")
    assert caught.value.filename == str(root / ".cache" / "numba")
    assert not list(victim.iterdir())


def no_root(root: Path) -> str:
    root.rmdir()
    return f"the root {root} doesn't exist; mount the shared volume there"


def a_link(root: Path) -> str:
    (root / ".cache").symlink_to("/var")
    return f"{root}/.cache is a symbolic link to '/var', and links are not followed below the root"


def a_file(root: Path) -> str:
    (root / ".cache").mkdir()
    (root / ".cache" / "numba").touch()
    return f"{root}/.cache/numba is not a directory"


TROUBLES = [no_root, a_link, a_file]


@pytest.mark.promise
@pytest.mark.parametrize("value", ["warn", "enforce"])
@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_directory_that_cannot_be_had(
    python: str, shim_env: dict[str, str], fakes: Path, root: Path, trouble: Any, value: str, mode: str
) -> None:
    """One line says so, also where stderr leads to stdout, and the import goes on."""
    cause = trouble(root)
    env = {**shim_env, "TMP_REDIRECT": value if mode == "enforce" else mode}
    code = (
        "import contextlib, sys\n"
        "with contextlib.redirect_stderr(sys.stdout):\n"
        "    import numba\n"
        "print('NUMBA_CACHE_DIR' in numba.SEEN)\n"
    )
    done = subprocess.run([python, "-c", code], env=env, capture_output=True, text=True, check=False, cwd="/")
    assert (done.returncode, done.stdout) == (0, "False\n")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"tmp_redirect: library 'numba' can't have {root}/.cache/numba: {cause}")
    assert done.stderr.endswith(
        "; NUMBA_CACHE_DIR stays unset, and numba may begin with an empty cache in each workflow\n"
    )


@pytest.mark.promise
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process as another user")
@pytest.mark.parametrize(("dir_mode", "shared"), [("0700", False), ("0777", True)])
def test_services_of_two_users(
    shim_env: dict[str, str], fakes: Path, root: Path, dir_mode: str, *, shared: bool
) -> None:
    for directory in (root, fakes):
        open_up(directory)
    env = {**shim_env, "TMP_REDIRECT_DIR_MODE": dir_mode}
    path = prepare_cache(Settings(env), "numba")
    # Imported first: the other user may not be able to read this interpreter's files.
    code = (
        "import os, services.common.tmp_redirect.libraries\n"
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "import numba; print(numba.SEEN.get('NUMBA_CACHE_DIR'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False, cwd="/")
    assert (done.returncode, done.stdout) == (0, f"{path if shared else None}\n")
    line = f"{path}: Permission denied for uid {NOBODY}; see TMP_REDIRECT_DIR_MODE if several users share the root"
    assert shared == (done.stderr == "")
    assert shared == (line not in done.stderr)


@pytest.mark.parametrize("closing", ["2>&-", "2>/dev/full", "1>&- 2>&-"])
def test_an_import_goes_on_where_stderr_does_not(
    python: str, shim_env: dict[str, str], fakes: Path, root: Path, closing: str
) -> None:
    root.rmdir()
    done = subprocess.run(
        ["sh", "-c", f'"{python}" -c "import os, numba; os._exit(33)" {closing}'],
        env=shim_env, capture_output=True, text=True, check=False, cwd="/",
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (33, "")


@pytest.mark.promise
@pytest.mark.fresh(env={"PYTHONPATH": "{overlay}:{fakes}", "TRITON_CACHE_DIR": "", "NUMBA_CACHE_DIR": ""})
def test_uninstall_puts_the_environment_back(root: Path, overlay: Path, fakes: Path):
    import os

    from services.common.tmp_redirect import install, uninstall

    before = dict(os.environ)
    for _ in range(2):
        import fastembed
        import joblib
        import matplotlib  # noqa: ICN001
        import numba
        import torch
        import triton

        variables = ["FASTEMBED_CACHE_PATH", "JOBLIB_TEMP_FOLDER", "MPLCONFIGDIR", "NUMBA_CACHE_DIR"]
        modules = [fastembed, joblib, matplotlib, numba, torch, triton]
        for module, variable in zip(modules, [*variables, "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"]):
            assert os.environ[variable] == f"{root}/.cache/{module.__name__}", variable
        os.environ["JOBLIB_TEMP_FOLDER"] = "/of/the/program"
        del os.environ["MPLCONFIGDIR"]
        os.environ["NUMBA_CACHE_DIR"] = "/mine"
        uninstall()
        assert dict(os.environ) == {**before, "JOBLIB_TEMP_FOLDER": "/of/the/program", "NUMBA_CACHE_DIR": "/mine"}
        os.environ.clear()
        os.environ.update(before)
        install()  # what is imported already gets its cache at once


@pytest.mark.promise
@pytest.mark.fresh(env={"PYTHONPATH": "{overlay}:{fakes}"})
def test_libraries_that_are_there_before_the_shim(root: Path, overlay: Path, fakes: Path):
    """As themselves, as something that stands in for them, or as None, which keeps them from being imported."""
    import importlib.util
    import os
    import sys
    from unittest.mock import MagicMock

    from services.common.tmp_redirect import install, is_active, uninstall

    assert is_active()
    assert importlib.util.find_spec("numba") is not None
    assert "NUMBA_CACHE_DIR" not in os.environ  # to find a library is not to import it
    uninstall()
    import numba

    assert "NUMBA_CACHE_DIR" not in numba.SEEN
    sys.modules["torch"] = MagicMock()
    sys.modules["triton"] = None
    install()
    assert os.environ["NUMBA_CACHE_DIR"] == f"{root}/.cache/numba"
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == f"{root}/.cache/torch"
    assert "TRITON_CACHE_DIR" not in os.environ
    assert sorted(os.listdir(f"{root}/.cache")) == ["numba", "torch"]
    uninstall()
    assert not {"NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"} & set(os.environ)


@pytest.mark.fresh(env={"PYTHONPATH": "{overlay}:{fakes}", "TMP_REDIRECT": "off"})
def test_hooks_before_and_after_a_module(overlay: Path, fakes: Path):
    import importlib
    import sys

    from services.common.tmp_redirect.patches import Patches

    hooks = sys.modules["hooks"] = type(sys)("hooks")
    calls = hooks.calls = []
    patches = Patches()
    patches.before_import("hooked", lambda name, part: calls.append(f"before {name}"))
    patches.when_imported("hooked", lambda module, part: calls.append(f"after {module.__name__}"))
    import hooked

    assert calls == ["before hooked", "code", "after hooked"]
    assert hooked.__spec__.loader is hooked.__loader__
    assert type(hooked.__loader__).__name__ == "SourceFileLoader"
    importlib.reload(hooked)
    assert calls == ["before hooked", "code", "after hooked"] * 2
    patches.undo()
    del calls[:], sys.modules["hooked"]
    import hooked

    assert calls == ["code"]

    # What fails fails the import, as nobody is told instead; what it changed is undone.
    def fails(name, part):
        part.on_undo(lambda: calls.append("undone"))
        raise KeyError(name)

    patches = Patches()
    patches.before_import("numba", fails)
    try:
        import numba  # noqa: F401
    except KeyError:
        pass
    else:
        raise AssertionError
    assert calls == ["code", "undone"]
    assert "numba" not in sys.modules
    patches.undo()


def real(*names: str) -> None:
    """Skip the test unless the libraries are installed beside the test run."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


@pytest.mark.promise
def test_matplotlib_lists_the_fonts_once(shim_env: dict[str, str], root: Path) -> None:
    real("matplotlib")
    code = (
        "import logging, tempfile\n"
        "built = []\n"
        "class Handler(logging.Handler):\n"
        "    def emit(self, record): built.append('generated new fontManager' in record.getMessage())\n"
        "logging.getLogger('matplotlib').setLevel('INFO')\n"
        "logging.getLogger('matplotlib').addHandler(Handler())\n"
        "import matplotlib\n"
        "matplotlib.use('Agg')\n"
        "import matplotlib.pyplot as plt\n"
        "plt.figure().savefig(tempfile.mkstemp(suffix='.png')[1])\n"
        "print(any(built), matplotlib.get_cachedir())\n"
    )
    cache = root / ".cache" / "matplotlib"
    env = {**shim_env, "HOME": NO_HOME}
    assert run(sys.executable, code, {**env, "TMP_REDIRECT_SCOPE": "wf-1"}, None) == f"True {cache}\n"
    made = tree(cache)
    assert [name for name in made if name.startswith("fontlist-")]
    assert run(sys.executable, code, {**env, "TMP_REDIRECT_SCOPE": "wf-2"}, None) == f"False {cache}\n"
    assert tree(cache) == made
    for workflow in ("wf-1", "wf-2"):
        assert [path.suffix for path in (root / workflow / "tmp").iterdir()] == [".png"]


@pytest.mark.promise
def test_numba_compiles_once(shim_env: dict[str, str], root: Path, tmp_path: Path) -> None:
    real("numba")
    application = tmp_path / "application"
    application.mkdir()
    source = "import numba\n@numba.njit(cache=True)\ndef total(n):\n    return sum(range(n))\n"
    (application / "kernels.py").write_text(source, encoding="utf-8")
    env = {**shim_env, "PYTHONPATH": f"{shim_env['PYTHONPATH']}:{application}"}
    code = (
        "from kernels import total\n"
        "assert total(10) == 45\n"
        "print(sum(total.stats.cache_misses.values()), sum(total.stats.cache_hits.values()))\n"
    )
    cache = root / ".cache" / "numba"
    assert run(sys.executable, code, {**env, "TMP_REDIRECT_SCOPE": "wf-1"}) == "1 0\n"
    made = tree(cache)
    assert sorted(Path(name).suffix for name in made) == [".nbc", ".nbi"]
    assert run(sys.executable, code, {**env, "TMP_REDIRECT_SCOPE": "wf-2"}) == "0 1\n"
    assert tree(cache) == made
    assert not list(application.rglob("*.nb*"))


@pytest.mark.promise
def test_joblib_shares_large_arrays_through_its_folder(shim_env: dict[str, str], root: Path) -> None:
    """They are gone at the end. What `Memory` keeps is where its caller says."""
    real("joblib", "numpy")
    code = (
        "import os, sys, tempfile\n"
        "import joblib, numpy\n"
        "from services.common.tmp_redirect import workflow\n"
        "def seen(array): return type(array).__name__, os.path.realpath(array.filename)\n"
        "for name in ('wf-1', 'wf-2'):\n"
        "    with workflow(name) as workspace:\n"
        "        array = numpy.arange(300_000)\n"
        "        found = joblib.Parallel(n_jobs=2)(joblib.delayed(seen)(array) for _ in range(4))\n"
        "        assert {kind for kind, _ in found} == {'memmap'}\n"
        "        for _, path in found: print(path)\n"
        "        memory = joblib.Memory(tempfile.mkdtemp(), verbose=0)\n"
        "        doubled = memory.cache(lambda n: n * 2)\n"
        "        assert doubled(array).sum() == doubled(array).sum() == array.sum() * 2\n"
        "        assert memory.location.startswith(workspace) and os.listdir(memory.location)\n"
    )
    paths = run(sys.executable, code, shim_env, None).split()
    assert len(paths) == 8
    assert {os.path.commonpath([path, f"{root}/.cache/joblib"]) for path in paths} == {f"{root}/.cache/joblib"}
    assert not tree(root / ".cache")
    for workflow in ("wf-1", "wf-2"):
        assert tree(root / workflow / "tmp")


@pytest.mark.promise
def test_files_of_numpy_are_in_the_workspace(shim_env: dict[str, str], root: Path) -> None:
    """It keeps no cache."""
    real("numpy")
    code = (
        "import numpy, tempfile\n"
        "with tempfile.NamedTemporaryFile(suffix='.npy', delete=False) as file: numpy.save(file, numpy.arange(9))\n"
        "assert numpy.load(file.name, mmap_mode='r').sum() == 36\n"
        "with tempfile.NamedTemporaryFile(suffix='.mmap', delete=False) as file:\n"
        "    mapped = numpy.memmap(file, dtype='uint8', mode='w+', shape=(4096,))\n"
        "    mapped[:] = 7\n"
        "    mapped.flush()\n"
        "assert numpy.fromfile(file.name, dtype='uint8').sum() == 7 * 4096\n"
        "directory = tempfile.mkdtemp()\n"
        "numpy.savez(directory + '/several', a=numpy.arange(3), b=numpy.arange(4))\n"
        "with tempfile.TemporaryFile() as file:\n"
        "    numpy.savez_compressed(file, a=numpy.arange(3))\n"
        "    file.seek(0)\n"
        "    assert numpy.load(file)['a'].sum() == 3\n"
    )
    run(sys.executable, code, {**shim_env, "TMP_REDIRECT_SCOPE": "wf-1"})
    made = [name for name in tree(root) if not name.startswith(".leases/")]
    assert sorted(Path(name).suffix for name in made) == [".mmap", ".npy", ".npz"]
    assert sorted(Path(name).suffix for name in tree(root / "wf-1" / "tmp")) == [".mmap", ".npy", ".npz"]


@pytest.mark.promise
def test_torch_compiles_once(shim_env: dict[str, str], root: Path) -> None:
    real("torch")
    code = (
        "import torch\n"
        "from torch._dynamo.utils import counters\n"
        "assert torch.compile(lambda x: (x.sin() + x.cos()).sum())(torch.zeros(64)) == 64\n"
        "print(counters['inductor']['fxgraph_cache_miss'], counters['inductor']['fxgraph_cache_hit'])\n"
    )
    assert run(sys.executable, code, {**shim_env, "TMP_REDIRECT_SCOPE": "wf-1"}, None) == "1 0\n"
    assert tree(root / ".cache" / "torch")
    assert run(sys.executable, code, {**shim_env, "TMP_REDIRECT_SCOPE": "wf-2"}, None) == "0 1\n"


def test_no_name_is_watched_by_two_finders() -> None:
    """Each would ask the other without end."""
    assert not set(startup._SWITCHING_PARTS) & {*startup._PARTS, *startup._LIBRARIES}
