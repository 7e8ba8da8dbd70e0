"""What hooks and logs are told of one call: events that hold no query, header, body or field value."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from crm_guard.events import EventKind, GuardEvent, emit
from crm_guard.remediation import ApprovalCase, harmless_state
from crm_guard.report import shown_id

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from crm_guard._protocol.exchange import Exchange
    from crm_guard._protocol.request_records import Call
    from crm_guard.events import GuardHook
    from crm_guard.report import CallError, GuardReport, RecordOutcome


class Teller:
    """Tells the hooks, and the log, of one call.

    Args:
        hooks: Whom to tell.
        method: HTTP method.
        path: The URL's path, as it may be shown.
        waited: Returns the seconds waited so far.
    """

    def __init__(self, hooks: Iterable[GuardHook], method: str, path: str, waited: Callable[[], float]) -> None:
        self._hooks, self._method, self._path, self._waited = hooks, method, path, waited

    def tell(
        self,
        kind: EventKind,
        ids: Collection[str | None],
        *,
        code: str = "",
        action: str | None = None,
        error: CallError | None = None,
        **about: Any,
    ) -> None:
        """Emit one event about the records `ids`."""
        event = GuardEvent(
            kind=kind,
            method=self._method,
            path=self._path,
            record_ids=tuple(name for record_id in ids if (name := shown_id(record_id))),
            records=len(ids),
            waited=self._waited(),
            code=harmless_state(code) or "",
            action=harmless_state(action),
            error=replace(error, message="") if error else None,
            **about,
        )
        emit(self._hooks, event)

    def tell_slots(self, kind: EventKind, exchange: Exchange[Any], slots: Collection[int], **about: Any) -> None:
        """Emit one event about some slots of an exchange; none about none."""
        if slots:
            ids = [exchange.record_id(slot) for slot in slots]
            self.tell(kind, ids, attempt=exchange.attempts, **about)

    def tell_locked(self, kind: EventKind, exchange: Exchange[Any], slots: Collection[int], **about: Any) -> None:
        """Emit one event about slots that wait, or gave up waiting, for a lock."""
        items = [exchange.items[slot] for slot in slots if slot < len(exchange.items)]
        lock = {"code": items[0].code, "action": items[0].action} if items else {}
        self.tell_slots(kind, exchange, slots, **lock, **about)

    def tell_end(self, exchange: Exchange[Any], report: GuardReport) -> None:
        """Tell of what stayed blocked, for each reason once, and of what was given up."""
        blocked = [found for found in report.blocked if not found.retryable and not found.uncertain]
        for (code, action, case), group in groupby(sorted(blocked, key=_reason), key=_reason):
            self.tell(
                EventKind.BLOCKED,
                [found.record_id for found in group],
                attempt=exchange.attempts,
                code=code,
                action=action or None,
                case=ApprovalCase(case) if case else None,
            )
        if exchange.reason is not None:
            left = sorted({*exchange.pending, *exchange.uncertain})
            about = {"reason": exchange.reason, "error": exchange.error}
            self.tell_locked(EventKind.GAVE_UP, exchange, left, **about)


def shown_path(url: str, tail: int, call: Call) -> str:
    """Return a URL's path, without the values of external fields, which may be a person's.

    Args:
        url: The URL of the call.
        tail: Offset just past its API version.
        call: The call.
    """
    path, route = urlsplit(url).path, call.route
    if not (route.external and route.names_record):
        return path
    module, _, *rest = route.segments
    shown = rest if rest[:1] == ["actions"] else [*rest[:1], *("*" for _ in rest[1:])]
    return "/".join((urlsplit(url[:tail]).path.rstrip("/"), module, "*", *shown))


def _reason(outcome: RecordOutcome) -> tuple[str, str, str]:
    return outcome.code, outcome.action or "", outcome.case or ""
