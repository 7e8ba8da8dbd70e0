"""Parse the items of a CRM answer. Pure, and never raises on hostile input.

An item is CRM's result for one record: `{"code", "status", "message", "details"}`. Items sit in a list or an object
under `data`, `share`, `tags` or `portal_invite`; or the body is one bare item; or, in a composite answer, they sit
in the answer of each sub-request. Nothing else counts as an item, whatever it looks like. Sources: zoho/crm-oas
v8.0 examples, API v7 pages, and Zoho's announcement of the two codes (October 2020), which prints the bare form.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from crm_guard._base.codes import GUARDED, RECORD_LOCKED, UNAPPROVED
from crm_guard._protocol.inspection import may_hold_items

if TYPE_CHECKING:
    from collections.abc import Collection

_CONTAINERS: Final = ("data", "share", "tags", "portal_invite", "record_locking_configurations")
_CONVERTED: Final = frozenset({"Contacts", "Deals", "Accounts"})
_COMPOSITE: Final = "__composite_requests"
# The details of these codes name a record other than the one in the request.
_NAMES_ANOTHER_RECORD: Final = frozenset({"DUPLICATE_DATA", "DUPLICATE_LINKING_DATA"})
_MULTIPLE: Final = "MULTIPLE_OR_MULTI_ERRORS"

_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_elements: Final = msgspec.json.Decoder(list[msgspec.Raw])


class Item:
    """CRM's result for one record.

    Attributes:
        raw: The item as CRM wrote it.
        sub: Index of the sub-request in a composite call, else None.
        code: The decisive code: that of a nested error, if one of several explains the refusal.
        details: The details of the decisive code; empty if they are not an object.
        record_id: The id of the record that the item itself names, if any.
        succeeded: Whether CRM reports that it applied the call to this record.
        guarded: Whether the item is a refusal that the guard handles.
    """

    __slots__ = ("_value", "code", "details", "guarded", "raw", "record_id", "sub", "succeeded")

    def __init__(self, raw: bytes, value: dict[str, Any], sub: int | None = None) -> None:
        self.raw, self.sub = raw, sub
        self._value = value
        decisive, status = self._find_decisive(), value.get("status")
        self.code = _text(decisive.get("code"))
        self.details = _mapping(decisive.get("details"))
        self.record_id = None if self.code in _NAMES_ANOTHER_RECORD else _record_named_in(self.details)
        self.succeeded = status == "success"
        self.guarded = status == "error" and self.code in GUARDED

    @property
    def message(self) -> str:
        """CRM's text. It is the same for codes of opposite meaning: never decide by it."""
        return _text(self._value.get("message"))

    @property
    def action(self) -> str | None:
        """`details.action`: what locked the record. Not the item's own `action` (upsert: insert or update)."""
        action = self.details.get("action")
        return action if isinstance(action, str) else None

    def retryable(self, actions: Collection[str]) -> bool:
        """Return whether CRM refused the record for a temporary lock: exactly one of `actions`."""
        if not self.guarded:
            return False
        return all(_is_lock(error, actions) for error in self._nested or [self._value])

    def rewritten(self, raw: bytes) -> Item:
        """Return the item with other bytes and the same meaning."""
        return Item(raw, self._value, self.sub)

    def reread(self, raw: bytes) -> Item:
        """Parse `raw` as an item of the same sub-request."""
        return Item(raw, msgspec.json.decode(raw), self.sub)

    def inside(self, sub: int) -> Item:
        """Return the item as part of the answer to sub-request `sub`."""
        return Item(self.raw, self._value, sub)

    @property
    def _nested(self) -> list[dict[str, Any]]:
        """The errors inside a MULTIPLE_OR_MULTI_ERRORS item (zoho/crm-oas v8.0, record schemas)."""
        details = self._value.get("details")
        if self._value.get("code") != _MULTIPLE or not isinstance(details, dict):
            return []
        errors = details.get("errors")
        return [error if isinstance(error, dict) else {} for error in errors] if isinstance(errors, list) else []

    def _find_decisive(self) -> dict[str, Any]:
        """Return the item, or the decisive nested error: a missing approval comes before a lock."""
        nested = self._nested
        for codes in (UNAPPROVED, {RECORD_LOCKED}):
            for error in nested:
                if _text(error.get("code")) in codes:
                    return error
        return self._value


@dataclass(frozen=True)
class Envelope:
    """A body that holds items.

    Attributes:
        key: The container's name, None for a bare item and for a composite answer.
        listed: Whether the container is a list.
        items: The items, in CRM's order.
        members: The body's top level, each value as CRM wrote it.
        composite: Whether the items come from the answers of sub-requests.
    """

    items: tuple[Item, ...]
    members: dict[str, msgspec.Raw]
    key: str | None = None
    listed: bool = False
    composite: bool = False

    @property
    def kind(self) -> str:
        """One word for the shape."""
        return "composite" if self.composite else self.key or "top"

    @property
    def bare(self) -> bool:
        """Whether one item, without a container, is the result of the whole call."""
        return self.key is None and not self.composite

    @cached_property
    def guarded(self) -> bool:
        """Whether any item is a refusal that the guard handles."""
        return any(item.guarded for item in self.items)

    def emptied(self) -> Envelope:
        """Return a copy without the items, which keeps none of their bytes in memory."""
        rest = {name: msgspec.Raw(b"") if name == self.key else raw.copy() for name, raw in self.members.items()}
        return replace(self, items=(), members={} if self.bare or self.composite else rest)


def read_envelope(body: bytes, *, reads: Collection[int] = ()) -> Envelope | None:
    """Return the items of a CRM answer, or None if it holds none or cannot be read.

    Args:
        body: A JSON document, or anything else.
        reads: Indexes of composite sub-requests that only read: their 2xx answers hold field values.
    """
    try:
        members = _members.decode(body)
        return _composite(members, reads) if _COMPOSITE in members else _plain(body, members)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None


def tells_success(body: bytes, *, converts: bool = False) -> bool:
    """Return whether a body without items of ours reports a success all the same.

    So do items under a name that is none of the containers (`users`, `variables`).

    Args:
        body: The body.
        converts: Whether it answers a conversion: API v2 gives the new ids alone, as third parties print it,
            `{"data":[{"Contacts":"..","Deals":null,"Accounts":".."}]}`.
    """
    try:
        members = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return False
    lists = [value if isinstance(value, list) else [value] for value in members.values()]
    reports = partial(_reports_success, converts=converts)
    return any(elements and all(map(reports, elements)) for elements in lists)


def _reports_success(element: object, *, converts: bool) -> bool:
    if not isinstance(element, dict):
        return False
    if converts and element.keys() >= _CONVERTED:
        return isinstance(element["Contacts"], str)
    return element.get("status") == "success" and isinstance(element.get("code"), str)


def identifier(value: object) -> str | None:
    """Return a record id as text; CRM sends ids as strings or integers."""
    if isinstance(value, str):
        return value or None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _plain(body: bytes, members: dict[str, msgspec.Raw]) -> Envelope | None:
    return _contained(members) or _bare(body, members)


def _contained(members: dict[str, msgspec.Raw]) -> Envelope | None:
    for key in _CONTAINERS:
        if key in members:
            raw = bytes(members[key])
            listed = raw.startswith(b"[")
            found = [bytes(element) for element in _elements.decode(raw)] if listed else [raw]
            items = [_item(element) for element in found]
            if items and None not in items:
                return Envelope(tuple(item for item in items if item), members, key, listed)
    return None


def _bare(body: bytes, members: dict[str, msgspec.Raw]) -> Envelope | None:
    item = _item(body) if "code" in members else None
    return Envelope((item,), members) if item else None


def _item(raw: bytes, sub: int | None = None) -> Item | None:
    value = msgspec.json.decode(raw)
    if not isinstance(value, dict) or not isinstance(value.get("code"), str):
        return None
    return Item(raw, value, sub) if _text(value.get("status")) in {"success", "error"} else None


def _composite(members: dict[str, msgspec.Raw], reads: Collection[int]) -> Envelope | None:
    items: list[Item] = []
    for index, raw in enumerate(_elements.decode(members[_COMPOSITE])):
        items += _sub_items(bytes(raw), index, reads)
    return Envelope(tuple(items), members, composite=True) if items else None


def _sub_items(raw: bytes, index: int, reads: Collection[int]) -> list[Item]:
    """Return the items of one sub-request; its outer item if it has no answer (it failed before it ran)."""
    outer = _item(raw, index)
    response = outer.details.get("response") if outer else None
    if not isinstance(response, dict):
        return [outer] if outer else []
    status = response.get("status_code")
    if isinstance(status, int) and not may_hold_items(status, reads=index in reads):
        return []
    body = _raw_value(raw, "details", "response", "body")
    envelope = _plain(body, _members.decode(body)) if body.startswith(b"{") else None
    return [item.inside(index) for item in envelope.items] if envelope else []


def _raw_value(raw: bytes, *names: str) -> bytes:
    """Return the raw bytes of a nested JSON value; empty if there is none."""
    for name in names:
        raw = bytes(_members.decode(raw).get(name, b""))
    return raw


def _is_lock(error: dict[str, Any], actions: Collection[str]) -> bool:
    details = error.get("details")
    action = details.get("action") if isinstance(details, dict) else None
    return error.get("code") == RECORD_LOCKED and isinstance(action, str) and action in actions


def _record_named_in(details: dict[str, Any]) -> str | None:
    return identifier(details.get("id")) or identifier(details.get("record_id"))


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
