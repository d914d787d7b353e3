"""What happens to scopes and workspaces in this process, told to whoever counts it: the metrics."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Observer = Callable[[str, float], object]

_observers: "list[Observer]" = []


def observe(observer: "Observer") -> "Callable[[], None]":
    """Have `observer(event, amount)` called at each event, in the process where it happens; returns what ends this.

    The events are `scope_entered`, `scope_left`, `purged` (a workspace), `freed` (its bytes), `kept`, `deferred` (a
    workspace that could not be removed whole), and of a sweep the numbers of workspaces that it has left:
    `live_workspaces`, `kept_workspaces` and `deferred_workspaces`. What the observer raises is ignored.
    """
    _observers.append(observer)
    return lambda: _observers.remove(observer)


def tell(event: str, amount: float = 1) -> None:
    """Tell the observers, if there are any."""
    for observer in _observers:
        try:  # noqa: SIM105 - contextlib would be one more import at each start of a child
            observer(event, amount)
        except Exception:  # noqa: BLE001, S110 - the program must not fail because of who counts
            pass
