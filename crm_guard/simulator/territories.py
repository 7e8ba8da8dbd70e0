"""Territories of records. OAS: assign and remove territories, of many records and of one.

Any territory id will do: the territories of the org are not simulated. OAS refuses to assign a territory twice
(DUPLICATE_DATA); here that succeeds and changes nothing, and so does removing a territory that is not assigned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .envelopes import many, on_path_record, on_row
from .messages import Json, Reply, RequestError, item, limit_exceeded
from .routes import Kind

if TYPE_CHECKING:
    from .records import Record
    from .visit import Visit

MAX_ROWS = 10
_ADDS = frozenset({Kind.ASSIGN_TERRITORIES, Kind.ASSIGN_TERRITORIES_ONE})


def move_many(visit: Visit) -> Reply:
    """POST /{module}/actions/assign_territories and remove_territories.

    Items are in the order of the rows; a mixed answer has status 202. OAS answers an eleventh row with INVALID_DATA
    and `maximum_length`; here it is LIMIT_EXCEEDED, as in all other calls.
    """
    items = [_move_row(visit, row, index) for index, row in enumerate(_rows(visit, MAX_ROWS))]
    return many(visit, items, mixed=202)


def move_one(visit: Visit) -> Reply:
    """POST /{module}/{id}/actions/assign_territories and remove_territories."""
    (row,) = _rows(visit, 1)
    return on_path_record(visit, lambda record: _move(visit, record, row, 0))


def _rows(visit: Visit, limit: int) -> list[Json]:
    rows = visit.rows()
    if len(rows) > limit:
        raise RequestError(limit_exceeded("data", limit))
    return rows


def _move_row(visit: Visit, row: Json, position: int) -> Json:
    def work(record: Record) -> Json:
        return visit.refusal(record, position) or _move(visit, record, row, position)

    return on_row(visit, row, position, work)


def _move(visit: Visit, record: Record, row: Json, position: int) -> Json:
    """Assign or remove the territories of `row`, and return the item that says so."""
    ids = _territory_ids(row)
    if not ids:
        where = {"api_name": "Territories", "json_path": f"$.data[{position}].Territories"}
        return item("MANDATORY_NOT_FOUND", "required field not found", where)
    adds = visit.route.kind in _ADDS
    others = [entry for entry in record.territories if entry not in ids]
    record.territories = list(dict.fromkeys([*record.territories, *ids])) if adds else others
    visit.applied(record)
    done = "updated" if adds else "removed"
    return item("SUCCESS", f"the territories data {done} successfully", {"id": record.id})


def _territory_ids(row: Json) -> list[str]:
    """Return the ids of `Territories`; none where it is no array of objects with an id."""
    found = row.get("Territories")
    if not isinstance(found, list) or not all(isinstance(entry, dict) and entry.get("id") for entry in found):
        return []
    return [str(entry["id"]) for entry in found]
