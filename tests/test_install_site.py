"""`tmp-redirect install-site` and `uninstall-site`, for interpreters of all kinds, in directories with difficult names.

What the shim does is seen in where tempfile puts files; that nothing else changes, in a listing of all files.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PACKAGE, interpreter, lay_over
from tests.environments import Environment, listing, put, virtual_environment, whole_python
from tests.test_sitecustomize import foreign

WHERE = "import tempfile; print(tempfile.gettempdir())"
THEIRS = "import sys\nsys.stderr.write(f'theirs ran as {__name__}\\n')\nanswer = 42\n"
NAME = "a venv's 环境"
PTH = "tmp_redirect.pth"


@pytest.fixture
def settings(root: Path, mode: str, socket_dir: Path) -> dict[str, str]:
    """What switches the shim on, or in the shim-off run off."""
    return {
        "TMP_REDIRECT": mode,
        "TMP_REDIRECT_ROOT": str(root),
        "TMP_REDIRECT_SERVICE": "svc",
        "TMP_REDIRECT_SOCKET_DIR": str(socket_dir),
    }


@pytest.fixture
def outside(root: Path) -> str:
    """What tempfile prints where the shim is at work."""
    return f"{root}/.outside/svc/tmp\n"


@pytest.fixture
def bare(tmp_path: Path) -> Environment:
    """A virtual environment without any package."""
    return virtual_environment(tmp_path / NAME, sys.executable)


@pytest.fixture
def env(bare: Environment, unpacked: Path) -> Environment:
    """A virtual environment with the wheel."""
    put(unpacked, bare.packages)
    return bare


def install(env: Environment, home: Path | None = None, **more: str) -> str:
    """Returns what it says where all goes well."""
    done = env.command("install-site", home=home, **more)
    assert (done.returncode, done.stderr.replace("theirs ran as sitecustomize\n", "")) == (0, "")
    return done.stdout


def uninstall(env: Environment, home: Path | None = None, **more: str) -> str:
    done = env.command("uninstall-site", home=home, **more)
    assert (done.returncode, done.stderr.replace("theirs ran as sitecustomize\n", "")) == (0, "")
    return done.stdout


@pytest.mark.promise
def test_a_virtual_environment(
    tmp_path: Path, python: str, unpacked: Path, settings: dict[str, str], outside: str
) -> None:
    env = virtual_environment(tmp_path / NAME, python)
    put(unpacked, env.packages)
    before = listing(env.packages)
    assert env.run("-c", WHERE, **settings).stdout != outside
    said = install(env)
    assert said.startswith(f"{env.packages / PTH} was written\n{env.python} starts the shim by it, from ")
    for flags in ([], ["-I"], ["-E"]):
        done = env.run(*flags, "-c", WHERE, **settings)
        if flags:
            assert done.stderr == ""
        assert done.stdout == outside
    assert uninstall(env) == f"removed {env.packages / PTH}\n"
    assert listing(env.packages) == before
    assert env.run("-c", WHERE, **settings).stdout != outside


def test_off_is_inert(env: Environment) -> None:
    code = "import sys; print(*sorted(sys.modules))"
    (env.packages / "other.pth").write_text("# site imports a codec for any such file\n", encoding="utf-8")
    before = [env.run("-c", code, **off).stdout for off in ({}, {"TMP_REDIRECT": "off"})]
    install(env)
    assert [env.run("-c", code, **off).stdout for off in ({}, {"TMP_REDIRECT": "off"})] == before


def test_twice(env: Environment) -> None:
    install(env)
    before = listing(env.packages)
    assert install(env).startswith(f"{env.packages / PTH} is there already\n{env.python} starts the shim by it")
    assert listing(env.packages) == before
    uninstall(env)
    assert uninstall(env) == f"nothing to remove: install-site has written no {env.packages / PTH}\n"


def test_a_dry_run_says_what_and_changes_nothing(env: Environment) -> None:
    before = listing(env.packages)
    done = env.command("install-site", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"would write {env.packages / PTH}\n")
    assert listing(env.packages) == before


@pytest.mark.promise
@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13", "Debian's"])
def test_beside_the_interpreter_s_own_sitecustomize(
    tmp_path: Path, version: str, unpacked: Path, settings: dict[str, str], outside: str
) -> None:
    """Debian has one in the directory of the standard library, where it is found before all others."""
    env = whole_python(tmp_path / "prefix", debian() if version == "Debian's" else interpreter(version))
    library = Path(env.run("-c", "import os; print(os.path.dirname(os.__file__))").stdout.strip())
    (library / "sitecustomize.py").write_text(THEIRS, encoding="utf-8")
    put(unpacked, env.packages)
    before = listing(env.packages)
    install(env)
    code = f"import sitecustomize; assert sitecustomize.answer == 42; {WHERE}"
    done = env.run("-c", code, **settings)
    assert (done.returncode, done.stdout, done.stderr) == (0, outside, "theirs ran as sitecustomize\n")
    uninstall(env)
    assert listing(env.packages) == before


def debian() -> str:
    """The path of a Python that Debian has changed: its packages are not where others are."""
    python = "/usr/bin/python3"
    code = "import sys, sysconfig; print(sys.version_info[:2] >= (3, 10), sysconfig.get_path('purelib'))"
    if not os.path.exists(python) or "True /usr/local/lib/python3" not in (
        done := subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout
    ):
        pytest.skip("Debian's Python 3.10 or later is not installed here")
    assert done.strip().endswith("/dist-packages")
    return python


@pytest.mark.promise
def test_beside_a_sitecustomize_of_the_user(
    env: Environment, tmp_path: Path, settings: dict[str, str], outside: str
) -> None:
    (env.packages / "sitecustomize.py").write_text(THEIRS, encoding="utf-8")
    install(env)
    code = f"import sitecustomize; assert sitecustomize.answer == 42; {WHERE}"
    done = env.run("-c", code, **settings)
    assert (done.stdout, done.stderr) == (outside, "theirs ran as sitecustomize\n")
    further = foreign(tmp_path / "further", THEIRS.replace("theirs", "further"))
    done = env.run("-c", WHERE, **settings, PYTHONPATH=str(further))
    assert (done.stdout, done.stderr) == (outside, "further ran as sitecustomize\n")


@pytest.mark.promise
@pytest.mark.parametrize("other", ["the wheel's, as run has it", "an overlay"])
def test_there_is_one_shim_where_it_is_on_the_path_too(
    env: Environment, tmp_path: Path, settings: dict[str, str], outside: str, other: str
) -> None:
    install(env)
    overlay = tmp_path / "overlay"
    lay_over(overlay)
    first = env.packages / PACKAGE / "autoload" if other.startswith("the wheel") else overlay
    further = foreign(tmp_path / "further", THEIRS)
    code = (
        f"{WHERE}; import builtins, sitecustomize, services.common.tmp_redirect as shim; assert sitecustomize.answer; "
        f"assert shim.__file__ == {str(env.packages / PACKAGE / '__init__.py')!r}; "
        "assert type(builtins.open) is not type(len); shim.uninstall(); assert type(builtins.open) is type(len)"
    )
    done = env.run("-c", code, **settings, PYTHONPATH=f"{first}{os.pathsep}{further}")
    assert (done.returncode, done.stdout, done.stderr) == (0, outside, "theirs ran as sitecustomize\n")
    if first != overlay:
        ran = env.command("run", "--", env.python, "-c", code, **settings, PYTHONPATH=str(further))
        assert (ran.returncode, ran.stdout, ran.stderr.splitlines()[-1]) == (0, outside, done.stderr.strip())


# The package in a directory in which site doesn't look (`pip install --target`), but which PYTHONPATH names.


@pytest.fixture
def target(tmp_path: Path, bare: Environment, unpacked: Path) -> Path:
    directory = tmp_path / "a target"
    directory.mkdir()
    put(unpacked, directory)
    bare.env["PYTHONPATH"] = str(directory)
    return directory


@pytest.mark.promise
def test_a_target_on_the_path(
    bare: Environment, target: Path, tmp_path: Path, settings: dict[str, str], outside: str
) -> None:
    before = listing(target), listing(bare.packages)
    said = install(bare, target)
    assert said.startswith(f"{target}/sitecustomize.py was written\n")
    assert f"and PYTHONPATH names {target}" in said
    further = foreign(tmp_path / "further", THEIRS)
    paths = f"{target}{os.pathsep}{further}"
    bare.caches = True
    done = bare.run("-c", WHERE, **settings, PYTHONPATH=paths)
    bare.caches = False
    assert (done.stdout, done.stderr) == (outside, "theirs ran as sitecustomize\n")
    assert list(target.glob("__pycache__/sitecustomize.*"))
    assert install(bare, target).startswith(f"{target}/sitecustomize.py is there already\n")
    assert uninstall(bare, target, PYTHONPATH="") == f"removed {target}/sitecustomize.py\n"
    assert (listing(target), listing(bare.packages)) == before


@pytest.mark.promise
def test_a_target_that_has_a_sitecustomize(
    bare: Environment, target: Path, settings: dict[str, str], outside: str
) -> None:
    (target / "sitecustomize.py").write_text(THEIRS, encoding="utf-8")
    before = listing(target)
    done = bare.command("install-site", home=target)
    assert done.returncode == 0
    assert done.stderr == (
        "theirs ran as sitecustomize\n"
        f"tmp-redirect install-site: {target}/sitecustomize.py is there and not of tmp-redirect: left alone\n"
    )
    assert done.stdout.startswith(f"{bare.packages / PTH} was written\n")
    assert listing(target) == before
    seen = bare.run("-c", WHERE, **settings)
    assert (seen.stdout, seen.stderr) == (outside, "theirs ran as sitecustomize\n")


def test_a_target_that_another_sitecustomize_comes_before(bare: Environment, target: Path, tmp_path: Path) -> None:
    before = listing(target)
    first = foreign(tmp_path / "first", "")
    done = bare.command("install-site", home=target, PYTHONPATH=f"{first}{os.pathsep}{target}")
    assert done.returncode == 0
    assert done.stderr == (
        f"tmp-redirect install-site: {target}/sitecustomize.py was written and removed again: "
        f"{bare.python} doesn't start the shim by it: another sitecustomize comes before it\n"
    )
    assert done.stdout.startswith(f"{bare.packages / PTH} was written\n")
    assert listing(target) == before


# Other places of the package.


@pytest.mark.promise
def test_a_user_s_own_packages(tmp_path: Path, unpacked: Path, settings: dict[str, str], outside: str) -> None:
    env = whole_python(tmp_path / "prefix", interpreter("3.12"))
    env.env["PYTHONUSERBASE"] = str(tmp_path / "user")
    user = Path(env.run("-m", "site", "--user-site").stdout.strip())
    user.mkdir(parents=True)
    put(unpacked, user)
    before = listing(user), listing(env.packages)
    assert install(env, user).startswith(f"{user / PTH} was written\n")
    assert listing(env.packages) == before[1]
    assert env.run("-c", WHERE, **settings).stdout == outside
    uninstall(env, user)
    assert (listing(user), listing(env.packages)) == before


@pytest.mark.promise
def test_a_virtual_environment_with_system_packages(
    tmp_path: Path, unpacked: Path, settings: dict[str, str], outside: str
) -> None:
    """Only this one starts the shim, not each that sees those packages."""
    system = whole_python(tmp_path / "prefix", interpreter("3.12"))
    put(unpacked, system.packages)
    before = listing(system.packages)
    env = virtual_environment(tmp_path / NAME, system.python, "--system-site-packages")
    assert install(env, system.packages).startswith(f"{env.packages / PTH} was written\n")
    assert env.run("-c", WHERE, **settings).stdout == outside
    assert system.run("-c", WHERE, **settings).stdout != outside
    uninstall(env, system.packages)
    assert (listing(system.packages), listing(env.packages)) == (before, {})


@pytest.mark.promise
def test_an_editable_installation(bare: Environment, tmp_path: Path, settings: dict[str, str], outside: str) -> None:
    checkout = tmp_path / "checkout"
    lay_over(checkout)
    (bare.packages / "_editable.pth").write_text(f"{checkout}\n", encoding="utf-8")
    before = listing(tmp_path)
    assert f"from {checkout / PACKAGE}," in install(bare, checkout)
    further = foreign(tmp_path / "further", "")  # in place of the checkout's, which site finds
    done = bare.run("-c", WHERE, **settings, PYTHONPATH=str(further))
    assert (done.stdout, done.stderr) == (outside, "")
    uninstall(bare, checkout)
    shutil.rmtree(further)
    assert {path for path in listing(tmp_path) if "workflows" not in path} == {
        path for path in before if "workflows" not in path
    }


@pytest.mark.promise
def test_a_locale_that_cannot_say_the_path(env: Environment, settings: dict[str, str], outside: str) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    install(env, **ascii_only)
    assert (env.packages / PTH).read_bytes().isascii()
    assert env.run("-c", WHERE, **settings, **ascii_only).stdout == outside


# A shim that has gone, or is broken.


@pytest.mark.promise
def test_a_shim_that_was_removed(python: str, tmp_path: Path, unpacked: Path, settings: dict[str, str]) -> None:
    env = virtual_environment(tmp_path / NAME, python)
    put(unpacked, env.packages)
    install(env)
    shutil.rmtree(env.packages / "services")
    for off in ({}, {"TMP_REDIRECT": ""}, {"TMP_REDIRECT": "off"}):
        done = env.run("-c", "print('ran')", **off)
        assert (done.returncode, done.stdout, done.stderr) == (0, "ran\n", "")
    warned = env.run("-c", "print('ran')", **settings | {"TMP_REDIRECT": "warn"})
    assert (warned.returncode, warned.stdout) == (0, "ran\n")
    assert warned.stderr.startswith("tmp_redirect: can't start, the process goes on WITHOUT it: FileNotFoundError: ")
    refused = env.run("-c", "print('ran')", **settings)
    assert (refused.returncode, refused.stdout) == (78, "")
    assert refused.stderr == warned.stderr.replace("goes on WITHOUT it", "ends with status 78")
    assert refused.stderr.endswith(f"; install tmp-redirect again, or remove {env.packages / PTH}\n")
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.promise
def test_a_shim_that_was_damaged(env: Environment, settings: dict[str, str]) -> None:
    install(env)
    (env.packages / PACKAGE / "autoload" / "sitecustomize.py").write_text("def (", encoding="utf-8")
    done = env.run("-c", "print('ran')", **settings)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (78, "", 1)
    assert "the process ends with status 78: SyntaxError: " in done.stderr


@pytest.mark.parametrize("before", ["nothing", "of another version", "as it should be"])
def test_what_does_not_work_is_not_left(env: Environment, before: str) -> None:
    if before != "nothing":
        install(env)
    if before == "of another version":
        make_older(env)
    (env.packages / PACKAGE / "calls.py").write_text("raise ValueError('broken')", encoding="utf-8")
    was = listing(env.packages)
    done = env.command("install-site")
    assert (done.returncode, done.stdout) == (78, "")
    done_so_far = "is there already" if before == "as it should be" else "was written and removed again"
    assert done.stderr.startswith(f"tmp-redirect install-site: {env.packages / PTH} {done_so_far}: ")
    assert "can't start, the process goes on WITHOUT it: ValueError: broken" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert listing(env.packages) == was


def test_a_package_without_its_sitecustomize(env: Environment, root: Path) -> None:
    missing = env.packages / PACKAGE / "autoload" / "sitecustomize.py"
    missing.unlink()
    before = listing(env.packages)
    for words in (["install-site"], ["run", "--root", root, "--", env.python, "-c", "print('ran')"]):
        done = env.command(*words)
        assert (done.returncode, done.stdout) == (78, "")
        said = f"tmp-redirect {words[0]}: {missing} is missing, and nothing starts the shim without it\n"
        assert done.stderr == said
    assert listing(env.packages) == before


def make_older(env: Environment) -> None:
    """As if another version of the package, or one that lay elsewhere, had written the file."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from services.common.tmp_redirect import site_files as s; "
        "f = s.pth_file(); f.path.unlink(); s._site_file(f.path, f.text.partition(chr(10))[2] + '# older\\n').write()"
    )
    done = env.run("-c", code, env.packages)
    assert done.returncode == 0, done.stderr


# Other people's files, and other people's directories.


def test_what_another_version_wrote_is_written_anew_and_removed(env: Environment) -> None:
    before = listing(env.packages)
    install(env)
    text = (env.packages / PTH).read_text(encoding="utf-8")
    make_older(env)
    assert install(env).startswith(f"{env.packages / PTH} was written\n")
    assert (env.packages / PTH).read_text(encoding="utf-8") == text
    make_older(env)
    assert uninstall(env) == f"removed {env.packages / PTH}\n"
    assert listing(env.packages) == before


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_a_foreign_file_is_left_alone(env: Environment, tmp_path: Path, kind: str) -> None:
    path = env.packages / PTH
    if kind == "directory":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(tmp_path / "nowhere")
    else:
        path.write_text("import os\n", encoding="utf-8")
    before = listing(env.packages)
    for options in ((), ("--dry-run",)):
        done = env.command("install-site", *options)
        assert (done.returncode, done.stdout) == (78, "")
        assert done.stderr.endswith(f"{path} is there and not of tmp-redirect: left alone\n")
    assert uninstall(env).startswith("nothing to remove")
    assert listing(env.packages) == before
    assert path.is_symlink() == (kind == "link")


def test_a_file_that_was_changed_is_left_alone(env: Environment) -> None:
    install(env)
    path = env.packages / PTH
    with path.open("a", encoding="utf-8") as file:
        file.write("import os\n")
    before = listing(env.packages)
    again = env.command("install-site")
    assert (again.returncode, again.stdout) == (78, "")
    left = f"{path} was changed since install-site wrote it: left alone; "
    assert again.stderr == f"tmp-redirect install-site: {left}remove it to have it written again\n"
    done = env.command("uninstall-site")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"tmp-redirect uninstall-site: {left}look at it, and remove it\n"
    assert listing(env.packages) == before


def test_a_directory_that_may_not_be_written(env: Environment) -> None:
    if os.geteuid() == 0:  # as whom everything may be written
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("setpriv is not installed here")
        env.launcher = (setpriv, "--bounding-set=-dac_override", "--inh-caps=-dac_override")
    env.packages.chmod(0o555)
    for options in ((), ("--dry-run",)):
        done = env.command("install-site", *options)
        assert (done.returncode, done.stdout) == (78, "")
        assert done.stderr == (
            f"tmp-redirect install-site: can't write {env.packages / PTH}: Permission denied; "
            "run this as the user who may install packages there\n"
        )
    env.packages.chmod(0o755)
    install(env)
    env.packages.chmod(0o555)
    done = env.command("uninstall-site")
    env.packages.chmod(0o755)
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == (
        f"tmp-redirect uninstall-site: can't remove {env.packages / PTH}: Permission denied; "
        "run this as the user who may remove packages there\n"
    )


def test_a_directory_that_is_missing(bare: Environment, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    lay_over(tmp_path / "app")
    bare.packages.rmdir()
    done = bare.command("install-site", home=tmp_path / "app")
    assert (done.returncode, done.stdout) == (78, "")
    assert f"can't write {bare.packages / PTH}: No such file or directory" in done.stderr
    assert not bare.packages.exists()


def test_it_is_as_readable_as_the_shim(env: Environment) -> None:
    """Others than who runs this start the interpreter, too; site says nothing of a file that it can't read."""
    umask = os.umask(0o077)
    try:
        install(env)
    finally:
        os.umask(umask)
    shim = env.packages / PACKAGE / "autoload" / "sitecustomize.py"
    assert (env.packages / PTH).stat().st_mode == shim.stat().st_mode
