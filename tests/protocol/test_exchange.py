"""What becomes of each record of one call: the fates, their transitions, and what may be sent again."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from crm_guard import GiveUpReason
from crm_guard._protocol.answer import Answer, read_answer
from crm_guard._protocol.crm_url import CrmUrl
from crm_guard._protocol.exchange import Exchange
from crm_guard._protocol.request_records import CrmRequest, Part, read_request
from crm_guard._protocol.slots import Fate
from crm_guard.outcomes import CallError

BASE = "https://www.zohoapis.com/crm/v8/"
A, B, C, D = (str(555000000000000001 + index) for index in range(4))
ZIA = "zia_vision_processing"
SETTLED, LOCKED, IN_FLIGHT, UNCERTAIN = Fate.SETTLED, Fate.LOCKED, Fate.IN_FLIGHT, Fate.UNCERTAIN
UNNAMED = {"code": "RECORD_LOCKED", "status": "error", "message": "locked", "details": {"action": ZIA}}


def success(record_id: str) -> dict[str, Any]:
    return {"code": "SUCCESS", "status": "success", "message": "done", "details": {"id": record_id}}


def locked(record_id: str, action: str = ZIA) -> dict[str, Any]:
    details = {"id": record_id, "action": action}
    return {"code": "RECORD_LOCKED", "status": "error", "message": "locked", "details": details}


def invalid(index: int) -> dict[str, Any]:
    details = {"api_name": "Email", "json_path": f"$.data[{index}].Email"}
    return {"code": "INVALID_DATA", "status": "error", "message": "invalid", "details": details}


def of(method: str, path: str, body: Any = None, *, external: bool = False) -> CrmRequest:
    sent = None if body is None else json.dumps(body).encode()
    return read_request(method, CrmUrl.of(BASE + path), lambda: sent, external=external)


def update(*ids: str) -> CrmRequest:
    return of("PUT", "Leads", {"data": [{"id": record_id, "n": n} for n, record_id in enumerate(ids)]})


def update_one(record_id: str = A) -> CrmRequest:
    return of("PUT", f"Leads/{record_id}", {"data": [{"Company": "Z"}]})


def image(record_id: str = A) -> CrmRequest:
    return of("GET", f"Leads/{record_id}/photo")


def answer(request: CrmRequest, *items: dict[str, Any], status: int = 207, key: str = "data") -> Answer[str]:
    return read_answer("response", status, json.dumps({key: items}).encode(), request)


def whole(request: CrmRequest, status: int, code: str = "") -> Answer[str]:
    """Return an answer about the call: one item without a record, or a page."""
    top = {"code": code, "status": "error", "message": "no", "details": {}}
    return read_answer("response", status, json.dumps(top).encode() if code else b"<html>", request)


def begun(request: CrmRequest, *items: dict[str, Any], replayable: bool = True, **about: Any) -> Exchange[str]:
    return Exchange(request, answer(request, *items, **about), (ZIA,), replayable=replayable)


def fates(exchange: Exchange[str]) -> list[Fate]:
    return [slot.fate for slot in exchange.slots]


@pytest.fixture
def batch() -> Exchange[str]:
    """A batch of four: one applied, two locked, one invalid."""
    return begun(update(A, B, C, D), success(A), locked(B), locked(C), invalid(3))


# -- the first answer


def test_an_exchange_needs_an_answer_with_items():
    with pytest.raises(ValueError, match="items"):
        Exchange(update(A), whole(update(A), 200), (ZIA,))


def test_only_retryable_locks_are_pending_and_the_rest_has_its_result(batch):
    assert fates(batch) == [SETTLED, LOCKED, LOCKED, SETTLED]
    assert batch.pending == (1, 2)
    assert batch.uncertain == ()
    assert [slot.record_id for slot in batch.slots] == [A, B, C, D]
    assert (batch.attempts, batch.flight, batch.in_flight, batch.alone) == (1, 1, False, True)
    assert batch.has_final_result
    assert batch.complete
    assert batch.reason is None


def test_a_lock_of_another_action_is_a_result():
    exchange = begun(update(A, B), locked(A, "record_locking"), locked(B))
    assert fates(exchange) == [SETTLED, LOCKED]


def test_where_nothing_is_pending_nothing_has_to_be_given_up():
    exchange = begun(update(A, B), success(A), locked(B, "record_locking"), replayable=False)
    assert exchange.reason is None
    assert not exchange.pending


# -- transitions


def test_sending_puts_only_the_slots_that_are_sent_in_flight(batch):
    batch.sending([2])
    assert fates(batch) == [SETTLED, LOCKED, IN_FLIGHT, SETTLED]
    assert (batch.attempts, batch.flight, batch.in_flight) == (1, 2, True)
    assert batch.pending == (1,)


def test_a_slot_in_flight_is_settled_by_its_result_or_locked_again(batch):
    batch.sending([1, 2])
    batch.absorb(answer(batch.request, success(B), locked(C)))
    assert fates(batch) == [SETTLED, SETTLED, LOCKED, SETTLED]
    assert [item.code for item in batch.items] == ["SUCCESS", "SUCCESS", "RECORD_LOCKED", "INVALID_DATA"]
    assert (batch.attempts, batch.flight, batch.alone, batch.reason) == (2, 2, False, None)
    assert not batch.complete


def test_p2_a_write_whose_answer_is_lost_is_uncertain_and_not_sent_again(batch):
    batch.sending([1])
    batch.lost()
    assert fates(batch) == [SETTLED, UNCERTAIN, LOCKED, SETTLED]
    assert (batch.attempts, batch.pending, batch.uncertain) == (2, (2,), (1,))
    batch.lost()
    assert fates(batch) == [SETTLED, UNCERTAIN, LOCKED, SETTLED]


def test_a_read_whose_answer_is_lost_may_be_repeated():
    exchange = begun(image(), locked(A), status=400)
    exchange.sending([0])
    exchange.lost()
    assert fates(exchange) == [LOCKED]
    assert (exchange.attempts, exchange.uncertain) == (2, ())


@pytest.mark.parametrize(("begun_", "attempts"), [(True, 2), (False, 1)])
def test_what_never_arrived_is_locked_as_before(batch, begun_, attempts):
    batch.sending([1, 2])
    batch.recall(begun=begun_)
    assert fates(batch) == [SETTLED, LOCKED, LOCKED, SETTLED]
    assert batch.attempts == attempts
    batch.recall(begun=begun_)
    assert batch.attempts == attempts


def test_p2_a_record_that_the_answer_does_not_name_is_uncertain(batch):
    batch.sending([1, 2])
    batch.absorb(answer(batch.request, locked(C)))
    assert fates(batch) == [SETTLED, UNCERTAIN, LOCKED, SETTLED]
    assert batch.reason is GiveUpReason.UNMATCHED


def test_p2_an_answer_that_leaves_out_a_record_ends_the_call_even_if_nothing_else_is_locked(batch):
    batch.sending([1, 2])
    batch.absorb(answer(batch.request, success(C)))
    assert fates(batch) == [SETTLED, UNCERTAIN, SETTLED, SETTLED]
    assert batch.reason is GiveUpReason.UNMATCHED


def test_an_answer_with_more_items_than_records_is_believed_but_not_acted_on(batch):
    batch.sending([1, 2])
    batch.absorb(answer(batch.request, success(B), locked(C), success(D)))
    assert fates(batch) == [SETTLED, SETTLED, LOCKED, SETTLED]
    assert batch.reason is GiveUpReason.UNMATCHED
    other = begun(update(A, B, C, D), success(A), locked(B), locked(C), invalid(3))
    other.sending([1, 2])
    other.absorb(answer(other.request, success(B), success(C), success(D)))
    assert fates(other) == [SETTLED] * 4
    assert other.reason is None


def test_items_are_matched_by_the_records_they_name_and_not_by_their_place(batch):
    batch.sending([1, 2])
    batch.absorb(answer(batch.request, locked(C), success(B)))
    assert fates(batch) == [SETTLED, SETTLED, LOCKED, SETTLED]
    assert [slot.record_id for slot in batch.slots] == [A, B, C, D]


def test_an_item_of_a_resend_points_into_the_whole_request_again(batch):
    batch.sending([1, 2])
    batch.absorb(answer(batch.request, success(B), invalid(1)))
    assert batch.items[2].details["json_path"] == "$.data[2].Email"
    assert fates(batch) == [SETTLED] * 4


def test_one_bare_item_is_the_result_of_one_record():
    exchange = begun(update(A, B), success(A), locked(B))
    exchange.sending([1])
    exchange.absorb(whole(exchange.request, 400, "INVALID_DATA"))
    assert fates(exchange) == [SETTLED, SETTLED]
    assert exchange.items[1].code == "INVALID_DATA"


def test_one_bare_item_for_several_records_is_a_refusal_of_the_call(batch):
    batch.sending([1, 2])
    batch.absorb(whole(batch.request, 400, "INVALID_DATA"))
    assert fates(batch) == [SETTLED, LOCKED, LOCKED, SETTLED]
    assert batch.reason is GiveUpReason.FOLLOW_UP
    assert batch.error is not None
    assert (batch.error.status, batch.error.code) == (400, "INVALID_DATA")


@pytest.mark.parametrize(
    ("status", "code", "fate"),
    [
        (401, "INVALID_TOKEN", LOCKED),
        (403, "", LOCKED),
        (408, "", UNCERTAIN),
        (429, "TOO_MANY_REQUESTS", LOCKED),
        (500, "INTERNAL_ERROR", UNCERTAIN),
        (503, "", UNCERTAIN),
        (200, "", UNCERTAIN),
    ],
)
def test_p2_after_an_answer_about_the_call_only_what_crm_refused_is_still_locked(batch, status, code, fate):
    batch.sending([1, 2])
    batch.absorb(whole(batch.request, status, code))
    assert fates(batch) == [SETTLED, fate, fate, SETTLED]
    assert batch.reason is GiveUpReason.FOLLOW_UP
    assert batch.latest.status == status
    assert batch.error == batch.latest.error


@pytest.mark.parametrize(("status", "fate"), [(401, LOCKED), (429, LOCKED), (503, UNCERTAIN), (200, UNCERTAIN)])
def test_p2_a_call_that_is_sent_whole_goes_by_the_same_rule(status, fate):
    exchange = begun(update_one(), locked(A), status=400)
    exchange.sending([0])
    exchange.absorb(whole(exchange.request, status))
    assert fates(exchange) == [fate]
    assert exchange.reason is GiveUpReason.FOLLOW_UP
    assert exchange.complete  # the latest answer is the result


def test_an_answer_to_a_whole_call_replaces_the_one_before():
    share = of("POST", f"Leads/{A}/actions/share", {"share": [{"user": {"id": "1"}}, {"user": {"id": "2"}}]})
    exchange = begun(share, UNNAMED, UNNAMED, key="share")
    assert exchange.pending == (0, 1)
    exchange.sending([0, 1])
    assert exchange.part([0, 1]) == Part()
    exchange.absorb(answer(share, {**UNNAMED, "code": "SUCCESS", "status": "success"}, key="share"))
    assert fates(exchange) == [SETTLED]
    assert exchange.complete


def test_an_image_leaves_no_slots_and_is_a_final_result():
    exchange = begun(image(), locked(A), status=400)
    exchange.sending([0])
    picture = read_answer("response", 200, None, exchange.request)
    exchange.absorb(picture)
    exchange.absorb(picture)
    assert exchange.slots == ()
    assert exchange.has_final_result
    assert not exchange.in_flight
    assert exchange.reason is None


ANSWERS = {
    "applied": lambda request: answer(request, success(B), success(C), status=200),
    "mixed": lambda request: answer(request, success(B), locked(C)),
    "still locked": lambda request: answer(request, locked(B), locked(C), status=400),
    "out of order": lambda request: answer(request, locked(C), success(B)),
    "invalid": lambda request: answer(request, success(B), invalid(1)),
    "fewer": lambda request: answer(request, success(C)),
    "more": lambda request: answer(request, success(B), success(C), success(D)),
    "foreign": lambda request: answer(request, success(B), success(D)),
    "token": lambda request: whole(request, 401, "INVALID_TOKEN"),
    "down": lambda request: whole(request, 503),
    "empty": lambda request: whole(request, 204),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_to_absorb_an_answer_again_changes_nothing(batch, name):
    batch.sending([1, 2])
    given = ANSWERS[name](batch.request)
    batch.absorb(given)

    def facts() -> tuple[object, ...]:
        shown = [(slot.request_index, slot.record_id, slot.item.raw, slot.fate) for slot in batch.slots]
        return shown, batch.attempts, batch.reason, batch.error, batch.latest

    before = facts()
    assert batch.attempts == 2
    assert not batch.in_flight
    batch.absorb(given)
    assert facts() == before


@pytest.mark.parametrize("name", ["applied", "fewer", "foreign", "down", "empty"])
def test_p2_what_is_settled_or_uncertain_never_becomes_locked_again(batch, name):
    batch.sending([1, 2])
    batch.absorb(ANSWERS[name](batch.request))
    final = {n: fate for n, fate in enumerate(fates(batch)) if fate in {SETTLED, UNCERTAIN}}
    assert {0, 2, 3} <= final.keys() or {0, 1, 3} <= final.keys()
    for later in (batch.lost, lambda: batch.recall(begun=True), lambda: batch.recall(begun=False)):
        later()
        assert {n: fates(batch)[n] for n in final} == final
    batch.absorb(whole(batch.request, 401, "INVALID_TOKEN"))
    assert {n: fates(batch)[n] for n in final} == final
    assert not set(final) & set(batch.pending)


def _step(exchange: Exchange[str], name: str) -> None:
    request, pending = exchange.request, exchange.pending
    if name.startswith("send") and pending and not exchange.in_flight:
        exchange.sending(pending[: 1 if name == "send one" else None])
    sent = [slot.record_id for slot in exchange.slots if slot.fate is IN_FLIGHT]
    if name == "lost":
        exchange.lost()
    elif name == "recall":
        exchange.recall(begun=True)
    elif name == "locked" and sent:
        exchange.absorb(answer(request, *map(locked, sent), status=400))
    elif name == "applied" and sent:
        exchange.absorb(answer(request, *map(success, sent), status=200))
    elif name == "token" and sent:
        exchange.absorb(whole(request, 401, "INVALID_TOKEN"))


STEPS = ("send all", "send one", "lost", "recall", "locked", "applied", "token")


def test_p2_no_sequence_of_steps_makes_a_final_fate_locked_again():
    for names in itertools.product(STEPS, repeat=4):
        exchange = begun(update(A, B), locked(A), locked(B), status=400)
        final: dict[int, Fate] = {}
        for name in ("send one", *names):
            _step(exchange, name)
            now = fates(exchange)
            assert {number: now[number] for number in final} == final, names
            final = {number: fate for number, fate in enumerate(now) if fate in {SETTLED, UNCERTAIN}}
            assert set(exchange.pending).isdisjoint(final)


# -- the request for some of the slots


def test_p2_a_part_holds_the_rows_that_are_asked_for_and_no_other(batch):
    part = batch.part([2, 1])
    assert part.url is None
    assert json.loads(part.body or b"") == {"data": [{"id": B, "n": 1}, {"id": C, "n": 2}]}


def test_a_part_is_in_the_order_of_the_request_whatever_that_of_the_answer():
    exchange = begun(update(A, B, C), locked(C), locked(A), success(B))
    assert [slot.record_id for slot in exchange.slots] == [C, A, B]
    assert [row["id"] for row in json.loads(exchange.part(exchange.pending).body or b"")["data"]] == [A, C]


def test_a_part_in_another_order_than_the_answers_is_matched_all_the_same():
    exchange = begun(update(A, B, C), locked(C), locked(A), success(B))
    exchange.sending(exchange.pending)
    exchange.absorb(answer(exchange.request, success(A), invalid(1)))
    assert [item.code for item in exchange.items] == ["INVALID_DATA", "SUCCESS", "SUCCESS"]
    assert exchange.items[0].details["json_path"] == "$.data[2].Email"


# -- what may be sent again


def test_what_crm_refused_may_be_sent_again(batch):
    assert batch.may_resend() is None


def test_a_body_that_can_be_sent_only_once_may_not():
    exchange = begun(update(A, B), locked(A), success(B), replayable=False)
    assert exchange.may_resend() is GiveUpReason.NOT_REPLAYABLE
    assert exchange.reason is GiveUpReason.NOT_REPLAYABLE


@pytest.mark.parametrize("status", [401, 429, 500, 503])
def test_a_refusal_by_a_failing_service_proves_nothing(status):
    exchange = begun(update(A, B), locked(A), locked(B), status=status)
    assert exchange.reason is GiveUpReason.UNMATCHED


def test_an_answer_that_leaves_open_which_record_was_refused_forbids_to_send_again():
    territories = {"data": [{"id": A}, {"id": B}]}
    request = of("POST", "Leads/actions/assign_territories", territories)  # its order is not documented
    unnamed_success = {"code": "SUCCESS", "status": "success", "message": "", "details": {"id": D}}
    assert begun(request, UNNAMED, unnamed_success).reason is GiveUpReason.UNMATCHED
    assert begun(request, locked(A), success(B)).reason is None


@pytest.mark.parametrize("items", [[locked(A)], [locked(A), success(B), success(C)], [locked(D), success(B)]])
def test_counts_that_differ_or_a_foreign_record_forbid_to_send_again(items):
    assert begun(update(A, B), *items).reason is GiveUpReason.UNMATCHED


def test_a_row_that_a_later_one_of_its_record_overtook_is_not_sent_again():
    overtaken = begun(update(A, A), locked(A), success(A))
    assert overtaken.may_resend() is GiveUpReason.UNMATCHED


def test_a_row_after_an_applied_one_of_its_record_is_sent_again():
    exchange = begun(update(A, A), success(A), locked(A))
    assert exchange.may_resend() is None


def test_a_row_may_be_overtaken_on_a_resend_too():
    exchange = begun(update(A, A, B), locked(A), locked(A), success(B))
    assert exchange.reason is None
    exchange.sending([0, 1])
    exchange.absorb(answer(exchange.request, locked(A), success(A)))
    assert exchange.pending == (0,)
    assert exchange.reason is GiveUpReason.UNMATCHED


def test_rows_of_one_record_are_counted_by_their_place_in_the_request():
    exchange = begun(update(A, B, A), locked(A), success(B), locked(A))
    exchange.sending([0])
    exchange.absorb(answer(exchange.request, success(A)))
    assert exchange.reason is None
    assert exchange.pending == (2,)


def test_the_same_id_twice_is_the_same_wish_so_nothing_is_overtaken():
    tags = of("POST", "Leads/actions/add_tags", {"ids": [A, A], "tags": [{"name": "vip"}]})
    assert begun(tags, locked(A), success(A)).may_resend() is None


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        (
            "POST",
            "__composite_requests",
            {"__composite_requests": [{"method": "PUT", "uri": f"/crm/v8/Leads/{A}"}]},
        ),
        ("POST", "Leads/actions/mass_convert", {"ids": [A, B]}),
    ],
)
def test_endpoints_whose_parts_may_be_hidden_are_never_sent_again(method, path, body):
    request = of(method, path, body)
    given = answer(request, locked(A), locked(B))
    exchange = Exchange(request, given, (ZIA,))
    assert exchange.may_resend() is GiveUpReason.UNMATCHED
    assert exchange.return_unmodified


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("__composite_requests", {"__composite_requests": [{"method": "PUT", "uri": f"/crm/v8/Leads/{A}"}]}),
        ("Leads/actions/mass_convert", {"ids": [A]}),
    ],
)
def test_endpoints_that_are_never_sent_again_are_not_for_one_record_either(path, body):
    assert begun(of("POST", path, body), UNNAMED, status=400).reason is GiveUpReason.UNMATCHED


def test_a_whole_call_is_sent_again_only_if_all_of_it_was_refused():
    share = of("POST", f"Leads/{A}/actions/share", {"share": []})
    applied = {**UNNAMED, "code": "SUCCESS", "status": "success"}
    assert begun(share, UNNAMED, UNNAMED, key="share").reason is None
    assert begun(share, UNNAMED, applied, key="share").reason is GiveUpReason.UNMATCHED


def test_two_items_for_one_record_do_not_tell_that_all_was_refused():
    assert begun(update_one(), locked(A), locked(A), status=400).reason is GiveUpReason.UNMATCHED


def test_a_refusal_that_names_another_record_than_the_path_is_not_believed():
    assert begun(update_one(A), locked(B), status=400).reason is GiveUpReason.UNMATCHED
    assert begun(update_one(A), locked(A), status=400).reason is None
    assert begun(update_one(A), UNNAMED, status=400).reason is None


def test_a_record_by_an_external_field_may_be_sent_again_and_a_write_to_no_record_may_not():
    external = of("PUT", "Leads/a@b.test", {"data": [{"n": 1}]}, external=True)
    assert begun(external, UNNAMED, status=400).reason is None
    assert begun(of("POST", "settings"), UNNAMED, status=400).reason is GiveUpReason.UNMATCHED


def test_a_read_may_always_be_repeated():
    assert begun(image(A), locked(B), status=400).reason is None


# -- giving up


def test_the_first_reason_and_the_first_error_stand():
    exchange = begun(update(A), locked(A), status=400)
    met = CallError(code="ConnectionError")
    exchange.give_up(GiveUpReason.FOLLOW_UP, met)
    exchange.give_up(GiveUpReason.TIMEOUT, CallError(code="Later"))
    assert (exchange.reason, exchange.error) == (GiveUpReason.FOLLOW_UP, met)
    assert exchange.pending == (0,)
