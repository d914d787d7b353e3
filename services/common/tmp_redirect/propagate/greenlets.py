"""A greenlet of gevent or eventlet belongs to the workflow of the code that spawned it, as do calls in their threads.

A greenlet begins with an empty context (PEP 567); it is given one that holds the scope and nothing else.
"""

from contextvars import Context
from functools import partial
from types import ModuleType
from typing import Any

from ..patches import Patches
from ..scope import adopt, call_in, current
from .wrapping import wrap


def install_gevent(module: ModuleType, patches: Patches) -> None:
    """Have greenlets of the module `gevent.greenlet` pass the scope on."""
    module.Greenlet.add_spawn_callback(_begin)
    patches.on_undo(partial(module.Greenlet.remove_spawn_callback, _begin))


def install_gevent_threads(module: ModuleType, patches: Patches) -> None:
    """Have calls in the threads of the module `gevent.threadpool` carry the scope."""
    wrap(patches, module.ThreadPool, "spawn", _call_in_thread_of_pool)


def install_eventlet(module: ModuleType, patches: Patches) -> None:
    """Have greenlets of the module `eventlet.greenthread` pass the scope on."""
    wrap(patches, module.GreenThread, "__init__", _green_thread)
    wrap(patches, module, "_spawn_n", _spawn_n)


def install_eventlet_threads(module: ModuleType, patches: Patches) -> None:
    """Have calls in the threads of the module `eventlet.tpool` carry the scope."""
    wrap(patches, module, "execute", _call_in_thread)


def _begin(greenlet: Any) -> None:
    if greenlet.gr_context is None:
        context = Context()
        context.run(adopt, current())
        greenlet.gr_context = context


def _green_thread(original: Any, thread: Any, /, *args: Any, **options: Any) -> None:
    original(thread, *args, **options)
    _begin(thread)


def _spawn_n(original: Any, /, *args: Any, **options: Any) -> Any:
    timer, greenlet = original(*args, **options)
    _begin(greenlet)
    return timer, greenlet


def _call_in_thread_of_pool(original: Any, pool: Any, /, *args: Any, **options: Any) -> Any:
    return original(pool, call_in, current(), *args, **options) if args else original(pool, **options)


def _call_in_thread(original: Any, /, *args: Any, **options: Any) -> Any:
    return original(call_in, current(), *args, **options) if args else original(**options)
