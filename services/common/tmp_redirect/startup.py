"""What an interpreter start installs, and what is installed later, when a module is imported that it concerns.

Standard library only, and little of it: this runs in every process, thousands of short children included. So tier 0
(this file and what it imports) does without typing and `__future__`. Nor does it say `from . import module`, or import
a submodule before its package: the import system would then import `services` too.
"""

import sys

from .patches import Patches, installed, set_installed
from .settings import Settings, current, forget

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

PACKAGE = __name__.rpartition(".")[0]
# What is patched when a module is imported: our module that does it, and its function.
_PARTS = {
    "tempfile": ("redirect", "install"),
    "subprocess": ("propagate.subprocesses", "install"),
    "multiprocessing.spawn": ("propagate.multiprocess", "install_spawn"),
    "multiprocessing.util": ("propagate.multiprocess", "install_files"),
    "multiprocessing.connection": ("propagate.multiprocess", "install_sockets"),
    "billiard.spawn": ("propagate.multiprocess", "install_spawn"),
    "billiard.util": ("propagate.multiprocess", "install_files"),
    "billiard.connection": ("propagate.multiprocess", "install_sockets"),
    "gevent.os": ("propagate.subprocesses", "install_gevent"),
    "gevent.subprocess": ("propagate.subprocesses", "install"),
    "uvloop": ("propagate.subprocesses", "install_uvloop"),
    "gunicorn.config": ("integrations.gunicorn", "install"),
    "celery.app.trace": ("integrations.celery", "install"),
    "celery.canvas": ("integrations.celery", "install_canvas"),
    "celery.app.amqp": ("integrations.celery", "install_publisher"),
    "celery.app.task": ("integrations.celery", "install_task"),
    "celery.worker.request": ("integrations.celery", "install_request"),
    "prometheus_client": ("integrations.prometheus", "install"),
}
_SWITCHING_PARTS = {
    "threading": ("propagate.threads", "install"),
    "concurrent.futures._base": ("propagate.executors", "install_futures"),
    "concurrent.futures.thread": ("propagate.executors", "install_thread_pool"),
    "concurrent.futures.process": ("propagate.executors", "install_process_pool"),
    "loky.process_executor": ("propagate.executors", "install_process_pool"),
    "joblib.externals.loky.process_executor": ("propagate.executors", "install_process_pool"),
    "multiprocessing.pool": ("propagate.executors", "install_pool"),
    "multiprocessing.process": ("propagate.multiprocess", "install_process"),
    "billiard.process": ("propagate.multiprocess", "install_process"),
    "gevent.greenlet": ("propagate.greenlets", "install_gevent"),
    "gevent.threadpool": ("propagate.greenlets", "install_gevent_threads"),
    "eventlet.greenthread": ("propagate.greenlets", "install_eventlet"),
    "eventlet.tpool": ("propagate.greenlets", "install_eventlet_threads"),
}
# Their caches must outlive a workflow, which our module libraries sees to before they are imported.
_LIBRARIES = (
    "audio_separator",
    "fastembed",
    "joblib",
    "matplotlib",
    "numba",
    "tensorflow_hub",
    "tiktoken",
    "torch",
    "triton",
)


def install(on_failure: "Callable[[BaseException], None] | None" = None) -> None:
    """Install the shim as the settings say; nothing where it is off or at work already.

    Parts that concern modules not imported yet follow when these are. If one of them fails then, `on_failure` is
    called with the exception, or it is raised from the import.

    Raises `SettingsError`, or what a patch raised; the patches made before it are undone.
    """
    if installed() is not None:
        return
    settings = current()
    if settings.mode == "off":
        return
    if sys.platform != "linux":
        from .errors import SettingsError

        raise SettingsError("TMP_REDIRECT", settings.mode, f"only off on {sys.platform}: the shim needs Linux")
    patches = Patches(on_failure)
    set_installed(patches)
    try:
        _install_parts(settings, patches)
    except BaseException:
        uninstall()
        raise


def uninstall() -> None:
    """Put everything back as it was before `install`, and forget the settings; nothing where the shim isn't at work."""
    patches = installed()
    if patches is not None:
        patches.undo()
        set_installed(None)
    forget()


def is_active() -> bool:
    """Whether the shim is at work in this process."""
    return installed() is not None


def _install_parts(settings: Settings, patches: Patches) -> None:
    if "kernel" in settings.guard:
        from .kernel import install as restrict

        restrict(settings)
    _configure_scope(settings.scope)
    patches.on_undo(lambda: _configure_scope(None))
    if "calls" in settings.guard:
        from .calls import install as install_calls

        install_calls(patches)
    if "audit" in settings.guard:
        __import__(f"{PACKAGE}.guard", fromlist=["install_audit"]).install_audit(patches)
    for module, (home, function) in _PARTS.items():
        patches.when_imported(module, _part(home, function))
    pin = _part("libraries", "install")
    for library in _LIBRARIES:
        patches.before_import(library, pin)
    patches.when_switching(_install_for_switching)
    _bind_to_parents(patches)


def _install_for_switching(patches: Patches) -> None:
    """What is needed where the scope of the process, which its environment names, isn't the only one."""
    for module, (home, function) in _SWITCHING_PARTS.items():
        patches.when_imported(module, _part(home, function))
    __import__("subprocess")  # with which the functions of os that start children pass the scope on
    for module in ("observers", "lifecycle", "workspace", "propagate.environment"):
        _load(module)  # what the first task needs: see `loading`


def _part(home: str, function: str) -> "Callable[[Any, Patches], None]":
    """The `function` of our module `home`, which is loaded when it is called."""

    def install_part(module: "Any", patches: Patches) -> None:
        getattr(_load(home), function)(module, patches)

    return install_part


def _load(home: str) -> "Any":
    """Our module `home`."""
    package = home.rpartition(".")[0]
    if package:
        __import__(f"{PACKAGE}.{package}", fromlist=["__path__"])
    return __import__(f"{PACKAGE}.{home}", fromlist=["__name__"])


def _configure_scope(workflow: str | None) -> None:
    """Tell the module scope, if it is loaded; when it loads, it asks the settings itself."""
    scope = sys.modules.get(f"{PACKAGE}.scope")
    if scope is not None:
        scope.configure(workflow)


def _bind_to_parents(patches: Patches) -> None:
    """Make `import services.common.tmp_redirect` find this package below parents that are imported after it.

    The import system takes the package from `sys.modules` and imports of its parents only the first, `services`.
    """
    top, parent, name = PACKAGE.split(".")

    def import_parent(attribute: str) -> "ModuleType":
        if attribute != parent:
            raise AttributeError(f"module {top!r} has no attribute {attribute!r}")
        __import__(f"{top}.{parent}")
        return sys.modules[f"{top}.{parent}"]

    def bind_parent(module: "ModuleType", _: Patches) -> None:
        module.__dict__.setdefault("__getattr__", import_parent)  # PEP 562

    def bind_package(module: "ModuleType", _: Patches) -> None:
        module.__dict__.setdefault(name, sys.modules[PACKAGE])

    patches.when_imported(top, bind_parent)
    patches.when_imported(f"{top}.{parent}", bind_package)
