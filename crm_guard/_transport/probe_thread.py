"""Ask CRM why records are not approved, within a fixed time and size limit.

`requests` has no total timeout: a server that sends a byte a second can hold a call forever, even before the first
byte of a body, where no code could check a clock. So the probes run in a thread, and the caller continues when the
time is up and shuts down the connection. An inner adapter does not allow that: there the thread checks the clock
between chunks of the body. While an overdue thread is still running, its origin is not asked again.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from crm_guard._protocol.approval_probe import read_states, refused_scope
from crm_guard._transport.bodies import bounded_body, capped_timeout
from crm_guard._transport.http_copies import probe_request
from crm_guard.clock import Wake

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from requests import Response

    from crm_guard._protocol.approval_probe import Probe
    from crm_guard._transport.scopes import ScopeMemory

SECONDS: Final = 5.0
"""Seconds for a whole diagnosis, from the first byte sent to the last one read."""
BYTES: Final = 1024 * 1024
"""Size limit of one answer: 100 records with two fields each take a hundredth of it."""

_UNKNOWN: Final = "the approval state could not be read: %s"
_log: Final = logging.getLogger("crm_guard")


def ask(
    probes: Sequence[Probe],
    send: Callable[..., Response],
    scopes: ScopeMemory,
    late: dict[str, threading.Thread],
    *,
    origin: str,
    options: Mapping[str, Any],
    cut: Callable[[], object],
) -> tuple[dict[str, str], int]:
    """Return `$approval_state` by record id, as far as known in time, and the number of calls made.

    Args:
        probes: The requests to send.
        send: Sends a prepared request, and returns a response with an unread body.
        scopes: The tokens and modules that were refused before.
        late: The overdue threads, by origin; updated here.
        origin: The origin of the probes.
        options: Keyword arguments of `send`.
        cut: Shuts down the connection that `send` uses, if it can.
    """
    overdue = late.get(origin)
    if not probes or (overdue is not None and overdue.is_alive()):
        return {}, 0
    run = _ProbeRun(probes, send, scopes, options)
    context = contextvars.copy_context()  # for example the caller's tracing span
    thread = threading.Thread(target=context.run, args=(run.run,), name="crm_guard-diagnosis", daemon=True)
    try:
        thread.start()
    except RuntimeError as exc:  # no thread can be started
        _log.debug(_UNKNOWN, exc)
        return {}, 0
    done = False
    try:
        done = run.done.wait(SECONDS)
    finally:  # also after Ctrl-C
        if not done:
            late[origin] = thread
            cut()
    if not done:
        _log.debug(_UNKNOWN, "out of time")
    return dict(run.states), run.sent


class _ProbeRun:
    """The probes of one diagnosis: sent in one thread, awaited in another.

    Attributes:
        states: `$approval_state` by record id, so far.
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
        """Send the probes until all are answered, time is up, or the scope is known to be missing."""
        try:
            for probe in self._probes:
                if self._remaining() <= 0 or self._scopes.knows(probe):
                    break
                self._probe(probe)
        except Exception as exc:  # noqa: BLE001 (an explanation must never cost the result)
            _log.debug(_UNKNOWN, type(exc).__name__)
        finally:
            self.done.set()

    def _probe(self, probe: Probe) -> None:
        self.sent += 1
        timeout = capped_timeout(self._options["timeout"], self._remaining())
        options = {**self._options, "stream": True, "timeout": timeout}
        response = self._send(probe_request(probe), **options)
        try:
            body = bounded_body(response, BYTES, unread=True, within=self._remaining()) or b""
        finally:
            response.close()
        if refused_scope(response.status_code, body):
            self._scopes.refuse(probe)
        if response.ok:
            self.states |= read_states(body)

    def _remaining(self) -> float:
        return self._end - time.monotonic()
