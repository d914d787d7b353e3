"""The wheel and the sdist: what is in them, and how the wheel does where other things are installed, by pip itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

import services.common.tmp_redirect
from tests.environments import Environment, build, listing, virtual_environment
from tests.installation import HOME, PACKAGE, REPOSITORY

LOUD = "print('services/common/__init__.py was executed', flush=True)\nraise SystemExit(99)\n"
OURS = ("services/common/tmp_redirect/", "tmp_redirect_entry.py", "tmp_redirect_pytest.py")


def pip(env: Environment, *arguments: str | Path) -> str:
    """Run the pip of the test environment on another one, without a network."""
    options = ["--disable-pip-version-check", "--no-input", "--python", str(env.python)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *options, *arguments],
        env={"PATH": os.environ["PATH"], "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def add_wrapt(directory: Path) -> None:
    """Copy the wrapt of the test environment, with what pip wants to know of it."""
    wrapt = distribution("wrapt")
    for name in {path.parts[0] for path in wrapt.files or () if path.parts[0].startswith("wrapt")}:
        # Not as links: when it uninstalls something else, pip takes a directory that has only links for empty.
        shutil.copytree(str(wrapt.locate_file(name)), directory / name)


@pytest.fixture
def env(tmp_path: Path) -> Environment:
    """A virtual environment with nothing but wrapt."""
    made = virtual_environment(tmp_path / "venv", sys.executable)
    add_wrapt(made.packages)
    return made


def state(env: Environment) -> tuple[object, object]:
    """Of all files; pip leaves directories where it leaves nothing in them."""
    files = {path: content for path, content in listing(env.packages).items() if content is not None}
    return files, sorted(os.listdir(env.python.parent))


def sources() -> dict[str, bytes]:
    """What has to be installed, by the name that it has there."""
    files = [path for path in (REPOSITORY / PACKAGE).rglob("*") if path.suffix == ".py" or path.name == "py.typed"]
    files += [REPOSITORY / "tmp_redirect_entry.py", REPOSITORY / "tmp_redirect_pytest.py"]
    found = {str(path.relative_to(REPOSITORY)): path.read_bytes() for path in files}
    return found | {f"{PACKAGE}/autoload/sitecustomize.py": (REPOSITORY / "sitecustomize.py").read_bytes()}


def test_the_tests_are_about_what_is_installed() -> None:
    """The wheel if it is installed, as `make test` does it; then it must be that of these sources."""
    assert Path(services.common.tmp_redirect.__file__) == HOME / PACKAGE / "__init__.py"
    if HOME != REPOSITORY:
        installed = [path for path in (HOME / PACKAGE).rglob("*") if path.is_file() and path.suffix != ".pyc"]
        installed += HOME.glob("tmp_redirect_*.py")
        assert {str(path.relative_to(HOME)): path.read_bytes() for path in installed} == sources(), "run make test"


def test_the_wheel_has_the_sources_and_nothing_that_others_have_too(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    metadata = {name for name in files if name.startswith("tmp_redirect-") and ".dist-info/" in name}
    assert {name.rpartition("/")[2] for name in metadata} == {"METADATA", "RECORD", "WHEEL", "entry_points.txt"}
    assert {name: text for name, text in files.items() if name not in metadata} == sources()
    assert all(name.startswith(OURS) for name in files if name not in metadata)


def test_the_sdist_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    [sdist] = build(tmp_path / "dist", "-t", "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    [source] = tmp_path.glob("tmp_redirect-*")
    assert {"tests", "docs", "examples", "benchmarks", "Makefile", "Dockerfile.patch", "README.md"} < {
        path.name for path in source.iterdir()
    }
    [again] = build(tmp_path / "wheel", "-t", "wheel", source=source)
    assert again.read_bytes() == wheel.read_bytes()


def test_its_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("/METADATA")]
        lines = archive.read(name).decode().splitlines()
    required = {line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")}
    assert {line for line in required if "extra ==" not in line} == {"wrapt<3,>=1.16"}
    extras = {line.removeprefix("Provides-Extra: ") for line in lines if line.startswith("Provides-Extra: ")}
    assert extras == {"celery", "cli", "demo", "kernel", "metrics", "scan", "test"}
    assert f"Version: {services.common.tmp_redirect.__version__}" in lines
    assert "Requires-Python: >=3.10" in lines


def test_a_plain_environment(env: Environment, wheel: Path, root: Path) -> None:
    before = state(env)
    pip(env, "install", wheel)
    assert "No broken requirements" in pip(env, "check")
    assert_commands_work(env, root)
    pip(env, "uninstall", "--yes", "tmp-redirect")
    assert state(env) == before


def assert_commands_work(env: Environment, root: Path) -> None:
    """The console script and what it starts, with the shim off, and with the shim on by install-site."""
    command = env.python.parent / "tmp-redirect"
    settings = {"TMP_REDIRECT_ROOT": str(root), "TMP_REDIRECT_SERVICE": "svc"}
    where = ("-c", "import tempfile; print(tempfile.gettempdir())")
    outside = f"{root}/.outside/svc/tmp\n"
    for mode in ("off", "enforce"):
        if mode != "off":
            installed = env.run(command, "install-site")
            assert (installed.returncode, installed.stderr) == (0, "")
        env.env |= {**settings, "TMP_REDIRECT": mode}
        for words in (("--help",), ("doctor",)):
            done = env.run(command, *words)
            assert (done.returncode, done.stdout != "", done.stderr) == (0, True, "")
        done = env.command("--help")
        assert (done.returncode, done.stdout[:20], done.stderr) == (0, "usage: tmp-redirect ", "")
        done = env.run(command, "run", "--mode", "enforce", "--", env.python, *where)
        assert (done.returncode, done.stdout, done.stderr) == (0, outside, "")
        done = env.run(*where)
        assert (done.stdout == outside, done.stderr) == (mode == "enforce", "")
    assert env.run(command, "uninstall-site").returncode == 0


def put_the_target(directory: Path, *, regular: bool) -> None:
    """Packages as the target has them, of which those above ours end a process that executes them."""
    (directory / "services" / "common").mkdir(parents=True, exist_ok=True)
    (directory / "services" / "common" / "__init__.py").write_text(LOUD, encoding="utf-8")
    (directory / "services" / "common" / "logger.py").touch()
    if regular:
        (directory / "services" / "__init__.py").write_text(LOUD, encoding="utf-8")


@pytest.mark.parametrize("regular", [False, True], ids=["services is a namespace", "services is a package"])
@pytest.mark.parametrize("order", ["before it", "after it"])
def test_beside_the_target(env: Environment, wheel: Path, root: Path, order: str, regular: bool) -> None:
    if order == "after it":
        put_the_target(env.packages, regular=regular)
        before = state(env)
    pip(env, "install", wheel)
    if order == "before it":
        put_the_target(env.packages, regular=regular)
    assert_commands_work(env, root)
    assert_the_parents_are_executed_only_for_others(env)
    pip(env, "uninstall", "--yes", "tmp-redirect")
    left = state(env)
    if order == "before it":
        shutil.rmtree(env.packages / "services")
        put_the_target(env.packages, regular=regular)
        before = state(env)
    assert left == before


def assert_the_parents_are_executed_only_for_others(env: Environment) -> None:
    assert env.run("-c", "import services.common.logger").returncode == 99
    code = "from services.common.tmp_redirect import workflow, is_active; assert is_active(); print('imported')"
    done = env.run("-c", code, TMP_REDIRECT="enforce", PYTHONPATH=str(env.packages / PACKAGE / "autoload"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "imported\n", "")


def test_an_editable_installation(env: Environment, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(REPOSITORY, checkout, ignore=shutil.ignore_patterns("__pycache__", ".*", "tests"))
    (checkout / "services" / "common" / "__init__.py").write_text(LOUD, encoding="utf-8")
    before = state(env)
    code = "import sys; from hatchling.build import build_editable; build_editable(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=checkout, capture_output=True, check=True)
    pip(env, "install", *tmp_path.glob("*.whl"))
    assert_it_runs_from(checkout, env)
    pip(env, "uninstall", "--yes", "tmp-redirect")
    assert state(env) == before


def assert_it_runs_from(checkout: Path, env: Environment) -> None:
    env.env |= {"TMP_REDIRECT": "warn"}
    code = "import os, sys; print(sys.modules['services.common.tmp_redirect'].__file__, os.environ.get('PYTHONPATH'))"
    done = env.run(env.python.parent / "tmp-redirect", "run", "--root", checkout.parent, "--", env.python, "-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [f"{checkout / PACKAGE}/__init__.py", str(checkout)]
