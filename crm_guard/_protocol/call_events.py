"""The events of one call: they hold no query, header, body or field value. Pure."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from crm_guard.events import EventKind, GuardEvent
from crm_guard.outcomes import shown_id
from crm_guard.remediation import ApprovalCase, harmless_state

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from crm_guard._protocol.exchange import Exchange
    from crm_guard.outcomes import CallError, RecordOutcome


class Teller:
    """Makes the events of one call.

    Args:
        method: HTTP method.
        path: The URL's path, as it may be shown.
        module: The records' module, None for none.
    """

    def __init__(self, method: str, path: str, module: str | None = None) -> None:
        self._method, self._path, self._module = method, path, harmless_state(module) or ""

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
            module=self._module,
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
        about = {"attempt": exchange.attempts, "pending": len(exchange.pending), **about}
        return self.event(kind, ids, code=code, action=action, **about)

    def of_blocked(self, outcomes: Iterable[RecordOutcome], **about: Any) -> Iterator[GuardEvent]:
        """Yield one event for each reason for which records of `outcomes` are blocked."""
        blocked = [found for found in outcomes if is_blocked_for_good(found)]
        for (code, action, case), group in groupby(sorted(blocked, key=_cause), key=_cause):
            found = list(group)
            yield self.event(
                EventKind.BLOCKED,
                [outcome.record_id for outcome in found],
                code=code,
                action=action or None,
                case=ApprovalCase(case) if case else None,
                hint=found[0].hint,
                **about,
            )

    def of_end(self, exchange: Exchange[Any], outcomes: Collection[RecordOutcome]) -> Iterator[GuardEvent]:
        """Yield the events of an exchange's end: what stayed blocked, once per cause, and what was given up."""
        yield from self.of_blocked(outcomes, attempt=exchange.attempts)
        left = sorted({*exchange.pending, *exchange.uncertain})
        if exchange.reason is not None and left:
            hint = next((found.hint for found in outcomes if found.retryable or found.uncertain), "")
            about = {"reason": exchange.reason, "error": exchange.error, "hint": hint}
            yield self.of_locked(EventKind.GAVE_UP, exchange, left, pending=0, **about)


def is_blocked_for_good(outcome: RecordOutcome) -> bool:
    """Return whether CRM refuses a record for a reason that waiting will not resolve."""
    return outcome.blocked and not outcome.retryable and not outcome.uncertain


def known_action(actions: Sequence[str]) -> str | None:
    """Return what locks a record that is known to be locked: a registry holds the locks of `retry_actions` alone.

    Args:
        actions: The setting `retry_actions`.
    """
    return actions[0] if len(actions) == 1 else None


def _cause(outcome: RecordOutcome) -> tuple[str, str, str]:
    return outcome.code, outcome.action or "", outcome.case or ""
