"""The files with which `install-site` makes an interpreter start the shim, and what is known of them afterwards.

Each begins with a line that says who wrote it, with a digest of the rest: so it is known again, whatever version or
installation wrote it, and so is what somebody has changed since.
"""

from __future__ import annotations

import os
import shutil
import site
import sysconfig
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from .location import HOME, SITECUSTOMIZE

# What a .pth file loads it as. Were it `sitecustomize`, `site` would not run the interpreter's own.
MODULE = "tmp_redirect_site"

_FIRST_LINE = "# Written by `tmp-redirect install-site`; `tmp-redirect uninstall-site` removes it. sha256:"
# One line, as site wants it. In it are programs: what isn't run isn't compiled, at each interpreter start.
_PTH = (
    'import os, sys; {module!a} in sys.modules or os.environ.get("TMP_REDIRECT", "") in ("", "off")'
    ' or exec({start!a}, {{"failed": {failed!a}}})\n'
)
_START = """\
import sys
try:
    sys.modules[{module!a}] = None  # for in a virtual environment, site runs this twice
    from _frozen_importlib import module_from_spec
    from _frozen_importlib_external import spec_from_file_location
    spec = spec_from_file_location({module!a}, {sitecustomize!a})
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[{module!a}] = module
except BaseException as error:
    exec(failed)
"""
# As sitecustomize.py says it, which has gone.
_FAILED = """\
import os
warn = os.environ["TMP_REDIRECT"] == "warn"
outcome = "the process goes on WITHOUT it" if warn else "the process ends with status 78"
reason = " ".join(f"{{type(error).__name__}}: {{error}}".split())
try:
    sys.stderr.write(f"tmp_redirect: can't start, {{outcome}}: {{reason}}; " {remedy!a})
    sys.stderr.flush()
finally:
    warn or os._exit(78)
"""


@dataclass(frozen=True)
class SiteFile:
    """A file that makes an interpreter start the shim, with the text that it should have."""

    path: Path
    text: str

    def state(self) -> str:
        """`absent`; `written`, as it should be; `outdated`, as another version of us wrote it; `changed` or `foreign`.

        Raises `OSError` where that can't be found out.
        """
        try:
            if not self.path.is_file() or self.path.is_symlink():
                return "foreign" if os.path.lexists(self.path) else "absent"
            text = self.path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            return "foreign"
        if text == self.text:
            return "written"
        first, _, rest = text.partition("\n")
        if not first.startswith(_FIRST_LINE):
            return "foreign"
        return "outdated" if first == _first_line(rest) else "changed"

    def write(self) -> None:
        """Write it where nothing is, as readable as the shim itself is. Raises `OSError`, and then nothing is left."""
        file = self.path.open("x", encoding="utf-8")
        try:
            with file:
                file.write(self.text)
            shutil.copymode(SITECUSTOMIZE, self.path)
        except BaseException:
            self.path.unlink()
            raise

    def remove(self) -> None:
        """Remove it, and what the interpreters made of it. Raises `OSError`."""
        self.path.unlink()
        cache = self.path.parent / "__pycache__"
        if self.path.suffix == ".py" and cache.is_dir():
            for compiled in cache.glob(f"{self.path.stem}.*.pyc"):
                compiled.unlink()
            if not any(cache.iterdir()):
                cache.rmdir()


def pth_file() -> SiteFile:
    """For the directory in which `site` looks for them: the interpreter's own, or the user's if the package is there.

    It works beside any sitecustomize, and also where `-I` or `-E` makes the interpreter ignore `PYTHONPATH`.
    """
    own = sysconfig.get_path("purelib")
    directory = site.getusersitepackages() if site.ENABLE_USER_SITE and _is_home(site.getusersitepackages()) else own
    path = Path(directory, "tmp_redirect.pth")
    start = _START.format(module=MODULE, sitecustomize=SITECUSTOMIZE)
    failed = _FAILED.format(remedy=f"install tmp-redirect again, or remove {path}\n")
    return _site_file(path, _PTH.format(module=MODULE, start=start, failed=failed))


def sitecustomize_file() -> SiteFile | None:
    """For the directory that the package is in, if it isn't one in which `site` looks: a copy of the package's own.

    It works where `PYTHONPATH` names that directory. None where the package's own is there already.
    """
    path = Path(HOME, "sitecustomize.py")
    directories = [*site.getsitepackages(), site.getusersitepackages()]
    if str(path) == SITECUSTOMIZE or any(map(_is_home, directories)):
        return None
    return _site_file(path, Path(SITECUSTOMIZE).read_text(encoding="utf-8"))


def _is_home(directory: str) -> bool:
    return os.path.realpath(directory) == os.path.realpath(HOME)


def _site_file(path: Path, text: str) -> SiteFile:
    return SiteFile(path, f"{_first_line(text)}\n{text}")


def _first_line(rest: str) -> str:
    return _FIRST_LINE + sha256(rest.encode()).hexdigest()
