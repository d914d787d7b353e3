"""The `calls` layer of the guard: the Python functions that create files, with a check in front.

Each replacement is a bound method. Unlike a plain function it does not become a method of a class that keeps it as an
attribute (`open = io.open` in pathlib and logging), and it costs less than an object with `__call__`: 1.01x to 1.05x
of `open` against 1.03x to 1.07x. The method has the name of what it replaces, and its object is pickled as the module
that it stands for, so `executor.submit(os.mkdir, path)` works in process pools as before. What a method needs it finds
in its object: when the interpreter ends, modules lose their names before the last `__del__` has run.

What it doesn't see: C code, `io.FileIO`, `_io.open`, `posix.mkdir`, and functions bound by name before the shim; nor
that an absolute path outside system temp leads there by a link.
"""

import builtins
import io
import os
import sys

from .patches import loading
from .settings import SYSTEM_TEMP_PREFIXES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

    from .patches import Patches

UNNAMED = os.O_TMPFILE & ~os.O_DIRECTORY
CREATING = os.O_CREAT | UNNAMED
LOCATING = os.O_PATH  # with it open(2) ignores those, and creates nothing


class StandIn:
    """Stands for the module `name`, whose functions its methods replace."""

    name: str
    prefixes = SYSTEM_TEMP_PREFIXES
    os = os
    loading = loading
    working_directory = staticmethod(os.getcwd)
    policy: "Any" = None

    def __reduce__(self) -> "tuple[Any, ...]":
        from importlib import import_module

        return import_module, (self.name,)

    def check(self, call: str, path: object, *args: "Any", **options: "Any") -> None:
        """See `guard.check`, which is loaded with the first path that needs a look."""
        if type(path) is int:
            return  # a file descriptor
        if type(path) is str and args[:1] in ((), (None,)) and self.is_plainly_elsewhere(path):
            return
        try:
            if self.os.getcwd is None:
                raise ImportError
            if self.policy is None:
                with self.loading:
                    from .guard import check

                type(self).policy = staticmethod(check)
        except Exception:  # noqa: BLE001 - the interpreter ends: nothing can be imported, and modules lose their names
            if isinstance(path, str) and path.startswith(("/tmp/", "/var/tmp/")):  # noqa: S108
                raise PermissionError(
                    13, "tmp_redirect refused a file in system temp while the interpreter ends", path
                ) from None
        else:
            self.policy(call, path, *args, **options)

    def is_plainly_elsewhere(self, path: str) -> bool:
        """Whether a relative path, the usual kind that needs a look, leads elsewhere than to system temp.

        For that nothing needs to be loaded: a program may count what is imported, or be in the midst of an import.
        """
        if path[:1] == "/":
            return False
        try:
            name = f"{self.working_directory()}/{path}/"
        except OSError:
            return False
        return "/.." not in name and not self.is_suspect(name)

    def is_suspect(self, path: "Any") -> bool:
        """Whether `path` needs a look: all but an absolute str that plainly leads elsewhere than to system temp."""
        return (
            type(path) is not str or path[:1] != "/" or path.startswith(self.prefixes)
            or "//" in path or ("/." in path and ("/./" in path or "/../" in path))
        )  # fmt: skip


class _Io(StandIn):
    name = "io"
    original: "Any" = staticmethod(io.open)
    reading = frozenset(("r", "rb", "rt", "r+", "r+b", "rb+"))  # the usual ones: the rest is told by its letter

    def open(  # the signature of io.open: passing on by position is what keeps it cheap
        self,
        file: "Any",
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: "Any" = None,
    ) -> "Any":
        if mode not in self.reading and (  # is_suspect, without the call
            type(file) is not str or file[:1] != "/" or file.startswith(self.prefixes)
            or "//" in file or ("/." in file and ("/./" in file or "/../" in file))
        ) and "r" not in mode and opener is None:  # fmt: skip
            self.check("open", file)  # an opener creates with os.open, and tempfile's is given the directory
        return self.original(file, mode, buffering, encoding, errors, newline, closefd, opener)


class _IoThatWarns(_Io):
    """For `-X warn_default_encoding`: the warning is about the line that calls `open`, not about one of this file."""

    def open(
        self,
        file: "Any",
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        *rest: "Any",
        **options: "Any",
    ) -> "Any":
        if encoding is None and "b" not in mode:
            encoding = io.text_encoding(encoding, 2)  # type: ignore[attr-defined]
        return super().open(file, mode, buffering, encoding, *rest, **options)


class _Os(StandIn):
    name = "os"
    names = ("open", "mkdir", "mkfifo", "mknod", "rename", "replace", "link", "symlink")
    unnamed = UNNAMED
    creating = CREATING
    locating = LOCATING

    def __init__(self) -> None:
        self.originals = {name: getattr(os, name) for name in self.names}
        self._open = os.open

    def open(self, path: "Any", flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        try:
            creates = flags & self.creating
        except TypeError:
            creates = 0  # the original says what is wrong
            if hasattr(flags, "__index__"):
                flags = flags.__index__()
                creates = flags & self.creating
        if creates and (  # is_suspect, without the call
            type(path) is not str or path[:1] != "/" or path.startswith(self.prefixes)
            or "//" in path or ("/." in path and ("/./" in path or "/../" in path)) or flags & self.unnamed
        ) and not flags & self.locating:  # fmt: skip
            self.check("os.open", path, dir_fd, inside=flags & self.unnamed != 0)
        return self._open(path, flags, mode, dir_fd=dir_fd)

    def mkdir(self, path: "Any", mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        self._check_new("mkdir", path, dir_fd)
        self.originals["mkdir"](path, mode, dir_fd=dir_fd)

    def mkfifo(self, path: "Any", mode: int = 0o666, *, dir_fd: int | None = None) -> None:
        self._check_new("mkfifo", path, dir_fd)
        self.originals["mkfifo"](path, mode, dir_fd=dir_fd)

    def mknod(self, path: "Any", mode: int = 0o600, device: int = 0, *, dir_fd: int | None = None) -> None:
        self._check_new("mknod", path, dir_fd)
        self.originals["mknod"](path, mode, device, dir_fd=dir_fd)

    def rename(self, src: "Any", dst: "Any", *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
        if self.is_suspect(dst):
            self.check("os.rename", dst, dst_dir_fd)
        self.originals["rename"](src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    def replace(self, src: "Any", dst: "Any", *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
        if self.is_suspect(dst):
            self.check("os.replace", dst, dst_dir_fd)
        self.originals["replace"](src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    def link(self, src: "Any", dst: "Any", *, dst_dir_fd: int | None = None, **options: "Any") -> None:
        self._check_new("link", dst, dst_dir_fd)
        if dst_dir_fd is not None:
            options["dst_dir_fd"] = dst_dir_fd
        self.originals["link"](src, dst, **options)

    def symlink(self, src: "Any", dst: "Any", target_is_directory: bool = False, *, dir_fd: int | None = None) -> None:
        self._check_new("symlink", dst, dir_fd)
        self.originals["symlink"](src, dst, target_is_directory, dir_fd=dir_fd)

    def _check_new(self, name: str, path: "Any", dir_fd: int | None) -> None:
        """Check a call that creates nothing, but fails, where the path exists already."""
        if self.is_suspect(path):
            self.check(f"os.{name}", path, dir_fd, new=True)


for _method, _original in ((_Io.open, io.open), *((getattr(_Os, name), getattr(os, name)) for name in _Os.names)):
    _method.__doc__, _method.__module__ = _original.__doc__, _original.__module__

_OS = _Os()
_GUARDED = {name: getattr(_OS, name) for name in _Os.names}
_GUARDED_OPEN = (_IoThatWarns if sys.flags.warn_default_encoding else _Io)().open


def install(patches: "Patches") -> None:
    """Put the check in front of the functions; of sqlite3 when it is imported."""
    for name, guarded in _GUARDED.items():
        patches.replace(os, name, guarded)
        for capable in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
            # shutil.rmtree is safe against symlink attacks only if it finds os.open in these sets.
            if _OS.originals[name] in capable:
                capable.add(guarded)
                patches.on_undo(lambda c=capable, g=guarded: c.discard(g))  # type: ignore[misc]
    for module in (io, builtins):
        patches.replace(module, "open", _GUARDED_OPEN)
    patches.when_imported("sqlite3", _install_sqlite3)
    patches.when_imported("inspect", _install_inspect)
    if sys.version_info < (3, 11):
        patches.when_imported("pathlib", _install_pathlib)


def _install_inspect(module: "ModuleType", patches: "Patches") -> None:
    """Have the replacements pass for the builtins that they replace: that is how pyfakefs knows what it has to fake."""
    original, method, ours = module.isbuiltin, type(_GUARDED_OPEN), {*_GUARDED.values(), _GUARDED_OPEN}

    def isbuiltin(object: "Any") -> bool:  # noqa: A002 - its name in inspect
        return original(object) or (type(object) is method and object in ours)

    isbuiltin.__doc__ = original.__doc__
    patches.replace(module, "isbuiltin", isbuiltin)


def _install_sqlite3(module: "ModuleType", patches: "Patches") -> None:
    from .guard import install_sqlite

    install_sqlite(module, patches)


def _install_pathlib(module: "ModuleType", patches: "Patches") -> None:
    """Python 3.10's pathlib keeps functions of os in a class, as they were when it was imported."""
    accessor = module._NormalAccessor
    for name in ("open", "mkdir", "rename", "replace", "link", "symlink"):
        original, guarded = (_Io.original, _GUARDED_OPEN) if name == "open" else (_OS.originals[name], _GUARDED[name])
        setattr(accessor, name, guarded)
        patches.on_undo(lambda n=name, o=original: setattr(accessor, n, o))  # type: ignore[misc]
