"""From result items to whole answers, and the ways in which ids travel in requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .messages import (
    Json,
    Reply,
    RequestError,
    answer,
    bare,
    batch_status,
    invalid_field,
    item,
    limit_exceeded,
    missing_field,
    read_json,
    succeeded,
)
from .refusals import in_envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .records import Record
    from .visit import Visit

UNKNOWN_ID = "the id given seems to be invalid"


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
        raise RequestError(bare(400, "INVALID_DATA", UNKNOWN_ID, {"resource_path_index": 1}))
    return record


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
    missing: str = UNKNOWN_ID,
) -> list[Json]:
    """Return one item per id: unknown, refused, or done by `work`."""
    items = []
    for position, reference in enumerate(references):
        record = visit.find(reference)
        if record is None:
            items.append(item("INVALID_DATA", missing, {"id": reference}))
        else:
            items.append(visit.refusal(record, position) or work(record))
    return items


def body_ids(visit: Visit, limit: int) -> list[str]:
    """Return the `ids` of the body: an array (V7), or a JSON array in a string (OAS v8).

    Raises:
        RequestError: They are missing, malformed, or more than `limit`.
    """
    if "ids" not in visit.body:
        raise RequestError(missing_field("ids"))
    return checked_ids(_decode(visit.body["ids"]), limit)


def checked_ids(ids: Any, limit: int) -> list[str]:
    """Return `ids` as strings.

    Raises:
        RequestError: They are no array, empty, or more than `limit`.
    """
    if not isinstance(ids, list) or not ids:
        raise RequestError(invalid_field("ids", "jsonarray"))
    if len(ids) > limit:
        raise RequestError(limit_exceeded("ids", limit))
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
