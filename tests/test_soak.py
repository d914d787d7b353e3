"""The soak in small, and that its ledger notices what it is there to notice."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import PACKAGE, SYSTEM_TEMP, lay_over
from tests.soak import plan, soak

WRONG = ("misplaced", "lost", "leaked", "system temp")
Run = Callable[..., dict[str, str]]


def in_system_temp() -> set[Path]:
    return {path for directory in SYSTEM_TEMP for path in directory.iterdir()}


@pytest.fixture
def run(mode: str, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs a soak with the shim in a directory of its own, where a test may have changed it; its ledger."""
    before = in_system_temp()
    directory = Path(tempfile.mkdtemp(prefix="soak-", dir="/dev/shm"))
    (directory / "app").mkdir()
    lay_over(directory / "app")

    def books(
        workflows: int, *pools: str, change: tuple[str, str, str] | None = None, mode: str = mode
    ) -> dict[str, str]:
        if change is not None:
            path, old, new = change
            file = directory / "app" / PACKAGE / path
            source = file.read_text(encoding="utf-8")
            assert source.count(old) == 1
            file.write_text(source.replace(old, new), encoding="utf-8")
        status = soak.Soak(directory, workflows, "a seed", list(pools), mode).run(minutes=4)
        rows = [line.partition("  ") for line in capsys.readouterr().out.splitlines()]
        return {"status": str(status), **{what: value.strip() for what, _, value in rows if what}}

    yield books
    shutil.rmtree(directory)
    for path in in_system_temp() - before:  # without the shim
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture
def in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing goes wrong, and nobody waits long for what won't happen."""
    monkeypatch.setattr(plan, "FAULTS", {})
    monkeypatch.setattr(soak, "GRACE", 0.5)


@pytest.mark.promise
def test_the_books_balance(run: Run) -> None:
    ledger = run(12, "prefork")
    told = "\n".join(f"{what}: {value}" for what, value in ledger.items())
    assert {ledger[what] for what in ("status", "unaccounted for", *WRONG)} == {"0"}, told
    assert ledger["workflows"].startswith("12, ")
    assert int(ledger["files"].partition(";")[0]) > 100


def test_without_the_shim_all_is_misplaced(run: Run, in_haste: None) -> None:
    ledger = run(4, "threads", mode="off")
    assert ledger["status"] == "1"
    assert int(ledger["misplaced"]) == int(ledger["files"].partition(";")[0]) > 0
    assert int(ledger["system temp"]) > 0


ENDS = ("integrations/celery_ends.py", '    if settings.keep == "all":\n        return\n    failure')
REMOVE = "    import shutil\n    shutil.rmtree(settings.workspace_of(workflow), ignore_errors=True)\n    failure"
FORGET = "    return\n    failure"


@pytest.mark.parametrize(("what", "change"), [("lost", (*ENDS, REMOVE)), ("leaked", (*ENDS, FORGET))])
def test_a_shim_with_a_fault(run: Run, in_haste: None, what: str, change: tuple[str, str, str]) -> None:
    ledger = run(4, "threads", change=change, mode="enforce")
    assert ledger["status"] == "1"
    assert int(ledger[what]) > 0
