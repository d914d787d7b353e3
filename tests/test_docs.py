"""The documents name tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
DOCUMENTS = sorted((TESTS.parent / "docs").glob("*.md"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_tests_that_are_named_exist(document: Path) -> None:
    file = ""
    for name, test in re.findall(r"`(test_\w+\.py)?(?:::(test_\w+))?`", document.read_text(encoding="utf-8")):
        file = name or file
        if file:
            source = (TESTS / file).read_text(encoding="utf-8")
            assert not test or f"def {test}(" in source, f"{file}::{test}"


def test_each_row_of_the_table_of_propagation_names_a_test() -> None:
    text = (TESTS.parent / "docs" / "propagation.md").read_text(encoding="utf-8")
    rows = [line for line in text.partition("## What can't be carried")[0].splitlines() if line.startswith("| ")]
    assert len(rows) > 40
    for row in rows:
        assert "`test_" in row.split("|")[3] or row.startswith("| construct"), row
