"""Have the programs of Debian packages without installing them: no root, no service, nothing outside one directory.

apt finds, verifies and downloads the packages with lists of its own below that directory, so that neither the
system's package lists nor its packages change, and dpkg unpacks them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

# `make clean` removes what is unpacked there, as it does with all else that is downloaded for the tests.
DIRECTORY = Path(__file__).resolve().parents[1] / ".venv" / "debian"
DOWNLOAD_SECONDS = 240

# Not found through apt: it would leave out what this system has installed.
RABBITMQ = (
    "rabbitmq-server",
    "erlang-asn1",
    "erlang-base",
    "erlang-crypto",
    "erlang-eldap",
    "erlang-inets",
    "erlang-mnesia",
    "erlang-os-mon",
    "erlang-parsetools",
    "erlang-public-key",
    "erlang-runtime-tools",
    "erlang-ssl",
    "erlang-syntax-tools",
    "erlang-tools",
    "erlang-xmerl",
)


class MissingPackageError(RuntimeError):
    """A Debian package is needed and can't be had."""

    def __init__(self, package: str, problem: str) -> None:
        super().__init__(f"Debian's {package} can't be installed here: {problem}")


def unpacked(packages: Sequence[str], directory: Path = DIRECTORY) -> Path:
    """Download packages if needed and return the directory where they are unpacked; the first one names it."""
    target = directory / packages[0]
    if target.is_dir():
        return target
    missing = [program for program in ("apt-get", "dpkg") if shutil.which(program) is None]
    if missing:
        raise MissingPackageError(packages[0], f"there is no {' and no '.join(missing)}")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory, prefix=".unfinished-") as name:
            _download_and_unpack(packages, Path(name))
            _move(Path(name) / "tree", target)
    except OSError as error:
        raise MissingPackageError(packages[0], str(error)) from error
    return target


def _download_and_unpack(packages: Sequence[str], work: Path) -> None:
    for path in ("state/lists/partial", "cache/archives/partial", "packages", "tree"):
        (work / path).mkdir(parents=True)
    options = {
        "Dir::State": work / "state",
        "Dir::State::status": os.devnull,
        "Dir::Cache": work / "cache",
        "APT::Sandbox::User": "root",  # apt's own user may not be allowed into this directory
        "Acquire::Retries": 1,
        "Acquire::http::Timeout": 20,
        "Acquire::https::Timeout": 20,
    }
    apt = ["apt-get", *(f"-o{name}={value}" for name, value in options.items())]
    env = {**os.environ, "LC_ALL": "C", "TMPDIR": str(work)}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                command,
                env=env,
                cwd=work / "packages",
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=DOWNLOAD_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise MissingPackageError(packages[0], f"{command[0]} took longer than {error.timeout:.0f} s") from error

    # A list that can't be fetched, or a source that is out of order, matters only if it has what is needed.
    updated = run(*apt, "update")
    downloaded = run(*apt, "download", *packages)
    if downloaded.returncode != 0:
        raise MissingPackageError(packages[0], _complaint(updated.stderr + downloaded.stderr))
    for package in sorted((work / "packages").glob("*.deb")):
        done = run("dpkg", "--extract", str(package), str(work / "tree"))
        if done.returncode != 0:
            raise MissingPackageError(packages[0], _complaint(done.stderr))


def _complaint(errors: str) -> str:
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    serious = [line[2:].strip() for line in lines if line.startswith(("E:", "W:"))]
    return (serious or lines or ["no reason was given"])[0]


def _move(tree: Path, target: Path) -> None:
    try:
        tree.rename(target)
    except OSError:
        if not target.is_dir():  # else another process was faster
            raise
