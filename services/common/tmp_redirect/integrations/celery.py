"""Every Celery task runs in the scope of its workflow.

`celery.app.trace.build_tracer` makes the function that runs a task in every pool and in `.apply()`. The scope is
entered around that function: signals can't do it, since Celery swallows what their receivers raise, and a nested
`.apply()` fires those of the outer task too. A task whose workspace can't be had fails as any task does, by a tracer
whose task raises, so that its result, its callbacks and its signals are Celery's own.

Two things are not traced, and get their scope here too: a task that is called as a function (as `celery.map` does with
each item) goes to the workflow that its arguments name, and what a worker's main process does for a task whose process
was killed (its error callbacks) belongs to that task's workflow.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from types import ModuleType
from typing import Any

from celery import current_task, signals, states
from celery.exceptions import SoftTimeLimitExceeded, Terminated, TimeLimitExceeded, WorkerLostError

try:
    import wrapt
except ImportError:
    raise ImportError("wrapt is needed where Celery runs: pip install 'wrapt>=1.16,<3'") from None

from ..errors import InvalidWorkflowId, WorkspaceError
from ..guard import summarise
from ..patches import Patches, installed
from ..propagate import Environment, wrap
from ..scope import current, current_workflow, enter, return_to
from ..settings import current as current_settings
from ..stderr import say
from ..workflow_id import check
from ..workspace import check_root, prepare_outside
from .celery_ends import CANVAS, canvas_of, end, note_ended, note_published
from .celery_events import install as install_events
from .celery_events import send_pending
from .celery_sweep import SWEEP, register

HEADER = "tmp_redirect_workflow"  # of a message: the workflow that it was published from
_EX_CONFIG = 78

Tracer = Callable[..., Any]

_environment: Environment | None = None
_published_anew: set[str] = set()  # tasks that are about to end, and come again: retried, replaced, requeued


def install(trace: ModuleType, patches: Patches) -> None:
    """Wrap the tasks of the module `celery.app.trace`."""
    shim = installed()
    if shim is not None:
        shim.install_for_switching()
    wrapper = wrapt.FunctionWrapper(trace.build_tracer, _build_tracer)
    patches.replace(trace, "build_tracer", wrapper)
    consumer = sys.modules.get("celery.worker.consumer.consumer")
    if hasattr(consumer, "build_tracer"):  # bound by name before; it isn't yet where it is importing this
        patches.replace(consumer, "build_tracer", wrapper)
    _connect(signals.celeryd_init, _check_root, patches)
    _connect(signals.worker_init, register, patches)
    _connect(signals.worker_process_init, _follow_scope, patches)
    _connect(signals.worker_ready, _send_events, patches)
    _connect(signals.worker_process_shutdown, _summarise, patches)
    install_events(patches)
    patches.on_undo(_forget_environment)


def install_publisher(module: ModuleType, patches: Patches) -> None:
    """Have messages carry the scope: the module `celery.app.amqp`, which a program that only publishes imports too."""
    _connect(signals.before_task_publish, _publish_scope, patches)


def install_task(module: ModuleType, patches: Patches) -> None:
    """Have a task of the module `celery.app.task` that is called as a function run in the scope it names."""
    wrap(patches, module.Task, "__call__", _call)


def install_canvas(module: ModuleType, patches: Patches) -> None:
    """Have a chain or a chord of the module `celery.canvas` that is applied eagerly pass the scope on."""
    for kind in (module._chain, module._chord):
        wrap(patches, kind, "apply", _apply)


def install_request(module: ModuleType, patches: Patches) -> None:
    """Have the main process of a worker do what it does for a task in its scope: the module `celery.worker.request`."""
    for name in ("on_timeout", "on_failure", "_announce_revoked"):
        wrap(patches, module.Request, name, _settle)


def _connect(signal: Any, receiver: Callable[..., None], patches: Patches) -> None:
    signal.connect(receiver, weak=False)
    patches.on_undo(partial(signal.disconnect, receiver))


def _check_root(**_: Any) -> None:
    """A worker without a usable root would fail every task: it ends before it takes one."""
    configuration = current_settings()
    try:
        check_root(configuration)
        if configuration.outside == "service":
            prepare_outside(configuration)
    except WorkspaceError as error:
        sys.stderr.write(f"tmp_redirect: this worker can't start: {error.strerror}\n")
        sys.stderr.flush()
        raise SystemExit(_EX_CONFIG) from None  # Celery swallows an Exception here


def _follow_scope(**_: Any) -> None:
    """Celery sends this in processes that run one task at a time: children of the prefork pool, and a solo worker."""
    global _environment
    if threading.current_thread() is threading.main_thread():  # else the worker is embedded in a larger program
        _environment = Environment()


def _forget_environment() -> None:
    global _environment
    _environment = None


def _send_events(sender: Any, **_: Any) -> None:
    send_pending(sender.app, sender.hostname)


def _summarise(**_: Any) -> None:
    """A process of the prefork pool ends without atexit."""
    summarise()


def _publish_scope(sender: Any, headers: dict[str, Any] | None = None, body: Any = None, **_: Any) -> None:
    workflow = current_workflow()
    if headers is not None:
        if workflow is not None:
            headers.setdefault(HEADER, workflow)
            publisher = current_task.request if current_task else None
            if publisher is not None and publisher.id:
                headers.setdefault(CANVAS, canvas_of(publisher, publisher.id))
                if publisher.id == headers.get("id"):
                    _published_anew.add(publisher.id)
        if sender != SWEEP and headers.get("id") and isinstance(body, (tuple, list)):  # not of the older protocol
            note_published(workflow_of(headers["id"], body[0], body[1], headers), headers["id"])


def _build_tracer(wrapped: Callable[..., Tracer], _: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Tracer:
    trace = wrapped(*args, **options)
    name, app = args[0], args[1].app
    if name == SWEEP:
        return trace  # of no workflow

    def trace_task(task_id: str, task_args: Sequence[Any], task_options: Mapping[str, Any], request: Any = None) -> Any:
        workflow: Any = None
        scope, run = _Returning(), trace
        is_eager = not request or request.get("is_eager")
        try:
            try:
                try:
                    workflow = workflow_of(task_id, task_args, task_options, request or {})
                    if workflow is not None or not is_eager:  # which inherits the scope
                        scope.enter(workflow, f"{name}:{task_id}")
                except (InvalidWorkflowId, WorkspaceError) as error:
                    run = wrapped(*_with_task_that_raises(error, *args), **options)
                    workflow = workflow if isinstance(error, WorkspaceError) else None
                result = run(task_id, task_args, task_options, request)
                counts = workflow is not None and not is_eager
                if counts:
                    state, comes_again = _how_it_ended(workflow, task_id, result)
                    noted = _in_peace(note_ended, workflow, task_id, state, comes_again=comes_again)
            finally:
                scope.end()
        finally:
            scope.end()  # again: the exception of a soft time limit may have come in the middle of the first
            if not is_eager:
                send_pending(app, request.get("hostname"))
        if counts:
            _in_peace(end, workflow, task_id, request, state, comes_again=comes_again, noted=bool(noted))
        return result

    return trace_task


def _how_it_ended(workflow: str, task_id: str, result: Any) -> tuple[Any, bool]:
    """The state of a task whose tracer has returned `result`, and whether it comes again.

    The second item of `result` is `None` for a success.
    """
    info = result[1]
    state = states.SUCCESS if info is None else info.state
    if state == states.REJECTED and info.retval.requeue:
        note_published(workflow, task_id)
        _published_anew.add(task_id)
    comes_again = task_id in _published_anew
    _published_anew.discard(task_id)
    return state, comes_again


def _in_peace(function: Callable[..., Any], workflow: str, task_id: str, *args: Any, **options: Any) -> Any:
    """Do what comes after a task, which must not fail because of it: then the value is `None`."""
    try:
        return function(workflow, task_id, *args, **options)
    except SoftTimeLimitExceeded:  # too late: the task has ended
        pass
    except Exception as error:  # noqa: BLE001
        say(f"the workspace of workflow {workflow!r} is left to the next sweep: {error!r} after task {task_id}")


def _call(original: Callable[..., Any], task: Any, /, *args: Any, **options: Any) -> Any:
    workflow = _named_in(args, options)
    if workflow is None or workflow == current_workflow():
        return original(task, *args, **options)
    scope = _Returning()
    try:
        scope.enter(workflow, task.name)
        return original(task, *args, **options)
    finally:
        scope.end()


def _settle(original: Callable[..., Any], request: Any, /, *args: Any, **options: Any) -> Any:
    """What a worker's main process does for a task that can't do it itself."""
    scope, workflow, state = _Returning(), None, None
    try:
        with contextlib.suppress(InvalidWorkflowId):
            found = workflow_of(request.id, request.args, request.kwargs, request.request_dict)
            workflow = None if found is None else check(found)
            scope.enter(workflow, prepared=False)
        if workflow is not None:
            state = _state_of_the_dead(original.__name__, request, *args, **options)
            if state == states.RETRY:  # before somebody gets its message again
                note_published(workflow, request.id)
        return original(request, *args, **options)
    finally:
        scope.end()
        if workflow is not None and state is not None:
            comes_again = state == states.RETRY
            noted = _in_peace(note_ended, workflow, request.id, state, comes_again=comes_again)
            how = {"comes_again": comes_again, "noted": bool(noted)}
            _in_peace(end, workflow, request.id, request.request_dict, state, **how)


def _state_of_the_dead(
    method: str, request: Any, /, *args: Any, soft: bool = False, exc_info: Any = None, **options: Any
) -> Any:
    """How a task ends whose process was killed, or never had it: `RETRY` if its message goes back to the queue.

    `None` where the process has seen to the end itself.
    """
    if method == "_announce_revoked":
        return states.REVOKED
    if method == "on_timeout":
        return None if (args[0] if args else soft) else _after_the_limit(request.task)
    error = (args[0] if args else exc_info).exception
    error = getattr(error, "exc", error)  # of an ExceptionWithTraceback
    if isinstance(error, Terminated):
        return states.REVOKED
    if isinstance(error, TimeLimitExceeded):
        return _after_the_limit(request.task)
    if isinstance(error, WorkerLostError):
        return states.RETRY if request.task.acks_late and request.task.reject_on_worker_lost else states.FAILURE
    return None


def _after_the_limit(task: Any) -> Any:
    acks = getattr(task, "acks_on_timeout", None)  # from Celery 5.7 on; not set, it's the older one
    acks = task.acks_on_failure_or_timeout if acks is None else acks
    return states.RETRY if task.acks_late and not acks else states.FAILURE


class _EagerCanvas:
    """A canvas that is applied here and now, without a message that would carry the scope from task to task."""

    workflow: str | None = None


_eager_canvas: ContextVar[_EagerCanvas | None] = ContextVar("tmp_redirect_eager_canvas", default=None)


def _apply(original: Callable[..., Any], canvas: Any, /, *args: Any, **options: Any) -> Any:
    token = _eager_canvas.set(_EagerCanvas())
    try:
        return original(canvas, *args, **options)
    finally:
        _eager_canvas.reset(token)


class _Returning:
    """The scope and the environment, which come back to what they were.

    A soft time limit raises its exception between any two instructions, so that a scope may have been entered by a
    call that never returned: the one to come back to is noted before, and there is no doubt about what to undo.
    """

    def __init__(self) -> None:
        self._before = current()
        self._ended = False

    def enter(self, workflow: str | None, label: str = "scope", *, prepared: bool = True) -> None:
        enter(workflow, label, prepared=prepared)
        _set_environment()
        canvas = _eager_canvas.get()
        if canvas is not None and workflow is not None:
            canvas.workflow = workflow

    def end(self) -> None:
        if not self._ended:
            return_to(self._before)
            _set_environment()
            self._ended = True


def _set_environment() -> None:
    if _environment is not None:
        _environment.follow(current())


def _with_task_that_raises(error: Exception, name: str, task: Any, *rest: Any) -> tuple[Any, ...]:
    """The arguments of `build_tracer`, for a task that has all of `task` but a body that raises `error`."""

    def refuse(self: Any, *args: Any, **options: Any) -> None:
        raise error

    base = task.__class__
    refusing = type(base.__name__, (base,), {"__call__": refuse, "__module__": base.__module__})
    stand_in: Any = object.__new__(refusing)
    stand_in.__dict__.update(task.__dict__)
    return (name, stand_in, *rest)


def workflow_of(task_id: str, args: Sequence[Any], options: Mapping[str, Any], request: Mapping[str, Any]) -> Any:
    """The workflow id of a task, not checked yet: from the first place of `TMP_REDIRECT_WORKFLOW_FROM` that has one.

    `None` where no place has one. A task that is applied inside another one has no message: it inherits the
    scope where a header would be read.
    """
    for source in current_settings().workflow_from:
        if source[0] == "header":
            # Of a message that another program wrote in the older protocol, Celery keeps the headers as they are.
            headers = request.get("headers")
            found = request.get(HEADER) or (headers.get(HEADER) if isinstance(headers, Mapping) else None)
            if not found and request.get("is_eager"):
                canvas = _eager_canvas.get()
                found = current_workflow() or (canvas and canvas.workflow)
        elif source[0] == "root_id":
            found = request.get("root_id") or task_id
        else:
            found = _find(source, args, options)
        if found is not None:
            return found
    return None


def _named_in(args: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """The workflow id that the arguments of a task name, not checked yet, or `None`."""
    for source in current_settings().workflow_from:
        found = _find(source, args, options)
        if found is not None:
            return found
    return None


def _find(source: tuple[str, ...], args: Sequence[Any], options: Mapping[str, Any]) -> Any:
    place: Any = {"args": args, "kwargs": options}.get(source[0])
    for step in source[1:]:
        if isinstance(place, Mapping):
            place = place.get(step)
        elif isinstance(place, (list, tuple)) and step.isdecimal() and len(step) < 10 and int(step) < len(place):
            place = place[int(step)]
        else:
            return None
    return str(place) if isinstance(place, (int, uuid.UUID)) and not isinstance(place, bool) else place
