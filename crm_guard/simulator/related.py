"""The records that belong to a record: those that have it in a lookup field, and its notes.

OAS: `related_records`, `related_notes`, `related_lists`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .messages import Json, Reply, RequestError, answer, bare, invalid_url, missing_param
from .org import known_modules, module_ids
from .reads import in_order, listed, page_of, refuse_unserved, require_fields, show

if TYPE_CHECKING:
    from .records import Record
    from .visit import Visit

NOTES = "Notes"
_PARENT = "Parent_Id"
_FIRST_ID = 5725767000000003500


def list_related(visit: Visit) -> Reply:
    """GET /{module}/{id}/{related list}: the latest first (OAS).

    The related lists of the simulator bear the names of modules. One of a module that it knows is empty where no
    record of it belongs to this one. About a list with another name nothing tells whether the org has it: neither
    "empty" nor "no such list" would be true, so it is not simulated.
    """
    related = _related(visit)
    require_fields(visit)
    refuse_unserved(visit)
    return page_of(visit, in_order(visit, listed(visit, related)))


def read_related(visit: Visit) -> Reply:
    """GET /{module}/{id}/{related list}/{record}."""
    wanted = next((record for record in _related(visit) if record.id == visit.route.entry), None)
    require_fields(visit)
    refuse_unserved(visit)
    if wanted is None:
        raise RequestError(bare(404, "INVALID_DATA", "The record does not exist"))
    visit.notes.named.append(wanted.id)
    return answer(200, {"data": show(visit, [wanted])})


def list_related_lists(visit: Visit) -> Reply:
    """GET /settings/related_lists?module=: the notes, and each module with records that belong to one of it."""
    module = visit.request.param("module")
    if not module:
        raise RequestError(missing_param("module"))
    parents = {record.id for record in visit.store.living(module, visit.now)}
    linked = [
        record.module
        for record in visit.store.records.values()
        if not record.deleted and not parents.isdisjoint(_parents(record))
    ]
    ids, names = module_ids(visit), dict.fromkeys((NOTES, *linked))
    lists = [_list(module, name, ids[name], number) for number, name in enumerate(names)]
    return answer(200, {"related_lists": lists})


def _related(visit: Visit) -> list[Record]:
    """Return the records of the related list.

    Raises:
        RequestError: There is no such record, or no such list.
    """
    name = visit.route.related
    if name not in known_modules(visit):
        raise RequestError(invalid_url(visit.request.method, visit.request.path))
    parent = visit.find(visit.route.reference)
    if parent is None:
        message = "The related id given seems to be invalid"
        raise RequestError(bare(400, "INVALID_DATA", message, {"resource_path_index": 1}))
    return [record for record in visit.store.living(name, visit.now) if parent.id in _parents(record)]


def _parents(record: Record) -> set[str]:
    """Return the ids that the lookup fields of a record hold; for a note that is one field alone."""
    fields = record.fields
    values = [fields.get(_PARENT)] if record.module == NOTES else list(fields.values())
    ids = {str(value.get("id")) for value in values if isinstance(value, dict)}
    # Version 2 has the id of a note's record as such.
    return ids | {value for value in values if isinstance(value, str) and record.module == NOTES}


def _list(parent: str, name: str, module_id: str, number: int) -> Json:
    return {
        "id": str(_FIRST_ID + number),
        "sequence_number": str(number + 1),
        "display_label": name,
        "api_name": name,
        "name": name,
        "module": {"api_name": name, "id": module_id},
        "href": f"{parent}/{{ENTITYID}}/{name}",
        "type": "default",
        "action": None,
        "status": "visible",
    }
