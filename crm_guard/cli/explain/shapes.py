"""Whether a value is an answer of CRM: results, the rows of a read, or neither. Pure.

Sources: the OpenAPI files of zoho/crm-oas v8.0. A list of rows has `info` beside it (operation getRecords); an item
about a record names it in `details`, a row has its `id` itself.
"""

from __future__ import annotations

import enum
import json
import re
from typing import Any, Final

from crm_guard._base.codes import GUARDED, SUCCESS
from crm_guard._protocol.envelope import Envelope, read_envelope

_CODE: Final = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*")
_PAGE: Final = frozenset({"more_records", "per_page", "page"})
# Reads of settings that programs call first; their answers have these names and no `data`.
_READ: Final = frozenset({"users", "modules", "fields", "layouts", "org", "roles", "profiles"})
_KEYS: Final = _READ | {
    *("code", "data", "share", "tags", "portal_invite", "record_locking_configurations"),
    *("__composite_requests", "info"),
}
# Tuples, as what is looked for may be anything, also what has no hash.
_STATUSES: Final = ("success", "error")
_SUCCESSES: Final = (SUCCESS, "SCHEDULED")
_REFUSALS: Final = tuple(GUARDED)


class Shape(enum.Enum):
    """What a JSON object is."""

    RESULTS = "results"
    ROWS = "rows"
    DOUBTFUL = "rows or results"
    OTHER = "other"


def shape_of(value: dict[str, Any], envelope: Envelope | None) -> Shape:
    """Return what an object is, given the items that the guard's own reading finds in it."""
    if _has_page(value):
        return Shape.ROWS
    if envelope is not None:
        rows = value.get("data")
        own_ids = isinstance(rows, list) and any("id" in row for row in rows if isinstance(row, dict))
        return Shape.DOUBTFUL if own_ids and envelope.guarded else Shape.RESULTS
    if "__composite_requests" in value or is_failure(value) or _tells_success(value):
        return Shape.RESULTS
    if any(isinstance(value.get(name), list) for name in _READ) or _has_rows(value):
        return Shape.ROWS
    return Shape.OTHER


def is_failure(value: dict[str, Any]) -> bool:
    """Return whether an object has one of CRM's codes and a text: the answer to a call that failed."""
    code = value.get("code")
    return isinstance(code, str) and _CODE.fullmatch(code) is not None and isinstance(value.get("message"), str)


def is_item(value: object) -> bool:
    """Return whether a value is CRM's result for one record."""
    return isinstance(value, dict) and isinstance(value.get("code"), str) and value.get("status") in _STATUSES


def is_refusal(value: object) -> bool:
    """Return whether a value has a guarded code, and lacks at most the rest of an item."""
    return isinstance(value, dict) and value.get("code") in _REFUSALS


def completed(item: dict[str, Any]) -> dict[str, Any]:
    """Return an item of which only a part is known, with what the guard's reading needs, if its code tells that."""
    code = item.get("code")
    if item.get("status") not in _STATUSES and (code in _SUCCESSES or code in _REFUSALS):
        item = {**item, "status": "success" if code in _SUCCESSES else "error"}
    return item if isinstance(item.get("details"), dict) else {**item, "details": {}}


def body_of(value: object) -> bytes:
    """Return a value as a JSON body; empty if it is nested too deeply.

    Halves of characters, which no JSON can hold, are replaced.
    """
    try:
        return json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "replace")
    except (RecursionError, ValueError, TypeError):
        return b""


def items_in(body: bytes) -> Envelope | None:
    """Return the items of a body, as the guard reads them."""
    return read_envelope(body)


def may_be_answer(value: dict[str, Any]) -> bool:
    """Return whether an object has any of the keys of an answer: the cheap test before it is read."""
    return not _KEYS.isdisjoint(value) or _tells_success(value)


def _tells_success(value: dict[str, Any]) -> bool:
    """Return whether results stand under a name of their own, such as `variables`."""
    return any(members and all(map(is_item, members)) for members in value.values() if isinstance(members, list))


def _has_page(value: dict[str, Any]) -> bool:
    info = value.get("info")
    return isinstance(info, dict) and not _PAGE.isdisjoint(info)


def _has_rows(value: dict[str, Any]) -> bool:
    rows = value.get("data")
    if not isinstance(rows, list) or not rows:
        return False
    return all(isinstance(row, dict) and isinstance(row.get("id"), str | int) for row in rows)
