"""Metrics for Prometheus, in the default registry of `prometheus_client` where the program imports that.

Violations happen anywhere: in signal handlers and finalisers, with any lock held, those of `prometheus_client`
included. So all is counted here without a lock, and written to the metrics when they are collected. In multiprocess
mode, where another process collects them from files, it is written at once, unless the lock of these files is taken
at that moment: then by the next event, or when the process ends.
"""

from __future__ import annotations

import atexit
import contextlib
import inspect
import os
from _thread import allocate_lock  # not threading's, which gevent replaces: it is only ever tried
from collections.abc import Iterator
from types import FrameType, ModuleType
from typing import Any

from ..guard import Violation, listen
from ..observers import observe
from ..patches import Patches
from ..stderr import say

_COUNTERS = {  # by event
    "scope_entered": ("tmp_redirect_scopes_entered", "How often a scope was entered: tasks and workflow() blocks."),
    "purged": ("tmp_redirect_workspaces_purged", "Workspaces that were removed."),
    "kept": ("tmp_redirect_workspaces_kept", "Tasks that failed and so keep the workspace of their workflow."),
    "deferred": ("tmp_redirect_workspaces_deferred", "Workspaces that could not be removed whole."),
    "freed": ("tmp_redirect_freed_bytes", "Bytes of what was removed."),
}
_LEFT = ("live_workspaces", "kept_workspaces", "deferred_workspaces")  # of a sweep
_LAYERS = ("calls", "audit")
_ACTIVE = "scopes_active"


def install(module: ModuleType, patches: Patches) -> None:
    """Register the metrics in the default registry of the module `prometheus_client`.

    Where that can't be, one line on stderr says why: the program, which has metrics of its own, goes on without ours.
    """
    global _metrics
    if _metrics is not None:
        if _metrics.registry is module.REGISTRY:
            return  # the module is reloaded, which keeps its registry
        _end()
    try:
        metrics = _Metrics(module)
        metrics.start()
    except Exception as error:  # noqa: BLE001 - see above
        say("no metrics for Prometheus: " + " ".join(f"{type(error).__name__}: {error}".split()))
    else:
        _metrics = metrics
        patches.on_undo(_end)


class _Counts:
    """What one process has counted, and how much of that is written; a forked child begins anew."""

    def __init__(self) -> None:
        self.now: dict[str, float] = dict.fromkeys((*_COUNTERS, *_LAYERS, _ACTIVE), 0)
        self.written = dict(self.now)
        self.writing = allocate_lock()


class _Metrics:
    """The collector of our metrics, which are written before they are collected."""

    def __init__(self, module: Any) -> None:
        self.registry = module.REGISTRY
        self._shared = _lock_of_files(module.values)
        self._counts = _Counts()
        try:
            self._left = module.Gauge(
                "tmp_redirect_workspaces",
                "Workspaces that the latest sweep has left.",
                ["state"],
                multiprocess_mode="mostrecent",
                registry=None,
            )
        except ValueError:  # the mode is new there
            raise ImportError("prometheus-client 0.18 or later is needed") from None
        violations = module.Counter(
            "tmp_redirect_violations", "Attempts to create something in system temp.", ["layer"], registry=None
        )
        self._active = module.Gauge(
            "tmp_redirect_scopes_active", "Scopes that are entered now.", multiprocess_mode="livesum", registry=None
        )
        counters = {event: module.Counter(*name_and_help, registry=None) for event, name_and_help in _COUNTERS.items()}
        self._counters = {**counters, **{layer: violations.labels(layer) for layer in _LAYERS}}
        self._all = (*counters.values(), violations, self._active, self._left)
        self._ending = contextlib.ExitStack()

    def start(self) -> None:
        """Register, and count from now on. Raises `ValueError` if the program has a metric of the same name."""
        self.registry.register(self)
        self._ending.callback(self._unregister)
        atexit.register(self.write)
        self._ending.callback(atexit.unregister, self.write)
        self._ending.callback(observe(self._count))
        self._ending.callback(listen(self._count_violation))

    def end(self) -> None:
        """Undo `start`."""
        self._ending.close()

    def begin_anew(self) -> None:
        """Count what a forked child does."""
        self._counts = _Counts()

    def describe(self) -> Iterator[Any]:
        """The names of the metrics, for the registry."""
        for metric in self._all:
            yield from metric.describe()

    def collect(self) -> Iterator[Any]:
        """The metrics, for the registry."""
        self.write()
        for metric in self._all:
            yield from metric.collect()

    def write(self) -> None:
        """Bring the metrics up to date, unless somebody is about it, who then does it all."""
        counts = self._counts
        while counts.now != counts.written and counts.writing.acquire(False):
            try:
                if self._shared is not None:
                    if not self._shared.acquire(blocking=False):
                        return  # this thread may be what holds it, or one that was not forked with the process
                    self._shared.release()
                self._write(counts)
            finally:
                counts.writing.release()

    def _write(self, counts: _Counts) -> None:
        for name, total in counts.now.items():
            more = total - counts.written[name]
            if more:
                counts.written[name] = total
                if name == _ACTIVE:
                    self._active.set(total)
                else:
                    self._counters[name].inc(more)

    def _count_violation(self, violation: Violation, path: str, frame: FrameType) -> None:
        self._count(violation.layer, 1)

    def _count(self, event: str, amount: float) -> None:
        now = self._counts.now
        if event == "scope_left":
            if now[_ACTIVE]:  # it may have been entered before the process was forked
                now[_ACTIVE] -= 1
        elif event in now:
            now[event] += amount
            if event == "scope_entered":
                now[_ACTIVE] += 1
        elif event in _LEFT:  # a sweep comes at a moment of its own choice: this takes locks
            self._left.labels(event.partition("_")[0]).set(amount)
        if self._shared is not None:
            self.write()

    def _unregister(self) -> None:
        with contextlib.suppress(KeyError):  # the program has emptied the registry
            self.registry.unregister(self)


_metrics: _Metrics | None = None


def _end() -> None:
    global _metrics
    if _metrics is not None:
        _metrics.end()
        _metrics = None


def _begin_anew() -> None:
    if _metrics is not None:
        _metrics.begin_anew()


os.register_at_fork(after_in_child=_begin_anew)  # there is no way back: uninstalled, it finds nothing to do


def _lock_of_files(values: Any) -> Any:
    """The lock that all values share in multiprocess mode; `None` where that is off.

    It is in a closure, out of the way of everything but a look at it before it is waited for.
    """
    if values.ValueClass is values.MutexValue:
        return None
    lock = inspect.getclosurevars(values.ValueClass.inc).nonlocals.get("lock")
    if lock is None:
        raise ImportError("this version of prometheus-client is not known to work in multiprocess mode")
    return lock
