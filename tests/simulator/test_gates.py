"""What stands before CRM: tokens, scopes, credits, concurrency."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from crm_guard.simulator import Engine, Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from crm_guard.simulator import Reply

    Send = Callable[..., Reply]

READ = "Leads?fields=id"
BEARER = "Zoho-oauthtoken "


class TestTokens:
    @pytest.mark.parametrize("sent", [{}, {"Authorization": "Zoho-oauthtoken no"}, {"Authorization": "Bearer a"}])
    def test_wrong_tokens_are_refused(self, send: Send, sent: dict[str, str]) -> None:
        engine = Engine(token="a")
        reply = send(engine, "GET", READ, **sent)
        assert (reply.status, reply.json()["code"]) == (401, "INVALID_TOKEN")
        assert engine.credits_spent == 0

    def test_tokens_expire(self, send: Send) -> None:
        engine = Engine(token="a")
        assert engine.tokens == {"a"}
        engine.expire_token("b")
        replies = [send(engine, "GET", READ, Authorization=BEARER + token).status for token in "ab"]
        assert replies == [401, 204]
        engine.expire_token()
        assert send(engine, "GET", READ, Authorization=BEARER + "b").status == 401

    def test_without_a_token_anyone_may_call(self, send: Send, engine: Engine) -> None:
        assert engine.tokens is None
        assert send(engine, "GET", READ, Authorization=BEARER + "x").status == 204

    @pytest.mark.parametrize(("operation", "allowed"), [("READ", "delete"), ("WRITE", "read"), ("DELETE", "read"),
        ("ALL", "")])  # fmt: skip
    def test_a_scope_can_be_missing(self, send: Send, engine: Engine, operation: str, allowed: str) -> None:
        engine.deny_scope(None, "Leads", operation)
        statuses = {
            "read": send(engine, "GET", READ).status,
            "delete": send(engine, "DELETE", "Leads/1").status,
        }
        assert {name for name, status in statuses.items() if status != 401} == ({allowed} - {""})
        assert send(engine, "GET", "Contacts?fields=id").status == 204
        assert send(engine, "GET", "nothing/here/at/all").status == 404

    def test_a_scope_can_be_missing_for_one_token(self, send: Send, engine: Engine) -> None:
        engine.deny_scope("weak", None, "READ")
        reply = send(engine, "GET", READ, Authorization=BEARER + "weak")
        assert reply.json()["code"] == "OAUTH_SCOPE_MISMATCH"
        assert send(engine, "GET", READ, Authorization=BEARER + "strong").status == 204


class TestCredits:
    def test_each_call_costs_what_it_costs(self, send: Send) -> None:
        engine = Engine(mandatory={})
        ids = [engine.add_record("Leads", refusals=99) for _ in range(51)]
        rows = {"data": [{"id": entry} for entry in ids]}
        tags = {"tags": [{"name": "x"}], "ids": ids}
        send(engine, "GET", READ)
        send(engine, "GET", READ + "&cvid=1")
        send(engine, "PUT", "Leads", rows)
        send(engine, "POST", "Leads/upsert", rows)
        send(engine, "POST", "Leads/actions/add_tags", tags)
        send(engine, "POST", f"Leads/{ids[0]}/actions/convert", {"data": [{}]})
        send(engine, "DELETE", f"Leads?ids={ids[0]}")
        send(engine, "POST", f"Leads/{ids[0]}/actions/send_mail", {"data": [{}]})
        assert [call.credits for call in engine.calls] == [1, 3, 6, 6, 2, 5, 1, 20]
        assert engine.credits_spent == 44

    def test_no_credits_no_calls(self, send: Send) -> None:
        engine = Engine(credits=2)
        assert [send(engine, "GET", READ).status for _ in range(3)] == [204, 204, 429]
        engine.set_credits(None)
        assert send(engine, "GET", READ).status == 204
        assert engine.credits_remaining is None

    @pytest.mark.parametrize(("header", "shown"), [("half", [None, "2", "1"]), ("always", ["3", "2", "1"])])
    def test_the_header_appears_when_half_is_used(self, send: Send, header: Any, shown: list[Any]) -> None:
        engine = Engine(credits=4, credits_header=header)
        replies = [send(engine, "GET", READ) for _ in shown]
        assert [reply.headers.get("X-API-CREDITS-REMAINING") for reply in replies] == shown


class TestConcurrency:
    def test_calls_beyond_the_limit_are_refused_at_once(self) -> None:
        """Two calls are held in service; the third is refused; one more fits after a hold ends."""
        engine = Engine(concurrency=2, latency=1.0)
        inside, leave = threading.Barrier(3), threading.Event()
        request = Request(method="GET", path="/crm/v8/Leads", query="fields=id")

        def hold(seconds: float) -> None:
            assert seconds == 1.0
            inside.wait(5)
            leave.wait(5)

        threads = [threading.Thread(target=engine.handle, args=(request,), kwargs={"hold": hold}) for _ in "ab"]
        for thread in threads:
            thread.start()
        inside.wait(5)
        refused = engine.handle(request, hold=lambda _seconds: pytest.fail("a refused call was held"))
        leave.set()
        for thread in threads:
            thread.join()
        assert (refused.status, refused.json()["code"]) == (429, "TOO_MANY_REQUESTS")
        assert engine.max_concurrent == 3
        assert engine.handle(request).status == 204

    def test_threads_lose_no_write(self) -> None:
        engine = Engine()
        lead = engine.add_record("Leads")
        request = Request(method="PUT", path=f"/crm/v8/Leads/{lead}", body=b'{"data":[{}]}')
        barrier = threading.Barrier(8)

        def work() -> None:
            barrier.wait()
            for _ in range(50):
                engine.handle(request)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert engine.writes(lead) == len(engine.calls) == 400
