"""The control API: what each path does to the CRM, what it shows, and what it says of bad input."""

from __future__ import annotations

import base64
import json
import re
import shlex
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import requests

from crm_guard.simulator import Engine, EngineOptions, FaultKind, Reply, Request, Simulator
from crm_guard.simulator import control as reference
from crm_guard.simulator.control import Control
from crm_guard.simulator.faults import PathText
from crm_guard.simulator.forms import FAULT, OPTIONS, RECORD, REFUSE_NEW
from crm_guard.simulator.resources import RESOURCES

if TYPE_CHECKING:
    from collections.abc import Callable

    from crm_guard.testing import ManualClock

    from .conftest import Send

    Ask = Callable[..., Reply]

ROWS = {"data": [{"Company": "Zylker"}]}


@pytest.fixture
def ask(engine: Engine) -> Ask:
    """Return a function that sends one request to the control API, in process."""
    control = Control(engine, lambda fresh: fresh.add_record("Leads", "7", locked_for=60))

    def ask_for(method: str, path: str, body: Any = None, *, raw: bytes | None = None, **headers: str) -> Reply:
        path, _, query = path.partition("?")
        content = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        whole = f"/__simulator{'/' * bool(path)}{path}"
        assert control.owns(whole)
        return control.handle(Request(method=method, path=whole, query=query, body=content, headers=headers))

    return ask_for


def put(send: Send, engine: Engine, lead: str) -> int:
    return send(engine, "PUT", f"Leads/{lead}", ROWS).status


def error(reply: Reply) -> tuple[int, Any, Any, str]:
    told = reply.json()["error"]
    return reply.status, told.get("field"), told.get("value"), told["message"]


class TestRecords:
    def test_are_added_with_all_that_python_takes(self, ask: Ask, engine: Engine) -> None:
        picture = base64.b64encode(b"\x89PNG").decode()
        body = {"module": "Leads", "id": 101, "state": "record_locking", "locked_for": 5, "refusals": 3,
                "then": "zia_vision_rejected", "fields": {"A": [1.5, None]}, "image": picture,
                "image_state": "zia_image_pending", "lock_source": "Automatic"}  # fmt: skip
        added = ask("POST", "records", body)
        record = engine.get(101)
        assert (added.status, record.state, record.locked_until) == (201, "record_locking", 105.0)
        assert (record.refusals_left, record.then, record.fields) == (3, "zia_vision_rejected", {"A": [1.5, None]})
        assert (record.image, record.image_pending, record.lock_source) == (b"\x89PNG", True, "Automatic")
        expected = {"id": "101", "seconds_left": 5, "refusals_left": 3, "image_bytes": 4, "writes": 0}
        assert expected.items() <= added.json().items()
        assert ask("GET", "records/101").json() == added.json()
        assert set(body) == set(RECORD)

    def test_get_an_id_if_they_have_none(self, ask: Ask, engine: Engine) -> None:
        assert ask("POST", "records", {"module": "Leads"}).json()["id"] in engine.records

    def test_are_locked_for_calls_or_seconds_and_unlocked(
        self, ask: Ask, engine: Engine, send: Send, clock: ManualClock
    ) -> None:
        engine.add_record("Leads", "1")
        assert ask("POST", "records/1/lock", {"refusals": 2, "then": "approved"}).json()["refusals_left"] == 2
        assert [put(send, engine, "1") for _ in range(3)] == [400, 400, 200]
        ask("POST", "records/1/lock", {"locked_for": 30})
        clock.advance(29.5)
        assert (put(send, engine, "1"), ask("GET", "records/1").json()["seconds_left"]) == (400, 0.5)
        assert ask("POST", "records/1/unlock").json()["state"] == "approved"
        assert put(send, engine, "1") == 200
        ask("POST", "records/1/lock")
        clock.advance(10_000)
        assert put(send, engine, "1") == 400
        ask("POST", "records/1/unlock", {"then": "zia_vision_rejected"})
        assert send(engine, "PUT", "Leads/1", ROWS).json()["code"] == "NOT_APPROVED"

    def test_take_any_state(self, ask: Ask, engine: Engine) -> None:
        engine.add_record("Leads", "1")
        ask(
            "POST",
            "records/1/state",
            {"state": "zia_vision_pending", "locked_for": 1, "then": "zia_vision_rejected"},
        )
        assert (engine.get("1").state, engine.get("1").then) == ("zia_vision_pending", "zia_vision_rejected")

    def test_are_listed_by_module_and_state(self, ask: Ask, engine: Engine, send: Send) -> None:
        for module, state in (("Leads", "approved"), ("Leads", "zia_vision_pending"), ("Deals", "approved")):
            engine.add_record(module, state=state)
        engine.add_record("Leads", "9")
        send(engine, "DELETE", "Leads/9")
        listed = [len(ask("GET", f"records{q}").json()["records"])
                  for q in ("", "?module=Leads", "?module=Leads&state=approved", "?module=Tasks")]  # fmt: skip
        assert listed == [3, 2, 1, 0]
        assert ask("GET", "records/9").json()["deleted"] is True

    def test_can_be_taken_away_as_if_they_had_never_been(self, ask: Ask, engine: Engine, send: Send) -> None:
        engine.add_record("Leads", "1")
        put(send, engine, "1")
        assert ask("DELETE", "records/1").json() == {"removed": "1"}
        assert (ask("GET", "records/1").status, engine.writes("1")) == (404, 0)
        assert ask("POST", "records", {"module": "Leads", "id": "1"}).status == 201

    def test_with_an_id_that_is_taken_are_refused_with_409(self, ask: Ask, engine: Engine) -> None:
        engine.add_record("Leads", "1")
        assert error(ask("POST", "records", {"module": "Leads", "id": "1"}))[:3] == (409, "id", "1")

    @pytest.mark.parametrize("call", ["GET {}", "DELETE {}", "POST {}/lock", "POST {}/unlock", "POST {}/state"])
    @pytest.mark.parametrize("record", ["404", "%20", "%22%00", ""])
    def test_that_are_unknown_are_answered_with_404(self, ask: Ask, call: str, record: str) -> None:
        method, _, path = call.format(f"records/{record}").partition(" ")
        if record or "/l" in call:
            reply = ask(method, path, {"state": "approved"} if path.endswith("state") else None)
            assert (reply.status, reply.json()["error"]["field"]) == (404, "id")

    def test_may_hold_what_is_no_json(self, ask: Ask, engine: Engine) -> None:
        """Python lets it in; what is told of it can be read all the same."""
        engine.add_record("Leads", fields={"A": float("nan"), "B": "\ud800"})
        (record,) = json.loads(ask("GET", "records").body, parse_constant=pytest.fail)["records"]
        assert record["fields"] == {"A": "NaN", "B": "\ud800"}


class TestNewRows:
    def test_are_refused_by_plan(self, ask: Ask, engine: Engine, send: Send) -> None:
        plan = ask("POST", "refuse_new", {"module": "Leads", "refusals": 1, "where": {"Company": "Zylker"}})
        assert (plan.status, plan.json()["where"]) == (201, {"Company": "Zylker"})
        rows = [{"Last_Name": "A", "Company": "Zylker"}, {"Last_Name": "B", "Company": "Other"}, {"Last_Name": "C"}]
        statuses = [send(engine, "POST", "Leads", {"data": [row]}).status for row in [*rows, rows[0]]]
        assert statuses == [400, 201, 201, 201]
        assert ask("GET", "refuse_new").json()["refuse_new"][0]["refused"] == 1

    def test_are_taken_again(self, ask: Ask, engine: Engine, send: Send) -> None:
        ask("POST", "refuse_new", {"module": "Leads", "locked_for": 10, "state": "zia_vision_pending"})
        assert ask("GET", "refuse_new").json()["refuse_new"][0]["seconds_left"] == 10
        refused = send(engine, "POST", "Leads", {"data": [{"Last_Name": "A"}]})
        assert (refused.status, refused.json()["code"]) == (400, "NOT_APPROVED")
        assert ask("DELETE", "refuse_new").json() == {"refuse_new": []}
        assert send(engine, "POST", "Leads", {"data": [{"Last_Name": "A"}]}).status == 201


class TestFaults:
    def test_hit_the_first_calls_that_match(self, ask: Ask, engine: Engine, send: Send) -> None:
        engine.add_record("Leads", "1")
        planned = ask("POST", "faults", {"kind": 500, "times": 2, "after": 1, "method": "put", "path": "/Leads/1$"})
        assert planned.json() == {"kind": "500", "after": 1, "times": 2, "method": "PUT", "path": "/Leads/1$",
                                  "applied": False, "delivered": 0}  # fmt: skip
        send(engine, "GET", "Leads/1")
        assert [put(send, engine, "1") for _ in range(4)] == [200, 500, 500, 200]
        assert ask("GET", "faults").json()["faults"][0]["delivered"] == 2

    @pytest.mark.parametrize(
        ("body", "sent"),
        [({"body": {"code": "BUSY"}}, b'{"code":"BUSY"}'), ({"body": "\ud800 text"}, b"? text"), ({}, b""),
         ({"body": [1, None]}, b"[1,null]"), ({"body_base64": "AP8="}, b"\x00\xff")],
    )  # fmt: skip
    def test_answer_what_they_are_told(self, ask: Ask, engine: Engine, send: Send, body: Any, sent: bytes) -> None:
        ask("POST", "faults", {"kind": "answer", "status": 503, "headers": {"X-A": "b"}, **body})
        reply = send(engine, "GET", "Leads/1")
        assert (reply.status, reply.body, reply.headers["X-A"]) == (503, sent, "b")

    @pytest.mark.parametrize("kind", FaultKind)
    def test_are_of_every_kind(self, ask: Ask, engine: Engine, send: Send, kind: str) -> None:
        engine.add_record("Leads", "1")
        more = {"seconds": 0.5} if kind == "slow" else {}
        assert ask("POST", "faults", {"kind": kind, "times": None, "applied": True, **more}).status == 201
        put(send, engine, "1")
        assert (engine.calls[0].fault, engine.writes("1")) == (kind, 1)
        assert ask("DELETE", "faults").json() == {"faults": []}
        assert put(send, engine, "1") == 200


class TestWhatHappened:
    def test_calls_are_numbered_and_can_be_read_on(self, ask: Ask, engine: Engine, send: Send) -> None:
        for name in "abc":
            send(engine, "PUT", f"Leads/{name}", ROWS)
        read = [(page["calls"], page["next"], page["more"])
                for query in ("", "?limit=2", "?since=2", "?since=9")
                for page in [ask("GET", f"calls{query}").json()]]  # fmt: skip
        assert [[call["number"] for call in calls] for calls, _, _ in read] == [[1, 2, 3], [1, 2], [3], [1, 2, 3]]
        assert [(following, more) for _, following, more in read] == [(3, False), (2, True), (3, False), (3, False)]
        assert read[0][0][0]["path"] == "/crm/v8/Leads/a"

    def test_numbers_are_those_of_all_calls_although_the_log_keeps_the_latest(self, ask: Ask, send: Send) -> None:
        engine = Engine(log_calls=2)
        for _ in range(5):
            send(engine, "GET", "org")
        assert [number for number, _ in engine.calls_after(0)] == [4, 5]

    def test_bodies_are_text_or_base64(self, ask: Ask, engine: Engine, send: Send) -> None:
        send(engine, "PUT", "Leads/1", raw="{é}".encode())
        send(engine, "PUT", "Leads/1", raw=b"\xff")
        text, binary = ask("GET", "calls").json()["calls"]
        assert (text["body"], binary["body"], binary["body_base64"]) == ("{é}", None, "/w==")
        assert json.loads(text["response_body"])["code"]

    def test_no_secret_is_shown(self, ask: Ask, engine: Engine, send: Send) -> None:
        send(engine, "GET", "Leads/1", authorization="Zoho-oauthtoken s3cret", Cookie="s3cret", X_Other="shown")
        token = Request(method="POST", path="/oauth/v2/token", query="client_secret=s3cret", body=b"code=s3cret")
        issued = engine.handle(token).json()["access_token"]
        shown = ask("GET", "calls").body.decode()
        assert "s3cret" not in shown
        assert issued not in shown
        assert "shown" in shown
        assert "(hidden)" in shown

    def test_counts_are_of_one_moment(self, ask: Ask, engine: Engine, send: Send) -> None:
        engine.add_record("Leads", "1", refusals=1)
        for _ in range(3):
            put(send, engine, "1")
        assert ask("GET", "counts").json() == {
            "writes": {"1": 2}, "refusals": {"1": 1}, "answered": 3, "credits_spent": 3, "credits_remaining": None,
            "max_concurrent": 1}  # fmt: skip


class TestAccessAndTime:
    def test_tokens_expire_and_credits_end(self, ask: Ask, engine: Engine, send: Send) -> None:
        assert ask("POST", "token", {"new": "abc"}).status == 200
        held = {"authorization": "Zoho-oauthtoken abc"}
        assert send(engine, "GET", "org").status == 401
        assert ask("POST", "credits", {"remaining": 1}).json() == {"remaining": 1}
        assert [send(engine, "GET", "org", **held).status for _ in range(2)] == [200, 429]
        ask("POST", "credits", {"remaining": None})
        ask("POST", "token")
        assert send(engine, "GET", "org", **held).status == 401

    def test_scopes_are_denied(self, ask: Ask, engine: Engine, send: Send) -> None:
        ask("POST", "scopes", {"operation": "WRITE", "module": "Leads"})
        assert [send(engine, *call).status for call in (("PUT", "Leads/1", ROWS), ("GET", "Leads?fields=id"))] == [
            401,
            204,
        ]

    def test_time_passes_at_once(self, ask: Ask, engine: Engine, send: Send) -> None:
        engine.add_record("Leads", "1", locked_for=30)
        assert ask("POST", "clock", {"advance": 29.5}).json() == {"now": 129.5}
        assert put(send, engine, "1") == 400
        ask("POST", "clock", {"advance": 0.5})
        assert (put(send, engine, "1"), ask("GET", "clock").json()) == (200, {"now": 130.0})

    def test_time_does_not_pass_the_end_of_the_calendar(self, ask: Ask, engine: Engine, send: Send) -> None:
        engine.add_record("Leads", "1")
        assert [ask("POST", "clock", {"advance": 10**9}).status for _ in range(11)] == [200] * 10 + [400]
        assert (put(send, engine, "1"), send(engine, "GET", "Leads/1").status) == (200, 200)

    def test_a_clock_that_only_runs_is_not_advanced(self) -> None:
        control = Control(Engine(clock=lambda: 5.0))
        reply = control.handle(Request(method="POST", path="/__simulator/clock", body=b'{"advance": 1}'))
        assert (reply.status, "cannot be advanced" in reply.json()["error"]["message"]) == (409, True)


class TestReset:
    def test_of_the_log_keeps_the_state(self, ask: Ask, engine: Engine, send: Send) -> None:
        engine.add_record("Leads", "1")
        put(send, engine, "1")
        assert ask("POST", "reset", {"what": "log"}).json() == {"reset": "log"}
        assert (engine.calls, engine.writes("1"), engine.get("1").fields) == ((), 0, {"Company": "Zylker"})

    def test_of_all_returns_to_the_start(self, ask: Ask, engine: Engine, send: Send, clock: ManualClock) -> None:
        engine.add_record("Leads", "1")
        plans = {"faults": {"kind": 500}, "refuse_new": {"module": "Leads"}, "credits": {"remaining": 0}}
        for path, body in {**plans, "token": {"new": "x"}, "scopes": {"operation": "ALL"}}.items():
            assert ask("POST", path, body).status in (200, 201)
        send(engine, "GET", "org")
        clock.advance(1000)
        assert ask("POST", "reset").json() == {"reset": "all"}
        assert set(engine.records) == {"7"}
        assert (engine.faults, engine.new_refusals, engine.tokens, engine.credits_remaining) == ((), (), None, None)
        assert (engine.calls, engine.answered, engine.max_concurrent) == ((), 0, 0)
        assert put(send, engine, "7") == 400
        clock.advance(60)
        assert put(send, engine, "7") == 200

    def test_makes_up_the_same_ids_again(self) -> None:
        engine = Engine(token="t", credits=5)
        first = engine.add_record("Leads")
        engine.set_credits(0)
        engine.reset(lambda fresh: fresh.add_record("Leads"))
        assert (list(engine.records), engine.tokens, engine.credits_remaining) == ([first], {"t"}, 5)


BAD = [
    ("records", {}, "module", None, "module is missing: it must be the API name of a module"),
    ("records", {"module": "Leads", "locked_fr": 1}, "locked_fr", None, 'unknown key "locked_fr", did you mean'),
    ("records", {"module": "Leads", "zzz": 1}, "zzz", None, 'unknown key "zzz". Allowed: module, id, state'),
    ("records", {"module": "Leads", "state": "aproved"}, "state", "aproved", 'state="aproved" is not allowed, did'),
    ("records", {"module": "Leads", "state": 5}, "state", 5, "state=5 must be one of approved, "),
    ("records", {"module": "Leads/1"}, "module", "Leads/1", 'module="Leads/1" must be the API name'),
    ("records", {"module": "Leads", "id": "a"}, "id", "a", 'id="a" must be a text of 1 to 30 digits, or null'),
    ("records", {"module": "Leads", "id": True}, "id", True, "id=true must be a text"),
    ("records", {"module": "Leads", "locked_for": True}, "locked_for", True, "locked_for=true must be a number"),
    ("records", {"module": "Leads", "locked_for": -1}, "locked_for", -1, "locked_for=-1 must be a number of"),
    ("records", {"module": "Leads", "locked_for": 10**10}, "locked_for", 10**10, "locked_for=10000000000 must be"),
    ("records", {"module": "Leads", "locked_for": "5"}, "locked_for", "5", 'locked_for="5" must be'),
    ("records", {"module": "Leads", "refusals": 1.5}, "refusals", "1.5", "refusals=1.5 must be a whole"),
    ("records", {"module": "Leads", "refusals": True}, "refusals", True, "refusals=true must be a whole number"),
    ("records", {"module": "Leads", "image": "?"}, "image", "?", 'image="?" must be a text in base64'),
    ("records", {"module": "Leads", "fields": []}, "fields", "[]", "fields=[] must be an object of"),
    ("records", {"module": "Leads", "image_state": "approved!"}, "image_state", "approved!", "image_state="),
    ("records", {"module": "Leads", "state": "x" * 999}, "state", "x" * 80 + "...", 'state="xxxxxxx'),
    ("records", [1], "", "[1]", "the document must be an object, not [1]"),
    ("records/7/lock", {"state": "approved"}, "state", "approved", 'state="approved" must be one of'),
    ("records/7/state", {}, "state", None, "state is missing: it must be one of approved"),
    ("records/7/unlock", {"than": "approved"}, "than", None, 'unknown key "than", did you mean then?'),
    ("faults", {}, "kind", None, "kind is missing: it must be one of reset, drop"),
    ("faults", {"kind": 503}, "kind", 503, "kind=503 must be one of reset"),
    ("faults", {"kind": True}, "kind", True, "kind=true must be one of"),
    ("faults", {"kind": "reset", "path": ""}, "path", "", 'path="" must be a text of 1 to 1000 characters'),
    ("records/7/lock", {"refusals": 0}, "refusals", 0, "refusals=0 must be a whole number from 1"),
    ("faults", {"kind": "reset", "path": "a" * 1001}, "path", "a" * 80 + "...", "path="),
    ("faults", {"kind": "reset", "times": -1}, "times", -1, "times=-1 must be a whole number from 0 to"),
    ("faults", {"kind": "reset", "method": "P T"}, "method", "P T", 'method="P T" must be an HTTP method'),
    ("faults", {"kind": "slow"}, "seconds", None, 'seconds must be given, and above 0, with kind "slow"'),
    ("faults", {"kind": "slow", "seconds": 10**6}, "seconds", 10**6, "seconds=1000000 must"),
    ("faults", {"kind": 500, "seconds": 1}, "seconds", 1, 'seconds goes with kind "slow" only, not with "500"'),
    ("faults", {"kind": 500, "retry_after": 1}, "retry_after", 1, 'retry_after goes with kind "429" only'),
    ("faults", {"kind": 500, "body": "x"}, "body", "x", 'body goes with kind "answer" only'),
    ("faults", {"kind": "answer", "status": 100}, "status", 100, "status=100 must be an HTTP status from 200"),
    ("faults", {"kind": "answer", "headers": {"A": "a\r\nB: b"}}, "headers", '{"A": "a\\r\\nB: b"}', "headers="),
    ("faults", {"kind": "answer", "headers": {"A": "\u20ac"}}, "headers", '{"A": "\\u20ac"}', "headers="),
    ("faults", {"kind": "answer", "headers": {"connection": "x"}}, "headers", '{"connection": "x"}', "headers="),
    ("refuse_new", {"module": "Leads", "state": "approved"}, "state", "approved", "state="),
    ("clock", {"advance": -1}, "advance", -1, "advance=-1 must be a number of seconds from 0"),
    ("clock", {}, "advance", None, "advance is missing"),
    ("credits", {"remaining": -1}, "remaining", -1, "remaining=-1 must be a whole number"),
    ("credits", {}, "remaining", None, "remaining is missing"),
    ("scopes", {"operation": "read"}, "operation", "read", "operation="),
    ("token", {"new": "s3cret "}, "new", None, "new must be a text of 1 to 1000 visible ASCII characters, or null"),
    ("scopes", {"operation": "READ", "token": 5}, "token", None, "token must be a text of 1 to 1000"),
    ("faults", {"kind": "answer", "body": "", "body_base64": ""}, "body_base64", None, "body_base64 is"),
    ("reset", {"what": "everything"}, "what", "everything", 'what="everything" must be one of all, log'),
]  # fmt: skip


class TestBadInput:
    @pytest.mark.parametrize(("path", "body", "field", "value", "message"), BAD)
    def test_is_named_with_what_is_allowed_and_changes_nothing(
        self, ask: Ask, engine: Engine, path: str, body: Any, field: str, value: Any, message: str
    ) -> None:
        engine.add_record("Leads", "7")
        reply = ask("POST", path, body)
        assert error(reply)[:3] == (400, field, value)
        assert error(reply)[3].startswith(message)
        assert reply.json()["error"]["allowed"]
        assert b"s3cret" not in reply.body
        assert (len(engine.records), engine.faults, engine.new_refusals, engine.now()) == (1, (), (), 100.0)
        assert engine.get("7").state == "approved"

    @pytest.mark.parametrize(
        "raw",
        [b"{", b"module=Leads", b"\xff", b'{"a": 1e999}', b'{"a": NaN}', b"9" * 5000, b"[" * 500 + b"]" * 500],
    )
    def test_that_is_no_json_is_told(self, ask: Ask, raw: bytes) -> None:
        assert ask("POST", "records", raw=raw).status == 400

    @pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"1e999"])
    def test_a_number_that_is_none_is_refused_wherever_it_stands(self, ask: Ask, number: bytes) -> None:
        for member in (b'"locked_for": ' + number, b'"fields": {"A": [' + number + b"]}"):
            assert ask("POST", "records", raw=b'{"module": "Leads", %s}' % member).status == 400

    @pytest.mark.parametrize(
        ("path", "field"), [("calls?limit=0", "limit"), ("calls?limit=9999", "limit"), ("calls?since=x", "since"),
                            ("records?modul=Leads", "modul"), ("records?state=x", "state"), ("counts?a=1", "a"),
                            ("calls?" + "&".join("abc=1" for _ in range(200)), "")],
    )  # fmt: skip
    def test_in_a_query_is_named(self, ask: Ask, path: str, field: str) -> None:
        assert error(ask("GET", path))[:2] == (400, field)

    @pytest.mark.parametrize("path", ["record", "records/7/locks", "records/7/lock/1", "calls/1", "/", "%2e"])
    def test_a_path_that_is_unknown_is_answered_with_all_there_are(self, ask: Ask, path: str) -> None:
        reply = ask("GET", path)
        if path != "/":
            assert reply.status == 404
            assert reply.json()["error"]["allowed"][1] == "GET, POST /__simulator/records"

    @pytest.mark.parametrize(
        ("method", "path", "allow"),
        [
            ("PUT", "records", "GET, POST"),
            ("POST", "counts", "GET"),
            ("GET", "reset", "POST"),
            ("POST", "", "GET"),
            ("BREW", "records/7", "GET, DELETE"),
        ],
    )
    def test_a_wrong_method_is_answered_with_405(self, ask: Ask, method: str, path: str, allow: str) -> None:
        reply = ask(method, path)
        assert (reply.status, reply.headers["Allow"]) == (405, allow)
        assert method in reply.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/__simulators", "/crm/v8/__simulator", "/__simulato", "/"])
def test_no_other_path_is_taken(engine: Engine, path: str) -> None:
    assert not Control(engine).owns(path)


def test_both_say_the_same_of_each_argument() -> None:
    """What Python takes is what the control API takes."""
    for method, rules, left_out in (("add_record", RECORD, ()), ("fault", FAULT, ("body_base64",)),
                                    ("refuse_new", REFUSE_NEW, ())):  # fmt: skip
        arguments = getattr(Engine, method).__annotations__.keys() - {"return"}
        assert rules.keys() - set(left_out) == arguments
    assert OPTIONS.keys() == EngineOptions.__annotations__.keys() - {"clock"}


class TestTheReference:
    def test_is_the_page_and_shows_where_it_was_asked(self, ask: Ask) -> None:
        reply = ask("GET", "", host="10.0.0.7:9000")
        assert reply.headers["Content-Type"].startswith("text/plain")
        assert "curl http://10.0.0.7:9000/__simulator/records -d" in reply.body.decode()
        assert "127.0.0.1:8070/" not in reply.body.decode()
        assert ask("HEAD", "").body.decode() == reference.page("<b>") == reference.__doc__

    def test_names_every_path_key_and_kind(self) -> None:
        page = reference.page()
        for path in RESOURCES:
            assert f"/__simulator/{path}".replace("{id}", "101") in page
        for name in {*RECORD, *FAULT, *REFUSE_NEW, *FaultKind}:
            assert re.search(rf"\b{name}\b", page), name

    def test_fits_a_terminal(self) -> None:
        prose = [line for line in reference.page().splitlines() if not line.lstrip().startswith("curl")]
        assert max(map(len, prose)) <= 100

    def test_its_examples_work_as_they_are_printed(self) -> None:
        """All of them, from top to bottom, by curl."""
        examples = re.findall(r"^    (curl (?:.*\n)(?:        .*\n)*)", reference.page(), re.MULTILINE)
        with Simulator(control=True) as crm:
            for example in examples:
                command = shlex.split(example.replace("http://127.0.0.1:8070", crm.url), comments=True)
                ran = subprocess.run([*command, "-fsS"], capture_output=True, text=True, check=False)
                assert (ran.returncode, ran.stderr) == (0, ""), example
                assert command[1:] == [f"{crm.url}/__simulator"] or json.loads(ran.stdout)
        assert len(examples) == reference.page().count("    curl ") >= 25


class TestPagesOfWebSites:
    """A browser reaches loopback too: with the `Origin` of its page, or, after DNS rebinding, under its name."""

    FOREIGN = (
        {"Host": "evil.example:8070"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "127.0.0.1:8070", "Origin": "http://evil.example"},
        {"Host": "127.0.0.1:8070", "Origin": "null"},
        {"Origin": "http://evil.example"},
    )
    OURS = (
        {},
        {"Host": "localhost:8070"},
        {"Host": "[::1]:8070"},
        {"Host": "127.0.0.1:8070", "Origin": "http://127.0.0.1:8070"},
    )

    @pytest.mark.parametrize("headers", FOREIGN)
    def test_are_refused_and_change_nothing(self, ask: Ask, engine: Engine, headers: dict[str, str]) -> None:
        status, _, _, message = error(ask("POST", "records", {"module": "Leads"}, **headers))
        assert (status, dict(engine.records)) == (403, {})
        assert "web site" in message

    @pytest.mark.parametrize("headers", OURS)
    def test_are_told_from_programs_of_this_machine(self, ask: Ask, headers: dict[str, str]) -> None:
        assert ask("POST", "records", {"module": "Leads"}, **headers).status == 201

    def test_are_not_told_where_others_may_connect_by_any_name(self, engine: Engine) -> None:
        control = Control(engine, guarded=False)
        request = Request(method="GET", path="/__simulator/counts", headers={"Host": "crm:8070"})
        assert control.handle(request).status == 200

    @pytest.mark.parametrize(("host", "status"), [("127.0.0.1", 403), ("0.0.0.0", 200)])  # noqa: S104
    def test_the_address_that_it_listens_on_decides(self, host: str, status: int) -> None:
        with Simulator(control=True, host=host) as crm:
            answer = requests.get(f"{crm.url}/__simulator/counts", headers={"Host": "crm:8070"})
        assert answer.status_code == status


@pytest.mark.parametrize(
    ("text", "path", "found"),
    [
        ("/Leads", "/crm/v8/Leads/1", True),
        ("/Deals", "/crm/v8/Leads/1", False),
        ("/v*/1", "/crm/v8/Leads/1", True),
        ("/1*/v", "/crm/v8/Leads/1", False),
        ("^/crm", "/crm/v8", True),
        ("^crm", "/crm/v8", False),
        ("^/crm*8", "/crm/v8", True),
        ("v8$", "/crm/v8", True),
        ("/crm$", "/crm/v8", False),
        ("^/crm/v8$", "/crm/v8", True),
        ("^/crm/v8$", "/crm/v8/Leads", False),
        ("^/crm*/Leads$", "/crm/v8/Leads", True),
        ("^/crm/v8*v8$", "/crm/v8", False),
        ("m*m$", "/m", False),
        ("(a+)+$", "/crm/" + "a" * 64, False),
        ("a*b" * 300, "/" + "a" * 60_000, False),
        ("*", "/", True),
    ],
)
def test_a_text_is_found_in_a_path(text: str, path: str, found: bool) -> None:
    assert PathText(text).search(path) is found


@pytest.mark.parametrize(
    "request_",
    [
        Request(method="POST", path="/oauth/v2/token/revoke", query="token=s3cret"),
        Request(method="GET", path="/crm/v8/org", query="a=1&access_token=s3cret&b=2"),
        Request(method="GET", path="/crm/v8/org", headers={"X-Api-Key": "s3cret"}),
        Request(method="POST", path="/oauth/v2/token", body=b"refresh_token=s3cret"),
    ],
)
def test_no_secret_is_shown_in_the_log(ask: Ask, engine: Engine, request_: Request) -> None:
    engine.handle(request_)
    shown = ask("GET", "calls").body.decode()
    assert "(hidden)" in shown
    assert "s3cret" not in shown
