"""Which workflow the running code belongs to.

A `ContextVar` (PEP 567) holds the scope, so that each thread, greenlet and coroutine has its own. Its default is the
scope of the process: the workflow that `TMP_REDIRECT_SCOPE` names in a child of a task, otherwise outside.
"""

import os
from _contextvars import ContextVar  # contextvars would be one more file at each start of a child

from .patches import installed, loading
from .settings import current as current_settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context, Token
    from types import TracebackType
    from typing import Any, TypeVar

    from .settings import Settings

    F = TypeVar("F", bound=Callable[..., Any])
    T = TypeVar("T")


class Scope:
    """That code runs for a workflow, or outside any.

    `workflow` is the workflow id, `None` outside. `workspace` is the absolute path of the directory that temp files go
    to; it is `None` until it is prepared, and again when the scope has been left. `lease` is the name of the lease that
    keeps it from being taken away. A forked process has none at first, nor a `workspace`, but `prepared` is its path.
    `owed` are marks among the leases which there was no space for.
    """

    __slots__ = ("_token", "lease", "left", "owed", "prepared", "workflow", "workspace")

    def __init__(self, workflow: str | None) -> None:
        self.workflow = workflow
        self.workspace: str | None = None
        self.prepared: str | None = None
        self.lease: str | None = None
        self.owed: tuple[str, ...] = ()
        self.left = False
        self._token: "Token[Scope] | None" = None


_process = Scope(current_settings().scope if installed() else None)
_scope: ContextVar[Scope] = ContextVar("tmp_redirect_scope", default=_process)
get = _scope.get


def current() -> Scope:
    """The scope of the running code. One that has been left, in a context that outlives it, counts as outside."""
    scope = _scope.get()
    return _process if scope.left else scope


def current_workflow() -> str | None:
    """The id of the workflow that the running code belongs to, or `None` outside any."""
    return current().workflow


def configure(workflow: str | None) -> None:
    """Set the scope of the process, which holds where no other has been entered."""
    _release(_process)
    _process.workflow = workflow


def workspace() -> str:
    """The absolute path of the directory for the temp files of the running code, prepared at its first use.

    Raises `WorkspaceError` if it can't be had; nothing is created elsewhere then.
    """
    scope = current()
    return scope.workspace or _prepare(scope, "process" if scope is _process else "scope")


def enter(workflow: str | None, label: str = "scope", *, prepared: bool = True) -> Scope:
    """Enter the scope of a workflow, whose workspace is prepared first, or with `None` step outside any.

    `label` is what a lease says about its holder. A scope that isn't `prepared` is when it is first used. `leave` takes
    what this returns. Raises `InvalidWorkflowId` or `WorkspaceError`; the scope is then unchanged.
    """
    patches = installed()
    if patches is not None:
        patches.install_for_switching()
    from .observers import tell

    scope, before = Scope(workflow), _scope.get()
    try:
        if workflow is not None and prepared:
            _prepare(scope, label)
        scope._token = _scope.set(scope)
    except BaseException:
        _scope.set(before)
        _release(scope)
        raise
    tell("scope_entered")
    return scope


def leave(scope: Scope) -> None:
    """Leave a scope that was entered in this context; copies of the context that live on are outside from now on."""
    from .observers import tell

    scope.left = True
    tell("scope_left")
    token, scope._token = scope._token, None
    if token is not None:
        try:  # noqa: SIM105 - contextlib would be an import at each start of a child
            _scope.reset(token)
        except ValueError:  # left in another context than it was entered in, which has nothing to restore
            pass
    _release(scope)


def return_to(scope: Scope) -> None:
    """Leave the scope that was entered in this context since `scope` was the current one, if there is any.

    Its workspace stays, even if its workflow has ended meanwhile: that is left to the caller.
    """
    entered = _scope.get()
    if entered is not scope:
        if entered is not _process:
            from .observers import tell

            entered.left = True
            _release(entered, purge=False)
            tell("scope_left")
        _scope.set(scope)  # the last: who is interrupted before it calls this again


def adopt(scope: Scope) -> None:
    """Let the running thread, which is at its beginning, belong to `scope`."""
    _scope.set(scope)


def owe(workflow: str, mark: str) -> None:
    """Have the running code's lease stand for a mark that can't be made, from its end on, if it is of that workflow."""
    scope = current()
    if scope.workflow == workflow and scope.lease is not None:
        scope.owed += (mark,)


def is_set_in(context: "Context") -> bool:
    """Whether a scope was entered in `context`."""
    return _scope in context


def call_in(scope: Scope, function: "Callable[..., T]", /, *args: "Any", **options: "Any") -> "T":
    """Call `function` in a scope that was entered elsewhere."""
    token = _scope.set(scope)
    try:
        return function(*args, **options)
    finally:
        _scope.reset(token)


def _prepare(scope: Scope, label: str) -> str:
    with loading:
        from .lifecycle import new_name, take
        from .workspace import check_allowed, prepare_outside

    settings = current_settings()
    check_allowed(settings, scope.workflow)
    lease = scope.lease or new_name("lease", label)
    scope.lease = lease  # noted before it is there: an exception may come between any two lines
    try:
        take(settings, scope.workflow, lease)
        path = prepare_outside(settings) if scope.workflow is None else _prepare_workflow(settings, scope.workflow)
    except BaseException:
        _release(scope)
        raise
    if scope is _process:
        _release_at_exit()
    scope.workspace = scope.prepared = path
    if scope.left:  # meanwhile, by another thread, which has released what was there by then
        scope.lease = lease
        _release(scope)
        return workspace()
    return path


def _prepare_workflow(settings: "Settings", workflow: str) -> str:
    from .lifecycle import mark, new_name, unmark
    from .workspace import prepare

    if os.path.isdir(f"{settings.root}/{workflow}"):
        return prepare(settings, workflow)
    made: list[str] = []
    ours = new_name("ours")
    mark(settings, workflow, ours)  # before it is there: a directory that nobody knows to be ours would stay
    workspace = prepare(settings, workflow, made)
    if workflow not in made:
        unmark(settings, workflow, ours)
    return workspace


def _release(scope: Scope, *, purge: bool = True) -> None:
    scope.workspace = scope.prepared = None
    if scope.lease is not None:
        from .lifecycle import hand_over, purge_if_over, unmark

        if scope.owed:
            hand_over(current_settings(), scope.workflow, scope.lease, scope.owed)
            scope.owed = ()
        else:
            unmark(current_settings(), scope.workflow, scope.lease)
        scope.lease = None
        if purge:
            purge_if_over(current_settings(), scope.workflow)


_releases_at_exit = False


def _release_at_exit() -> None:
    global _releases_at_exit
    if not _releases_at_exit:
        _releases_at_exit = True
        import atexit

        atexit.register(_release, _process)


def _begin_anew() -> None:
    """A forked process has no lease: it takes one of its own when it first asks for the workspace."""
    for scope in (_process, _scope.get()):
        scope.lease = scope.workspace = None
        scope.owed = ()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


class workflow:  # noqa: N801 - used as a function: `with workflow("wf-1") as workspace:`
    """Run code for a workflow: a context manager whose value is the workspace's path, and a decorator.

    A decorated function, async ones included, enters the scope at each call. Raises `InvalidWorkflowId` or
    `WorkspaceError` on entry. Where the shim is off nothing is redirected, and the value is stock's
    `tempfile.gettempdir()`: the rollback switch must not break code that uses this. One object is entered once.
    """

    def __init__(self, workflow_id: str) -> None:
        with loading:
            from .workflow_id import check

        self.workflow_id = check(workflow_id)
        self._scope: Scope | None = None

    def __enter__(self) -> str:
        """Enter the scope; the absolute path of the workspace."""
        if installed() is None:
            import tempfile

            return tempfile.gettempdir()
        if self._scope is not None:
            raise RuntimeError(f"this workflow({self.workflow_id!r}) has been entered: make another one")
        self._scope = enter(self.workflow_id)
        return workspace()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: "TracebackType | None"
    ) -> None:
        """Leave the scope."""
        if self._scope is not None:
            leave(self._scope)

    def __call__(self, function: "F") -> "F":
        """Decorate a function, which enters the scope at each call; raises `TypeError` for a generator function."""
        import functools
        import inspect

        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{function.__qualname__} is a generator function: use `with workflow(...)` inside it")
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def scoped(*args: "Any", **kwargs: "Any") -> "Any":
                with workflow(self.workflow_id):
                    return await function(*args, **kwargs)
        else:

            @functools.wraps(function)
            def scoped(*args: "Any", **kwargs: "Any") -> "Any":
                with workflow(self.workflow_id):
                    return function(*args, **kwargs)

        return scoped  # type: ignore[return-value]
