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
    item,
    missing_field,
    succeeded,
    too_long,
)
from .routes import Kind
from .writes import converted, invalid_field_of, may_name, new_record, remove, set_fields, stamps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .records import Record
    from .visit import Visit

MAX_IDS = 500
MAX_CONVERSIONS = 50
MAX_SHARES = 20
_SHARES_OF_TYPE: Mapping[str, int] = {"users": 10, "groups": 5, "roles": 5}
_TEXT_OF_TAG: Mapping[str, int] = {"name": 25, "color_code": 7}
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_TAGGED_PER_CREDIT = 50
_CONVERT_CREDITS = 5
_MAIL_CREDITS = 20
_COUNTS_SUCCESSES_UNTIL = 7

# --- tags (OAS: `tags_actions`; ZOHO docs: add-tags, remove-tags) -----------------------------------------------


def tag_many(visit: Visit) -> Reply:
    """POST /{module}/actions/add_tags and remove_tags."""
    change = _tagging(visit)
    references = query_ids(visit, MAX_IDS) or body_ids(visit, MAX_IDS)
    visit.notes.credits = math.ceil(len(references) / _TAGGED_PER_CREDIT)
    items = visit.ordered(on_each(visit, references, change))
    # OAS prints a refused add_tags bare, for a request with one id. What several ids get is undocumented:
    # taken as one item per record, like remove_tags. OAS lists 200 and 400 alone, and counts locks in its 200.
    if len(items) == 1 and not succeeded(items[0]):
        return one(visit, items[0], beside=_counters(visit, items))
    return many(visit, items, mixed=200, beside=_counters(visit, items))


def tag_one(visit: Visit) -> Reply:
    """POST /{module}/{id}/actions/add_tags and remove_tags."""
    change = _tagging(visit)
    record = path_record(visit)
    result = visit.refusal(record) or change(record)
    counters = _counters(visit, [result]) if visit.route.version <= _COUNTS_SUCCESSES_UNTIL else None
    return one(visit, result, beside=counters)


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
    if visit.route.version > _COUNTS_SUCCESSES_UNTIL:
        if visit.route.kind in (Kind.ADD_TAGS_ONE, Kind.REMOVE_TAGS_ONE):
            return {"modifiedTime": _spoken_time(visit, record), "id": record.id, "tags": tags}
        if visit.route.kind is Kind.ADD_TAGS:
            return {"id": record.id, "affected_data": None, "tags": tags}
    return {"id": record.id, "tags": tags}


def _spoken_time(visit: Visit, record: Record) -> str:
    """Return the last change as OAS prints it here, whatever the locale: `Tue, 30 Dec 2025 03:42 PM`."""
    moment = visit.store.moment(record.modified)
    half = "AM" if moment.hour < 12 else "PM"
    clock = f"{(moment.hour + 11) % 12 + 1:02d}:{moment.minute:02d} {half}"
    return f"{_DAYS[moment.weekday()]}, {moment.day:02d} {_MONTHS[moment.month - 1]} {moment.year} {clock}"


def _tags(visit: Visit) -> list[Json]:
    """Return the tags of the body, or of the query (version 2).

    The numbers of tags that OAS gives (3 and 1) are those of its sample requests, and not enforced.

    Raises:
        RequestError: One has no name, or its texts are none or too long.
    """
    names = visit.request.param("tag_names")
    if names is not None:
        return [{"name": name} for name in names.split(",")]
    rows = visit.rows("tags")
    problem = next(filter(None, map(_tag_problem, rows)), None)
    if problem is not None:
        raise RequestError(answer(400, {"tags": [problem]}))
    return rows


def _tag_problem(tag: Json) -> Json | None:
    """Return the item about a tag that cannot be. What a tag without a name gets is undocumented."""
    for key, longest in _TEXT_OF_TAG.items():
        value, where = tag.get(key), {"api_name": key, "json_path": f"$.tags[*].{key}"}
        if value in (None, ""):
            if key == "name":
                return item("MANDATORY_NOT_FOUND", "required field not found", where)
        elif not isinstance(value, str):
            return item("INVALID_DATA", "Invalid data type", {**where, "expected_data_type": "text"})
        elif len(value) > longest:
            return item("INVALID_DATA", "Invalid data", {**where, "maximum_length": longest})
    return None


def _overwrite(visit: Visit) -> bool:
    asked = visit.request.param("over_write") if not visit.request.body else visit.body.get("over_write")
    return str(asked).lower() == "true"


def _counters(visit: Visit, items: list[Json]) -> dict[str, str]:
    """Return the strings beside `data`: version 8 counts locks, the versions before also successes."""
    locked = str(sum(entry["code"] == "RECORD_LOCKED" for entry in items))
    if visit.route.version <= _COUNTS_SUCCESSES_UNTIL:
        return {"success_count": str(sum(map(succeeded, items))), "locked_count": locked}
    return {"locked_count": locked}


# --- sharing (OAS: `share_records`) -----------------------------------------------------------------------------


def share(visit: Visit) -> Reply:
    """POST and PUT /{module}/{id}/actions/share. Its refusals are undocumented but for SEED: taken as bare."""
    entries = visit.rows("share")
    if len(entries) > MAX_SHARES:
        raise RequestError(too_long("share", MAX_SHARES))
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
        if adds and (problem := _too_many_of_type(record, entry, position)):
            items.append(problem)
            continue
        seen.add(partner)
        record.shares[partner] = entry
        items.append(item("SUCCESS", "record will be shared successfully"))
    return items


def _too_many_of_type(record: Record, entry: Json, position: int) -> Json | None:
    """Return the item about one user, group or role more than a record can be shared with."""
    kind = _partner_type(entry)
    limit = _SHARES_OF_TYPE.get(kind)
    if limit is None or sum(_partner_type(share) == kind for share in record.shares.values()) < limit:
        return None
    where = {"api_name": "type", "limit": limit, "json_path": f"$.share[{position}].shared_with.type"}
    return item("LIMIT_EXCEEDED", f"Cannot share a record to more than {limit} {kind}", where)


def _partner_type(entry: Json) -> str:
    partner = entry.get("shared_with")
    return str(partner.get("type")) if isinstance(partner, dict) else ""


def _partner(entry: Json) -> str | None:
    """Return the id that a share entry names: `shared_with.id`, or `user.id` before version 6."""
    partner = entry.get("shared_with") or entry.get("user")
    return str(partner["id"]) if isinstance(partner, dict) and partner.get("id") else None


def list_shares(visit: Visit) -> Reply:
    """GET /{module}/{id}/actions/share."""
    shares = list(path_record(visit).shares.values())
    return answer(200, {"share": shares, "shareable_user": []}) if shares else Reply(status=204)


def revoke_shares(visit: Visit) -> Reply:
    """DELETE /{module}/{id}/actions/share: the envelope of a success holds an object, an error is bare (OAS)."""
    record = path_record(visit)
    if refused := visit.refusal(record):
        return one(visit, refused)
    if not record.shares:
        return bare(400, "CANNOT_PROCESS", "No sharing through this record is available to revoke")
    record.shares.clear()
    visit.applied(record)
    return answer(200, {"share": item("SUCCESS", "Sharing Revoked", {"id": record.id})})


# --- mass actions (OAS: `mass_update`, `mass_delete`) -----------------------------------------------------------


def mass_update(visit: Visit) -> Reply:
    """POST /{module}/actions/mass_update.

    A job (`cvid`) is scheduled and changes nothing, ever: there are no custom views that could name its records.
    """
    fields = _mass_fields(visit)
    if "cvid" in visit.body:
        return _scheduled(visit, "mass update scheduled successfully")
    references = body_ids(visit, MAX_IDS, missing=_missing_in_mass_update())
    items = on_each(visit, references, lambda record: _mass_update_record(visit, record, fields))
    return many(visit, visit.ordered(items))


def _missing_in_mass_update() -> Reply:
    return answer(400, {"data": [item("MANDATORY_NOT_FOUND", "required field not found")]})


def _mass_fields(visit: Visit) -> Json:
    """Return the new field values: `data` is one object, bare or in an array."""
    if "data" not in visit.body:
        raise RequestError(_missing_in_mass_update())
    data = visit.body["data"]
    return data if isinstance(data, dict) else visit.rows()[0]


def _mass_update_record(visit: Visit, record: Record, fields: Json) -> Json:
    problem, wrong = converted(record), invalid_field_of(fields)
    if problem is not None:
        return problem
    if wrong is not None:
        return item("INVALID_DATA", "invalid data", {"api_name": wrong, "id": record.id})
    set_fields(visit, record, fields)
    details = stamps(visit, record)
    del details["$approval_state"]
    return item("SUCCESS", "record updated", details)


def mass_delete(visit: Visit) -> Reply:
    """POST /{module}/actions/mass_delete: items come out of order.

    OAS lists one error for a record that stays, INVALID_DATA: in the envelope where other records were deleted,
    else bare and about one record. Of several that all stay it prints nothing: taken as one item each. What the
    announcement names keeps its envelope. A job (`cvid`) deletes nothing, as in :func:`mass_update`.
    """
    if "cvid" in visit.body:
        return _scheduled(visit, "mass delete scheduled successfully")
    expected = {"api_name": "ids", "expected_data_type": "jsonarray"}
    missing = bare(400, "MANDATORY_NOT_FOUND", "required field not found", expected)
    references = body_ids(visit, MAX_IDS, missing=missing)
    items = on_each(visit, references, lambda record: remove(visit, record, "record is deleted"))
    if len(items) == 1 and items[0]["code"] == "INVALID_DATA" and visit.options.envelope != "data":
        where = {"api_name": "ids", "json_path": "$.ids[0]", **items[0]["details"]}
        return answer(400, {**items[0], "details": where})
    return many(visit, visit.ordered(items, backwards=True))


def _scheduled(visit: Visit, message: str) -> Reply:
    return answer(200, {"data": [item("SUCCESS", message, {"job_id": visit.store.new_id()})]})


# --- owner (OAS: `change_owner`) --------------------------------------------------------------------------------


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
        raise RequestError(not_supported("Change Owner is not supported in this API version"))


def not_supported(message: str) -> Reply:
    """Return the answer to a call that came with version 3."""
    return bare(400, "API_NOT_SUPPORTED", message, {"supported_version": 3})


def _owner(visit: Visit) -> Json:
    owner = visit.body.get("owner")
    if owner is None:
        raise RequestError(missing_field("owner"))
    if not isinstance(owner, dict) or not owner.get("id"):
        where = {"api_name": "owner", "json_path": "$.owner.id"}
        raise RequestError(bare(400, "INVALID_DATA", "Invalid data provided", where))
    return {"id": str(owner["id"])}


def _give(visit: Visit, record: Record, owner: Json) -> Json:
    record.owner = dict(owner)
    visit.applied(record)
    return item("SUCCESS", "owner is successfully updated", {"id": record.id})


# --- conversion (OAS: `convert`, `conversion_option`, `mass_convert`, `inventory_convert`) ----------------------


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
    """Convert, and return what it became: an account where the lead has a company or the request names one."""
    last_name, company = record.fields.get("Last_Name"), record.fields.get("Company")
    account = row.get("Accounts")
    details = {
        "Contacts": _related(visit, "Contacts", row.get("Contacts"), {"Last_Name": last_name}),
        "Deals": _related(visit, "Deals", row["Deals"], {}) if row.get("Deals") else None,
        "Accounts": _related(visit, "Accounts", account, {"Account_Name": company}) if account or company else None,
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
    due = [{"api_name": "ids", "json_path": "$.ids"}]
    details = {"limit": MAX_CONVERSIONS, "limit_due_to": due}
    exceeded = bare(400, "LIMIT_EXCEEDED", "Limit exceeded for mass convert", details)
    leads = _leads_to_convert(visit, body_ids(visit, MAX_CONVERSIONS, exceeded=exceeded))
    deal = visit.body.get("Deals")
    if isinstance(deal, dict) and not deal.get("Deal_Name"):
        where = {"api_name": "Deal_Name", "json_path": "$.Deals.Deal_Name"}
        raise RequestError(bare(400, "MANDATORY_NOT_FOUND", "required field missing", where))
    for record in leads:
        if not record.converted and visit.cause(record) is None:
            _convert_lead(visit, record, {"Deals": deal})
    job = {"job_id": visit.store.new_id()}
    return bare(202, "SCHEDULED", "Mass Convert scheduled successfully", job)


def _leads_to_convert(visit: Visit, references: Sequence[str]) -> list[Record]:
    """Return the leads of a mass conversion.

    Raises:
        RequestError: One is none; the whole request is then refused.
    """
    leads = []
    for position, reference in enumerate(references):
        record = visit.find(reference)
        if record is None:
            where = {"api_name": "ids", "json_path": f"$.ids[{position}]"}
            number = {} if may_name(visit, reference) else {"expected_data_type": "long"}
            raise RequestError(bare(400, "INVALID_DATA", "invalid data", {**number, **where}))
        leads.append(record)
    return leads


def inventory_convert(visit: Visit) -> Reply:
    """POST /Quotes/{id}/actions/convert, and Sales_Orders."""
    modules = _target_modules(visit)
    record = path_record(visit)
    _check_not_converted(record)

    def work(record: Record) -> Json:
        name = record.fields.get("Subject") or ""
        made = {module: {"name": name, "id": new_record(visit, module, record.fields).id} for module in modules}
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
        modules = [target["module"] for target in targets or ()]
    except (TypeError, KeyError):
        modules = []
    if not modules or not all(isinstance(module, dict) for module in modules):
        where = {"api_name": "convert_to", "json_path": "$.data[0].convert_to"}
        raise RequestError(bare(400, "MANDATORY_NOT_FOUND", "required field not found", where))
    names = [module.get("api_name") for module in modules]
    if not all(isinstance(name, str) and name for name in names):
        position = next(index for index, name in enumerate(names) if not isinstance(name, str) or not name)
        path = f"$.data[0].convert_to[{position}].module"
        fields = [{"api_name": key, "json_path": f"{path}.{key}"} for key in ("api_name", "id")]
        problem = item("EXPECTED_FIELD_MISSING", "Specify atleast one field", {"expected_fields": fields})
        raise RequestError(answer(400, {"data": [problem]}))
    return names


def conversion_options(visit: Visit) -> Reply:
    """GET /Leads/{id}/__conversion_options."""
    record = path_record(visit)
    _check_not_converted(record)
    if refused := visit.refusal(record):
        return one(visit, refused)
    names = ("module_preference", "Contacts", "preference_field_matched_value", "Accounts")
    return answer(200, {"__conversion_options": dict.fromkeys((*names, "modules_with_multiple_layouts"))})


# --- portal, mail, blueprint -----------------------------------------------------------------------------------


def portal_invite(visit: Visit) -> Reply:
    """POST /{module}/{id}/actions/portal_invite (OAS: singleInviteUser)."""
    record = path_record(visit)
    if refused := visit.refusal(record):
        return one(visit, refused)
    visit.applied(record)
    invited = item("SUCCESS", "An Invite has been sent to the personality.", {"record_id": record.id})
    return answer(200, {"portal_invite": [invited]})


def send_mail(visit: Visit) -> Reply:
    """POST /{module}/{id}/actions/send_mail (OAS). V7 lists its lock without a form: taken as bare."""
    visit.notes.credits = _MAIL_CREDITS
    if "data" not in visit.body:
        where = {"api_name": "data", "json_path": "$.data"}
        problem = item("MANDATORY_NOT_FOUND", "required field not found", where)
        raise RequestError(answer(400, {"data": [problem]}))
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
