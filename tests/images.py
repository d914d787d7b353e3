"""Build Dockerfiles without Docker, as directories, and run what is in them: chroot, mount and PID namespaces.

What is real: each instruction is carried out in order, as the user, with the environment and in the directory that it
has there; what RUN says is run by a shell with the directory as root file system. What isn't is in base_images.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from dockerfile_parse.util import get_key_val_dictionary

from tests.base_images import APPUSER, OFFLINE, PATH, Materials
from tests.dockerfiles import Instruction

NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
# Arguments: the root, `ro` or `rw` with a source and a target below the root for each mount, `--`, what chroot gets.
MOUNT_AND_ENTER = """
root=$1; shift
while [ "$1" != -- ]; do
    mount --bind "$2" "$root$3"
    [ "$1" = rw ] || mount -o remount,bind,ro "$root$3"
    shift 3
done
shift
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/dev/shm"
exec chroot "$@"
"""


class BuildError(Exception):
    """An instruction failed; the message is what it wrote."""


def needs_namespaces() -> None:
    """Skip the test where nothing can be run in an image, and say what is missing."""
    if os.geteuid() != 0:
        pytest.skip("to run in an image takes root")
    for program in ("unshare", "chroot", "mount"):
        if shutil.which(program) is None:
            pytest.skip(f"to run in an image takes the program {program}")
    done = subprocess.run([*NAMESPACES, "--mount-proc", "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mount and PID namespaces are not allowed here: {done.stderr.strip()}")


@dataclass
class Image:
    """A root file system, what is bound there, and how to run in it."""

    root: Path
    binds: Mapping[str, str]
    env: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    user: str | None = None
    workdir: str = "/"

    def path(self, inside: str) -> Path:
        return self.root / inside.lstrip("/")

    @property
    def uid(self) -> int:
        """The number of the image's user; root's if it names none."""
        return {None: 0, "root": 0, "appuser": APPUSER}[self.user]

    def command(
        self,
        *command: str,
        user: int | None = None,
        workdir: str | None = None,
        volumes: Mapping[Path, str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> list[str]:
        """What runs `command` in the image, as its user or another, in its directory or another.

        The process has the number 1 there, as in a container, and all that it starts ends when it does.
        """
        uid = self.uid if user is None else user
        mounts = [("ro", source, target) for source, target in self.binds.items()]
        for source, target in (volumes or {}).items():
            self.path(target).mkdir(parents=True, exist_ok=True)
            mounts.append(("rw", str(source), target))
        variables = {"HOME": "/home/appuser" if uid else "/root", **self.env, **(env or {})}
        return [
            *(*NAMESPACES, "sh", "-ec", MOUNT_AND_ENTER, "sh", str(self.root)),
            *(word for mount in mounts for word in mount),
            *("--", "--groups=", f"--userspec={uid}:{uid}", str(self.root)),
            *("env", "-i", *(f"{name}={value}" for name, value in variables.items())),
            *("sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", workdir or self.workdir, *command),
        ]

    def run(self, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, whatever its status; the options are those of `command`."""
        command_line = self.command(*command, **options)
        return subprocess.run(command_line, capture_output=True, text=True, timeout=120, check=False)

    def build_step(self, script: str) -> None:
        """Do what RUN does; raises `BuildError` if the script fails."""
        done = self.run("sh", "-c", script, env=OFFLINE)
        if done.returncode:
            raise BuildError(f"RUN {script}: status {done.returncode}\n{done.stdout}{done.stderr}")


class Builder:
    """Builds images in `directory`; `context` is what they copy from."""

    def __init__(self, directory: Path, context: Path) -> None:
        self.directory = directory
        self.context = context
        self.materials = Materials(directory)

    def build(self, name: str, instructions: Iterable[Instruction], *, externally_managed: bool) -> Image:
        """The image of the last stage; raises `BuildError` if an instruction fails.

        `externally_managed` says whether the base image's interpreter is marked as Debian's is.
        """
        stages: list[Image] = []
        for each in instructions:
            if each.name == "FROM":
                stages.append(Image(self.directory / f"{name}-{each.stage}", self.materials.binds))
                self.materials.lay_out(stages[-1].root, externally_managed=externally_managed)
                continue
            image = stages[-1]
            if each.name == "ENV":
                image.env.update(get_key_val_dictionary(each.value, env_replace=True, envs=image.env))
            elif each.name == "USER":
                image.user = each.value
            elif each.name == "WORKDIR":
                image.workdir = each.value
                image.path(each.value).mkdir(parents=True, exist_ok=True)
            elif each.name == "COPY":
                # The stand-ins have one other stage to copy from.
                self._copy(each.value.split(), stages[0].root, image)
            elif each.name == "RUN":
                image.build_step(each.value)
        return stages[-1]

    def _copy(self, words: list[str], builder: Path, image: Image) -> None:
        options = dict(word.removeprefix("--").split("=") for word in words if word.startswith("--"))
        source, target = (word for word in words if not word.startswith("--"))
        origin = builder / source.lstrip("/") if "from" in options else self.context / source
        made = image.path(target)
        made.parent.mkdir(parents=True, exist_ok=True)
        if origin.is_dir():
            shutil.copytree(origin, made, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy(origin, made)
        owner = APPUSER if options.get("chown") == "appuser:appuser" else 0
        for path in (made, *made.rglob("*")):
            os.chown(path, owner, owner, follow_symlinks=False)
