"""Exceptions, and the reasons for giving up.

::

    requests.RequestException
    └── requests.HTTPError
        └── GuardError                what CRM answered is in `.response`, what became of each record in `.report`
            ├── RecordLockedError     still locked: later may work, see `.retryable`, `.retry_after`
            └── NotApprovedError      waiting does not help: see `.case`, `.hint`
    ValueError
    └── SettingsError

Existing `except requests.RequestException` keeps working. Every class can be pickled, as task queues do with the
errors of their tasks. A pickled error has its request and response, with their bodies, but no credentials: what
`RemainingRequest` leaves out of a request stays behind, and likewise in the response and its history, above all
cookies. What `RemainingRequest.of(request, keep=...)` says is kept of a request is kept here, too. Copies made with
the module `copy` have their credentials.
"""

from __future__ import annotations

import copy
import enum
from typing import TYPE_CHECKING, Any, Final, Self

from requests.cookies import RequestsCookieJar
from requests.exceptions import HTTPError
from requests.hooks import default_hooks
from requests.structures import CaseInsensitiveDict

from crm_guard._base.credentials import bare_headers, bare_url
from crm_guard.remaining import RemainingRequest
from crm_guard.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from requests import PreparedRequest, Response

    from crm_guard.remediation import ApprovalCase
    from crm_guard.report import GuardReport, RecordOutcome


__all__ = ["GiveUpReason", "GuardError", "NotApprovedError", "RecordLockedError", "SettingsError"]

_LINKS: Final = frozenset({"link", "refresh"})
"""Headers of an answer with URLs among other things."""


class GiveUpReason(enum.StrEnum):
    """Why the guard stopped waiting although a record was still locked."""

    ATTEMPTS = "attempts"
    """`GuardSettings.attempts` sends were made."""
    TIMEOUT = "timeout"
    """The next wait would have ended after the time budget, `GuardSettings.timeout`."""
    NOT_REPLAYABLE = "not_replayable"
    """The request's body was a stream that can be sent only once."""
    UNMATCHED = "unmatched"
    """The answer does not tell without doubt which records of the request were refused."""
    FOLLOW_UP = "follow_up"
    """The next send met another problem (401, 429, 5xx, a broken connection): `GuardReport.error` names it."""
    CREDITS = "credits"
    """CRM's remaining API credits reached `GuardSettings.min_credits`."""
    STOPPED = "stopped"
    """`stop_waiting()` ended the wait."""
    INTERRUPTED = "interrupted"
    """A `KeyboardInterrupt`, `SystemExit` or the like ended the call: it carries the report."""


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
        """The outcomes of the records of which CRM's last word was a lock or a missing approval."""
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
    """A record is locked, and CRM applied nothing of the call (or `raise_on="partial"` asked to hear of it)."""

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
