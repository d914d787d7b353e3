"""A thousand spellings of a path, and every call that creates: which layer of the guard notices what.

Hypothesis puts together how a path is spelled: where it starts, by which directories and links it goes, with what
between them, in which type. Each attempt is made without the shim first. What appears in system temp then, by what the
kernel's inotify reports, must not appear with the layer `kernel`; with `calls` and `audit` it must be refused or be one
of the blind spots that are listed here, each of which must really be one. What doesn't appear there must go through.

SOAK=new, or the seed of an earlier run, goes on until a thousand forms were tried.
"""

from __future__ import annotations

import itertools
import os
import pickle
import secrets
import shutil
import stat
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import path_forms
import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st

from examples.watcher import Watcher
from services.common.tmp_redirect.kernel import availability
from services.common.tmp_redirect.settings import SYSTEM_TEMP, is_below, is_system_temp

SOAK = os.environ.get("SOAK", "")  # as in test_trees
SOAK_FORMS = 1000
EXAMPLES = 200

ALL = list(path_forms.operations("", []))
WITH_DIR_FD = [
    *("opener", "os.open", "os.open O_TMPFILE", "os.mkdir", "os.mkfifo", "os.mknod", "os.symlink", "os.link"),
    *("os.rename", "os.rename directory", "os.replace", "posix.open", "posix.open O_TMPFILE", "posix.mkdir"),
    *("posix.mkfifo", "posix.mknod", "posix.symlink", "posix.link", "posix.rename", "early os.open", "early os.mkdir"),
]
MAKES_DIRECTORY = ["os.makedirs", "os.rename directory", *(name for name in ALL if name.endswith("mkdir"))]
IN_DIRECTORY = [name for name in ALL if name.endswith("O_TMPFILE")]
FOLLOWS = [name for name in ALL if ("open" in name or "sql" in name.lower()) and name not in IN_DIRECTORY]
FOLLOWS += ["io.FileIO", "shutil.copy", "Path.touch", "Path.write_bytes"]
NO_BYTES = ["Path.touch", "Path.mkdir", "Path.write_bytes", "Path.rename"]
NO_PATHLIKE = ["socket.bind"]
STR, BYTES, PATHLIKE = ["str", "str", "str", "subclass of str"], ["bytes", "PathLike of bytes"], ["PathLike", "Path"]
LEGACY = ["os.mkdir", "os.open", "posix.mkdir"] if sys.version_info < (3, 12) else []  # take a bytearray

SEPARATORS = ["/", "//", "///", "/./", "/././"]
NOT_UTF_8 = ["\udcff", "\udce4\udcf6"]
SUFFIXES = ["", "", " ", "\n", ".db", "é中", "-", "%20", "%2e", "?mode=ro", "#", "{}", "\\"]
SUFFIXES += [" (deleted)", "~", "*", "\u202e", "<>"]
LONGEST = 255
PATH_MAX = 4095  # bytes without the last, which is zero


class Form(NamedTuple):
    """An operation, and how the path is spelled that it gets."""

    operation: str
    kind: str
    cwd: str
    anchor: str  # the directory that the descriptor in the path, or `dir_fd`, is open for
    flags: int
    dir_fd: bool
    path: str  # with <name>, and with <pid>, <fd> and <pad> for the child to fill in
    suffix: str  # of the name
    length: int  # of the path when it is padded
    place: str  # the real directory that the path leads to
    link: str | None  # the name is that of a link to a file in this directory
    spelled_out: bool  # it is spelled in system temp, or with `..`: `calls` has reason to follow links

    @property
    def is_relative(self) -> bool:
        return not self.path.replace("<pad>", "").startswith("/")


class Ground:
    """Directories in system temp and elsewhere, and links between them. Files in `allowed` and `root` may be made."""

    def __init__(self, home: Path, root: Path) -> None:
        self.token = f"tmp-redirect-{uuid.uuid4().hex[:8]}"
        self._numbers = itertools.count(1)
        self.home, self.root = str(home), str(root)
        temp = [path for path in ("/tmp", "/var/tmp") if os.path.realpath(path) == path and os.access(path, os.W_OK)]
        self.stages = [f"{directory}/{self.token}" for directory in temp]
        self.allowed = [f"{stage}/allowed" for stage in self.stages]
        lookalikes = [f"/{self.token}", f"/var/{self.token}"]
        self._made = [*self.stages, *(path for path in lookalikes if os.access(os.path.dirname(path), os.W_OK))]
        for path in (*self._made, *self.allowed, *(f"{stage}/allowed-not/d" for stage in self.stages)):
            os.makedirs(path, exist_ok=True)
        for path in ("tmp", "d/e"):
            os.makedirs(home / path)
        (root / "tmp").mkdir()
        self.in_temp = [*temp, *self.stages, *(f"{stage}/allowed-not/d" for stage in self.stages)]
        self.elsewhere = [*self._made[len(self.stages) :], self.home, f"{home}/tmp", f"{home}/d/e", self.root]
        self.elsewhere += [f"{root}/tmp", *self.allowed]
        self.elsewhere += [holder for holder in ("/", "/var") if os.access(holder, os.W_OK)]
        self.gone = [*(f"{stage}/gone" for stage in self.stages), f"{home}/gone"]
        self.links = dict(self._make_links())

    def _make_links(self) -> Iterator[tuple[str, str]]:
        for number, stage in enumerate(self.stages):
            inner, beyond = f"{stage}/allowed-not/d", f"{self.home}/d/e"
            for link, text, leads_to in (
                (f"{self.home}/in{number}", stage, stage),
                (f"{self.home}/relative{number}", os.path.relpath(inner, self.home), inner),
                (f"{self.home}/chain{number}", f"./relative{number}/", inner),
                (f"{self.home}/d/e/temp{number}", f"/proc/self/root{os.path.dirname(stage)}", os.path.dirname(stage)),
                (f"{self.root}/in{number}", stage, stage),
                (f"{stage}/allowed/in", "../allowed-not", f"{stage}/allowed-not"),
                (f"{stage}/out", beyond, beyond),
                (f"{stage}/out-chain", "out", beyond),
                (f"{stage}/root", self.root, self.root),
                (f"{stage}/inner", "allowed-not/d", inner),
                (f"{stage}/other", self.stages[number - 1], self.stages[number - 1]),
            ):
                os.symlink(text, link)
                yield link, leads_to
        os.symlink("/var", f"{self.home}/above")
        yield f"{self.home}/above", "/var"

    def may_be_made(self, path: str) -> bool:
        """Whether a real path is outside system temp, or in what is allowed there."""
        return not is_system_temp(path) or any(is_below(path, allowed) for allowed in (self.root, *self.allowed))

    def name(self, suffix: str) -> str:
        name = f"{self.token}-{next(self._numbers):06}"
        return name + suffix.replace("<long>", "x" * (LONGEST - len(name)))

    def source(self, place: str) -> str:
        """A path for a file to be moved or linked to `place`: in the same file system."""
        device = os.stat(place).st_dev
        sources = [path for path in (self.home, *self.allowed) if os.stat(path).st_dev == device]
        return f"{(sources or [self.home])[0]}/source"

    def remove(self) -> None:
        for path in self._made:
            shutil.rmtree(path)


@st.composite
def forms(draw: st.DrawFn, ground: Ground, operations: list[str]) -> Form:
    operation = draw(st.sampled_from(operations))
    place = draw(st.sampled_from(ground.in_temp) | st.sampled_from(ground.elsewhere))
    link = draw(st.none() | st.sampled_from(ground.in_temp + ground.elsewhere)) if operation in FOLLOWS else None
    anchors = ["/", *ground.in_temp, *ground.elsewhere, *ground.gone]
    cwd, anchor = draw(st.sampled_from(anchors)), draw(st.sampled_from(anchors))
    dir_fd = operation in WITH_DIR_FD and draw(st.booleans())
    start = draw(st.sampled_from(["/", "/", "/", "//", "///", "relative", "relative"]))
    at, path = (anchor if dir_fd else cwd, "") if start == "relative" else ("/", start)

    # Each step goes by the real directories to one of them, or to a link, and is then where that leads.
    steps = {path: path for path in (*ground.in_temp, *ground.elsewhere)} | ground.links
    magic = {f"/proc/{process}/root": "/" for process in ("self", "<pid>", "thread-self")}
    magic |= {f"/proc/{process}/cwd": cwd for process in ("self", "<pid>", "thread-self")}
    magic |= {f"{directory}/<fd>": anchor for directory in ("/proc/self/fd", "/dev/fd", "/proc/<pid>/fd")}
    step = st.sampled_from(sorted(steps)) | st.sampled_from(sorted(magic))
    separator = draw(st.just(["/"]) | st.lists(st.sampled_from(SEPARATORS), min_size=1, max_size=3))
    separators = itertools.cycle(separator)
    for spelled in draw(st.lists(step, max_size=4)):
        path += "".join(part + next(separators) for part in way(at, spelled))
        at = (steps | magic)[spelled]
    path += "".join(part + next(separators) for part in way(at, place))

    if operation not in IN_DIRECTORY:
        path += "<name>"
        if operation in MAKES_DIRECTORY:
            path += draw(st.sampled_from(["", "", "/", "//", "/."]))
    elif not path.endswith("/") or draw(st.booleans()):
        path = path.rstrip("/") or ("." if start == "relative" else "/")
    lexical = "/" + os.path.normpath(f"{anchor if dir_fd else cwd}/{path}" if start == "relative" else path).lstrip("/")
    spelled_out = "/../" in f"/{path}/" or not ground.may_be_made(lexical)
    length = draw(st.sampled_from([0, 0, 0, 0, PATH_MAX - 1, PATH_MAX, PATH_MAX + 1]))
    if length and operation != "os.makedirs":  # which would make the first of its directories, and fail then
        path = path.replace("/", "<pad>/", 1)
    kinds = [*STR, *([] if operation in NO_BYTES else BYTES), *([] if operation in NO_PATHLIKE else PATHLIKE)]
    if operation in LEGACY or operation == "socket.bind":
        kinds.append("bytearray")
    suffixes = [*SUFFIXES, "<long>", *NOT_UTF_8]
    return Form(
        operation=operation,
        kind=draw(st.sampled_from(kinds)),
        cwd=cwd,
        anchor=anchor,
        flags=draw(st.sampled_from([os.O_RDONLY | os.O_DIRECTORY, os.O_PATH])),
        dir_fd=dir_fd,
        path=path,
        suffix=draw(st.sampled_from(suffixes)),
        length=length,
        place=place,
        link=link,
        spelled_out=spelled_out,
    )


def way(at: str, to: str) -> list[str]:
    """The names from the real directory `at` to the entry `to` of another."""
    parts = os.path.relpath(to, at).split("/")
    return [] if parts == ["."] else parts


def plain(ground: Ground, operation: str) -> Iterator[Form]:
    """Simple forms of each sort, of which chance leaves some out."""
    stage, home = ground.stages[0], ground.home
    for cwd, directory, place, spelled_out in (
        ("/", f"{stage}/", stage, True),
        ("/", f"{home}/", home, False),
        ("/", f"{home}/in0/", stage, False),
        (stage, "", stage, True),
        (home, "in0/", stage, False),
    ):
        path = (directory.rstrip("/") or ".") if operation in IN_DIRECTORY else f"{directory}<name>"
        yield Form(operation, "str", cwd, "/", os.O_PATH, False, path, "", 0, place, None, spelled_out)


class Outcome(NamedTuple):
    error: str | None
    said: str
    recorded: int
    in_temp: list[str]  # what was created in system temp and may not be
    is_made: bool  # what was to be created, wherever that is


class Child:
    """A process that makes attempts, and what they leave; see tests/workers/path_forms.py."""

    def __init__(self, ground: Ground, watcher: Watcher, process: subprocess.Popen[bytes]) -> None:
        self._ground = ground
        self._watcher = watcher
        self._process = process

    def attempt(self, form: Form) -> Outcome:
        ground, name = self._ground, self._ground.name(form.suffix)
        here = f"{form.place}/{name}"
        target = here if form.link is None else f"{form.link}/{name[: LONGEST - 1]}'"
        source = ground.source(form.place)
        gone = [path for path in ground.gone if path in (form.cwd, form.anchor)]
        with ExitStack() as created:
            for path in gone:
                os.mkdir(path)
                created.callback(remove, path)
            if form.link is not None:
                os.symlink(target, here)
            Path(source).touch()
            Path(f"{source}.d").mkdir()
            for path in (here, target, source, f"{source}.d"):
                created.callback(remove, path)
            self._watcher.sync()
            seen = len(self._watcher.created)
            answer = self._do(form, form.path.replace("<name>", name), source, gone)
            self._watcher.sync()
            unnamed = [os.readlink(f"/proc/{self._process.pid}/fd/{number}") for number in answer["held"]]
            beginning = name[: len(ground.token) + 7]
            appeared = [*map(str, self._watcher.created[seen:]), *unnamed]
            return Outcome(
                answer["error"],
                answer["said"],
                answer["recorded"],
                [path for path in appeared if (beginning in path or path in unnamed) and not ground.may_be_made(path)],
                os.path.lexists(target) or bool(unnamed),
            )

    def _do(self, form: Form, path: str, source: str, gone: list[str]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        pickle.dump({**form._asdict(), "path": path, "source": source, "gone": gone}, self._process.stdin)
        self._process.stdin.flush()
        answer: dict[str, Any] = pickle.load(self._process.stdout)
        return answer


def remove(path: str) -> None:
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)


@pytest.fixture
def ground(root: Path) -> Iterator[Ground]:
    home = Path.home() / f".tmp-redirect-{uuid.uuid4().hex[:8]}"
    home.mkdir()
    ground = Ground(home, root)
    yield ground
    ground.remove()
    shutil.rmtree(home)


Start = Callable[..., Child]


@pytest.fixture
def start(ground: Ground, shim_env: dict[str, str], helpers: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts a process with the layers of the guard that are named, or without the shim."""
    running = ExitStack()
    with running, Watcher(path for path in SYSTEM_TEMP if os.path.isdir(path)) as watcher:

        def start(guard: str, mode: str) -> Child:
            env = {
                **shim_env,
                "PYTHONDONTWRITEBYTECODE": "1",  # the shim's own tree is in system temp here
                "TMP_REDIRECT": mode,
                "TMP_REDIRECT_GUARD": guard,
                "TMP_REDIRECT_ALLOW": ":".join(ground.allowed),
            }
            log = running.enter_context((tmp_path / f"{guard}-{mode}.log").open("wb"))
            command = [sys.executable, "-S", helpers / "path_forms.py"]
            process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
            running.enter_context(process)  # closing its stdin ends it
            return Child(ground, watcher, process)

        yield start


Judge = Callable[[Form, Outcome], object]


def check(ground: Ground, stock: Child, operations: list[str], judge: Judge) -> None:
    """Let `judge` see each operation with plain paths, and then random forms, with what comes of them unguarded."""
    in_temp, elsewhere, nowhere = Counter[str](), Counter[str](), Counter[str]()

    def every_form(form: Form) -> None:
        reference = stock.attempt(form)
        tried = in_temp if reference.in_temp else elsewhere if reference.is_made else nowhere
        tried[form.operation] += 1
        judge(form, reference)

    for operation in operations:
        for form in plain(ground, operation):
            every_form(form)
    assert set(in_temp) == set(elsewhere) == set(operations)
    settings = hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        report_multiple_bugs=False,
    )
    random_forms = settings(hypothesis.given(forms(ground, operations))(every_form))
    first_seed = secrets.randbits(32) if SOAK == "new" else int(SOAK or 0)
    print(f"SOAK={first_seed}")
    for seed in itertools.count(first_seed):
        hypothesis.seed(seed)(random_forms)()
        if not SOAK or in_temp.total() + elsewhere.total() >= SOAK_FORMS:
            break
    print(f"{in_temp.total()} in system temp, {elsewhere.total()} elsewhere, {nowhere.total()} nowhere")
    assert min(in_temp.total(), elsewhere.total()) > EXAMPLES / 4, "the forms lead nowhere"


HOLDERS = ("/", "/var", "/usr")  # nothing new can be made in them with `kernel`


@pytest.mark.promise
@pytest.mark.parametrize("guard", ["kernel", "calls,kernel"])
def test_kernel(ground: Ground, start: Start, mode: str, guard: str) -> None:
    """Nothing is ever created in system temp; all the rest is, except directly in the directories that hold it."""
    reason = availability().reason
    if reason is not None:
        pytest.skip(reason)
    guarded = start(guard, mode)

    def judge(form: Form, reference: Outcome) -> None:
        outcome = guarded.attempt(form)
        assert not outcome.in_temp
        if reference.is_made and not reference.in_temp and (form.link or form.place) not in HOLDERS:
            assert (outcome.error, outcome.is_made) == (reference.error, True), outcome
        else:
            assert outcome.error is not None and not outcome.is_made, outcome

    check(ground, start("", "off"), ALL, judge)


PAST_CALLS = ALL[ALL.index("sqlite3.Connection") :]
OF_C = ["libc mkdir", "SQL ATTACH"]
NO_EVENT = ["os.mkfifo", "os.mknod", "posix.mkfifo", "posix.mknod"]
NO_DIR_FD = ["os.open", "os.open O_TMPFILE", "posix.open", "posix.open O_TMPFILE", "early os.open", "Path.touch"]
OPENS = [name for name in ALL if name.startswith("open")] + ["io.open", "shutil.copy", "Path.write_bytes", *NO_DIR_FD]

# What a layer doesn't notice in system temp, and nothing else: what is listed must go unnoticed, the rest be noticed.
BLIND_SPOTS: dict[str, dict[str, Callable[[Form], bool]]] = {
    "calls": {
        "what isn't called by its name in os, io, builtins and sqlite3": lambda form: form.operation in PAST_CALLS,
        "a link outside system temp, /proc and /dev/fd included, that leads into it, where the path has no `..`":
            lambda form: form.operation not in PAST_CALLS and not form.spelled_out,
    },
    "audit": {
        "C libraries": lambda form: form.operation in OF_C,
        "mkfifo and mknod": lambda form: form.operation in NO_EVENT,
        "os.open of a relative path": lambda form: form.operation in NO_DIR_FD and form.is_relative,
    },
    "calls,audit": {
        "C libraries": lambda form: form.operation in OF_C,
        "mkfifo and mknod of posix": lambda form: form.operation in NO_EVENT and form.operation in PAST_CALLS,
        "mkfifo and mknod by such a link": lambda form: (
            form.operation in NO_EVENT and form.operation not in PAST_CALLS and not form.spelled_out
        ),
        "os.open of a relative path, where it isn't called by its name": lambda form: (
            form.operation in NO_DIR_FD and form.operation in PAST_CALLS and form.is_relative
        ),
        "open and os.open of a relative path by such a link": lambda form: (
            form.operation in OPENS and form.operation not in PAST_CALLS and form.is_relative and not form.spelled_out
        ),
    },
}  # fmt: skip


def unnoticed(guard: str, form: Form, seen: Counter[str]) -> bool:
    """Whether the form is a blind spot of these layers; counts it."""
    names = [name for name, applies in BLIND_SPOTS[guard].items() if applies(form)]
    seen.update(names)
    return bool(names)


# What `audit` makes of an opener is the subject of the last test.
AUDITED = {guard: [name for name in ALL if guard == "calls" or name != "opener"] for guard in BLIND_SPOTS}


@pytest.mark.promise
@pytest.mark.parametrize("guard", BLIND_SPOTS)
def test_enforce(ground: Ground, start: Start, mode: str, guard: str) -> None:
    """What would appear in system temp is refused and recorded once, or is a blind spot; all the rest goes through."""
    guarded = start(guard, mode)
    seen: Counter[str] = Counter()

    def judge(form: Form, reference: Outcome) -> None:
        outcome = guarded.attempt(form)
        if not reference.is_made:  # it may be refused before it fails
            assert outcome.error is not None and not outcome.is_made, outcome
        elif reference.in_temp and not unnoticed(guard, form, seen):
            assert (outcome.error, outcome.recorded, outcome.is_made) == ("TmpFallbackError", 1, False), outcome
            assert not outcome.in_temp
        else:
            assert (outcome.error, outcome.recorded, outcome.is_made) == (reference.error, 0, True), outcome

    check(ground, start("", "off"), AUDITED[guard], judge)
    print(dict(seen))
    assert set(seen) == set(BLIND_SPOTS[guard])


@pytest.mark.promise
@pytest.mark.parametrize("guard", BLIND_SPOTS)
def test_warn(ground: Ground, start: Start, mode: str, guard: str) -> None:
    """Everything happens, and what appears in system temp is recorded exactly once by what sees it."""
    guarded = start(guard, "warn" if mode == "enforce" else mode)
    seen: Counter[str] = Counter()

    def judge(form: Form, reference: Outcome) -> None:
        outcome = guarded.attempt(form)
        assert (outcome.error, outcome.is_made) == (reference.error, reference.is_made), outcome.said
        assert len(outcome.in_temp) == len(reference.in_temp)
        if reference.is_made:
            noticed = 0 if unnoticed(guard, form, seen) else len(reference.in_temp)
            assert outcome.recorded == noticed

    check(ground, start("", "off"), AUDITED[guard], judge)


@pytest.mark.promise
@pytest.mark.fresh(env={"TMP_REDIRECT": "warn", "TMP_REDIRECT_GUARD": "audit", "PYTHONDONTWRITEBYTECODE": "1"})
def test_audit_does_not_learn_what_an_opener_does(root: Path, tmp_path: Path):
    """A relative path is taken to count from the working directory; a directory is left to the opener's own event."""
    import os
    import tempfile

    from services.common.tmp_redirect import report

    def recorded(directory):
        descriptor, before = os.open(directory, os.O_RDONLY), report().total
        open("x", "w", opener=lambda path, flags: os.open(path, flags, dir_fd=descriptor)).close()
        assert os.path.exists(f"{directory}/x")
        return report().total - before

    os.chdir(root)
    assert recorded(tmp_path) == 0, "it was noticed"
    os.chdir(tmp_path)
    assert recorded(root) == 1, "it was not taken for a file in system temp"
    total = report().total
    for make in (tempfile.NamedTemporaryFile, tempfile.TemporaryFile):
        make(dir=tmp_path).close()
        total += 1
        assert report().total == total


@pytest.mark.fresh(env={"TMP_REDIRECT_GUARD": "calls,audit", "PYTHONDONTWRITEBYTECODE": "1"})
def test_a_link_to_a_file_that_exists_creates_nothing(tmp_path: Path):
    """Programs write to /dev/stdout, which may have been redirected to a file in system temp."""
    import os

    from services.common.tmp_redirect import report

    descriptor = os.open(__file__, os.O_RDWR)
    for directory in ("/dev/fd", "/proc/self/fd", "/proc/../dev/fd"):
        open(f"{directory}/{descriptor}", "a").close()
        os.close(os.open(f"{directory}/{descriptor}", os.O_CREAT | os.O_WRONLY))
    assert report().total == 0, report().violations
