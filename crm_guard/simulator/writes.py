"""Create, update, upsert, delete, clone.

OAS: `record`. ZOHO docs: insert-records, update-records, upsert-records, delete-records.
"""

from __future__ import annotations

import math
from copy import deepcopy
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from .envelopes import many, on_each, on_path_record, on_row, one, path_record, query_ids
from .messages import (
    Json,
    Reply,
    RequestError,
    answer,
    bare,
    invalid_field,
    item,
    missing_param,
    succeeded,
    too_long,
    too_many_rows,
)
from .records import USER, Record
from .routes import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .visit import Visit

MAX_ROWS = 100
_RECORDS_PER_CREDIT = 10
_TEXT_FIELDS = frozenset({"Last_Name", "First_Name", "Company", "Email", "Phone", "Description", "Deal_Name"})
_UPDATE_INVALID = "the field api name given seems to be invalid"
_CREATE_INVALID = "The field value given for {} is invalid"
_WRONG_FORMAT = "either the request body or parameters is in wrong format"
# OAS (upsertRecords) spells some modules without the underscore that their API names have: both are taken.
_DUPLICATE_FIELD: Mapping[str, str] = {
    **dict.fromkeys(("Leads", "Contacts"), "Email"),
    "Accounts": "Account_Name",
    "Deals": "Deal_Name",
    "Campaigns": "Campaign_Name",
    "Solutions": "Solution_Title",
    "Products": "Product_Name",
    "Vendors": "Vendor_Name",
    **dict.fromkeys(("Price_Books", "PriceBooks"), "Price_Book_Name"),
    **dict.fromkeys(("Cases", "Quotes", "Invoices"), "Subject"),
    **dict.fromkeys(("Sales_Orders", "SalesOrders", "Purchase_Orders", "PurchaseOrders"), "Subject"),
}
_DUPLICATE_FIELD_OF_CUSTOM = "Name"
# Modules of CRM itself for which OAS lists no such field; as are all whose API name ends with `__s`.
_WITHOUT_DUPLICATES = frozenset({"Tasks", "Events", "Calls", "Activities", "Notes", "Attachments"})


def update(visit: Visit) -> Reply:
    """PUT /{module}."""
    rows = _rows(visit)
    return many(visit, [_update_row(visit, row, index) for index, row in enumerate(rows)])


def update_one(visit: Visit) -> Reply:
    """PUT /{module}/{id}."""
    rows = visit.rows()
    if len(rows) > 1:
        raise RequestError(too_many_rows(1))
    result = _update_record(visit, path_record(visit), rows[0], 0)
    if result["code"] == "ALREADY_MODIFIED":
        return answer(412, {"data": [result]})
    return one(visit, result)


def create(visit: Visit) -> Reply:
    """POST /{module}."""
    items = [_create_row(visit, row, index) for index, row in enumerate(_rows(visit))]
    return _alone(visit, items) or many(visit, items, success=201)


def clone(visit: Visit) -> Reply:
    """POST /{module}/{id}/actions/clone. The body may change fields of the copy, or be missing (OAS).

    Counts as a write to the record in the path, which stays as it is.
    """
    row = visit.rows()[0] if visit.request.body else {}
    return on_path_record(visit, lambda record: _clone_record(visit, record, row), success=201)


def upsert(visit: Visit) -> Reply:
    """POST /{module}/upsert. A success is 200, also where all was inserted (OAS)."""
    names = _duplicate_fields(visit)
    items = [_upsert_row(visit, row, index, names) for index, row in enumerate(_rows(visit))]
    return _alone(visit, items) or many(visit, items)


def _alone(visit: Visit, items: list[Json]) -> Reply | None:
    """Return the answer to one row that is not approved, if that is what `items` say.

    OAS lists that refusal of create and upsert for a request as a whole: bare, with `resource_path_index`.
    """
    if len(items) > 1 or items[0]["code"] != "NOT_APPROVED":
        return None
    details = items[0]["details"]
    where = {"resource_path_index": 0} if "json_path" in details else details
    return one(visit, {**items[0], "details": where})


def delete(visit: Visit) -> Reply:
    """DELETE /{module}?ids=a,b."""
    references = query_ids(visit, MAX_ROWS)
    if references is None:
        raise RequestError(missing_param("ids"))

    def missing(reference: str) -> Json:
        message = "record not deleted" if may_name(visit, reference) else _WRONG_FORMAT
        return item("INVALID_DATA", message, {"id": reference})

    items = on_each(visit, references, lambda record: remove(visit, record), missing=missing)
    return many(visit, visit.ordered(items))


def delete_one(visit: Visit) -> Reply:
    """DELETE /{module}/{id}."""
    if not may_name(visit, visit.route.reference):
        raise RequestError(bare(400, "INVALID_DATA", _WRONG_FORMAT, {"resource_path_index": 1}))
    record = path_record(visit)
    return one(visit, visit.refusal(record) or remove(visit, record))


def remove(visit: Visit, record: Record, message: str = "record deleted") -> Json:
    """Delete `record`, and return the item that says so."""
    record.deleted = True
    visit.applied(record)
    return item("SUCCESS", message, {"id": record.id})


def may_name(visit: Visit, reference: str) -> bool:
    """Return whether `reference` has the form of an id: an int64, or any text where the header says so."""
    return visit.external is not None or (reference.isascii() and reference.isdigit())


def stamps(visit: Visit, record: Record) -> Json:
    """Return the `details` of a written record."""
    return {
        "Modified_Time": visit.store.iso(record.modified),
        "Modified_By": dict(USER),
        "Created_Time": visit.store.iso(record.created),
        "id": record.id,
        "Created_By": dict(USER),
        "$approval_state": record.approval_state,
    }


def new_record(visit: Visit, module: str, fields: Json) -> Record:
    """Return a record just added to `module`."""
    record_id = visit.store.new_id()
    fields = {key: value for key, value in fields.items() if key != "id"}
    record = Record(record_id, module, fields=fields, created=visit.now, modified=visit.now)
    return visit.store.add(record)


def set_fields(visit: Visit, record: Record, fields: Json) -> None:
    """Apply an update; an image among the fields makes Zia look at it."""
    record.fields.update({key: value for key, value in fields.items() if key != "id"})
    visit.applied(record)
    if fields.get("Record_Image") is not None:
        visit.start_check(record)


def invalid_field_of(fields: Json) -> str | None:
    """Return the name of the first field whose value cannot be, if any: a number in a text field."""
    wrong = (name for name, value in fields.items() if name in _TEXT_FIELDS and isinstance(value, (int, float)))
    return next(wrong, None)


def _invalid(visit: Visit, fields: Json, position: int, message: str) -> Json | None:
    """Return the item about the first field whose value cannot be. Of upserts OAS prints another form of it."""
    name = invalid_field_of(fields)
    if name is None:
        return None
    where = {"api_name": name, "json_path": f"$.data[{position}].{name}"}
    if visit.route.kind is Kind.UPSERT:
        return item("INVALID_DATA", "invalid data", {"expected_data_type": "text", **where})
    return item("INVALID_DATA", message.format(name), where)


def converted(record: Record) -> Json | None:
    """Return the item about a lead that is no lead any more, if it is none. Its text is undocumented."""
    if not record.converted:
        return None
    return item("CONVERTED_RECORD", "The record is converted", {"id": record.id})


def _rows(visit: Visit) -> list[Json]:
    rows = visit.rows()
    if len(rows) > MAX_ROWS:
        # OAS lists LIMIT_EXCEEDED for updates alone.
        updates = visit.route.kind is Kind.UPDATE
        raise RequestError(too_many_rows(MAX_ROWS) if updates else too_long("data", MAX_ROWS))
    visit.notes.credits = math.ceil(len(rows) / _RECORDS_PER_CREDIT)
    return rows


def _update_row(visit: Visit, row: Json, position: int) -> Json:
    return on_row(visit, row, position, lambda record: _update_record(visit, record, row, position))


def _update_record(visit: Visit, record: Record, row: Json, position: int) -> Json:
    problem = (
        visit.refusal(record, position)
        or converted(record)
        or _stale(visit, record)
        or _invalid(visit, row, position, _UPDATE_INVALID)
    )
    if problem is not None:
        return problem
    set_fields(visit, record, row)
    return item("SUCCESS", "record updated", stamps(visit, record))


def _stale(visit: Visit, record: Record) -> Json | None:
    limit = _parse_time(visit.request.header("If-Unmodified-Since"))
    if limit is None or visit.store.moment(record.modified) <= limit:
        return None
    details = stamps(visit, record)
    del details["$approval_state"]
    message = "record updated time has already passed if-unmodified-since time"
    return item("ALREADY_MODIFIED", message, details)


def _parse_time(text: str | None) -> datetime | None:
    """Read ISO 8601 (ZOHO docs: update-records) or an HTTP date; without a zone or unreadable counts as absent."""
    if text is None:
        return None
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = read(text)
        except (ValueError, OverflowError):
            continue
        return moment if moment.tzinfo else None
    return None


def _missing_mandatory(visit: Visit, row: Json, position: int) -> Json | None:
    for name in visit.options.mandatory.get(visit.route.module, ()):
        if row.get(name) in (None, ""):
            where = {"api_name": name, "json_path": f"$.data[{position}].{name}"}
            return item("MANDATORY_NOT_FOUND", "required field not found", where)
    return None


def _create_row(visit: Visit, row: Json, position: int) -> Json:
    problem = (
        _invalid(visit, row, position, _CREATE_INVALID)
        or _missing_mandatory(visit, row, position)
        or visit.new_row_refusal(row, position)
    )
    if problem is not None:
        return problem
    record = new_record(visit, visit.route.module, row)
    if row.get("Record_Image") is not None:
        visit.start_check(record)
    visit.notes.named.append(record.id)
    visit.notes.applied.append(record.id)
    return item("SUCCESS", "record added", stamps(visit, record))


def _clone_record(visit: Visit, record: Record, row: Json) -> Json:
    problem = _invalid(visit, row, 0, _CREATE_INVALID)
    if problem is not None:
        return problem
    copied = new_record(visit, record.module, {**deepcopy(record.fields), **row})
    visit.applied(record, modifies=False)
    return item("SUCCESS", "record added", stamps(visit, copied))


def _upsert_row(visit: Visit, row: Json, position: int, names: Sequence[str]) -> Json:
    """Update or insert; what became of the row is told beside its success, not beside an error (OAS).

    A row with an id updates, and inserts nothing where no record has that id. That this is an error is
    undocumented; OAS lists one of that form.
    """
    if row.get("id"):
        return _told(_update_row(visit, row, position), "update", "id")
    record, duplicate_field = _duplicate(visit, row, names)
    if record is None:
        return _told(_create_row(visit, row, position), "insert", None)
    visit.notes.named.append(record.id)
    return _told(_update_record(visit, record, row, position), "update", duplicate_field)


def _told(result: Json, action: str, duplicate_field: str | None) -> Json:
    return {**result, "action": action, "duplicate_field": duplicate_field} if succeeded(result) else result


def _duplicate_fields(visit: Visit) -> Sequence[str]:
    """Return the fields that tell duplicates.

    Raises:
        RequestError: The body names them in another way than as an array of strings.
    """
    names = visit.body.get("duplicate_check_fields") or _usual_duplicate_fields(visit.route.module)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RequestError(invalid_field("duplicate_check_fields", "jsonarray"))
    return names


def _usual_duplicate_fields(module: str) -> list[str]:
    """Return the field that tells duplicates unless a request names others, if there is one (OAS)."""
    if module in _WITHOUT_DUPLICATES or module.endswith("__s"):
        return []
    return [_DUPLICATE_FIELD.get(module, _DUPLICATE_FIELD_OF_CUSTOM)]


def _duplicate(visit: Visit, row: Json, names: Sequence[str]) -> tuple[Record | None, str | None]:
    """Return the record that `row` would duplicate, and which of the fields `names` tells."""
    for name in names:
        if row.get(name) not in (None, ""):
            record = visit.store.find(visit.route.module, row[name], visit.now, external=name)
            if record is not None:
                return record, name
    return None, None
