"""A call whose records are known to be locked before it is sent: it waits first, and is then sent once. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from crm_guard._base.codes import CLIENT_ERROR, RECORD_LOCKED
from crm_guard._protocol.call_events import known_action
from crm_guard._protocol.record_outcomes import early_outcomes, error_in, outcomes_in
from crm_guard._protocol.request_records import Part
from crm_guard._protocol.steps import Ending, Send, Share, Tell, Wait
from crm_guard.events import EventKind
from crm_guard.outcomes import GiveUpReason
from crm_guard.remediation import Family

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crm_guard._protocol.answer import Answer
    from crm_guard._protocol.call_facts import Facts
    from crm_guard._protocol.steps import Broken, Steps
    from crm_guard._protocol.waits_and_budgets import Pacing
    from crm_guard.events import GuardEvent
    from crm_guard.outcomes import RecordOutcome

_WHOLE: Final = Part()


def keys_to_ask(facts: Facts) -> frozenset[str]:
    """Return the keys of the records if the call may wait before its first send, else an empty set."""
    policy, ids = facts.settings, facts.request.ids or ()
    waits = policy.timeout > 0 and policy.max_inspect_bytes > 0 and bool(policy.retry_actions)
    refusable = facts.request.endpoint.family is not Family.OTHER  # reading a locked record works
    return facts.keys(ids) if waits and refusable and None not in ids else frozenset()


def send_after_verdict(facts: Facts, pacing: Pacing) -> Steps[Answer[Any]]:
    """Wait until the records are said to be free, or the budget is spent, and only then send."""
    count = len(facts.request.ids or ())
    now: float = yield Tell(_event(facts, EventKind.LOCKED, attempt=0, pending=count))
    event = _event(facts, EventKind.WAITING, attempt=0, pending=count)
    yield Wait(facts.keys(facts.request.ids or ()), pacing.draw(), pacing.begin(now), event)
    answer: Answer[Any] = yield Send(_WHOLE, again=False)
    return answer


def conclude(facts: Facts, answer: Answer[Any]) -> Steps[Ending[Any]]:
    """End a call that waited first, if its answer contains no refusal."""
    error = error_in(answer, facts.request)
    outcomes = outcomes_in(answer, facts.judge)
    if error is None:
        if answer.status < CLIENT_ERROR:
            yield Share(frozenset(), facts.keys(facts.request.ids or ()))
        event = _event(facts, EventKind.UNLOCKED, attempt=1)
    else:
        event = _gave_up(facts, outcomes, attempt=1, reason=GiveUpReason.FOLLOW_UP, error=error)
    yield Tell(event)
    return Ending(
        answer=answer,
        outcomes=outcomes,
        retry_after=error.retry_after if error else None,
        error=error,
    )


def unanswered(facts: Facts, pacing: Pacing, broken: Broken[Any], *, uncertain: bool) -> Ending[Any]:
    """Return the ending of a call that was aborted before it had an answer."""
    met = broken.error if broken.sends else None
    outcomes = early_outcomes(facts.judge, known_action(facts.settings.retry_actions), met, uncertain=uncertain)
    told = _gave_up(facts, outcomes, attempt=broken.sends, reason=broken.reason, error=broken.error)
    return Ending(
        answer=None,
        outcomes=outcomes,
        attempts=broken.sends,
        reason=broken.reason,
        retry_after=None if uncertain else pacing.longest,
        error=broken.error,
        remaining=_WHOLE if facts.replayable and not uncertain else None,
        events=(told,),
    )


def _gave_up(facts: Facts, outcomes: Sequence[RecordOutcome], **about: Any) -> GuardEvent:
    return _event(facts, EventKind.GAVE_UP, hint=outcomes[0].hint if outcomes else "", **about)


def _event(facts: Facts, kind: EventKind, **about: Any) -> GuardEvent:
    ids = facts.request.ids or ()
    action = known_action(facts.settings.retry_actions)
    return facts.teller.event(kind, ids, code=RECORD_LOCKED, action=action, **about)
