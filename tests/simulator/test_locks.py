"""How locks begin and end: by time, by refusals, by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from crm_guard.simulator import Engine, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from crm_guard.simulator import Reply

    Send = Callable[..., Reply]


def _update(send: Send, engine: Engine, record_id: str) -> int:
    return send(engine, "PUT", f"Leads/{record_id}", {"data": [{"Company": "Zylker"}]}).status


def test_a_lock_ends_after_its_seconds(send: Send, engine: Engine, clock: Any) -> None:
    lead = engine.add_record("Leads", locked_for=10.0)
    clock.advance(9.9)
    assert _update(send, engine, lead) == 400
    clock.advance(0.1)
    assert _update(send, engine, lead) == 200
    assert (engine.writes(lead), engine.refusals(lead)) == (1, 1)


@pytest.mark.parametrize("refusals", [0, 1, 3])
def test_a_lock_ends_after_its_refusals(send: Send, engine: Engine, refusals: int) -> None:
    lead = engine.add_record("Leads", refusals=refusals)
    assert [_update(send, engine, lead) for _ in range(refusals + 1)] == [400] * refusals + [200]


def test_the_earlier_end_counts(send: Send, engine: Engine, clock: Any) -> None:
    lead = engine.add_record("Leads", locked_for=5.0, refusals=9)
    clock.advance(5.0)
    assert _update(send, engine, lead) == 200


def test_a_lock_may_become_another_refusal(send: Send, engine: Engine) -> None:
    lead = engine.add_record("Leads", refusals=1, then="zia_vision_rejected")
    _update(send, engine, lead)
    _update(send, engine, lead)
    codes = [call.response_body for call in engine.calls]
    assert b"RECORD_LOCKED" in codes[0]
    assert b"NOT_APPROVED" in codes[1]


def test_a_lock_without_an_end_stays_until_unlocked(send: Send, engine: Engine, clock: Any) -> None:
    lead = engine.add_record("Leads", state="zia_vision_validation")
    clock.advance(1e9)
    assert _update(send, engine, lead) == 400
    engine.unlock(lead)
    assert _update(send, engine, lead) == 200
    engine.set_state(lead, "merge_pending", locked_for=1.0)
    assert engine.get(lead).state is State.MERGE_PENDING
    clock.advance(1.0)
    assert engine.get(lead).state is State.APPROVED


@pytest.mark.parametrize("body", [{"Record_Image": "abc"}, {"Company": "x"}])
def test_an_update_with_an_image_starts_a_check(send: Send, clock: Any, body: dict[str, str]) -> None:
    engine = Engine(clock=clock, validation_seconds=4.0, validation_result="zia_vision_rejected")
    lead = engine.add_record("Leads")
    reply = send(engine, "PUT", f"Leads/{lead}", {"data": [body]})
    checked = "Record_Image" in body
    state = reply.json()["data"][0]["details"]["$approval_state"]
    assert state == ("zia_vision_validation" if checked else "approved")
    clock.advance(4.0)
    assert engine.get(lead).state == ("zia_vision_rejected" if checked else "approved")


def test_the_end_of_a_check_can_move_the_modified_time(send: Send, clock: Any) -> None:
    """So that a patient client with If-Unmodified-Since meets 412."""
    engine = Engine(clock=clock, validation_touches=True)
    lead = engine.add_record("Leads", locked_for=60.0)
    seen = "2026-05-10T01:10:47-07:00"
    clock.advance(60.0)
    reply = send(engine, "PUT", f"Leads/{lead}", {"data": [{}]}, If_Unmodified_Since=seen)
    assert reply.status == 412
    for late in ("2026-05-10T01:11:47-07:00", "Sun, 10 May 2026 08:11:47 GMT", "no date", "2026-05-10"):
        assert send(engine, "PUT", f"Leads/{lead}", {"data": [{}]}, If_Unmodified_Since=late).status == 200


def test_ids_are_unique(engine: Engine) -> None:
    first = engine.add_record("Leads", 42)
    assert first == "42"
    with pytest.raises(ValueError, match="exists already"):
        engine.add_record("Contacts", "42")
    with pytest.raises(KeyError):
        engine.unlock("43")
    with pytest.raises(ValueError, match="not a valid State"):
        engine.add_record("Leads", state="frozen")


def test_snapshots_do_not_follow(engine: Engine) -> None:
    lead = engine.add_record("Leads", fields={"Company": "Zylker"})
    copy = engine.get(lead)
    copy.fields["Company"] = "other"
    assert engine.records[lead].fields == {"Company": "Zylker"}


def test_reset_log_keeps_the_records(send: Send, engine: Engine) -> None:
    lead = engine.add_record("Leads", refusals=1)
    _update(send, engine, lead)
    _update(send, engine, lead)
    assert engine.write_counts == {lead: 1}
    engine.reset_log()
    assert (engine.calls, engine.write_counts, engine.refusals(lead), engine.credits_spent) == ((), {}, 0, 0)
    assert _update(send, engine, lead) == 200


@pytest.mark.parametrize("bad", [{"caller": "me"}, {"details_style": "x"}, {"envelope": "tags"}, {"latency": -1},
    {"concurrency": 0}, {"credits": -1}, {"credits_header": "no"}, {"validation_result": "no"},
    {"validation_seconds": float("nan")}])  # fmt: skip
def test_bad_options_are_refused_at_once(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"out of range|not a valid State"):
        Engine(**bad)
