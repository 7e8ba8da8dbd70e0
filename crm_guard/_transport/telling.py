"""Tells the log and the hooks what happens, and keeps what hooks put around a wait."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

from crm_guard._transport.event_log import CallLog, complain
from crm_guard._transport.hooks import hooks_beside
from crm_guard.events import EventKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from crm_guard.events import GuardEvent, GuardHook

T = TypeVar("T")


class Around:
    """The context managers that hooks returned for one wait; itself one, which leaves them. Used by one thread.

    Args:
        run: Calls a function, in the context in which the managers are entered and left.
    """

    def __init__(self, run: Callable[..., Any] | None = None) -> None:
        self._run = run or _call
        self._entered: list[Any] = []

    def enter(self, result: object, hook: GuardHook) -> None:
        """Enter what a hook returned, if it is a context manager. An exception is logged and dropped."""
        kind = type(result)
        if not (hasattr(kind, "__enter__") and hasattr(kind, "__exit__")):
            return
        with _dropped(hook, "entering its context manager"):
            self._run(kind.__enter__, result)
            self._entered.append((result, hook))

    def __enter__(self) -> None:
        """Do nothing: managers are entered when hooks return them."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave all. They cannot suppress what ended the wait."""
        self.leave(kind, error, trace)

    def leave(self, *exc_info: Any) -> None:
        """Leave all that were entered, the last one first. Idempotent.

        Args:
            *exc_info: What ended the wait, as `__exit__` takes it; nothing for None.
        """
        if not self._entered:
            return
        manager, hook = self._entered.pop()
        try:
            with _dropped(hook, "leaving its context manager"):
                self._run(type(manager).__exit__, manager, *(exc_info or (None, None, None)))
        finally:  # also where one of them ends the program
            self.leave(*exc_info)


class Telling:
    """Tells the log and the hooks of the events of one call, or of one writer. Used by one thread at a time.

    Args:
        hooks: Those of the guard; those of the process come before.
        origin: Scheme, host and port of the records.
    """

    def __init__(self, hooks: tuple[GuardHook, ...], origin: str) -> None:
        self._hooks, self._log = hooks, CallLog(origin)

    def tell(self, event: GuardEvent, around: Around | None = None) -> None:
        """Log `event` and call every hook with it.

        Args:
            event: The event.
            around: Takes the context managers that hooks return for a wait.

        Raises:
            BaseException: What a hook raised that is no `Exception`.
        """
        with contextlib.suppress(Exception):  # a broken filter or handler must not cost a result
            self._log.write(event)
        for hook in hooks_beside(self._hooks):
            with _dropped(hook, f"a {event.kind.value} event"):
                result = hook(event)
                if around is not None and event.kind is EventKind.WAITING:
                    around.enter(result, hook)

    def close(self) -> None:
        """Take in that nothing more will happen. Idempotent."""
        with contextlib.suppress(Exception):
            self._log.close()


@contextlib.contextmanager
def _dropped(hook: GuardHook, on: str) -> Iterator[None]:
    """Log and drop an exception: a bug in metrics must not cost a bulk result."""
    try:
        yield
    except Exception as exc:  # noqa: BLE001
        complain("the hook %s failed on %s: %s", _name_of(hook), on, type(exc).__name__)


def _name_of(hook: GuardHook) -> str:
    try:
        return str(getattr(hook, "__qualname__", None) or type(hook).__qualname__)
    except Exception:  # noqa: BLE001 (a proxy, say, without anything behind it)
        return type(hook).__qualname__


def _call(function: Callable[..., T], *arguments: Any) -> T:
    return function(*arguments)
