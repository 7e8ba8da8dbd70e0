"""Sends through an inner adapter, and how a guard below it knows that another guard is above."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from crm_guard.outcomes import CallError

if TYPE_CHECKING:
    from requests import PreparedRequest, Response
    from requests.adapters import BaseAdapter


class Passage:
    """One send through a guard's inner adapter.

    Attributes:
        open: Whether it is under way. A context that was copied meanwhile may outlive it, as that of a greenlet or
            a task that was started inside.
        intended: Whether whoever opened it decides what is sent again, so that a guard below is to send only.
        renews: Whether that guard renews the request's credentials first.
        reached: Whether such a guard has begun to send.
        in_doubt: Whether it sends again what may have been applied: somebody in between repeats it.
    """

    open = intended = renews = reached = in_doubt = False
    _refused = False

    def begin(self) -> None:
        """Take in that such a guard begins to send."""
        self.in_doubt = self.in_doubt or (self.reached and not self._refused)
        self.reached, self._refused = True, False

    def end(self, status: int) -> None:
        """Take in the status of the answer: what CRM refused was not applied."""
        self._refused = CallError(status=status).refused


passage: Final = ContextVar("crm_guard_passage", default=Passage())  # noqa: B039 (this one is never opened)
"""The innermost send through an inner adapter that this thread, task or greenlet is in, or came from."""


def send_through(inner: BaseAdapter, request: PreparedRequest, options: dict[str, Any]) -> Response:
    """Send through an inner adapter that is not a guard."""
    current = Passage()
    try:
        outer = passage.set(current)
        try:
            current.open = True
            return inner.send(request, **options)
        finally:
            current.open = False
            passage.reset(outer)
    except BaseException:
        current.open = False  # an interrupt may have come before the other one; closed, it may stay set
        raise
