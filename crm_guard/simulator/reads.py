"""Reading records. ZOHO docs: get-records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .envelopes import query_ids
from .messages import Json, Reply, RequestError, answer, bare, missing_param
from .records import Record, State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .visit import Visit

MAX_IDS = 100
MAX_PER_PAGE = 200
_FIELDS_MANDATORY_FROM = 7
_CVID_CREDITS = 3
_MAX_DIGITS = 9
_NO_RIGHTS = {"delegate": False, "approve": False, "reject": False}
_REJECTED = (State.ZIA_VISION_REJECTED, State.APPROVAL_PROCESS_REJECTED)

_SYSTEM: Mapping[str, Callable[[Visit, Record], Any]] = {
    "Modified_Time": lambda visit, record: visit.store.iso(record.modified),
    "Created_Time": lambda visit, record: visit.store.iso(record.created),
    "Owner": lambda _visit, record: dict(record.owner),
    "Tag": lambda _visit, record: list(record.tags.values()),
    "$approval_state": lambda _visit, record: record.state.approval_state,
    "$approved": lambda _visit, record: record.state.is_approved,
    "$approval": lambda _visit, record: {**_NO_RIGHTS, "resubmit": record.state in _REJECTED},
    "$review_process": lambda _visit, _record: {"approve": False, "reject": False, "resubmit": False},
    "$in_merge": lambda _visit, record: record.state is State.MERGE_PENDING,
    "Locked__s": lambda _visit, record: record.state is State.RECORD_LOCKING,
    "$locked_for_me": lambda _visit, record: record.state is State.RECORD_LOCKING,
    # Its content is printed nowhere; null when not available (OAS).
    "$zia_visions": lambda _visit, _record: None,
}


def list_records(visit: Visit) -> Reply:
    """GET /{module}: in the order of creation.

    Without `approved=both` only approved records are listed, and without `converted=both` only leads that are
    still leads. Both defaults are undocumented for version 7 and 8.
    """
    param = visit.request.param
    if visit.route.version >= _FIELDS_MANDATORY_FROM and not param("fields"):
        raise RequestError(missing_param("fields"))
    visit.notes.credits = _CVID_CREDITS if param("cvid") else 1
    found = [record for record in _asked(visit) if _listed(visit, record)]
    page, per_page = _positive(visit, "page", 1), _positive(visit, "per_page", MAX_PER_PAGE)
    if per_page > MAX_PER_PAGE:
        message = "the per_page given seems to be invalid"
        raise RequestError(bare(400, "INVALID_DATA", message, {"param_name": "per_page", "limit": 200}))
    shown = found[(page - 1) * per_page : page * per_page]
    if not shown:
        return Reply(status=204)
    more = len(found) > page * per_page
    info = {"per_page": per_page, "count": len(shown), "page": page, "more_records": more}
    return answer(200, {"data": [_show(visit, record) for record in shown], "info": info})


def read_record(visit: Visit) -> Reply:
    """GET /{module}/{id}. A locked or unapproved record is shown (no text says otherwise)."""
    record = visit.find(visit.route.reference)
    return Reply(status=204) if record is None else answer(200, {"data": [_show(visit, record)]})


def _asked(visit: Visit) -> list[Record]:
    """Return the records that `ids` names, or all of the module."""
    references = query_ids(visit, MAX_IDS)
    if references is None:
        return list(visit.store.living(visit.route.module, visit.now))
    found = (visit.find(reference) for reference in references)
    return [record for record in found if record is not None]


def _listed(visit: Visit, record: Record) -> bool:
    pairs = (("approved", "true", record.state.is_approved), ("converted", "false", record.converted))
    asked = ((visit.request.param(name) or default, value) for name, default, value in pairs)
    return all(wanted == "both" or value == (wanted == "true") for wanted, value in asked)


def _positive(visit: Visit, name: str, default: int) -> int:
    text = visit.request.param(name)
    if text is None:
        return default
    if not text.isdecimal() or len(text) > _MAX_DIGITS or int(text) < 1:
        message = f"the {name} given seems to be invalid"
        raise RequestError(bare(400, "INVALID_DATA", message, {"param_name": name}))
    return int(text)


def _show(visit: Visit, record: Record) -> Json:
    """Return the asked fields; unknown names are left out (undocumented)."""
    asked = visit.request.param("fields")
    names = [*record.fields, *_SYSTEM] if not asked else [name.strip() for name in asked.split(",")]
    shown: Json = {"id": record.id}
    for name in names:
        if name in record.fields:
            shown[name] = record.fields[name]
        elif name in _SYSTEM:
            shown[name] = _SYSTEM[name](visit, record)
    return shown
