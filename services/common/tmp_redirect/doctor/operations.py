"""Does to the root what the shim does: exclusive creation, renaming, removal. The root is left as it was.

All is done in a directory of its own, directly in the root, as a sweep may remove what is in the trash while we look.
What a doctor leaves that was killed, the next one removes. The shim takes no locks below the root; programs may lock
their temp files.
"""

from __future__ import annotations

import errno
import fcntl
import os
import posix  # its functions are not guarded, and what is done here is done below the root
import time
from collections.abc import Iterator
from contextlib import suppress

from ..lifecycle.leases import NEW, holder_is_alive, names, new_name
from ..lifecycle.removal import remove
from ..lifecycle.trees import READ
from ..settings import Settings
from ..workspace import open_existing
from .finding import Finding

KIND = ".doctor"  # a workflow id can't begin so
MOST_SKEW = 60  # seconds


def operations(settings: Settings) -> Iterator[Finding]:
    """What works there, and whether the file server's clock is right."""
    root = open_existing(settings)
    try:
        _remove_others(root)
        name = new_name(KIND)
        try:
            posix.mkdir(name, 0o700, dir_fd=root)
            directory = posix.open(name, READ, dir_fd=root)
            try:
                yield from _try(directory, settings)
            finally:
                os.close(directory)
        except OSError as error:
            yield _failed(f"making a directory in it fails: {error.strerror}")
        finally:
            with suppress(OSError):
                remove(root, name)
    finally:
        os.close(root)


def _try(directory: int, settings: Settings) -> Iterator[Finding]:
    failures = [
        *_exclusive_creation(directory),
        *_renaming_and_removal(directory),
        *_modes(directory, settings),
        *_case(directory),
        *_locks(directory),
    ]
    yield from failures
    if not failures:
        text = "exclusive creation, renaming of directories in use, removal, modes and locks work"
        yield Finding("operations", "ok", text)
    yield _clock(directory)


def _exclusive_creation(directory: int) -> Iterator[Finding]:
    try:
        os.close(posix.open("file", NEW, 0o600, dir_fd=directory))
    except OSError as error:
        yield _failed(f"making a file fails: {error.strerror}")
        return
    try:
        os.close(posix.open("file", NEW, 0o600, dir_fd=directory))
    except FileExistsError:
        return
    yield _failed("open(O_CREAT | O_EXCL) makes a file that exists: two processes may take one lease")


def _renaming_and_removal(directory: int) -> Iterator[Finding]:
    """As a purge does it, while a file in the workspace is still open."""
    try:
        posix.mkdir("workspace", 0o700, dir_fd=directory)
        opened = posix.open("workspace/file", NEW, 0o600, dir_fd=directory)
        try:
            posix.rename("workspace", "away", src_dir_fd=directory, dst_dir_fd=directory)
            posix.stat("away/file", dir_fd=directory)
            posix.unlink("away/file", dir_fd=directory)
        finally:
            os.close(opened)
        posix.rmdir("away", dir_fd=directory)
    except OSError as error:
        yield _failed(f"renaming a directory with an open file in it, and removing both, fails: {error.strerror}")


def _modes(directory: int, settings: Settings) -> Iterator[Finding]:
    try:
        posix.mkdir("mode", settings.dir_mode, dir_fd=directory)
        os.chmod("mode", settings.dir_mode, dir_fd=directory)
        found = os.stat("mode", dir_fd=directory)
    except OSError as error:
        yield _failed(f"setting the mode of a directory fails: {error.strerror}")
        return
    if found.st_mode & 0o7777 != settings.dir_mode:
        text = f"a directory has the mode {found.st_mode & 0o7777:04o}, not {settings.dir_mode:04o}, as it was told"
        yield Finding("operations", "note", text, "see the mount options (umask, file_mode, metadata of WSL2)")
    if found.st_uid != os.geteuid():
        text = f"what uid {os.geteuid()} makes belongs to uid {found.st_uid} (root_squash of NFS, uid= of CIFS)"
        yield Finding("operations", "note", text, "run all services as one user, or set TMP_REDIRECT_DIR_MODE")


def _case(directory: int) -> Iterator[Finding]:
    with suppress(OSError):
        os.stat("FILE", dir_fd=directory)
        text = "it doesn't tell upper from lower case: two workflows whose ids differ only there share a workspace"
        yield Finding("operations", "problem", text, "use another file system, or ids of one case")


def _locks(directory: int) -> Iterator[Finding]:
    """The kind that sqlite3 takes, and the other one."""
    for function in (fcntl.lockf, fcntl.flock):
        try:
            descriptor = posix.open("lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=directory)
        except OSError:
            return  # exclusive creation has said it
        try:
            function(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            text = f"files can't be locked ({function.__name__}: {error.strerror}); the shim takes no locks"
            advice = "nothing, unless programs lock their temp files, as sqlite3 does: then see the mount options"
            yield Finding("operations", "note", text, advice)
            return
        finally:
            os.close(descriptor)


def _clock(directory: int) -> Finding:
    before = time.time()
    try:
        os.close(posix.open("clock", NEW, 0o600, dir_fd=directory))
        skew = os.stat("clock", dir_fd=directory).st_mtime - before
    except OSError as error:
        return Finding("clock", "note", f"the file server's clock can't be read: {error.strerror}")
    if abs(skew) <= MOST_SKEW:
        return Finding("clock", "ok", f"the file server's agrees with this host's to {max(1, round(abs(skew)))} s")
    text = f"the file server's is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this host's"
    return Finding("clock", "problem", f"{text}: ages of workspaces are wrong", "synchronise both with NTP")


def _remove_others(root: int) -> None:
    for name in names(root):
        if name.startswith(f"{KIND}~") and holder_is_alive(name) is False:
            with suppress(OSError):
                remove(root, name)


def _failed(text: str) -> Finding:
    if os.strerror(errno.ENOSPC) in text:
        return Finding("operations", "problem", text, "see space")
    return Finding("operations", "problem", text, "use another file system; the shim needs no more than POSIX has")
