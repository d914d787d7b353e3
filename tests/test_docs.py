"""The documents are true: what they name exists, what they show runs, and their tables are those of the code."""

from __future__ import annotations

import re
import shlex
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.results import Results
from services.common.tmp_redirect import cli
from services.common.tmp_redirect.settings import VARIABLES, Settings

TESTS = Path(__file__).parent
REPOSITORY = TESTS.parent
READMES = sorted(REPOSITORY.glob("README*.md"))
DOCUMENTS = sorted((REPOSITORY / "docs").glob("*.md"))

every_document = pytest.mark.parametrize("document", [*READMES, *DOCUMENTS], ids=lambda path: path.name)


def blocks(document: Path, *languages: str) -> Iterator[str]:
    """The fenced blocks of a document that are in one of the languages; those in lists are indented."""
    text = document.read_text(encoding="utf-8")
    for language, block in re.findall(r"^ *```(\w*)\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE):
        if language in languages:
            yield textwrap.dedent(block)


def commands(document: Path) -> Iterator[list[str]]:
    """What a console block tells to type, without prompt and comment."""
    for block in blocks(document, "console"):
        for line in block.splitlines():
            if line.startswith("$ "):
                yield shlex.split(line[2:], comments=True)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_tests_that_are_named_exist(document: Path) -> None:
    file = ""
    for name, test in re.findall(r"`(test_\w+\.py)?(?:::(test_\w+))?`", document.read_text(encoding="utf-8")):
        file = name or file
        if file:
            source = (TESTS / file).read_text(encoding="utf-8")
            assert not test or f"def {test}(" in source, f"{file}::{test}"


def test_each_row_of_the_table_of_propagation_names_a_test() -> None:
    text = (REPOSITORY / "docs" / "propagation.md").read_text(encoding="utf-8")
    rows = [line for line in text.partition("## What can't be carried")[0].splitlines() if line.startswith("| ")]
    assert len(rows) > 40
    for row in rows:
        assert "`test_" in row.split("|")[3] or row.startswith("| construct"), row


def test_the_page_of_benchmarks_has_the_figures_of_its_file() -> None:
    results = Results.from_json(report.JSON.read_text(encoding="utf-8"))
    template = report.TEMPLATE.read_text(encoding="utf-8")
    assert report.PAGE.read_text(encoding="utf-8") == report.page(template, results)


@every_document
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if path.startswith(("http:", "https:")):
            continue
        file = document if not path else (document.parent / path)
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


def anchors(document: Path) -> set[str]:
    """The headings of a document as links name them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_document
def test_variables_that_are_named_exist(document: Path) -> None:
    named = re.findall(r"\bTMP_REDIRECT(?:_[A-Z]+)*\b", document.read_text(encoding="utf-8"))
    assert set(named) <= set(VARIABLES)


@every_document
def test_commands_that_are_shown_exist(document: Path) -> None:
    for command in commands(document):
        program, *arguments = command
        if program == "tmp-redirect":
            cli.parser(arguments[:1]).parse_args(arguments)
        elif program == "make":
            targets = re.findall(r"^(\w[\w-]*):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
            assert set(arguments) <= set(targets)


@every_document
def test_values_that_are_shown_are_allowed(document: Path) -> None:
    """In YAML, in Dockerfiles and for shells; an `off` without quotes is no word in YAML."""
    shown = "\n".join(blocks(document, "yaml", "dockerfile", "sh"))
    pairs = re.findall(r"\b(TMP_REDIRECT\w*)(?:: |=|, value: )([\w/.:-]+)", shown)
    assert len(pairs) == len(re.findall(r"\bTMP_REDIRECT\w*(?=:|=|, value)", shown))
    for name, value in pairs:
        Settings({name: value})
    assert "TMP_REDIRECT: off" not in shown


def test_the_table_of_settings_is_that_of_the_code() -> None:
    text = (REPOSITORY / "docs" / "settings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(TMP_REDIRECT\w*)` \|(.*?)\|", text, re.MULTILINE)
    assert [name for name, _ in rows] == list(VARIABLES)
    default = Settings({})
    for name, shown in rows:
        value = shown.replace("` `", "").strip(" `")
        if value != "host name":
            attribute = name.removeprefix("TMP_REDIRECT_").lower() if name != "TMP_REDIRECT" else "mode"
            assert getattr(Settings({name: value}), attribute) == getattr(default, attribute), name


@pytest.mark.parametrize("document", READMES, ids=lambda path: path.name)
def test_the_python_example_runs(document: Path, python: str, shim_env: dict[str, str], root: Path) -> None:
    (example,) = blocks(document, "python")
    done = subprocess.run(
        [python, "-W", "error", "-c", example], env=shim_env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
