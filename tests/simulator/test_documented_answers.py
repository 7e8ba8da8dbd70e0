"""The simulator's answers beside the documented ones, line by line, each with the source of the fact.

A source such as `record/updateRecord` is a file of zoho/crm-oas: v8.0, group and operation, in its newest form
(`operations/<op>/operation.md`, `mds/examples/<op>.md`). The announcement of the two codes (October 2020) comes
first where the newest file does not list what it names.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from crm_guard.simulator import Engine, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from crm_guard.simulator import Reply

    Send = Callable[..., Reply]

SEED = "the announcement"
V7 = "version 7 pages"
NOWHERE = "undocumented: as it was, or like its nearest sibling"

UPDATE = "Cannot update record that is not approved yet"
DELETE = "cannot delete record that is not approved yet"
CONVERT = "cannot convert record that is not approved yet"
SORRY = "Sorry, you cannot perform this operation as the record is locked."
LOCKED = "You cannot perform this operation as the record is locked."
MERGE = "record under merge is locked"
HIDDEN = "Record locked or invalid permissions"
REVIEW = "record in review"
INVITE = "You cannot sent portal invitation since the record is waiting for approval under review process."
UNKNOWN = "the id given seems to be invalid"
NOT_FOUND = "required field not found"


class Said(NamedTuple):
    """What an answer says: status, where its (last) item sits, and that item."""

    status: int
    envelope: str
    code: str
    details: str
    message: str
    beside: str = ""
    """Further keys of the item, and of the body."""


def said(reply: Reply) -> Said:
    payload = reply.json()
    envelope = next((key for key in ("data", "share", "tags", "portal_invite", "__composite_requests")
                     if key in payload), "bare")  # fmt: skip
    inside = payload if envelope == "bare" else payload[envelope]
    item = inside[-1] if isinstance(inside, list) else inside
    further = set(item) - {"code", "details", "message", "status"}
    if envelope != "bare":
        further |= set(payload) - {envelope}
        envelope += "" if isinstance(inside, list) else " object"
    assert item["status"] == ("success" if item["code"] in ("SUCCESS", "SCHEDULED") else "error")
    details = " ".join(sorted(item["details"]))
    return Said(reply.status, envelope, item["code"], details, item["message"], " ".join(sorted(further)))


# --- refusals: each call in each state -------------------------------------------------------------------------

ROW = {"Company": "Zylker"}
TAGS = {"tags": [{"name": "hot"}]}
SHARE = {"share": [{"shared_with": {"id": "8", "type": "roles"}}]}
OWNER = {"owner": {"id": "9"}}
TERRITORY = {"Territories": [{"id": "7"}]}
TARGET = {"data": [{"convert_to": [{"module": {"api_name": "Sales_Orders", "id": "1"}}]}]}
MULTIPART = "multipart/form-data; boundary=xyz"
PNG = b"\x89PNG\r\n\x1a\nrest"


def upload(name: str = "a.png", content: bytes = PNG) -> bytes:
    head = f'--xyz\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return head.encode() + content + b"\r\n--xyz--\r\n"


Line = tuple[str, str, str, str, str]
ZIA, LOCK, MERGING, WAITS, REVIEWED = "zia", "record locking", "merge", "not approved", "in review"


def lines(zia: Line, lock: Line | None, merge: Line, waits: Line, review: Line) -> dict[str, Line | None]:
    return {ZIA: zia, LOCK: lock, MERGING: merge, WAITS: waits, REVIEWED: review}


def zia(envelope: str, message: str = UPDATE) -> Line:
    return (envelope, "RECORD_LOCKED", "action id", message, SEED)


def lock(envelope: str, source: str, details: str = "action id", message: str = SORRY) -> Line:
    return (envelope, "RECORD_LOCKED", details, message, source)


def merge(envelope: str, source: str = NOWHERE, details: str = "id") -> Line:
    return (envelope, "RECORD_LOCKED", details, MERGE, source)


def waits(envelope: str, message: str = UPDATE, details: str = "id", source: str = SEED) -> Line:
    return (envelope, "NOT_APPROVED", details, message, source)


def review(envelope: str, source: str = NOWHERE, details: str = "id", message: str = REVIEW) -> Line:
    return (envelope, "NOT_REVIEWED", details, message, source)


def by_path(envelope: str, lock_source: str = NOWHERE, message: str = SORRY) -> dict[str, Line | None]:
    """Lines of a call of which little but the announcement is known."""
    return lines(
        zia(envelope),
        lock(envelope, lock_source, message=message),
        merge(envelope),
        waits(envelope),
        review(envelope),
    )


def tags(envelope: str, source: str) -> dict[str, Line | None]:
    return lines(zia(envelope), lock(envelope, source), merge(envelope, source, "action id"), waits(envelope),
                 review(envelope))  # fmt: skip


def photo(verb: str, lock_line: Line | None, source: str) -> dict[str, Line | None]:
    text = f"cannot {verb} the record image that is not {{}} yet"
    return lines(
        zia("bare", text.format("approved")), lock_line, merge("bare"),
        waits("bare", text.format("approved"), source=source),
        review("bare", source if source != SEED else NOWHERE, message=text.format("reviewed")),
    )  # fmt: skip


BY_PLACE, PLACE, INDEX = "action api_name json_path", "api_name json_path", "resource_path_index"
REFUSALS: dict[str, tuple[str, str, Any, dict[str, Line | None]]] = {
    "update": ("PUT", "Leads", {"data": [{"id": "ID", **ROW}]}, lines(
        zia("data"), lock("data", "record/updateRecords", BY_PLACE),
        merge("data", "record/updateRecords", BY_PLACE), waits("data"),
        review("data", "record/updateRecords", ""))),
    "update one": ("PUT", "Leads/ID", {"data": [ROW]}, lines(
        zia("data"), lock("data", "record/updateRecord", BY_PLACE),
        merge("data", "record/updateRecord", BY_PLACE), waits("bare"),
        review("data", "record/updateRecord", ""))),
    "upsert": ("POST", "Leads/upsert", {"data": [{"id": "ID", **ROW}]}, lines(
        zia("data"), lock("data", NOWHERE), merge("data"), waits("bare"), review("data"))),
    "delete": ("DELETE", "Leads?ids=ID", None, lines(
        zia("data", DELETE), lock("data", "record/deleteRecords", message=LOCKED),
        merge("data", "record/deleteRecords", "action id"), waits("data", DELETE, "", "record/deleteRecords"),
        review("data"))),
    "delete one": ("DELETE", "Leads/ID", None, lines(
        zia("data", DELETE), lock("data", "record/deleteRecord", message=LOCKED),
        merge("data", "record/deleteRecord", "action id"), waits("data", DELETE, source="record/deleteRecord"),
        review("data"))),
    "clone": ("POST", "Leads/ID/actions/clone", None, lines(
        zia("data"), lock("data", NOWHERE), merge("data"), waits("bare"), review("bare"))),
    "add tags": ("POST", "Leads/actions/add_tags", {**TAGS, "ids": ["ID"]},
                 tags("bare", "tags_actions/postAddTags")),
    "remove tags": ("POST", "Leads/actions/remove_tags", {**TAGS, "ids": '["ID"]'},
                    tags("data", "tags_actions/postRemoveTags")),
    "add tags to one": ("POST", "Leads/ID/actions/add_tags", TAGS, tags("bare", "tags_actions/postAddTagsWithId")),
    "remove tags from one": ("POST", "Leads/ID/actions/remove_tags", TAGS,
                             tags("bare", "tags_actions/postRemoveTagsWithId")),
    "share": ("POST", "Leads/ID/actions/share", SHARE, by_path("bare")),
    "change share": ("PUT", "Leads/ID/actions/share", SHARE, by_path("bare")),
    "revoke share": ("DELETE", "Leads/ID/actions/share", None, by_path("bare")),
    "mass update": ("POST", "Leads/actions/mass_update", {"data": [ROW], "ids": ["ID"]}, lines(
        zia("data"), lock("data", "mass_update/massUpdateRecords"),
        merge("data", "mass_update/massUpdateRecords", "action id"),
        waits("data", "record not approved", source=V7), review("data"))),
    "mass delete": ("POST", "Leads/actions/mass_delete", {"ids": ["ID"]}, lines(
        zia("data", DELETE), ("bare", "INVALID_DATA", "api_name id json_path", HIDDEN, "mass_delete/massDelete"),
        ("bare", "INVALID_DATA", "api_name id json_path", HIDDEN, "mass_delete/massDelete"),
        waits("data", "The record is unapproved.", source=V7),
        ("bare", "INVALID_DATA", "api_name id json_path", HIDDEN, "mass_delete/massDelete"))),
    "change owner": ("POST", "Leads/actions/change_owner", {**OWNER, "ids": ["ID"]}, lines(
        zia("data"), lock("data", "change_owner/changeOwnerBulk"),
        merge("data", "change_owner/changeOwnerBulk", "action id"),
        waits("data", "The record is not approved", source=V7), review("data"))),
    "change owner of one": ("POST", "Leads/ID/actions/change_owner", OWNER, lines(
        zia("bare"), lock("bare", "change_owner/changeSingleRecordOwner"),
        merge("bare", "change_owner/changeSingleRecordOwner", "action id"),
        waits("bare", "The record is not approved", source=V7), review("bare"))),
    "convert": ("POST", "Leads/ID/actions/convert", {"data": [{}]}, lines(
        zia("data", CONVERT), lock("data", NOWHERE), merge("data"), waits("data", CONVERT), review("data"))),
    "conversion options": ("GET", "Leads/ID/__conversion_options", None, {
        LOCK: None, MERGING: merge("bare", "conversion_option/getLeadConversionOptions", INDEX),
        WAITS: waits("bare", "record not approved", INDEX, "conversion_option/getLeadConversionOptions"),
        REVIEWED: review("bare", NOWHERE, INDEX), ZIA: None}),
    "inventory convert": ("POST", "Quotes/ID/actions/convert", TARGET, lines(
        zia("bare", CONVERT), lock("bare", "inventory_convert/convertInventory"),
        merge("bare", "inventory_convert/convertInventory"),
        waits("bare", "record not approved", INDEX, "inventory_convert/convertInventory"),
        review("bare", "inventory_convert/convertInventory", INDEX))),
    "get photo": ("GET", "Leads/ID/photo", None, photo("get", None, SEED)),
    "upload photo": ("POST", "Leads/ID/photo", upload(), photo(
        "upload", lock("bare", "record_photo/uploadRecordPhoto", "id"), "record_photo/uploadRecordPhoto")),
    "delete photo": ("DELETE", "Leads/ID/photo", None, photo("delete", lock("bare", NOWHERE, "id"), SEED)),
    "portal invite": ("POST", "Leads/ID/actions/portal_invite?type=invite", None, lines(
        zia("bare"), lock("bare", NOWHERE), merge("bare"),
        waits("bare", "Entity has not approved to invite yet.", "record_id", "portal_users/singleInviteUser"),
        review("bare", "portal_users/singleInviteUser", "record_id", INVITE))),
    "assign territories": ("POST", "Leads/actions/assign_territories", {"data": [{"id": "ID", **TERRITORY}]}, lines(
        zia("data"), lock("data", "territories/assignTerritoriesToRecords"),
        merge("data", "territories/assignTerritoriesToRecords", "action id"), waits("data"), review("data"))),
    "remove territories": ("POST", "Leads/actions/remove_territories", {"data": [{"id": "ID", **TERRITORY}]}, lines(
        zia("data"), lock("data", "territories/removeTerritoriesFromRecords"),
        merge("data", "territories/removeTerritoriesFromRecords", "action id"), waits("data"), review("data"))),
    "assign territories to one": ("POST", "Leads/ID/actions/assign_territories", {"data": [TERRITORY]}, lines(
        zia("bare"), lock("bare", "territories/assignTerritoriesToRecord", INDEX),
        merge("bare", "territories/assignTerritoriesToRecord", INDEX), waits("bare"), review("bare"))),
    "remove territories from one": ("POST", "Leads/ID/actions/remove_territories", {"data": [TERRITORY]}, lines(
        zia("bare"), lock("bare", "territories/removeTerritoriesFromRecord", INDEX),
        merge("bare", "territories/removeTerritoriesFromRecord", INDEX), waits("bare"), review("bare"))),
    "blueprint": ("PUT", "Leads/ID/actions/blueprint", {"blueprint": [{"transition_id": "1"}]},
                  by_path("bare", V7, LOCKED)),
    "send mail": ("POST", "Leads/ID/actions/send_mail", {"data": [{"subject": "Hello"}]}, by_path("bare", V7)),
}  # fmt: skip
_CAUSES = {
    State.ZIA_VISION_VALIDATION: ZIA, State.RECORD_LOCKING: LOCK, State.MERGE_PENDING: MERGING,
    State.REVIEW_PROCESS_PENDING: REVIEWED, State.REVIEW_PROCESS_REJECTED: REVIEWED,
}  # fmt: skip
REFUSING = {state: _CAUSES.get(state, WAITS) for state in State
            if state not in (State.APPROVED, State.ZIA_IMAGE_PENDING)}  # fmt: skip
STYLED: dict[str, dict[str, Line]] = {
    "update": {ZIA: lock("data", SEED, BY_PLACE, UPDATE),
               WAITS: waits("data", UPDATE, INDEX, "record/updateRecords")},
    "update one": {ZIA: lock("data", SEED, BY_PLACE, UPDATE),
                   WAITS: waits("bare", UPDATE, INDEX, "record/updateRecord")},
    "upsert": {WAITS: waits("bare", UPDATE, INDEX, "record/upsertRecords")},
}  # fmt: skip
"""The lines that the option `details_style="oas"` changes: to the newest files' form, also of what SEED names."""


def _refused(send: Send, call: str, state: State, **options: Any) -> Said | None:
    method, path, body, _ = REFUSALS[call]
    engine = Engine(**options)
    record_id = engine.add_record(path.partition("/")[0].partition("?")[0], state=state, image=PNG)
    path = path.replace("ID", record_id)
    if isinstance(body, bytes):
        reply = send(engine, method, path, raw=body, Content_Type=MULTIPART)
    else:
        reply = send(
            engine, method, path, None if body is None else json.loads(json.dumps(body).replace("ID", record_id))
        )
    if reply.status < 300:
        return None
    found = said(reply)
    assert found.beside in ("", "locked_count")
    return found._replace(beside="")


@pytest.mark.parametrize("call", REFUSALS)
def test_each_call_is_refused_in_each_state_as_documented(send: Send, call: str) -> None:
    for state, cause in REFUSING.items():
        line = REFUSALS[call][3][cause]
        expected = None if line is None else Said(400, *line[:4])
        assert _refused(send, call, state) == expected, f"{state}: {line and line[4]}"


@pytest.mark.parametrize("call", REFUSALS)
def test_the_newest_files_form_can_be_had_for_what_the_announcement_names(send: Send, call: str) -> None:
    for state, cause in REFUSING.items():
        line = STYLED.get(call, {}).get(cause) or REFUSALS[call][3][cause]
        expected = None if line is None else Said(400, *line[:4])
        assert _refused(send, call, state, details_style="oas") == expected, f"{state}: {line and line[4]}"


@pytest.mark.parametrize("call", REFUSALS)
def test_an_image_that_waits_refuses_the_photo_calls_alone(send: Send, call: str) -> None:
    found = _refused(send, call, State.ZIA_IMAGE_PENDING)
    refused = found is not None and found.code == "NOT_APPROVED"
    assert refused == call.endswith("photo")


# --- successes and common errors -------------------------------------------------------------------------------

STAMPS = "Created_By Created_Time Modified_By Modified_Time id"
WRITTEN = "$approval_state " + STAMPS
FINE, STUCK, RULED, GONE, QUOTE, FREE, CHANGED = "101", "102", "103", "999", "200", "104", "105"
MISSING = {"data": [{}]}
TOO_MANY = "count of records in your request exceeds the limit"
DONE = "the territories data {} successfully"


def ok(envelope: str, details: str, message: str, beside: str = "", status: int = 200) -> Said:
    return Said(status, envelope, "SUCCESS", details, message, beside)


def bad(envelope: str, code: str, details: str, message: str, beside: str = "", status: int = 400) -> Said:
    return Said(status, envelope, code, details, message, beside)


def row(record_id: str, **fields: Any) -> dict[str, Any]:
    return {"data": [{"id": record_id, **fields}]}


ANSWERS: dict[str, tuple[str, str, Any, Said, str]] = {
    # record
    "update": ("PUT", "Leads", row(FINE), ok("data", WRITTEN, "record updated"), "record/updateRecords"),
    "update, unknown id": ("PUT", "Leads", row(GONE), bad("data", "INVALID_DATA", PLACE, UNKNOWN),
                           "record/updateRecords"),
    "update, no id": ("PUT", "Leads", MISSING, bad("data", "MANDATORY_NOT_FOUND", PLACE, NOT_FOUND),
                      "record/updateRecords"),
    "update, partly": ("PUT", "Leads", {"data": [{"id": FINE}, {"id": FINE, "Last_Name": 5}]},
                       bad("data", "INVALID_DATA", PLACE,
                           "the field api name given seems to be invalid", status=207), "record/updateRecords"),
    "update, 101 rows": ("PUT", "Leads", {"data": [{"id": FINE}] * 101},
                         bad("data", "LIMIT_EXCEEDED", "api_name maximum_length", TOO_MANY),
                         "record/updateRecords"),
    "update one": ("PUT", f"Leads/{FINE}", {"data": [ROW]}, ok("data", WRITTEN, "record updated"),
                   "record/updateRecord"),
    "update one, unknown id": ("PUT", f"Leads/{GONE}", {"data": [ROW]},
                               bad("data", "INVALID_DATA", INDEX, "record not deleted"), "record/updateRecord"),
    "update one, two rows": ("PUT", f"Leads/{FINE}", {"data": [ROW, ROW]},
                             bad("data", "LIMIT_EXCEEDED", "api_name maximum_length", TOO_MANY),
                             "record/updateRecord"),
    "create": ("POST", "Leads", {"data": [{"Last_Name": "Doe"}]},
               ok("data", WRITTEN, "record added", status=201), "record/createRecords"),
    "create, no name": ("POST", "Leads", MISSING, bad("data", "MANDATORY_NOT_FOUND", PLACE, NOT_FOUND),
                        "record/createRecords"),
    "create, wrong value": ("POST", "Leads", {"data": [{"Last_Name": "Doe", "Company": 5}]},
                            bad("data", "INVALID_DATA", PLACE,
                                "The field value given for Company is invalid"), "record/createRecords"),
    "create, 101 rows": ("POST", "Leads", {"data": [{"Last_Name": "Doe"}] * 101},
                         bad("bare", "INVALID_DATA", "api_name json_path maximum_length", "invalid data"),
                         "record/createRecords"),
    "upsert, update": ("POST", "Leads/upsert", row(FINE), ok("data", WRITTEN, "record updated",
                       "action duplicate_field"), "record/upsertRecords"),
    "upsert, insert": ("POST", "Leads/upsert", {"data": [{"Last_Name": "Doe"}]},
                       ok("data", WRITTEN, "record added", "action duplicate_field"), "record/upsertRecords"),
    "upsert, partly": ("POST", "Leads/upsert", {"data": [{"id": FINE}, {"id": FINE, "Company": 5}]},
                       bad("data", "INVALID_DATA", "api_name expected_data_type json_path", "invalid data",
                           status=207), "record/upsertRecords"),
    "upsert, 101 rows": ("POST", "Leads/upsert", {"data": [{"id": FINE}] * 101},
                         bad("bare", "INVALID_DATA", "api_name json_path maximum_length", "invalid data"),
                         "record/upsertRecords"),
    "delete": ("DELETE", f"Leads?ids={FINE}", None, ok("data", "id", "record deleted"), "record/deleteRecords"),
    "delete, partly": ("DELETE", f"Leads?ids={FINE},{GONE}", None,
                       bad("data", "INVALID_DATA", "id", "record not deleted", status=207), "record/deleteRecords"),
    "delete, no number": ("DELETE", "Leads?ids=abc", None,
                          bad("data", "INVALID_DATA", "id",
                              "either the request body or parameters is in wrong format"), "record/deleteRecords"),
    "delete, no ids": ("DELETE", "Leads", None, bad("bare", "REQUIRED_PARAM_MISSING", "param_name",
                       "One of the expected parameter is missing"), "record/deleteRecords"),
    "delete one": ("DELETE", f"Leads/{FINE}", None, ok("data", "id", "record deleted"), "record/deleteRecord"),
    "delete one, unknown id": ("DELETE", f"Leads/{GONE}", None,
                               bad("bare", "INVALID_DATA", INDEX, "record not deleted"), "record/deleteRecord"),
    "delete one, no number": ("DELETE", "Leads/abc", None, bad("bare", "INVALID_DATA", INDEX,
                              "either the request body or parameters is in wrong format"), "record/deleteRecord"),
    "clone": ("POST", f"Leads/{FINE}/actions/clone", None, ok("data", WRITTEN, "record added", status=201),
              "record/cloneRecord"),
    "clone, unknown id": ("POST", f"Leads/{GONE}/actions/clone", None,
                          bad("data", "INVALID_DATA", INDEX, "record not deleted"), "record/cloneRecord"),
    # tags_actions
    "add tags": ("POST", "Leads/actions/add_tags", {**TAGS, "ids": [FINE]},
                 ok("data", "affected_data id tags", "tags updated successfully", "locked_count"),
                 "tags_actions/postAddTags"),
    "add tags, partly": ("POST", "Leads/actions/add_tags", {**TAGS, "ids": [FINE, STUCK]},
                         bad("data", "RECORD_LOCKED", "action id", SORRY, "locked_count", status=200),
                         "tags_actions/postAddTags"),
    "remove tags": ("POST", "Leads/actions/remove_tags", {**TAGS, "ids": [FINE]},
                    ok("data", "id tags", "tags updated successfully", "locked_count"),
                    "tags_actions/postRemoveTags"),
    "remove tags, partly": ("POST", "Leads/actions/remove_tags", {**TAGS, "ids": [FINE, STUCK]},
                            bad("data", "RECORD_LOCKED", "action id", SORRY, "locked_count", status=200),
                            "tags_actions/postRemoveTags"),
    "remove tags, locked": ("POST", "Leads/actions/remove_tags", {**TAGS, "ids": [STUCK]},
                            bad("data", "RECORD_LOCKED", "action id", SORRY, "locked_count"),
                            "tags_actions/postRemoveTags"),
    "add tags to one": ("POST", f"Leads/{FINE}/actions/add_tags", TAGS,
                        ok("data", "id modifiedTime tags", "tags updated successfully"),
                        "tags_actions/postAddTagsWithId"),
    "remove tags from one": ("POST", f"Leads/{FINE}/actions/remove_tags", TAGS,
                             ok("data", "id modifiedTime tags", "tags updated successfully"),
                             "tags_actions/postRemoveTagsWithId"),
    "add tags, number as name": ("POST", "Leads/actions/add_tags", {"tags": [{"name": 5}], "ids": [FINE]},
                                 bad("tags", "INVALID_DATA", "api_name expected_data_type json_path",
                                     "Invalid data type"), "tags_actions/postAddTags"),
    "add tags, long name": ("POST", "Leads/actions/add_tags", {"tags": [{"name": "x" * 26}], "ids": [FINE]},
                            bad("tags", "INVALID_DATA", "api_name json_path maximum_length", "Invalid data"),
                            "tags_actions/postAddTags"),
    "add tags, long colour": ("POST", f"Leads/{FINE}/actions/add_tags",
                              {"tags": [{"name": "x", "color_code": "#F175740"}]},
                              bad("tags", "INVALID_DATA", "api_name json_path maximum_length", "Invalid data"),
                              "tags_actions/postAddTagsWithId"),
    # share_records
    "share": ("POST", f"Leads/{FINE}/actions/share", SHARE,
              ok("share", "", "record will be shared successfully", status=201),
              "share_records/createShareRecords"),
    "share, partly": ("POST", f"Leads/{FINE}/actions/share", {"share": SHARE["share"] * 2},
                      bad("share", "INVALID_DATA", PLACE, "invalid data", status=207),
                      "share_records/createShareRecords"),
    "share, unknown id": ("POST", f"Leads/{GONE}/actions/share", SHARE,
                          bad("bare", "INVALID_DATA", INDEX, "ENTITY_ID_INVALID"),
                          "share_records/createShareRecords"),
    "share, 21 entries": ("POST", f"Leads/{FINE}/actions/share", {"share": SHARE["share"] * 21},
                          bad("bare", "INVALID_DATA", "api_name json_path maximum_length", "invalid data"),
                          "share_records/createShareRecords"),
    "share, six roles": ("POST", f"Leads/{FINE}/actions/share",
                         {"share": [{"shared_with": {"id": str(i), "type": "roles"}} for i in range(6)]},
                         bad("share", "LIMIT_EXCEEDED", "api_name json_path limit",
                             "Cannot share a record to more than 5 roles", status=207),
                         "share_records/updateShareRecords"),
    "change share, unknown id": ("PUT", f"Leads/{GONE}/actions/share", SHARE,
                                 bad("bare", "INVALID_DATA", INDEX, "ENTITY_ID_INVALID"),
                                 "share_records/updateShareRecords"),
    "list shares, unknown id": ("GET", f"Leads/{GONE}/actions/share", None,
                                bad("bare", "INVALID_DATA", INDEX, "ENTITY_ID_INVALID"),
                                "share_records/getShareRecords"),
    "revoke share": ("DELETE", f"Leads/{CHANGED}/actions/share", None, ok("share object", "id", "Sharing Revoked"),
                     "share_records/deleteShareRecords"),
    "revoke share, none": ("DELETE", f"Leads/{FINE}/actions/share", None,
                           bad("bare", "CANNOT_PROCESS", "",
                               "No sharing through this record is available to revoke"),
                           "share_records/deleteShareRecords"),
    # mass_update, mass_delete
    "mass update": ("POST", "Leads/actions/mass_update", {"data": [ROW], "ids": [FINE]},
                    ok("data", STAMPS, "record updated"), "mass_update/massUpdateRecords"),
    "mass update, partly": ("POST", "Leads/actions/mass_update", {"data": [ROW], "ids": [FINE, STUCK]},
                            bad("data", "RECORD_LOCKED", "action id", SORRY, status=207),
                            "mass_update/massUpdateRecords"),
    "mass update, unknown id": ("POST", "Leads/actions/mass_update", {"data": [ROW], "ids": [GONE]},
                                bad("data", "INVALID_DATA", "id", UNKNOWN), "mass_update/massUpdateRecords"),
    "mass update, no ids": ("POST", "Leads/actions/mass_update", {"data": [ROW]},
                            bad("data", "MANDATORY_NOT_FOUND", "", NOT_FOUND), "mass_update/massUpdateRecords"),
    "mass update, no data": ("POST", "Leads/actions/mass_update", {"ids": [FINE]},
                             bad("data", "MANDATORY_NOT_FOUND", "", NOT_FOUND), "mass_update/massUpdateRecords"),
    "mass update, wrong value": ("POST", "Leads/actions/mass_update", {"data": [{"Company": 5}], "ids": [FINE]},
                                 bad("data", "INVALID_DATA", "api_name id", "invalid data"),
                                 "mass_update/massUpdateRecords"),
    "mass update, job": ("POST", "Leads/actions/mass_update", {"data": [ROW], "cvid": "1"},
                         ok("data", "job_id", "mass update scheduled successfully"),
                         "mass_update/massUpdateRecords"),
    "mass delete": ("POST", "Leads/actions/mass_delete", {"ids": [FINE]}, ok("data", "id", "record is deleted"),
                    "mass_delete/massDelete"),
    "mass delete, partly": ("POST", "Leads/actions/mass_delete", {"ids": [STUCK, FINE]},
                            bad("data", "INVALID_DATA", "id", HIDDEN, status=207), "mass_delete/massDelete"),
    "mass delete, unknown id": ("POST", "Leads/actions/mass_delete", {"ids": [GONE]},
                                bad("bare", "INVALID_DATA", "api_name id json_path", UNKNOWN),
                                "mass_delete/massDelete"),
    "mass delete, no ids": ("POST", "Leads/actions/mass_delete", {},
                            bad("bare", "MANDATORY_NOT_FOUND", "api_name expected_data_type", NOT_FOUND),
                            "mass_delete/massDelete"),
    "mass delete, job": ("POST", "Leads/actions/mass_delete", {"cvid": "1"},
                         ok("data", "job_id", "mass delete scheduled successfully"), "mass_delete/massDelete"),
    # change_owner
    "change owner": ("POST", "Leads/actions/change_owner", {**OWNER, "ids": [FINE]},
                     ok("data", "id", "owner is successfully updated"), "change_owner/changeOwnerBulk"),
    "change owner, partly": ("POST", "Leads/actions/change_owner", {**OWNER, "ids": [FINE, STUCK]},
                             bad("data", "RECORD_LOCKED", "action id", SORRY, status=202),
                             "change_owner/changeOwnerBulk"),
    "change owner, unknown id": ("POST", "Leads/actions/change_owner", {**OWNER, "ids": [GONE]},
                                 bad("data object", "INVALID_DATA", "api_name expected_data_type json_path",
                                     "invalid data"), "change_owner/changeOwnerBulk"),
    "change owner, no owner": ("POST", "Leads/actions/change_owner", {"ids": [FINE]},
                               bad("bare", "MANDATORY_NOT_FOUND", PLACE, NOT_FOUND),
                               "change_owner/changeOwnerBulk"),
    "change owner of one": ("POST", f"Leads/{FINE}/actions/change_owner", OWNER,
                            ok("data", "id", "owner is successfully updated"),
                            "change_owner/changeSingleRecordOwner"),
    "change owner of one, wrong owner": ("POST", f"Leads/{FINE}/actions/change_owner", {"owner": {}},
                                         bad("bare", "INVALID_DATA", PLACE, "Invalid data provided"),
                                         "change_owner/changeSingleRecordOwner"),
    # convert, conversion_option, inventory_convert, mass_convert
    "convert": ("POST", f"Leads/{FINE}/actions/convert", {"data": [{}]},
                ok("data", "Accounts Contacts Deals", "The record has been converted successfully"),
                "convert/convertLead"),
    "convert, unknown id": ("POST", f"Leads/{GONE}/actions/convert", {"data": [{}]},
                            bad("bare", "INVALID_DATA", INDEX, UNKNOWN), "convert/convertLead"),
    "convert, twice": ("POST", f"Leads/{FREE}/actions/convert", {"data": [{}]},
                       bad("bare", "ID_ALREADY_CONVERTED", INDEX, "id already converted"), "convert/convertLead"),
    "conversion options, unknown id": ("GET", f"Leads/{GONE}/__conversion_options", None,
                                       bad("bare", "INVALID_DATA", INDEX, "the given id seems to be invalid"),
                                       "conversion_option/getLeadConversionOptions"),
    "inventory convert": ("POST", f"Quotes/{QUOTE}/actions/convert", TARGET,
                          ok("data", "Sales_Orders", "The record has been converted successfully"),
                          "inventory_convert/convertInventory"),
    "inventory convert, unknown id": ("POST", f"Quotes/{GONE}/actions/convert", TARGET,
                                      bad("bare", "INVALID_DATA", INDEX, "invalid data"),
                                      "inventory_convert/convertInventory"),
    "inventory convert, no target": ("POST", f"Quotes/{QUOTE}/actions/convert", MISSING,
                                     bad("bare", "MANDATORY_NOT_FOUND", PLACE, NOT_FOUND),
                                     "inventory_convert/convertInventory"),
    "inventory convert, nameless": ("POST", f"Quotes/{QUOTE}/actions/convert",
                                    {"data": [{"convert_to": [{"module": {}}]}]},
                                    bad("data", "EXPECTED_FIELD_MISSING", "expected_fields",
                                        "Specify atleast one field"), "inventory_convert/convertInventory"),
    "mass convert": ("POST", "Leads/actions/mass_convert", {"ids": [FINE]},
                     Said(202, "bare", "SCHEDULED", "job_id", "Mass Convert scheduled successfully"),
                     "mass_convert/massConvert"),
    "mass convert, no ids": ("POST", "Leads/actions/mass_convert", {},
                             bad("bare", "MANDATORY_NOT_FOUND", PLACE, NOT_FOUND),
                             "mass_convert/massConvert"),
    "mass convert, unknown id": ("POST", "Leads/actions/mass_convert", {"ids": [FINE, GONE]},
                                 bad("bare", "INVALID_DATA", PLACE, "invalid data"),
                                 "mass_convert/massConvert"),
    "mass convert, no number": ("POST", "Leads/actions/mass_convert", {"ids": ["abc"]},
                                bad("bare", "INVALID_DATA", "api_name expected_data_type json_path",
                                    "invalid data"), "mass_convert/massConvert"),
    "mass convert, 51 ids": ("POST", "Leads/actions/mass_convert", {"ids": [FINE] * 51},
                             bad("bare", "LIMIT_EXCEEDED", "limit limit_due_to",
                                 "Limit exceeded for mass convert"), "mass_convert/massConvert"),
    "mass convert, deal without name": ("POST", "Leads/actions/mass_convert", {"ids": [FINE], "Deals": {}},
                                        bad("bare", "MANDATORY_NOT_FOUND", PLACE,
                                            "required field missing"), "mass_convert/massConvert"),
    # record_photo
    "upload photo": ("POST", f"Leads/{FINE}/photo", upload(), ok("bare", "", "Photo uploaded successfully"),
                     "record_photo/uploadRecordPhoto"),
    "upload photo, too large": ("POST", f"Leads/{FINE}/photo", upload(content=bytes(10 * 1024 * 1024 + 1)),
                                bad("bare", "FILE_SIZE_EXCEEDS", "size", "File exceeded its maximum limit",
                                    status=413), "record_photo/uploadRecordPhoto"),
    "upload photo, no image": ("POST", f"Leads/{FINE}/photo", upload("a.txt", b"text"),
                               bad("bare", "INVALID_DATA", "", "invalid file type", status=415),
                               "record_photo/uploadRecordPhoto"),
    "upload photo, unknown id": ("POST", f"Leads/{GONE}/photo", upload(),
                                 bad("bare", "INVALID_DATA", INDEX, UNKNOWN), "record_photo/uploadRecordPhoto"),
    "get photo, unknown id": ("GET", f"Leads/{GONE}/photo", None, bad("bare", "INVALID_DATA", INDEX, UNKNOWN),
                              "record_photo/getRecordPhoto"),
    "delete photo": ("DELETE", f"Leads/{FINE}/photo", None, ok("bare", "", "Photo deleted successfully"),
                     "record_photo/deleteRecordPhoto"),
    # portal_users, send_mail
    "portal invite": ("POST", f"Leads/{FINE}/actions/portal_invite", None,
                      ok("portal_invite", "record_id", "An Invite has been sent to the personality."),
                      "portal_users/singleInviteUser"),
    "send mail": ("POST", f"Leads/{FINE}/actions/send_mail", {"data": [{}]},
                  ok("data", "message_id", "Mail sent successfully"), "send_mail/sendMail"),
    "send mail, no data": ("POST", f"Leads/{FINE}/actions/send_mail", {},
                           bad("data", "MANDATORY_NOT_FOUND", PLACE, NOT_FOUND),
                           "send_mail/sendMail"),
    # territories
    "assign territories": ("POST", "Leads/actions/assign_territories", row(FINE, **TERRITORY),
                           ok("data", "id", DONE.format("updated")), "territories/assignTerritoriesToRecords"),
    "assign territories, unknown id": ("POST", "Leads/actions/assign_territories", row(GONE, **TERRITORY),
                                       bad("data", "INVALID_DATA", PLACE, UNKNOWN),
                                       "territories/assignTerritoriesToRecords"),
    "assign territories, 11 rows": ("POST", "Leads/actions/assign_territories", {"data": [{"id": FINE}] * 11},
                                    bad("bare", "INVALID_DATA", "api_name json_path maximum_length",
                                        "invalid data"), "territories/assignTerritoriesToRecords"),
    "assign territories, known": ("POST", "Leads/actions/assign_territories", row(CHANGED, **TERRITORY),
                                  bad("data", "DUPLICATE_DATA", PLACE,
                                      "Given Territory already exists for that record"),
                                  "territories/assignTerritoriesToRecords"),
    "assign territories to one": ("POST", f"Leads/{FINE}/actions/assign_territories", {"data": [TERRITORY]},
                                  ok("data", "id", DONE.format("updated")),
                                  "territories/assignTerritoriesToRecord"),
    "assign territories to one, known": ("POST", f"Leads/{CHANGED}/actions/assign_territories",
                                         {"data": [TERRITORY]},
                                         bad("data", "DUPLICATE_DATA", PLACE,
                                             "Given Territory already exists for that record"),
                                         "territories/assignTerritoriesToRecord"),
    "assign territories to one, no id": ("POST", f"Leads/{FINE}/actions/assign_territories",
                                         {"data": [{"Territories": [{}]}]},
                                         bad("data", "MANDATORY_NOT_FOUND", PLACE, NOT_FOUND),
                                         "territories/assignTerritoriesToRecord"),
    "assign territories to one, unknown id": ("POST", f"Leads/{GONE}/actions/assign_territories",
                                              {"data": [TERRITORY]}, bad("bare", "INVALID_DATA", INDEX, UNKNOWN),
                                              "territories/assignTerritoriesToRecord"),
    "remove territories": ("POST", "Leads/actions/remove_territories", row(CHANGED, **TERRITORY),
                           ok("data", "id", DONE.format("removed")), "territories/removeTerritoriesFromRecords"),
    "remove territories from one": ("POST", f"Leads/{CHANGED}/actions/remove_territories", {"data": [TERRITORY]},
                                    ok("data", "id", DONE.format("removed")),
                                    "territories/removeTerritoriesFromRecord"),
    # locking_informations
    "lock": ("POST", f"Leads/{FINE}/Locking_Information__s", {"data": [{"Locked_Reason__s": "x"}]},
             ok("data", STAMPS, "record added", status=201), "locking_informations/lockRecord"),
    "lock, no reason": ("POST", f"Leads/{FINE}/Locking_Information__s", MISSING,
                        bad("data", "MANDATORY_NOT_FOUND", PLACE, NOT_FOUND),
                        "locking_informations/lockRecord"),
    "lock, locked": ("POST", f"Leads/{STUCK}/Locking_Information__s", {"data": [{"Locked_Reason__s": "x"}]},
                     bad("bare", "NOT_ALLOWED", INDEX, "record is already locked", status=403),
                     "locking_informations/lockRecord"),
    "lock, unknown id": ("POST", f"Leads/{GONE}/Locking_Information__s", {"data": [{"Locked_Reason__s": "x"}]},
                         bad("bare", "INVALID_DATA", INDEX, "the related id given seems to be invalid"),
                         "locking_informations/lockRecord"),
    "list locks, unknown id": ("GET", f"Leads/{GONE}/Locking_Information__s", None,
                               bad("bare", "INVALID_DATA", INDEX, "the related id given seems to be invalid"),
                               "locking_informations/getRecordLockingInformationOfTheRecord"),
    "read lock, unknown id": ("GET", f"Leads/{GONE}/Locking_Information__s/1", None,
                              bad("bare", "INVALID_DATA", INDEX, "the related id given seems to be invalid"),
                              "locking_informations/getRecordLockingInformationById"),
    "change lock": ("PUT", f"Leads/{STUCK}/Locking_Information__s/LOCK", {"data": [{"Locked_Reason__s": "y"}]},
                    ok("data", "id", "relation updated"), "locking_informations/updateReasonofLockedRecord"),
    "change lock, no reason": ("PUT", f"Leads/{STUCK}/Locking_Information__s/LOCK", MISSING,
                               bad("data", "MANDATORY_NOT_FOUND", PLACE, NOT_FOUND),
                               "locking_informations/updateReasonofLockedRecord"),
    "change lock, unknown lock": ("PUT", f"Leads/{STUCK}/Locking_Information__s/1",
                                  {"data": [{"Locked_Reason__s": "y"}]},
                                  bad("bare", "INVALID_DATA", INDEX, UNKNOWN),
                                  "locking_informations/updateReasonofLockedRecord"),
    "change lock, by a rule": ("PUT", f"Leads/{RULED}/Locking_Information__s/LOCK",
                               {"data": [{"Locked_Reason__s": "y"}]},
                               bad("bare", "NOT_ALLOWED", INDEX,
                                   "record cannot be locked, only automatic locking is configured", status=403),
                               "locking_informations/updateReasonofLockedRecord"),
    "unlock": ("DELETE", f"Leads/{STUCK}/Locking_Information__s/LOCK", None,
               ok("data", "id", "relation removed"), "locking_informations/removeLockFromLockedRecord"),
    "unlock, unknown lock": ("DELETE", f"Leads/{STUCK}/Locking_Information__s/1", None,
                             bad("bare", "INVALID_DATA", INDEX, UNKNOWN),
                             "locking_informations/removeLockFromLockedRecord"),
    "unlock, unknown id": ("DELETE", f"Leads/{GONE}/Locking_Information__s/1", None,
                           bad("bare", "INVALID_DATA", INDEX, "the related id given seems to be invalid"),
                           "locking_informations/removeLockFromLockedRecord"),
    "unlock, by a rule": ("DELETE", f"Leads/{RULED}/Locking_Information__s/LOCK", None,
                          bad("bare", "NOT_ALLOWED", INDEX,
                              "Automatically locked records can not be unlocked manually", status=403),
                          "locking_informations/removeLockFromLockedRecord"),
    # composite_requests
    "composite, six": ("POST", "__composite_requests",
                       {"__composite_requests": [{"method": "GET", "uri": "/crm/v8/org"}] * 6},
                       bad("bare", "INVALID_DATA", "api_name json_path maximum_length", "invalid data"),
                       "composite_requests/createCompositeRequest"),
    "composite, wrong address": ("POST", "__composite_requests",
                                 {"__composite_requests": [{"method": "GET", "uri": "/Leads"}]},
                                 bad("__composite_requests", "INVALID_DATA",
                                     "api_name expected_data_type json_path regex", "invalid data"),
                                 "composite_requests/createCompositeRequest"),
    "composite, no method": ("POST", "__composite_requests", {"__composite_requests": [{"uri": "/crm/v8/org"}]},
                             bad("__composite_requests", "MANDATORY_NOT_FOUND", PLACE, NOT_FOUND),
                             "composite_requests/createCompositeRequest"),
    "composite, both ways": ("POST", "__composite_requests",
                             {"rollback_on_fail": True, "parallel_execution": True,
                              "__composite_requests": [{"method": "GET", "uri": "/crm/v8/org"}]},
                             bad("bare", "AMBIGUITY_DURING_PROCESSING", "ambiguity_due_to",
                                 "Ambiguity while processing the request"),
                             "composite_requests/createCompositeRequest"),
}  # fmt: skip


@pytest.fixture
def org(send: Send) -> Engine:
    engine = Engine()
    for record_id in (FINE, FREE, CHANGED):
        engine.add_record("Leads", record_id, fields={"Last_Name": "Doe", "Company": "Zylker"})
    engine.add_record("Leads", STUCK, state="record_locking")
    engine.add_record("Leads", RULED, state="record_locking", lock_source="Automatic")
    engine.add_record("Quotes", QUOTE, fields={"Subject": "Big"})
    send(engine, "POST", f"Leads/{FREE}/actions/convert", {"data": [{}]})
    send(engine, "POST", f"Leads/{CHANGED}/actions/share", SHARE)
    send(engine, "POST", f"Leads/{CHANGED}/actions/assign_territories", {"data": [TERRITORY]})
    return engine


@pytest.mark.parametrize("name", ANSWERS)
def test_successes_and_common_errors_are_as_documented(send: Send, org: Engine, name: str) -> None:
    method, path, body, expected, source = ANSWERS[name]
    if path.endswith("/LOCK"):
        (lock,) = send(org, "GET", path.removesuffix("/LOCK")).json()["data"]
        path = path.replace("LOCK", lock["id"])
    if isinstance(body, bytes):
        reply = send(org, method, path, raw=body, Content_Type=MULTIPART)
    else:
        reply = send(org, method, path, body)
    assert said(reply) == expected, source


def test_the_numbers_in_details_are_the_documented_ones(send: Send, org: Engine) -> None:
    def details(name: str) -> Any:
        method, path, body, _, _ = ANSWERS[name]
        found = send(org, method, path, body).json()
        return (found["data"][0] if isinstance(found.get("data"), list) else found)["details"]

    assert details("update, 101 rows") == {"maximum_length": 100, "api_name": "data"}
    assert details("create, 101 rows") == {"maximum_length": 100, "api_name": "data", "json_path": "$.data"}
    assert details("mass delete, unknown id") == {"api_name": "ids", "json_path": "$.ids[0]", "id": GONE}
    assert details("mass convert, 51 ids")["limit_due_to"] == [{"api_name": "ids", "json_path": "$.ids"}]
    assert details("unlock, unknown lock") == {"resource_path_index": 3}
    assert details("unlock, unknown id") == {"resource_path_index": 1}


def test_what_a_lead_can_become_is_told_under_the_documented_keys(send: Send, org: Engine) -> None:
    """conversion_option/getLeadConversionOptions: null where nothing matches."""
    found = send(org, "GET", f"Leads/{FINE}/__conversion_options").json()["__conversion_options"]
    assert found == dict.fromkeys(("module_preference", "Contacts", "preference_field_matched_value", "Accounts",
                                   "modules_with_multiple_layouts"))  # fmt: skip


def test_a_lead_without_a_company_becomes_no_account(send: Send, engine: Engine) -> None:
    """convert/convertLead: `Accounts` is null where none was made."""
    lead = engine.add_record("Leads", fields={"Last_Name": "Doe"})
    (found,) = send(engine, "POST", f"Leads/{lead}/actions/convert", {"data": [{}]}).json()["data"]
    assert found["details"]["Accounts"] is None
    assert found["details"]["Contacts"]["name"] == "Doe"


def test_the_time_of_a_tagging_is_spoken(send: Send, clock: Any) -> None:
    """tags_actions/postAddTagsWithId."""
    engine = Engine(clock=clock)
    lead = engine.add_record("Leads")
    spoken = []
    for _ in range(2):
        (found,) = send(engine, "POST", f"Leads/{lead}/actions/add_tags", TAGS).json()["data"]
        spoken.append(found["details"]["modifiedTime"])
        clock.advance(12 * 3600.0)
    assert spoken == ["Sun, 10 May 2026 01:10 AM", "Sun, 10 May 2026 01:10 PM"]
