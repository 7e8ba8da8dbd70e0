"""From result items to whole answers, and the ways in which ids travel in requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .messages import (
    Json,
    Reply,
    RequestError,
    answer,
    batch_status,
    invalid_field,
    item,
    limit_exceeded,
    missing_field,
    read_json,
    succeeded,
)
from .refusals import in_envelope
from .routes import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .records import Record
    from .visit import Visit

UNKNOWN_ID = "the id given seems to be invalid"
_NOT_DELETED = "record not deleted"
_UNKNOWN_RELATED = "the related id given seems to be invalid"
_LOCK_KINDS = (Kind.LOCKS, Kind.LOCK_READ, Kind.LOCK, Kind.LOCK_CHANGE, Kind.UNLOCK)
# OAS: what these calls say of a record in the path that is not there. An update and a clone say it like a delete.
_UNKNOWN: Mapping[Kind, str] = {
    **dict.fromkeys((Kind.UPDATE_ONE, Kind.CLONE, Kind.DELETE_ONE), _NOT_DELETED),
    **dict.fromkeys((Kind.SHARE, Kind.SHARE_CHANGE, Kind.SHARE_LIST, Kind.SHARE_REVOKE), "ENTITY_ID_INVALID"),
    Kind.CONVERSION_OPTIONS: "the given id seems to be invalid",
    Kind.INVENTORY_CONVERT: "invalid data",
    **dict.fromkeys(_LOCK_KINDS, _UNKNOWN_RELATED),
}
_UNKNOWN_IN_DATA = (Kind.UPDATE_ONE, Kind.CLONE)


def many(
    visit: Visit, items: Sequence[Json], *, success: int = 200, mixed: int = 207, beside: Json | None = None
) -> Reply:
    """Return the answer of a batch; `beside` holds the keys next to `data`."""
    status = batch_status(items, success=success, mixed=mixed, sandbox=visit.options.sandbox)
    if visit.options.envelope == "bare" and len(items) == 1 and not succeeded(items[0]):
        return answer(status, items[0])
    return answer(status, {"data": list(items), **(beside or {})})


def one(visit: Visit, result: Json, *, success: int = 200, beside: Json | None = None) -> Reply:
    """Return the answer about a single record, in the envelope that its endpoint documents."""
    if succeeded(result):
        return answer(success, {"data": [result], **(beside or {})})
    documented = "data" if in_envelope(visit.route.kind, result["code"]) else "bare"
    if (visit.options.envelope or documented) == "data":
        return answer(batch_status([result]), {"data": [result], **(beside or {})})
    return answer(batch_status([result]), result)


def on_path_record(visit: Visit, work: Callable[[Record], Json], *, success: int = 200) -> Reply:
    """Answer a write to the record in the path: unknown, refused, or done by `work`."""
    record = path_record(visit)
    return one(visit, visit.refusal(record) or work(record), success=success)


def path_record(visit: Visit) -> Record:
    """Return the record that the path names.

    Raises:
        RequestError: There is none. OAS: `resource_path_index` tells which segment is wrong.
    """
    record = visit.find(visit.route.reference)
    if record is None:
        raise RequestError(_unknown(visit.route.kind))
    return record


def _unknown(kind: Kind) -> Reply:
    problem = item("INVALID_DATA", _UNKNOWN.get(kind, UNKNOWN_ID), {"resource_path_index": 1})
    return answer(400, {"data": [problem]} if kind in _UNKNOWN_IN_DATA else problem)


def unknown_id(reference: str) -> Json:
    """Return the item about an id of a list that no record has."""
    return item("INVALID_DATA", UNKNOWN_ID, {"id": reference})


def on_row(visit: Visit, row: Json, position: int, work: Callable[[Record], Json]) -> Json:
    """Return the item of a row that has to name a record: it names none, an unknown one, or what `work` says."""
    where = {"api_name": "id", "json_path": f"$.data[{position}].id"}
    if not row.get("id") and not row.get(visit.external or "id"):
        return item("MANDATORY_NOT_FOUND", "required field not found", where)
    record = visit.find_row(row)
    return item("INVALID_DATA", UNKNOWN_ID, where) if record is None else work(record)


def on_each(
    visit: Visit,
    references: Sequence[str],
    work: Callable[[Record], Json],
    *,
    missing: Callable[[str], Json] = unknown_id,
) -> list[Json]:
    """Return one item per id: unknown (as `missing` says), refused, or done by `work`."""
    items = []
    for position, reference in enumerate(references):
        record = visit.find(reference)
        if record is None:
            items.append(missing(reference))
        else:
            items.append(visit.refusal(record, position) or work(record))
    return items


def body_ids(visit: Visit, limit: int, *, missing: Reply | None = None, exceeded: Reply | None = None) -> list[str]:
    """Return the `ids` of the body: an array (V7), or a JSON array in a string (OAS v8).

    Args:
        visit: The call.
        limit: The most ids that it takes.
        missing: Its own answer to a body without ids.
        exceeded: Its own answer to more than `limit`.

    Raises:
        RequestError: They are missing, malformed, or more than `limit`.
    """
    if "ids" not in visit.body:
        raise RequestError(missing or missing_field("ids"))
    return checked_ids(_decode(visit.body["ids"]), limit, exceeded)


def checked_ids(ids: Any, limit: int, exceeded: Reply | None = None) -> list[str]:
    """Return `ids` as strings.

    Raises:
        RequestError: They are no array, empty, or more than `limit`.
    """
    if not isinstance(ids, list) or not ids:
        raise RequestError(invalid_field("ids", "jsonarray"))
    if len(ids) > limit:
        raise RequestError(exceeded or limit_exceeded("ids", limit))
    return [str(entry) for entry in ids]


def query_ids(visit: Visit, limit: int) -> list[str] | None:
    """Return the `ids` of the query, or `None` when it has none.

    Raises:
        RequestError: There are more than `limit`.
    """
    text = visit.request.param("ids")
    found = [part.strip() for part in (text or "").split(",") if part.strip()]
    return checked_ids(found, limit) if found else None


def _decode(ids: Any) -> Any:
    if not isinstance(ids, str):
        return ids
    try:
        return read_json(ids)
    except ValueError:
        return None
