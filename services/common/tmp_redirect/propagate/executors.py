"""A work item of a pool belongs to the workflow of the code that submitted it.

The threads and processes of a pool outlive the task that made it, and are shared: so each item carries its scope, and
each callback that of the code that added it. Into a process it travels as the workflow id.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

from ..patches import Patches, installed
from ..scope import Scope, call_in, current, current_workflow, enter, leave
from .environment import Environment
from .wrapping import wrap

_IN_INTERPRETERS = "InterpreterPoolExecutor"  # of Python 3.14: a ThreadPoolExecutor that pickles its work items


def install_futures(module: ModuleType, patches: Patches) -> None:
    """Have callbacks of futures of the module `concurrent.futures._base` carry the scope."""
    wrap(patches, module.Future, "add_done_callback", _add_done_callback)


def install_thread_pool(module: ModuleType, patches: Patches) -> None:
    """Have work items of the module `concurrent.futures.thread` carry the scope."""
    wrap(patches, module.ThreadPoolExecutor, "submit", _submit_to_thread)


def install_process_pool(module: ModuleType, patches: Patches) -> None:
    """Have work items of the module `concurrent.futures.process`, or of loky's, carry the workflow."""
    wrap(patches, module.ProcessPoolExecutor, "submit", _submit_to_process)


def install_pool(module: ModuleType, patches: Patches) -> None:
    """Have work items of the module `multiprocessing.pool` carry the scope, or the workflow into its processes."""

    def carried(pool: Any, func: Any) -> Any:
        if isinstance(pool, module.ThreadPool):
            return _here(func)
        return partial(_call_for, current_workflow(), func)

    def apply_async(
        original: Any,
        pool: Any,
        func: Any,
        args: Any = (),
        kwds: Any = None,
        callback: Any = None,
        error_callback: Any = None,
    ) -> Any:
        return original(pool, carried(pool, func), args, kwds or {}, _here(callback), _here(error_callback))

    def map_async(
        original: Any,
        pool: Any,
        func: Any,
        iterable: Any,
        mapper: Any,
        chunksize: Any = None,
        callback: Any = None,
        error_callback: Any = None,
    ) -> Any:
        callbacks = _here(callback), _here(error_callback)
        return original(pool, carried(pool, func), iterable, mapper, chunksize, *callbacks)

    def imap(original: Any, pool: Any, func: Any, iterable: Any, chunksize: int = 1) -> Any:
        return original(pool, carried(pool, func), _items_in(current(), iterable), chunksize)

    for name, wrapper in (
        ("apply_async", apply_async),
        ("_map_async", map_async),
        ("imap", imap),
        ("imap_unordered", imap),
    ):
        wrap(patches, module.Pool, name, wrapper)


_environment: tuple[int, Environment] | None = None


def _call_for(workflow: str | None, function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
    """Call `function` for `workflow`, in a process of a pool, which takes one item at a time."""
    global _environment
    if installed() is None or current_workflow() == workflow:
        return function(*args, **options)
    if _environment is None or _environment[0] != os.getpid():
        _environment = os.getpid(), Environment()
    environment = _environment[1]
    scope = enter(workflow)
    try:
        environment.follow(scope)
        return function(*args, **options)
    finally:
        leave(scope)
        environment.follow(current())


def _submit_to_thread(original: Any, executor: Any, /, *args: Any, **options: Any) -> Any:
    if not args or type(executor).__name__ == _IN_INTERPRETERS:
        return original(executor, *args, **options)
    return original(executor, call_in, current(), *args, **options)


def _submit_to_process(original: Any, executor: Any, /, *args: Any, **options: Any) -> Any:
    if not args:
        return original(executor, **options)
    return original(executor, _call_for, current_workflow(), *args, **options)


def _add_done_callback(original: Any, future: Any, fn: Any) -> None:
    original(future, _here(fn))


def _here(function: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """`function`, to be called in another thread of this process for the workflow of the running code."""
    return None if function is None else partial(call_in, current(), function)


def _items_in(scope: Scope, iterable: Iterable[Any]) -> Iterator[Any]:
    """The items, which the pool asks for in a thread of its own."""
    iterator = iter(iterable)
    nothing = object()
    while (item := call_in(scope, next, iterator, nothing)) is not nothing:
        yield item
