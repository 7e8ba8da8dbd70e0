"""Chooses the case behind a `NOT_APPROVED` from the record's `$approval_state`. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from crm_guard._base.codes import BEING_CHECKED, NOT_REVIEWED
from crm_guard.remediation import (
    PHOTO_FAMILIES,
    ApprovalCase,
    Family,
    candidates,
    harmless_state,
    hint_for_candidates,
    hint_for_case,
    hint_for_recheck,
)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The explanation of a refusal, by the state of its record.

    Attributes:
        case: The case, or None if the state does not determine it.
        candidates: Only the case, or else the cases possible by code and call, most likely first.
        hint: What to do.
        state: The record's `$approval_state`; None if unknown.
        recheck: Whether Zia is checking the record again, so that a later call may work.
    """

    case: ApprovalCase | None
    candidates: tuple[ApprovalCase, ...]
    hint: str
    state: str | None = None
    recheck: bool = False


# State, case, case for photo calls, and whether the hint says "probably".
_READINGS: tuple[tuple[str, ApprovalCase | None, ApprovalCase | None, bool], ...] = (
    ("zia_vision_rejected", ApprovalCase.ZIA_REJECTED, ApprovalCase.ZIA_REJECTED, False),
    ("zia_vision_pending", ApprovalCase.RECORD_APPROVAL, ApprovalCase.IMAGE_APPROVAL, True),
    ("approved", None, ApprovalCase.IMAGE_APPROVAL, True),
    ("approval_process_pending", ApprovalCase.APPROVAL_PROCESS, ApprovalCase.APPROVAL_PROCESS, True),
    ("approval_process_*", ApprovalCase.APPROVAL_PROCESS, ApprovalCase.APPROVAL_PROCESS, False),
    ("webform_double_optin", ApprovalCase.APPROVAL_PROCESS, ApprovalCase.APPROVAL_PROCESS, True),
    ("webform_*", ApprovalCase.APPROVAL_PROCESS, ApprovalCase.APPROVAL_PROCESS, False),
    ("email_parser_*", ApprovalCase.APPROVAL_PROCESS, ApprovalCase.APPROVAL_PROCESS, False),
    ("review_process_*", ApprovalCase.REVIEW_PROCESS, ApprovalCase.REVIEW_PROCESS, False),
)


def choose(code: str, state: str | None, family: Family) -> Diagnosis:
    """Return the case of a refusal by `state`, with its hint.

    Zoho prints the values of `$approval_state` but not their meaning: every row is inferred. "Probably" marks those
    that have another plausible meaning.

    - `zia_vision_rejected`: Zoho's own list view marks it with a rejection. Certain enough.
    - `zia_vision_pending`: the list view shows it as waiting after a failed check. Whether the record or only its
      image waits is not documented; a refused photo call suggests the image. Probably.
    - `approved` on a photo call: the record is fine, so what was refused must be its image. Probably.
    - `approval_process_pending`: an ordinary approval; but by the announcement Zia's rule can send a record to the
      approval process too. Probably. `approval_process_rejected`: rejected by an approver, by name.
    - `webform_*`, `email_parser_*`: entry queues, by name; that the double opt-in waits for the visitor is a guess
      from its name. Probably, for that one.
    - `review_process_*`: the review process, by name. `NOT_REVIEWED` means it regardless of the state.
    - `zia_vision_validation`: the check runs again: a lock, not a case.
    - All else (`approved` on other calls, `merge_pending`, unknown, none) determines nothing.
    """
    state = harmless_state(state)
    if not candidates(code, family):
        return Diagnosis(None, (), "", state)
    if code == NOT_REVIEWED:
        return _determined(ApprovalCase.REVIEW_PROCESS, family, state)
    if state == BEING_CHECKED:
        return Diagnosis(None, candidates(code, family), hint_for_recheck(family), state, recheck=True)
    case, probable = _reading(state or "", family)
    if case is None:
        return Diagnosis(None, candidates(code, family), hint_for_candidates(code, family, state=state), state)
    return _determined(case, family, state, probable=probable)


def _reading(state: str, family: Family) -> tuple[ApprovalCase | None, bool]:
    for pattern, usual, on_photo, probable in _READINGS:
        if fnmatchcase(state, pattern):
            return on_photo if family in PHOTO_FAMILIES else usual, probable
    return None, False


def _determined(case: ApprovalCase, family: Family, state: str | None, *, probable: bool = False) -> Diagnosis:
    return Diagnosis(case, (case,), hint_for_case(case, family, state=state, probable=probable), state)
