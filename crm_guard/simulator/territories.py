"""Territories of records. OAS: `territories`, assign and remove, of many records and of one.

Any territory id can be assigned: the territories of the org are not simulated. OAS refuses to remove a territory
that is not assigned (INVALID_DATA); here that succeeds and changes nothing, since a record starts without any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .envelopes import many, on_path_record, on_row
from .messages import Json, Reply, RequestError, item, too_long
from .routes import Kind

if TYPE_CHECKING:
    from .records import Record
    from .visit import Visit

MAX_ROWS = 10
_MAX_TERRITORIES = 10
_ADDS = frozenset({Kind.ASSIGN_TERRITORIES, Kind.ASSIGN_TERRITORIES_ONE})


def move_many(visit: Visit) -> Reply:
    """POST /{module}/actions/assign_territories and remove_territories.

    Items are in the order of the rows; a mixed answer has status 202.
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
        raise RequestError(too_long("data", limit))
    return rows


def _move_row(visit: Visit, row: Json, position: int) -> Json:
    def work(record: Record) -> Json:
        return visit.refusal(record, position) or _move(visit, record, row, position)

    return on_row(visit, row, position, work)


def _move(visit: Visit, record: Record, row: Json, position: int) -> Json:
    """Assign or remove the territories of `row`, and return the item that says so."""
    where = f"$.data[{position}].Territories"
    found = row.get("Territories")
    if not isinstance(found, list) or not found:
        return _problem("MANDATORY_NOT_FOUND", "required field not found", "Territories", where)
    adds = visit.route.kind in _ADDS
    ids: list[str] = []
    for index, entry in enumerate(found):
        territory = str(entry.get("id") or "") if isinstance(entry, dict) else ""
        problem = _entry_problem(record, territory, ids, f"{where}[{index}].id", adds=adds)
        if problem is not None:
            return problem
        ids.append(territory)
    others = [entry for entry in record.territories if entry not in ids]
    if adds and len(others) + len(ids) > _MAX_TERRITORIES:
        message = "Maximum limit of territories for that record exceeds"
        return _problem("LIMIT_EXCEEDED", message, "Territories", where, limit=_MAX_TERRITORIES)
    record.territories = [*others, *ids] if adds else others
    visit.applied(record)
    done = "updated" if adds else "removed"
    return item("SUCCESS", f"the territories data {done} successfully", {"id": record.id})


def _entry_problem(record: Record, territory: str, before: list[str], where: str, *, adds: bool) -> Json | None:
    """Return the item about a territory that cannot be assigned or removed; `before` stand before it in the row."""
    if not territory:
        return _problem("MANDATORY_NOT_FOUND", "required field not found", "id", where)
    if territory in before:
        first = f"{where.rpartition('[')[0]}[{before.index(territory)}].id"
        return _problem("ALREADY_USED", "duplicate territory id found", "id", where, exists_in={"json_path": first})
    if adds and territory in record.territories:
        return _problem("DUPLICATE_DATA", "Given Territory already exists for that record", "id", where)
    return None


def _problem(code: str, message: str, name: str, where: str, **details: object) -> Json:
    return item(code, message, {**details, "api_name": name, "json_path": where})
