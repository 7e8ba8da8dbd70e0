"""Writes events to the logger `crm_guard`: lines for whoever is woken at night, and fields for machines.

A call that waits has one INFO line at the beginning and one at the end; what it gives up, and what stays blocked,
is a WARNING with what to do. All else is DEBUG. Of the calls that wait for one record only the first one speaks:
what the others would repeat is DEBUG, and the last one to end says in one line what became of them.
"""

from __future__ import annotations

import contextlib
import enum
import logging
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Final

from crm_guard._transport.peers import peer_groups
from crm_guard.events import EventKind, GuardEvent
from crm_guard.remediation import harmless_state

if TYPE_CHECKING:
    from crm_guard._transport.peers import LeftOut, PeerGroup

logger: Final = logging.getLogger("crm_guard")

_IDS_SHOWN: Final = 5
_IDS_KEPT: Final = 100
_TROUBLE: Final = {EventKind.BLOCKED, EventKind.GAVE_UP}
_FIELDS: Final = tuple(field.name for field in fields(GuardEvent))


def complain(message: str, *arguments: object) -> None:
    """Write a WARNING about something whose failure costs no result; so does a broken filter or handler."""
    with contextlib.suppress(Exception):
        logger.warning(message, *arguments)


class CallLog:
    """The lines of one call, or of one writer. Used by one thread at a time.

    Args:
        origin: Scheme, host and port of the records.

    Attributes:
        group: The calls that wait for the same records, itself included.
        name: Tells it from other calls.
    """

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._waits = False
        self.group: PeerGroup | None = None
        self.name = object()
        self._ids: list[str] = []  # of what was unlocked since the wait began,
        self._records = 0  # and how many records these are
        self._waited = 0.0

    def write(self, event: GuardEvent) -> None:
        """Write the line of an event, or leave it at DEBUG where it would be a repetition."""
        level, shown = logging.DEBUG, event
        if event.kind is EventKind.WAITING and not self._waits:
            self._begin(event)
            level = logging.INFO
        elif event.kind is EventKind.UNLOCKED and self._waits:
            shown = self._sum_up(event)
            level = logging.DEBUG if event.pending else logging.INFO
        elif event.kind in _TROUBLE:
            self._end_by(event)
            level = logging.WARNING
        if level > logging.DEBUG and self._is_repetition(shown):
            level = logging.DEBUG
        _write_event(level, shown)

    def close(self) -> None:
        """Leave the calls that wait for the same records. Idempotent."""
        if self.group is not None:
            left_out = self.group.leave(self)
            self.group = None
            if left_out is not None:
                _write_left_out(left_out)

    def _begin(self, event: GuardEvent) -> None:
        self.close()
        self._waits, self._ids, self._records, self._waited = True, [], 0, 0.0
        keys = [f"{self._origin}|{record_id}" for record_id in event.record_ids]
        if keys and len(keys) == event.records:
            peer_groups.join(self, keys)

    def _sum_up(self, event: GuardEvent) -> GuardEvent:
        """Return an event about all that was unlocked since the wait began; the wait may be over by it."""
        self._records += event.records
        self._ids += event.record_ids[: _IDS_KEPT - len(self._ids)]
        self._waited = max(self._waited, event.waited)
        self._waits = event.pending > 0
        return replace(event, records=self._records, record_ids=tuple(self._ids), waited=self._waited)

    def _end_by(self, event: GuardEvent) -> None:
        """Write what was unlocked before, where the last records that waited are given up."""
        if self._waits and not event.pending:
            self._waits = False
            if self._records and event.kind is EventKind.GAVE_UP:
                plain = replace(event, kind=EventKind.UNLOCKED, code="", action=None, case=None, error=None)
                unlocked = replace(
                    plain,
                    record_ids=tuple(self._ids),
                    records=self._records,
                    waited=self._waited,
                    reason=None,
                    hint="",
                )
                _write_event(logging.DEBUG if self._is_repetition(unlocked) else logging.INFO, unlocked)

    def _is_repetition(self, event: GuardEvent) -> bool:
        """Return whether another call that waits for the same records has said, or will say, the same."""
        if self.group is None:
            return False
        ending = _ending(event) if event.kind is not EventKind.WAITING else ""
        return self.group.leaves_out(self, event, ending)


def _write_event(level: int, event: GuardEvent) -> None:
    """Write one line: the records by their ids, the code, the action or case, and what to do."""
    if logger.isEnabledFor(level):
        logger.log(
            level,
            "%s %s: %s, %s%s, attempt %d, waited %.1f s%s",
            event.method,
            event.path,
            event.kind.value,
            _records(event),
            _cause(event),
            event.attempt,
            event.waited,
            _tail(event),
            extra=_fields(event, calls=1),
        )


def _write_left_out(told: LeftOut) -> None:
    """Write one line about the calls whose own lines were left out."""
    event = told.event
    level = logging.INFO if set(told.endings) <= {EventKind.UNLOCKED.value} else logging.WARNING
    if logger.isEnabledFor(level):
        logger.log(
            level,
            "%s %s: %s, %s, waited up to %.1f s",
            event.method,
            event.path,
            ", ".join(f"{_more(count)} {ending}" for ending, count in sorted(told.endings.items())),
            _records(event),
            event.waited,
            extra=_fields(event, calls=told.calls),
        )


def _more(count: int) -> str:
    return f"{count} more {'call' if count == 1 else 'calls'}"


def _fields(event: GuardEvent, calls: int) -> dict[str, Any]:
    """Return what a log record has beside its text: the fields of the event, and how many calls it is about."""
    plain = {f"guard_{name}": _plain_value(getattr(event, name)) for name in _FIELDS}
    return {**plain, "guard_calls": calls}


def _plain_value(value: object) -> object:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, tuple):
        return value[:_IDS_KEPT]
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _ending(event: GuardEvent) -> str:
    """Return how a call ended: `unlocked`, `gave_up timeout`, `blocked NOT_APPROVED zia_rejected`."""
    if event.kind is EventKind.GAVE_UP:
        return event.kind.value + _reason(event)
    return event.kind.value + (_cause(event) if event.kind is EventKind.BLOCKED else "")


def _records(event: GuardEvent) -> str:
    """Return how many records, and which: `3 records (1, 2, 3)`."""
    shown = ", ".join(event.record_ids[:_IDS_SHOWN]) + (", ..." if len(event.record_ids) > _IDS_SHOWN else "")
    noun = "record" if event.records == 1 else "records"
    return f"{event.records} {noun} ({shown})" if shown else f"{event.records} {noun}"


def _cause(event: GuardEvent) -> str:
    """Return code, and action or case: ` RECORD_LOCKED zia_vision_processing`."""
    words = (harmless_state(event.code), harmless_state(event.action), event.case and event.case.value)
    return "".join(f" {word}" for word in words if word)


def _tail(event: GuardEvent) -> str:
    if event.kind is EventKind.WAITING:
        return f", next wait {event.delay:.1f} s"
    reason = f", reason{_reason(event)}" if event.reason else ""
    return f"{reason}: {event.hint}" if event.hint else reason


def _reason(event: GuardEvent) -> str:
    """Return why a call gave up: ` follow_up (429 TOO_MANY_REQUESTS)`."""
    error = f" ({event.error})" if event.error else ""
    return f" {event.reason.value}{error}" if event.reason else error
