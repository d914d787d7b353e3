"""A suite run without the shim and with it, at the same time, by processes that differ in nothing else.

Each run has a mount namespace with system temp and `/dev/shm` of its own, and sees its own directory under the same
short path, so paths are as long on both sides (a socket's has 107 bytes at most), and what one run leaves can't be in
the way of the other. All directories are on one file system. The PID namespace ends with the run, and all of it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.sides import WORKFLOW, Sides
from tests.conformance import junit
from tests.conformance.suite import Suite, SuiteError

LIMIT = 3600
"""Seconds after which a run is killed."""

_NAMESPACE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
# Not exec: a shell as process 1 reaps orphans, and the tests' process has signals as usual.
_ENTER = """
set -e; place=$1 shim=$2 mine=$3; shift 3
mount --bind "$shim" "$mine/shim"; mount --rbind "$mine" "$place"
mount --bind "$place/tmp" /tmp; mount --bind "$place/var-tmp" /var/tmp; mount -t tmpfs tmpfs /dev/shm
cd "$place/cwd"; set +e; "$@"; exit $?
"""
_PROBE = """
import json, sys, tempfile
try:
    open("/tmp/probe", "x").close()
    refused = None
except OSError as error:
    refused = type(error).__name__
print(json.dumps(["services.common.tmp_redirect" in sys.modules, tempfile.gettempdir(), refused]))
"""


@dataclass(frozen=True)
class Run:
    """What became of each test in one run, what it left in system temp, and what it printed."""

    outcomes: Mapping[str, str]
    left: Sequence[str]
    log: str


@dataclass(frozen=True)
class Both:
    """A suite, prepared in the empty directory `work`; `shim` is the directory of the shim to load.

    `from_log` finds ids and outcomes in what a run prints that aren't in its report; `select` makes what the suite's
    command takes of a test's id.
    """

    suite: Suite
    python: Path
    work: Path
    shim: Path
    guard: str = "calls"
    from_log: Callable[[str], Sequence[tuple[str, str]]] = lambda _: ()
    select: Callable[[str], str] = str

    def run(self, *tests: str) -> tuple[Run, Run]:
        """Without the shim and with it; raises `SuiteError` where one of them isn't what it should be."""
        with ThreadPoolExecutor() as pool:
            both = [pool.submit(self._run, side, tests) for side in ("without", "with")]
            return both[0].result(), both[1].result()

    def _run(self, side: str, tests: Sequence[str]) -> Run:
        mine = self.work / side
        for name in ("tmp", "var-tmp", "home", "shim", f"root/{WORKFLOW}/tmp"):
            (mine / name).mkdir(parents=True)
        shutil.copytree(self.suite.directory(self.work / "suite"), mine / "cwd", symlinks=True)
        try:
            self._prove(side, mine)
            return self._outcomes(side, mine, tests)
        except subprocess.TimeoutExpired as error:
            raise SuiteError(f"{side} the shim, it wasn't done in {LIMIT} s\n{_tail(mine)}") from error
        finally:
            shutil.rmtree(mine)

    def _prove(self, side: str, mine: Path) -> None:
        """See that a process of this side has the shim, or hasn't."""
        self._call(side, mine, [str(self.python), "-c", _PROBE])
        said = (mine / "log").read_text(encoding="utf-8")
        temp = str(_workspace(meeting_place())) if side == "with" else "/tmp"
        wanted = json.dumps([True, temp, "TmpFallbackError"] if side == "with" else [False, temp, None])
        if wanted not in said.splitlines():
            raise SuiteError(f"{side} the shim, a process says {said}, not {wanted}")
        (mine / "tmp" / "probe").unlink(missing_ok=True)

    def _outcomes(self, side: str, mine: Path, tests: Sequence[str]) -> Run:
        used = _workspace(mine) if side == "with" else mine / "tmp"
        before = used.stat().st_mtime_ns
        report = meeting_place() / "report.xml"
        status = self._call(side, mine, self.suite.command(self.python, report, [*map(self.select, tests)]))
        outcomes = junit.read(mine / report.name)
        if not tests:
            if not outcomes:
                raise SuiteError(f"{side} the shim, it ran nothing and ended with status {status}:\n{_tail(mine)}")
            if used.stat().st_mtime_ns == before:
                raise SuiteError(f"{side} the shim, nothing was created in {used}")
        log = (mine / "log").read_text(encoding="utf-8", errors="replace")
        for test, outcome in self.from_log(log):
            junit.add(outcomes, test, outcome)
        return Run(outcomes, sorted(path.name for path in mine.glob("*tmp/*")), log)

    def _call(self, side: str, mine: Path, command: Sequence[str]) -> int:
        """The status of a command in the namespace of a run; what it prints goes to the file `log` in `mine`."""
        place = meeting_place()
        sides = Sides(place, _workspace(place))
        environment = {**sides.in_workflow, "TMP_REDIRECT_GUARD": self.guard} if side == "with" else sides.absent
        with (mine / "log").open("wb") as log:
            done = subprocess.run(
                [*_NAMESPACE, "sh", "-c", _ENTER, "sh", str(place), str(self.shim), str(mine), *command],
                env={**environment, "HOME": str(place / "home"), "LANG": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=LIMIT,
                check=False,
            )
        return done.returncode


def _workspace(directory: Path) -> Path:
    return directory / "root" / WORKFLOW / "tmp"


def _tail(directory: Path) -> str:
    return "\n".join((directory / "log").read_text(encoding="utf-8", errors="replace").splitlines()[-30:])


def check_namespaces() -> None:
    """Raise `SuiteError` where this user can't have namespaces, or this system has no place to mount in."""
    meeting_place()
    try:
        subprocess.run([*_NAMESPACE, "true"], check=True, capture_output=True, text=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        reason = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else "there is no unshare"
        raise SuiteError(f"runs have mounts of their own; be root, with util-linux installed: {reason}") from error


def meeting_place() -> Path:
    """An empty directory to mount over; raises `SuiteError` if this system has none."""
    for directory in (Path("/srv"), Path("/mnt"), Path("/media")):
        if directory.is_dir() and not any(directory.iterdir()):
            return directory
    raise SuiteError("/srv, /mnt or /media must be there and empty: runs see their directories there")
