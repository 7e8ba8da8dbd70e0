"""What an answer says of each row of a batch: never more than a single call would believe of it."""

from __future__ import annotations

import contextlib
import functools
import json
import random
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crm_guard._protocol.answer import Answer, read_answer
from crm_guard._protocol.crm_url import CrmUrl
from crm_guard._protocol.exchange import Exchange
from crm_guard._protocol.matching import match_response
from crm_guard._protocol.record_outcomes import Judge, outcomes_in
from crm_guard._protocol.request_records import CrmRequest, read_request
from crm_guard._protocol.scheduling import reading
from crm_guard._protocol.scheduling.reading import Delivery, Kind, Reading, Told, Written, lost, read_batch
from crm_guard._protocol.scheduling.target import Target
from crm_guard.outcomes import CallError, RecordOutcome

BASE = "https://www.zohoapis.com/crm/v8/"
ZIA = "zia_vision_processing"
ACTIONS = (ZIA,)
A, B, C, D = (str(555000000000000001 + index) for index in range(4))
FOREIGN = "555000000000000999"

ENDPOINTS = [
    ("PUT", "Leads", None, None),
    ("PUT", "Leads", None, "Leads.Ext"),
    ("POST", "Leads", None, None),
    ("POST", "Leads/upsert", None, None),
    ("DELETE", "Leads", None, None),
    ("POST", "Leads/actions/mass_update", {"data": [{"Company": "Z"}]}, None),
    ("POST", "Leads/actions/mass_delete", None, None),
    ("POST", "Leads/actions/add_tags", {"tags": [{"name": "x"}]}, None),
    ("POST", "Leads/actions/change_owner", {"owner": {"id": A}}, None),
    ("POST", "Leads/actions/assign_territories", None, None),
]


class Call:
    """One batch: what the scheduler knows of it, and what a single call would."""

    def __init__(
        self, method: str, path: str, rows: list[Any], body: Any = None, external: str | None = None
    ) -> None:
        target = Target(method, CrmUrl.of(BASE + path), body, external=external)
        self.ids = [target.record_id(row) for row in rows]
        url, sent = target.request([target.encode(row) for row in rows])
        self.request: CrmRequest = read_request(method, CrmUrl.of(url), lambda: sent, external=external is not None)
        self.judge = Judge(target.template, ACTIONS, "v8")
        self.positions = [1000 + 7 * number for number in range(len(rows))]

    def read(self, status: int, body: object, *, fast: bool = True, **about: Any) -> Reading:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        delivery = Delivery(status, sent, **about)
        if fast:
            return read_batch(delivery, self.judge, self.ids, self.positions)
        with mock.patch.object(reading, "_in_order", return_value=None):
            return read_batch(delivery, self.judge, self.ids, self.positions)

    def single(self, status: int, body: object) -> Answer[None]:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        return read_answer(None, status, sent, self.request)


def update(*ids: str | None) -> Call:
    return Call("PUT", "Leads", [{"id": record_id} if record_id else {"Email": "e"} for record_id in ids])


def delete(*ids: str) -> Call:
    return Call("DELETE", "Leads", list(ids))


def item(code: str = "SUCCESS", **details: Any) -> dict[str, Any]:
    status = "success" if code == "SUCCESS" else "error"
    return {"code": code, "status": status, "message": f"{code} {sorted(details)}", "details": details}


def locked(**details: Any) -> dict[str, Any]:
    return item("RECORD_LOCKED", action=ZIA, **details)


def data(*items: dict[str, Any]) -> dict[str, Any]:
    return {"data": list(items)}


# -- random answers


def _details(rng: random.Random, number: int, ids: list[Any], *, usual: bool) -> dict[str, Any]:
    own = ids[number] or f"7770000{number}"
    if usual:
        return {"id": own} if rng.random() < 0.9 else {}
    other = rng.choice(ids) or FOREIGN
    return rng.choice(
        [
            {"id": own},
            {"id": own},
            {"record_id": own},
            {"id": int(own) if own.isdigit() else own},
            {"json_path": f"$.data[{number}].id", "api_name": "id"},
            {"json_path": f"$.ids[{number}]"},
            {"json_path": f"$.data[{rng.randrange(len(ids) + 1)}]"},
            {"json_path": f"$.data[{number}]", "id": other},
            {"json_path": "$.data[*].id"},
            {"json_path": None},
            {"resource_path_index": 1},
            {"id": other},
            {"id": FOREIGN},
            {"id": None},
            {"id": 1.5},
            {},
        ]
    )


def _item(rng: random.Random, number: int, ids: list[Any], *, usual: bool) -> dict[str, Any]:
    details = _details(rng, number, ids, usual=usual)
    kind = rng.random()
    if kind < 0.45:
        return item(**details)
    if kind < 0.65:
        return locked(**details)
    if kind < 0.9 or usual:
        code = rng.choice(["RECORD_LOCKED", "NOT_APPROVED", "NOT_REVIEWED", "INVALID_DATA", "DUPLICATE_DATA"])
        return item(code, **details)
    errors = [locked(**details), item(rng.choice(["NOT_APPROVED", "INVALID_DATA"]), **details), locked()]
    nested = item("MULTIPLE_OR_MULTI_ERRORS", errors=rng.sample(errors, rng.randint(0, 3)))
    odd = {**item(**details), "code": rng.choice(["DUPLICATE_DATA", "RECORD_LOCKED", "", "SCHEDULED"])}
    strange = {**item(**details), "details": rng.choice([None, [], "x", {"id": True}])}
    return rng.choice([nested, odd, strange, {**item(), "status": "failure"}, {**item(), "message": 3}])


def _container(rng: random.Random, items: list[dict[str, Any]]) -> object:
    first = items[0] if items else item("INVALID_DATA")
    inner = {"status_code": 200, "body": {"data": items}}
    return rng.choice(
        [
            {"data": items, "locked_count": "1"},
            {"info": {}, "data": items},
            {"tags": items},
            {"share": items},
            {"data": first},
            first,
            {**first, "retry_after": 3},
            {"data": items, "__composite_requests": None},
            {"__composite_requests": [{"code": "SUCCESS", "status": "success", "details": {"response": inner}}]},
            b"<html>" * 3,
            b"",
            b'{"data":' + b"[" * 3000,
            {"code": "INTERNAL_ERROR", "status": "error", "details": {"retry_after": 3}},
        ]
    )


def random_case(seed: int) -> tuple[Call, int, object]:
    """A call, and an answer to it that is often almost right."""
    rng = random.Random(seed)
    method, path, body, external = rng.choice(ENDPOINTS)
    count = rng.choice([1, 2, 2, 3, 4, 6])
    numbers = [str(555000000000000001 + n) for n in range(count)]
    if rng.random() < 0.15:
        numbers[-1] = numbers[0]
    by_id = method == "DELETE" or ("actions/" in path and "territories" not in path)
    unnamed = path == "Leads" and method == "POST"
    hides = [unnamed or (not by_id and rng.random() < (0.5 if "upsert" in path else 0.05)) for _ in numbers]
    rows: list[Any] = (
        [int(one) if rng.random() < 0.2 else one for one in numbers]
        if by_id
        else [{"Ext": one} if external or hide else {"id": one} for one, hide in zip(numbers, hides, strict=True)]
    )
    call = Call(method, path, rows, body, external)
    usual = rng.random() < 0.5
    items = [_item(rng, number, list(call.ids), usual=usual) for number in range(count)]
    if not usual:
        change = rng.random()
        if change < 0.25:
            rng.shuffle(items)
        elif change < 0.4:
            del items[rng.randrange(count)]
        elif change < 0.5:
            items.insert(rng.randrange(count), rng.choice(items))
    if count > 2 and rng.random() < 0.1:  # refused as a whole, for rows that are named
        kept = rng.sample(range(count), rng.randint(1, count - 1))
        pointed = [{"id": call.ids[n]} if call.ids[n] else {"json_path": f"$.data[{n}].x"} for n in kept]
        named = [rng.choice([locked, functools.partial(item, "INVALID_DATA")])(**one) for one in pointed]
        return call, rng.choice([400, 400, 403, 500]), rng.choice([{"data": named}, named[0]])
    plain = usual or rng.random() < 0.6
    container: object = {"data": items} if plain else _container(rng, items)
    status = rng.choice([200, 201, 202, 207, 207, 207, 400, 400, 401, 403, 408, 429, 500, 503, 302, 204])
    return call, status, container


@functools.cache
def cases() -> list[tuple[Call, int, object]]:
    return [random_case(seed) for seed in range(1200)]


def plain(told: Written | Told | None) -> object:
    """A row's result without how it was found out."""
    if isinstance(told, Written):
        return (told.record_id, told.code, told.message, True)
    if told is None:
        return None
    outcome = told.outcome
    if outcome.succeeded:
        return (outcome.record_id, outcome.code, outcome.message, True)
    assert not (told.locked and (outcome.uncertain or not outcome.retryable))
    return outcome, told.locked, told.item.raw if told.item else None


def test_the_quick_way_and_the_slow_one_read_the_same() -> None:
    quick = 0
    for seed, (call, status, body) in enumerate(cases()):
        fast, slow = call.read(status, body), call.read(status, body, fast=False)
        assert (fast.kind, fast.credits, fast.retry_after) == (slow.kind, slow.credits, slow.retry_after), seed
        assert [plain(row) for row in fast.rows] == [plain(row) for row in slow.rows], seed
        quick += any(isinstance(row, Written) for row in fast.rows)
    assert quick > 100


def may_be_sent_again(call: Call, answer: Answer[None]) -> set[int]:
    """The rows that a single call with this request and answer would send again."""
    if answer.envelope is None:
        return set()
    exchange = Exchange(call.request, answer, ACTIONS)
    if exchange.reason is not None:
        return set()
    return {index for n in exchange.pending if (index := exchange.slots[n].request_index) is not None}


def applied_for_certain(call: Call, answer: Answer[None]) -> set[int]:
    """The rows of which an item reports a success, and no other row could be meant."""
    request, envelope, ids = call.request, answer.envelope, call.request.ids or ()
    if envelope is None or envelope.composite or envelope.key == "tags":
        return set()
    matched = match_response(request, envelope)
    if matched is not None:
        pairs = zip(matched, envelope.items, strict=True)
        return {index for index, one in pairs if index is not None and one.succeeded}
    named = [one.record_id for one in envelope.items]
    return {
        ids.index(one.record_id)
        for one in envelope.items
        if one.succeeded and one.record_id and ids.count(one.record_id) == named.count(one.record_id) == 1
    }


@pytest.mark.parametrize("fast", [True, False])
def test_no_row_goes_again_or_succeeds_that_a_single_call_would_not_believe(fast: bool) -> None:
    seen = set()
    for seed, (call, status, body) in enumerate(cases()):
        answer, read = call.single(status, body), call.read(status, body, fast=fast)
        applied = answer.envelope is not None and any(one.succeeded for one in answer.envelope.items)
        refused = answer.error.refused and not applied
        again, certain = may_be_sent_again(call, answer), applied_for_certain(call, answer)
        assert len(read.rows) in {0, len(call.ids)}, seed
        assert read.rows or refused, seed  # rows without a result are kept as refused
        for number, row in enumerate(read.rows):
            succeeded = isinstance(row, Written) or (row is not None and row.outcome.succeeded)
            assert not succeeded or number in certain, seed
            if row is None:
                assert refused, seed
            elif isinstance(row, Told):
                assert not row.locked or number in again or refused, seed
                assert row.outcome.position == call.positions[number], seed
                assert row.outcome.record_id or not call.ids[number], seed
                assert row.outcome.uncertain or succeeded or row.item or refused, seed
            seen.add((read.kind, type(row), isinstance(row, Told) and row.locked))
    assert len(seen) >= (5 if fast else 4)
    assert {kind for kind, _, _ in seen} <= {Kind.ROWS, Kind.ALIKE}


def test_where_an_answer_is_in_no_doubt_each_row_gets_the_outcome_of_a_single_call() -> None:
    compared = 0
    for seed, (call, status, body) in enumerate(cases()):
        answer = call.single(status, body)
        matched = match_response(call.request, answer.envelope) if answer.envelope else None
        if not matched or None in matched or status in {401, 429}:
            continue
        if answer.envelope is not None and answer.envelope.bare:  # to a single row it may be about the call
            continue
        read = call.read(status, body)
        if read.kind is not Kind.ROWS:
            continue
        judge = Judge(call.request, ACTIONS, "v8")
        single = {outcome.position: outcome for outcome in outcomes_in(answer, judge)}
        for number, row in enumerate(read.rows):
            if row is None:
                continue
            said = row if isinstance(row, Written) else row.outcome
            one = single[number]
            succeeded = not isinstance(said, RecordOutcome) or said.succeeded
            assert (said.code, said.message, succeeded) == (one.code, one.message, one.succeeded), seed
            if isinstance(said, RecordOutcome):
                assert (said.uncertain, said.retryable, said.case) == (one.uncertain, one.retryable, one.case), seed
        compared += 1
    assert compared > 300


def test_a_row_that_a_single_call_would_send_again_goes_again() -> None:
    """The other way round, for answers in no doubt: caution must not cost the ordinary case."""
    again = 0
    for seed, (call, status, body) in enumerate(cases()):
        answer, read = call.single(status, body), call.read(status, body)
        matched = match_response(call.request, answer.envelope) if answer.envelope else None
        if status not in {200, 207} or not matched or None in matched:
            continue
        wanted = may_be_sent_again(call, answer)
        assert {n for n, row in enumerate(read.rows) if isinstance(row, Told) and row.locked} == wanted, seed
        again += len(wanted)
    assert again > 80


# -- by hand


def test_the_usual_answer() -> None:
    read = update(A, B).read(200, data(item(id=A), item(id=B)), credits="77", retry_after=2.0)
    assert read.rows == [Written(A, "SUCCESS", "SUCCESS ['id']"), Written(B, "SUCCESS", "SUCCESS ['id']")]
    assert (read.kind, read.credits, read.retry_after) == (Kind.ROWS, 77, 2.0)


def test_an_insert_learns_its_id() -> None:
    read = Call("POST", "Leads", [{"a": 1}, {"a": 2}]).read(201, data(item(id=A), item(id=B)))
    assert [row.record_id for row in read.rows if isinstance(row, Written)] == [A, B]


def test_a_locked_row_among_written_ones_may_go_again() -> None:
    read = update(A, B, C).read(207, data(item(id=A), locked(json_path="$.data[1].id"), item(id=C)))
    row = read.rows[1]
    assert isinstance(row, Told)
    assert (row.locked, row.outcome.record_id, row.outcome.position) == (True, B, 1007)


def test_a_locked_upsert_that_a_later_row_has_overtaken_is_not_sent_again() -> None:
    call = Call("POST", "Leads/upsert", [{"Email": "a"}, {"Phone": "1"}])
    read = call.read(207, data(locked(id=A), item(id=A)))
    row = read.rows[0]
    assert isinstance(row, Told)
    assert not row.locked
    assert row.outcome.retryable


@pytest.mark.parametrize("status", [500, 503])
def test_nothing_goes_again_after_a_failing_server(status: int) -> None:
    rows = update(A, B).read(status, data(locked(id=A), item("INVALID_DATA", id=B))).rows
    assert [row.locked for row in rows if isinstance(row, Told)] == [False, False]
    assert isinstance(rows[1], Told)
    assert rows[1].outcome.uncertain


@pytest.mark.parametrize("status", [500, 502, 408, 200, 204])
def test_an_answer_without_items_leaves_all_uncertain(status: int) -> None:
    read = update(A, B).read(status, b"<html>")
    assert read.kind is Kind.ROWS
    assert [row.outcome.uncertain for row in read.rows if isinstance(row, Told)] == [True, True]


def test_a_redirect_would_meet_every_batch_and_may_have_written() -> None:
    read = update(A).read(302, b"")
    assert read.kind is Kind.ALIKE
    assert isinstance(read.rows[0], Told)
    assert read.rows[0].outcome.uncertain


@pytest.mark.parametrize(
    ("status", "kind"), [(429, Kind.THROTTLED), (401, Kind.UNAUTHORIZED), (403, Kind.ALIKE), (404, Kind.ALIKE)]
)
@pytest.mark.parametrize("body", [b"", b"<html>", {"code": "NO", "status": "error", "details": {}}])
def test_a_call_that_was_refused_has_no_results(status: int, kind: Kind, body: object) -> None:
    read = update(A, B).read(status, body, retry_after=9.0)
    assert (read.kind, tuple(read.rows), read.retry_after, read.error.status) == (kind, (), 9.0, status)
    assert update(A).read(status, body).kind is kind


@pytest.mark.parametrize("status", [429, 401])
def test_a_success_counts_whatever_the_status(status: int) -> None:
    rows = update(A, B, C).read(status, data(item(id=A), locked(id=B))).rows
    assert [isinstance(row, Told) and (row.outcome.succeeded, row.locked) for row in rows] == [
        (True, False),
        (False, False),
        (False, False),
    ]
    assert isinstance(rows[2], Told)
    assert rows[2].outcome.uncertain


def test_a_refusal_that_names_rows_holds_back_no_other() -> None:
    body = data(item("INVALID_DATA", json_path="$.data[2].x"), locked(json_path="$.data[1].id"))
    rows = update(A, B, C, D).read(400, body).rows
    assert [rows[0], rows[3]] == [None, None]
    assert isinstance(rows[1], Told)
    assert isinstance(rows[2], Told)
    assert [(row.outcome.code, row.locked, row.outcome.record_id) for row in (rows[1], rows[2])] == [
        ("RECORD_LOCKED", True, B),
        ("INVALID_DATA", False, C),
    ]


def test_each_named_row_gets_the_item_that_names_it() -> None:
    """Two items with one code and no id: the later must not be explained by the earlier."""
    first, second = item("NOT_APPROVED", json_path="$.data[0]"), item("NOT_APPROVED", json_path="$.data[2]", x=1)
    rows = update(A, B, C).read(400, data(first, second)).rows
    assert [json.loads(row.item.raw) for row in rows if isinstance(row, Told) and row.item] == [first, second]
    assert [row.outcome.message for row in rows if isinstance(row, Told)] == [first["message"], second["message"]]


@pytest.mark.parametrize("count", [2, 100])
def test_a_bare_refusal_of_one_record_ends_no_writer(count: int) -> None:
    """zoho/crm-oas v8.0: `change_owner` answers CANNOT_PROCESS bare, with `details.id`."""
    ids = [str(555000000000000001 + n) for n in range(count)]
    call = Call("POST", "Leads/actions/change_owner", ids, {"owner": {"id": "1"}})
    read = call.read(400, item("CANNOT_PROCESS", id=ids[1], index=1))
    assert read.kind is Kind.ROWS
    assert [number for number, row in enumerate(read.rows) if row is not None] == [1]


def test_a_bare_refusal_that_names_no_row_goes_in_halves() -> None:
    bare = item("NOT_APPROVED", resource_path_index=1)
    assert update(A, B).read(400, bare).kind is Kind.HALVES
    read = update(A).read(400, bare)
    assert read.kind is Kind.ROWS
    assert isinstance(read.rows[0], Told)
    assert (read.rows[0].outcome.code, read.rows[0].outcome.record_id) == ("NOT_APPROVED", A)


def test_a_bare_lock_of_a_single_row_goes_again() -> None:
    read = update(A).read(400, locked())
    assert isinstance(read.rows[0], Told)
    assert read.rows[0].locked


def test_a_bare_lock_of_a_record_that_was_not_asked_for_does_not() -> None:
    read = update(A).read(400, locked(id=FOREIGN))
    assert isinstance(read.rows[0], Told)
    assert not read.rows[0].locked


@pytest.mark.parametrize("key", ["tags", "__composite_requests"])
def test_items_about_other_things_tell_no_success(key: str) -> None:
    inner = item(response={"status_code": 200, "body": data(item())})
    read = Call("POST", "Leads/actions/add_tags", [A], {"tags": [{"name": "x"}]}).read(200, {key: [inner]})
    assert isinstance(read.rows[0], Told)
    assert read.rows[0].outcome.uncertain
    assert not read.rows[0].outcome.succeeded


@pytest.mark.parametrize("more", [{"__composite_requests": None}, {"__composite_requests": []}])
def test_the_quick_way_reads_no_other_kind_of_answer(more: dict[str, Any]) -> None:
    read = update(A, B).read(200, data(item(id=A), item(id=B)) | more)
    assert [isinstance(row, Told) and row.outcome.uncertain for row in read.rows] == [True, True]


def test_rows_without_ids_are_not_told_apart_where_no_order_is_documented() -> None:
    call = Call("POST", "Leads/actions/assign_territories", [{"x": 1}, {"x": 2}])
    rows = call.read(200, data(item(id=A), item(id=B))).rows
    assert [isinstance(row, Told) and row.outcome.uncertain for row in rows] == [True, True]


def test_one_bare_success_is_no_success_of_many() -> None:
    rows = delete(A, B).read(200, item(id=A)).rows
    assert [isinstance(row, Told) and (row.outcome.succeeded, row.outcome.uncertain) for row in rows] == [
        (True, False),
        (False, True),
    ]


def test_an_answer_out_of_order_is_read_by_ids() -> None:
    rows = delete(A, B, C).read(207, data(locked(id=C), item(id=A), item("NOT_APPROVED"))).rows
    assert [row.outcome.code for row in rows if isinstance(row, Told)] == [
        "SUCCESS",
        "NOT_APPROVED",
        "RECORD_LOCKED",
    ]
    assert [row.locked for row in rows if isinstance(row, Told)] == [False, False, True]


def test_what_a_single_row_is_asked_to_wait_is_read_from_its_details() -> None:
    assert update(A).read(207, data(locked(id=A, retry_after=7))).retry_after == 7


def test_an_answer_with_one_item_too_many_is_in_doubt() -> None:
    """All rows are named, and successes are believed; but nothing goes again."""
    rows = delete(A, B).read(207, data(item(id=A), locked(id=B), item(id=FOREIGN))).rows
    assert [isinstance(row, Told) and (row.outcome.code, row.locked) for row in rows] == [
        ("SUCCESS", False),
        ("RECORD_LOCKED", False),
    ]


def test_a_lost_answer_leaves_all_uncertain() -> None:
    call = update(A, None)
    read = lost(call.judge, call.ids, call.positions, CallError(code="ReadTimeout"))
    assert read.kind is Kind.ROWS
    outcomes = [row.outcome for row in read.rows if isinstance(row, Told)]
    assert [(one.position, one.record_id, one.uncertain, one.code) for one in outcomes] == [
        (1000, A, True, "ReadTimeout"),
        (1007, None, True, "ReadTimeout"),
    ]


# -- what others wrote


def bulk_cases() -> list[tuple[str, Target, list[Any], dict[str, Any]]]:
    """The documented answers to calls that take rows, with their rows."""
    found = []
    for path in sorted((Path(__file__).parents[2] / "corpus").glob("*.json")):
        case = json.loads(path.read_text())
        request = case["request"]
        sent = request["body"] if isinstance(request["body"], dict) else {}
        external = "Ext" if "X-EXTERNAL" in str(request) else None
        asked = request["query"].get("ids")
        rows = asked.split(",") if asked else sent.get("ids") or sent.get("data") or []
        rows = json.loads(rows) if isinstance(rows, str) else rows
        rest = {name: value for name, value in sent.items() if name != ("ids" if "ids" in sent else "data")}
        url = CrmUrl.of(f"https://www.zohoapis.com{request['path']}")
        with contextlib.suppress(ValueError):  # takes no rows, or is a job
            target = Target(request["method"], url, rest, external=external)
            found += [(path.stem, target, rows, case)] if rows else []
    return found


DOCUMENTED = bulk_cases()


@pytest.mark.parametrize("documented", DOCUMENTED, ids=[name for name, *_ in DOCUMENTED])
def test_a_documented_answer_to_a_bulk_call_reads_as_documented(documented: Any) -> None:
    _, target, rows, case = documented
    response, expect = case["response"], case["expect"]
    ids = [target.record_id(row) for row in rows]
    body = response.get("body")
    got = response.get("body_text", "" if body is None else json.dumps(body)).encode()
    judge = Judge(target.template, ACTIONS, "v8")
    read = read_batch(Delivery(response["status"], got), judge, ids, range(len(ids)))
    outcomes = expect["outcomes"]
    again = [n for n, row in enumerate(read.rows) if isinstance(row, Told) and row.locked]
    if read.kind is Kind.ROWS and len(outcomes) == len(ids):
        for row, wanted in zip(read.rows, outcomes, strict=True):
            said = row.outcome if isinstance(row, Told) else row
            assert said is not None
            assert said.code == wanted["code"]
            assert isinstance(row, Written) or said.succeeded == (wanted["status"] == "success")
            assert wanted["record_id"] in {None, said.record_id}
        assert again == expect["retry_subset"]
    assert bool(again) == expect["any_retryable"]


def test_some_of_the_documented_answers_are_to_bulk_calls() -> None:
    assert len(DOCUMENTED) > 20


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from([200, 207, 400, 401, 429, 500]))
def test_nothing_raises_whatever_comes(documents: Any, drawn: Any, status: int) -> None:
    body = drawn.draw(documents)
    for call in (update(A, B), delete(A, B, C), Call("POST", "Leads", [{}]), update(A)):
        read = call.read(status, body)
        assert len(read.rows) in {0, len(call.ids)}
        slow = call.read(status, body, fast=False)
        assert [plain(row) for row in read.rows] == [plain(row) for row in slow.rows]


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"null", b"[]", b'{"data":' * 2000, b'{"data":[' + b"[" * 9000, b'{"data":[{}]}']
)
def test_garbage_is_no_result(body: bytes) -> None:
    rows = update(A, B).read(200, body).rows
    assert [isinstance(row, Told) and row.outcome.uncertain for row in rows] == [True, True]
