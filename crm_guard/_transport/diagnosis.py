"""Asking CRM why records are not approved, within a time and a size that nobody else decides.

`requests` has no total timeout: a server that sends a byte a second keeps a call for as long as it likes, also
before the first byte of a body, where nobody could look at a clock in between. So the questions are asked in a
thread of their own, and whoever waits for the answers goes on when the time is up, and cuts the connection. That
cannot be done through an inner adapter: there the thread looks at the clock between the pieces of a body. While a
thread that is late has not come back, its origin is not asked again.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from crm_guard._protocol.approval import read_states, refused_scope
from crm_guard._transport import wire as _wire
from crm_guard.clock import Wake

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from requests import Response

    from crm_guard._protocol.approval import Probe
    from crm_guard._transport.scopes import ScopeMemory

SECONDS: Final = 5.0
"""What a diagnosis may take in all, from the first byte sent to the last one read."""
BYTES: Final = 1024 * 1024
"""What one answer of it may hold: 100 records with two fields each take a hundredth."""

_UNKNOWN: Final = "the approval state could not be learnt: %s"
_log: Final = logging.getLogger("crm_guard")


def ask(
    probes: Sequence[Probe],
    send: Callable[..., Response],
    scopes: ScopeMemory,
    astray: dict[str, threading.Thread],
    *,
    origin: str,
    options: Mapping[str, Any],
    cut: Callable[[], object],
) -> tuple[dict[str, str], int]:
    """Return `$approval_state` by record id, as far as it could be learnt in time, and the calls that this took.

    Args:
        probes: The questions.
        send: Sends a prepared request, and returns a response whose body is still to be read.
        scopes: What tokens may not read.
        astray: The threads that did not come back in time, by origin; kept up to date here.
        origin: Where the questions go.
        options: For `send`.
        cut: Ends the connection that `send` uses, if it can.
    """
    hanging = astray.get(origin)
    if not probes or (hanging is not None and hanging.is_alive()):
        return {}, 0
    inquiry = _Inquiry(probes, send, scopes, options)
    context = contextvars.copy_context()  # with the caller's span, say
    thread = threading.Thread(target=context.run, args=(inquiry.run,), name="crm_guard-diagnosis", daemon=True)
    try:
        thread.start()
    except RuntimeError as exc:  # no thread can be had
        _log.debug(_UNKNOWN, exc)
        return {}, 0
    done = False
    try:
        done = inquiry.done.wait(SECONDS)
    finally:  # after Ctrl-C, too
        if not done:
            astray[origin] = thread
            cut()
    if not done:
        _log.debug(_UNKNOWN, "out of time")
    return dict(inquiry.states), inquiry.sent


class _Inquiry:
    """One diagnosis: run in one thread, waited for in another.

    Attributes:
        states: What was learnt so far.
        sent: Calls made so far.
        done: Set at the end.
    """

    def __init__(
        self,
        probes: Sequence[Probe],
        send: Callable[..., Response],
        scopes: ScopeMemory,
        options: Mapping[str, Any],
    ) -> None:
        self.states: dict[str, str] = {}
        self.sent = 0
        self.done = Wake()
        self._probes, self._send, self._scopes, self._options = probes, send, scopes, options
        self._end = time.monotonic() + SECONDS

    def run(self) -> None:
        """Ask until everything is known, or something says stop."""
        try:
            for probe in self._probes:
                if self._left() <= 0 or self._scopes.knows(probe):
                    break
                self._ask(probe)
        except Exception as exc:  # noqa: BLE001 (an explanation must never cost the result)
            _log.debug(_UNKNOWN, type(exc).__name__)
        finally:
            self.done.set()

    def _ask(self, probe: Probe) -> None:
        self.sent += 1
        timeout = _wire.capped_timeout(self._options["timeout"], self._left())
        options = {**self._options, "stream": True, "timeout": timeout}
        response = self._send(_wire.probe_request(probe), **options)
        try:
            body = _wire.bounded_body(response, BYTES, unread=True, within=self._left()) or b""
        finally:
            response.close()
        if refused_scope(response.status_code, body):
            self._scopes.refuse(probe)
        if response.ok:
            self.states |= read_states(body)

    def _left(self) -> float:
        return self._end - time.monotonic()
