"""`tmp-redirect uninstall-site`: undo `install-site`, exactly."""

from __future__ import annotations

import argparse

from .command_output import CONFIGURATION, FINDINGS, OK, one_line, say
from .site_files import SiteFile, pth_file, sitecustomize_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It has no options."""


def run(options: argparse.Namespace) -> int:
    """Remove what `install-site` wrote for this interpreter: 0, 1 where it was changed since, 78 where it can't be."""
    files = [file for file in (sitecustomize_file(), pth_file()) if file is not None]
    statuses = [status for status in map(_uninstall, files) if status is not None]
    if not statuses:
        print(one_line(f"nothing to remove: install-site has written no {' and no '.join(str(f.path) for f in files)}"))
    return max(statuses, default=OK)


def _uninstall(file: SiteFile) -> int | None:
    """The status, or None where there is nothing of ours."""
    try:
        state = file.state()
        if state == "changed":
            reason = f"{file.path} was changed since install-site wrote it: left alone; look at it, and remove it"
            return say("uninstall-site", one_line(reason), FINDINGS)
        if state not in ("written", "outdated"):
            return None
        file.remove()
    except OSError as error:
        reason = f"can't remove {file.path}: {error.strerror}; run this as the user who may remove packages there"
        return say("uninstall-site", one_line(reason), CONFIGURATION)
    print(one_line(f"removed {file.path}"))
    return OK
