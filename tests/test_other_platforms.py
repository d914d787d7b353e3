"""On macOS and Windows the package imports, off works, and the rest says clearly that it doesn't.

A Linux interpreter that lacks what those lack stands for them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ONLY_LINUX = ("O_PATH", "O_TMPFILE", "uname", "mkfifo", "mknod", "O_DIRECTORY", "O_NOFOLLOW", "statvfs", "ST_RDONLY")


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_another_platform(overlay: Path, platform: str) -> None:
    code = (
        "import sys, os, tempfile, pathlib, functools, inspect\n"
        f"sys.platform = {platform!r}\n"
        f"for name in {ONLY_LINUX}: delattr(os, name)\n"
        "import services.common.tmp_redirect as shim\n"
        "from services.common.tmp_redirect import SettingsError, install, is_active, workflow, report\n"
        "install()\n"
        "with workflow('wf-1') as directory: assert directory == tempfile.gettempdir()\n"
        "shim.uninstall()\n"
        "os.environ['TMP_REDIRECT'] = 'enforce'\n"
        "try: install()\n"
        "except SettingsError as error: sys.stderr.write(str(error))\n"
        "assert not is_active() and type(open) is type(len)\n"
    )
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(overlay)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"TMP_REDIRECT='enforce' is not allowed: only off on {platform}: the shim needs Linux"


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_commands_on_another_platform(overlay: Path, platform: str, tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text("open('/tmp/x', 'w')\n")
    (tmp_path / "log").write_text("wrote /tmp/x\n")
    code = (
        "import sys, os, argparse, gettext, shutil, subprocess, sysconfig, tempfile\n"
        "sysconfig.get_paths()\n"
        f"sys.platform = {platform!r}\n"
        f"for name in {ONLY_LINUX}: delattr(os, name)\n"
        "sys.modules['posix'] = sys.modules['fcntl'] = None\n"
        "from services.common.tmp_redirect.cli import COMMANDS, main\n"
        "for command in COMMANDS:\n"
        "    if command.name not in ('scan', 'scan-logs'): assert main([command.name]) == 78, command.name\n"
        "sys.stderr.flush()\n"
        "assert main(['scan-logs', 'log']) == 1\n"
        "assert main(['scan', 'task.py']) == 1\n"
        "try: main(['--help'])\n"
        "except SystemExit as ended: assert ended.code == 0\n"
    )
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(overlay)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "tmp-redirect sweep: this needs Linux; here are scan and scan-logs\n" in done.stderr
    assert "Traceback" not in done.stderr
