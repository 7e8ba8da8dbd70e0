"""Check whether urllib3's own retries (`max_retries`), below the guard, may apply a write twice.

A call that CRM answers with 429, or that was never sent, was not applied. After anything else it may have been: a
lost answer, a 5xx, a TLS error midway. The rules are those of `urllib3.Retry`, 2.2 to 2.8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from urllib3 import Retry
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from crm_guard._base.codes import TOO_MANY_REQUESTS
from crm_guard.outcomes import CallError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from requests import Response
    from urllib3.util.retry import RequestHistory

_WRITES: Final = ("POST", "PUT", "PATCH", "DELETE")
_CODES_SHOWN: Final = 4


def unsafe_repeats(policy: object) -> list[str]:
    """Return the causes for which a policy may resend a write that CRM may have applied; empty if it is safe.

    Args:
        policy: The `max_retries` of an adapter, as `requests` takes it; any other object yields no causes.
    """
    if isinstance(policy, int):
        policy = Retry(policy)
    if not isinstance(policy, Retry) or not _allows_retry(policy.total):
        return []
    return [*_statuses(policy), *_errors(policy)]


def was_repeated(response: Response) -> bool:
    """Return whether urllib3 sent a request again that CRM may have applied, before it got this response."""
    retries = getattr(response.raw, "retries", None)
    return any(_may_have_been_applied(entry) for entry in getattr(retries, "history", None) or ())


def _may_have_been_applied(entry: RequestHistory) -> bool:
    if entry.error is not None:
        return not isinstance(entry.error, NewConnectionError | ConnectTimeoutError)
    return entry.status is not None and not CallError(status=entry.status).refused


def warning_about(policy: object) -> str:
    """Return the warning for an unsafe policy that retries by status; empty for all others."""
    if not isinstance(policy, Retry) or not policy.status_forcelist or not _allows_retry(policy.status):
        return ""
    causes = ", ".join(unsafe_repeats(policy))
    return causes and (
        f"max_retries may send a write again that CRM applied: it repeats after {causes}. "
        "Retry(connect=3, read=False, other=0, respect_retry_after_header=False) repeats only what never left; "
        "for 429, which CRM applies nothing of, add status=5, status_forcelist=[429], allowed_methods=None, "
        "backoff_factor=1, raise_on_status=False."
    )


def _statuses(policy: Retry) -> Iterator[str]:
    if not _allows_retry(policy.status):
        return
    codes = {*policy.status_forcelist, *policy.RETRY_AFTER_STATUS_CODES} - {TOO_MANY_REQUESTS}
    forced = {code for code in codes if _repeats(policy, code)}
    by_retry_after = {code for code in codes - forced if _repeats(policy, code, has_retry_after=True)}
    if forced:
        yield f"status {_shown(forced)} (status_forcelist)"
    if by_retry_after:
        yield f"status {_shown(by_retry_after)} with Retry-After (respect_retry_after_header)"


def _repeats(policy: Retry, code: int, *, has_retry_after: bool = False) -> bool:
    return any(policy.is_retry(method, code, has_retry_after) for method in _WRITES)


def _errors(policy: Retry) -> Iterator[str]:
    methods = policy.allowed_methods  # urllib3 treats an empty collection as all methods
    if _allows_retry(policy.read) and (not methods or any(method in methods for method in _WRITES)):
        yield f"read errors (read={policy.read})"
    if _allows_retry(policy.other):  # of any method
        yield f"TLS and proxy errors (other={policy.other})"


def _allows_retry(limit: int | None) -> bool:
    """Return whether a counter of a policy allows a retry: None is unlimited, False is 0."""
    return limit is None or limit > 0


def _shown(codes: set[int]) -> str:
    names = sorted(map(str, codes))
    return ", ".join(names[:_CODES_SHOWN]) + (", ..." if len(names) > _CODES_SHOWN else "")
