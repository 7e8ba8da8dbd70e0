"""The events of one call: they hold no query, header, body or field value. Pure."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from crm_guard.events import EventKind, GuardEvent
from crm_guard.outcomes import shown_id
from crm_guard.remediation import ApprovalCase, harmless_state

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from crm_guard._protocol.exchange import Exchange
    from crm_guard.outcomes import CallError, RecordOutcome


class Teller:
    """Makes the events of one call.

    Args:
        method: HTTP method.
        path: The URL's path, as it may be shown.
    """

    def __init__(self, method: str, path: str) -> None:
        self._method, self._path = method, path

    def event(
        self,
        kind: EventKind,
        ids: Collection[str | None],
        *,
        code: str = "",
        action: str | None = None,
        error: CallError | None = None,
        **about: Any,
    ) -> GuardEvent:
        """Return an event about the records `ids`."""
        return GuardEvent(
            kind=kind,
            method=self._method,
            path=self._path,
            record_ids=tuple(name for record_id in ids if (name := shown_id(record_id))),
            records=len(ids),
            code=harmless_state(code) or "",
            action=harmless_state(action),
            error=replace(error, message="") if error else None,
            **about,
        )

    def of_locked(
        self, kind: EventKind, exchange: Exchange[Any], numbers: Collection[int], **about: Any
    ) -> GuardEvent:
        """Return an event about slots that wait, or gave up waiting, for a lock."""
        slots = [exchange.slots[number] for number in numbers]
        code, action = (slots[0].item.code, slots[0].item.action) if slots else ("", None)
        ids = [slot.record_id for slot in slots]
        return self.event(kind, ids, attempt=exchange.attempts, code=code, action=action, **about)

    def of_end(self, exchange: Exchange[Any], outcomes: Iterable[RecordOutcome]) -> Iterator[GuardEvent]:
        """Yield the events of an exchange's end: what stayed blocked, once per cause, and what was given up."""
        blocked = [found for found in outcomes if found.blocked and not found.retryable and not found.uncertain]
        for (code, action, case), group in groupby(sorted(blocked, key=_cause), key=_cause):
            yield self.event(
                EventKind.BLOCKED,
                [found.record_id for found in group],
                attempt=exchange.attempts,
                code=code,
                action=action or None,
                case=ApprovalCase(case) if case else None,
            )
        left = sorted({*exchange.pending, *exchange.uncertain})
        if exchange.reason is not None and left:
            yield self.of_locked(EventKind.GAVE_UP, exchange, left, reason=exchange.reason, error=exchange.error)


def _cause(outcome: RecordOutcome) -> tuple[str, str, str]:
    return outcome.code, outcome.action or "", outcome.case or ""
