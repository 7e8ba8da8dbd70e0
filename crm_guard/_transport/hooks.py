"""The hooks of the process, and of one guard: which are called with an event."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crm_guard.events import GuardHook


class _ProcessHooks:
    """The hooks of all guards and writers of the process. Thread-safe: the tuple is replaced as a whole."""

    hooks: tuple[GuardHook, ...] = ()


_process = _ProcessHooks()


def replace_process_hooks(hooks: tuple[GuardHook, ...]) -> tuple[GuardHook, ...]:
    """Replace the hooks of the process; return those that were there."""
    before, _process.hooks = _process.hooks, hooks
    return before


def hooks_beside(own: tuple[GuardHook, ...]) -> tuple[GuardHook, ...]:
    """Return the hooks of the process, and then those of a guard that are not among them."""
    shared = _process.hooks
    if not shared:
        return own
    return (*shared, *(hook for hook in own if not _is_among(hook, shared)))


def _is_coroutine_function(hook: Any) -> bool:
    """Return whether nobody would await what a hook returns."""
    try:
        return iscoroutinefunction(hook) or iscoroutinefunction(getattr(type(hook), "__call__", None))  # noqa: B004
    except Exception:  # noqa: BLE001 (a proxy, say, without anything behind it)
        return False


def _is_among(hook: GuardHook, others: tuple[GuardHook, ...]) -> bool:
    try:
        return hook in others
    except Exception:  # noqa: BLE001 (an odd `__eq__` must not cost a result)
        return False


def check_hooks(hooks: Any, call: str) -> tuple[GuardHook, ...]:
    """Return hooks as a tuple.

    Args:
        hooks: An iterable of them.
        call: Who takes them, for the message: `"GuardAdapter(hooks=...)"`.

    Raises:
        TypeError: It is none, or one of them cannot be called with an event.
    """
    if not isinstance(hooks, Iterable):
        advice = ": put it into a list" if callable(hooks) else ""
        message = f"{call} takes an iterable of hooks, and got a {type(hooks).__name__}{advice}"
        raise TypeError(message)
    found = tuple(hooks)
    for hook in found:
        if isinstance(hook, type):
            message = f"{call} got the class {hook.__name__}: give an instance, {hook.__name__}(...)"
            raise TypeError(message)
        if not callable(hook) or _is_coroutine_function(hook):
            kind = "coroutine function" if callable(hook) else type(hook).__name__
            message = f"{call} takes functions of one event, and got a {kind}"
            raise TypeError(message)
    return found
