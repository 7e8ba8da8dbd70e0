"""What CRM's answer to a batch says of each of its rows. Pure.

Nothing is decided here about what may be sent again that single calls decide, too: matching, judging and
:mod:`crm_guard._protocol.resend_rules` are theirs. Three things exist for batches of rows alone: an answer that
would be the same for every batch; a call that CRM refused because of rows that it names, so that the others may go
without them; and one that it refused because of a row that it does not name, so that it goes in halves.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import msgspec

from crm_guard._base.codes import CLIENT_ERROR, OK, REDIRECT, SUCCESS, TOO_MANY_REQUESTS, UNAUTHORIZED
from crm_guard._protocol.answer import Answer, read_answer
from crm_guard._protocol.envelope import Item, identifier
from crm_guard._protocol.matching import found_in
from crm_guard._protocol.record_outcomes import failed_as_a_whole, named_indexes, outcome_of_call, qualified
from crm_guard._protocol.resend_rules import obstacle
from crm_guard._protocol.slots import Slot, fate_of
from crm_guard.outcomes import CallError, RecordOutcome
from crm_guard.remediation import hint_for_uncertain
from crm_guard.row_results import Written

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crm_guard._protocol.envelope import Envelope
    from crm_guard._protocol.record_outcomes import Judge
    from crm_guard._protocol.request_records import CrmRequest


class Kind(enum.Enum):
    """What an answer is about."""

    ROWS = "rows"
    """Each row has a result, or may go again."""
    THROTTLED = "throttled"
    """CRM took none of it: too many calls."""
    UNAUTHORIZED = "unauthorized"
    """CRM took none of it: the token."""
    HALVES = "halves"
    """CRM took none of it because of one of its rows, and does not say which."""
    ALIKE = "alike"
    """Every other batch would meet the same; each row has a result only if it may have been written."""


class Told(NamedTuple):
    """Another row.

    Attributes:
        outcome: What became of it.
        item: CRM's item on it, if there is one.
        locked: Whether it may be sent again once its lock is gone.
    """

    outcome: RecordOutcome
    item: Item | None = None
    locked: bool = False


RowAnswer: TypeAlias = Written | Told | None
"""None: CRM refused it only together with others, so that it may go again without those."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """CRM's answer to a batch, as plain values.

    Attributes:
        status: HTTP status.
        body: Its body.
        credits: The header `X-API-CREDITS-REMAINING`.
        retry_after: Seconds that the header `Retry-After` asks to wait.
    """

    status: int
    body: bytes
    credits: str | None = None
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer says.

    Attributes:
        kind: What it is about.
        rows: What it says of each row, in the order of the request; empty where no row has a result.
        credits: API credits that are left, None where CRM does not say.
        error: What it says of the call as a whole.
    """

    kind: Kind
    rows: Sequence[RowAnswer] = ()
    credits: int | None = None
    error: CallError = field(default_factory=CallError)

    @property
    def retry_after(self) -> float | None:
        """Seconds that CRM asks to wait."""
        return self.error.retry_after


def read_batch(delivery: Delivery, judge: Judge, ids: Sequence[str | None], positions: Sequence[int]) -> Reading:
    """Read the answer to a batch.

    Args:
        delivery: The answer.
        judge: Judges items; its request is a template.
        ids: The records that were sent, None where the rows do not say.
        positions: Where the rows stood in the input: outcomes carry these.
    """
    request = replace(judge.request, ids=tuple(ids))
    if OK <= delivery.status < REDIRECT and (rows := _in_order(delivery.body, request, judge, positions)):
        answer = read_answer(None, delivery.status, None, request, credits=delivery.credits)
        error = CallError(status=delivery.status, retry_after=delivery.retry_after)
        return Reading(Kind.ROWS, rows, answer.credits, error)
    answer = read_answer(
        None,
        delivery.status,
        delivery.body,
        request,
        credits=delivery.credits,
        retry_after=delivery.retry_after,
    )
    kind, rows = _read(answer, replace(judge, request=request), positions)
    return Reading(kind, rows, answer.credits, answer.error)


def lost(judge: Judge, ids: Sequence[str | None], positions: Sequence[int], error: CallError) -> Reading:
    """Return what is known of a batch whose answer did not come: each row may have been written."""
    request = replace(judge.request, ids=tuple(ids))
    outcomes = [_uncertain(request, number, position, error) for number, position in enumerate(positions)]
    return Reading(Kind.ROWS, [Told(outcome) for outcome in outcomes], None, error)


def beyond_doubt(reading: Reading, judge: Judge, ids: Sequence[str | None], positions: Sequence[int]) -> Reading:
    """Return what an answer says of a batch that may have been applied by an earlier send: no row may go again."""
    doubtful = lost(judge, ids, positions, reading.error)
    kind = reading.kind if reading.kind is Kind.ALIKE else Kind.ROWS
    rows = [
        spare if told is None or (isinstance(told, Told) and told.locked) else told
        for told, spare in zip(reading.rows or doubtful.rows, doubtful.rows, strict=True)
    ]
    return replace(reading, kind=kind, rows=rows)


def _read(answer: Answer[None], judge: Judge, positions: Sequence[int]) -> tuple[Kind, Sequence[RowAnswer]]:
    request, envelope = judge.request, answer.envelope
    applied = envelope is not None and any(item.succeeded for item in envelope.items)
    if not applied and answer.status == TOO_MANY_REQUESTS:
        return Kind.THROTTLED, ()
    if not applied and answer.status == UNAUTHORIZED:
        return Kind.UNAUTHORIZED, ()
    if not failed_as_a_whole(answer, request) and envelope is not None and not _is_call_error(answer):
        return Kind.ROWS, _by_item(answer, judge, positions)
    if answer.error.refused:
        return _refused(answer, judge, positions)
    rows = [Told(_uncertain(request, n, position, answer.error)) for n, position in enumerate(positions)]
    return (Kind.ALIKE if REDIRECT <= answer.status < CLIENT_ERROR else Kind.ROWS), rows


def _is_call_error(answer: Answer[None]) -> bool:
    """Return whether the answer to a single row is an error of the call: bare, not ours, and about no record."""
    envelope = answer.envelope
    if envelope is None or not envelope.bare or answer.status < CLIENT_ERROR:
        return False
    item = envelope.items[0]
    is_ours = item.guarded or item.succeeded
    return not is_ours and item.record_id is None and "json_path" not in item.details


def _refused(answer: Answer[None], judge: Judge, positions: Sequence[int]) -> tuple[Kind, Sequence[RowAnswer]]:
    """Read the answer of a call that CRM refused as a whole: nothing of it was applied."""
    request, envelope = judge.request, answer.envelope
    items = envelope.items if envelope is not None else ()
    causes = [
        (index, item) for index, item in zip(named_indexes(request, items), items, strict=True) if index is not None
    ]
    if causes:
        told = {index: _cause(item, judge, index, positions[index]) for index, item in causes}
        return Kind.ROWS, [told.get(number) for number, _ in enumerate(positions)]
    known = (None, *(judge.request.ids or ()))
    guarded = next((item for item in items if item.guarded and item.record_id in known), None)
    if guarded is None:
        return Kind.ALIKE, ()
    if len(positions) > 1:
        return Kind.HALVES, ()
    return Kind.ROWS, [_cause(guarded, judge, 0, positions[0])]


def _cause(item: Item, judge: Judge, number: int, position: int) -> Told:
    outcome = judge.outcome(item, item.record_id or (judge.request.ids or ())[number], position)
    return Told(outcome, item, locked=outcome.retryable)


def _by_item(answer: Answer[None], judge: Judge, positions: Sequence[int]) -> list[RowAnswer]:
    """Read an answer with an item for each row, wherever these stand."""
    request, envelope = judge.request, answer.envelope
    ids = request.ids or ()
    found, matched = _found(request, envelope)
    slots = [_slot(index, ids[index], item, judge) for index, item in sorted(found.items())]
    may_go = (
        matched
        and len(found) == len(ids)
        and obstacle(slots, request, replayable=True, failed=answer.failed) is None
    )
    rows: list[RowAnswer] = []
    for number, position in enumerate(positions):
        item = found.get(number)
        rows.append(
            Told(_unnamed(answer, request, number, position))
            if item is None
            else _told(item, ids[number], answer, judge, position, may_go=may_go)
        )
    return rows


def _found(request: CrmRequest, envelope: Envelope | None) -> tuple[dict[int, Item], bool]:
    """Return the items by row as far as that is certain, and whether the answer as a whole is in no doubt."""
    if envelope is None or envelope.composite or envelope.key == "tags":  # about calls, and about tags
        return {}, False
    return found_in(request, envelope.items, request.ids or ())


def _told(
    item: Item, record_id: str | None, answer: Answer[None], judge: Judge, position: int, *, may_go: bool
) -> Told:
    judged = judge.outcome(item, item.record_id or record_id, position)
    outcome = qualified(judged, answer, judge.request)
    return Told(outcome, item, locked=may_go and outcome.retryable and not outcome.uncertain)


def _slot(index: int, record_id: str | None, item: Item, judge: Judge) -> Slot:
    return Slot(index, item.record_id or record_id, item, fate_of(item, judge.actions))


def _unnamed(answer: Answer[None], request: CrmRequest, number: int, position: int) -> RecordOutcome:
    """Return the outcome of a row of which the answer has no item for certain."""
    items = answer.envelope.items if answer.envelope is not None else ()
    if answer.error.refused and not any(item.succeeded for item in items):
        return outcome_of_call(answer, request, position, (request.ids or ())[number], bystander=True)
    return _uncertain(request, number, position, answer.error)


def _uncertain(request: CrmRequest, number: int, position: int, error: CallError) -> RecordOutcome:
    known = error.status is None or error.status >= CLIENT_ERROR
    return RecordOutcome(
        position=position,
        record_id=(request.ids or ())[number],
        code=error.code if known else "",
        message=error.message if known else "",
        hint=hint_for_uncertain(str(error) if known else None),
        uncertain=True,
    )


# -- the usual answer: an item for each row, each where its row stands in the request


_MANY: Final = 2
"""Rows from which on it is read: the answer to a single one may hold more, as it may be about the call."""


class _Details(msgspec.Struct, frozen=True, gc=False):
    id: str | int | None = None
    record_id: str | int | None = None
    json_path: Any = None


class _Entry(msgspec.Struct, gc=False):
    code: str
    status: str
    message: str = ""
    details: _Details = _Details()


class _Entries(msgspec.Struct):
    data: list[_Entry]
    composite: Any = msgspec.field(name="__composite_requests", default=msgspec.UNSET)


class _Raws(msgspec.Struct):
    data: list[msgspec.Raw]


_entries: Final = msgspec.json.Decoder(_Entries)
_raws: Final = msgspec.json.Decoder(_Raws)


def _in_order(
    body: bytes, request: CrmRequest, judge: Judge, positions: Sequence[int]
) -> Sequence[RowAnswer] | None:
    """Read the usual answer, None if it is not that: the same as :func:`_by_item`, for a tenth of the time.

    Each item stands where its row stands in the request, and names no other; so `matching.match` says the same.
    """
    ids = request.ids or ()
    try:
        read = _entries.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    entries = read.data
    if len(entries) != len(ids) or read.composite is not msgspec.UNSET or len(ids) < _MANY:
        return None
    known = set(ids) - {None}
    if (len(known) < len(ids) and not request.endpoint.ordered) or (known and len(known) < len(ids)):
        return None
    rows: list[RowAnswer] = []
    refused = []
    for entry, sent in zip(entries, ids, strict=True):
        details = entry.details
        if entry.status != "success":
            refused.append(len(rows))
            rows.append(None)
            continue
        named = details.id
        if named != sent or not named:
            named = identifier(named) or identifier(details.record_id)
            if named != sent and (sent is not None or not named):
                return None
        if entry.code != SUCCESS or details.json_path is not None:
            return None
        rows.append(Written(named, SUCCESS, entry.message))
    return _with_refused(rows, refused, body, request, judge, positions) if refused else rows


def _with_refused(
    rows: list[RowAnswer],
    refused: Sequence[int],
    body: bytes,
    request: CrmRequest,
    judge: Judge,
    positions: Sequence[int],
) -> list[RowAnswer] | None:
    """Judge the refused rows; None if one of them names another row, or a lock stands in the way of a resend."""
    raws, ids = _raws.decode(body).data, request.ids or ()
    slots = []
    for number in refused:
        raw = bytes(raws[number])
        value = msgspec.json.decode(raw)
        if value.get("status") != "error":
            return None
        item = Item(raw, value)
        path = item.details.get("json_path")
        pointed = path is None or (isinstance(path, str) and path.startswith(f"$.{request.container}[{number}]"))
        if not pointed or item.record_id not in (None, ids[number]):
            return None
        slots.append(_slot(number, ids[number], item, judge))
    if obstacle(slots, request, replayable=True, failed=False) is not None:
        return None
    for slot in slots:
        number = slot.request_index or 0
        outcome = judge.outcome(slot.item, slot.record_id, positions[number])
        rows[number] = Told(outcome, slot.item, locked=outcome.retryable)
    return rows


def with_states(judge: Judge, item: Item, record_id: str | None, position: int) -> RecordOutcome:
    """Judge a refused row once more, by a judge that knows approval states."""
    return judge.outcome(item, item.record_id or record_id, position)
