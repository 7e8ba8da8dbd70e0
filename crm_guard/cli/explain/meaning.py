"""What each answer in a pasted text means for the records, by the guard's own reading of it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from crm_guard._base.codes import (
    BEING_CHECKED,
    CLIENT_ERROR,
    GUARDED,
    IMAGE_CHECK,
    MULTI_STATUS,
    OK,
    RECORD_LOCKED,
    RECORD_LOCKING,
    SERVER_ERROR,
    TOO_MANY_REQUESTS,
    UNAPPROVED,
    UNAUTHORIZED,
)
from crm_guard._protocol.answer import Answer, read_answer
from crm_guard._protocol.crm_url import CrmUrl
from crm_guard._protocol.envelope import Envelope, read_envelope
from crm_guard._protocol.record_outcomes import Judge, error_in, outcomes_in
from crm_guard._protocol.request_records import read_request
from crm_guard.cli.explain.disguises import without_tokens
from crm_guard.cli.explain.mentions import GUARDED_CODE, named_in
from crm_guard.cli.explain.pasted import MOST_ANSWERS, Facts, Pasted
from crm_guard.cli.explain.reader import read_paste
from crm_guard.cli.explain.values import TooManyError
from crm_guard.cli.plain import CommandError
from crm_guard.remediation import candidates, hint_for_case, hint_for_lock, hint_for_recheck
from crm_guard.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from crm_guard._protocol.request_records import CrmRequest
    from crm_guard.outcomes import CallError, RecordOutcome
    from crm_guard.remediation import ApprovalCase

_USAGE_ERROR: Final = 2
_UNREAD: Final = (
    f"the input names one of the codes {', '.join(sorted(GUARDED))} in a place that is not known to hold an answer "
    "of CRM, so it is open whether a record is blocked: pass the answer alone"
)
_SERVER_ERRORS: Final = frozenset({"INTERNAL_ERROR", "INTERNAL_SERVER_ERROR"})

# Guesses of the call from CRM's messages, for when the user does not name it. They are displayed as guesses; the
# guard itself never decides by a message.
_GUESSES: Final = (
    ("delete the record image", "DELETE", "{module}/{id}/photo"),
    ("upload the record image", "POST", "{module}/{id}/photo"),
    ("get the record image", "GET", "{module}/{id}/photo"),
    ("cannot delete", "DELETE", "{module}"),
    ("not deleted", "DELETE", "{module}"),
    ("cannot convert", "POST", "Leads/{id}/actions/convert"),
    ("invite", "POST", "{module}/{id}/actions/portal_invite"),
)
_USUAL_GUESS: Final = ("PUT", "{module}")
_NAMELESS: Final = "{id}"
_METHODS: Final = (("/actions/", "POST"), ("/upsert", "POST"), ("/photo", "GET"), ("ids=", "DELETE"))


_NAMING: Final = re.compile(r"(?i)(?<=[?&])(?:ids|cvid)=(?:[0-9]|,|%2C)*+(?=[&#]|\Z)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A text to explain, and what the user knows about the answers in it: that goes before what the text tells.

    Attributes:
        answer: The pasted text.
        method: HTTP method of the call, or None if unknown.
        path: Path or URL of the call, or None if unknown.
        status: HTTP status, or None if unknown.
        request: Body of the request, or None if unknown.
        state: `$approval_state` of the records, or None if unknown.
    """

    answer: str
    method: str | None = None
    path: str | None = None
    status: int | None = None
    request: str | None = None
    state: str | None = None

    @property
    def facts(self) -> Facts:
        """What the user knows of the call."""
        return Facts(status=self.status, method=self.method and self.method.upper(), path=self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """One of the things that a code can mean.

    Attributes:
        action: What locks the record; None for a lock that CRM does not name, and for other codes.
        case: Why the record is not approved, or None.
        state: `$approval_state` that tells of it, or None.
        retryable: Whether the guard waits for it.
        hint: What to do.
    """

    action: str | None = None
    case: ApprovalCase | None = None
    state: str | None = None
    retryable: bool = False
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What an answer means.

    Attributes:
        pasted: The answer, and what it was read as.
        facts: What is known of its call; the rest is a guess.
        method: HTTP method that it was interpreted for.
        path: Path that it was interpreted for.
        guessed: Whether the method or the path is a guess.
        outcomes: One per record.
        error: Why the call failed as a whole, or None if each record has its own result.
        status_known: Whether the HTTP status was given; if not, that of `error` is a guess.
        unnamed: Positions of locks whose cause is not in the text, although CRM's answer may name it.
        meanings: What these can be; what a code alone can mean.
    """

    pasted: Pasted
    facts: Facts
    method: str
    path: str
    guessed: bool
    outcomes: tuple[RecordOutcome, ...] = ()
    error: CallError | None = None
    status_known: bool = True
    unnamed: frozenset[int] = frozenset()
    meanings: tuple[Meaning, ...] = ()

    @property
    def guarded(self) -> int:
        """Number of records that a lock or a missing approval blocks."""
        return sum(outcome.blocked for outcome in self.outcomes)


def explain(question: Question) -> tuple[Explanation, ...]:
    """Interpret each answer in a text as the guard does.

    Raises:
        CommandError: The text holds no answer, or more than 1000, or one that could be read in two ways or in none.
    """
    known = question.facts
    text = without_tokens(question.answer)
    try:
        answers = read_paste(text, trusted=known != Facts())
    except TooManyError as error:
        message = f"the input holds more than {MOST_ANSWERS} answers: at most {MOST_ANSWERS} are explained at once"
        raise CommandError(message, _USAGE_ERROR) from error
    if not answers and question.status is not None and not question.answer.strip():
        answers = [Pasted(form="a response without a body")]
    if not answers:
        raise CommandError(_nothing_in(text), _USAGE_ERROR)
    actions = load_settings().retry_actions
    found = tuple(_explain_one(answer, question, actions) for answer in answers)
    if not any(one.guarded or one.meanings for one in found):
        _refuse_unread(text, answers)
    return found


def _refuse_unread(text: str, answers: Sequence[Pasted]) -> None:
    """Refuse to call nothing blocked where a guarded code stands outside of the answers that were found.

    Raises:
        CommandError: It does.
    """
    around = {part for one in answers for part in (one.request, one.facts.path) if part}
    read = sum(named_in(one.body.decode()) for one in answers)
    if named_in(text) > read + sum(named_in(part) and named_in(part) * text.count(part) for part in around):
        raise CommandError(_UNREAD, _USAGE_ERROR)


def _nothing_in(text: str) -> str:
    text = text.strip()
    if not text:
        return "the input is empty"
    if named_in(text):
        return _UNREAD
    if text.startswith("<"):
        return "the input is HTML or XML without CRM's answer: it probably comes from a proxy in between"
    kind = "JSON" if text.startswith(("{", "[")) else "text"
    return (
        f"the input is {kind} without an answer of CRM: no result of a record, none of CRM's errors, and none of "
        f"the codes {', '.join(sorted(GUARDED))} (with --method, --path and --status any JSON is read as an answer)"
    )


def _explain_one(pasted: Pasted, question: Question, actions: Collection[str]) -> Explanation:
    facts = question.facts.over(pasted.facts)
    _refuse_doubt(pasted, facts)
    envelope = read_envelope(pasted.body)
    method, path = _call_of(facts, envelope, pasted)
    address = CrmUrl.of(path)
    call = read_request(method, address, lambda: question.request or pasted.request)
    status = _status(pasted, facts, envelope, call)
    answer = read_answer(None, status, pasted.body, call, retry_after=facts.retry_after)
    if facts.status is None and answer.error.code in _SERVER_ERRORS:
        answer = read_answer(None, SERVER_ERROR, pasted.body, call)
    version = address.version or "v8"
    judge = Judge(call, actions, version)
    outcomes, error = _outcomes_of(answer, judge, question.state), error_in(answer, call)
    if facts.status is None and not answer.error.code:  # no sign that the call failed
        outcomes, error = outcomes if answer.envelope is not None else (), None
    if _is_blank_refusal(pasted, facts.status):
        outcomes = ()  # a lock may be behind it: the body would tell
    shown = Explanation(
        pasted=pasted,
        facts=facts,
        method=method,
        path=f"/crm/{version}/{_shown_rest(address)}",
        guessed=not (facts.method and facts.path),
        outcomes=outcomes,
        error=error,
        status_known=facts.status is not None,
    )
    _insist(shown, answer, question)
    return _with_meanings(shown, judge)


def _refuse_doubt(pasted: Pasted, facts: Facts) -> None:
    """Refuse what may be rows just as well as results.

    Raises:
        CommandError: It may be either.
    """
    if pasted.doubtful and facts.method is None:
        message = (
            "the input holds a guarded code, in rows with an id each: if they are the results of a write, pass "
            "--method and --path; if they are the records of a read, --method GET"
        )
        raise CommandError(message, _USAGE_ERROR)


def _status(pasted: Pasted, facts: Facts, envelope: Envelope | None, call: CrmRequest) -> int:
    """Return the status to read an answer by."""
    if pasted.cut and envelope is not None and envelope.listed and (facts.status or 0) < SERVER_ERROR:
        return MULTI_STATUS  # a refusal of the whole call would be read from the number of its items
    rows = pasted.rows or (pasted.doubtful and call.endpoint.reads)
    return facts.status or (OK if rows else CLIENT_ERROR)


def _is_blank_refusal(pasted: Pasted, status: int | None) -> bool:
    """Return whether a call was refused for a reason that only the body tells, and there is none."""
    explained = status in {UNAUTHORIZED, TOO_MANY_REQUESTS}
    return not pasted.body and status is not None and CLIENT_ERROR <= status < SERVER_ERROR and not explained


def _insist(shown: Explanation, answer: Answer[None], question: Question) -> None:
    """Refuse an answer that names a guarded code in a place where the guard's reading does not find it.

    Raises:
        CommandError: It does.
    """
    body, status = shown.pasted.body, shown.facts.status or OK
    sent = question.request is not None or shown.pasted.request is not None
    parts = sent and b'"__composite_requests"' in body  # whose reads are known from the request
    read = shown.pasted.rows or (shown.facts.method == "GET" and status < CLIENT_ERROR)
    if not (answer.envelope or read or parts) and (found := GUARDED_CODE.search(body.decode())):
        message = f"the input names {found[0]} in {shown.pasted.form} that could not be read as an answer of CRM"
        raise CommandError(message, _USAGE_ERROR)


def _with_meanings(shown: Explanation, judge: Judge) -> Explanation:
    """Return the explanation with the case that the text names, and with what is open."""
    pasted = shown.pasted
    family, outcomes = judge.request.endpoint.family, shown.outcomes
    if pasted.case:
        hint = hint_for_case(pasted.case, family)
        outcomes = tuple(replace(one, case=pasted.case, candidates=(), hint=hint) for one in outcomes)
        return replace(shown, outcomes=outcomes)
    last = outcomes[-1:] if pasted.vague else ()
    open_locks = frozenset(one.position for one in last if one.code == RECORD_LOCKED and one.action is None)
    if not (open_locks or pasted.bare):
        return shown
    meanings = _meanings(outcomes[-1].code if outcomes else "", judge, outcomes)
    hidden = range(len(outcomes)) if pasted.bare else open_locks
    outcomes = tuple(replace(one, hint="") if one.position in hidden else one for one in outcomes)
    return replace(shown, outcomes=outcomes, unnamed=open_locks, meanings=meanings)


def _meanings(code: str, judge: Judge, outcomes: Sequence[RecordOutcome]) -> tuple[Meaning, ...]:
    """Return what a code can mean for such a call, by the guard's own tables."""
    family = judge.request.endpoint.family
    if code in UNAPPROVED:
        known = outcomes[-1]
        if known.case or known.approval_state:
            return (Meaning(case=known.case, state=known.approval_state, hint=known.hint),)
        cases = tuple(Meaning(case=case, hint=hint_for_case(case, family)) for case in candidates(code, family))
        return (*cases, Meaning(state=BEING_CHECKED, hint=hint_for_recheck(family)))
    actions = dict.fromkeys((IMAGE_CHECK, *judge.actions, RECORD_LOCKING, None))
    route, record_id = judge.request.route, outcomes[-1].record_id if outcomes else None
    return tuple(
        Meaning(
            action=action,
            retryable=action in judge.actions,
            hint=hint_for_lock(
                action,
                retryable=action in judge.actions,
                family=family,
                module=route.module,
                record_id=record_id,
                version=judge.version,
            ),
        )
        for action in actions
    )


def _outcomes_of(answer: Answer[None], judge: Judge, state: str | None) -> tuple[RecordOutcome, ...]:
    outcomes = outcomes_in(answer, judge)
    if state:  # applies to every unapproved record, also one without an id
        unapproved = {outcome.record_id or "": state for outcome in outcomes if outcome.needs_approval}
        outcomes = outcomes_in(answer, judge.knowing(unapproved))
    return tuple(
        replace(outcome, record_id=None) if outcome.record_id == _NAMELESS else outcome for outcome in outcomes
    )


def _call_of(facts: Facts, envelope: Envelope | None, pasted: Pasted) -> tuple[str, str]:
    method, path = _guess(envelope, pasted)
    if facts.path:
        path = facts.path
        usual = "GET" if pasted.rows else "PUT"
        method = next((known for part, known in _METHODS if part in path), usual)
    return facts.method or method, path


def _guess(envelope: Envelope | None, pasted: Pasted) -> tuple[str, str]:
    if pasted.rows:
        return "GET", "{module}"
    if envelope is not None and envelope.key == "share":
        return "POST", "{module}/{id}/actions/share"
    if envelope is not None and envelope.composite:
        return "POST", "__composite_requests"
    messages = " ".join(item.message.lower() for item in envelope.items if item.guarded) if envelope else ""
    return next(((method, path) for words, method, path in _GUESSES if words in messages), _USUAL_GUESS)


def _shown_rest(address: CrmUrl) -> str:
    """Return the path after the version; of its query only what names records, as the rest may be anything."""
    ids = _NAMING.findall(address.rest)
    path = without_tokens(address.path)
    return f"{path}?{'&'.join(ids)}" if ids else path
