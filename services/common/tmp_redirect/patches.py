"""What an installation changes: attributes that are replaced, at once or when their module is imported, and put back.

Nothing is imported that the program doesn't use. A finder at the head of `sys.meta_path` (PEP 451) passes the few
names it knows to the other finders, and lends the spec a loader that runs a hook before or after the module's code.
That loader puts the module's own loader back first, so the module looks as it always did. A reload goes the same way.
"""

import os
import sys
from _thread import RLock  # threading would be an import at every interpreter start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

    Hook = Callable[[ModuleType], None]
    Install = Callable[[ModuleType, "Patches"], None]

# Held while a part is installed or loaded that a temp file or a child needs first. A forked process has no other
# threads: what one of them was importing is never there, and whoever imports it waits for ever. So a fork waits.
loading = RLock()
_FORK_PATIENCE = 10  # seconds: who is loading may itself wait for a lock that forking takes, such as that of logging


def _before_fork() -> None:
    loading.acquire(timeout=_FORK_PATIENCE)


def _after_fork() -> None:
    if loading._is_owned():  # type: ignore[attr-defined]
        loading.release()


def _after_fork_in_child() -> None:
    if loading._is_owned():  # type: ignore[attr-defined]
        loading.release()
    else:
        loading._at_fork_reinit()  # type: ignore[attr-defined]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)


class Patches:
    """The changes of one installation, each recorded as it is made, so that `undo` can be called at any time.

    `on_failure` is called with what a part raises that is installed later, with an import; without it, the import
    raises that.
    """

    def __init__(self, on_failure: "Callable[[BaseException], None] | None" = None) -> None:
        self._undo: "list[Callable[[], object]]" = []
        self._on_failure = on_failure
        self._finder: "_Finder | None" = None
        self._for_switching: "Callable[[Patches], None] | None" = None

    def replace(self, owner: object, name: str, new: object) -> None:
        """Set `owner.name`; raises `AttributeError` where the attribute doesn't exist, and says which."""
        missing = object()
        old = getattr(owner, name, missing)
        if old is missing:
            raise AttributeError(f"{getattr(owner, '__name__', owner)} has no {name} to patch in this Python")
        inherited = name not in vars(owner)
        setattr(owner, name, new)
        self.on_undo(lambda: delattr(owner, name) if inherited else setattr(owner, name, old))

    def on_undo(self, action: "Callable[[], object]") -> None:
        """Have `undo` call `action`."""
        self._undo.append(action)

    def before_import(self, name: str, install: "Callable[[str, Patches], None]") -> None:
        """Call `install(name, patches)` before the module `name` is imported or reloaded; now too if it is already.

        If it raises, what it changed is undone.
        """

        def hook() -> None:
            self._install(lambda part: install(name, part))

        self._watch().before[name] = hook
        if sys.modules.get(name) is not None:  # None keeps a module from being imported
            hook()

    def when_imported(self, name: str, install: "Install") -> None:
        """Call `install(module, patches)` when the module `name` is imported or reloaded; now too if it is already.

        If it raises, what it changed is undone.
        """

        def hook(module: "ModuleType") -> None:
            self._install(lambda part: install(module, part))

        self._watch().after[name] = hook
        if name in sys.modules:
            if getattr(getattr(sys.modules[name], "__spec__", None), "_initializing", False):
                __import__(name, fromlist=["__name__"])  # waits for the thread that is importing it
            hook(sys.modules[name])

    def when_switching(self, install: "Callable[[Patches], None]") -> None:
        """Call `install(patches)` before the process first enters a scope."""
        self._for_switching = install

    def install_for_switching(self) -> None:
        """Install what a process needs that switches between workflows; nothing if that is done."""
        if self._for_switching is not None:
            with loading:  # the first requests of a gateway may come at once
                if self._for_switching is not None:
                    self._install(self._for_switching)
                    self._for_switching = None

    def _watch(self) -> "_Finder":
        if self._finder is None:
            finder = self._finder = _Finder()
            sys.meta_path.insert(0, finder)
            self.on_undo(lambda: sys.meta_path.remove(finder))
        return self._finder

    def _install(self, install: "Callable[[Patches], None]") -> None:
        part = Patches(self._on_failure)
        try:
            install(part)
        except BaseException as error:
            part.undo()
            if self._on_failure is None:
                raise
            self._on_failure(error)
        else:
            self.on_undo(part.undo)

    def undo(self) -> None:
        """Put back the identical original objects, the latest first."""
        while self._undo:
            self._undo.pop()()


class _Finder:
    def __init__(self) -> None:
        self.before: "dict[str, Callable[[], None]]" = {}
        self.after: "dict[str, Hook]" = {}

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        before, after = self.before.get(name), self.after.get(name)
        if before is None and after is None:
            return None
        for finder in sys.meta_path:
            if finder is not self and hasattr(finder, "find_spec"):
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    loader = spec.loader or _namespace_loader(spec)
                    spec.loader = _HookedLoader(loader, before, after)  # type: ignore[assignment]
                    return spec
        return None


class _HookedLoader:
    """A module's own loader, and hooks before and after it."""

    def __init__(self, loader: "Loader", before: "Callable[[], None] | None", after: "Hook | None") -> None:
        self._loader = loader
        self._before = before
        self._after = after

    def create_module(self, spec: "ModuleSpec") -> "ModuleType | None":
        return self._loader.create_module(spec)

    def exec_module(self, module: "ModuleType") -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        if self._before is not None:
            self._before()
        self._loader.exec_module(module)
        if self._after is not None:
            self._after(module)

    def __getattr__(self, name: str) -> "Any":
        # runpy and pkgutil ask a spec's loader for get_code, get_data, is_package.
        return getattr(self._loader, name)


def _namespace_loader(spec: "ModuleSpec") -> "Loader":
    """What the import system gives a namespace package, whose spec comes without a loader."""
    import _frozen_importlib_external as importer

    # Public, and without the underscore, from Python 3.11 on.
    kind = getattr(importer, "NamespaceLoader", None) or importer._NamespaceLoader
    loader: "Any" = kind.__new__(kind)
    loader._path = spec.submodule_search_locations
    return loader  # type: ignore[no-any-return]


_installed: Patches | None = None


def installed() -> Patches | None:
    """The patches of the shim while it is at work in this process."""
    return _installed


def set_installed(patches: Patches | None) -> None:
    """Remember that the shim is at work, or no more."""
    global _installed
    _installed = patches
