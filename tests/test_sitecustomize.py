"""What an interpreter start does, and what it must not do. Python itself is the reference, run without the shim."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import PACKAGE, lay_over

RAISING_PARENT = "raise RuntimeError('services/common/__init__.py was executed')\n"


def run(python: str, code: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=False)


def add_parent(overlay: Path, text: str) -> None:
    (overlay / PACKAGE.parent / "__init__.py").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("value", [None, "", "off"])
def test_off_is_inert(python: str, shim_env: dict[str, str], value: str | None) -> None:
    code = (
        "import sys, builtins, os; "
        "assert not [m for m in sys.modules if m.startswith('services')]; "
        "assert type(builtins.open) is type(len) and type(os.mkdir) is type(len); "
        "assert not any('_Finder' in repr(finder) for finder in sys.meta_path)"
    )
    env = {name: text for name, text in shim_env.items() if name != "TMP_REDIRECT"}
    if value is not None:
        env["TMP_REDIRECT"] = value
    done = run(python, code, env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.promise
@pytest.mark.fresh(env={"TMP_REDIRECT_SOCKET_DIR": ""})
def test_the_start_loads_only_a_few_modules_of_ours():
    import sys

    ours = {name.removeprefix("services.common.tmp_redirect") for name in sys.modules if name.startswith("services")}
    expected = {"", ".startup", ".settings", ".patches", ".calls"}
    if "tempfile" in sys.modules:  # a .pth file of this interpreter has imported it
        expected |= {".redirect", ".scope"}
    assert ours == expected, ours


@pytest.mark.parametrize("scope", [{}, {"TMP_REDIRECT_SCOPE": "wf-1"}])
def test_the_start_loads_nothing_else(python: str, shim_env: dict[str, str], scope: dict[str, str]) -> None:
    code = "import sys; sys.stderr.write(' '.join(sorted(sys.modules)))"
    with_shim = set(run(python, code, {**shim_env, **scope}).stderr.split())
    without = set(run(python, code, {"PATH": shim_env["PATH"]}).stderr.split())
    assert {name for name in with_shim - without if not name.startswith("services.")} <= {
        "sitecustomize",
        "_contextvars",
    }


IMPORT_FORMS = [
    "from services.common.tmp_redirect import workflow; import sys; module = sys.modules[workflow.__module__]",
    "import importlib; module = importlib.import_module('services.common.tmp_redirect')",
    "import services.common.tmp_redirect; module = services.common.tmp_redirect",
    "import services.common.tmp_redirect as module",
    "from services.common import tmp_redirect as module",
    "import services.common.other; from services.common import tmp_redirect as module",
    "import services.common.other, services.common.tmp_redirect; module = services.common.tmp_redirect",
    "from services import common; module = common.tmp_redirect",
]


@pytest.mark.parametrize("parent", [None, "harmless = True\n"])
@pytest.mark.parametrize("form", IMPORT_FORMS)
def test_every_import_form_sees_the_same_module(
    python: str, own_overlay: Path, shim_env: dict[str, str], form: str, parent: str | None, mode: str
) -> None:
    (own_overlay / PACKAGE.parent / "other.py").write_text("", encoding="utf-8")
    if parent is not None:
        add_parent(own_overlay, parent)
    code = (
        "import sys; before = sys.modules['services.common.tmp_redirect']; "
        f"{form}; "
        "assert module is before or module.__name__ == 'services.common.tmp_redirect.scope'; "
        "import services.common.tmp_redirect as again; assert again is before; assert again.is_active()"
    )
    done = run(python, code, shim_env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.promise
def test_a_parent_that_raises_is_never_executed(python: str, own_overlay: Path, shim_env: dict[str, str]) -> None:
    add_parent(own_overlay, RAISING_PARENT)
    (own_overlay / "services" / "__init__.py").write_text(RAISING_PARENT, encoding="utf-8")
    code = (
        "from services.common.tmp_redirect import workflow, report\n"
        "import contextlib, sqlite3, sys, tempfile\n"
        "with workflow('wf-1') as workspace: assert tempfile.mkdtemp().startswith(workspace)\n"
        "with contextlib.suppress(PermissionError): sqlite3.connect('/tmp/tmp-redirect-x')\n"
        "import celery.app.trace\n"
        "assert report().total == 1 and 'services' not in sys.modules and 'services.common' not in sys.modules"
    )
    fake_celery(own_overlay)
    (own_overlay / "wrapt.py").write_text("FunctionWrapper = lambda wrapped, wrapper: wrapped\n", encoding="utf-8")
    done = run(python, code, shim_env)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr.startswith("tmp_redirect: refused: sqlite3.connect of '/tmp/tmp-redirect-x' at <string>:4")
    assert len(done.stderr.splitlines()) == 2  # and the summary


def fake_celery(overlay: Path) -> None:
    """As much of Celery as the integration takes hold of."""
    (overlay / "celery" / "app").mkdir(parents=True)
    (overlay / "celery" / "__init__.py").write_text("current_task = None\n", encoding="utf-8")
    (overlay / "celery" / "app" / "__init__.py").touch()
    (overlay / "celery" / "app" / "trace.py").write_text("def build_tracer(): pass\n", encoding="utf-8")
    (overlay / "celery" / "signals.py").write_text(
        "class Signal:\n    connect = disconnect = lambda *args, **options: None\n"
        "celeryd_init = worker_process_init = worker_process_shutdown = Signal()\n"
        "worker_init = worker_ready = before_task_publish = Signal()\n",
        encoding="utf-8",
    )
    (overlay / "celery" / "states.py").write_text("RETRY = REJECTED = None\n", encoding="utf-8")
    (overlay / "celery" / "exceptions.py").write_text(
        "SoftTimeLimitExceeded = Terminated = TimeLimitExceeded = WorkerLostError = OSError\n", encoding="utf-8"
    )


def test_the_parent_that_user_code_imports_raises_as_it_would(
    python: str, own_overlay: Path, shim_env: dict[str, str]
) -> None:
    add_parent(own_overlay, RAISING_PARENT)
    done = run(python, "import services.common.other", shim_env)
    assert done.returncode == 1
    assert "was executed" in done.stderr


def foreign(directory: Path, text: str = "") -> Path:
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(text, encoding="utf-8")
    return directory


@pytest.mark.parametrize("value", ["off", "warn", "enforce"])
def test_the_shadowed_sitecustomize_runs_once(
    python: str, tmp_path: Path, overlay: Path, shim_env: dict[str, str], value: str
) -> None:
    further = foreign(tmp_path / "further", "import sys\nsys.stderr.write(f'ran as {__name__}\\n')\nanswer = 42\n")
    env = {**shim_env, "TMP_REDIRECT": value, "PYTHONPATH": f"{overlay}:{further}"}
    done = run(python, "import sitecustomize; assert sitecustomize.answer == 42", env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "ran as sitecustomize\n")


@pytest.mark.parametrize("verbose", [{}, {"PYTHONVERBOSE": "1"}])
@pytest.mark.parametrize(
    "text",
    ["raise ValueError('broken')\n", "import no_such_module\n", "import sys; sys.exit(3)\n", "def broken(:\n"],
    ids=["raises", "import error", "exits", "syntax error"],
)
def test_its_failure_looks_as_it_would_without_us(
    python: str, tmp_path: Path, overlay: Path, shim_env: dict[str, str], text: str, verbose: dict[str, str]
) -> None:
    further = foreign(tmp_path / "further", text)
    env = {**shim_env, **verbose}
    ours = run(python, "pass", {**env, "PYTHONPATH": f"{overlay}:{further}"})
    stock = run(python, "pass", {**env, "PYTHONPATH": str(further)})
    assert (ours.returncode, ours.stdout) == (stock.returncode, stock.stdout)
    if verbose:
        last = [line for line in stock.stderr.splitlines() if "Error" in line or "SystemExit" in line]
        assert [line for line in ours.stderr.splitlines() if "Error" in line or "SystemExit" in line] == last
    elif "exit" not in text:  # the stack dump of an exit names our frame too
        assert ours.stderr == stock.stderr


def test_two_copies_on_the_path_load_one_shim(
    python: str, tmp_path: Path, overlay: Path, shim_env: dict[str, str]
) -> None:
    second = tmp_path / "second"
    second.mkdir()
    lay_over(second)
    further = foreign(tmp_path / "further", "import sys\nsys.stderr.write('once\\n')\n")
    env = {**shim_env, "PYTHONPATH": f"{overlay}:{second}:{further}:{overlay}"}
    code = f"import services.common.tmp_redirect as t; assert t.__file__.startswith({str(overlay)!r}), t.__file__"
    done = run(python, code, env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "once\n")


def break_settings(overlay: Path, env: dict[str, str]) -> str:
    env["TMP_REDIRECT_ROOT"] = "relative\npath"
    return "SettingsError: TMP_REDIRECT_ROOT='relative\\npath' is not allowed: an absolute path"


def break_scope(overlay: Path, env: dict[str, str]) -> str:
    env["TMP_REDIRECT_SCOPE"] = "../../etc"
    return "TMP_REDIRECT_SCOPE='../../etc' is not allowed: workflow id '../../etc' starts with '.'"


def break_layer(overlay: Path, env: dict[str, str]) -> str:
    env["TMP_REDIRECT_GUARD"] = "calls,seccomp"
    return "TMP_REDIRECT_GUARD='calls,seccomp' is not allowed: a comma list of the guard layers: calls, audit, kernel"


def break_package(overlay: Path, env: dict[str, str]) -> str:
    shutil.rmtree(overlay / PACKAGE)
    return "FileNotFoundError"


def break_syntax(overlay: Path, env: dict[str, str]) -> str:
    (overlay / PACKAGE / "startup.py").write_text("def broken(:\n", encoding="utf-8")
    return "SyntaxError"


def break_a_patch(overlay: Path, env: dict[str, str]) -> str:
    calls = overlay / PACKAGE / "calls.py"
    calls.write_text(
        calls.read_text(encoding="utf-8").replace('patches.replace(module, "open"', 'patches.replace(module, "opem"'),
        encoding="utf-8",
    )
    return "AttributeError: io has no opem to patch in this Python"


BREAKS = [break_settings, break_scope, break_layer, break_package, break_syntax, break_a_patch]


@pytest.mark.promise
@pytest.mark.parametrize("break_it", BREAKS)
def test_enforce_fails_closed(python: str, own_overlay: Path, shim_env: dict[str, str], break_it) -> None:
    reason = break_it(own_overlay, shim_env)
    done = run(python, "print('the program ran')", shim_env)
    assert (done.returncode, done.stdout) == (78, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("tmp_redirect: can't start, the process ends with status 78: ")
    assert reason in done.stderr


@pytest.mark.parametrize("break_it", BREAKS)
def test_warn_is_loud_and_goes_on(python: str, own_overlay: Path, shim_env: dict[str, str], break_it) -> None:
    reason = break_it(own_overlay, shim_env)
    shim_env["TMP_REDIRECT"] = "warn"
    code = "import builtins, os, sys; assert type(builtins.open) is type(os.mkdir) is type(len); print('ran')"
    done = run(python, code, shim_env)
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert len(done.stderr.splitlines()) == 1
    assert "the process goes on WITHOUT it" in done.stderr
    assert reason in done.stderr


def test_a_mode_that_does_not_exist_ends_the_process(python: str, shim_env: dict[str, str]) -> None:
    done = run(python, "print('ran')", {**shim_env, "TMP_REDIRECT": "enforec"})
    assert (done.returncode, done.stdout) == (78, "")
    assert "TMP_REDIRECT='enforec' is not allowed: one of off, warn, enforce" in done.stderr


@pytest.mark.promise
def test_celery_without_wrapt_says_what_to_install(python: str, own_overlay: Path, shim_env: dict[str, str]) -> None:
    fake_celery(own_overlay)
    (own_overlay / "wrapt.py").write_text("raise ImportError\n", encoding="utf-8")
    done = run(python, "import celery.app.trace; print('ran')", shim_env)
    assert (done.returncode, done.stdout) == (78, "")
    assert "wrapt is needed where Celery runs: pip install 'wrapt>=1.16,<3'" in done.stderr


@pytest.mark.promise
@pytest.mark.parametrize("part", ["tempfile", "celery.app.trace"])
def test_a_part_that_fails_later_fails_closed_too(
    python: str, own_overlay: Path, shim_env: dict[str, str], part: str
) -> None:
    fake_celery(own_overlay)
    for module in ("redirect.py", "integrations/celery.py"):
        (own_overlay / PACKAGE / module).write_text("import no_such_module\n", encoding="utf-8")
    code = f"try: import {part}\nexcept ImportError: pass\nprint('the program ran')"
    done = run(python, code, shim_env)
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == (
        "tmp_redirect: can't start, the process ends with status 78: "
        "ModuleNotFoundError: No module named 'no_such_module'\n"
    )
    warned = run(python, code, {**shim_env, "TMP_REDIRECT": "warn"})
    assert (warned.returncode, warned.stdout) == (0, "the program ran\n")
    assert "goes on WITHOUT it" in warned.stderr
