"""`crm-guard explain`: what a pasted CRM answer means for each record, and what to do about it."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.text import Text

from crm_guard._protocol.address import tail_of, version_before
from crm_guard._protocol.answer import Answer, read_answer
from crm_guard._protocol.envelope import Envelope, read_envelope
from crm_guard._protocol.judging import Judge, error_in, outcomes_in
from crm_guard._protocol.request_records import read_call
from crm_guard.cli.outcomes import as_json, full_line, listed
from crm_guard.cli.terminal import CommandError, harmless, make_console, signs, write_json
from crm_guard.remediation import harmless_state
from crm_guard.settings import load_settings

if TYPE_CHECKING:
    from rich.console import Console

    from crm_guard.report import CallError, RecordOutcome

_CLIENT_ERROR: Final = 400
_USAGE_ERROR: Final = 2
_ORIGIN: Final = re.compile(r"https?://[^/]+")
_RETRY_AFTER: Final = re.compile(r"(?im)^retry-after:[ \t]*(\d{1,6})[ \t]*\r?$")
_SERVER_ERROR: Final = 500
_SERVER_ERRORS: Final = frozenset({"INTERNAL_ERROR", "INTERNAL_SERVER_ERROR"})
# Possessive: no line is ever given back, so a head of any length is read once, and leaves nothing on a stack.
_HEAD: Final = re.compile(r"HTTP/[\d.]++ (\d{3})[^\r\n]*+\r?\n(?:[^\r\n]++\r?\n)*+\r?\n")

# What CRM's texts tell of the call, where nobody else does. A guess, and shown as one: the guard itself never
# decides anything by a message.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What the user knows of the answer.

    Attributes:
        answer: The pasted text.
        method: HTTP method of the call, None if not known.
        path: Path or URL of the call, None if not known.
        status: HTTP status, None if not known.
        request: Body of the request, None if not known.
        state: `$approval_state` of the records, None if not known.
    """

    answer: str
    method: str | None = None
    path: str | None = None
    status: int | None = None
    request: str | None = None
    state: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What came out.

    Attributes:
        method: HTTP method by which the answer was read.
        path: Path by which it was read.
        guessed: Whether method or path were guessed.
        outcomes: One per record.
        error: What the answer says of the call as a whole, None where each record has its own result.
        status_known: Whether the HTTP status was given; otherwise that of `error` is a guess.
    """

    method: str
    path: str
    guessed: bool
    outcomes: tuple[RecordOutcome, ...] = ()
    error: CallError | None = None
    status_known: bool = True

    @property
    def guarded(self) -> int:
        """How many records a lock or a missing approval blocks."""
        return sum(outcome.blocked for outcome in self.outcomes)


def explain(question: Question) -> Explanation:
    """Read an answer the way the guard does.

    Raises:
        CommandError: The text is no JSON.
    """
    told, body, retry_after = _taken_apart(question)
    status = told or _CLIENT_ERROR
    envelope = read_envelope(body)
    method, path = _call_of(question, envelope)
    start = tail_of(path)
    version = version_before(path, start) if start >= 0 else "v8"
    rest = path[start:] if start >= 0 else _ORIGIN.sub("", path, count=1).lstrip("/")
    shown = Explanation(
        method=method, path=f"/crm/{version}/{rest}", guessed=not (question.method and question.path)
    )
    request = question.request
    call = read_call(method, rest, 0, lambda: request.encode() if request else None)
    answer = read_answer(None, status, body, call, retry_after=retry_after)
    if told is None and answer.error.code in _SERVER_ERRORS:
        answer = read_answer(None, _SERVER_ERROR, body, call)
    outcomes = _judged(answer, Judge(call, load_settings().retry_actions, version), question.state)
    if told is None and not answer.error.code:  # nothing says that it failed
        return replace(shown, outcomes=outcomes if answer.envelope is not None else ())
    return replace(shown, outcomes=outcomes, error=error_in(answer, call), status_known=told is not None)


def _judged(answer: Answer[None], judge: Judge, state: str | None) -> tuple[RecordOutcome, ...]:
    outcomes = outcomes_in(answer, judge)
    if state:  # holds for every record that is not approved, also for one without a name
        unapproved = {outcome.record_id or "": state for outcome in outcomes if outcome.needs_approval}
        outcomes = outcomes_in(answer, judge.knowing(unapproved))
    return tuple(
        replace(outcome, record_id=None) if outcome.record_id == _NAMELESS else outcome for outcome in outcomes
    )


def run_explain(question: Question, *, as_document: bool) -> None:
    """Print the explanation of an answer.

    Raises:
        CommandError: The text is no JSON, or the state is no word.
    """
    if question.state and harmless_state(question.state) is None:
        message = (
            f"--state {harmless(question.state)!r} is no value of $approval_state, such as zia_vision_rejected"
        )
        raise CommandError(message, _USAGE_ERROR)
    found = explain(question)
    if as_document:
        write_json(_document(found))
    else:
        _show(found, make_console())


def read_text(source: str) -> str:
    """Return the text of a file, or of standard input for `-`.

    Raises:
        CommandError: It cannot be read, or is no text.
    """
    try:
        raw = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        return raw.decode("utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except OSError as error:
        message = f"{source} cannot be read: {error.strerror or error}"
        raise CommandError(message) from error
    except UnicodeError as error:
        message = f"{'standard input' if source == '-' else source} is no UTF-8 text"
        raise CommandError(message) from error


def _taken_apart(question: Question) -> tuple[int | None, bytes, float | None]:
    """Return status, if known, body, and seconds of `Retry-After`; a paste may begin with the head (`curl -i`)."""
    text, status, retry_after, at = question.answer.strip() + "\n\n", question.status, None, 0
    while head := _HEAD.match(text, at):  # an answer may come after a "100 Continue"
        status, at = question.status or int(head[1]), head.end()
        wish = _RETRY_AFTER.search(head[0])
        retry_after = float(wish[1]) if wish else None
    text = text[at:].strip()
    if status is not None and not text:
        return status, b"", retry_after
    try:
        value = json.loads(text)
        body = json.dumps({"data": value} if isinstance(value, list) else value)
    except (ValueError, RecursionError) as error:
        raise CommandError(_no_json(text, error)) from error
    return status, body.encode(), retry_after


def _no_json(text: str, error: Exception) -> str:
    if not text:
        return "there is nothing to explain: the input is empty"
    if text.startswith("<"):
        return "this is HTML or XML, not CRM's JSON: it came from something in between, such as a proxy"
    return f"this is no JSON, so no answer of CRM: {error}"


def _call_of(question: Question, envelope: Envelope | None) -> tuple[str, str]:
    method, path = _guess(envelope)
    if question.path:
        path = question.path
        method = next((usual for part, usual in _METHODS if part in path), "PUT")
    return (question.method or method).upper(), path


def _guess(envelope: Envelope | None) -> tuple[str, str]:
    if envelope is not None and envelope.key == "share":
        return "POST", "{module}/{id}/actions/share"
    if envelope is not None and envelope.composite:
        return "POST", "__composite_requests"
    messages = " ".join(item.message.lower() for item in envelope.items if item.guarded) if envelope else ""
    return next(((method, path) for words, method, path in _GUESSES if words in messages), _USUAL_GUESS)


def _document(found: Explanation) -> dict[str, Any]:
    return {
        "call": {"method": found.method, "path": found.path, "guessed": found.guessed},
        "records": len(found.outcomes),
        "guarded": found.guarded,
        "error": _error_document(found),
        "outcomes": [as_json(outcome) for outcome in found.outcomes],
    }


def _error_document(found: Explanation) -> dict[str, Any] | None:
    error = found.error
    if error is None:
        return None
    return {
        "status": error.status if found.status_known else None,
        "code": error.code,
        "message": error.message,
        "retry_after": error.retry_after,
        "refused": error.refused,
    }


def _show(found: Explanation, console: Console) -> None:
    if not found.guarded:
        console.print(_nothing(found))
    if found.error is not None:
        fate = "nothing was applied" if found.error.refused else "what was applied is not known"
        error = found.error if found.status_known else found.error.code
        console.print(Text(harmless(f"The call failed as a whole ({error}): {fate}.")))
    if found.outcomes:
        guess = "  (guessed; --method and --path make it certain)" if found.guessed and found.guarded else ""
        console.print(Text.assemble((f"{found.method} {harmless(found.path)}", "bold"), (guess, "dim")))
        console.print()
        console.print(listed(found.outcomes, signs(console), full_line))


def _nothing(found: Explanation) -> str:
    text = "Nothing guarded in here: no record is locked, or waits for an approval."
    return text if found.outcomes else f"{text} It names no record's result at all."
