"""Stand-ins for the ten Dockerfiles that `Dockerfile.patch` is made for, and the patch applied to them.

A stand-in has the number of lines, the line ends, and the instructions that matter here on the lines of the real file,
and none of its text. A patch without context depends on nothing else: one line off, and a block lands inside a `RUN`.
The lines are those of the target's commit 49653d3.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from dockerfile_parse import DockerfileParser

PATCH = Path(__file__).resolve().parent.parent / "Dockerfile.patch"
GIT = ("git", "apply", "--unidiff-zero", str(PATCH))
GNU_PATCH = ("patch", "-p1", "-i", str(PATCH))


@dataclass(frozen=True)
class Interpreter:
    """What installs packages for a service, and what runs it."""

    pip: str
    python: str
    options: str = ""

    @property
    def install(self) -> str:
        return f'{self.pip} install --no-cache-dir {self.options}"wrapt>=1.16,<3"'

    @property
    def doctor(self) -> str:
        return f"TMP_REDIRECT=enforce {self.python} /app/services/common/tmp_redirect doctor --image"


SYSTEM = Interpreter("pip", "python")
DEBIAN = Interpreter("python3 -m pip", "python3", "--break-system-packages ")
VENV = Interpreter("/opt/venv/bin/python -m pip", "/opt/venv/bin/python")


@dataclass(frozen=True)
class Layout:
    """What is known of one Dockerfile: each step is `line INSTRUCTION` or `first-last INSTRUCTION`."""

    lines: int
    interpreter: Interpreter
    steps: tuple[str, ...]
    final_newline: bool = False


LAYOUTS = {
    "services/api_gateway/Dockerfile": Layout(
        27,
        SYSTEM,
        ("4 FROM base", "8 ENV PYTHONPATH /app", "11 WORKDIR /app", "16 RUN dependencies", "27 CMD start"),
    ),
    "services/workers/audio_separator_service/Dockerfile": Layout(
        105,
        VENV,
        (
            "7 FROM base AS builder",
            "16-26 RUN packages",
            "30 RUN venv",
            "35 WORKDIR /app",
            "39-40 RUN dependencies",
            "47 FROM base",
            "50-60 ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app",
            "64-69 RUN packages",
            "72-76 RUN user",
            "79 USER appuser",
            "82 WORKDIR /app",
            "86 COPY --from=builder --chown=appuser:appuser /opt/venv /opt/venv",
            "88-89 RUN links",
            "96-97 RUN directories",
            "100-101 HEALTHCHECK CMD check",
            "104 WORKDIR /app/service",
            "105 CMD start",
        ),
    ),
    "services/workers/faster_whisper_service/Dockerfile": Layout(
        87,
        VENV,
        (
            "7 FROM base AS builder",
            "15-22 RUN packages",
            "26 RUN venv",
            "31 WORKDIR /app",
            "35-36 RUN dependencies",
            "42 FROM base",
            "45-50 ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app",
            "54-56 RUN packages",
            "60-63 RUN user",
            "66 USER appuser",
            "69 WORKDIR /app",
            "73 COPY --from=builder --chown=appuser:appuser /opt/venv /opt/venv",
            "75-76 RUN links",
            "84 WORKDIR /app/service",
            "87 CMD start",
        ),
    ),
    "services/workers/ffmpeg_service/Dockerfile": Layout(
        42,
        DEBIAN,
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
        SYSTEM,
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
        VENV,
        (
            "12 FROM base AS builder",
            "30-33 RUN repository",
            "35-52 RUN packages",
            "55 RUN installer",
            "58 RUN extension",
            "64-66 RUN venv",
            "74 WORKDIR /app",
            "79 RUN sources",
            "88 WORKDIR /app/sources",
            "90-92 RUN requirements",
            "99-103 RUN worker",
            "114 WORKDIR /app/sources",
            "116-117 RUN dependencies",
            "127 FROM base",
            "132-147 ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app:/app/sources",
            "153-156 RUN repository",
            "158-163 RUN packages",
            "168-172 RUN user",
            "177 COPY --from=builder --chown=appuser:appuser /opt/venv /opt/venv",
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
        SYSTEM,
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
        VENV,
        (
            "7 FROM base AS builder",
            "16-25 RUN packages",
            "28 WORKDIR /app",
            "38-43 RUN venv && dependencies",
            "49 FROM base",
            "56 ENV PATH=/opt/venv/bin:$PATH",
            "58 ENV PYTHONPATH=/app",
            "62-66 RUN packages",
            "70-73 RUN user",
            "76 USER appuser",
            "79 WORKDIR /app",
            "83 COPY --from=builder --chown=appuser:appuser /opt/venv /opt/venv",
            "86-87 RUN links",
            "93 WORKDIR /app/service",
            "97 CMD start",
        ),
    ),
    "services/workers/pyannote_audio_service/Dockerfile": Layout(
        35,
        VENV,
        (
            "2 FROM base",
            "10-16 RUN packages",
            "19 RUN venv",
            "20 ENV PATH=/opt/venv/bin:$PATH",
            "24-25 RUN dependencies",
            "28 WORKDIR /app/service",
            "35 CMD start",
        ),
        final_newline=True,
    ),
    "services/workers/wservice/Dockerfile": Layout(
        26,
        SYSTEM,
        ("4 FROM base", "11 WORKDIR /app", "16-17 RUN dependencies", "26 CMD start"),
        final_newline=True,
    ),
}


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


def patched_tree(top: Path, command: Sequence[str] = GIT) -> Path:
    """The tree of stand-ins, made in the directory `top`, after the patch; skips where the program is missing."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"the program {command[0]!r} is not installed")
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
