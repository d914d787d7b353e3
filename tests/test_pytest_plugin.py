"""The pytest plugin, in real runs of pytest over small trees; what the tests there do to system temp is `STRAY`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from services.common.tmp_redirect.under_pytest.journal import JournalReader
from tests.conftest import PACKAGE, lay_over
from tests.installation import HOME

PLUGIN = "services.common.tmp_redirect.pytest_plugin"
ASKED = ("-p", PLUGIN)
USAGE, NOTHING_COLLECTED = 4, 5

XDIST = ("-p", "xdist", "-n2")

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that looks as site-packages does after an installation from a wheel."""
    directory = tmp_path_factory.mktemp("site-packages")
    lay_over(directory)
    autoload = directory / PACKAGE / "autoload"
    autoload.mkdir()
    (directory / "sitecustomize.py").rename(autoload / "sitecustomize.py")
    for module in ("tmp_redirect_entry.py", "tmp_redirect_pytest.py"):
        shutil.copy(HOME / module, directory)
    files = [str(path.relative_to(directory)) for path in directory.rglob("*.py")]
    info = directory / "tmp_redirect-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tmp-redirect\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[pytest11]\ntmp_redirect = tmp_redirect_pytest\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    return directory


def run_pytest(
    tree: Path, env: dict[str, str], *args: str, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run pytest over the directory `tree`."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tree), *args, str(tree)],
        cwd=cwd or tree,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def write_tree(directory: Path, stray: str, files: dict[str, str]) -> Path:
    directory.mkdir(exist_ok=True)
    header = "import os, subprocess, sys\nimport pytest\n" + WRITE.replace("STRAY", stray)
    for name, source in files.items():
        text = textwrap.dedent(source).replace("STRAY", stray)
        (directory / name).write_text(header + text if name.endswith(".py") else text)
    return directory


WRITE = """
def write(name):
    with open("STRAY" + name, "w"):
        pass

def swallow(name):
    try:
        write(name)
    except OSError:
        pass
"""


@contextmanager
def strays() -> Iterator[str]:
    """What files in system temp begin with that trees make; they are removed."""
    prefix = f"/tmp/stray-{uuid.uuid4().hex[:8]}-"
    yield prefix
    for path in found_in_system_temp(prefix):
        path.unlink()


def found_in_system_temp(prefix: str) -> list[Path]:
    return sorted(Path("/tmp").glob(f"{Path(prefix).name}*"))


@pytest.fixture
def stray(mode: str) -> Iterator[str]:
    """As `strays`; with the shim on there may be none."""
    with strays() as prefix:
        yield prefix
        assert mode == "off" or not found_in_system_temp(prefix)


@pytest.fixture
def env(shim_env: dict[str, str]) -> dict[str, str]:
    """An overlay whose shim is on from the start; other plugins than those that are named stay away."""
    return {**shim_env, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


@pytest.fixture
def run(tmp_path: Path, env: dict[str, str], stray: str) -> Run:
    """Runs pytest over a tree of the given files, with the plugin as in an overlay."""

    def run(files: dict[str, str], *args: str, **more: str) -> subprocess.CompletedProcess[str]:
        tree = write_tree(tmp_path / "tree", stray, files)
        return run_pytest(tree, {**env, **more}, *ASKED, *args)

    return run


# What happens in each kind of place, by each way to switch the plugin on.

EVERYWHERE = {
    "test_everything.py": """
    import multiprocessing
    import tempfile
    import threading
    import unittest

    @pytest.fixture(scope="session")
    def session_setup():
        swallow("session_setup")

    @pytest.fixture(scope="module")
    def module_setup():
        swallow("module_setup")

    @pytest.fixture
    def function_teardown():
        yield
        swallow("function_teardown")

    @pytest.fixture(scope="class")
    def class_teardown():
        yield
        swallow("class_teardown")

    @pytest.fixture(scope="session")
    def session_teardown():
        yield
        swallow("session_teardown")

    def test_raised():
        write("raised")

    def test_swallowed():
        swallow("swallowed")

    def test_session_setup(session_setup):
        pass

    def test_module_setup(module_setup):
        pass

    def test_function_teardown(function_teardown):
        pass

    class TestClass:
        def test_class_teardown(self, class_teardown):
            pass

    def test_thread():
        thread = threading.Thread(target=swallow, args=("thread",))
        thread.start()
        thread.join()

    def test_child():
        code = "try: open('STRAYchild', 'w')" + chr(10) + "except OSError: pass"
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_fork():
        if os.fork() == 0:
            swallow("fork")
            os._exit(0)
        os.wait()

    def test_multiprocessing():
        process = multiprocessing.get_context("spawn").Process(target=swallow, args=("multiprocessing",))
        process.start()
        process.join()

    def test_skipped():
        swallow("skipped")
        pytest.skip()

    class TestUnit(unittest.TestCase):
        def setUp(self):
            swallow("unittest")

        def test_unittest(self):
            pass

    @pytest.mark.xfail(strict=True)
    def test_expected():
        swallow("expected")

    def test_another_error():
        swallow("another_error")
        raise KeyError("another")

    @pytest.mark.allow_system_tmp(reason="of a tool that can't do without")
    def test_allowed():
        write("allowed")
        os.unlink("STRAYallowed")
        code = "open('STRAYallowed', 'w'); import os; os.unlink('STRAYallowed')"
        subprocess.run([sys.executable, "-c", code], check=True)

    @pytest.mark.allow_system_tmp(reason="of the class")
    class TestAllowed:
        def test_allowed_by_class(self):
            write("allowed")
            os.unlink("STRAYallowed")

    def test_session_teardown(session_teardown):
        pass

    @pytest.fixture(scope="module")
    def unmarked_module_setup():
        swallow("unmarked_module_setup")

    @pytest.mark.allow_system_tmp(reason="which is not the one of the fixture")
    def test_unmarked_module_setup(unmarked_module_setup):
        pass

    def test_not_allowed():
        assert os.environ["TMP_REDIRECT"] != "warn"
        swallow("not_allowed")

    def test_capsys(capsys):
        print("out")
        assert capsys.readouterr() == ("out" + chr(10), "")

    def test_tmp_path(tmp_path, tmp_path_factory, capfd, monkeypatch):
        monkeypatch.chdir(tmp_path)
        write_here = open("file", "w")
        write_here.close()
        assert (tmp_path_factory.mktemp("more") / "file").write_text("text") == 4
        print("out")
        assert capfd.readouterr() == ("out" + chr(10), "")
        with tempfile.TemporaryDirectory() as directory:
            assert os.listdir(directory) == []

    @pytest.mark.skip
    def test_not_run():
        swallow("not_run")

    @pytest.mark.allow_system_tmp(reason="which is not the one of a fixture that ends here")
    def test_last():
        pass
    """,
    "test_a_module.py": """
    pytestmark = pytest.mark.allow_system_tmp(reason="of the module")

    @pytest.fixture(scope="module", autouse=True)
    def marked():
        write("marked")
        yield
        os.rename("STRAYmarked", "STRAYmarked-2")
        os.unlink("STRAYmarked-2")

    def test_allowed_by_module():
        write("allowed_by_module")
        os.unlink("STRAYallowed_by_module")
    """,
}
VIOLATIONS = {
    **dict.fromkeys(("raised", "swallowed", "thread", "child", "fork", "multiprocessing", "skipped"), "failure"),
    **dict.fromkeys(("unittest", "another_error", "not_allowed"), "failure"),
    **dict.fromkeys(("session_setup", "module_setup", "unmarked_module_setup"), "error"),
    **dict.fromkeys(("function_teardown", "class_teardown"), "error"),
    "expected": "xfailed",
}
FINE = {
    **dict.fromkeys(("allowed", "allowed_by_class", "allowed_by_module", "tmp_path", "capsys"), "passed"),
    "not_run": "skipped",
}
WITHOUT_STACK = ("child", "fork", "multiprocessing")
WAYS = ("overlay", "overlay, shim on", "flag", "ini", "variable", "name", "xdist")


Everything = tuple[dict[str, tuple[str, str]], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module", params=WAYS)
def everything(
    request: pytest.FixtureRequest,
    overlay: Path,
    installed: Path,
    mode: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Everything:
    """What became of each test, and its text; `-W error` always."""
    way = request.param
    directory = tmp_path_factory.mktemp("everything")
    root = directory / "workflows"
    root.mkdir()
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(installed if way in ("flag", "ini", "variable") else overlay)}
    if mode == "off" or way in ("overlay, shim on", "variable"):
        env |= {"TMP_REDIRECT": mode, "TMP_REDIRECT_ROOT": str(root)}
    args = {"flag": ["--system-tmp=refuse"], "variable": [], "ini": [], "name": ["-p", "tmp_redirect"]}.get(
        way, [*ASKED]
    )
    args += ["-n2", "-W", "default::DeprecationWarning"] if way == "xdist" else []  # of forks beside threads
    files = {**EVERYWHERE, "pytest.ini": f"[pytest]\n{'system_tmp = refuse' if way == 'ini' else ''}\n"}
    with strays() as prefix:
        tree = write_tree(directory / "tree", prefix, files)
        xml = tree / "junit.xml"
        done = run_pytest(tree, env, "-W", "error", "--strict-markers", "-ra", f"--junitxml={xml}", *args)
        assert xml.exists(), done.stdout + done.stderr
        left = found_in_system_temp(prefix) if mode != "off" else []
    assert not left
    return outcomes(xml), done


def outcomes(xml: Path) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for case in ET.parse(xml).iter("testcase"):
        name = (case.get("name") or "").removeprefix("test_")
        outcome, text = "passed", ""
        for element in case:
            if element.tag in ("failure", "error", "skipped"):
                outcome = "xfailed" if element.get("type") == "pytest.xfail" else element.tag
                text += f"{element.get('message')}\n{element.text}\n"
            else:
                text += element.text or ""
        if name not in found or found[name][0] == "passed":
            found[name] = outcome, text
    return found


@pytest.mark.promise
@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_fails_the_phase_in_which_it_happens(everything: Everything, name: str) -> None:
    found, done = everything
    outcome, text = found[name]
    assert outcome == VIOLATIONS[name], done.stdout
    if name == "another_error":  # which keeps its own traceback; the XML has no place for sections
        assert "KeyError" in text
        text = done.stdout.partition("- System temp -")[2]
    assert outcome == "xfailed" or f"-{name}'" in text
    if outcome != "xfailed":
        assert "test_everything.py:" in text or name == "child"
        assert "the stack is not known" in text if name in WITHOUT_STACK else "in swallow" in text or name == "raised"


@pytest.mark.parametrize("name", FINE)
def test_what_is_allowed_passes(everything: Everything, name: str) -> None:
    found, done = everything
    assert found[name][0] == FINE[name], done.stdout + done.stderr


@pytest.mark.promise
def test_a_session_fixture_is_seen_at_its_end(everything: Everything) -> None:
    found, done = everything
    assert any("-session_teardown'" in text and outcome == "error" for outcome, text in found.values()), done.stdout


@pytest.mark.promise
def test_nothing_is_counted_twice(everything: Everything) -> None:
    _, done = everything
    assert done.returncode == 1
    # Some tests share the teardown of the session with their own failure.
    assert done.stdout.splitlines()[-1].split(" in ")[0].strip("= ").startswith("10 failed, "), done.stdout
    assert ", 6 errors" in done.stdout.splitlines()[-1]
    assert "outside of tests" not in done.stdout
    assert "Traceback" not in done.stderr
    assert "summary" not in done.stderr


# What belongs to no test.


@pytest.mark.promise
@pytest.mark.parametrize("workers", [(), XDIST], ids=["one process", "xdist"])
def test_a_module_that_violates_when_it_is_imported_is_not_collected(run: Run, workers: tuple[str, ...]) -> None:
    done = run({"test_it.py": "swallow('import')\ndef test_it(): pass\n"}, *workers)
    assert done.returncode in (1, 2)
    assert done.stdout.count("-import' in system temp\nat ") == 1, done.stdout
    assert "1 error" in done.stdout.splitlines()[-1]
    assert "test_it.py" in done.stdout
    assert "outside of tests" not in done.stdout


@pytest.mark.promise
def test_a_module_that_fails_anyway_keeps_its_traceback(run: Run) -> None:
    done = run({"test_it.py": "write('import')\ndef test_it(): pass\n"})
    assert done.returncode == 2
    assert "TmpFallbackError" in done.stdout
    assert "-- System temp --" in done.stdout


CONFTEST = {
    "conftest": "swallow('conftest')",
    "configure": "def pytest_configure(): swallow('configure')",
    "between": "def pytest_runtest_logfinish(): swallow('between')",
    "session": "def pytest_sessionfinish(): swallow('session')",
    "child": "subprocess.run([sys.executable, '-c', '''\ntry: open('STRAYchild', 'w')\nexcept OSError: pass'''])",
}


@pytest.mark.promise
@pytest.mark.parametrize("place", CONFTEST)
def test_what_belongs_to_no_test_is_listed(run: Run, place: str) -> None:
    done = run({"conftest.py": CONFTEST[place], "test_it.py": "def test_it(): pass\n"})
    assert done.returncode == 1, done.stdout + done.stderr
    heading = done.stdout.index("= system temp, outside of tests =")
    assert f"-{place}' in system temp" in done.stdout[heading:]
    assert place == "child" or "conftest.py:" in done.stdout[heading:]
    assert "1 passed, 1 error" in done.stdout.splitlines()[-1]


@pytest.mark.promise
def test_a_session_without_tests_that_violates_fails(run: Run) -> None:
    assert run({"conftest.py": CONFTEST["conftest"]}).returncode == 1


def test_a_session_without_tests_or_violations_ends_as_ever(run: Run) -> None:
    assert run({"conftest.py": ""}).returncode == NOTHING_COLLECTED


@pytest.mark.promise
def test_what_all_workers_do_is_listed_once(run: Run) -> None:
    files = {"conftest.py": CONFTEST["conftest"], "test_it.py": "def test_it(): pass\ndef test_that(): pass\n"}
    done = run(files, *XDIST)
    assert done.returncode == 1
    assert done.stdout.count("-conftest' in system temp\nat ") == 1, done.stdout
    assert "2 passed, 1 error" in done.stdout.splitlines()[-1]


@pytest.mark.promise
def test_a_child_that_outlives_its_test_is_listed(run: Run) -> None:
    text = """
    CODE = '''
    import sys
    sys.stdin.read()
    try: open("STRAYlate", "w")
    except OSError: pass
    '''

    @pytest.fixture(scope="session")
    def server():
        import textwrap
        server = subprocess.Popen([sys.executable, "-c", textwrap.dedent(CODE)], stdin=subprocess.PIPE)
        yield
        server.communicate()

    def test_first(server): pass
    def test_second(server): pass
    """
    done = run({"test_it.py": text})
    assert done.returncode == 1
    assert "started by test_it.py::test_first" in done.stdout
    assert "2 passed, 1 error" in done.stdout.splitlines()[-1]


ATEXIT = "import atexit\natexit.register(swallow, 'atexit')\ndef test_it(): pass\n"


@pytest.mark.promise
@pytest.mark.parametrize("workers", [(), XDIST], ids=["one process", "xdist"])
def test_what_happens_after_the_session_is_seen(run: Run, workers: tuple[str, ...]) -> None:
    done = run({"conftest.py": ATEXIT, "test_it.py": "def test_it(): pass\n"}, *workers)
    assert "1 passed" in done.stdout
    assert done.returncode == 1, done.stderr
    assert "after the end of the session" in done.stderr
    assert "-atexit' in system temp" in done.stderr


@pytest.mark.promise
def test_what_workers_do_when_they_end_is_listed_once(run: Run) -> None:
    conftest = "import atexit\nif 'PYTEST_XDIST_WORKER' in os.environ:\n    atexit.register(swallow, 'end')\n"
    done = run({"conftest.py": conftest, "test_it.py": "def test_it(): pass\n"}, *XDIST)
    assert done.returncode == 1
    assert done.stdout.count("-end' in system temp\nat ") == 1, done.stdout


def test_the_status_of_a_failed_session_stays(run: Run) -> None:
    assert run({"test_it.py": ATEXIT + "def test_that(): raise KeyboardInterrupt\n"}).returncode == 2


def test_with_warn_all_goes_on_and_fails_in_the_end(run: Run, mode: str) -> None:
    text = "def test_it():\n    write('warned')\n    os.unlink('STRAYwarned')\n"
    done = run({"test_it.py": text}, TMP_REDIRECT="warn")
    assert done.returncode == 1
    assert "-warned' in system temp" in done.stdout


# The options.


@pytest.mark.parametrize(
    ("mark", "workers"),
    [("", ()), ("()", ()), ("(reason='')", ()), ("(reason=' ')", ()), ("(reason=None)", ()), ("()", XDIST)],
)
def test_a_marker_without_a_reason_is_an_error(run: Run, mark: str, workers: tuple[str, ...]) -> None:
    done = run({"test_it.py": f"@pytest.mark.allow_system_tmp{mark}\ndef test_it(): pass\n"}, *workers)
    assert done.returncode in (1, 2)
    assert done.stdout.count("test_it.py::test_it: @pytest.mark.allow_system_tmp needs a reason") == 1, done.stdout


@pytest.mark.parametrize(
    ("ini", "flag", "passed"),
    [
        ("allow", None, True),
        ("refuse", None, False),
        (None, "allow", True),
        ("allow", "refuse", False),
        ("refuse", "allow", True),
    ],
)
def test_the_flag_precedes_the_ini_option(
    run: Run, stray: str, ini: str | None, flag: str | None, passed: bool
) -> None:
    text = "def test_it():\n    write('x')\n    os.unlink('STRAYx')\n"
    text += (
        "@pytest.mark.allow_system_tmp(reason='marked')\ndef test_marked():\n    write('m')\n    os.unlink('STRAYm')\n"
    )
    files = {"test_it.py": text, "pytest.ini": f"[pytest]\n{f'system_tmp = {ini}' if ini else ''}\n"}
    done = run(files, *([f"--system-tmp={flag}"] if flag else []))
    assert ("2 passed" if passed else "1 failed, 1 passed") in done.stdout
    assert done.returncode == (0 if passed else 1)
    assert ("= system temp, allowed =" in done.stdout) == passed
    assert (f"open of '{stray}x' at" in done.stdout.partition("temp, allowed =")[2]) == passed


@pytest.mark.parametrize("place", CONFTEST)
def test_what_is_allowed_outside_of_tests_is_listed(run: Run, stray: str, place: str) -> None:
    done = run({"conftest.py": CONFTEST[place], "test_it.py": "def test_it(): pass\n"}, "--system-tmp=allow")
    Path(f"{stray}{place}").unlink()
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"-{place}' at" in done.stdout


def test_bad_values_are_usage_errors(run: Run, tmp_path: Path) -> None:
    files = {"test_it.py": "def test_it(): pass\n"}
    no_root = str(tmp_path / "missing")
    for args, more, said in (
        (["--system-tmp=maybe"], {}, "invalid choice: 'maybe'"),
        (["-o", "system_tmp=maybe"], {}, "system_tmp = 'maybe'"),
        ([], {"TMP_REDIRECT_ROOT": no_root}, f"the root {no_root} doesn't exist"),
        ([], {"TMP_REDIRECT": "", "TMP_REDIRECT_ROOT": "relative"}, "TMP_REDIRECT_ROOT='relative' is not allowed"),
        ([], {"TMP_REDIRECT_OUTSIDE": "raise"}, "TMP_REDIRECT_OUTSIDE='raise' is not allowed"),
    ):
        done = run(files, *args, **more)
        assert done.returncode == USAGE, done.stdout + done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr
        assert "relative" not in said or len(done.stderr.strip().splitlines()) == 1


def test_off_is_off(run: Run) -> None:
    text = "def test_it():\n    write('off')\n    os.unlink('STRAYoff')\n"
    done = run({"test_it.py": text}, TMP_REDIRECT="off")
    assert done.returncode == 0
    assert "tmp_redirect: off, as TMP_REDIRECT says" in done.stdout


def test_a_base_directory_in_system_temp_is_meant(run: Run, stray: str) -> None:
    text = "def test_it(tmp_path):\n    assert str(tmp_path).startswith('STRAYbase')\n    (tmp_path / 'file').touch()\n"
    text += "    open(tmp_path / 'file', 'w').close()\n"
    try:
        for args in ((), ("-p", "xdist", "-n1")):
            done = run({"test_it.py": text}, f"--basetemp={stray}base", *args)
            assert done.returncode == 0, done.stdout + done.stderr
    finally:
        shutil.rmtree(f"{stray}base", ignore_errors=True)


# What the plugin does to the process around it.


def test_installed_it_does_nothing_unless_asked(tmp_path: Path, installed: Path, stray: str) -> None:
    text = """
    @pytest.mark.allow_system_tmp
    def test_it():
        write("inert")
        os.unlink("STRAYinert")
        assert "TMP_REDIRECT" not in os.environ
        assert not [name for name in sys.modules if name.startswith("services")]
    """
    hostile(installed_copy := shutil.copytree(installed, tmp_path / "site-packages"))
    tree = write_tree(tmp_path / "tree", stray, {"test_it.py": text})
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(installed_copy)}
    done = run_pytest(tree, env, "--strict-markers", "-W", "error")
    assert done.returncode == 0, done.stdout + done.stderr


def hostile(directory: Path) -> None:
    """The parent packages of the system that the shim is laid over, where importing them ends the process."""
    (directory / "services/common/__init__.py").write_text("raise SystemExit('the parent was imported')\n")


HOSTILE_WAYS = {
    "overlay, shim on": (ASKED, {"TMP_REDIRECT": "enforce"}),
    "variable": ((), {"TMP_REDIRECT": "enforce"}),
    "flag": (("--system-tmp=refuse",), {}),
}


@pytest.mark.promise
@pytest.mark.parametrize("way", HOSTILE_WAYS)
def test_the_parents_are_not_imported(tmp_path: Path, root: Path, installed: Path, stray: str, way: str, mode: str):
    directory = shutil.copytree(installed, tmp_path / "site-packages")
    hostile(directory)
    args, more = HOSTILE_WAYS[way]
    tree = write_tree(tmp_path / "tree", stray, {"test_it.py": "def test_it(): swallow('x')\n"})
    if way == "overlay, shim on":
        (directory / PACKAGE / "autoload" / "sitecustomize.py").rename(directory / "sitecustomize.py")
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(directory), "TMP_REDIRECT_ROOT": str(root), **more}
    if mode == "off":
        env["TMP_REDIRECT"] = "off"
    done = run_pytest(tree, env, "-W", "error", *args)
    assert "1 failed" in done.stdout, done.stdout + done.stderr
    assert "the parent" not in done.stdout + done.stderr


@pytest.mark.promise
def test_children_get_the_shim_that_was_found_by_the_working_directory(
    tmp_path: Path, overlay: Path, stray: str, mode: str
) -> None:
    code = "try: open('STRAYchild', 'w')\nexcept OSError: pass"
    text = f"def test_it(): subprocess.run([sys.executable, '-c', '''{code}'''], check=True)\n"
    tree = write_tree(tmp_path / "tree", stray, {"test_it.py": text})
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(overlay / "nothing")}
    if mode == "off":
        env["TMP_REDIRECT"] = "off"
    done = run_pytest(tree, env, *ASKED, cwd=overlay)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "-child' in system temp" in done.stdout


IN_PROCESS = """
import builtins, io, os, sys, tempfile
import pytest

def state():
    values = [dict(os.environ), builtins.open, io.open, os.open, os.mkdir, list(sys.meta_path)]
    return values, tempfile.tempdir, tempfile.gettempdir, sorted(os.listdir("/tmp"))

tempfile.gettempdir()
before = state()
for status in (1, 1):
    assert pytest.main([*sys.argv[1:]]) == status
    assert state() == before
"""


@pytest.mark.promise
@pytest.mark.parametrize("way", ["shim on", "shim off"])
def test_pytest_in_a_program_leaves_all_as_it_was(
    tmp_path: Path, env: dict[str, str], stray: str, mode: str, way: str
) -> None:
    tree = write_tree(tmp_path / "tree", stray, {"test_it.py": "def test_it(tmp_path): swallow('x')\n"})
    script = tmp_path / "program.py"
    script.write_text(IN_PROCESS)
    if way == "shim off" and mode != "off":
        env = {name: value for name, value in env.items() if not name.startswith("TMP_REDIRECT")}
    args = [*ASKED, "-p", "no:cacheprovider", "-q", "-W", "error", f"--rootdir={tree}", str(tree)]
    done = subprocess.run(
        [sys.executable, str(script), *args],
        env=env,
        cwd=tree,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("workers", [(), XDIST], ids=["one process", "xdist"])
def test_a_temporary_root_is_removed(run: Run, workers: tuple[str, ...]) -> None:
    text = """
    import tempfile

    def test_it(tmp_path):
        root = os.environ["TMP_REDIRECT_ROOT"]
        assert root.startswith("/tmp/tmp-redirect-pytest-")
        assert str(tmp_path).startswith(root)
        with tempfile.NamedTemporaryFile() as file:
            assert file.name.startswith(root)
    """
    done = run({"test_it.py": text}, *workers, TMP_REDIRECT="", TMP_REDIRECT_ROOT="")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(Path("/tmp").glob("tmp-redirect-pytest-*"))


@pytest.mark.promise
@pytest.mark.parametrize("way", ["conftest", "PYTEST_PLUGINS", "PYTEST_PLUGINS and the entry point"])
def test_other_ways_to_ask_for_it(
    tmp_path: Path, env: dict[str, str], installed: Path, stray: str, mode: str, way: str
) -> None:
    asks = f"pytest_plugins = ['{PLUGIN}']\n" if way == "conftest" else ""
    tree = write_tree(tmp_path / "tree", stray, {"conftest.py": asks, "test_it.py": "def test_it(): swallow('x')\n"})
    env = {**env, "TMP_REDIRECT": "off" if mode == "off" else "", "PYTEST_PLUGINS": "" if asks else PLUGIN}
    if "entry point" in way:
        env |= {"PYTHONPATH": str(installed), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": ""}
    done = run_pytest(tree, env, "-W", "error")
    assert "1 failed" in done.stdout, done.stdout + done.stderr
    assert "-x' in system temp" in done.stdout


def test_another_sitecustomize_is_not_in_its_way(tmp_path: Path, installed: Path, stray: str) -> None:
    (tmp_path / "sitecustomize.py").touch()
    tree = write_tree(tmp_path / "tree", stray, {"test_it.py": "def test_it(): pass\n"})
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{tmp_path}:{installed}"}
    done = run_pytest(tree, env, "-W", "error", "--system-tmp=refuse")
    assert done.returncode == 0, done.stdout + done.stderr


# The journal.


def test_the_journal_is_read_on_across_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "violations.jsonl"
    reader = JournalReader(str(path))
    assert reader.read() == []
    path.write_text('{"n": 1}\n{"n"')
    assert reader.read() == [{"n": 1}]
    with path.open("a") as file:
        file.write(': 2}\nnonsense\n[]\n{"n": 3}\n')
    assert reader.read() == [{"n": 2}, {"n": 3}]
    with path.open("a") as file:
        file.write('{"n": 4}\n')
    path.rename(tmp_path / "violations.jsonl.1")
    path.write_text('{"n": 5}\n')
    assert reader.read() == [{"n": 4}, {"n": 5}]
    assert reader.read() == []


def test_what_was_in_the_journal_before_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "violations.jsonl"
    path.write_text('{"n": 1}\n')
    reader = JournalReader(str(path))
    assert reader.read() == []
    with path.open("a") as file:
        file.write('{"n": 2}\n')
    assert reader.read() == [{"n": 2}]
