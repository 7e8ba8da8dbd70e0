"""`crm-guard explain`."""

import json

import pytest

LEAD = "111112000000075002"


def item(code="NOT_APPROVED", *, status="error", message="", **details):
    return {"code": code, "status": status, "message": message, "details": details}


LOCKED = item("RECORD_LOCKED", id=LEAD, action="zia_vision_processing")
WRITTEN = item("SUCCESS", status="success", id="111112000000075001")


def test_each_record_gets_its_verdict_and_hint(crm_guard_command, answer_file):
    answer = {"data": [WRITTEN, LOCKED, item(id="3"), item("INVALID_DATA", id="4"), item("RECORD_LOCKED", id="5")]}
    ran = crm_guard_command("explain", answer_file(answer))
    assert ran.status == 0
    places = [ran.out.index(name) for name in ("111112000000075001", LEAD, " 3  ", " 4  ", " 5  ")]
    assert places == sorted(places)
    assert "locked by a transient lock" in ran.out
    assert "waits for a person: zia_rejected or" in ran.out
    assert "Zia is checking an image" in ran.out
    assert "guessed" in ran.out


def test_the_json_document_has_one_outcome_per_record(crm_guard_command, answer_file):
    found = crm_guard_command("explain", "--json", answer_file({"data": [WRITTEN, LOCKED]})).json()
    assert found["call"] == {"method": "PUT", "path": "/crm/v8/{module}", "guessed": True}
    assert (found["records"], found["guarded"]) == (2, 1)
    assert [outcome["verdict"] for outcome in found["outcomes"]] == ["written", "wait"]
    assert found["outcomes"][1]["record_id"] == LEAD
    assert found["outcomes"][1]["retryable"] is True


@pytest.mark.parametrize(
    ("state", "verdict", "case"),
    [
        ("zia_vision_rejected", "person", "zia_rejected"),
        ("zia_vision_pending", "person", "zia_record_approval"),
        ("approval_process_pending", "person", "approval_process"),
        ("zia_vision_validation", "wait", None),
    ],
)
def test_a_known_state_settles_the_case_of_each_unapproved_record(crm_guard_command, state, verdict, case):
    answer = json.dumps({"data": [item(id=LEAD), item(), WRITTEN]})
    outcomes = crm_guard_command("explain", "-", "--json", "--state", state, stdin=answer).json()["outcomes"]
    assert [(outcome["verdict"], outcome["case"]) for outcome in outcomes[:2]] == [(verdict, case)] * 2
    assert [outcome["approval_state"] for outcome in outcomes] == [state, state, None]
    assert state in crm_guard_command("explain", "-", "--state", state, stdin=answer).out


@pytest.mark.parametrize(
    ("answer", "method", "path"),
    [
        (item(message="cannot get the record image that is not approved yet"), "GET", "{module}/{id}/photo"),
        (item(message="cannot upload the record image that is not approved yet"), "POST", "{module}/{id}/photo"),
        (item(message="cannot delete the record image that is not approved yet"), "DELETE", "{module}/{id}/photo"),
        ({"data": [item(message="cannot delete record that is not approved yet")]}, "DELETE", "{module}"),
        ({"data": [item(message="cannot convert record")]}, "POST", "Leads/{id}/actions/convert"),
        ({"share": [item()]}, "POST", "{module}/{id}/actions/share"),
        (item(message="anything"), "PUT", "{module}"),
        ([item(), LOCKED], "PUT", "{module}"),
    ],
)
def test_the_call_is_guessed_from_the_answer(crm_guard_command, answer, method, path):
    found = crm_guard_command("explain", "-", "--json", stdin=json.dumps(answer)).json()
    assert found["call"] == {"method": method, "path": f"/crm/v8/{path}", "guessed": True}
    assert found["outcomes"][0]["record_id"] is None


@pytest.mark.parametrize(
    ("path", "method", "shown"),
    [
        (f"https://www.zohoapis.eu/crm/v7/Leads/{LEAD}/photo", "GET", f"/crm/v7/Leads/{LEAD}/photo"),
        (f"/crm/v8/Leads/{LEAD}/actions/convert", "POST", f"/crm/v8/Leads/{LEAD}/actions/convert"),
        (f"Leads/{LEAD}", "PUT", f"/crm/v8/Leads/{LEAD}"),
        (f"/crm/org7/v8/Leads?ids={LEAD}", "DELETE", f"/crm/v8/Leads?ids={LEAD}"),
    ],
)
def test_a_path_names_record_and_kind_of_call(crm_guard_command, path, method, shown):
    found = crm_guard_command("explain", "-", "--json", "--path", path, stdin=json.dumps({"data": [item()]})).json()
    assert found["call"] == {"method": method, "path": shown, "guessed": True}
    assert found["outcomes"][0]["record_id"] == LEAD


def test_method_and_path_together_are_no_guess(crm_guard_command):
    arguments = ("--method", "delete", "--path", f"/crm/v8/Contacts/{LEAD}")
    ran = crm_guard_command(
        "explain", "-", *arguments, stdin=json.dumps(item("RECORD_LOCKED", action="record_locking"))
    )
    assert f"GET /crm/v8/Contacts/{LEAD}/Locking_Information__s" in " ".join(ran.out.split())
    assert "guessed" not in ran.out


def test_the_request_names_records_by_position(crm_guard_command, tmp_path):
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"data": [{"id": "71"}, {"id": "72"}]}))
    answer = json.dumps({"data": [item("RECORD_LOCKED", json_path="$.data[1].id"), item(json_path="$.data[0].id")]})
    found = crm_guard_command("explain", "-", "--json", "--request", str(request), stdin=answer).json()
    assert [outcome["record_id"] for outcome in found["outcomes"]] == ["72", "71"]


def test_a_whole_response_may_be_pasted(crm_guard_command):
    head = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\n\r\n"
    found = crm_guard_command("explain", "-", "--json", stdin=head + json.dumps(LOCKED)).json()
    assert found["guarded"] == 1


def test_a_composite_answer_names_its_parts(crm_guard_command):
    sub = {"code": "SUCCESS", "status": "success", "details": {"response": {"status_code": 400, "body": LOCKED}}}
    found = crm_guard_command("explain", "-", "--json", stdin=json.dumps({"__composite_requests": [sub]})).json()
    assert found["call"]["path"] == "/crm/v8/__composite_requests"
    assert found["outcomes"][0]["record_id"] == LEAD


def test_the_reading_parts_of_a_composite_request_are_no_verdicts(crm_guard_command, tmp_path):
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"__composite_requests": [{"method": "GET", "uri": "/crm/v8/Leads"}]}))
    response = {"status_code": 200, "body": {"data": [LOCKED]}}
    sub = {"code": "SUCCESS", "status": "success", "details": {"response": response}}
    answer = json.dumps({"__composite_requests": [sub]})
    found = crm_guard_command("explain", "-", "--json", "--request", str(request), stdin=answer).json()
    assert found["outcomes"] == []


def test_windows_files_and_byte_order_marks_are_read(crm_guard_command):
    for encoding in ("utf-8-sig", "utf-16"):
        assert crm_guard_command("explain", "-", "--json", stdin=json.dumps(LOCKED).encode(encoding)).json()[
            "guarded"
        ]


@pytest.mark.parametrize("answer", [{"data": [WRITTEN]}, {"users": []}, [], "RECORD_LOCKED", None])
def test_nothing_guarded_says_so_and_ends_with_0(crm_guard_command, answer):
    ran = crm_guard_command("explain", "-", stdin=json.dumps(answer))
    assert ran.status == 0
    assert "Nothing is blocked" in ran.out
    assert crm_guard_command("explain", "-", "--json", stdin=json.dumps(answer)).json()["guarded"] == 0


def test_the_rows_of_a_read_are_no_verdicts(crm_guard_command):
    arguments = ("--method", "GET", "--path", "/crm/v8/Leads", "--status", "200")
    found = crm_guard_command("explain", "-", "--json", *arguments, stdin=json.dumps({"data": [item()]})).json()
    assert found["outcomes"] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "empty"), ("<html>", "HTML"), ('{"code": ', "not JSON"), (b"\xff{", "UTF-8"), ("[" * 90000, "")],
)
def test_unreadable_input_ends_with_1_and_one_line(crm_guard_command, text, said):
    ran = crm_guard_command("explain", "-", stdin=text)
    assert (ran.status, ran.out) == (1, "")
    assert said in ran.err
    assert ran.err.count("\n") == 1


def test_a_file_that_is_not_there_ends_with_1(crm_guard_command, tmp_path):
    ran = crm_guard_command("explain", str(tmp_path / "none.json"))
    assert ran.status == 1
    assert "none.json cannot be read" in ran.err


def test_pasted_text_cannot_steer_the_terminal(crm_guard_command):
    hostile = item("RECORD_LOCKED", id="7\x1b[2J", action="\x1b]0;pwned\x07", message="\x1b[31m")
    ran = crm_guard_command("explain", "-", "--path", "Leads/\x1b[31m", stdin=json.dumps({"data": [hostile]}))
    assert ran.status == 0
    assert "\x1b" not in ran.out
    assert "\x07" not in ran.out


class TestACallThatFailedAsAWhole:
    ROWS = json.dumps({"data": [{"id": str(number)} for number in range(100)]})
    TOKEN = item("INVALID_TOKEN", message="invalid oauth token")

    @pytest.fixture
    def rows(self, tmp_path):
        (tmp_path / "rows.json").write_text(self.ROWS)
        return str(tmp_path / "rows.json")

    @pytest.mark.parametrize(
        ("status", "verdict", "fate"),
        [("401", "failed", "nothing was applied"), ("502", "uncertain", "it is not known what was applied")],
    )
    def test_is_told_for_each_record_that_the_request_names(self, crm_guard_command, rows, status, verdict, fate):
        options = ("--method", "PUT", "--path", "/crm/v8/Leads", "--status", status, "--request", rows)
        found = crm_guard_command("explain", "-", "--json", *options, stdin=json.dumps(self.TOKEN)).json()
        assert [outcome["record_id"] for outcome in found["outcomes"]] == [str(number) for number in range(100)]
        assert {outcome["verdict"] for outcome in found["outcomes"]} == {verdict}
        assert found["error"] == {
            "status": int(status),
            "code": "INVALID_TOKEN",
            "message": "invalid oauth token",
            "retry_after": None,
            "refused": verdict == "failed",
        }
        ran = crm_guard_command("explain", "-", *options, stdin=json.dumps(self.TOKEN))
        assert f"The call failed as a whole ({status} INVALID_TOKEN): {fate}." in " ".join(ran.out.split())

    @pytest.mark.parametrize(("code", "refused"), [("INVALID_TOKEN", True), ("INTERNAL_ERROR", False)])
    def test_is_not_given_a_status_that_nobody_told(self, crm_guard_command, rows, code, refused):
        options = ("--method", "PUT", "--path", "/crm/v8/Leads", "--request", rows)
        found = crm_guard_command("explain", "-", "--json", *options, stdin=json.dumps(item(code))).json()
        assert (found["error"]["status"], found["error"]["refused"]) == (None, refused)
        assert {outcome["verdict"] for outcome in found["outcomes"]} == {"failed" if refused else "uncertain"}
        ran = crm_guard_command("explain", "-", *options, stdin=json.dumps(item(code)))
        assert f"The call failed as a whole ({code}):" in ran.out

    def test_without_a_body_is_read_from_its_head(self, crm_guard_command, rows):
        options = ("--method", "DELETE", "--path", "/crm/v8/Leads?ids=1,2")
        found = crm_guard_command("explain", "-", "--json", *options, stdin="HTTP/1.1 204 No Content").json()
        assert [outcome["verdict"] for outcome in found["outcomes"]] == ["uncertain"] * 2

    def test_has_no_outcome_where_the_request_is_not_known(self, crm_guard_command):
        found = crm_guard_command("explain", "-", "--json", stdin=json.dumps(self.TOKEN)).json()
        assert (found["outcomes"], found["error"]["code"]) == ([], "INVALID_TOKEN")

    def test_is_read_from_what_curl_prints(self, crm_guard_command, rows):
        head = "HTTP/1.1 429 \r\nRetry-After: 30\r\nContent-Type: application/json\r\n\r\n"
        pasted = head + json.dumps(item("TOO_MANY_REQUESTS"))
        options = ("--path", "/crm/v8/Leads", "--request", rows)
        found = crm_guard_command("explain", "-", "--json", *options, stdin=pasted).json()
        assert (found["error"]["status"], found["error"]["retry_after"], found["records"]) == (429, 30.0, 100)

    @pytest.mark.parametrize("answer", [{"data": [WRITTEN]}, {"data": [LOCKED]}, {"users": []}])
    def test_is_not_said_of_other_answers(self, crm_guard_command, answer):
        assert crm_guard_command("explain", "-", "--json", stdin=json.dumps(answer)).json()["error"] is None
