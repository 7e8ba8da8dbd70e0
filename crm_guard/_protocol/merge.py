"""Builds the merged answer, its status included: what CRM would have returned without locks. Pure.

One item per record, in the order of the first answer; the HTTP status and the other members of the body are those
that CRM itself used for an answer of the same kind (all applied, some applied, none applied).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from crm_guard._base.codes import OK, RECORD_LOCKED
from crm_guard._protocol.json_spans import members, splice
from crm_guard._protocol.precedents import Kind, kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crm_guard._protocol.envelope import Envelope, Item
    from crm_guard._protocol.exchange import Exchange

_COUNTERS: Final = ("success_count", "locked_count")


@dataclass(frozen=True, slots=True)
class Merged:
    """Status and body of the merged answer."""

    status: int
    body: bytes


def merge(exchange: Exchange[Any], items: Sequence[Item]) -> Merged:
    """Put `items`, one for each record, into one answer."""
    kind, precedents = kind_of(items), exchange.precedents
    status = precedents.status(kind) or _usual_status(exchange, kind)
    return Merged(status, write_body(precedents.form(kind), items))


def write_body(envelope: Envelope, items: Sequence[Item]) -> bytes:
    """Write a body of the shape of `envelope` with other items."""
    if envelope.key is None:
        return items[0].raw
    joined = b",".join(item.raw for item in items)
    container = b"[" + joined + b"]" if envelope.listed else joined
    written = {key: bytes(raw) for key, raw in envelope.members.items()}
    written |= _counted(written, items) | {envelope.key: container}
    return b"{" + b",".join(json.dumps(key).encode() + b":" + raw for key, raw in written.items()) + b"}"


def with_hint(item: Item, hint: str) -> Item:
    """Return the item with `hint` appended to its message, and every other byte as it was."""
    text = item.raw.decode()
    try:
        message = (members(text) or {}).get("message")
    except (ValueError, RecursionError):
        return item
    if message is None or not isinstance(message.value, str):
        return item
    extended = json.dumps(f"{message.value} {hint}".strip())
    return item.rewritten(splice(text, {(message.start, message.end): extended}).encode())


def _usual_status(exchange: Exchange[Any], kind: Kind) -> int:
    if kind is Kind.ALL:
        return OK
    return exchange.request.endpoint.partial_status if kind is Kind.SOME else exchange.precedents.first


def _counted(written: Mapping[str, bytes], items: Sequence[Item]) -> dict[str, bytes]:
    """Return the counters that the body has, in the form (text or number) in which CRM wrote them."""
    counts = (sum(item.succeeded for item in items), sum(item.code == RECORD_LOCKED for item in items))
    return {
        name: b'"%d"' % count if written[name].startswith(b'"') else b"%d" % count
        for name, count in zip(_COUNTERS, counts, strict=True)
        if name in written
    }
