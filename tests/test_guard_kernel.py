"""The `kernel` layer: whatever program it is, it can't create anything in system temp, and can do all the rest.

The restriction can't be taken back, so each attempt is made in a process of its own. It is made without the restriction
too, and must then succeed, or the test would prove nothing. The rest of the shim is off in these processes.
"""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import socket
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.common.tmp_redirect.errors import KernelLayerError
from services.common.tmp_redirect.kernel import MARK, availability
from tests.conftest import lay_over
from tests.seccomp import SECCOMP

landlockpy = pytest.importorskip("landlockpy", reason="landlockpy is not installed here")
if availability().reason is not None:
    pytest.skip(str(availability().reason), allow_module_level=True)

EACCES, EXDEV = errno.EACCES, errno.EXDEV
PROBE = "tmp-redirect-probe"
# Restricts itself if it is told to, and becomes the command.
LAUNCHER = """
import os, sys
if sys.argv[1] == "True":
    from services.common.tmp_redirect.kernel import install
    from services.common.tmp_redirect.settings import Settings
    install(Settings({**os.environ, "TMP_REDIRECT": "enforce"}))
os.execvp(sys.argv[2], sys.argv[2:])
"""
INSTALL = """
import os
from services.common.tmp_redirect import kernel
from services.common.tmp_redirect.errors import KernelLayerError
from services.common.tmp_redirect.settings import Settings
def install(**env):
    kernel.install(Settings({**os.environ, "TMP_REDIRECT": "enforce", **env}))
def refusal(**env):
    try:
        install(**env)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
def can_create(path):
    try:
        os.mkdir(path)
    except OSError as error:
        return error.errno
    os.rmdir(path)
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def env(overlay: Path, root: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(Path.home()),
        "PYTHONPATH": str(overlay),
        "TMP_REDIRECT_ROOT": str(root),
    }


@pytest.fixture
def run(env: dict[str, str]) -> Run:
    """Runs a command, restricted or not, with more variables."""

    def run(restricted: bool, *command: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        launcher = [sys.executable, "-c", LAUNCHER, str(restricted)]
        arguments = [*launcher, *map(str, command)]
        return subprocess.run(arguments, env=env | more, capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.fixture
def python(env: dict[str, str]) -> Callable[..., str]:
    """Runs a program that installs the layer itself, and returns what it printed."""

    def python(body: str, *before: str, **more: str) -> str:
        command = [*before, sys.executable, "-c", INSTALL + textwrap.dedent(body)]
        done = subprocess.run(command, env=env | more, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return python


@pytest.fixture(params=["/tmp", "/var/tmp"])
def probe(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A path in system temp where nothing is; what a control makes there is removed."""
    path = Path(request.param) / PROBE
    yield path
    remove(path)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def exists(path: Path) -> bool:
    return os.path.lexists(path)


@pytest.mark.parametrize("verb", ["fopen", "append", "mkdir", "mkfifo", "mknod", "symlink", "bind"])
def test_native_code_that_creates(run: Run, creates: Path, probe: Path, verb: str) -> None:
    assert run(True, creates, verb, probe).returncode == EACCES
    assert not exists(probe)
    assert run(False, creates, verb, probe).returncode == 0
    assert exists(probe)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a device")
def test_native_code_that_makes_a_device(run: Run, creates: Path, probe: Path) -> None:
    assert run(True, creates, "device", probe).returncode == EACCES
    assert run(False, creates, "device", probe).returncode == 0


@pytest.mark.parametrize("verb", ["link", "rename", "exchange"])
def test_native_code_that_moves_a_file_there(run: Run, creates: Path, verb: str, tmp_path: Path, root: Path) -> None:
    target = tmp_path / "target"
    for source in (root / "source", tmp_path / "source"):
        source.write_text("source")
        if verb == "exchange":
            target.write_text("target")
        assert run(True, creates, verb, target, source).returncode == EACCES
        assert source.read_text() == "source"
        assert not exists(target) or target.read_text() == "target"
        assert run(False, creates, verb, target, source).returncode == 0
        assert target.read_text() == "source"
        target.unlink()


def test_native_code_that_makes_files_without_a_name(run: Run, creates: Path, probe: Path) -> None:
    if run(False, creates, "O_TMPFILE", probe.parent).returncode != 0:
        pytest.skip(f"the file system of {probe.parent} has no O_TMPFILE")
    assert run(True, creates, "O_TMPFILE", probe.parent).returncode == EACCES
    assert run(True, creates, "tmpfile", "-").returncode == EACCES
    assert run(False, creates, "tmpfile", "-").returncode == 0


def test_a_shell(run: Run, probe: Path) -> None:
    done = run(True, "sh", "-c", f"echo > {probe}")
    assert done.returncode != 0
    assert "Permission denied" in done.stderr
    assert not exists(probe)
    assert run(False, "sh", "-c", f"echo > {probe}").returncode == 0
    assert exists(probe)


@pytest.fixture(scope="session")
def ffmpeg() -> str:
    module = pytest.importorskip("imageio_ffmpeg", reason="imageio_ffmpeg is not installed here")
    return str(module.get_ffmpeg_exe())


def film(ffmpeg: str, path: Path) -> tuple[str, ...]:
    source = "testsrc=duration=0.2:size=32x32:rate=10"
    return (ffmpeg, "-loglevel", "error", "-y", "-f", "lavfi", "-i", source, str(path))


def test_ffmpeg_writes_a_film(run: Run, ffmpeg: str, root: Path) -> None:
    target = Path("/tmp/tmp-redirect-x.mp4")
    done = run(True, *film(ffmpeg, target))
    assert done.returncode != 0
    assert "Permission denied" in done.stderr
    assert not exists(target)
    assert run(True, *film(ffmpeg, root / "x.mp4")).returncode == 0
    try:
        assert run(False, *film(ffmpeg, target)).returncode == 0
        assert target.stat().st_size == (root / "x.mp4").stat().st_size
    finally:
        remove(target)


def test_ffmpeg_caches_in_the_directory_that_is_built_in(run: Run, ffmpeg: str, root: Path) -> None:
    assert run(False, *film(ffmpeg, root / "x.mp4")).returncode == 0
    command = (ffmpeg, "-loglevel", "error", "-i", f"cache:{root}/x.mp4", "-f", "null", "-")
    done = run(True, *command, TMPDIR=str(root))
    assert done.returncode != 0
    assert "Failed to create tempfile" in done.stderr
    assert run(False, *command, TMPDIR=str(root)).returncode == 0


def test_all_descendants(run: Run, probe: Path) -> None:
    """Also those that leave the session, have another environment, or are forked by Python."""
    body = f"import multiprocessing, os, sys\nchild = multiprocessing.Process(target=os.mkdir, args=[{str(probe)!r}])\n"
    body += "child.start(), child.join(), sys.exit(child.exitcode)"
    forms = (
        ["sh", "-c", f"sh -c 'sh -c \"mkdir {probe}\"'"],
        ["sh", "-c", f"exec setsid -w mkdir {probe}"],
        ["env", "-i", shutil.which("mkdir") or "mkdir", str(probe)],
        [sys.executable, "-c", body],
    )
    for form in forms:
        assert run(True, *form).returncode != 0, form
        assert not exists(probe)
        assert run(False, *form).returncode == 0, form
        probe.rmdir()


def test_sort_of_more_than_its_memory(run: Run, root: Path) -> None:
    text = root / "text"
    text.write_text("".join(f"{number * 7919 % 100003:06}\n" for number in range(400_000)))
    command = ("sort", "-S", "1M", "--parallel=1", "-o", str(root / "sorted"), str(text))
    done = run(True, *command, TMPDIR="/tmp")
    assert done.returncode != 0
    assert "cannot create temporary file" in done.stderr
    assert run(False, *command, TMPDIR="/tmp").returncode == 0
    (root / "sorted").unlink()
    assert run(True, *command, TMPDIR=str(root)).returncode == 0
    assert (root / "sorted").stat().st_size == text.stat().st_size


def test_what_may_still_be_done(run: Run, home: Path, root: Path, tmp_path: Path) -> None:
    """In the home directory, in the root below system temp, in what is allowed there, and in memory."""
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    body = f"""
        import os, socket, sys, tempfile
        places = [{str(home)!r}, {str(root)!r}, {str(allowed)!r}, "/dev/shm"]
        for place in places:
            made = tempfile.mkdtemp(dir=place)
            a, b = made + "/a/a", made + "/b/b"
            os.makedirs(a), os.makedirs(b)
            with open(a + "/f", "w") as file:
                file.write("x")
            with open(a + "/f", "r+") as file:
                file.truncate()
            os.rename(a + "/f", b + "/f")
            os.link(b + "/f", a + "/g")
            os.rename(a, b + "/a")
            os.symlink("a", b + "/s"), os.mkfifo(b + "/p"), os.rename(b + "/p", b + "/q")
            with socket.socket(socket.AF_UNIX) as server:
                os.chdir(b)
                server.bind("socket")
            tempfile.TemporaryFile(dir=made).close()
            os.chdir("/")
            os.system(f"rm -r {{made}}")
            assert not os.path.exists(made)
        os.mkdir({str(root)!r} + "/d"), os.rename({str(root)!r} + "/d", {str(allowed)!r} + "/d")
        for device in ("/dev/null", "/dev/stdout", "/proc/self/comm"):
            with open(device, "w") as file:
                file.write("x")
        with open(os.memfd_create("x"), "w") as file, open(f"/proc/self/fd/{{file.fileno()}}", "w") as again:
            again.write("x")
    """
    program = (sys.executable, "-c", textwrap.dedent(body))
    for restricted in (True, False):
        done = run(restricted, *program, TMP_REDIRECT_ALLOW=str(allowed), TMPDIR=str(root))
        assert done.returncode == 0, done.stderr
        (allowed / "d").rmdir()
    assert run(True, *program, TMPDIR=str(root)).returncode != 0


def test_what_exists_in_system_temp(run: Run, creates: Path, tmp_path: Path, home: Path) -> None:
    """It is read, connected to and removed; to write it, it must be allowed, for no other right forbids O_TMPFILE."""
    file = tmp_path / "file"
    file.write_text("text")
    assert run(True, creates, "read", file).returncode == 0
    assert run(True, creates, "append", file).returncode == EACCES
    assert run(False, creates, "append", file).returncode == 0
    assert run(True, creates, "append", file, TMP_REDIRECT_ALLOW=str(file)).returncode == 0
    assert run(True, "truncate", "-s", "0", file).returncode != 0
    assert run(True, "mkdir", tmp_path).stderr.endswith("File exists\n")
    assert run(True, "ls", tmp_path).returncode == 0
    assert run(True, "chmod", "600", file).returncode == 0
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        assert run(True, creates, "connect", tmp_path / "s").returncode == 0
    assert run(True, creates, "rename", home / "file", file).returncode == EXDEV
    assert run(True, "mv", file, home / "file").returncode == 0
    assert (home / "file").read_text() == "text"
    assert run(True, creates, "unlink", tmp_path / "s").returncode == 0


def test_a_thousand_names_of_system_temp(run: Run, home: Path) -> None:
    """Each leads to a new file in system temp; the working directory is there too."""
    (home / "link").symlink_to("/tmp")
    (home / "above").symlink_to("/var")
    body = f"""
        import errno, itertools, os, sys
        os.chdir("/var/tmp")
        below, above = os.open("/tmp", os.O_PATH), os.open("/", os.O_RDONLY)
        starts = [
            "/tmp", "/var/tmp", "/var/../tmp", "/proc/self/root/tmp", "/proc/self/root/var/tmp", "/proc/self/cwd",
            {str(home)!r} + "/link", {str(home)!r} + "/above/tmp", ".", "..", "../../tmp",
            f"/proc/self/fd/{{below}}", f"/dev/fd/{{above}}/tmp",
        ]
        detours = ["", "/.", "/../tmp", "/../../tmp", "/./../tmp/.", "/../tmp/../tmp", "//.//"]
        slashes = ["/", "//", "///"]
        names = [{PROBE!r}, "." + {PROBE!r}, {PROBE!r} + " ", "-", "\\udcff", "\\u00e9\\u4e2d", "x" * 255]
        wrong = count = 0
        for start, detour, slash, name in itertools.product(starts, detours, slashes, names):
            path = start + detour + slash + name
            for form in (path, os.fsencode(path)):
                try:
                    os.close(os.open(form, os.O_CREAT | os.O_WRONLY))
                    os.unlink(form)
                    result = 0
                except OSError as error:
                    result = error.errno
                    if result == errno.ENOENT:  # a detour that leads nowhere from there
                        continue
                count += 1
                if result != int(sys.argv[1]):
                    wrong += 1
                    print(repr(form), result)
        for dir_fd, name in ((below, {PROBE!r}), (above, "tmp/" + {PROBE!r}), (above, "var/tmp/" + {PROBE!r})):
            try:
                os.mkdir(name, dir_fd=dir_fd)
                os.rmdir(name, dir_fd=dir_fd)
                result = 0
            except OSError as error:
                result = error.errno
            wrong += result != int(sys.argv[1])
        print(count)
        sys.exit(wrong > 0)
    """
    for restricted, expected in ((True, EACCES), (False, 0)):
        done = run(restricted, sys.executable, "-c", textwrap.dedent(body), str(expected))
        assert done.returncode == 0, done.stdout + done.stderr
        assert int(done.stdout) > 1000


@pytest.mark.parametrize("directory", ["/", "/var", "/usr"])
def test_directories_that_hold_system_temp_get_nothing_new(run: Run, creates: Path, directory: str) -> None:
    """A limit: Landlock can't allow a directory without all that is in it."""
    path = Path(directory) / PROBE
    if not os.access(directory, os.W_OK):
        pytest.skip(f"{directory} can't be written here anyway")
    try:
        assert run(True, creates, "fopen", path).returncode == EACCES
        assert run(False, creates, "fopen", path).returncode == 0
        assert run(True, creates, "append", path).returncode == 0
        assert run(True, creates, "unlink", path).returncode == 0
    finally:
        remove(path)


def test_a_root_or_an_allowed_path_that_cannot_be_excepted(
    python: Callable[..., str], tmp_path: Path, home: Path
) -> None:
    (tmp_path / "link").symlink_to("/var")
    (home / "link").symlink_to("/tmp")
    body = """
        import sys
        print(refusal(**{sys.argv[1]: sys.argv[2]}))
        assert can_create("/tmp/tmp-redirect-probe") is None and not kernel.is_restricted()
    """
    holds = "nothing that is or holds a system temp directory"
    missing = "what lies in system temp must exist when a process starts"
    for variable, path, reason in (
        ("TMP_REDIRECT_ROOT", tmp_path / "missing", missing),
        ("TMP_REDIRECT_ROOT", "/var", holds),
        ("TMP_REDIRECT_ROOT", home / "link", holds),
        ("TMP_REDIRECT_ALLOW", tmp_path / "missing", missing),
        ("TMP_REDIRECT_ALLOW", tmp_path / "link", holds),
    ):
        told = python(body.replace("sys.argv[1]", repr(variable)).replace("sys.argv[2]", repr(str(path))))
        assert told == f"SettingsError: {variable}={str(path)!r} is not allowed: with the guard layer kernel, {reason}"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("EPERM", "the seccomp profile of the container forbids Landlock; allow landlock_create_ruleset, "),
        ("ENOSYS", "this kernel has no Landlock, or the seccomp profile of the container hides it; use Linux 5.19 or "),
        ("EOPNOTSUPP", "Landlock is switched off in this kernel; add landlock to lsm= "),
        ("ENOSPC", "Landlock failed ([Errno 28] No space left on device); look for a later landlockpy, "),
    ],
)
def test_landlock_cannot_be_had(python: Callable[..., str], error: str, reason: str) -> None:
    for first in (444, 446):
        told = python(
            SECCOMP
            + textwrap.dedent(f"""
            assert kernel.availability().reason is None
            forbid({first}, errno.{error})
            print(kernel.availability())
            print(refusal())
            assert can_create("/tmp/tmp-redirect-probe") is None and not kernel.is_restricted()
            """)
        ).splitlines()
        prefix = "the guard layer kernel can't be installed: " + reason
        assert told[1].startswith("KernelLayerError: " + prefix)
        assert told[1].endswith(", or take kernel out of TMP_REDIRECT_GUARD")
        if first == 444:
            assert told[0].startswith("Availability(abi=0, reason=") and prefix[:60] in told[0].replace("\\'", "'")
        else:
            assert told[0].endswith("reason=None)")


def test_other_reasons_why_it_cannot_be_had(python: Callable[..., str]) -> None:
    for change, reason in (
        ("sys.platform = 'darwin'", "it needs Linux, and this is darwin; "),
        (
            "sys.modules['landlockpy'] = None",
            "it needs landlockpy (import of landlockpy halted; None in sys.modules); ",
        ),
        (
            "import landlockpy; landlockpy._syscall.abi_version = lambda: 1",
            "with Landlock ABI 1, every rename and link ",
        ),
        ("import threading; threading.Thread(target=time.sleep, args=(1,)).start()", "this process has 2 threads, "),
    ):
        body = f"import sys, time, landlockpy; landlockpy._syscall.abi_version = lambda: 7; {change}; print(refusal())"
        told = python(body + "\nassert can_create('/tmp/tmp-redirect-probe') is None")
        assert told.startswith("KernelLayerError: the guard layer kernel can't be installed: " + reason), told
        assert len(told.splitlines()) == 1
    assert (
        python("import landlockpy; landlockpy._syscall.abi_version = lambda: 1; print(kernel.availability().abi)")
        == "1"
    )


@pytest.mark.parametrize("abi", range(2, 11))
def test_each_version_of_the_interface(python: Callable[..., str], abi: int) -> None:
    """The rights are those of ABI 2; with threads, from ABI 8 on, all are restricted."""
    body = f"""
        import landlockpy, threading
        landlockpy._syscall.abi_version = lambda: {abi}
        assert kernel.availability() == ({abi}, None)
        if {abi} >= 8:
            flags = []
            landlockpy.Ruleset.restrict = lambda self, flag, no_new_privs=True: flags.append(flag)
            event = threading.Event()
            threading.Thread(target=event.wait, daemon=True).start()
            assert "is installed, but system temp can be written all the same" in refusal()
            event.set()
            assert flags == [landlockpy.RestrictFlag.TSYNC]
        else:
            install()
            assert can_create("/tmp/tmp-redirect-probe") == {EACCES}
    """
    python(body)


def test_it_is_recognised(python: Callable[..., str], tmp_path: Path) -> None:
    """By the environment and an attempt: the environment alone proves nothing, and the attempt leaves nothing."""
    child = (
        "import sys\n"
        "from services.common.tmp_redirect import kernel\n"
        "from services.common.tmp_redirect.settings import Settings\n"
        "assert kernel.is_restricted()\n"
        "kernel.install(Settings({'TMP_REDIRECT': 'enforce'}))\n"
        "assert not {'landlockpy', 'ctypes', 'subprocess', 'typing'} & set(sys.modules)\n"
    )
    python(f"""
        import subprocess, sys
        assert not kernel.is_restricted()
        os.environ[{MARK!r}] = "1"
        before = os.listdir("/tmp"), os.listdir("/var/tmp")
        assert not kernel.is_restricted()
        assert (os.listdir("/tmp"), os.listdir("/var/tmp")) == before
        install()
        assert kernel.is_restricted() and can_create("/tmp/tmp-redirect-probe") == {EACCES}
        assert "landlockpy" in sys.modules
        subprocess.run([sys.executable, "-S", "-c", {child!r}], check=True)
    """)


def test_a_tree_that_has_forgotten_is_restricted_again(python: Callable[..., str]) -> None:
    told = python(f"""
        for _ in range(16):
            install()
            del os.environ[{MARK!r}]
        print(refusal())
        assert can_create("/tmp/tmp-redirect-probe") == {EACCES}
        assert can_create(os.environ["TMP_REDIRECT_ROOT"] + "/x") is None
    """)
    assert "16 rulesets, the most that Landlock takes, restrict this process already" in told


def test_privileges(python: Callable[..., str]) -> None:
    """no_new_privs is set only where the kernel demands it."""
    body = f"""
        install()
        assert can_create("/tmp/tmp-redirect-probe") == {EACCES}
        with open("/proc/self/status") as status:
            print(status.read().split("NoNewPrivs:")[1].split()[0])
    """
    effective = int(Path("/proc/self/status").read_text(encoding="ascii").split("CapEff:")[1].split()[0], 16)
    may = bool(effective >> 21 & 1)  # CAP_SYS_ADMIN
    assert python(body) == ("0" if may else "1")
    if may and shutil.which("setpriv"):
        assert python(body, "setpriv", "--bounding-set", "-sys_admin") == "1"


def test_warn_lets_everything_through(python: Callable[..., str]) -> None:
    python("""
        install(TMP_REDIRECT="warn")
        assert not kernel.is_restricted() and can_create("/tmp/tmp-redirect-probe") is None
    """)


def test_the_error_crosses_process_pools() -> None:
    error = KernelLayerError("reason")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.args, str(again)) == (KernelLayerError, error.args, "reason")


def in_mounts(
    script: str, run: Run, *arguments: str | Path, restricted: bool, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run the shell script, and then the arguments, in a mount namespace of their own."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("a mount namespace of one's own is not allowed here")
    launcher = [sys.executable, "-c", LAUNCHER, str(restricted), *map(str, arguments)]
    return run(False, "unshare", "-m", "sh", "-ec", script + '\nexec "$@"', "sh", *launcher, **env)


@pytest.mark.parametrize(
    ("mounts", "refused", "allowed"),
    [
        ("mount -t tmpfs x /var/tmp", ["/var/tmp/x"], ["$HOME_/x"]),
        ("mount --bind /var/tmp /mnt", ["/var/tmp/x", "/mnt/x"], ["$HOME_/x"]),
        ("mount --bind / /mnt", ["/var/tmp/x", "/mnt/x", "/mnt/var/tmp/x"], ["$HOME_/x"]),
        ("mount --bind /var /srv", ["/var/tmp/x", "/srv/x", "/srv/tmp/x"], ["/var/lib/tmp-redirect-x"]),
        ("mount --bind $HOME_ /var/tmp", ["/var/tmp/x"], ["$HOME_/x"]),
        ("mkdir -p $HOME_/b; mount --bind /var/tmp $HOME_/b", ["/var/tmp/x"], ["$HOME_/x", "$HOME_/b/x"]),
    ],
)  # fmt: skip
def test_mounts(run: Run, home: Path, mounts: str, refused: list[str], allowed: list[str]) -> None:
    def attempts(paths: list[str]) -> str:
        return "; ".join(f"mkdir {path} 2>/dev/null && rmdir {path} && echo {path}" for path in paths)

    for restricted in (True, False):
        done = in_mounts(
            mounts, run, "sh", "-c", attempts(refused + allowed) + "; true", restricted=restricted, HOME_=str(home)
        )
        assert done.returncode == 0, done.stderr
        made = [path.replace(str(home), "$HOME_") for path in done.stdout.split()]
        assert made == (allowed if restricted else refused + allowed)


def test_system_temp_is_a_link(run: Run, home: Path, overlay: Path, env: dict[str, str]) -> None:
    """In a root directory with the same entries, where `/tmp` leads to `/scratch/tmp` and `/var` to `/scratch/var`."""
    shutil.copytree(overlay, home / "overlay")
    new = home / "new"
    script = f"""
        mkdir -p {new} && mount -t tmpfs x {new}
        mkdir -p {new}/scratch/tmp {new}/scratch/var/tmp {new}/scratch/var/lib {new}/scratch/other
        ln -s scratch/tmp {new}/tmp; ln -s scratch/var {new}/var
        for entry in /*; do
            name=${{entry#/}}
            if [ -h $entry ]; then [ -h {new}/$name ] || cp -P $entry {new}/
            elif [ $name != tmp ] && [ $name != var ] && [ -d $entry ]; then
                mkdir {new}/$name; mount --rbind $entry {new}/$name
            fi
        done
        cd {new} && pivot_root . . && umount -l .
    """
    unnamed = "import os; os.open('/tmp', os.O_TMPFILE | os.O_RDWR); print('unnamed')"
    body = (
        "for path in /tmp/x /var/tmp/x /scratch/tmp/x /scratch/var/tmp/x /scratch/x /scratch/var/x "
        "/scratch/other/x /var/lib/x; do mkdir $path 2>/dev/null && rmdir $path && echo $path; done; "
        f'{sys.executable} -c "{unnamed}" 2>/dev/null; true'
    )
    everything = body.partition("in ")[2].partition(";")[0].split()
    more = {"PYTHONPATH": str(home / "overlay"), "TMP_REDIRECT_ROOT": str(home)}
    done = in_mounts(script, run, "sh", "-c", body, restricted=True, **more)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["/scratch/other/x", "/var/lib/x"]
    done = in_mounts(script, run, "sh", "-c", body, restricted=False, **more)
    assert done.stdout.split() == [*everything, "unnamed"]


def test_a_restriction_that_does_not_hold_is_an_error(run: Run, home: Path, overlay: Path, root: Path) -> None:
    """In a chroot below a directory that is mounted in it again; Landlock asks what lies above the chroot too."""
    shutil.copytree(overlay, home / "overlay")
    new = home / "new"
    script = f'mkdir {new} && mount --rbind / {new} && exec chroot {new} "$@"'
    done = in_mounts(
        script, run, "true", restricted=True, PYTHONPATH=str(home / "overlay"), TMP_REDIRECT_ROOT=str(home)
    )
    assert (
        "KernelLayerError: the guard layer kernel is installed, but system temp can be written all the" in done.stderr
    )


@pytest.mark.promise
def test_the_shim_installs_it(shim_env: dict[str, str], root: Path) -> None:
    """At the start of the interpreter where the tree begins; those below see that it is."""
    made = Path("/tmp") / f"{PROBE}-{uuid.uuid4().hex}"
    write = f"os.system('exec 2>/dev/null; echo > {made}')"
    child = f"import os, sys, tempfile; tempfile.mkstemp(); sys.exit({write} >> 8)"
    code = (
        "import os, subprocess, sys, tempfile\n"
        f"assert {write} != 0\n"
        f"assert subprocess.run([sys.executable, '-c', {child!r}]).returncode == 2\n"
        "from services.common.tmp_redirect import workflow\n"
        "with workflow('wf-1'): tempfile.mkstemp()\n"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**shim_env, "TMP_REDIRECT_GUARD": "calls,kernel"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert not made.exists()
        assert len(list((root / "wf-1" / "tmp").iterdir())) == 1
        assert len(list((root / ".outside" / "svc" / "tmp").iterdir())) == 1
    finally:
        made.unlink(missing_ok=True)


def test_parents_are_not_executed(shim_env: dict[str, str], tmp_path: Path) -> None:
    lay_over(tmp_path / "app")
    for parent in ("services", "services/common"):
        (tmp_path / "app" / parent / "__init__.py").write_text("raise SystemExit('a parent was executed')")
    done = subprocess.run(
        [sys.executable, "-c", "import tempfile; tempfile.gettempdir()"],
        env={**shim_env, "TMP_REDIRECT_GUARD": "kernel", "PYTHONPATH": str(tmp_path / "app")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_shim_that_cannot_install_it_ends_the_process(shim_env: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import sys; sys.modules['landlockpy'] = None; import sitecustomize"],
        env={**shim_env, "TMP_REDIRECT": "enforce", "TMP_REDIRECT_GUARD": "kernel"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 78
    [line] = done.stderr.splitlines()
    assert line.startswith("tmp_redirect: can't start, the process ends with status 78: KernelLayerError: ")
    assert "install tmp-redirect[kernel]" in line
