"""Reading records. ZOHO docs: get-records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .comparing import sort_key
from .envelopes import query_ids
from .messages import Json, Reply, RequestError, answer, bare, missing_param, not_simulated
from .records import Record, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from .visit import Visit

MAX_IDS = 100
MAX_PER_PAGE = 200
_FIELDS_MANDATORY_FROM = 7
_MAX_FIELDS = 50
_MAX_PAGE = 10
_MAX_LISTED = 2000
_SORTABLE = ("id", "Created_Time", "Modified_Time")
_NO_TOKENS: Json = dict.fromkeys(("next_page_token", "previous_page_token", "page_token_expiry"))
_CVID_CREDITS = 3
_MAX_DIGITS = 9
# What else selects records (OAS). To leave it out of account would find too many.
_UNSERVED = ("cvid", "filters", "cross_filters", "filterId", "territory_id", "include_child", "page_token")
_UNSERVED_HEADER = "If-Modified-Since"
_NO_RIGHTS = {"delegate": False, "approve": False, "reject": False}
_REJECTED = (State.ZIA_VISION_REJECTED, State.APPROVAL_PROCESS_REJECTED)

_SYSTEM: Mapping[str, Callable[[Visit, Record], Any]] = {
    "Modified_Time": lambda visit, record: visit.store.iso(record.modified),
    "Created_Time": lambda visit, record: visit.store.iso(record.created),
    "Owner": lambda _visit, record: dict(record.owner),
    "Tag": lambda _visit, record: list(record.tags.values()),
    "$approval_state": lambda _visit, record: record.approval_state,
    "$approved": lambda _visit, record: record.is_approved,
    "$approval": lambda _visit, record: {**_NO_RIGHTS, "resubmit": record.state in _REJECTED},
    "$review_process": lambda _visit, _record: {"approve": False, "reject": False, "resubmit": False},
    "$in_merge": lambda _visit, record: record.state is State.MERGE_PENDING,
    "Locked__s": lambda _visit, record: record.state is State.RECORD_LOCKING,
    "$locked_for_me": lambda _visit, record: record.state is State.RECORD_LOCKING,
    # Its content is printed nowhere; null when not available (OAS).
    "$zia_visions": lambda _visit, _record: None,
}
# Shown where they are asked for by name.
_DERIVED: Mapping[str, Callable[[Visit, Record], Any]] = {
    "Full_Name": lambda _visit, record: _full_name(record),
    "Converted__s": lambda _visit, record: record.converted,
}


def list_records(visit: Visit) -> Reply:
    """GET /{module}: by their ids, the lowest first, unless `sort_by` or `sort_order` ask for another order.

    Without these, records come as `ids` names them (undocumented).

    Without `approved=both` only approved records are listed, and without `converted=both` only leads that are
    still leads. Both defaults are undocumented for version 7 and 8. Page tokens are not simulated: none is given
    out, and the 2,000 records that pages lead to are all that a list shows.
    """
    require_fields(visit)
    visit.notes.credits = _CVID_CREDITS if visit.request.param("cvid") else 1
    refuse_unserved(visit)
    _check_list(visit)
    found = listed(visit, _asked(visit))
    asked = visit.request.param("sort_by"), visit.request.param("sort_order")
    order = asked[1] or ("desc" if asked[0] else "asc")
    if any(asked) or not visit.request.param("ids"):
        found = in_order(visit, found, order)
    return page_of(visit, found, sort_by=asked[0] or "id", sort_order=order, **_NO_TOKENS)


def _check_list(visit: Visit) -> None:
    """Check what only the list of records limits (OAS: getRecords).

    Raises:
        RequestError: It is asked for too many fields, for pages that need a token, or for an unknown order.
    """
    if len((visit.request.param("fields") or "").split(",")) > _MAX_FIELDS:
        details: Json = {"limit": _MAX_FIELDS, "param_name": "fields"}
        raise RequestError(bare(400, "LIMIT_EXCEEDED", "limit exceeded", details))
    if paging(visit)[0] > _MAX_PAGE:
        message = f"You can only get the first {_MAX_LISTED} records without using page_token param"
        raise RequestError(bare(400, "DISCRETE_PAGINATION_LIMIT_EXCEEDED", message, {"limit": _MAX_LISTED}))
    if (visit.request.param("sort_by") or "id") not in _SORTABLE:
        details = {"param_name": "sort_by", "supported_values": list(_SORTABLE)}
        # OAS has the form of this answer, and no example.
        raise RequestError(bare(400, "INVALID_DATA", "the sort_by given seems to be invalid", details))


def require_fields(visit: Visit) -> None:
    """Check that the query names fields, which newer versions want.

    Raises:
        RequestError: It does not.
    """
    if visit.route.version >= _FIELDS_MANDATORY_FROM and not visit.request.param("fields"):
        raise RequestError(missing_param("fields"))


def refuse_unserved(visit: Visit) -> None:
    """Refuse what would find fewer records than the simulator does.

    Raises:
        RequestError: The query or a header asks for it.
    """
    if name := next((name for name in _UNSERVED if visit.request.param(name)), None):
        message = f"invalid data; {not_simulated('the parameter', name)}"
        raise RequestError(bare(400, "INVALID_DATA", message, {"param_name": name}))
    if visit.request.header(_UNSERVED_HEADER):
        message = f"invalid data; {not_simulated('the header', _UNSERVED_HEADER)}"
        raise RequestError(bare(400, "INVALID_DATA", message, {"header": _UNSERVED_HEADER}))


def page_of(visit: Visit, found: Sequence[Record], **more_info: Any) -> Reply:
    """Return the page that the query asks for of the records found; 204 where there is nothing on it.

    Args:
        visit: The call.
        found: The records, in their order.
        more_info: What the answer tells of them besides.

    Raises:
        RequestError: `page` or `per_page` is out of range.
    """
    page, per_page = paging(visit)
    shown = found[(page - 1) * per_page : page * per_page]
    if not shown:
        return Reply(status=204)
    more = len(found) > page * per_page
    info = {"per_page": per_page, "count": len(shown), "page": page, "more_records": more}
    return answer(200, {"data": show(visit, shown), "info": {**info, **more_info}})


def paging(visit: Visit) -> tuple[int, int]:
    """Return `page` and `per_page` of the query.

    Raises:
        RequestError: One is out of range.
    """
    page, per_page = _positive(visit, "page", 1), _positive(visit, "per_page", MAX_PER_PAGE)
    if per_page > MAX_PER_PAGE:
        message = "the per_page given seems to be invalid"
        raise RequestError(bare(400, "INVALID_DATA", message, {"param_name": "per_page", "limit": 200}))
    return page, per_page


def in_order(visit: Visit, found: Iterable[Record], usual: str = "desc") -> list[Record]:
    """Return records in the order of `sort_by` and `sort_order`: by id, the highest first (OAS).

    Args:
        visit: The call.
        found: The records.
        usual: The order where the query has none.

    Raises:
        RequestError: `sort_order` is neither `asc` nor `desc`.
    """
    name, order = visit.request.param("sort_by") or "id", visit.request.param("sort_order") or usual
    if order not in ("asc", "desc"):
        message = "Please check whether the input values are correct"
        raise RequestError(bare(400, "PATTERN_NOT_MATCHED", message, {"param_name": "sort_order"}))
    down = order == "desc"
    found = sorted(found, key=by_id, reverse=down)
    if name == "id":
        return found
    return sorted(found, key=lambda record: sort_key(value_of(visit, record, name)), reverse=down)


def by_id(record: Record) -> tuple[int, str]:
    """Return by what records are put in the order of their ids."""
    return len(record.id), record.id


def read_record(visit: Visit) -> Reply:
    """GET /{module}/{id}. A locked or unapproved record is shown (no text says otherwise)."""
    record = visit.find(visit.route.reference)
    return Reply(status=204) if record is None else answer(200, {"data": show(visit, [record])})


def _asked(visit: Visit) -> list[Record]:
    """Return the records that `ids` names, or all of the module."""
    references = query_ids(visit, MAX_IDS)
    if references is None:
        return list(visit.store.living(visit.route.module, visit.now))
    found = (visit.find(reference) for reference in references)
    return [record for record in found if record is not None]


def listed(visit: Visit, records: Iterable[Record]) -> list[Record]:
    """Return those records that `approval_state`, `approved` and `converted` of the query let through."""
    states = visit.request.param("approval_state")
    approved = visit.request.param("approved") or ("both" if states else "true")
    converted = visit.request.param("converted") or "false"
    named = frozenset(states.split(",")) if states else None

    def fits(record: Record) -> bool:
        pairs = ((approved, record.is_approved), (converted, record.converted))
        known = named is None or record.approval_state in named
        return known and all(wanted == "both" or value == (wanted == "true") for wanted, value in pairs)

    return [record for record in records if fits(record)]


def _positive(visit: Visit, name: str, default: int) -> int:
    text = visit.request.param(name)
    if text is None:
        return default
    if not text.isdecimal() or len(text) > _MAX_DIGITS or int(text) < 1:
        message = f"the {name} given seems to be invalid"
        raise RequestError(bare(400, "INVALID_DATA", message, {"param_name": name}))
    return int(text)


def show(visit: Visit, records: Iterable[Record]) -> list[Json]:
    """Return the asked fields of records; unknown names are left out (undocumented)."""
    asked = visit.request.param("fields")
    names = [name.strip() for name in asked.split(",")] if asked else None
    return [_shown(visit, record, names) for record in records]


def _shown(visit: Visit, record: Record, asked: Sequence[str] | None) -> Json:
    shown: Json = {"id": record.id}
    for name in [*record.fields, *_SYSTEM] if asked is None else asked:
        if name in record.fields or name in _SYSTEM or name in _DERIVED:
            shown[name] = value_of(visit, record, name)
    return shown


def value_of(visit: Visit, record: Record, name: str) -> Any:
    """Return what a record shows in a field; `None` where it has no such field, or nothing in it."""
    if name == "id":
        return record.id
    if name in record.fields:
        return record.fields[name]
    made = _SYSTEM.get(name) or _DERIVED.get(name)
    return None if made is None else made(visit, record)


def _full_name(record: Record) -> str | None:
    names = (record.fields.get("First_Name"), record.fields.get("Last_Name"))
    return " ".join(str(name) for name in names if name) or None
