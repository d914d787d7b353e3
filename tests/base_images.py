"""What stands in for the base images: the interpreter that runs the tests, at another place, and the host's programs.

The interpreter is a copy of the executable with links to its standard library, so that it has a prefix and a
site-packages of its own, which pip may write. The service's dependencies are links to those of the test environment;
the package index is a directory with the wheel of the installed `wrapt`; and what the stand-ins call `user` or `venv`
are a few commands.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import sys
import zipfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

APPUSER = 1001
PREFIX = "/opt/python"
PYTHON = f"{PREFIX}/bin/python3"
PATH = f"{PREFIX}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEPENDENCIES = ("celery[redis]", "pip")
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
DEVICES = ("null", "zero", "random", "urandom")
ELSEWHERE = ("site-packages", "dist-packages", "EXTERNALLY-MANAGED", "__pycache__")  # not of the standard library

# The steps of stand-ins that do something; programs, as a step is a RUN.
STEPS = {
    "user": f"""
        echo appuser:x:{APPUSER}:{APPUSER}::/home/appuser:/bin/sh >> /etc/passwd
        mkdir -p /app /home/appuser
        chown -R {APPUSER}:{APPUSER} /app /home/appuser""",
    "owner": f"chown -R {APPUSER}:{APPUSER} /app",
    "venv": f"{PYTHON} -m venv --without-pip /opt/venv",
    "links": f"ln -sf {PYTHON} /opt/venv/bin/python",
    "dependencies": f"""
        python={PYTHON}
        if [ -e /opt/venv ]; then python=/opt/venv/bin/python; fi
        site=$($python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
        mkdir -p $site
        cp -P /dependencies/* $site
        cd $(dirname $python)
        for program in pip celery; do
            printf '#!%s\\nimport runpy\\nrunpy.run_module("%s", run_name="__main__")\\n' $python $program > $program
            chmod 755 $program
        done""",
}
OTHER_STEPS = ("packages", "directories", "repository", "installer", "extension", "sources", "requirements", "worker")


class Materials:
    """What base images are made of, in `directory`; skips the test if the test environment lacks any of it."""

    def __init__(self, directory: Path) -> None:
        self.wheels = directory / "wheels"
        self.wheels.mkdir()
        _pack(_installed("wrapt"), self.wheels)
        self.dependencies = directory / "dependencies"
        self.dependencies.mkdir()
        entries = _entries_of(DEPENDENCIES)
        for entry in entries:
            (self.dependencies / entry.name).symlink_to(entry)
        self.binds = {f"/dev/{device}": f"/dev/{device}" for device in DEVICES}
        self.links: dict[str, Path] = {}
        for entry in Path("/").iterdir():
            if entry.name not in ("bin", "lib", "lib32", "lib64", "libx32", "sbin", "usr"):
                continue
            if entry.is_symlink():
                self.links[entry.name] = entry.readlink()
            else:
                self.binds[str(entry)] = str(entry)
        self.binds |= {str(self.wheels): "/wheels", str(self.dependencies): "/dependencies"}
        # Where the links lead to.
        for place in {Path(sys.base_prefix), *(entry.parent for entry in entries)}:
            self.binds[str(place)] = str(place)

    def lay_out(self, root: Path, *, externally_managed: bool) -> None:
        """Make `root` the file system of a base image, except what is bound there."""
        for directory in ("app", "dev/shm", "etc", "proc", "root", "share", "tmp", "var/tmp"):
            (root / directory).mkdir(parents=True)
        for directory in ("dev/shm", "tmp", "var/tmp"):
            (root / directory).chmod(0o1777)
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
        for name, target in self.links.items():
            (root / name).symlink_to(target)
        for source, target in self.binds.items():
            place = root / target.lstrip("/")
            if Path(source).is_dir():
                place.mkdir(parents=True, exist_ok=True)
            else:
                place.touch()
        _lay_out_interpreter(root / PREFIX.lstrip("/"), externally_managed=externally_managed)
        for name, script in {**dict.fromkeys(OTHER_STEPS, "true"), **STEPS}.items():
            program = root / PREFIX.lstrip("/") / "bin" / name
            program.write_text(f"#!/bin/sh -e\n{script}\n")
            program.chmod(0o755)


def _lay_out_interpreter(prefix: Path, *, externally_managed: bool) -> None:
    (prefix / "bin").mkdir(parents=True)
    shutil.copy(os.path.realpath(getattr(sys, "_base_executable", sys.executable)), prefix / "bin/python3")
    (prefix / "bin/python").symlink_to("python3")
    original = Path(os.__file__).parent
    library = prefix / original.relative_to(sys.base_prefix)
    library.mkdir(parents=True)
    for entry in original.iterdir():
        if entry.name not in ELSEWHERE:
            (library / entry.name).symlink_to(entry)
    if externally_managed:
        (library / "EXTERNALLY-MANAGED").write_text("[externally-managed]\nError=Its packages are Debian's.\n")


def _entries_of(requirements: Iterable[str]) -> set[Path]:
    """What these distributions, and those that they require, have in their site-packages."""
    entries: set[Path] = set()
    seen: set[str] = set()
    todo = list(requirements)
    while todo:
        text = todo.pop()
        if text in seen:
            continue
        seen.add(text)
        requirement = Requirement(text)
        distribution = _installed(requirement.name)
        tops = {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}
        entries |= {Path(str(distribution.locate_file(top))).resolve() for top in tops}
        extras = [{"extra": extra} for extra in ("", *requirement.extras)]
        for other in distribution.requires or ():
            marker = Requirement(other).marker
            if marker is None or any(map(marker.evaluate, extras)):
                todo.append(other)
    return entries


def _pack(distribution: metadata.Distribution, directory: Path) -> None:
    """Make the wheel again that a distribution was installed from."""
    name, version = distribution.metadata["Name"], distribution.version
    lines = (distribution.read_text("WHEEL") or "").splitlines()
    tag = next(line.removeprefix("Tag: ") for line in lines if line.startswith("Tag: "))
    record = []
    with zipfile.ZipFile(directory / f"{name}-{version}-{tag}.whl", "w") as wheel:
        for file in distribution.files or ():
            if file.parts[0] == ".." or file.suffix == ".pyc" or file.name in ("RECORD", "INSTALLER", "REQUESTED"):
                continue
            content = Path(str(distribution.locate_file(file))).read_bytes()
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            wheel.writestr(str(file), content)
            record.append(f"{file},sha256={digest},{len(content)}\n")
        listing = f"{name}-{version}.dist-info/RECORD"
        wheel.writestr(listing, "".join([*record, f"{listing},,\n"]))


def _installed(name: str) -> metadata.Distribution:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        pytest.skip(f"an image takes the package {name}, which is not in the test environment")
