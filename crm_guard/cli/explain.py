"""`crm-guard explain`: what a pasted CRM response means for each record, and what to do about it."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.text import Text

from crm_guard._base.codes import CLIENT_ERROR, SERVER_ERROR
from crm_guard._protocol.answer import Answer, read_answer
from crm_guard._protocol.crm_url import CrmUrl
from crm_guard._protocol.envelope import Envelope, read_envelope
from crm_guard._protocol.record_outcomes import Judge, error_in, outcomes_in
from crm_guard._protocol.request_records import read_request
from crm_guard.cli.outcomes import as_json, full_line, listed
from crm_guard.cli.terminal import CommandError, harmless, make_console, signs, write_json
from crm_guard.remediation import harmless_state
from crm_guard.settings import load_settings

if TYPE_CHECKING:
    from rich.console import Console

    from crm_guard.outcomes import CallError, RecordOutcome

_USAGE_ERROR: Final = 2
_RETRY_AFTER: Final = re.compile(r"(?im)^retry-after:[ \t]*(\d{1,6})[ \t]*\r?$")
_SERVER_ERRORS: Final = frozenset({"INTERNAL_ERROR", "INTERNAL_SERVER_ERROR"})
# Possessive quantifiers never backtrack: a head of any length is scanned once, in constant memory.
_HEAD: Final = re.compile(r"HTTP/[\d.]++ (\d{3})[^\r\n]*+\r?\n(?:[^\r\n]++\r?\n)*+\r?\n")

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A response to explain, and what the user knows about it.

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What a response means.

    Attributes:
        method: HTTP method that the response was interpreted for.
        path: Path that it was interpreted for.
        guessed: Whether the method or the path is a guess.
        outcomes: One per record.
        error: Why the call failed as a whole, or None if each record has its own result.
        status_known: Whether the HTTP status was given; if not, that of `error` is a guess.
    """

    method: str
    path: str
    guessed: bool
    outcomes: tuple[RecordOutcome, ...] = ()
    error: CallError | None = None
    status_known: bool = True

    @property
    def guarded(self) -> int:
        """Number of records that a lock or a missing approval blocks."""
        return sum(outcome.blocked for outcome in self.outcomes)


def explain(question: Question) -> Explanation:
    """Interpret a response as the guard does.

    Raises:
        CommandError: The text is not JSON.
    """
    given, body, retry_after = _parse_paste(question)
    status = given or CLIENT_ERROR
    envelope = read_envelope(body)
    method, path = _call_of(question, envelope)
    address = CrmUrl.of(path)
    version = address.version or "v8"
    shown = Explanation(
        method=method, path=f"/crm/{version}/{address.rest}", guessed=not (question.method and question.path)
    )
    call = read_request(method, address, lambda: question.request)
    answer = read_answer(None, status, body, call, retry_after=retry_after)
    if given is None and answer.error.code in _SERVER_ERRORS:
        answer = read_answer(None, SERVER_ERROR, body, call)
    outcomes = _outcomes_of(answer, Judge(call, load_settings().retry_actions, version), question.state)
    if given is None and not answer.error.code:  # no sign that the call failed
        return replace(shown, outcomes=outcomes if answer.envelope is not None else ())
    return replace(shown, outcomes=outcomes, error=error_in(answer, call), status_known=given is not None)


def _outcomes_of(answer: Answer[None], judge: Judge, state: str | None) -> tuple[RecordOutcome, ...]:
    outcomes = outcomes_in(answer, judge)
    if state:  # applies to every unapproved record, also one without an id
        unapproved = {outcome.record_id or "": state for outcome in outcomes if outcome.needs_approval}
        outcomes = outcomes_in(answer, judge.knowing(unapproved))
    return tuple(
        replace(outcome, record_id=None) if outcome.record_id == _NAMELESS else outcome for outcome in outcomes
    )


def run_explain(question: Question, *, as_document: bool) -> None:
    """Print the explanation of a response.

    Raises:
        CommandError: The text is not JSON, or the state is not a valid value.
    """
    if question.state and harmless_state(question.state) is None:
        message = (
            f"--state {harmless(question.state)!r} is not a value of $approval_state (example: zia_vision_rejected)"
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
        CommandError: It cannot be read, or is not text.
    """
    try:
        raw = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        return raw.decode("utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except OSError as error:
        message = f"{source} cannot be read: {error.strerror or error}"
        raise CommandError(message) from error
    except UnicodeError as error:
        message = f"{'standard input' if source == '-' else source} is not UTF-8 text"
        raise CommandError(message) from error


def _parse_paste(question: Question) -> tuple[int | None, bytes, float | None]:
    """Return the status (or None), the body and `Retry-After` in seconds; `curl -i` also prints the headers."""
    text, status, retry_after, at = question.answer.strip() + "\n\n", question.status, None, 0
    while head := _HEAD.match(text, at):  # "100 Continue" may precede the response
        status, at = question.status or int(head[1]), head.end()
        delay = _RETRY_AFTER.search(head[0])
        retry_after = float(delay[1]) if delay else None
    text = text[at:].strip()
    if status is not None and not text:
        return status, b"", retry_after
    try:
        value = json.loads(text)
        body = json.dumps({"data": value} if isinstance(value, list) else value)
    except (ValueError, RecursionError) as error:
        raise CommandError(_parse_error(text, error)) from error
    return status, body.encode(), retry_after


def _parse_error(text: str, error: Exception) -> str:
    if not text:
        return "the input is empty"
    if text.startswith("<"):
        return "the input is HTML or XML, not JSON from CRM: it probably comes from a proxy in between"
    return f"the input is not JSON, so not a CRM response: {error}"


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
        console.print(_unblocked(found))
    if found.error is not None:
        fate = "nothing was applied" if found.error.refused else "it is not known what was applied"
        error = found.error if found.status_known else found.error.code
        console.print(Text(harmless(f"The call failed as a whole ({error}): {fate}.")))
    if found.outcomes:
        guess = "  (guessed; pass --method and --path to be certain)" if found.guessed and found.guarded else ""
        console.print(Text.assemble((f"{found.method} {harmless(found.path)}", "bold"), (guess, "dim")))
        console.print()
        console.print(listed(found.outcomes, signs(console), full_line))


def _unblocked(found: Explanation) -> str:
    text = "Nothing is blocked: no record is locked or waits for an approval."
    return text if found.outcomes else f"{text} The response has no per-record results."
