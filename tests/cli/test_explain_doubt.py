"""`crm-guard explain` names a record, a cause or "nothing" only where the text says it without doubt."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from crm_guard.cli.explain import Explanation, Question, explain
from crm_guard.cli.explain.pasted import Facts
from crm_guard.cli.explain.show import understood
from crm_guard.cli.explain.values import Budget
from crm_guard.cli.plain import CommandError

if TYPE_CHECKING:
    from pathlib import Path

ZIA = "zia_vision_processing"
LOCK = {"code": "RECORD_LOCKED", "details": {"id": "1", "action": ZIA}, "message": "m", "status": "error"}
SUCCESS = {"code": "SUCCESS", "details": {"id": "9"}, "message": "m", "status": "success"}
D = json.dumps({"data": [LOCK]})


def read(text: str) -> tuple[Explanation, ...]:
    return explain(Question(answer=text))


def named(text: str) -> list[tuple[str | None, str, str | None]]:
    """Return record, code and action of all that is read from a text."""
    return [(each.record_id, each.code, each.action) for one in read(text) for each in one.outcomes]


class TestWhatBelongsToACodeInOtherText:
    @pytest.mark.parametrize(
        "text",
        [
            "ERROR update of Lead 11 failed: RECORD_LOCKED\nINFO updated id=22 ok",
            "ERROR update of Lead 11 failed: RECORD_LOCKED\n\nid=22",
            "INFO id=22\nERROR update of Lead 11 failed: RECORD_LOCKED",
            "id=22 was fine, 11 RECORD_LOCKED",
            "RECORD_LOCKED; id=22",
            "RECORD_LOCKED, id=22 ok",
            "RECORD_LOCKED id=21 id=22",
            "{data=[{code=RECORD_LOCKED, details={}, status=error}, {code=SUCCESS, details={id=222}}]}",
            "{data=[{details={id=222}, code=SUCCESS}, {details={}, code=RECORD_LOCKED, status=error}]}",
            "map[data:[map[code:RECORD_LOCKED details:map[] status:error] map[code:SUCCESS details:map[id:22]]]]",
            "- code: RECORD_LOCKED\n  details: {}\n- code: SUCCESS\n  details: {id: 22}\n",
            "- code: SUCCESS\n  id: 22\n- message: m\n  code: RECORD_LOCKED\n- id: 23\n",
            "code: RECORD_LOCKED\nmessage: m\n\nid: 22\n",
            "a:\n  code: RECORD_LOCKED\nid: 22\n",
            "id: 22\na:\n  code: RECORD_LOCKED\n",
            "Code: RECORD_LOCKED\nDetails\nMessage: x\nStatus: success\nCode: SUCCESS\nDetails\nid : 22",
            "Code: SUCCESS\nid : 22\nStatus: error\nCode: RECORD_LOCKED\nMessage: m",
            "job action=sync_leads failed: RECORD_LOCKED",
            "RECORD_LOCKED (some_function)",
            "RECORD_LOCKED (zia_rejected)",
        ],
    )
    def test_is_nothing_that_stands_elsewhere(self, text: str) -> None:
        assert named(text) == [(None, "RECORD_LOCKED", None)]

    @pytest.mark.parametrize(
        "text",
        [
            f"record_id=11 code=RECORD_LOCKED action={ZIA}\nrecord_id=22 code=RECORD_LOCKED action=record_locking",
            f"RECORD_LOCKED ({ZIA}) id=11\nid=22: RECORD_LOCKED (record_locking)",
            f"RECORD_LOCKED id=11 action={ZIA}\n[RECORD_LOCKED] action=record_locking id=22",
            (
                f"[{{details={{id=11, action={ZIA}}}, code=RECORD_LOCKED}}, "
                "{code=RECORD_LOCKED, details={id=22, action=record_locking}}]"
            ),
            (
                f"[map[code:RECORD_LOCKED details:map[id:11 action:{ZIA}]] "
                "map[code:RECORD_LOCKED details:map[action:record_locking id:22]]]"
            ),
            (
                f"- details:\n    id: 11\n    action: {ZIA}\n  code: RECORD_LOCKED\n"
                "- code: RECORD_LOCKED\n  details:\n    id: 22\n    action: record_locking\n"
            ),
            (
                f"Code: RECORD_LOCKED\nDetails\nid : 11\naction : {ZIA}\nMessage: x\n"
                "Status: error\nCode: RECORD_LOCKED\nDetails\nid : 22\naction : record_locking"
            ),
        ],
    )
    def test_stands_before_or_behind_it_in_its_own_unit(self, text: str) -> None:
        assert named(text) == [("11", "RECORD_LOCKED", ZIA), ("22", "RECORD_LOCKED", "record_locking")]

    def test_may_be_a_known_cause_in_parentheses(self) -> None:
        text = "".join(f"ERROR record {number}: RECORD_LOCKED ({ZIA})\n" for number in (11, 22, 33))
        (found,) = read(text)
        assert [(one.record_id, one.action, one.retryable) for one in found.outcomes] == [(None, ZIA, True)]
        assert found.pasted.notes == ("named 3 times",)
        (found,) = read(f"{text}ERROR RECORD_LOCKED\nlead 7: RECORD_LOCKED")
        assert found.pasted.notes[1:] == ("RECORD_LOCKED is named 2 more times, without record or cause",)
        (found,) = read("lead 7 NOT_APPROVED (zia_rejected)")
        assert [one.case for one in found.outcomes] == ["zia_rejected"]


LOOK_ALIKES = json.dumps({"data": [{"id": "1", **LOCK}], "info": {"page": 1}})
OPEN = "it is open whether a record is blocked"


class TestALogObject:
    @pytest.mark.parametrize(
        "key",
        [
            "responseBody",
            "response_body",
            "response_text",
            "zohoAnswer",
            "textPayload",
            "zoho-response",
            "errorMessage",
        ],
    )
    @pytest.mark.parametrize("beside", [{}, {"first": {"data": [SUCCESS]}}, {"rows": {"data": [{"id": "3"}]}}])
    def test_is_read_under_any_name_of_an_answer(self, key: str, beside: dict[str, object]) -> None:
        text = json.dumps({**beside, key: D})
        assert ("1", "RECORD_LOCKED", ZIA) in named(text)

    @pytest.mark.parametrize("key", ["requestBody", "request_body", "Request", "req", "config"])
    def test_holds_no_answer_in_what_was_sent(self, key: str) -> None:
        text = json.dumps({key: {"data": [LOCK]}, "responseBody": json.dumps({"data": [SUCCESS]})})
        with pytest.raises(CommandError, match=OPEN):
            read(text)
        text = json.dumps({key: {"data": [{"id": "1", "Last_Name": "x"}]}, "responseBody": D})
        assert named(text) == [("1", "RECORD_LOCKED", ZIA)]
        assert len(read(text)) == 1

    @pytest.mark.parametrize(
        "text",
        [
            json.dumps({"first": {"data": [SUCCESS]}, "unknown": D}),
            json.dumps({"rows": {"data": [{"id": "3"}]}, "unknown": D}),
            json.dumps({"data": [SUCCESS]}) + json.dumps({"unknown": D}),
            json.dumps({"Last_Name": "x", "Description": D}),
            json.dumps({"context": D}),
            json.dumps([{"Title": "NOT_APPROVED"}, {"Title": D}]),
            json.dumps(json.dumps({"Title": "NOT_APPROVED", "Description": D})),
            repr({"Title": "NOT_APPROVED", "Description": D}),
            json.dumps({"Email_Body": D}),
            json.dumps({"method": "GET", "status_code": 200, "unknown": LOOK_ALIKES}),
            json.dumps({"module": "Leads", "Title": "please find out what NOT_APPROVED means"}),
        ],
    )
    def test_that_names_a_code_elsewhere_is_neither_a_lock_nor_nothing(self, text: str) -> None:
        with pytest.raises(CommandError, match=OPEN):
            read(text)

    def test_that_names_a_code_in_two_reads_is_understood(self) -> None:
        rows = json.dumps({"data": [{"id": "1", "Note": "NOT_APPROVED"}], "info": {"page": 1}})
        path = "/crm/v8/Leads/search?word=NOT_APPROVED"
        for text in (f"{rows}\n{rows}", f"GET {path} 200 {rows}\nGET {path} 200 {rows}"):
            assert [one.pasted.rows for one in read(text)] == [True, True]

    def test_keeps_the_facts_of_the_call_for_a_read_under_any_name(self) -> None:
        entry = {"method": "GET", "url": "https://www.zohoapis.com/crm/v8/Tickets", "status_code": 200}
        (found,) = read(json.dumps({**entry, "response_body": LOOK_ALIKES}))
        assert (found.method, found.path, found.facts.status) == ("GET", "/crm/v8/Tickets", 200)
        assert (found.outcomes, found.guessed) == ((), False)

    @pytest.mark.parametrize(
        ("url", "told"),
        [
            ("https://www.zohoapis.com/crm/v8/Leads", ("POST", "/crm/v8/Leads", 400)),
            ("https://shop.example/orders", ("PUT", "/crm/v8/{module}", None)),
        ],
    )
    def test_of_google_tells_the_call_if_it_went_to_crm(self, url: str, told: tuple[object, ...]) -> None:
        call = {"requestMethod": "POST", "requestUrl": url, "status": 400}
        (found,) = read(json.dumps({"httpRequest": call, "textPayload": D}))
        assert (found.method, found.path, found.facts.status) == told
        assert found.guarded == 1

    def test_that_is_whole_leaves_the_text_behind_it_to_be_read(self) -> None:
        assert named(json.dumps({"Title": "NOT_APPROVED"}) + " RECORD_LOCKED id=4") == [
            ("4", "RECORD_LOCKED", None)
        ]


class TestAResponseWithItsHead:
    @pytest.mark.parametrize("kind", ["text/html", "application/octet-stream", "text/plain", "application/json"])
    def test_is_read_whatever_its_type(self, kind: str) -> None:
        (found,) = read(f"HTTP/1.1 400 Bad\r\nContent-Type: {kind}\r\n\r\n{D}")
        assert (found.guarded, found.facts.status) == (1, 400)

    def test_that_is_a_page_does_not_tell_the_status_of_what_follows(self) -> None:
        head = "HTTP/1.1 502 Bad\r\nContent-Type: text/html\r\n\r\n<html>x</html>\n"
        page, answer = read(f"{head}then I called again: {D}")
        assert (page.facts.status, page.guarded) == (502, 0)
        assert (answer.facts.status, answer.guarded, answer.outcomes[0].uncertain) == (None, 1, False)

    def test_of_plain_text_tells_the_status_of_what_it_holds(self) -> None:
        (found,) = read(f"HTTP/1.1 400 Bad\r\nContent-Type: text/plain\r\n\r\nError: {D}")
        assert (found.guarded, found.facts.status) == (1, 400)


def test_the_request_that_axios_prints_is_no_answer() -> None:
    text = (
        "AxiosError: Request failed with status code 400\n    at settle (axios.cjs:1966:12) {\n"
        '  config: { method: \'put\', data: \'{"data":[{"id":"1"}]}\', headers: [Object [AxiosHeaders]] },\n'
        f"  response: {{ status: 400, data: {json.dumps({'data': [LOCK]})} }}\n}}"
    )
    assert named(text) == [("1", "RECORD_LOCKED", ZIA)]
    assert len(read(text)) == 1


@pytest.mark.parametrize("sent", ['{"data":[{"Company":"x"}]}', '{"data":[{"id":"1"}]}'])
@pytest.mark.parametrize("after", ["", "\ncurl 'https://www.zohoapis.com'"])
def test_an_answer_below_the_call_of_curl_is_whole(sent: str, after: str) -> None:
    call = f"curl -X PUT 'https://www.zohoapis.com/crm/v8/Leads/1' -H 'A: b' -d '{sent}'\n"
    (found,) = read(call + json.dumps({"data": [SUCCESS]}) + after)
    assert (found.pasted.form, found.pasted.cut) == ("JSON", False)


class TestATokenOfZoho:
    TOKEN = "1000.deadbeefdeadbeef.cafe"

    @pytest.mark.parametrize("query", [f"ids={TOKEN}", f"cvid={TOKEN}", f"ids=1,{TOKEN}", "ids=s3cret"])
    def test_is_not_shown_from_a_path(self, query: str) -> None:
        for path in (f"/crm/v8/Leads?{query}", f"/crm/v8/Leads/{self.TOKEN}"):
            known = explain(Question(answer=D, method="PUT", path=path))
            for (found,) in (read(f"PUT {path} 400 {D}"), known):
                assert "cafe" not in found.path + understood(found)
                assert "s3cret" not in found.path + understood(found)

    def test_is_not_shown_from_a_message(self) -> None:
        (found,) = read(D.replace('"m"', f'"token {self.TOKEN} of m"'))
        assert found.outcomes[0].message == "token 1000.*** of m"

    def test_takes_no_record_away(self) -> None:
        (found,) = read(f"DELETE /crm/v8/Leads?ids=1,2%2C3&wf_trigger=x 400 {D}")
        assert found.path == "/crm/v8/Leads?ids=1,2%2C3"


def test_a_code_in_a_sentence_is_not_explained_for_a_call_that_nobody_named(crm_guard_command: Any) -> None:
    ran = crm_guard_command("explain", stdin="There was no RECORD_LOCKED today")
    assert "It can mean:" in ran.out
    assert "PUT" not in ran.out.split("It can mean:")[0]


def test_a_record_that_was_refused_with_another_one_is_said_to_be(crm_guard_command: Any, tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps({"data": [{"id": "1"}, {"id": "5"}]}))
    call = ("--method", "PUT", "--path", "/crm/v8/Leads", "--status", "400")
    arguments = ("explain", "-", *call, "--request", str(tmp_path / "rows.json"))
    ran = crm_guard_command(*arguments, stdin=json.dumps(LOCK))
    assert "5  not written: refused with another record" in ran.out
    assert "refused for a reason" not in ran.out
    ran = crm_guard_command(*arguments, stdin="{}")
    assert "with another record" not in ran.out


def test_reading_stops_where_there_is_too_much_to_explain(monkeypatch: pytest.MonkeyPatch) -> None:
    read_values: list[int] = []
    value_at = Budget.value_at

    def counted(budget: Budget, text: str, start: int) -> Any:
        read_values.append(start)
        return value_at(budget, text, start)

    looked_up: list[str] = []
    monkeypatch.setattr(Budget, "value_at", counted)
    monkeypatch.setattr("crm_guard.cli.explain.mentions.facts_in", lambda text: looked_up.append(text) or Facts())
    for text in (
        json.dumps(SUCCESS) * 3000,
        "".join(f"RECORD_LOCKED id={number}\n" for number in range(3000)),
        "1 record (7) RECORD_LOCKED x, attempt " * 3000,
    ):
        with pytest.raises(CommandError, match="more than 1000 answers"):
            read(text)
    assert (len(read_values), len(looked_up)) == (1001, 2002)
