"""`Dockerfile.patch`, applied to stand-ins for the ten Dockerfiles it is made for.

A stand-in has the number of lines, the line ends, and the instructions that matter here on the lines of the real file,
and none of its text. A patch without context depends on nothing else: one line off, and a block lands inside a `RUN`.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from dockerfile_parse import DockerfileParser

PATCH = Path(__file__).resolve().parent.parent / "Dockerfile.patch"
CONSTRAINT = '"wrapt>=1.16,<3"'
SYSTEM_PIP = f"pip install --no-cache-dir {CONSTRAINT}"
DEBIAN_PIP = f"python3 -m pip install --no-cache-dir --break-system-packages {CONSTRAINT}"
VENV_PIP = f"/opt/venv/bin/python -m pip install --no-cache-dir {CONSTRAINT}"


@dataclass(frozen=True)
class Layout:
    """What is known of one Dockerfile: each step is `line INSTRUCTION` or `first-last INSTRUCTION`."""

    lines: int
    install: str
    steps: tuple[str, ...]
    final_newline: bool = False


LAYOUTS = {
    "services/api_gateway/Dockerfile": Layout(
        27,
        SYSTEM_PIP,
        ("4 FROM base", "8 ENV PYTHONPATH /app", "11 WORKDIR /app", "16 RUN dependencies", "27 CMD start"),
    ),
    "services/workers/audio_separator_service/Dockerfile": Layout(
        105,
        VENV_PIP,
        (
            "7 FROM base AS builder",
            "16-26 RUN packages",
            "30 RUN venv",
            "35 WORKDIR /app",
            "39-40 RUN dependencies",
            "47 FROM base",
            "50-60 ENV PYTHONPATH=/app",
            "64-69 RUN packages",
            "72-76 RUN user",
            "79 USER appuser",
            "82 WORKDIR /app",
            "86 COPY --from=builder /opt/venv /opt/venv",
            "88-89 RUN links",
            "96-97 RUN directories",
            "100-101 HEALTHCHECK CMD check",
            "104 WORKDIR /app/service",
            "105 CMD start",
        ),
    ),
    "services/workers/faster_whisper_service/Dockerfile": Layout(
        87,
        VENV_PIP,
        (
            "7 FROM base AS builder",
            "15-22 RUN packages",
            "26 RUN venv",
            "31 WORKDIR /app",
            "35-36 RUN dependencies",
            "42 FROM base",
            "45-50 ENV PYTHONPATH=/app",
            "54-56 RUN packages",
            "60-63 RUN user",
            "66 USER appuser",
            "69 WORKDIR /app",
            "73 COPY --from=builder /opt/venv /opt/venv",
            "75-76 RUN links",
            "84 WORKDIR /app/service",
            "87 CMD start",
        ),
    ),
    "services/workers/ffmpeg_service/Dockerfile": Layout(
        42,
        DEBIAN_PIP,
        (
            "2 FROM base",
            "9-15 RUN packages",
            "18 WORKDIR /app",
            "22 RUN dependencies",
            "26 RUN user",
            "30 RUN owner",
            "33 RUN directories",
            "36 USER appuser",
            "39 WORKDIR /app/service",
        ),
        final_newline=True,
    ),
    "services/workers/gptsovits_service/Dockerfile": Layout(
        26,
        SYSTEM_PIP,
        (
            "4 FROM base",
            "7 WORKDIR /app",
            "14 RUN dependencies",
            '20 ENV PYTHONPATH "${PYTHONPATH}:/app"',
            "23 WORKDIR /app/service",
            "26 CMD start",
        ),
    ),
    "services/workers/indextts_service/Dockerfile": Layout(
        252,
        VENV_PIP,
        (
            "12 FROM base AS builder",
            "30-33 RUN repository",
            "35-52 RUN packages",
            "55 RUN pip",
            "58 RUN git",
            "64-66 RUN venv",
            "74 WORKDIR /app",
            "79 RUN sources",
            "88 WORKDIR /app/sources",
            "90-92 RUN requirements",
            "99-103 RUN worker",
            "114 WORKDIR /app/sources",
            "116-117 RUN dependencies",
            "127 FROM base",
            "132-147 ENV PYTHONPATH=/app:/app/sources",
            "153-156 RUN repository",
            "158-163 RUN packages",
            "168-172 RUN user",
            "177 COPY --from=builder /opt/venv /opt/venv",
            "180-181 RUN links",
            "191 USER appuser",
            "192 WORKDIR /app",
            "210-216 RUN directories",
            "221-233 HEALTHCHECK CMD check",
            "238 WORKDIR /app",
            "241-244 CMD start",
        ),
    ),
    "services/workers/inpainting_service/Dockerfile": Layout(
        27,
        SYSTEM_PIP,
        (
            "4 FROM base",
            "7 WORKDIR /app",
            "15 RUN dependencies",
            '21 ENV PYTHONPATH "${PYTHONPATH}:/app"',
            "24 WORKDIR /app/service",
            "27 CMD start",
        ),
    ),
    "services/workers/paddleocr_service/Dockerfile": Layout(
        97,
        VENV_PIP,
        (
            "7 FROM base AS builder",
            "16-25 RUN packages",
            "28 WORKDIR /app",
            "38-43 RUN dependencies",
            "49 FROM base",
            "58 ENV PYTHONPATH=/app",
            "62-66 RUN packages",
            "70-73 RUN user",
            "76 USER appuser",
            "79 WORKDIR /app",
            "83 COPY --from=builder /opt/venv /opt/venv",
            "86-87 RUN links",
            "93 WORKDIR /app/service",
            "97 CMD start",
        ),
    ),
    "services/workers/pyannote_audio_service/Dockerfile": Layout(
        35,
        VENV_PIP,
        (
            "2 FROM base",
            "10-16 RUN packages",
            "19 RUN venv",
            "24-25 RUN dependencies",
            "28 WORKDIR /app/service",
            "35 CMD start",
        ),
        final_newline=True,
    ),
    "services/workers/wservice/Dockerfile": Layout(
        26,
        SYSTEM_PIP,
        ("4 FROM base", "11 WORKDIR /app", "16-17 RUN dependencies", "26 CMD start"),
        final_newline=True,
    ),
}

TOOLS = {
    "git": ("git", "apply", "--unidiff-zero", str(PATCH)),
    "patch": ("patch", "-p1", "-i", str(PATCH)),
}

every_image = pytest.mark.parametrize("image", LAYOUTS)


def stand_in(layout: Layout) -> bytes:
    lines = [f"# line {number}" for number in range(1, layout.lines + 1)]
    for step in layout.steps:
        span, _, instruction = step.partition(" ")
        first, _, last = span.partition("-")
        start, end = int(first), int(last or first)
        for number in range(start, end + 1):
            filler = f"LINE_{number}=x" if instruction.startswith("ENV") else "&& true"
            text = instruction if number == start else f"    {filler}"
            lines[number - 1] = text if number == end else f"{text} \\"
    # The real files have Windows line ends; the lines that the patch adds have not, which both tools must bear.
    return ("\r\n".join(lines) + ("\r\n" if layout.final_newline else "")).encode()


@dataclass(frozen=True)
class Instruction:
    name: str
    value: str
    stage: int
    user: str | None
    """Who it runs as; None is whoever the base image says."""
    workdir: str | None


def parser(dockerfile: bytes) -> DockerfileParser:
    return DockerfileParser(fileobj=io.StringIO(dockerfile.decode(), newline=""))


def parse(dockerfile: bytes) -> list[Instruction]:
    found: list[Instruction] = []
    stage, user, workdir = -1, None, None
    for entry in parser(dockerfile).structure:
        name, value = entry["instruction"], entry["value"].strip()
        if name == "COMMENT":
            continue
        if name == "FROM":
            stage, user, workdir = stage + 1, None, None
        elif name == "USER":
            user = value
        elif name == "WORKDIR":
            workdir = value
        found.append(Instruction(name, value, stage, user, workdir))
    return found


def last_stage(instructions: list[Instruction]) -> list[Instruction]:
    return [each for each in instructions if each.stage == instructions[-1].stage]


def only(instructions: list[Instruction], name: str, part: str) -> Instruction:
    (found,) = [each for each in instructions if each.name == name and part in each.value]
    return found


@pytest.fixture(scope="module", params=TOOLS)
def patched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of stand-ins after the patch."""
    command = TOOLS[request.param]
    if shutil.which(command[0]) is None:
        pytest.skip(f"the program {command[0]!r} is not installed")
    top = tmp_path_factory.mktemp(request.param)
    tree = top / "tree"
    for image, layout in LAYOUTS.items():
        (tree / image).parent.mkdir(parents=True)
        (tree / image).write_bytes(stand_in(layout))
    # Below some other work tree `git apply` would silently skip every file, and succeed.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    env["GIT_CEILING_DIRECTORIES"] = str(top)
    done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return tree


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
    assert added == ["RUN", "COPY", "COPY", "ENV"]


@every_image
def test_the_user_and_the_directory_at_the_end_stay(image: str, patched: Path) -> None:
    before, after = parse(stand_in(LAYOUTS[image]))[-1], parse((patched / image).read_bytes())[-1]
    assert (after.user, after.workdir) == (before.user, before.workdir)


@every_image
def test_wrapt_goes_to_the_interpreter_of_the_service(image: str, patched: Path) -> None:
    instructions = parse((patched / image).read_bytes())
    install = only(instructions, "RUN", "wrapt")
    assert install.value == LAYOUTS[image].install
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
