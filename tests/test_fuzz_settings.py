"""Whatever a variable holds: it is what the settings say, or one line that names the variable and what is allowed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.common.tmp_redirect.errors import SettingsError
from services.common.tmp_redirect.setting_values import duration
from services.common.tmp_redirect.settings import SYSTEM_TEMP, VARIABLES, Settings, is_below, is_system_temp
from services.common.tmp_redirect.workflow_id import check
from tests.fuzzing import SOAK, TRICKY, TRICKY_TEXT, fuzz

WORDS = ["off", "warn", "enforce", "calls", "audit", "kernel", "service", "raise", "all", "failed", "none", "header"]
WORDS += ["root_id", "args.", "kwargs.", "args.0", "kwargs.context", ".", ",", ":", "/", "..", "/tmp", "/var/tmp/x"]
NUMBERS = ["0", "7", "700", "0o700", "2770", "177777", "+", "-", "1_0", "e3", "٣", "７", " ", "s", "h", "d", "K", "T"]  # noqa: RUF001
NUMBERS += ["9" * 20, "0" * 30, "9" * 5000]
VALUES = TRICKY_TEXT | st.lists(st.sampled_from(WORDS + NUMBERS), max_size=5).map("".join)


def is_normal(path: str) -> bool:
    return path.startswith("/") and path == "/" + os.path.normpath(path).lstrip("/") and "\0" not in path


def is_fine(settings: Settings) -> bool:
    """Whether each attribute is what the rest of the shim takes for granted."""
    sources = all(
        source[0] in ("args", "kwargs", "header", "root_id") and all(source) for source in settings.workflow_from
    )
    return (
        settings.mode in ("off", "warn", "enforce")
        and is_normal(settings.root) and settings.root not in (*SYSTEM_TEMP, "/")
        and set(settings.guard) <= {"calls", "audit", "kernel"} and bool(settings.guard)
        and all(is_normal(path) and is_system_temp(path) and path not in SYSTEM_TEMP for path in settings.allow)
        and check(settings.service) == settings.service
        and settings.outside in ("service", "raise")
        and sources
        and settings.keep in ("all", "failed", "none")
        and type(settings.ttl) is int and 0 <= settings.ttl <= 36500 * 86400
        and settings.dir_mode & 0o700 == 0o700 and settings.dir_mode <= 0o7777
        and type(settings.min_free) is int and settings.min_free >= 0
        and is_normal(settings.socket_dir) and not any(is_below(settings.socket_dir, temp) for temp in SYSTEM_TEMP)
        and len(os.fsencode(settings.socket_dir)) <= 72
        and (settings.scope is None or check(settings.scope) == settings.scope)
    )  # fmt: skip


@pytest.mark.parametrize("variable", VARIABLES)
@given(value=VALUES)
@example(value="9" * 5000)
@fuzz(60)
def test_a_value_is_fine_or_one_line(variable: str, value: str) -> None:
    try:
        settings = Settings({variable: value})
    except SettingsError as error:
        assert str(error) == f"{variable}={value!r} is not allowed: {error.allowed}"
        assert str(error).isprintable() and 5 < len(error.allowed) < 600
        assert "Exceeds the limit" not in str(error), "that is Python's reason"
    else:
        assert is_fine(settings), vars(settings)
        assert not value or variable != "TMP_REDIRECT_MIN_FREE" or settings.min_free or not value.strip("0KMGTkmgt")


@given(st.text("0123456789", min_size=1, max_size=40), st.sampled_from(["", "s", "m", "h", "d"]))
@fuzz()
def test_numbers_are_exact_however_they_are_written(digits: str, unit: str) -> None:
    seconds = int(digits) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[unit]
    assert Settings({"TMP_REDIRECT_MIN_FREE": "0" * 30 + digits[:15]}).min_free == int(digits[:15])
    try:
        assert duration("0" * 30 + digits + unit) == seconds
    except ValueError:
        assert seconds > 36500 * 86400


@pytest.mark.promise
def test_a_fresh_interpreter_starts_or_says_one_line(shim_env: dict[str, str], tmp_path: Path) -> None:
    """All tricky values, each in one of the variables."""
    values = [value for value in (*TRICKY, *WORDS, *NUMBERS) if value and "\0" not in value and "\ud800" not in value]
    refused = 0
    for number, value in enumerate(values[:: 1 if SOAK else 2]):
        variable = VARIABLES[number % len(VARIABLES)]
        if variable == "TMP_REDIRECT":
            continue  # the mode says how errors end
        env = {**shim_env, variable: value}
        done = subprocess.run([sys.executable, "-c", ""], env=env, capture_output=True, check=False, cwd=tmp_path)
        try:
            Settings(env)
        except SettingsError as error:
            refused += 1
            assert done.returncode == 78, (variable, value, done)
            assert done.stdout == b"" and str(error) in done.stderr.decode()
            assert done.stderr.count(b"\n") == 1 and done.stderr.decode().strip().isprintable()
        else:
            assert (done.returncode, done.stdout, done.stderr) == (0, b"", b""), (variable, value)
    assert 10 < refused < len(values)
