"""`crm-guard explain`."""

import io
import json
import traceback

import pytest
import requests
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException

import crm_guard

LEAD = "111112000000075002"


def item(code="NOT_APPROVED", *, status="error", message="", **details):
    return {"code": code, "status": status, "message": message, "details": details}


LOCKED = item("RECORD_LOCKED", id=LEAD, action="zia_vision_processing")
WRITTEN = item("SUCCESS", status="success", id="111112000000075001")


def answer_of(ran):
    """Return what the document says of its only answer."""
    (found,) = ran.json()["answers"]
    return found


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
    found = answer_of(crm_guard_command("explain", "--json", answer_file({"data": [WRITTEN, LOCKED]})))
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
    outcomes = answer_of(crm_guard_command("explain", "-", "--json", "--state", state, stdin=answer))["outcomes"]
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
    found = answer_of(crm_guard_command("explain", "-", "--json", stdin=json.dumps(answer)))
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
    found = answer_of(
        crm_guard_command("explain", "-", "--json", "--path", path, stdin=json.dumps({"data": [item()]}))
    )
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
    found = answer_of(crm_guard_command("explain", "-", "--json", "--request", str(request), stdin=answer))
    assert [outcome["record_id"] for outcome in found["outcomes"]] == ["72", "71"]


def test_a_whole_response_may_be_pasted(crm_guard_command):
    head = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\n\r\n"
    found = answer_of(crm_guard_command("explain", "-", "--json", stdin=head + json.dumps(LOCKED)))
    assert found["guarded"] == 1


def test_a_composite_answer_names_its_parts(crm_guard_command):
    sub = {"code": "SUCCESS", "status": "success", "details": {"response": {"status_code": 400, "body": LOCKED}}}
    found = answer_of(
        crm_guard_command("explain", "-", "--json", stdin=json.dumps({"__composite_requests": [sub]}))
    )
    assert found["call"]["path"] == "/crm/v8/__composite_requests"
    assert found["outcomes"][0]["record_id"] == LEAD


def test_the_reading_parts_of_a_composite_request_are_no_verdicts(crm_guard_command, tmp_path):
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"__composite_requests": [{"method": "GET", "uri": "/crm/v8/Leads"}]}))
    response = {"status_code": 200, "body": {"data": [LOCKED]}}
    sub = {"code": "SUCCESS", "status": "success", "details": {"response": response}}
    answer = json.dumps({"__composite_requests": [sub]})
    found = answer_of(crm_guard_command("explain", "-", "--json", "--request", str(request), stdin=answer))
    assert found["outcomes"] == []


def test_windows_files_and_byte_order_marks_are_read(crm_guard_command):
    for encoding in ("utf-8-sig", "utf-16"):
        assert answer_of(crm_guard_command("explain", "-", "--json", stdin=json.dumps(LOCKED).encode(encoding)))[
            "guarded"
        ]


@pytest.mark.parametrize("answer", [{"data": [WRITTEN]}, {"users": []}, {"variables": [WRITTEN]}])
def test_nothing_guarded_says_so_and_ends_with_0(crm_guard_command, answer):
    ran = crm_guard_command("explain", "-", stdin=json.dumps(answer))
    assert ran.status == 0
    assert "Nothing is blocked" in ran.out
    assert answer_of(crm_guard_command("explain", "-", "--json", stdin=json.dumps(answer)))["guarded"] == 0


@pytest.mark.parametrize("end", ['"}', '"}]}', '"}], "info": {"page": 1}}'])
def test_records_are_called_records_whatever_their_fields_say(crm_guard_command, end):
    text = '{"data": [{"id": "7", "Note": "RECORD_LOCKED, and {' + end
    ran = crm_guard_command("explain", stdin=text)
    assert ran.status == 0
    assert "it holds records" in ran.out


def test_the_rows_of_a_read_are_no_verdicts(crm_guard_command):
    arguments = ("--method", "GET", "--path", "/crm/v8/Leads", "--status", "200")
    found = answer_of(crm_guard_command("explain", "-", "--json", *arguments, stdin=json.dumps({"data": [item()]})))
    assert found["outcomes"] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("<html>busy</html>", "HTML"),
        ('{"code": ', "JSON without an answer"),
        ('{"hello": 1}', "JSON without an answer"),
        ("[1, 2]", "JSON without an answer"),
        ("[]", "JSON without an answer"),
        ("null", "text without an answer"),
        ("id,name\n1,Doe\n", "text without an answer"),
        ("We cannot update some of our leads.", "text without an answer"),
        ("Traceback (most recent call last):\nKeyError: 'id'\n", "text without an answer"),
        (b"\xff{", "UTF-8"),
        ("[" * 90000, "JSON without an answer"),
        ('{"data": [{"id": "7", "code": "RECORD_LOCKED", "status": "error"}]}', "--method"),
    ],
)
@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_empty_and_foreign_input_ends_with_2_and_one_line(crm_guard_command, text, said, options):
    ran = crm_guard_command("explain", *options, stdin=text)
    assert (ran.status, ran.out) == (2, "")
    assert said in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("name", ["none.json", "n" * 5000, "nul\0"])
def test_a_file_that_cannot_be_read_ends_with_2(crm_guard_command, tmp_path, name):
    ran = crm_guard_command("explain", f"{tmp_path}/{name}")
    assert (ran.status, ran.out) == (2, "")
    assert "cannot be read" in ran.err
    assert ran.err.count("\n") == 1


def test_an_answer_under_a_name_that_nobody_knows_is_found_and_a_field_is_not_searched(crm_guard_command):
    text = json.dumps({"wrapped": {"inside": {"data": [WRITTEN, LOCKED]}}})
    found = answer_of(crm_guard_command("explain", "--json", stdin=text))
    assert [one["verdict"] for one in found["outcomes"]] == ["written", "wait"]
    text = json.dumps({"data": [{"id": "1", "Note": json.dumps(LOCKED)}]})
    assert answer_of(crm_guard_command("explain", "--json", stdin=text))["guarded"] == 0


@pytest.mark.parametrize("request_body", [None, "{}"])
def test_a_guarded_code_that_is_not_understood_is_never_nothing(crm_guard_command, tmp_path, request_body):
    (tmp_path / "request.json").write_text(request_body or "")
    options = ("--request", str(tmp_path / "request.json")) if request_body else ()
    text = json.dumps(
        {"__composite_requests": [{"code": 1, "note": "RECORD_LOCKED"}], "code": "SUCCESS", "message": ""}
    )
    ran = crm_guard_command(
        "explain", "--status", "400", *options, stdin=text.replace("__composite_requests", "share")
    )
    assert (ran.status, ran.out) == (2, "")
    assert "could not be read" in ran.err


class TestWhereTheTextComesFrom:
    def test_a_pipe_needs_no_dash(self, crm_guard_command):
        piped = crm_guard_command("explain", stdin=json.dumps(LOCKED))
        assert piped.status == 0
        assert piped == crm_guard_command("explain", "-", stdin=json.dumps(LOCKED))

    def test_a_terminal_without_an_argument_is_told_how(self, crm_guard_command, monkeypatch):
        monkeypatch.setattr("crm_guard.cli.explain.source.sys", Terminal(json.dumps(LOCKED)))
        ran = crm_guard_command("explain")
        assert (ran.status, ran.out) == (2, "")
        assert "pipe a response" in ran.err
        assert ran.err.count("\n") == 1

    def test_a_terminal_is_read_if_asked_for_and_says_so(self, crm_guard_command, monkeypatch):
        terminal = Terminal(json.dumps(LOCKED))
        monkeypatch.setattr("crm_guard.cli.explain.source.sys", terminal)
        assert answer_of(crm_guard_command("explain", "-", "--json"))["guarded"] == 1
        assert "Ctrl-D" in terminal.stderr.getvalue()

    def test_without_any_standard_input_there_is_nothing_to_explain(self, crm_guard_command, monkeypatch):
        terminal = Terminal("")
        terminal.stdin = None
        monkeypatch.setattr("crm_guard.cli.explain.source.sys", terminal)
        assert crm_guard_command("explain").status == 2
        assert crm_guard_command("explain", "-").status == 2

    def test_more_than_the_limit_is_refused(self, crm_guard_command, monkeypatch):
        monkeypatch.setattr("crm_guard.cli.explain.source._MOST_BYTES", 100)
        ran = crm_guard_command("explain", stdin="x" * 101)
        assert (ran.status, ran.out) == (2, "")
        assert "larger than" in ran.err

    @pytest.mark.parametrize(
        "text", [json.dumps(LOCKED), "ERROR:\nRECORD_LOCKED action=zia_vision_processing id=7"]
    )
    def test_an_answer_in_place_of_a_name_is_read(self, crm_guard_command, text):
        assert answer_of(crm_guard_command("explain", text, "--json"))["guarded"] == 1


class Keyboard(io.TextIOWrapper):
    def isatty(self):
        return True


class Terminal:
    """Stands for `sys`, with a person at standard input."""

    def __init__(self, typed):
        self.stdin = Keyboard(io.BytesIO(typed.encode()))
        self.stderr = io.StringIO()


class TestACodeAlone:
    @pytest.mark.parametrize("given", ["argument", "pipe"])
    @pytest.mark.parametrize(
        ("code", "names"),
        [
            ("RECORD_LOCKED", ["zia_vision_processing", "record_locking", None]),
            ("NOT_APPROVED", ["zia_rejected", "zia_record_approval", "approval_process", "zia_vision_validation"]),
            ("NOT_REVIEWED", ["review_process"]),
            ("record_locked", ["zia_vision_processing", "record_locking", None]),
        ],
    )
    def test_lists_all_that_it_can_mean(self, crm_guard_command, code, names, given):
        options = {"stdin": f" {code}\n"} if given == "pipe" else {}
        arguments = ("explain", *([code] if given == "argument" else []))
        found = answer_of(crm_guard_command(*arguments, "--json", **options))
        assert [one["case"] or one["approval_state"] or one["action"] for one in found["meanings"]] == names
        assert all(one["hint"] for one in found["meanings"])
        assert found["understood"] == f"the code {code.upper()} alone"
        ran = crm_guard_command(*arguments, **options)
        assert "It can mean:" in ran.out
        assert all(name in ran.out for name in names if name)

    def test_is_explained_for_the_call(self, crm_guard_command):
        options = ("--method", "GET", "--path", "/crm/v8/Leads/7/photo")
        ran = crm_guard_command("explain", "NOT_APPROVED", *options)
        assert "zia_image_approval" in ran.out
        assert "repeat the download" in " ".join(ran.out.split())

    def test_means_one_thing_where_the_state_is_known(self, crm_guard_command):
        found = answer_of(crm_guard_command("explain", "NOT_APPROVED", "--json", "--state", "zia_vision_rejected"))
        assert [one["case"] for one in found["meanings"]] == ["zia_rejected"]


class TestSeveralAnswers:
    OTHER = item("NOT_APPROVED", id="3")

    @pytest.mark.parametrize("between", ["\n", "", " ", "\n2026-01-01 then: ", "\n```\n```json\n"])
    def test_give_several_explanations(self, crm_guard_command, between):
        text = between.join(json.dumps(one, indent=1) for one in (LOCKED, self.OTHER, {"data": [WRITTEN]}))
        found = crm_guard_command("explain", "--json", stdin=text).json()["answers"]
        assert [one["outcomes"][0]["code"] for one in found] == ["RECORD_LOCKED", "NOT_APPROVED", "SUCCESS"]
        out = crm_guard_command("explain", stdin=text).out
        assert [f"Answer {number} of 3" in out for number in (1, 2, 3)] == [True] * 3

    def test_may_each_have_another_form(self, crm_guard_command):
        text = (
            f"{json.dumps(LOCKED)}\n{self.OTHER!r}\n<p>"
            f"{json.dumps(item('RECORD_LOCKED', id='5')).replace(chr(34), '&quot;')}"
            "\nNotApprovedError: CRM refused record 8 with NOT_REVIEWED (review_process). Wait."
        )
        found = crm_guard_command("explain", "--json", stdin=text).json()["answers"]
        assert [one["outcomes"][0]["record_id"] for one in found] == [LEAD, "3", "5", "8"]

    def test_that_follow_heads_have_each_its_own_status(self, crm_guard_command):
        heads = [f"HTTP/2 {status} \r\ncontent-type: application/json\r\n\r\n" for status in (401, 429)]
        text = (
            heads[0] + json.dumps(item("INVALID_TOKEN")) + "\n" + heads[1] + json.dumps(item("TOO_MANY_REQUESTS"))
        )
        found = crm_guard_command("explain", "--json", stdin=text).json()["answers"]
        assert [one["error"]["status"] for one in found] == [401, 429]

    def test_are_at_most_1000(self, crm_guard_command):
        ran = crm_guard_command("explain", stdin=json.dumps(LOCKED) * 1001)
        assert (ran.status, ran.out) == (2, "")
        assert "more than 1000 answers" in ran.err


class TestTextsOfExceptions:
    @pytest.mark.parametrize("code", ["RECORD_LOCKED", "NOT_APPROVED"])
    def test_the_guards_own_error_means_what_its_answer_means(self, crm_guard_command, code):
        answer = [item(code, id="71", action="zia_vision_processing"), item(code, id="72")]
        answer = answer[:1] if code == "RECORD_LOCKED" else answer
        response = requests.Response()
        response.status_code = 400
        response._content = json.dumps({"data": answer}).encode()
        response.request = requests.Request("PUT", "https://www.zohoapis.com/crm/v8/Leads").prepare()
        response.headers["Content-Type"] = "application/json"
        response.url = response.request.url
        with pytest.raises(crm_guard.GuardError) as raised:
            crm_guard.get_report(response).raise_for_blocked()
        text = "Traceback (most recent call last):\n  ...\n" + "".join(
            traceback.format_exception_only(raised.value)
        )
        found = answer_of(crm_guard_command("explain", "--json", stdin=text))
        wanted = answer_of(crm_guard_command("explain", "--json", stdin=json.dumps({"data": answer})))
        same = ("record_id", "code", "verdict", "candidates", "hint")
        assert [[one[key] for key in same] for one in found["outcomes"]] == [
            [one[key] for key in same] for one in wanted["outcomes"]
        ]
        assert found["understood"] == "the text of a guard's exception"
        outcomes = repr(crm_guard.get_report(response))
        found = crm_guard_command("explain", "--json", stdin=outcomes).json()["answers"]
        assert [one["outcomes"][0]["record_id"] for one in found] == [
            one["record_id"] for one in wanted["outcomes"]
        ]

    def test_the_case_in_the_guards_error_is_kept(self, crm_guard_command):
        text = "CRM refused 2 of 9 records (71, 72, ...) with NOT_APPROVED (zia_rejected). Zia rejected"
        found = answer_of(crm_guard_command("explain", "--json", stdin=text))
        assert [(one["record_id"], one["case"]) for one in found["outcomes"]] == [
            ("71", "zia_rejected"),
            ("72", "zia_rejected"),
        ]

    def test_a_log_line_of_the_guard_tells_call_records_and_lock(self, crm_guard_command):
        text = (
            "WARNING:crm_guard:PUT /crm/v8/Leads: gave_up, 3 records (71, 72) RECORD_LOCKED zia_vision_processing, "
            "attempt 30, waited 118.0 s, reason timeout: Zia is checking"
        )
        found = answer_of(crm_guard_command("explain", "--json", stdin=text))
        assert found["call"] == {"method": "PUT", "path": "/crm/v8/Leads", "guessed": False}
        assert [(one["record_id"], one["retryable"]) for one in found["outcomes"]] == [("71", True), ("72", True)]
        assert "3 records, 2 of them named" in found["understood"]

    def test_zohos_sdk_prints_details_behind_its_message(self, crm_guard_command):
        text = str(SDKException("RECORD_LOCKED", "Cannot update", {"id": LEAD, "action": "zia_vision_processing"}))
        found = answer_of(crm_guard_command("explain", "--json", stdin=text))
        assert (found["outcomes"][0]["record_id"], found["outcomes"][0]["retryable"]) == (LEAD, True)
        text = str(SDKException("INVALID_TOKEN", "invalid oauth token"))
        found = answer_of(crm_guard_command("explain", "--json", stdin=text))
        assert found["error"]["code"] == "INVALID_TOKEN"

    def test_what_the_samples_of_zohos_sdk_print_is_read(self, crm_guard_command):
        text = (
            f"Status: error\nCode: RECORD_LOCKED\nDetails\nid : {LEAD}\naction : record_locking\nMessage: locked\n"
        )
        outcome = answer_of(crm_guard_command("explain", "--json", stdin=text))["outcomes"][0]
        assert (outcome["record_id"], outcome["action"]) == (LEAD, "record_locking")

    def test_an_error_of_requests_without_the_body_never_says_that_nothing_is_blocked(self, crm_guard_command):
        text = f"HTTPError: 400 Client Error: Bad Request for url: https://www.zohoapis.com/crm/v8/Leads/{LEAD}"
        ran = crm_guard_command("explain", stdin=text)
        assert ran.status == 0
        assert "Nothing is blocked" not in ran.out
        assert "add the body" in " ".join(ran.out.split())
        found = answer_of(crm_guard_command("explain", "--json", stdin=text))
        assert (found["error"]["status"], found["call"]["path"]) == (400, f"/crm/v8/Leads/{LEAD}")


class TestWhatWasUnderstood:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (json.dumps(LOCKED), "JSON"),
            (json.dumps(json.dumps(LOCKED)), "JSON in a string"),
            (
                f"2026-01-01 ERROR zoho: 400 PUT /crm/v8/Leads/1 {LOCKED!r}",
                "a Python repr in a line of text, status 400, PUT /crm/v8/Leads/1",
            ),
            (json.dumps({"data": [LOCKED]})[:-2], "JSON, cut off: only what was complete is explained"),
        ],
    )
    def test_is_the_first_line_and_in_the_document(self, crm_guard_command, text, said):
        assert crm_guard_command("explain", stdin=text).out.splitlines()[0] == f"Read as: {said}"
        assert answer_of(crm_guard_command("explain", "--json", stdin=text))["understood"] == said

    def test_a_lock_that_was_cut_off_is_not_called_unnamed_by_crm(self, crm_guard_command):
        text = json.dumps({"data": [WRITTEN, {"code": "RECORD_LOCKED", "details": {"id": LEAD, "action": "zia"}}]})
        ran = crm_guard_command("explain", stdin=text[: text.index('"zia')])
        assert "locked; by what is not in the text" in ran.out
        assert "zia_vision_processing" in ran.out
        found = answer_of(crm_guard_command("explain", "--json", stdin=text[: text.index('"zia')]))
        assert (found["cut"], found["outcomes"][1]["record_id"], len(found["meanings"])) == (True, LEAD, 3)

    def test_a_cut_answer_without_a_refusal_promises_nothing_about_the_rest(self, crm_guard_command):
        text = json.dumps({"data": [WRITTEN, LOCKED]})
        ran = crm_guard_command("explain", stdin=text[: text.index('{"code": "RECORD')])
        assert "the rest may tell of locks" in " ".join(ran.out.split())

    def test_no_credential_of_a_paste_is_printed(self, crm_guard_command):
        text = (
            "> PUT /crm/v8/Leads?auth=s3cret&ids=1 HTTP/1.1\n"
            "> Authorization: Zoho-oauthtoken s3cret\n> Cookie: s3cret\n>\n"
            "< HTTP/1.1 400 \n< Set-Cookie: s3cret\n<\n" + json.dumps(LOCKED)
        )
        for options in ((), ("--json",)):
            ran = crm_guard_command("explain", *options, stdin=text)
            assert ran.status == 0
            assert "/crm/v8/Leads?ids=1" in ran.out
            assert "s3cret" not in ran.out + ran.err

    def test_an_image_and_its_head_are_no_lock(self, crm_guard_command):
        text = b"HTTP/1.1 200 \r\nContent-Type: image/png\r\n\r\n\x89PNG\xff"
        assert answer_of(crm_guard_command("explain", "--json", stdin=text))["guarded"] == 0
        ran = crm_guard_command("explain", "--json", stdin=text + json.dumps(LOCKED).encode())
        assert (ran.status, ran.out) == (2, "")
        assert "it is open whether a record is blocked" in ran.err

    def test_a_page_of_a_proxy_after_a_head_is_a_call_that_failed(self, crm_guard_command):
        text = "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\n\r\n<html><b>502</b></html>"
        ran = crm_guard_command("explain", stdin=text)
        assert "it is not known what was applied" in ran.out
        assert "Nothing is blocked" not in ran.out


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
        found = answer_of(crm_guard_command("explain", "-", "--json", *options, stdin=json.dumps(self.TOKEN)))
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
        found = answer_of(crm_guard_command("explain", "-", "--json", *options, stdin=json.dumps(item(code))))
        assert (found["error"]["status"], found["error"]["refused"]) == (None, refused)
        assert {outcome["verdict"] for outcome in found["outcomes"]} == {"failed" if refused else "uncertain"}
        ran = crm_guard_command("explain", "-", *options, stdin=json.dumps(item(code)))
        assert f"The call failed as a whole ({code}):" in ran.out

    def test_without_a_body_is_read_from_its_head(self, crm_guard_command, rows):
        options = ("--method", "DELETE", "--path", "/crm/v8/Leads?ids=1,2")
        found = answer_of(crm_guard_command("explain", "-", "--json", *options, stdin="HTTP/1.1 204 No Content"))
        assert [outcome["verdict"] for outcome in found["outcomes"]] == ["uncertain"] * 2

    def test_has_no_outcome_where_the_request_is_not_known(self, crm_guard_command):
        found = answer_of(crm_guard_command("explain", "-", "--json", stdin=json.dumps(self.TOKEN)))
        assert (found["outcomes"], found["error"]["code"]) == ([], "INVALID_TOKEN")

    def test_is_read_from_what_curl_prints(self, crm_guard_command, rows):
        head = "HTTP/1.1 429 \r\nRetry-After: 30\r\nContent-Type: application/json\r\n\r\n"
        pasted = head + json.dumps(item("TOO_MANY_REQUESTS"))
        options = ("--path", "/crm/v8/Leads", "--request", rows)
        found = answer_of(crm_guard_command("explain", "-", "--json", *options, stdin=pasted))
        assert (found["error"]["status"], found["error"]["retry_after"], found["records"]) == (429, 30.0, 100)

    @pytest.mark.parametrize("answer", [{"data": [WRITTEN]}, {"data": [LOCKED]}, {"users": []}])
    def test_is_not_said_of_other_answers(self, crm_guard_command, answer):
        assert answer_of(crm_guard_command("explain", "-", "--json", stdin=json.dumps(answer)))["error"] is None
