"""Builds the response and the report of a finished call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crm_guard._protocol.call_result import certain_positions
from crm_guard._transport.http_copies import copy_of, remade
from crm_guard.remaining import RemainingRequest
from crm_guard.report import GuardReport, attach_report

if TYPE_CHECKING:
    from collections.abc import Callable

    from requests import PreparedRequest, Response
    from urllib3 import HTTPResponse

    from crm_guard._protocol.request_records import CrmRequest, Part
    from crm_guard._protocol.steps import Ending
    from crm_guard._transport.performer import Performer


class Results:
    """Makes the response and the report of one call, once. Used by one thread.

    Args:
        request: The caller's request.
        named: Its records.
        build: The `build_response` of the adapter.
        performer: Knows what the call has cost.
    """

    def __init__(
        self,
        request: PreparedRequest,
        named: CrmRequest,
        build: Callable[[PreparedRequest, HTTPResponse], Response],
        performer: Performer,
    ) -> None:
        self._request, self._named, self._build, self._performer = request, named, build, performer
        self._made: tuple[Response | None, GuardReport] | None = None

    def of(self, ending: Ending[Response]) -> tuple[Response | None, GuardReport]:
        """Return the response, None where no answer came, and the report."""
        if self._made is None:
            response = self._response(ending)
            report = GuardReport(
                outcomes=ending.outcomes,
                attempts=ending.attempts,
                waited=self._performer.waited,
                credits_spent=self._performer.spent,
                reason=ending.reason,
                retry_after=ending.retry_after,
                error=ending.error,
                _response=response,
                _remaining=self._remaining(ending.remaining),
                _request=self._own_request(),
                _certain=self._certain(ending),
            )
            if response is not None:
                attach_report(response, report)
            self._made = response, report
        return self._made

    def _response(self, ending: Ending[Response]) -> Response | None:
        """Return the most recent response if it is the whole answer, else one made of all answers."""
        if ending.answer is None:
            return None
        self._performer.drop_superseded(ending.answer)
        response, trail = ending.answer.response, self._performer.trail
        if ending.merged is not None:
            latest, response = response, remade(self._build, self._request, response, ending.merged, trail)
            trail.drop(latest)
        trail.carry_cookies(response)
        response.request = self._request
        return response

    def _own_request(self) -> RemainingRequest | None:
        try:
            return RemainingRequest.of(self._request)
        except Exception:  # noqa: BLE001 (it has cookies of the caller's own kind that cannot be copied, say)
            return None

    def _certain(self, ending: Ending[Response]) -> frozenset[int]:
        if ending.certain is not None:
            return ending.certain
        return certain_positions(ending.outcomes, ending.answer, self._named)

    def _remaining(self, part: Part | None) -> RemainingRequest | None:
        if part is None:
            return None
        try:
            return RemainingRequest.of(copy_of(self._request, part.url, part.body))
        except Exception:  # noqa: BLE001 (the body is a file that was closed meanwhile, say)
            return None


def summary_of(report: GuardReport) -> str:
    """Return in one paragraph what is known of a call that was broken off."""
    written = sum(outcome.succeeded for outcome in report.outcomes)
    blocked = sum(not outcome.uncertain for outcome in report.blocked)
    unknown = sum(outcome.uncertain for outcome in report.outcomes)
    cause = f" by {report.error}" if report.error else ""
    return (
        f"the call was broken off{cause} after {report.attempts} sends and {report.waited:.1f} s of waiting: "
        f"{written} of {len(report.outcomes)} records were written, {blocked} still blocked, {unknown} not known. "
        "crm_guard.get_report() of this exception tells which."
    )
