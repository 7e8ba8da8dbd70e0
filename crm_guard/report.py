"""The report of a call, the exceptions that carry it, and :func:`get_report`, which finds or makes one."""

from __future__ import annotations

import contextlib
import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from requests import PreparedRequest, Response
from requests.cookies import RequestsCookieJar
from requests.exceptions import HTTPError, RequestException
from requests.hooks import default_hooks
from requests.structures import CaseInsensitiveDict

from crm_guard._base.codes import CLIENT_ERROR
from crm_guard._base.credentials import bare_headers, bare_url
from crm_guard._base.retry_after import seconds_to_wait
from crm_guard._protocol.answer import read_answer
from crm_guard._protocol.call_result import certain_positions, part_for
from crm_guard._protocol.crm_url import CrmUrl, tail_finder
from crm_guard._protocol.inspection import READ_METHODS, may_hold_items
from crm_guard._protocol.record_outcomes import Judge, error_in, outcomes_in
from crm_guard._protocol.request_records import read_request
from crm_guard.outcomes import CallError, GiveUpReason, RecordOutcome, shown_id
from crm_guard.remaining import RemainingRequest, changed_copy
from crm_guard.remediation import harmless_state
from crm_guard.settings import GuardSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from crm_guard._protocol.request_records import CrmRequest
    from crm_guard.remediation import ApprovalCase

__all__ = [
    "CallError",
    "GuardError",
    "GuardReport",
    "NotApprovedError",
    "RecordLockedError",
    "RecordOutcome",
    "attach_report",
    "attached_report",
    "get_report",
]

_NAMES_SHOWN: Final = 5
_ATTRIBUTE: Final = "_crm_guard_report"
_LINKS: Final = frozenset({"link", "refresh"})
"""Headers of an answer with URLs among other things."""
_DEFAULTS: Final = GuardSettings()
_REQUESTS: Final = RequestException.__module__
_usual_tail: Final = tail_finder(_DEFAULTS.path_pattern)
_any_tail: Final = tail_finder("/")
"""Of a URL that is known to be a CRM call, whatever pattern says so."""

_STOPPED: Final = {
    GiveUpReason.ATTEMPTS: "the guard gave up after the last send that `attempts` allows",
    GiveUpReason.TIMEOUT: "the next wait would have ended after the time budget (`timeout`)",
    GiveUpReason.NOT_REPLAYABLE: "the body was a stream that can be sent only once; send bytes or a seekable file",
    GiveUpReason.UNMATCHED: "the answer does not tell without doubt what was applied, so nothing was sent again",
    GiveUpReason.FOLLOW_UP: "the next send met {error}",
    GiveUpReason.CREDITS: "the API credits that are left reached `min_credits`",
    GiveUpReason.STOPPED: "`stop_waiting()` ended the wait",
    GiveUpReason.INTERRUPTED: "the call was interrupted",
}


@dataclass(frozen=True, kw_only=True)
class GuardReport:
    """What became of one call.

    A pickled report leaves behind its response, the credentials of its requests (see `RemainingRequest`), and
    requests whose body is a stream. Safe to use from several threads.

    Attributes:
        outcomes: One per record, in the order of CRM's first answer; where the call failed as a whole, one per
            record that the request names, in its order, and none where it names none that can be told.
        attempts: Sends of the call, the first included; 0 where it was interrupted before that.
        waited: Seconds spent waiting between sends.
        credits_spent: Every request made for the call: sends and diagnosis. CRM may weigh one request as more.
        reason: Why the guard stopped waiting, None where nothing was left to wait for.
        retry_after: Seconds after which another try makes sense, None where no wait will help.
        error: What failed the call, or its last send, as a whole; None where each record has its own result.
    """

    outcomes: tuple[RecordOutcome, ...] = ()
    attempts: int = 1
    waited: float = 0.0
    credits_spent: int = 1
    reason: GiveUpReason | None = None
    retry_after: float | None = None
    error: CallError | None = None
    _response: Response | None = field(default=None, repr=False, compare=False)
    _remaining: RemainingRequest | None = field(default=None, repr=False, compare=False)
    _request: RemainingRequest | None = field(default=None, repr=False, compare=False)
    """The caller's request, in a copy that shares its body: `request_for` reads it when asked."""
    _certain: frozenset[int] = field(default=frozenset(), repr=False, compare=False)
    """Positions that are without doubt those in the request."""

    @property
    def blocked(self) -> tuple[RecordOutcome, ...]:
        """The outcomes of the records that CRM most recently refused for a lock or a missing approval."""
        return tuple(outcome for outcome in self.outcomes if outcome.blocked)

    @property
    def applied(self) -> bool:
        """Whether CRM applied the call to at least one record."""
        return any(outcome.succeeded for outcome in self.outcomes)

    def __getstate__(self) -> dict[str, object]:
        of_use = any(not (outcome.succeeded or outcome.uncertain) for outcome in self.outcomes)
        request = _portable(self._request) if of_use else None
        return {**self.__dict__, "_response": None, "_remaining": _portable(self._remaining), "_request": request}

    def remaining_request(self) -> RemainingRequest | None:
        """Return a request for just the records still locked, or None: see `GuardError.remaining_request`."""
        return type(self._remaining).of(self._remaining) if self._remaining is not None else None

    def request_for(self, outcomes: Iterable[RecordOutcome]) -> RemainingRequest:
        """Return a request for just some of the call's records, such as `report.blocked`, to keep and send later.

        Of a batch it asks for the given records alone, in the order of the caller's request, and is otherwise the
        same byte for byte; of a call about one record it is the same request. As from `remaining_request`, each
        call returns a new one, which the caller owns. Also of a pickled report, where it lacks its credentials.

        A refusal that waiting does not end (`NOT_APPROVED`) is met again until somebody resolves it in CRM.

        Args:
            outcomes: Some of `report.outcomes`, in any order; compared by value.

        Raises:
            ValueError: There is none of them, or one of another report; CRM has written a record, or may have
                (`uncertain`); the body was a stream, or the report was made by hand; the answer does not tell
                without doubt where the records stand in the request, or the call cannot be sent in part.
        """
        chosen = tuple(dict.fromkeys(outcomes))
        obstacle = self._obstacle(chosen)
        if obstacle is not None or self._request is None:
            raise ValueError(obstacle)
        url = self._request.url or ""
        records = _records_of(self._request, CrmUrl(url, _any_tail(url)))
        part = part_for(chosen, self.outcomes, records, self._certain)
        return changed_copy(self._request, part.url, part.body)

    def _obstacle(self, chosen: Collection[RecordOutcome]) -> str | None:
        """Return why there is no request for some outcomes, whatever it asks for; None if there may be."""
        if not chosen:
            return "outcomes=() names no record: pass some of report.outcomes, such as report.blocked"
        if strangers := set(chosen).difference(self.outcomes):
            return f"{len(strangers)} of the outcomes are not of this report: pass some of report.outcomes"
        if written := [outcome for outcome in chosen if outcome.succeeded]:
            return f"CRM has written {self._which(written)}: what was written must not be sent again"
        if lost := [outcome for outcome in chosen if outcome.uncertain]:
            return (
                f"it is uncertain whether CRM has written {self._which(lost)}: look there, and only if it has not, "
                "build a request of your own"
            )
        if self._request is None:
            return "this report has no request: it was made by hand, or pickled while the body was a stream"
        if not self._request.portable:
            return "the body was a stream, which cannot be read again: send bytes"
        return _STOPPED[self.reason] if self.reason is GiveUpReason.UNMATCHED else None

    def raise_for_blocked(self) -> None:
        """Raise if any record is blocked.

        Raises:
            NotApprovedError: A record needs an approval or a review. It wins where records are locked too, since
                no wait resolves it; it carries all outcomes.
            RecordLockedError: A record is locked.
        """
        error = self._error()
        if error is not None:
            raise error

    def _error(self) -> GuardError | None:
        if not self.blocked:
            return None
        kind = NotApprovedError if any(outcome.needs_approval for outcome in self.blocked) else RecordLockedError
        request = self._response.request if self._response is not None else None
        return kind(self._text(kind), report=self, response=self._response, request=request)

    def _text(self, kind: type[GuardError]) -> str:
        """One readable paragraph: what, which record, why no longer waited, what to do."""
        chosen = [outcome for outcome in self.blocked if outcome.needs_approval or kind is RecordLockedError]
        first = chosen[0]
        cause = first.case or harmless_state(first.action)
        about = f" ({cause})" if cause else ""
        parts = [f"CRM refused {self._which(chosen)} with {first.code}{about}."]
        if kind is RecordLockedError and self.reason:
            sent = {0: "Not sent", 1: "Sent once"}.get(self.attempts, f"Sent {self.attempts} times")
            why = _STOPPED[self.reason].format(error=self.error or "another problem")
            parts.append(f"{sent}, waited {self.waited:.1f} s: {why}.")
        return " ".join([*parts, first.hint]).strip()

    def _which(self, chosen: list[RecordOutcome]) -> str:
        names = [name for outcome in chosen if (name := shown_id(outcome.record_id))]
        shown = ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")
        if len(chosen) == len(self.outcomes) == 1:
            return f"record {shown}".strip()
        return f"{len(chosen)} of {len(self.outcomes)} records{f' ({shown})' if shown else ''}"


class GuardError(HTTPError):
    """A CRM call that did not reach all of its records.

    Raised as it is when a resend failed on its way after other records of the same call had their results: those
    are in `report`, and `__cause__` is the transport error.

    Attributes:
        response: The answer as the caller would have got it: a usable `requests.Response`.
        request: The caller's own request.
        report: What became of each record.
    """

    def __init__(
        self,
        message: str = "",
        *,
        report: GuardReport | None = None,
        response: Response | None = None,
        request: PreparedRequest | None = None,
    ) -> None:
        super().__init__(message, response=response, request=request)
        self.report = report

    @property
    def outcomes(self) -> tuple[RecordOutcome, ...]:
        """One outcome per record, in the order of CRM's answer."""
        return self.report.outcomes if self.report else ()

    @property
    def hint(self) -> str:
        """What to do, in a sentence or two: the hint of the first blocked record."""
        return next((outcome.hint for outcome in self.blocked if outcome.hint), "")

    @property
    def blocked(self) -> tuple[RecordOutcome, ...]:
        """The outcomes of the records that CRM most recently refused for a lock or a missing approval."""
        return self.report.blocked if self.report else ()

    @property
    def record_ids(self) -> tuple[str, ...]:
        """The ids of the blocked records, as far as they are known."""
        return tuple(outcome.record_id for outcome in self.blocked if outcome.record_id)

    @property
    def reason(self) -> GiveUpReason | None:
        """Why the guard stopped waiting; None where there was nothing to wait for."""
        return self.report.reason if self.report else None

    @property
    def retry_after(self) -> float | None:
        """Seconds after which another try makes sense; None where no wait will help."""
        return self.report.retry_after if self.report else None

    def remaining_request(self) -> RemainingRequest | None:
        """Return a request for just the records that are still locked, to be sent later.

        None where none is locked transiently, or where the records cannot be told apart without doubt. Records
        whose fate is unknown (`RecordOutcome.uncertain`) are not in it.
        """
        return self.report.remaining_request() if self.report else None

    def request_for(self, outcomes: Iterable[RecordOutcome]) -> RemainingRequest:
        """Return a request for just some of the call's records: see `GuardReport.request_for`."""
        return (self.report or GuardReport()).request_for(outcomes)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, self._state(_kept_request, _kept_response)

    def __copy__(self) -> Self:
        return self._twin(self.__dict__)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self._twin(copy.deepcopy(self._state(_portable_request, _portable_response), memo))

    def _state(self, of_request: Callable[..., object], of_response: Callable[..., object]) -> dict[str, Any]:
        return {**self.__dict__, "request": of_request(self.request), "response": of_response(self.response)}

    def _twin(self, state: Mapping[str, Any]) -> Self:
        twin = type(self)(*self.args)
        twin.__dict__.update(state)
        return twin


class RecordLockedError(GuardError):
    """A record is locked, and CRM applied nothing of the call (or `raise_on="partial"` is set)."""

    @property
    def retryable(self) -> bool:
        """Whether waiting can help: True only if every blocked record has a lock of `retry_actions`."""
        return bool(self.blocked) and all(outcome.retryable for outcome in self.blocked)


class NotApprovedError(GuardError):
    """A record waits for a person (`NOT_APPROVED`, `NOT_REVIEWED`): a later identical call fails just the same."""

    @property
    def case(self) -> ApprovalCase | None:
        """The case, where it is known for the first record that is not approved."""
        return self._first.case if self._first else None

    @property
    def candidates(self) -> tuple[ApprovalCase, ...]:
        """The possible cases of the first record that is not approved, the likeliest first."""
        return self._first.candidates if self._first else ()

    @property
    def hint(self) -> str:
        """What to do for the first record that is not approved."""
        return self._first.hint if self._first else ""

    @property
    def record_ids(self) -> tuple[str, ...]:
        """The ids of the records that are not approved, as far as they are known."""
        return tuple(outcome.record_id for outcome in self._unapproved if outcome.record_id)

    @property
    def _unapproved(self) -> tuple[RecordOutcome, ...]:
        return tuple(outcome for outcome in self.blocked if outcome.needs_approval)

    @property
    def _first(self) -> RecordOutcome | None:
        return next(iter(self._unapproved), None)


def attach_report(carrier: Response | BaseException, report: GuardReport) -> None:
    """Put `report` on a response, or on an exception that ends a call."""
    with contextlib.suppress(AttributeError):  # an exception class with slots has no room
        setattr(carrier, _ATTRIBUTE, report)


def attached_report(carrier: object) -> GuardReport | None:
    """Return the report that :func:`attach_report` put there."""
    report = getattr(carrier, _ATTRIBUTE, None) or getattr(carrier, "report", None)
    return report if isinstance(report, GuardReport) else None


def get_report(response: Response | BaseException) -> GuardReport:
    """Return what became of each record of a CRM call.

    Args:
        response: A response, whether or not a guard made it; or an exception that ended a guarded call, such as a
            `GuardError`, a `ConnectionError` in the middle of a resend, or a `KeyboardInterrupt`. The exceptions
            that it was raised from, or while handling (`__cause__`, `__context__`), and those of an exception group
            are searched, too: a client's own error often wraps the guard's. An exception that carries a response,
            such as that of `raise_for_status`, stands for this response.

    Returns:
        The guard's own report where there is one. Else what the response itself tells, with one attempt and no
        waits; without outcomes where it tells of no records, or where its body was read as a stream and is gone.
        The body of a successful read is not touched.

    Raises:
        requests.RequestException: The body was still to be read (`stream=True`), and broke off. That is not passed
            over in silence: whoever reads on would take the body for a short one.
    """
    if isinstance(response, Response):
        return attached_report(response) or _read(response) or GuardReport(_response=response)
    links = _links(response)
    found = (attached_report(link) or _carried(getattr(link, "response", None)) for link in links)
    return next((report for report in found if report is not None), GuardReport())


def _links(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all that it came from, the nearest first.

    An error of `requests`, or one that knows its request, is not about what was being handled when it was raised.
    """
    waiting, seen = [error], set[int]()
    while waiting:
        found = waiting.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        own = isinstance(found, RequestException) and (
            type(found).__module__ == _REQUESTS or found.request is not None or found.response is not None
        )
        group = found.exceptions if isinstance(found, BaseExceptionGroup) else ()
        origins = (found.__cause__, None if own else found.__context__, *group)
        waiting += [origin for origin in origins if origin is not None]


def _carried(response: object) -> GuardReport | None:
    """Return the report of the response that an exception carries; None if it is no CRM answer."""
    return (attached_report(response) or _read(response)) if isinstance(response, Response) else None


def _read(response: Response) -> GuardReport | None:
    """Return what a response itself tells, None if it is no CRM answer that can be looked into."""
    request: object = response.request  # of a response made by hand anything, and no status at all
    status: object = response.status_code
    if not isinstance(request, PreparedRequest) or not isinstance(status, int):
        return None
    method, url = request.method or "", request.url or ""
    # The guard that sent it knows which URLs are CRM calls: a gateway may have paths of its own.
    address = CrmUrl(url, getattr(getattr(response, "connection", None), "tail_of", _usual_tail)(url))
    if address.tail < 0 or not may_hold_items(status, reads=method in READ_METHODS):
        return None
    body = _body_of(response)
    if body is None and status < CLIENT_ERROR:  # whoever has read it knows more than we do
        return None
    named = _records_of(request, address)
    asked = seconds_to_wait(response.headers.get("Retry-After"))
    answer = read_answer(response, status, body, named, retry_after=asked)
    judge = Judge(named, _DEFAULTS.retry_actions, address.version)
    error = error_in(answer, named)
    outcomes = outcomes_in(answer, judge)
    return GuardReport(
        outcomes=outcomes,
        retry_after=error.retry_after if error else None,
        error=error,
        _response=response,
        _request=RemainingRequest.of(request),
        _certain=certain_positions(outcomes, answer, named),
    )


def _records_of(request: PreparedRequest, address: CrmUrl) -> CrmRequest:
    external = "X-EXTERNAL" in request.headers
    return read_request(request.method or "", address, lambda: _plain_body(request), external=external)


def _portable(request: RemainingRequest | None) -> RemainingRequest | None:
    return request if request is not None and request.portable else None


def _body_of(response: Response) -> bytes | None:
    """Return the body; None where it was read as a stream, in part or in whole."""
    if getattr(response, "_content", False) is False and _was_read(response):
        return None
    return response.content or b""


def _plain_body(request: PreparedRequest) -> bytes | str | None:
    """Return the body if it is bytes or text, None if it is a stream: nothing is read."""
    return request.body if isinstance(request.body, bytes | str) else None


def _was_read(response: Response) -> bool:
    raw = response.raw
    try:
        return bool(getattr(response, "_content_consumed", False) or raw.closed or raw.tell() > 0)
    except Exception:  # noqa: BLE001 (not every raw object can tell)
        return False


def _portable_request(request: PreparedRequest | None) -> PreparedRequest | None:
    """Copy `request` without what cannot travel: hooks, and a body that is a stream."""
    if request is None:
        return None
    portable = request.of(request) if isinstance(request, RemainingRequest) else request.copy()
    portable.hooks = default_hooks()
    if not isinstance(portable.body, bytes | str):
        portable.body = None
    return portable


def _portable_response(response: Response | None) -> Response | None:
    if response is None:
        return None
    portable = copy.copy(response)
    portable.request = _portable_request(response.request)  # type: ignore[assignment]
    portable.history = [_portable_response(earlier) for earlier in response.history]  # type: ignore[misc]
    return portable


def _kept_request(request: PreparedRequest | None) -> RemainingRequest | None:
    """Copy `request` as a pickle is to hold it: it leaves its own credentials behind."""
    portable = _portable_request(request)
    return RemainingRequest.of(portable) if portable is not None else None


def _kept_response(response: Response | None) -> Response | None:
    """Copy `response` as a pickle is to hold it, without what its headers, cookies and URLs have of credentials."""
    kept = _portable_response(response)
    if kept is None:
        return None
    kept.request = _kept_request(kept.request)  # type: ignore[assignment]
    kept.history = [_kept_response(earlier) for earlier in kept.history]  # type: ignore[misc]
    kept.url = bare_url(kept.url or "")[0]
    headers, _ = bare_headers(kept.headers)
    kept.headers = CaseInsensitiveDict({name: headers[name] for name in headers if name.lower() not in _LINKS})
    kept.cookies = RequestsCookieJar()
    return kept
