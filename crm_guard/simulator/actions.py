"""The calls under `actions`: tags, sharing, mass actions, owner, conversion, portal, mail, blueprint."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .envelopes import (
    body_ids,
    many,
    on_each,
    on_path_record,
    one,
    path_record,
    query_ids,
)
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
    succeeded,
)
from .routes import Kind
from .writes import converted, invalid_value, new_record, remove, set_fields

if TYPE_CHECKING:
    from collections.abc import Callable

    from .records import Record
    from .visit import Visit

MAX_IDS = 500
MAX_CONVERSIONS = 50
MAX_SHARES = 20
_TAGGED_PER_CREDIT = 50
_CONVERT_CREDITS = 5
_MAIL_CREDITS = 20
_COUNTS_SUCCESSES_UNTIL = 7

# --- tags (ZOHO docs: add-tags, remove-tags) -------------------------------------------------------------------


def tag_many(visit: Visit) -> Reply:
    """POST /{module}/actions/add_tags and remove_tags."""
    change = _tagging(visit)
    references = query_ids(visit, MAX_IDS) or body_ids(visit, MAX_IDS)
    visit.notes.credits = math.ceil(len(references) / _TAGGED_PER_CREDIT)
    items = visit.ordered(on_each(visit, references, change))
    # OAS prints a refused add_tags bare, for a request with one id. What several ids get is undocumented:
    # taken as one item per record, like remove_tags; so is the 207 of a mixed answer.
    if len(items) == 1 and not succeeded(items[0]):
        return one(visit, items[0], beside=_counters(visit, items))
    return many(visit, items, beside=_counters(visit, items))


def tag_one(visit: Visit) -> Reply:
    """POST /{module}/{id}/actions/add_tags and remove_tags."""
    change = _tagging(visit)
    record = path_record(visit)
    result = visit.refusal(record) or change(record)
    return one(visit, result, beside=_counters(visit, [result]))


def _tagging(visit: Visit) -> Callable[[Record], Json]:
    """Return what the request does to each record."""
    tags = _tags(visit)
    adds = visit.route.kind in (Kind.ADD_TAGS, Kind.ADD_TAGS_ONE)
    overwrite = adds and _overwrite(visit)

    def change(record: Record) -> Json:
        if overwrite:
            record.tags.clear()
        for tag in tags:
            record.tags.pop(tag["name"], None)
            if adds:
                record.tags[tag["name"]] = visit.store.tag(tag["name"], tag.get("color_code"))
        visit.applied(record)
        return item("SUCCESS", "tags updated successfully", _tag_details(visit, record))

    return change


def _tag_details(visit: Visit, record: Record) -> Json:
    tags = list(record.tags.values())
    if visit.route.version <= _COUNTS_SUCCESSES_UNTIL:
        return {"id": record.id, "tags": tags}
    return {"id": record.id, "affected_data": None, "tags": tags}


def _tags(visit: Visit) -> list[Json]:
    """Return the tags of the body, or of the query (version 2).

    Raises:
        RequestError: One has no name.
    """
    names = visit.request.param("tag_names")
    if names is not None:
        return [{"name": name} for name in names.split(",")]
    rows = visit.rows("tags")
    if all(isinstance(row.get("name"), str) and row["name"] for row in rows):
        return rows
    where = {"api_name": "name", "json_path": "$.tags[*].name"}
    problem = item("MANDATORY_NOT_FOUND", "required field not found", where)
    raise RequestError(answer(400, {"tags": [problem]}))


def _overwrite(visit: Visit) -> bool:
    asked = visit.request.param("over_write") if not visit.request.body else visit.body.get("over_write")
    return str(asked).lower() == "true"


def _counters(visit: Visit, items: list[Json]) -> dict[str, str]:
    """Return the strings beside `data`: version 8 counts locks, the versions before also successes."""
    locked = str(sum(entry["code"] == "RECORD_LOCKED" for entry in items))
    if visit.route.version <= _COUNTS_SUCCESSES_UNTIL:
        return {"success_count": str(sum(map(succeeded, items))), "locked_count": locked}
    return {"locked_count": locked}


# --- sharing (ZOHO docs: share-record) -------------------------------------------------------------------------


def share(visit: Visit) -> Reply:
    """POST and PUT /{module}/{id}/actions/share. Its refusals are undocumented but for SEED: taken as bare."""
    entries = visit.rows("share")
    if len(entries) > MAX_SHARES:
        raise RequestError(limit_exceeded("share", MAX_SHARES))
    record = path_record(visit)
    if refused := visit.refusal(record):
        return one(visit, refused)
    items = _share_entries(visit, record, entries)
    if any(map(succeeded, items)):
        visit.applied(record)
    return answer(batch_status(items, success=201, sandbox=visit.options.sandbox), {"share": items})


def _share_entries(visit: Visit, record: Record, entries: list[Json]) -> list[Json]:
    """Share with each entry; POST wants new partners, PUT known ones, both each partner once."""
    known, seen = set(record.shares), set[str]()
    adds = visit.route.kind is Kind.SHARE
    items = []
    for position, entry in enumerate(entries):
        partner = _partner(entry)
        if partner is None or partner in seen or (partner in known) == adds:
            where = {"api_name": "shared_with", "json_path": f"$.share[{position}].shared_with"}
            items.append(item("INVALID_DATA", "invalid data", where))
            continue
        seen.add(partner)
        record.shares[partner] = entry
        items.append(item("SUCCESS", "record will be shared successfully"))
    return items


def _partner(entry: Json) -> str | None:
    """Return the id that a share entry names: `shared_with.id`, or `user.id` before version 6."""
    partner = entry.get("shared_with") or entry.get("user")
    return str(partner["id"]) if isinstance(partner, dict) and partner.get("id") else None


def list_shares(visit: Visit) -> Reply:
    """GET /{module}/{id}/actions/share."""
    shares = list(path_record(visit).shares.values())
    return answer(200, {"share": shares, "shareable_user": []}) if shares else Reply(status=204)


def revoke_shares(visit: Visit) -> Reply:
    """DELETE /{module}/{id}/actions/share: the envelope holds an object (OAS)."""
    record = path_record(visit)
    if refused := visit.refusal(record):
        return one(visit, refused)
    if not record.shares:
        message = "No sharing through this record is available to revoke"
        return answer(400, {"share": item("CANNOT_PROCESS", message)})
    record.shares.clear()
    visit.applied(record)
    return answer(200, {"share": item("SUCCESS", "sharing of the record has been revoked")})


# --- mass actions (ZOHO docs: mass-update-records, mass-delete-records) ----------------------------------------


def mass_update(visit: Visit) -> Reply:
    """POST /{module}/actions/mass_update. A job (`cvid`) is taken note of and changes nothing."""
    fields = _mass_fields(visit)
    if "cvid" in visit.body:
        return _scheduled(visit, "mass update scheduled successfully")
    items = on_each(visit, body_ids(visit, MAX_IDS), lambda record: _mass_update_record(visit, record, fields))
    return many(visit, visit.ordered(items))


def _mass_fields(visit: Visit) -> Json:
    """Return the new field values: `data` is one object, bare or in an array."""
    data = visit.body.get("data")
    return data if isinstance(data, dict) else visit.rows()[0]


def _mass_update_record(visit: Visit, record: Record, fields: Json) -> Json:
    problem = converted(record) or invalid_value(fields, 0, "invalid data")
    if problem is not None:
        return problem
    set_fields(visit, record, fields)
    details = {"id": record.id, "Modified_Time": visit.store.iso(record.modified)}
    return item("SUCCESS", "record updated", details)


def mass_delete(visit: Visit) -> Reply:
    """POST /{module}/actions/mass_delete: items come out of order."""
    if "cvid" in visit.body:
        return _scheduled(visit, "mass delete scheduled successfully")
    items = on_each(
        visit,
        body_ids(visit, MAX_IDS),
        lambda record: remove(visit, record),
        missing="record not deleted",
    )
    return many(visit, visit.ordered(items, backwards=True))


def _scheduled(visit: Visit, message: str) -> Reply:
    return answer(200, {"data": [item("SUCCESS", message, {"job_id": visit.store.new_id()})]})


# --- owner (ZOHO docs: change-owner) ---------------------------------------------------------------------------


def change_owner(visit: Visit) -> Reply:
    """POST /{module}/actions/change_owner. One bad id spoils the request; `data` is then an object (OAS).

    OAS names the code NOT_MERGED for an item of a mixed answer, and prints none. The fault `answer` with
    `applied=True` can give it, for a record in `merge_pending`.
    """
    _check_supported(visit)
    owner = _owner(visit)
    references = query_ids(visit, MAX_IDS) or body_ids(visit, MAX_IDS)
    for position, reference in enumerate(references):
        if visit.store.find(visit.route.module, reference, visit.now, visit.external) is None:
            details = {"expected_data_type": "long", "api_name": "ids", "json_path": f"$.ids[{position}]"}
            raise RequestError(answer(400, {"data": item("INVALID_DATA", "invalid data", details)}))
    items = on_each(visit, references, lambda record: _give(visit, record, owner))
    mixed = 207 if visit.options.caller == "sdk" else 202
    return many(visit, visit.ordered(items), mixed=mixed)


def change_owner_one(visit: Visit) -> Reply:
    """POST /{module}/{id}/actions/change_owner."""
    _check_supported(visit)
    owner = _owner(visit)
    return on_path_record(visit, lambda record: _give(visit, record, owner))


def _check_supported(visit: Visit) -> None:
    if visit.route.version < 3:
        raise RequestError(not_supported())


def not_supported() -> Reply:
    """Return the answer to a call that came with version 3."""
    message = "The API is not supported in this version"
    return bare(400, "API_NOT_SUPPORTED", message, {"supported_version": 3})


def _owner(visit: Visit) -> Json:
    owner = visit.body.get("owner")
    if owner is None:
        raise RequestError(missing_field("owner"))
    if not isinstance(owner, dict) or not owner.get("id"):
        raise RequestError(invalid_field("owner", "jsonobject"))
    return {"id": str(owner["id"])}


def _give(visit: Visit, record: Record, owner: Json) -> Json:
    record.owner = dict(owner)
    visit.applied(record)
    return item("SUCCESS", "record owner updated", {"id": record.id})


# --- conversion (ZOHO docs: convert-lead, lead-conversion-options, mass-convert-lead) --------------------------


def convert(visit: Visit) -> Reply:
    """POST /Leads/{id}/actions/convert."""
    visit.notes.credits = _CONVERT_CREDITS
    row = visit.rows()[0] if visit.request.body else {}
    record = path_record(visit)
    _check_not_converted(record)
    if refused := visit.refusal(record):
        return one(visit, refused)
    details = _convert_lead(visit, record, row)
    if visit.options.scheduled_convert:
        job = {"job_id": visit.store.new_id()}
        return answer(202, {"data": [item("SCHEDULED", "Convert lead scheduled successfully", job)]})
    return one(visit, item("SUCCESS", "The record has been converted successfully", details))


def _check_not_converted(record: Record) -> None:
    if record.converted:
        where = {"resource_path_index": 1}
        raise RequestError(bare(400, "ID_ALREADY_CONVERTED", "id already converted", where))


def _convert_lead(visit: Visit, record: Record, row: Json) -> Json:
    last_name = record.fields.get("Last_Name")
    details = {
        "Contacts": _related(visit, "Contacts", row.get("Contacts"), {"Last_Name": last_name}),
        "Deals": _related(visit, "Deals", row["Deals"], {}) if row.get("Deals") else None,
        "Accounts": _related(
            visit, "Accounts", row.get("Accounts"), {"Account_Name": record.fields.get("Company")}
        ),
    }
    record.converted = True
    visit.applied(record)
    return details


def _related(visit: Visit, module: str, given: Any, fields: Json) -> Json:
    """Return the record that the lead becomes part of: the given one, or a new one."""
    given = given if isinstance(given, dict) else {}
    if given.get("id"):
        return {"name": given.get("name"), "id": str(given["id"])}
    fields = {**fields, **given}
    name = next(iter(fields.values()), None)
    return {"name": name, "id": new_record(visit, module, fields).id}


def mass_convert(visit: Visit) -> Reply:
    """POST /Leads/actions/mass_convert: a job; what it finds locked stays invisible, as in CRM."""
    for reference in body_ids(visit, MAX_CONVERSIONS):
        record = visit.find(reference)
        if record is not None and not record.converted and visit.cause(record) is None:
            _convert_lead(visit, record, {})
    job = {"job_id": visit.store.new_id()}
    return bare(202, "SCHEDULED", "Mass Convert scheduled successfully", job)


def inventory_convert(visit: Visit) -> Reply:
    """POST /Quotes/{id}/actions/convert, and Sales_Orders. Its success answer is undocumented."""
    modules = _target_modules(visit)
    record = path_record(visit)
    _check_not_converted(record)

    def work(record: Record) -> Json:
        made = {module: {"id": new_record(visit, module, record.fields).id} for module in modules}
        record.converted = True
        visit.applied(record)
        return item("SUCCESS", "The record has been converted successfully", made)

    return one(visit, visit.refusal(record) or work(record))


def _target_modules(visit: Visit) -> list[str]:
    """Return the API names of the modules in `convert_to`.

    Raises:
        RequestError: There are none.
    """
    targets = visit.rows()[0].get("convert_to")
    try:
        names = [target["module"]["api_name"] for target in targets or ()]
    except (TypeError, KeyError):
        names = []
    if not names or not all(isinstance(name, str) for name in names):
        raise RequestError(missing_field("convert_to"))
    return names


def conversion_options(visit: Visit) -> Reply:
    """GET /Leads/{id}/__conversion_options."""
    record = path_record(visit)
    _check_not_converted(record)
    if refused := visit.refusal(record):
        return one(visit, refused)
    options: Json = {f"module_preference_for_{name}": None for name in ("Accounts", "Contacts", "Deals")}
    options |= {"Contacts": [], "Deals": None, "Accounts": [], "modules_with_multiple_layouts": []}
    return answer(200, {"__conversion_options": options})


# --- portal, mail, blueprint -----------------------------------------------------------------------------------


def portal_invite(visit: Visit) -> Reply:
    """POST /{module}/{id}/actions/portal_invite."""
    record = path_record(visit)
    if refused := visit.refusal(record):
        return one(visit, refused)
    visit.applied(record)
    return answer(200, {"portal_invite": [item("SUCCESS", "portal invitation sent successfully")]})


def send_mail(visit: Visit) -> Reply:
    """POST /{module}/{id}/actions/send_mail (OAS). V7 lists its lock without a form: taken as bare."""
    visit.notes.credits = _MAIL_CREDITS
    visit.rows()

    def work(record: Record) -> Json:
        visit.applied(record, modifies=False)
        return item("SUCCESS", "Mail sent successfully", {"message_id": visit.store.new_id()})

    return on_path_record(visit, work)


def update_blueprint(visit: Visit) -> Reply:
    """PUT /{module}/{id}/actions/blueprint (V7). Takes any transition, and sets the fields that come with it.

    Its success is a bare item. V7 lists its lock without a form: taken as bare, too.
    """
    fields = visit.rows("blueprint")[0].get("data")
    record = path_record(visit)
    if refused := visit.refusal(record):
        return one(visit, refused)
    set_fields(visit, record, fields if isinstance(fields, dict) else {})
    return bare(200, "SUCCESS", "transition updated successfully")
