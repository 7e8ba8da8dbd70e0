"""Whole conversations, driven with plain values: what is asked of the driver, in which order, and how each ends."""

from __future__ import annotations

import itertools
import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crm_guard import EventKind, GiveUpReason, GuardEvent, GuardSettings
from crm_guard._protocol.answer import Answer, read_answer
from crm_guard._protocol.conversation import Conversation
from crm_guard._protocol.crm_url import CrmUrl
from crm_guard._protocol.request_records import Part, read_request
from crm_guard._protocol.steps import Ask, Broken, Ending, Send, Share, Step, Tell, Wait, Waited
from crm_guard.outcomes import CallError, RecordOutcome
from crm_guard.remediation import ApprovalCase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

ORIGIN = "https://www.zohoapis.com"
START = 1000.0
ZIA = "zia_vision_processing"
FIRST_ID = 555000000000000001
A, B, C, D = (str(FIRST_ID + index) for index in range(4))
ROWS = b'{"data":[{"id":"%s" , "n":0}, {"id":"%s","n": 1}, {"id":"%s","n":2.0}, {"n":3,"id":"%s"}],"trigger":[]}'
BATCH = ROWS % (A.encode(), B.encode(), C.encode(), D.encode())
ROW_B, ROW_C = b'{"id":"%s","n": 1}' % B.encode(), b'{"id":"%s","n":2.0}' % C.encode()

FOLLOW_UP, INTERRUPTED, UNMATCHED = GiveUpReason.FOLLOW_UP, GiveUpReason.INTERRUPTED, GiveUpReason.UNMATCHED
TIMEOUT, ATTEMPTS, CREDITS = GiveUpReason.TIMEOUT, GiveUpReason.ATTEMPTS, GiveUpReason.CREDITS


# -- CRM's items


def item(code: str, record_id: str | None = None, **details: Any) -> dict[str, Any]:
    status = "success" if code == "SUCCESS" else "error"
    named = {} if record_id is None else {"id": record_id}
    return {"code": code, "status": status, "message": f"says {code}", "details": {**named, **details}}


def success(record_id: str) -> dict[str, Any]:
    return item("SUCCESS", record_id)


def locked(record_id: str) -> dict[str, Any]:
    return item("RECORD_LOCKED", record_id, action=ZIA)


def keys_of(*ids: str) -> frozenset[str]:
    return frozenset(f"{ORIGIN}|{record_id}" for record_id in ids)


# -- the driver's part


def no_jitter() -> float:
    return 0.0


class Call:
    """One request and its conversation; plays the driver with replies that were written down before.

    Attributes:
        steps: What the conversation asked for.
        events: What the hooks were told, without the events of the end.
    """

    def __init__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        external: bool = False,
        replayable: bool = True,
        **policy: Any,
    ) -> None:
        self.method, self.url = method, f"{ORIGIN}/crm/v8/{path}"
        self.body = json.dumps(body).encode() if isinstance(body, dict) else body
        self.address = CrmUrl.of(self.url)
        self.request = read_request(method, self.address, lambda: self.body, external=external)
        self.settings = GuardSettings(**policy)
        self.conversation: Conversation[int] = Conversation(
            self.request, self.address, method, self.settings, no_jitter, replayable=replayable
        )
        self.steps: list[Step] = []
        self.answers = 0

    @property
    def path(self) -> str:
        return urlsplit(self.url).path

    def read(self, status: int, content: Any, *, at: float = START, **told: Any) -> Answer[int]:
        """Return an answer to this call: of items, of another JSON document, or of bytes."""
        self.answers += 1
        content = {"data": content} if isinstance(content, list) else content
        body = json.dumps(content).encode() if isinstance(content, dict) else content
        return read_answer(self.answers, status, body, self.request, at=at, **told)

    def event(self, kind: EventKind, *ids: str, attempt: int, lock: bool = True, **about: Any) -> GuardEvent:
        if lock:
            about = {"code": "RECORD_LOCKED", "action": ZIA, **about}
        return GuardEvent(
            kind=kind,
            method=self.method,
            path=self.path,
            module=self.request.route.module or "",
            record_ids=ids,
            records=len(ids),
            attempt=attempt,
            **about,
        )

    def play(self, first: Answer[int] | None, *replies: Any, now: float = START) -> Ending[int]:
        """Lead the conversation to its end; each reply answers a Send, Wait or Ask, and a `Broken` is thrown."""
        script, steps, at = list(replies), self.conversation.run(first, now), first.at if first else now
        reply: Any = None
        while True:
            try:
                if isinstance(reply, Broken):
                    steps.throw(reply)
                    pytest.fail("asked for more after it was broken off")
                step = steps.send(reply)
            except StopIteration as done:
                assert not script, "less was asked for than there are replies"
                return done.value
            self.steps.append(step)
            reply = script.pop(0) if isinstance(step, Send | Wait | Ask) else at
            at = reply.at if isinstance(reply, Answer) else at

    @property
    def words(self) -> list[str]:
        """The steps in one word each: the kind of an event, or the name of another step."""
        return [word(step) for step in self.steps]

    def those(self, kind: type[Any]) -> list[Any]:
        return [step for step in self.steps if isinstance(step, kind)]

    @property
    def events(self) -> list[GuardEvent]:
        return [step.event for step in self.steps if isinstance(step, Tell)]


def word(step: Step) -> str:
    return step.event.kind.name if isinstance(step, Tell) else type(step).__name__


def one(**options: Any) -> Call:
    return Call("PUT", f"Leads/{A}", {"data": [{"Company": "Z"}]}, **options)


def batch(**options: Any) -> Call:
    return Call("PUT", "Leads", BATCH, **options)


def mixed(call: Call, **about: Any) -> Answer[int]:
    """Return the answer to a batch of which B and C are locked."""
    items = [success(A), locked(B), locked(C), item("INVALID_DATA", json_path="$.data[3].n")]
    return call.read(207, items, **about)


def went(*ids: str) -> Waited:
    return Waited(keys_of(*ids))


def codes(ending: Ending[int]) -> list[str]:
    return [outcome.code for outcome in ending.outcomes]


def fates(ending: Ending[int]) -> list[str]:
    """Return one word per record: written, locked, unknown or refused."""
    return [
        "unknown"
        if found.uncertain
        else "written"
        if found.succeeded
        else "locked"
        if found.retryable
        else "refused"
        for found in ending.outcomes
    ]


def body_of(part: Part | None) -> Any:
    assert part is not None
    assert part.body is not None
    return json.loads(part.body)


def ids_in(part: Part | None) -> list[str]:
    return [row["id"] for row in body_of(part)["data"]]


# -- one record


@pytest.mark.parametrize("waits", [1, 2, 5])
def test_a_locked_record_is_waited_for_and_sent_again_until_it_opens(waits):
    call = one()
    first = call.read(400, [locked(A)])
    later = [call.read(400, [locked(A)], at=START + 10 * n) for n in range(1, waits)]
    last = call.read(200, [success(A)], at=START + 10 * waits)
    replies = [reply for found in (*later, last) for reply in (went(A), found)]
    ending = call.play(first, *replies)

    key, nothing = keys_of(A), frozenset()
    expected = [Tell(call.event(EventKind.LOCKED, A, attempt=1, pending=1)), Share(key, nothing)]
    for number, delay in enumerate([3, 3.6, 4.32, 5, 5][:waits], 1):
        waiting = call.event(EventKind.WAITING, A, attempt=number, pending=1)
        expected += [
            Wait(key, pytest.approx(delay), START + 120, waiting),
            Tell(call.event(EventKind.RESENDING, A, attempt=number + 1, lock=False, pending=1)),
            Send(Part(), again=True),
        ]
        if number < waits:
            refused = call.event(EventKind.LOCKED, A, attempt=number + 1, pending=1)
            expected += [Share(key, nothing), Tell(refused)]
    expected.append(Share(nothing, key))
    expected.append(Tell(call.event(EventKind.UNLOCKED, A, attempt=waits + 1, lock=False)))
    assert call.steps == expected
    outcome = RecordOutcome(position=0, record_id=A, code="SUCCESS", message="says SUCCESS", succeeded=True)
    assert ending == Ending(answer=last, outcomes=(outcome,), attempts=waits + 1, keeps_results=True)
    assert ending.answer is last
    assert call.conversation.latest is last


def test_an_answer_that_refuses_nothing_is_the_result_and_asks_for_nothing():
    call = batch()
    first = call.read(207, [success(A), item("INVALID_DATA", B), success(C), success(D)])
    assert call.play(first) is None
    assert call.steps == []
    assert call.conversation.latest is first


def test_a_lock_that_gives_way_to_another_refusal_is_not_waited_for_any_longer():
    call = one(diagnose=False)
    ending = call.play(call.read(400, [locked(A)]), went(A), call.read(400, [item("RECORD_LOCKED", A, action="x")]))
    assert call.words == ["LOCKED", "Share", "Wait", "RESENDING", "Send", "Share", "UNLOCKED"]
    assert (fates(ending), ending.reason, ending.remaining, ending.raises) == (["refused"], None, None, True)
    assert [event.kind for event in ending.events] == [EventKind.BLOCKED]


def test_a_lock_that_the_settings_do_not_wait_for_is_only_told():
    call = one(retry_actions=())
    ending = call.play(call.read(400, [locked(A)]))
    assert call.steps == [Share(frozenset(), keys_of(A))]
    hint = ending.outcomes[0].hint
    assert "`retry_actions`" in hint
    assert ending.events == (call.event(EventKind.BLOCKED, A, attempt=1, hint=hint),)
    assert (fates(ending), ending.reason, ending.retry_after) == (["refused"], None, None)


def test_a_record_without_an_id_of_its_own_goes_with_whatever_may_go():
    call = Call("PUT", "Leads/x@y.test", {"data": [{"n": 1}]}, external=True)
    last = call.read(200, [success(A)])
    ending = call.play(call.read(400, [item("RECORD_LOCKED", action=ZIA)]), Waited(frozenset({""})), last)
    (wait,) = call.those(Wait)
    assert wait.keys == frozenset()
    assert fates(ending) == ["written"]
    assert {event.path for event in call.events} == {"/crm/v8/Leads/*"}
    assert call.those(Share) == [Share(frozenset(), frozenset()), Share(frozenset(), keys_of(A))]


def test_a_row_without_an_id_goes_along_with_those_that_may_go_and_the_others_wait_on():
    call = Call("POST", "Leads/upsert", {"data": [{"id": A}, {"id": B}, {"Last_Name": "N"}]})
    first = call.read(400, [locked(A), locked(B), item("RECORD_LOCKED", action=ZIA)])
    call.play(first, went(B), call.read(200, [success(B), success(C)]), Waited())
    (send,) = call.those(Send)
    assert body_of(send.part) == {"data": [{"id": B}, {"Last_Name": "N"}]}
    assert [wait.keys for wait in call.those(Wait)] == [keys_of(A, B), keys_of(A)]


def test_an_image_that_comes_after_the_wait_is_the_result():
    call = Call("GET", f"Leads/{A}/photo")
    picture = call.read(200, b"\x89PNG")
    ending = call.play(call.read(400, locked(A)), went(A), picture)
    assert call.words == ["LOCKED", "Share", "Wait", "RESENDING", "Send", "Share", "UNLOCKED"]
    assert call.steps[-2:] == [
        Share(frozenset(), keys_of(A)),
        Tell(call.event(EventKind.UNLOCKED, A, attempt=2, lock=False)),
    ]
    assert (ending.answer, ending.merged, fates(ending)) == (picture, None, ["written"])


# -- batches


def test_p2_a_resend_holds_the_refused_rows_alone_byte_for_byte():
    call = batch()
    ending = call.play(mixed(call), went(B, C), call.read(200, [success(B), success(C)]))
    (send,) = call.those(Send)
    assert send == Send(Part(body=b'{"data":[' + ROW_B + b"," + ROW_C + b'],"trigger":[]}'))
    assert call.steps[1] == Share(keys_of(B, C), keys_of(A, D))
    assert fates(ending) == ["written", "written", "written", "refused"]


def test_the_merged_answer_is_the_first_one_with_the_locks_gone():
    call = batch()
    resent = call.read(200, [{**success(C), "extra": 1}, success(B)])
    ending = call.play(mixed(call), went(B, C), resent)
    assert ending.merged is not None
    assert ending.merged.status == 207
    invalid = item("INVALID_DATA", json_path="$.data[3].n")
    assert json.loads(ending.merged.body) == {"data": [success(A), success(B), {**success(C), "extra": 1}, invalid]}
    assert ending.answer is resent
    assert [outcome.position for outcome in ending.outcomes] == [0, 1, 2, 3]
    assert (ending.reason, ending.remaining, ending.events, ending.raises) == (None, None, (), False)


def test_a_batch_that_is_all_applied_in_the_end_is_answered_with_200():
    call = batch()
    ending = call.play(
        call.read(207, [success(A), locked(B), success(C), success(D)]), went(B), call.read(200, [success(B)])
    )
    assert ending.merged is not None
    assert ending.merged.status == 200
    assert json.loads(ending.merged.body) == {"data": [success(A), success(B), success(C), success(D)]}


def test_what_else_the_body_holds_is_that_of_crms_answer_of_the_same_kind():
    call = batch()
    first = call.read(207, {"info": "some", "data": [success(A), locked(B), success(C), success(D)]})
    ending = call.play(first, went(B), call.read(200, {"data": [success(B)], "info": "all"}))
    assert ending.merged is not None
    assert json.loads(ending.merged.body)["info"] == "all"
    call = batch()
    first = call.read(207, {"info": "some", "data": [success(A), locked(B), success(C), success(D)]})
    ending = call.play(first, went(B), call.read(400, {"data": [item("INVALID_DATA", B)], "info": "none"}))
    assert ending.merged is not None
    assert (ending.merged.status, json.loads(ending.merged.body)["info"]) == (207, "some")


def test_p2_only_the_records_that_may_go_are_sent_and_the_others_wait_on():
    call = batch()
    ending = call.play(
        mixed(call),
        went(C),
        call.read(200, [success(C)], at=START + 3),
        went(B),
        call.read(200, [success(B)], at=START + 7),
    )
    assert [send.part.body for send in call.those(Send)] == [
        b'{"data":[' + row + b'],"trigger":[]}' for row in (ROW_C, ROW_B)
    ]
    assert [(wait.keys, wait.delay, wait.deadline) for wait in call.those(Wait)] == [
        (keys_of(B, C), 3, START + 120),
        (keys_of(B), pytest.approx(3.6), START + 120),
    ]
    assert [wait.event.record_ids for wait in call.those(Wait)] == [(B, C), (B,)]
    assert call.those(Share)[1:] == [Share(frozenset(), keys_of(C)), Share(frozenset(), keys_of(B))]
    assert [wait.event.pending for wait in call.those(Wait)] == [2, 1]
    assert [(event.kind.name, event.record_ids, event.attempt, event.pending) for event in call.events] == [
        ("LOCKED", (B, C), 1, 2),
        ("RESENDING", (C,), 2, 2),
        ("UNLOCKED", (C,), 2, 1),
        ("RESENDING", (B,), 3, 1),
        ("UNLOCKED", (B,), 3, 0),
    ]
    assert ending.attempts == 3
    assert fates(ending) == ["written", "written", "written", "refused"]


def test_keys_of_other_calls_that_may_go_are_of_no_concern():
    call = batch()
    foreign = frozenset({f"https://other.test|{C}", f"{ORIGIN}|1"})
    call.play(mixed(call), Waited(keys_of(B) | foreign), call.read(200, [success(B)]), Waited())
    (send,) = call.those(Send)
    assert ids_in(send.part) == [B]


def test_a_record_that_is_still_locked_is_shared_as_such_and_waits_again():
    call = batch()
    call.play(
        mixed(call), went(B, C), call.read(207, [success(B), locked(C)]), went(C), call.read(200, [success(C)])
    )
    assert call.words == [
        *("LOCKED", "Share", "Wait", "RESENDING", "Send", "Share", "LOCKED", "UNLOCKED"),
        *("Wait", "RESENDING", "Send", "Share", "UNLOCKED"),
    ]
    assert call.those(Share)[1] == Share(keys_of(C), keys_of(B))
    assert call.events[2:4] == [
        call.event(EventKind.LOCKED, C, attempt=2, pending=1),
        call.event(EventKind.UNLOCKED, B, attempt=2, pending=1, lock=False),
    ]


def test_only_those_that_were_sent_again_are_told_to_be_still_locked():
    call = batch()
    call.play(mixed(call), went(C), call.read(400, [locked(C)]), Waited())
    told = [event for event in call.events if event.kind is EventKind.LOCKED]
    assert [(event.record_ids, event.attempt, event.pending) for event in told] == [((B, C), 1, 2), ((C,), 2, 2)]


def test_a_refusal_of_the_last_attempt_is_told_before_it_is_given_up():
    call = batch(attempts=2)
    ending = call.play(mixed(call), went(B, C), call.read(400, [locked(B), locked(C)]))
    assert call.words == ["LOCKED", "Share", "Wait", "RESENDING", "Send", "Share", "LOCKED"]
    assert call.events[-1] == call.event(EventKind.LOCKED, B, C, attempt=2, pending=2)
    (told,) = ending.events
    assert (told.kind, told.record_ids, told.pending) == (EventKind.GAVE_UP, (B, C), 0)
    assert told.hint == ending.outcomes[1].hint


def test_an_answer_out_of_order_is_put_back_into_the_order_of_the_first():
    call = batch()
    ending = call.play(mixed(call), went(B, C), call.read(207, [locked(C), success(B)]), Waited())
    assert codes(ending) == ["SUCCESS", "SUCCESS", "RECORD_LOCKED", "INVALID_DATA"]
    assert [found.record_id for found in ending.outcomes] == [A, B, C, D]
    assert ids_in(ending.remaining) == [C]
    assert ending.merged is not None
    assert [found["code"] for found in json.loads(ending.merged.body)["data"]] == codes(ending)


def test_p2_a_record_that_the_resend_does_not_name_is_unknown_and_never_sent_again():
    call = batch()
    ending = call.play(mixed(call), went(B, C), call.read(207, [locked(C)]))
    assert fates(ending) == ["written", "unknown", "locked", "refused"]
    assert (ending.reason, ending.remaining) == (UNMATCHED, None)
    assert call.words == ["LOCKED", "Share", "Wait", "RESENDING", "Send"]
    (told,) = ending.events
    assert (told.kind, told.reason, told.record_ids) == (EventKind.GAVE_UP, UNMATCHED, (B, C))


def test_ids_in_the_query_are_narrowed_in_the_url():
    call = Call("DELETE", f"Leads?ids={A},{B},{C}&wf_trigger=false")
    ending = call.play(
        call.read(207, [success(A), locked(B), locked(C)]),
        went(C),
        call.read(200, [success(C)]),
        went(B),
        call.read(200, [success(B)]),
    )
    assert [send.part for send in call.those(Send)] == [
        Part(url=f"{ORIGIN}/crm/v8/Leads?ids={record_id}&wf_trigger=false") for record_id in (C, B)
    ]
    assert fates(ending) == ["written"] * 3


def test_a_batch_that_is_refused_as_a_whole_is_sent_again_as_it_was():
    call = batch()
    ids = (A, B, C, D)
    ending = call.play(call.read(400, [*map(locked, ids)]), went(*ids), call.read(200, [*map(success, ids)]))
    assert call.those(Send) == [Send(Part())]
    assert ending.merged is None  # the last answer is the result


# -- approvals


@pytest.mark.parametrize("code", ["NOT_APPROVED", "NOT_REVIEWED"])
def test_a_missing_approval_is_asked_about_at_once_and_never_waited_for(code):
    call = one()
    first = call.read(400, [item(code, A)])
    ending = call.play(first, {A: "zia_vision_rejected"})
    assert call.steps == [Share(frozenset(), keys_of(A)), Ask("Leads", (A,))]
    (outcome,) = ending.outcomes
    case = ApprovalCase.ZIA_REJECTED if code == "NOT_APPROVED" else ApprovalCase.REVIEW_PROCESS
    assert (outcome.case, outcome.candidates, outcome.approval_state) == (case, (case,), "zia_vision_rejected")
    assert outcome.hint
    told = {"code": code, "case": case, "hint": outcome.hint}
    assert ending.events == (call.event(EventKind.BLOCKED, A, attempt=1, lock=False, **told),)
    assert (ending.answer, ending.merged, ending.raises, ending.retry_after) == (first, None, True, None)
    assert (ending.reason, ending.remaining, ending.error) == (None, None, None)


def test_a_record_that_is_being_checked_again_is_worth_a_later_try():
    call = one()
    ending = call.play(call.read(400, [item("NOT_APPROVED", A)]), {A: "zia_vision_validation"})
    assert ending.retry_after == call.settings.wait_max
    assert ending.outcomes[0].checked_again


def test_without_a_state_every_possible_case_is_named():
    call = one()
    ending = call.play(call.read(400, [item("NOT_APPROVED", A)]), {})
    assert ending.outcomes[0].case is None
    assert len(ending.outcomes[0].candidates) == 3


def test_a_hint_is_added_to_the_body_only_if_that_is_wanted():
    call = one(hints_in_body=True)
    ending = call.play(call.read(400, [item("NOT_APPROVED", A)]), {A: "zia_vision_rejected"})
    assert ending.merged is not None
    assert ending.merged.status == 400
    (shown,) = json.loads(ending.merged.body)["data"]
    assert shown["message"] == f"says NOT_APPROVED {ending.outcomes[0].hint}"


NO_ASK = {
    "told not to": (lambda: one(diagnose=False), {}),
    "no credits": (one, {"credits": "0"}),
    "few credits": (lambda: one(min_credits=50), {"credits": "50"}),
    "no module": (lambda: Call("POST", f"__x/{A}"), {}),
    "no record": (lambda: Call("POST", "Leads", {"data": [{"n": 1}]}), {"named": None}),
}


@pytest.mark.parametrize("name", NO_ASK)
def test_approval_states_are_not_asked_for(name):
    make, told = NO_ASK[name]
    call, told = make(), dict(told)
    refused = item("NOT_APPROVED", told.pop("named", A))
    ending = call.play(call.read(400, [refused], **told))
    assert call.words == ["Share"]
    assert ending.outcomes[0].needs_approval
    assert ending.outcomes[0].approval_state is None


def test_with_one_credit_more_than_the_least_they_are_asked_for():
    call = one(min_credits=50)
    call.play(call.read(400, [item("NOT_APPROVED", A)], credits="51"), {})
    assert call.words == ["Share", "Ask"]


def test_approvals_are_asked_about_once_and_after_the_locks_are_gone():
    call = batch()
    refused = [item("NOT_APPROVED", A), locked(B), locked(C), item("NOT_APPROVED", D)]
    states = {A: "zia_vision_pending", B: "zia_vision_rejected", D: "approval_process_pending"}
    ending = call.play(
        call.read(400, refused), went(B, C), call.read(207, [item("NOT_APPROVED", B), success(C)]), states
    )
    assert call.steps[-1] == Ask("Leads", (A, B, D))
    assert [outcome.case for outcome in ending.outcomes] == [
        ApprovalCase.RECORD_APPROVAL,
        ApprovalCase.ZIA_REJECTED,
        None,
        ApprovalCase.APPROVAL_PROCESS,
    ]
    hints = [outcome.hint for outcome in ending.outcomes]
    assert [(event.case, event.record_ids, event.hint) for event in ending.events] == [
        (ApprovalCase.APPROVAL_PROCESS, (D,), hints[3]),
        (ApprovalCase.RECORD_APPROVAL, (A,), hints[0]),
        (ApprovalCase.ZIA_REJECTED, (B,), hints[1]),
    ]
    assert not ending.raises


@pytest.mark.parametrize(
    ("raise_on", "some", "none"), [("failure", False, True), ("partial", True, True), ("never", False, False)]
)
def test_what_raises_is_what_the_settings_say(raise_on, some, none):
    refused = [item("NOT_APPROVED", record_id) for record_id in (A, B, C, D)]
    call = batch(raise_on=raise_on, diagnose=False)
    assert call.play(call.read(400, refused)).raises is none
    call = batch(raise_on=raise_on, diagnose=False)
    assert call.play(call.read(207, [success(A), *refused[1:]])).raises is some


# -- budgets


def gave_up(call: Call, ending: Ending[int], reason: GiveUpReason, *, attempts: int, later: float) -> None:
    """Check the ending of one record that is still locked."""
    assert (ending.reason, ending.attempts, ending.retry_after) == (reason, attempts, pytest.approx(later))
    assert (fates(ending), ending.remaining, ending.merged) == (["locked"], Part(), None)
    hint = ending.outcomes[0].hint
    assert hint
    assert ending.events == (call.event(EventKind.GAVE_UP, A, attempt=attempts, reason=reason, hint=hint),)
    assert ending.raises
    assert not ending.keeps_results
    assert ending.error is None


def test_one_attempt_never_waits():
    call = one(attempts=1)
    ending = call.play(call.read(400, [locked(A)]))
    assert call.words == ["LOCKED", "Share"]
    gave_up(call, ending, ATTEMPTS, attempts=1, later=3)


def test_no_more_attempts_than_the_settings_allow():
    call = one(attempts=3)
    refusals = [call.read(400, [locked(A)]) for _ in range(3)]
    ending = call.play(refusals[0], went(A), refusals[1], went(A), refusals[2])
    assert len(call.those(Send)) == 2
    gave_up(call, ending, ATTEMPTS, attempts=3, later=4.32)


def test_without_a_time_budget_nothing_is_waited_for():
    call = one(timeout=0)
    gave_up(call, call.play(call.read(400, [locked(A)])), TIMEOUT, attempts=1, later=3)
    assert call.words == ["LOCKED", "Share"]


@pytest.mark.parametrize(("at", "waits"), [(6.3, 2), (6.5, 1)])
def test_a_wait_that_would_end_after_the_deadline_never_begins(at, waits):
    call = one(timeout=10)
    replies = [went(A), call.read(400, [locked(A)], at=START + at)]
    ending = call.play(call.read(400, [locked(A)]), *replies, *[Waited()][: waits - 1])
    assert len(call.those(Wait)) == waits
    assert {wait.deadline for wait in call.those(Wait)} == {START + 10}
    gave_up(call, ending, TIMEOUT, attempts=2, later=3.6)


def test_the_time_budget_begins_with_the_first_refusal_and_not_with_the_call():
    call = one(timeout=10)
    call.play(call.read(400, [locked(A)], at=START + 500), Waited(), now=START)
    assert call.those(Wait)[0].deadline == START + 510


@pytest.mark.parametrize(("left", "waits"), [("7", 1), ("6", 0), ("0", 0), (None, 1), ("many", 1)])
def test_credits_from_the_least_on_are_left_alone(left, waits):
    call = one(min_credits=6)
    ending = call.play(call.read(400, [locked(A)], credits=left), *[Waited()] * waits)
    assert len(call.those(Wait)) == waits
    gave_up(call, ending, TIMEOUT if waits else CREDITS, attempts=1, later=3)


def test_credits_are_counted_by_the_latest_answer():
    call = one()
    resent = call.read(400, [locked(A)], credits="0")
    ending = call.play(call.read(400, [locked(A)], credits="9"), went(A), resent)
    gave_up(call, ending, CREDITS, attempts=2, later=3.6)


@pytest.mark.parametrize("reason", [GiveUpReason.STOPPED, TIMEOUT])
def test_a_wait_that_ends_before_its_time_ends_the_call(reason):
    call = one()
    ending = call.play(call.read(400, [locked(A)]), Waited(stopped=reason is GiveUpReason.STOPPED))
    assert call.words == ["LOCKED", "Share", "Wait"]
    gave_up(call, ending, reason, attempts=1, later=3)


def test_p5_what_was_applied_before_the_wait_ended_is_part_of_the_result():
    call = batch()
    ending = call.play(mixed(call), went(B), call.read(200, [success(B)]), Waited(stopped=True))
    assert fates(ending) == ["written", "written", "locked", "refused"]
    assert ids_in(ending.remaining) == [C]
    assert ending.keeps_results
    assert ending.merged is not None
    assert ending.merged.status == 207
    (told,) = ending.events
    assert (told.record_ids, told.attempt, told.reason) == ((C,), 2, GiveUpReason.STOPPED)


def test_crm_may_ask_for_a_longer_wait():
    call = one()
    call.play(call.read(400, [locked(A)], retry_after=30.0), Waited())
    assert call.those(Share) == [Share(keys_of(A), frozenset(), 30.0)], "others keep it, too"
    assert call.those(Wait)[0].delay == 30


# -- other problems of a resend

TOKEN = {"code": "INVALID_TOKEN", "status": "error", "message": "invalid oauth token", "details": {}}


def test_p5_an_expired_token_before_anything_was_applied_is_the_answer_as_it_came():
    call = one()
    refused = call.read(401, TOKEN)
    ending = call.play(call.read(400, [locked(A)]), went(A), refused)
    assert call.words == ["LOCKED", "Share", "Wait", "RESENDING", "Send"]
    assert (ending.answer, ending.merged, ending.reason, ending.attempts) == (refused, None, FOLLOW_UP, 2)
    assert ending.error == CallError(status=401, code="INVALID_TOKEN", message="invalid oauth token")
    assert (fates(ending), ending.remaining, ending.keeps_results) == (["locked"], Part(), False)
    assert not ending.raises  # the caller handles a 401 better
    assert "refresh" in ending.outcomes[0].hint
    (told,) = ending.events
    assert (told.kind, told.reason, told.error, told.hint) == (
        EventKind.GAVE_UP,
        FOLLOW_UP,
        CallError(status=401, code="INVALID_TOKEN"),
        ending.outcomes[0].hint,
    )


def test_p5_an_expired_token_after_something_was_applied_loses_no_result():
    call = batch()
    ending = call.play(mixed(call), went(B, C), call.read(401, TOKEN))
    assert fates(ending) == ["written", "locked", "locked", "refused"]
    assert ids_in(ending.remaining) == [B, C]
    assert ending.keeps_results
    assert ending.merged is not None
    assert ending.merged.status == 207
    assert [found["code"] for found in json.loads(ending.merged.body)["data"]] == codes(ending)
    assert ending.error is not None
    assert ending.error.status == 401


def test_p5_an_expired_token_for_a_batch_of_which_nothing_was_applied_is_the_answer_as_it_came():
    call = batch(raise_on="failure")
    ids = (A, B, C, D)
    refused = call.read(401, TOKEN)
    ending = call.play(call.read(400, [*map(locked, ids)]), went(A), refused)
    assert (ending.answer, ending.merged, ending.raises) == (refused, None, False)
    assert fates(ending) == ["locked"] * 4
    assert ending.remaining == Part()


def test_too_many_calls_are_told_with_the_wait_that_crm_asks_for():
    call = batch()
    many = {"code": "TOO_MANY_REQUESTS", "status": "error", "message": "", "details": {}}
    ending = call.play(mixed(call), went(B, C), call.read(429, many, retry_after=60.0))
    assert (ending.retry_after, ending.reason) == (60, FOLLOW_UP)
    assert ending.error is not None
    assert (ending.error.status, ending.error.retry_after) == (429, 60)
    assert ids_in(ending.remaining) == [B, C]
    assert "60 s" in ending.outcomes[1].hint


@pytest.mark.parametrize(("status", "content"), [(500, b""), (503, b"<html>"), (504, TOKEN), (408, b"")])
def test_p2_after_an_answer_that_proves_nothing_what_was_sent_is_unknown(status, content):
    call = batch()
    ending = call.play(mixed(call), went(C), call.read(status, content))
    assert fates(ending) == ["written", "locked", "unknown", "refused"]
    assert ids_in(ending.remaining) == [B]
    assert (ending.reason, ending.attempts) == (FOLLOW_UP, 2)
    assert str(status) in ending.outcomes[2].hint
    assert ending.retry_after is not None
    (told,) = ending.events
    assert told.record_ids == (B, C)


def test_a_failing_server_may_say_when_to_look_again():
    call = one()
    ending = call.play(call.read(400, [locked(A)]), went(A), call.read(503, b"", retry_after=90.0))
    assert (fates(ending), ending.retry_after) == (["unknown"], 90)


def test_p2_one_record_behind_a_failing_server_is_unknown():
    call = one()
    ending = call.play(call.read(400, [locked(A)]), went(A), call.read(502, b"<html>"))
    assert (fates(ending), ending.remaining) == (["unknown"], None)
    assert (ending.reason, ending.merged, ending.raises, ending.keeps_results) == (FOLLOW_UP, None, False, False)


@pytest.mark.parametrize("content", [{"hello": 1}, b"", b"<html>", None, {"data": []}, {"data": [{"id": B}]}])
def test_p2_an_answer_without_items_is_no_success(content):
    call = batch()
    ending = call.play(mixed(call), went(B, C), call.read(200, content))
    assert fates(ending) == ["written", "unknown", "unknown", "refused"]
    assert (ending.reason, ending.remaining) == (FOLLOW_UP, None)
    call = one()
    ending = call.play(call.read(400, [locked(A)]), went(A), call.read(200, content))
    assert fates(ending) == ["unknown"]


def test_a_body_that_can_be_sent_only_once_is_not_waited_for():
    call = batch(replayable=False)
    ending = call.play(mixed(call))
    assert call.words == ["LOCKED", "Share"]
    assert (ending.reason, ending.remaining) == (GiveUpReason.NOT_REPLAYABLE, None)
    assert fates(ending) == ["written", "locked", "locked", "refused"]
    assert ending.merged is None


def test_a_composite_call_is_explained_and_never_sent_again():
    def sub(record_id: str, *items: dict[str, Any]) -> dict[str, Any]:
        response = {"status_code": 200, "body": {"data": items}}
        return {"code": "SUCCESS", "status": "success", "message": "", "details": {"response": response}}

    requests = [{"method": "PUT", "uri": f"/crm/v8/Leads/{record_id}"} for record_id in (A, B)]
    call = Call("POST", "__composite_requests", {"__composite_requests": requests})
    first = call.read(200, {"__composite_requests": [sub(A, success(A)), sub(B, locked(B))]})
    ending = call.play(first)
    assert call.words == ["LOCKED", "Share"]
    assert (ending.answer, ending.merged, ending.reason, ending.remaining) == (first, None, UNMATCHED, None)
    assert fates(ending) == ["written", "locked"]
    assert not ending.raises
    assert call.conversation.keys == frozenset()


# -- records that are known to be locked before the first send


def test_known_locks_are_waited_out_before_the_first_send():
    call = one()
    last = call.read(200, [success(A)], at=START + 50)
    ending = call.play(None, went(A), last)
    key, nothing = keys_of(A), frozenset()
    assert call.conversation.keys == key
    assert call.steps == [
        Tell(call.event(EventKind.LOCKED, A, attempt=0, pending=1)),
        Wait(key, 3, START + 120, call.event(EventKind.WAITING, A, attempt=0, pending=1)),
        Send(Part(), again=False),
        Share(nothing, key),
        Tell(call.event(EventKind.UNLOCKED, A, attempt=1)),
    ]
    outcome = RecordOutcome(position=0, record_id=A, code="SUCCESS", message="says SUCCESS", succeeded=True)
    assert ending == Ending(answer=last, outcomes=(outcome,))


@pytest.mark.parametrize("reason", [TIMEOUT, GiveUpReason.STOPPED])
def test_known_locks_do_not_keep_a_call_from_its_first_send(reason):
    call = one()
    ending = call.play(None, Waited(stopped=reason is GiveUpReason.STOPPED), call.read(200, [success(A)]))
    assert call.those(Send) == [Send(Part(), again=False)]
    assert fates(ending) == ["written"]


def test_a_first_send_that_fails_after_the_wait_is_told_as_it_is():
    call = one()
    failed = call.read(429, {"code": "TOO_MANY_REQUESTS", "status": "error", "details": {}}, retry_after=20.0)
    ending = call.play(None, went(A), failed)
    assert call.words == ["LOCKED", "Wait", "Send", "GAVE_UP"]
    assert (ending.answer, ending.merged, ending.attempts, ending.retry_after) == (failed, None, 1, 20)
    assert ending.error is not None
    assert ending.error.status == 429
    told = call.events[-1]
    assert (told.attempt, told.reason, told.error, told.pending) == (
        1,
        FOLLOW_UP,
        CallError(status=429, code="TOO_MANY_REQUESTS", retry_after=20),
        0,
    )
    assert told.hint == ending.outcomes[0].hint


def test_an_answer_without_a_lock_frees_the_records_only_if_it_is_a_success():
    call = one()
    ending = call.play(None, went(A), call.read(400, [item("INVALID_DATA", A)]))
    assert call.words == ["LOCKED", "Wait", "Send", "UNLOCKED"]
    assert fates(ending) == ["refused"]


def test_a_refusal_of_the_first_send_goes_on_with_the_same_budget_and_the_next_wait():
    call = one()
    ending = call.play(
        None,
        went(A),
        call.read(400, [locked(A)], at=START + 3),
        went(A),
        call.read(200, [success(A)], at=START + 7),
    )
    assert call.words == [
        *("LOCKED", "Wait", "Send"),
        *("LOCKED", "Share", "Wait", "RESENDING", "Send", "Share", "UNLOCKED"),
    ]
    assert [(wait.delay, wait.deadline) for wait in call.those(Wait)] == [
        (3, START + 120),
        (pytest.approx(3.6), START + 120),
    ]
    assert [send.again for send in call.those(Send)] == [False, True]
    assert [event.attempt for event in call.events] == [0, 1, 2, 2]
    assert (fates(ending), ending.attempts) == (["written"], 2)


def test_p5_broken_off_before_the_first_send_everything_is_left_for_later():
    call = one()
    ending = call.play(None, Broken(sends=0))
    assert (ending.answer, ending.attempts, ending.reason) == (None, 0, INTERRUPTED)
    assert (fates(ending), ending.remaining, ending.retry_after) == (["locked"], Part(), call.settings.wait_max)
    assert ending.outcomes[0].action == ZIA
    told = {"reason": INTERRUPTED, "hint": ending.outcomes[0].hint}
    assert told["hint"]
    assert ending.events == (call.event(EventKind.GAVE_UP, A, attempt=0, **told),)


@pytest.mark.parametrize(("arrived", "fate", "remaining"), [(True, "unknown", None), (False, "locked", Part())])
def test_p2_broken_off_in_the_first_send_it_is_unknown_if_it_may_have_arrived(arrived, fate, remaining):
    call = one()
    met = CallError(code="ConnectionError")
    ending = call.play(None, went(A), Broken(met, sends=1, arrived=arrived))
    assert (fates(ending), ending.remaining, ending.attempts) == ([fate], remaining, 1)
    assert (ending.error, ending.reason) == (met, FOLLOW_UP)
    assert (ending.retry_after is None) == arrived
    assert ("ConnectionError" in ending.outcomes[0].hint) == arrived
    (told,) = ending.events
    assert (told.kind, told.attempt, told.error) == (EventKind.GAVE_UP, 1, met)
    assert told.hint == ending.outcomes[0].hint


def test_what_locks_a_record_is_not_guessed_where_it_may_be_one_of_several():
    call = one(retry_actions=(ZIA, "other"))
    ending = call.play(None, Broken(sends=0))
    assert [event.action for event in (*call.events, *ending.events)] == [None, None]
    assert ending.outcomes[0].action is None


def test_p5_broken_off_after_the_first_answer_came_that_answer_counts():
    call = one()
    came = call.read(200, [success(A)])
    ending = call.play(None, went(A), Broken(sends=1, answer=came))
    assert (ending.answer, fates(ending), ending.remaining) == (came, ["written"], None)
    call = one()
    came = call.read(400, [locked(A)])
    ending = call.play(None, went(A), Broken(sends=1, answer=came))
    assert (ending.answer, fates(ending), ending.remaining) == (came, ["locked"], Part())
    assert ending.reason is INTERRUPTED


def test_p5_an_answer_that_had_come_tells_how_long_to_wait():
    call = one()
    many = call.read(429, {"code": "TOO_MANY_REQUESTS", "status": "error", "details": {}}, retry_after=60.0)
    ending = call.play(call.read(400, [locked(A)]), went(A), Broken(sends=2, answer=many))
    assert (ending.reason, ending.retry_after, ending.remaining) == (FOLLOW_UP, 60, Part())


def test_a_stream_that_was_never_sent_cannot_be_left_for_later():
    call = one(replayable=False)
    ending = call.play(None, Broken(sends=0))
    assert (fates(ending), ending.remaining) == (["locked"], None)


@pytest.mark.parametrize(
    ("make", "keys"),
    [
        (one, keys_of(A)),
        (batch, keys_of(A, B, C, D)),
        (lambda: Call("GET", f"Leads/{A}/photo"), keys_of(A)),
        (lambda: Call("GET", f"Leads/{A}"), frozenset()),
        (lambda: Call("POST", "Leads", {"data": [{"id": A}, {"n": 1}]}), frozenset()),
        (lambda: Call("POST", "Leads/actions/mass_update", {"cvid": "1"}), frozenset()),
        (lambda: one(external=True), frozenset()),
        (lambda: one(timeout=0), frozenset()),
        (lambda: one(max_inspect_bytes=0), frozenset()),
        (lambda: one(retry_actions=()), frozenset()),
    ],
)
def test_it_makes_sense_to_wait_first_only_where_a_lock_can_refuse_and_all_records_are_known(make, keys):
    assert make().conversation.keys == keys


# -- broken off at every step


@dataclass
class Crm:
    """A CRM in a few lines: how often it refuses each record, or for good with which code, and what it wrote.

    A write is noted with the row's own `n` where records are rows.
    """

    home: str
    refusals: dict[str, int | str]
    written: list[tuple[str, int]] = field(default_factory=list)

    def receive(self, url: str, body: bytes | None) -> list[dict[str, Any]]:
        return [self._result(index, *named) for index, named in enumerate(self.named_in(url, body))]

    def named_in(self, url: str, body: bytes | None) -> list[tuple[str, int]]:
        """Return what a request asks for, read anew with the standard library."""
        if self.home == "query":
            return [(record_id, 0) for record_id in parse_qs(urlsplit(url).query)["ids"][0].split(",")]
        if self.home == "path":
            return [(urlsplit(url).path.split("/")[4], 0)]
        sent = json.loads(body or b"")
        if self.home == "ids":
            return [(record_id, 0) for record_id in sent["ids"]]
        return [(row["id"], row["n"]) for row in sent["data"]]

    def _result(self, index: int, record_id: str, row: int) -> dict[str, Any]:
        left = self.refusals[record_id]
        if left == "INVALID_DATA" and self.home == "data":
            return item(left, json_path=f"$.data[{index}].Email")
        if isinstance(left, str):
            return item(left, record_id)
        if left > 0:
            self.refusals[record_id] = left - 1
            return locked(record_id)
        self.written.append((record_id, row))
        return success(record_id)

    @property
    def ids_written(self) -> set[str]:
        return {record_id for record_id, _ in self.written}


def status_of(items: Sequence[dict[str, Any]]) -> int:
    applied = sum(found["status"] == "success" for found in items)
    return 200 if applied == len(items) else 207 if applied else 400


BODIES: dict[str, Callable[[Sequence[str]], Any]] = {
    "data": lambda ids: {"data": [{"id": record_id, "n": n} for n, record_id in enumerate(ids)], "trigger": []},
    "ids": lambda ids: {"tags": [{"name": "vip"}], "ids": list(ids)},
    "query": lambda _: None,
    "path": lambda _: {"data": [{"Company": "Z"}]},
}
PLACES = {
    "data": ("PUT", "Leads"),
    "ids": ("POST", "Leads/actions/add_tags"),
    "query": ("DELETE", "Leads?ids={}&x=1"),
    "path": ("PUT", "Leads/{}"),
}


class Guarded:
    """A call and the CRM that answers it.

    Attributes:
        sends: Sends that have begun.
        last: The records of the most recent send that has reached CRM.
    """

    def __init__(self, home: str, ids: Sequence[str], crm: Crm, **policy: Any) -> None:
        method, path = PLACES[home]
        self.call = Call(method, path.format(",".join(ids)), BODIES[home](ids), **policy)
        self.crm, self.ids = crm, list(ids)
        self.sends = 0
        self.at = START
        self.last: list[tuple[str, int]] = []
        self.answer: Answer[int] | None = None

    def sent(self, part: Part) -> tuple[str, bytes | None]:
        return part.url or self.call.url, part.body or self.call.body

    def transmit(self, part: Part) -> Answer[int]:
        """Have CRM receive the request, changed as `part` says."""
        url, body = self.sent(part)
        self.sends += 1
        self.last = self.crm.named_in(url, body)
        items = self.crm.receive(url, body)
        self.answer = self.call.read(status_of(items), items, at=self.at)
        return self.answer

    def first(self) -> Answer[int]:
        return self.transmit(Part())

    def reply(self, step: Step) -> Any:
        match step:
            case Send(part=part):
                return self.transmit(part)
            case Wait(keys=keys, delay=delay):
                self.at += delay
                return Waited(keys)
            case Ask(ids=ids):
                return dict.fromkeys(ids, "zia_vision_rejected")
        return self.at


@dataclass(frozen=True)
class Break:
    """How a call is broken off at a step: what of a send under way happened. Otherwise there is none under way."""

    name: str
    begun: bool = True
    received: bool = False
    arrived: bool = True
    at_hand: bool = False
    reason: GiveUpReason = INTERRUPTED
    error: CallError | None = None


MET = CallError(code="ConnectionError")
BREAKS = (
    Break("before the send began", begun=False),
    Break("before the send began, nothing came", begun=False, arrived=False, reason=FOLLOW_UP, error=MET),
    Break("never arrived", arrived=False, reason=FOLLOW_UP, error=MET),
    Break("lost on the way there", reason=FOLLOW_UP, error=MET),
    Break("lost on the way back", received=True, reason=FOLLOW_UP, error=MET),
    Break("interrupted on the way back", received=True),
    Break("the answer had come", received=True, at_hand=True),
)


@dataclass(frozen=True)
class Scenario:
    """A conversation that is broken off at each of its steps."""

    name: str
    home: str
    refusals: dict[str, int | str]
    early: bool = False
    policy: tuple[tuple[str, Any], ...] = ()

    def begin(self) -> tuple[Guarded, Any]:
        crm = Crm(self.home, dict(self.refusals))
        guarded = Guarded(self.home, list(self.refusals), crm, **dict(self.policy))
        first = None if self.early else guarded.first()
        return guarded, guarded.call.conversation.run(first, START)

    @cached_property
    def length(self) -> int:
        return sum(1 for _ in self.until(10**6)[2])

    def until(self, number: int) -> tuple[Guarded, Any, list[Step]]:
        """Lead a call up to a step, which is not performed."""
        guarded, steps = self.begin()
        found = [steps.send(None)]
        while len(found) <= number:
            try:
                found.append(steps.send(guarded.reply(found[-1])))
            except StopIteration:
                break
        return guarded, steps, found


FOUR: dict[str, int | str] = {A: 0, B: 1, C: 2, D: "INVALID_DATA"}
SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("one", "path", {A: 2}),
        Scenario("one, known before", "path", {A: 1}, early=True),
        Scenario("one, known and free", "path", {A: 0}, early=True),
        Scenario("one, not approved later", "path", {A: "NOT_APPROVED"}),
        Scenario("update", "data", FOUR),
        Scenario("update, known before", "data", {A: 1, B: 1, C: 2}, early=True),
        Scenario("update, known and refused", "data", {A: 0, B: "INVALID_DATA"}, early=True),
        Scenario("update, all locked", "data", {A: 1, B: 1}, policy=(("hints_in_body", True),)),
        Scenario("update, not approved", "data", {A: "NOT_APPROVED", B: 1, C: 0}),
        Scenario("tags", "ids", {A: 1, B: 0, C: 2}),
        Scenario("delete", "query", {A: 1, B: 0, C: "NOT_APPROVED"}),
        Scenario("one send only", "data", {A: 1, B: 0}, policy=(("attempts", 1),)),
    )
}
PLACES_TO_BREAK = [(name, number) for name, scenario in SCENARIOS.items() for number in range(scenario.length)]


def broken_by(how: Break, guarded: Guarded, step: Step) -> Broken[int]:
    """Do what happened before the break, and return what the driver would throw."""
    answer = guarded.answer  # a stale one may be at hand until the next send begins
    if isinstance(step, Send) and how.begun:
        if how.received:
            guarded.transmit(step.part)
        else:
            guarded.sends += 1
            guarded.last = guarded.crm.named_in(*guarded.sent(step.part))
        answer = guarded.answer if how.at_hand else None
    elif how.error is not None:
        answer = None  # after an error no answer is looked for
    return Broken(how.error, sends=guarded.sends, arrived=how.arrived, answer=answer)


def facts(ending: Ending[int]) -> tuple[Any, ...]:
    response = None if ending.answer is None else ending.answer.response
    rest = ("merged", "outcomes", "attempts", "reason", "retry_after", "error", "remaining", "events", "raises")
    return response, *(getattr(ending, name) for name in (*rest, "keeps_results"))


def agrees(ending: Ending[int], guarded: Guarded, unknown: Iterable[str] = ()) -> None:
    """Check that an ending tells what CRM has done; of the records `unknown`, it must not claim to know."""
    written, unknown = guarded.crm.ids_written, set(unknown)
    assert [found.record_id for found in ending.outcomes] == guarded.ids
    assert [found.position for found in ending.outcomes] == list(range(len(guarded.ids)))
    for found in ending.outcomes:
        assert found.uncertain == (found.record_id in unknown), found
        if not found.uncertain:
            assert found.succeeded == (found.record_id in written), found
        assert not (found.retryable and (found.record_id in written or found.uncertain)), found
        assert bool(found.hint) == (found.blocked or found.uncertain), found
    assert max(Counter(guarded.crm.written).values(), default=1) == 1
    still = [found.record_id for found in ending.outcomes if found.retryable]
    if ending.remaining is None:
        assert not still
    else:
        named = [record_id for record_id, _ in guarded.crm.named_in(*guarded.sent(ending.remaining))]
        assert named == still
        assert not set(named) & (written | unknown)
    if ending.merged is not None:
        items = json.loads(ending.merged.body)["data"]
        assert [found["code"] for found in items] == codes(ending)


@pytest.mark.parametrize(("name", "number"), PLACES_TO_BREAK)
def test_p5_broken_off_at_any_step_the_ending_tells_what_crm_has_done(name, number):
    scenario = SCENARIOS[name]
    for how in BREAKS:
        guarded, steps, found = scenario.until(number)
        step = found[number]
        broken = broken_by(how, guarded, step)
        with pytest.raises(StopIteration) as done:  # and yields nothing more
            steps.throw(broken)
        ending: Ending[int] = done.value.value
        assert next(steps, None) is None
        lost = isinstance(step, Send) and how.begun and how.arrived and not how.at_hand
        agrees(ending, guarded, [record_id for record_id, _ in guarded.last] if lost else ())
        assert ending.attempts == guarded.sends, how
        open_ = any(outcome.retryable or outcome.uncertain for outcome in ending.outcomes)
        assert not open_ or ending.reason in {how.reason, ATTEMPTS}, how
        assert ending.error == (how.error if open_ and ending.reason is how.reason else None), how
        told = [event for event in ending.events if event.kind is EventKind.GAVE_UP]
        assert len(told) == open_, how
        # What is left is sent later, and nothing is written twice.
        if ending.remaining is not None:
            finish(guarded, ending.remaining)


def finish(guarded: Guarded, part: Part) -> None:
    """Send what remained as a call of its own, to its end, and check that nothing is written twice."""
    url, body = guarded.sent(part)
    named = guarded.crm.named_in(url, body)
    later = Call(guarded.call.method, url.partition("/crm/v8/")[2], body, attempts=1000, timeout=1e6)
    again = Guarded.__new__(Guarded)
    again.__dict__.update(guarded.__dict__, call=later, ids=[record_id for record_id, _ in named], sends=0)
    ending = led(again, later.conversation.run(again.first(), START))
    assert max(Counter(guarded.crm.written).values(), default=1) == 1
    if len(set(again.ids)) < len(named) and ending is not None and ending.reason is UNMATCHED:
        return  # a row was overtaken
    assert ending is None or ending.reason is None
    free = [key for key in named if not isinstance(guarded.crm.refusals[key[0]], str)]
    assert set(free) <= set(guarded.crm.written)


def led(guarded: Guarded, steps: Any) -> Ending[int] | None:
    """Lead a call to its end."""
    reply: Any = None
    while True:
        try:
            step = steps.send(reply)
        except StopIteration as done:
            return done.value
        reply = guarded.reply(step)


@pytest.mark.parametrize(("name", "number"), PLACES_TO_BREAK)
def test_p5_the_driver_may_ask_for_the_same_ending_between_two_steps(name, number):
    scenario = SCENARIOS[name]
    for how in BREAKS:
        guarded, _, found = scenario.until(number)
        asked = guarded.call.conversation.end(broken_by(how, guarded, found[number]))
        other, steps, found = scenario.until(number)
        broken = broken_by(how, other, found[number])
        with pytest.raises(StopIteration) as done:
            steps.throw(broken)
        assert facts(done.value.value) == facts(asked), how
        assert facts(other.call.conversation.end(broken)) == facts(asked), how


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_conversation_that_is_left_alone_writes_each_record_once_and_tells_so(name):
    scenario = SCENARIOS[name]
    guarded, steps = scenario.begin()
    ending = led(guarded, steps)
    assert ending is not None
    agrees(ending, guarded)


@pytest.mark.parametrize(("arrived", "told"), [(True, True), (False, False)])
def test_p5_broken_off_before_the_first_answer_a_write_is_unknown_only_if_it_may_have_arrived(arrived, told):
    call = batch()
    ending = call.conversation.end(Broken(sends=1, arrived=arrived))
    assert fates(ending) == ["unknown"] * 4 * told
    assert (ending.answer, ending.attempts, ending.remaining, ending.events) == (None, 1, None, ())


def test_p5_broken_off_as_the_first_answer_came_that_answer_is_judged():
    call = batch()
    came = mixed(call)
    ending = call.conversation.end(Broken(sends=1, answer=came))
    assert (ending.answer, ending.reason) == (came, INTERRUPTED)
    assert fates(ending) == ["written", "locked", "locked", "refused"]
    assert ids_in(ending.remaining) == [B, C]


class Interrupt:
    """Raises a `KeyboardInterrupt` at one line of the protocol: the first, the second, and so on."""

    def __init__(self, line: int) -> None:
        self._left = line

    def __enter__(self) -> None:
        self._before = sys.gettrace()
        sys.settrace(self._trace)

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: Any, event: str, _: object) -> Any:
        if "_protocol" not in frame.f_code.co_filename:
            return None
        self._left -= event == "line"
        if event == "line" and not self._left:
            raise KeyboardInterrupt
        return self._trace


def interrupted_at(line: int, call: Call, first: Any, resent: Any) -> Ending[int] | None:
    """Interrupt a call at a line of the reading of its resend's answer; return None if there is no such line."""
    steps = call.conversation.run(call.read(400, first), START)
    step = steps.send(None)
    while not isinstance(step, Send):
        step = steps.send(Waited(step.keys) if isinstance(step, Wait) else START)
    came = call.read(207, resent)
    try:
        with Interrupt(line):
            steps.send(came)
    except KeyboardInterrupt:
        return call.conversation.end(Broken(sends=2, answer=came))
    except StopIteration:
        pass
    return None


def interrupted_anywhere(make: Callable[[], Call], first: Any, resent: Any) -> list[Ending[int]]:
    endings = (interrupted_at(line, make(), first, resent) for line in itertools.count(1))
    return list(itertools.takewhile(lambda ending: ending is not None, endings))


def test_an_overtaken_row_does_not_remain_wherever_an_interrupt_falls():
    body = b'{"data":[{"id":"%s","n":0},{"id":"%s","n":1}]}' % (A.encode(), A.encode())
    endings = interrupted_anywhere(
        lambda: Call("PUT", "Leads", body), [locked(A), locked(A)], [locked(A), success(A)]
    )
    assert len(endings) > 50
    assert {tuple(fates(ending)) for ending in endings} == {("locked", "written")}
    assert {ending.remaining for ending in endings} == {None}  # to send the first row now would undo the second


def test_p2_a_whole_call_that_was_applied_in_part_does_not_remain_wherever_an_interrupt_falls():
    share = {"share": [{"user": {"id": "1"}}, {"user": {"id": "2"}}]}
    refused, applied = item("RECORD_LOCKED", action=ZIA), item("SUCCESS")
    endings = interrupted_anywhere(
        lambda: Call("POST", f"Leads/{A}/actions/share", share),
        {"share": [refused, refused]},
        {"share": [applied, refused]},
    )
    assert len(endings) > 30
    assert {tuple(fates(ending)) for ending in endings} == {("written", "locked")}
    assert {ending.remaining for ending in endings} == {None}


def test_p2_only_refused_rows_remain_wherever_an_interrupt_falls():
    refused = [*map(locked, (A, B, C, D))]
    resent = [success(A), locked(B), item("INVALID_DATA", json_path="$.data[2].n"), locked(D)]
    endings = interrupted_anywhere(batch, refused, resent)
    assert len(endings) > 50
    assert {tuple(fates(ending)) for ending in endings} == {("written", "locked", "refused", "locked")}
    assert {tuple(ids_in(ending.remaining)) for ending in endings} == {(B, D)}
    assert {(ending.reason, ending.attempts) for ending in endings} == {(INTERRUPTED, 2)}


# -- any conversation at all


class Choices:
    """Numbers that were drawn before; 0, the ordinary case, once they are used up."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = list(numbers)

    def of(self, count: int) -> int:
        return self._numbers.pop(0) % count if self._numbers else 0


class Unreliable(Guarded):
    """A call to a CRM behind an unreliable network, which answers in the order that it likes."""

    def __init__(self, home: str, ids: Sequence[str], crm: Crm, choices: Choices, **policy: Any) -> None:
        super().__init__(home, ids, crm, **policy)
        self.choices = choices
        self.maybe: set[tuple[str, int]] = set()  # sent without a result

    def reply(self, step: Step) -> Any:
        if isinstance(step, Send):
            return self._deliver(step.part)
        if isinstance(step, Wait):
            self.at += step.delay
            chosen = frozenset(key for key in sorted(step.keys) if not self.choices.of(3))
            if not chosen and step.keys:
                chosen = frozenset({sorted(step.keys)[self.choices.of(len(step.keys))]})
            return Waited(chosen) if self.choices.of(9) < 8 else Waited(stopped=True)
        return super().reply(step) if self.choices.of(25) < 24 else self._broken(arrived=bool(self.choices.of(2)))

    def _broken(self, **about: Any) -> Broken[int]:
        return Broken(sends=self.sends, **about)

    def _deliver(self, part: Part) -> Any:
        named = self.crm.named_in(*self.sent(part))
        match self.choices.of(14):
            case 5:
                return self._reordered(part, reverse=True)
            case 6:
                return self._reordered(part, reverse=False)
            case 7:
                self.transmit(part)
                return self._nothing_told(named, 502, b"<html>")
            case 8:
                self.sends += 1
                return self.call.read(401, TOKEN, at=self.at)
            case 9:
                self.sends += 1
                return self._broken(arrived=False)
            case 10:
                self.transmit(part)
                self.maybe |= set(named)
                return self._broken(arrived=True)
            case 11:
                return self._broken(arrived=True, answer=self.transmit(part))
            case 12:
                self.transmit(part)
                return self._nothing_told(named, 200, {"strange": True})
            case 13:
                return self._broken(arrived=True, answer=self.answer)  # before this send began
        return self.transmit(part)

    def _nothing_told(self, named: Iterable[tuple[str, int]], status: int, content: Any) -> Answer[int]:
        self.maybe |= set(named)
        return self.call.read(status, content, at=self.at)

    def _reordered(self, part: Part, *, reverse: bool) -> Answer[int]:
        """Return an answer in reverse, or without its last item. Rows of one record are told apart by order."""
        url, body = self.sent(part)
        self.sends += 1
        self.last = named = self.crm.named_in(url, body)
        items = self.crm.receive(url, body)
        self.maybe |= set(named)
        several = len({record_id for record_id, _ in named}) < len(named)
        items = items[:-1] if not reverse else items if several else items[::-1]
        self.answer = self.call.read(status_of(items) if items else 200, items, at=self.at)
        return self.answer


REFUSALS = st.sampled_from([0, 1, 1, 2, 3, "NOT_APPROVED", "INVALID_DATA"])


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    home=st.sampled_from(["data", "ids", "query"]),
    refusals=st.lists(REFUSALS, min_size=1, max_size=5),
    numbers=st.lists(st.integers(0, 10_000), max_size=24),
    repeated=st.booleans(),
)
def test_p2_no_record_is_ever_written_twice_and_each_has_one_outcome(home, refusals, numbers, repeated):
    ids = [str(FIRST_ID + index) for index in range(len(refusals))]
    crm = Crm(home, dict(zip(ids, refusals, strict=True)))
    rows = [*ids, ids[0]] if repeated and home == "data" else ids
    guarded = Unreliable(home, rows, crm, Choices(numbers), attempts=100, timeout=1e6)
    steps = guarded.call.conversation.run(guarded.first(), START)
    reply: Any = None
    broken = False
    try:
        while True:
            if isinstance(reply, Broken):
                broken = True
                steps.throw(reply)
                pytest.fail("asked for more after it was broken off")
            reply = guarded.reply(steps.send(reply))
    except StopIteration as done:
        ending = done.value
    if ending is None:
        assert not any(isinstance(left, int) and left for left in refusals)
        return
    check_any(ending, guarded, rows, broken=broken)


def check_any(ending: Ending[int], guarded: Unreliable, rows: Sequence[str], *, broken: bool) -> None:
    crm = guarded.crm
    wished = list(zip(rows, range(len(rows)) if crm.home == "data" else [0] * len(rows), strict=True))
    assert [(found.position, found.record_id) for found in ending.outcomes] == list(enumerate(rows))
    assert max(Counter(crm.written).values(), default=1) == 1
    for wish, found in zip(wished, ending.outcomes, strict=True):
        assert not found.uncertain or wish in guarded.maybe, found
        if not found.uncertain:
            assert found.succeeded == (wish in crm.written), found
        assert not found.retryable or wish not in crm.written, found
    if ending.reason is None:
        assert not any(found.retryable or found.uncertain for found in ending.outcomes)
    else:
        assert broken or ending.reason in {FOLLOW_UP, UNMATCHED, GiveUpReason.STOPPED}
    assert written_in_order(crm)
    if ending.remaining is None:
        assert ending.reason is UNMATCHED or not any(found.retryable for found in ending.outcomes)
        return
    named = crm.named_in(*guarded.sent(ending.remaining))
    assert named == [wish for wish, found in zip(wished, ending.outcomes, strict=True) if found.retryable]
    finish(guarded, ending.remaining)
    assert written_in_order(crm)


def written_in_order(crm: Crm) -> bool:
    """Return whether no row was written after a later row of its record."""
    latest: dict[str, int] = {}
    for record_id, row in crm.written:
        if row < latest.get(record_id, row):
            return False
        latest[record_id] = row
    return True
