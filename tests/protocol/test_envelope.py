"""What counts as CRM's word on a record, and what only looks like it: the table is the rule."""

import json

import pytest

from crm_guard._protocol.envelope import identifier, read_envelope

ACTIONS = ("zia_vision_processing",)
DETAILS = {"id": "111112000000075003", "action": "zia_vision_processing"}
LOCK = {"code": "RECORD_LOCKED", "details": DETAILS, "message": "Cannot update record", "status": "error"}
REFUSAL = LOCK | {"code": "NOT_APPROVED"}
DONE = {"code": "SUCCESS", "details": {"id": "1"}, "message": "record updated", "status": "success"}
PERMANENT = {"code": "INVALID_DATA", "details": {}, "message": "no", "status": "error"}


def lock(**changes):
    return LOCK | changes


def without(key):
    return {name: value for name, value in LOCK.items() if name != key}


def several(*errors, **changes):
    return {
        "code": "MULTIPLE_OR_MULTI_ERRORS",
        "status": "error",
        "message": "",
        "details": {"errors": errors},
    } | changes


WAITS, EXPLAINS, PASSES = "waits", "explains", "passes"

TABLE = [
    # Where items sit.
    ("a bare item", LOCK, WAITS),
    ("an item in data", {"data": [LOCK]}, WAITS),
    ("an object under data", {"data": LOCK}, WAITS),
    ("an item in share", {"share": [LOCK]}, WAITS),
    ("an object under share", {"share": LOCK}, WAITS),
    ("an item in tags", {"tags": [LOCK]}, WAITS),
    ("an item of the lock configuration", {"record_locking_configurations": [LOCK]}, WAITS),
    ("an item beside counters and info", {"locked_count": "1", "info": {"x": 1}, "data": [LOCK]}, WAITS),
    ("a bare item with rows beside it", LOCK | {"data": [{"Company": "x"}]}, WAITS),
    ("a top-level list", [LOCK], PASSES),
    ("a list in a list", {"data": [[LOCK]]}, PASSES),
    ("an unknown container", {"items": [LOCK]}, PASSES),
    ("an error object", {"error": LOCK}, PASSES),
    ("info", {"info": LOCK}, PASSES),
    ("info beside a success", {"data": [DONE], "info": [LOCK]}, PASSES),
    ("tags that bear the name", {"tags": [{"name": "RECORD_LOCKED", "id": "1"}]}, PASSES),
    (
        "a row whose fields bear the names",
        {"data": [{"id": "1", "Code": "RECORD_LOCKED", "Status": "error"}]},
        PASSES,
    ),
    ("a row with an item in a field", {"data": [{"id": "1", "Subform": [LOCK]}]}, PASSES),
    ("a success with an item in its details", {"data": [DONE | {"details": LOCK}]}, PASSES),
    ("an empty list", {"data": []}, PASSES),
    ("an empty object", {"data": {}}, PASSES),
    ("nothing under data", {"data": None}, PASSES),
    ("text under data", {"data": "RECORD_LOCKED"}, PASSES),
    ("a number under data", {"data": 1}, PASSES),
    ("a list with text in it", {"data": [LOCK, "RECORD_LOCKED"]}, PASSES),
    ("a list with null in it", {"data": [LOCK, None]}, PASSES),
    ("a list with an empty object in it", {"data": [LOCK, {}]}, PASSES),
    ("a list with an item without status", {"data": [LOCK, without("status")]}, PASSES),
    ("text", "RECORD_LOCKED", PASSES),
    ("a number", 1, PASSES),
    ("null", None, PASSES),
    # The code.
    ("no code", without("code"), PASSES),
    ("the code in lower case", lock(code="record_locked"), PASSES),
    ("the code with a blank", lock(code="RECORD_LOCKED "), PASSES),
    ("the code in a longer one", lock(code="NOT_RECORD_LOCKED"), PASSES),
    ("another code with the same text", lock(code="LOCKED"), PASSES),
    ("a code that is a list", lock(code=["RECORD_LOCKED"]), PASSES),
    ("a code that is a number", lock(code=423), PASSES),
    ("a code that is null", lock(code=None), PASSES),
    ("the code in free text", lock(code="INVALID_DATA", message='{"code":"RECORD_LOCKED"}'), PASSES),
    (
        "a mass delete that says locked",
        lock(code="INVALID_DATA", message="Record locked or invalid permissions"),
        PASSES,
    ),
    # The status.
    ("no status", without("status"), PASSES),
    ("a success that bears the code", lock(status="success"), PASSES),
    ("the status in upper case", lock(status="ERROR"), PASSES),
    ("another status", lock(status="failure"), PASSES),
    ("a status that is a list", lock(status=["error"]), PASSES),
    ("a status that is an object", lock(status={"error": 1}), PASSES),
    ("a status that is true", lock(status=True), PASSES),
    # The action.
    ("the action of the record-locking feature", lock(details={"action": "record_locking"}), EXPLAINS),
    ("the action in another case", lock(details={"action": "Zia_Vision_Processing"}), EXPLAINS),
    ("the action with a blank", lock(details={"action": "zia_vision_processing "}), EXPLAINS),
    ("the action's beginning", lock(details={"action": "zia_vision"}), EXPLAINS),
    ("an empty action", lock(details={"action": ""}), EXPLAINS),
    ("an action that is null", lock(details={"action": None}), EXPLAINS),
    ("an action that is a list", lock(details={"action": ["zia_vision_processing"]}), EXPLAINS),
    ("an action that is an object", lock(details={"action": {"zia_vision_processing": 1}}), EXPLAINS),
    ("an action that is a number", lock(details={"action": 1}), EXPLAINS),
    ("no action", lock(details={"id": "1"}), EXPLAINS),
    ("no details", without("details"), EXPLAINS),
    ("details that are text", lock(details="zia_vision_processing"), EXPLAINS),
    ("details that are a list", lock(details=[DETAILS]), EXPLAINS),
    ("details that are null", lock(details=None), EXPLAINS),
    ("the item's own action", lock(details={}, action="zia_vision_processing"), EXPLAINS),
    ("the item's own action beside another", lock(action="update"), WAITS),
    # The other codes.
    ("not approved, with the action of a lock", REFUSAL, EXPLAINS),
    ("not reviewed", lock(code="NOT_REVIEWED"), EXPLAINS),
    # Several errors in one item.
    ("several, all locks", several(LOCK, LOCK), WAITS),
    ("several, in data", {"data": [several(LOCK)]}, WAITS),
    ("several, one permanent", several(LOCK, PERMANENT), EXPLAINS),
    ("several, one not approved", several(LOCK, REFUSAL), EXPLAINS),
    ("several, one locked by the feature", several(LOCK, lock(details={"action": "record_locking"})), EXPLAINS),
    ("several, one that is text", several(LOCK, "x"), EXPLAINS),
    ("several, one with a code that is a list", several(LOCK, {"code": ["RECORD_LOCKED"]}), EXPLAINS),
    ("several, none of ours", several(PERMANENT, PERMANENT), PASSES),
    ("several, none at all", several(), PASSES),
    ("several, applied", several(LOCK, status="success"), PASSES),
    ("several in several", several(several(LOCK)), PASSES),
    ("errors that are an object", several() | {"details": {"errors": LOCK}}, PASSES),
    ("errors of an item that does not announce any", PERMANENT | {"details": {"errors": [LOCK]}}, PASSES),
]


def verdict(envelope):
    if envelope is None or not envelope.guarded:
        return PASSES
    return WAITS if all(item.retryable(ACTIONS) for item in envelope.items if item.guarded) else EXPLAINS


@pytest.mark.parametrize(("body", "wanted"), [case[1:] for case in TABLE], ids=[case[0] for case in TABLE])
def test_only_an_exact_refusal_in_its_place_is_one(body, wanted):
    assert verdict(read_envelope(json.dumps(body).encode())) == wanted


def test_nothing_is_waited_for_where_no_action_is_configured():
    (item,) = read_envelope(json.dumps(LOCK).encode()).items
    assert item.guarded
    assert not item.retryable(())


@pytest.mark.parametrize(
    ("errors", "code", "action"),
    [
        ([LOCK, REFUSAL], "NOT_APPROVED", "zia_vision_processing"),
        ([PERMANENT, LOCK], "RECORD_LOCKED", "zia_vision_processing"),
        ([PERMANENT], "MULTIPLE_OR_MULTI_ERRORS", None),
    ],
)
def test_of_several_errors_the_one_that_needs_a_person_speaks(errors, code, action):
    (item,) = read_envelope(json.dumps(several(*errors)).encode()).items
    assert (item.code, item.action) == (code, action)


class TestTheRecordThatAnItemNames:
    @pytest.mark.parametrize(
        ("details", "wanted"),
        [
            ({"id": "42"}, "42"),
            ({"id": 111112000000075003}, "111112000000075003"),
            ({"record_id": "43"}, "43"),
            ({"id": "42", "record_id": "43"}, "42"),
            ({"id": ""}, None),
            ({"id": True}, None),
            ({"id": 4.2}, None),
            ({"id": ["42"]}, None),
            ({"duplicate_record": {"id": "9"}, "Modified_By": {"id": "8"}, "owner": {"id": "7"}}, None),
            ({"job_id": "6", "tags": [{"id": "5"}], "Contacts": {"id": "4"}}, None),
            ("42", None),
        ],
    )
    def test_is_that_of_its_details_and_no_other(self, details, wanted):
        (item,) = read_envelope(json.dumps({"data": [lock(details=details)]}).encode()).items
        assert item.record_id == wanted

    def test_is_not_the_duplicate_that_was_found(self):
        body = {"data": [lock(code="DUPLICATE_DATA", details={"id": "9"})]}
        (item,) = read_envelope(json.dumps(body).encode()).items
        assert item.record_id is None

    def test_reads_text_and_whole_numbers_as_ids(self):
        assert [identifier(value) for value in ("1", 1, "", True, None, 1.0, [])] == ["1", "1"] + [None] * 5


class TestBytes:
    def test_an_item_keeps_every_byte_that_crm_wrote(self):
        first = b'{ "code":"RECORD_LOCKED",\t"status":"error", "details":{"n":1.50e+2,"n":"\\u00e9"} }'
        body = b'\n{ "info" : 1 , "data" : [ ' + first + b' ,{"code":"SUCCESS","status":"success"}] } \n'
        envelope = read_envelope(body)
        assert envelope.items[0].raw == first
        assert (envelope.key, envelope.listed, envelope.bare) == ("data", True, False)
        assert bytes(envelope.members["info"]) == b"1"

    def test_a_bare_item_is_the_whole_body(self):
        body = json.dumps(LOCK).encode()
        envelope = read_envelope(body)
        assert (envelope.items[0].raw, envelope.kind, envelope.bare) == (body, "top", True)

    def test_of_a_key_that_stands_twice_the_last_one_counts_as_everywhere(self):
        body = b'{"code":"RECORD_LOCKED","code":"SUCCESS","status":"error","status":"success"}'
        (item,) = read_envelope(body).items
        assert (item.code, item.succeeded) == (json.loads(body)["code"], True)

    def test_a_reworded_item_means_the_same(self):
        (item,) = read_envelope(json.dumps(LOCK).encode()).items
        other = item.rewritten(b"{}")
        assert (other.raw, other.code, other.record_id) == (b"{}", item.code, item.record_id)


def composite(*subs):
    return json.dumps({"__composite_requests": subs}).encode()


def ran(status, body):
    return {"code": "SUCCESS", "status": "success", "details": {"response": {"status_code": status, "body": body}}}


class TestCompositeAnswers:
    def test_items_sit_in_the_answers_of_the_sub_requests(self):
        envelope = read_envelope(
            composite(ran(200, {"data": [DONE]}), ran(400, {"data": [LOCK]}), ran(400, REFUSAL))
        )
        assert [(item.sub, item.code) for item in envelope.items] == [
            (0, "SUCCESS"),
            (1, "RECORD_LOCKED"),
            (2, "NOT_APPROVED"),
        ]
        assert (envelope.kind, envelope.bare) == ("composite", False)

    def test_the_rows_of_a_successful_read_are_no_items_however_they_look(self):
        body = composite(ran(200, {"data": [LOCK]}), ran(200, {"data": [LOCK]}))
        assert [item.sub for item in read_envelope(body, reads={0}).items] == [1]
        assert read_envelope(body, reads={0, 1}) is None

    def test_a_refused_read_is_one(self):
        (item,) = read_envelope(composite(ran(400, LOCK)), reads={0}).items
        assert item.retryable(ACTIONS)

    @pytest.mark.parametrize("status", ["200", None, [200]])
    def test_a_read_of_unknown_status_is_not_taken_for_a_success(self, status):
        assert read_envelope(composite(ran(status, LOCK)), reads={0}).guarded

    def test_a_sub_request_that_never_ran_speaks_for_itself(self):
        (item,) = read_envelope(composite(PERMANENT)).items
        assert (item.sub, item.code) == (0, "INVALID_DATA")

    @pytest.mark.parametrize(
        "sub",
        [
            None,
            1,
            "x",
            [],
            {},
            {"code": "SUCCESS"},
            ran(200, None),
            ran(200, "text"),
            ran(200, [LOCK]),
            ran(200, {}),
        ],
        ids=repr,
    )
    def test_anything_else_is_no_item(self, sub):
        assert read_envelope(composite(sub)) is None

    def test_an_answer_without_a_body_is_no_item(self):
        sub = ran(204, None)
        del sub["details"]["response"]["body"]
        assert read_envelope(composite(sub)) is None

    def test_a_composite_answer_inside_one_is_not_followed(self):
        assert read_envelope(composite(ran(200, json.loads(composite(ran(400, LOCK)))))) is None

    @pytest.mark.parametrize("subs", [None, 1, "x", {}, []])
    def test_the_list_has_to_be_one(self, subs):
        assert read_envelope(json.dumps({"__composite_requests": subs, "data": [LOCK]}).encode()) is None
