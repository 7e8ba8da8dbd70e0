"""The hints: one table from a refusal and the kind of call to what the user should do.

Sources, and what each documents:

- Zoho's forum announcement of October 2020 on `RECORD_LOCKED` and `NOT_APPROVED`: the lock while Zia checks an
  image, and three cases of `NOT_APPROVED`: an image that was rejected, a record in approval because of its images,
  an image in approval. It names the remedies: upload another image, or delete the rejected one and resubmit the
  record; wait for a reviewer's decision, and do not change the images before it.
- The API v7 pages: `update-records` (the locks, including a merge of duplicates), `delete-records` (a rejected
  image must be removed; uploading another one does not help), `lead-conversion-options` and `mass-delete`
  (`NOT_APPROVED` also means an ordinary approval process).
- `zoho/crm-oas` v8: `Locking_Information__s` and its DELETE, `NOT_REVIEWED`, the values of `$approval_state`.

Inferred, not documented: which cases a kind of call can meet, and their order; the remedies for the states of web
forms and of the e-mail parser; that a rejected record must be corrected and resubmitted; that changing an image
restarts Zia's check; that the losing id of a merge disappears; the advice for a refused photo upload.
"""

from __future__ import annotations

import enum
import re
from fnmatch import fnmatchcase
from typing import Final

from crm_guard._base.codes import (
    CLIENT_ERROR,
    IMAGE_CHECK,
    MERGE,
    NOT_APPROVED,
    NOT_REVIEWED,
    RECORD_LOCKING,
    TOO_MANY_REQUESTS,
    UNAUTHORIZED,
)

RECORD_ID: Final = re.compile(r"[0-9]{1,25}")
"""A record id that is safe in a URL or a message: decimal, ASCII only."""
MODULE_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
"""A module's API name that is safe in a URL or a message."""

_VERSION = re.compile(r"v[0-9]{1,2}(\.[0-9]{1,2})?")
_PLAIN_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class ApprovalCase(enum.StrEnum):
    """Why CRM says that a record is not approved, or not reviewed."""

    ZIA_REJECTED = "zia_rejected"
    """An image failed Zia's check, and the rule rejects such records."""
    RECORD_APPROVAL = "zia_record_approval"
    """An image failed Zia's check, and the whole record waits for a reviewer."""
    IMAGE_APPROVAL = "zia_image_approval"
    """An image failed Zia's check, and that image waits for a person; the record itself is fine."""
    APPROVAL_PROCESS = "approval_process"
    """An approval without Zia: an approval process, or the queue of a web form or of the e-mail parser."""
    REVIEW_PROCESS = "review_process"
    """A review process (the code is `NOT_REVIEWED`)."""


class Family(enum.StrEnum):
    """The kinds of call for which the advice differs."""

    UPDATE = "update"
    """Writes to fields, tags, owner or sharing: create, update, upsert, mass update, tags, share, change owner."""
    DELETE = "delete"
    """Delete and mass delete of records."""
    CONVERT = "convert"
    """Convert a lead."""
    APPROVAL_ONLY = "approval_only"
    """Conversion options, inventory convert, portal invite: only an ordinary approval is documented for them."""
    PHOTO_READ = "photo_read"
    """Download the record image."""
    PHOTO_WRITE = "photo_write"
    """Upload or delete the record image."""
    OTHER = "other"
    """Any other call."""


PHOTO_FAMILIES: Final = frozenset({Family.PHOTO_READ, Family.PHOTO_WRITE})

_PHOTO_CANDIDATES = (
    ApprovalCase.IMAGE_APPROVAL,
    ApprovalCase.RECORD_APPROVAL,
    ApprovalCase.ZIA_REJECTED,
    ApprovalCase.APPROVAL_PROCESS,
)
_CANDIDATES: dict[Family, tuple[ApprovalCase, ...]] = {
    **dict.fromkeys(PHOTO_FAMILIES, _PHOTO_CANDIDATES),
    Family.APPROVAL_ONLY: (ApprovalCase.APPROVAL_PROCESS,),
}
_DEFAULT_CANDIDATES = (
    ApprovalCase.ZIA_REJECTED,
    ApprovalCase.RECORD_APPROVAL,
    ApprovalCase.APPROVAL_PROCESS,
)

# The table. `None` is the default for kinds of call without an entry. Placeholders: {maybe} is "probably " or
# empty, {again} describes the call.
_ADVICE: dict[tuple[ApprovalCase, Family | None], str] = {
    (ApprovalCase.ZIA_REJECTED, None): (
        "Zia {maybe}rejected an image of this record: upload another image, or delete the failed one and resubmit "
        "the corrected record; then {again} once it is approved."
    ),
    (ApprovalCase.ZIA_REJECTED, Family.DELETE): (
        "Zia {maybe}rejected an image of this record: delete the failed image and resubmit the record, then "
        "{again} once it is approved; uploading another image does not make it deletable."
    ),
    (ApprovalCase.ZIA_REJECTED, Family.PHOTO_WRITE): (
        "Zia {maybe}rejected an image of this record, and CRM does not accept this change to it: have the "
        "failed image deleted and the corrected record resubmitted in CRM itself, then {again} once it is approved."
    ),
    (ApprovalCase.RECORD_APPROVAL, None): (
        "A reviewer {maybe}must approve or reject this record because of its images: {again} once it is "
        "approved, and do not upload or delete images until then."
    ),
    (ApprovalCase.IMAGE_APPROVAL, None): (
        "A person {maybe}must approve or reject an image of this record: {again} after that decision, and do "
        "not replace or delete the image until then."
    ),
    (ApprovalCase.APPROVAL_PROCESS, None): (
        "This record {maybe}waits in an approval process: have it approved or rejected in CRM (My Jobs), and "
        "{again} once it is approved."
    ),
    (ApprovalCase.REVIEW_PROCESS, None): (
        "This record {maybe}waits in a review process: have its reviewer approve or reject it in CRM (My Jobs), "
        "and {again} once it has passed."
    ),
}

# More specific advice, by the queue that `$approval_state` names. The first match is used.
_QUEUES: dict[tuple[ApprovalCase, str], str] = {
    (ApprovalCase.APPROVAL_PROCESS, "approval_process_pending"): (
        "This record {maybe}waits in an ordinary approval process, not in one that Zia's image check started: have "
        "it approved or rejected in CRM (My Jobs), and {again} once it is approved."
    ),
    (ApprovalCase.APPROVAL_PROCESS, "approval_process_rejected"): (
        "An approver {maybe}rejected this record: correct it and resubmit it for approval in CRM, and {again} once "
        "it is approved."
    ),
    (ApprovalCase.APPROVAL_PROCESS, "webform_double_optin"): (
        "This record came in through a web form and {maybe}waits until its sender confirms the double opt-in: "
        "{again} after that confirmation."
    ),
    (ApprovalCase.APPROVAL_PROCESS, "webform_*"): (
        "This record is {maybe}held in the approval queue of a web form ({state}): have it approved or rejected "
        "in CRM, and {again} once it is approved."
    ),
    (ApprovalCase.APPROVAL_PROCESS, "email_parser_rejected"): (
        "This record was {maybe}rejected in the approval queue of the e-mail parser: have that decision reviewed "
        "in CRM, and {again} once the record is approved."
    ),
    (ApprovalCase.APPROVAL_PROCESS, "email_parser_*"): (
        "This record is {maybe}held in the approval queue of the e-mail parser: have it approved or rejected in "
        "CRM, and {again} once it is approved."
    ),
    (ApprovalCase.REVIEW_PROCESS, "review_process_rejected"): (
        "A reviewer {maybe}rejected this record: correct it and resubmit it for review in CRM, and {again} once "
        "it has passed."
    ),
}

_AGAIN = {
    Family.DELETE: "delete the record",
    Family.CONVERT: "convert the lead",
    Family.PHOTO_READ: "repeat the download",
}
_NO_RETRY = "A retry before that only fails again."

# The values of `$approval_state` that identify each case in a list of candidates.
_STATES = {
    ApprovalCase.ZIA_REJECTED: "zia_vision_rejected",
    ApprovalCase.RECORD_APPROVAL: "zia_vision_pending",
    ApprovalCase.IMAGE_APPROVAL: "approved or zia_vision_pending",
    ApprovalCase.APPROVAL_PROCESS: "approval_process_*, webform_* or email_parser_*",
    ApprovalCase.REVIEW_PROCESS: "review_process_*",
}

_READ_STATE = (
    "CRM's answer does not tell these cases apart; the record's $approval_state does: read it with Get Records "
    "(fields=id,$approval_state&approved=both), or let the guard read it (`diagnose` on, token with READ scope)."
)
_STATE_NOTES = {
    "approved": "The record's $approval_state is now approved: the same call may work at once.",
    "merge_pending": (
        "The record is part of a merge of duplicates: wait until it ends and look the record up again."
    ),
}
_OTHER_STATE_NOTE = "The record's $approval_state, {state}, does not determine the case."

_ZIA_LOCK_HINT = (
    "Zia is checking an image of this record, and the lock ends by itself: {again} later{wait}. Do not upload or "
    "delete images meanwhile: that can restart the check."
)
_KNOWN_LOCK_HINT = (
    "This record is locked by {action}, which `retry_actions` lists as temporary: {again} later{wait}."
)
_MORE_TIME = ", or raise `timeout` and `attempts` so that the guard waits longer"
_UNKNOWN_LOCK_HINT = (
    "This record is locked by {action}, which is not in `retry_actions`, so the guard does not wait for it. If the "
    "lock ends by itself, {wait}; if not, have it removed in CRM, and do not retry on a timer."
)
_FEATURE_LOCK_HINT = (
    "The record-locking feature locks {what}: GET {path} shows who locked it and why, and DELETE {path}/{{lockId}} "
    "removes a manual lock. An automatic lock ends only when its rule's condition no longer holds or "
    "your profile is excluded from the rule; retrying on a timer does not help."
)
_MERGE_LOCK_HINT = (
    "This record is part of a merge of duplicates: wait until it ends and look the record up again, as the losing "
    'id disappears. To have the guard wait for it, add "{action}" to `retry_actions`.'
)
_UNNAMED_LOCK_HINT = (
    "CRM does not say what locks this record, so the guard does not wait. If a merge of duplicates is under way, "
    "wait until it ends and look the record up again, as the losing id disappears; if the record-locking feature "
    "locks it, GET {path} shows who locked it and DELETE {path}/{{lockId}} removes a manual lock."
)
_UNCERTAIN_HINT = (
    "The last send of this record {met}, so it may have been written: read the record before you repeat the call."
)
_FOLLOW_UP_HINT = (
    "This record was locked in CRM's last answer about it, and was not written since: the next send met {error}. "
    "{advice} then send the remaining records again."
)
_REFUSED_WITH_OTHERS_HINT = (
    "CRM refused the call because of another record, and according to its documentation a refused call writes "
    "nothing: send this record again without the refused one."
)
_RECHECK_HINT = (
    "Zia is checking an image of this record again: {again} in a minute or two, and do not upload another image "
    "meanwhile, as that can restart the check."
)


def candidates(code: str, family: Family) -> tuple[ApprovalCase, ...]:
    """Return the cases that `code` can mean for such a call, most likely first; empty for other codes."""
    if code == NOT_REVIEWED:
        return (ApprovalCase.REVIEW_PROCESS,)
    return _CANDIDATES.get(family, _DEFAULT_CANDIDATES) if code == NOT_APPROVED else ()


def hint_for_case(case: ApprovalCase, family: Family, *, state: str | None = None, probable: bool = False) -> str:
    """Return two sentences: what to do, and what not to do.

    Args:
        case: The case.
        family: The kind of call that was refused.
        state: The record's `$approval_state`, which names the queue; None if unknown.
        probable: Whether the case is inferred: the hint then says "probably".
    """
    return f"{_advice(case, family, state, maybe='probably ' if probable else '')} {_NO_RETRY}"


def hint_for_candidates(code: str, family: Family, *, state: str | None = None) -> str:
    """Return one hint for all candidates, numbered, with the states that identify each.

    Args:
        code: The code in CRM's answer.
        family: The kind of call that was refused.
        state: The record's `$approval_state` if it was read but does not determine the case; None if unknown.
    """
    cases = candidates(code, family)
    if state and cases:
        return f"{_state_note(state, cases)} {_candidate_list(cases, family)}"
    if len(cases) > 1:
        return f"{_READ_STATE} {_candidate_list(cases, family)} {_NO_RETRY}"
    return hint_for_case(cases[0], family) if cases else ""


def hint_for_recheck(family: Family) -> str:
    """Return what to do when Zia is checking the record again, perhaps with a new image."""
    return _RECHECK_HINT.format(again=_again(family))


def hint_for_lock(
    action: str | None,
    *,
    retryable: bool,
    family: Family,
    module: str | None = None,
    record_id: str | None = None,
    version: str = "v8",
    longer: bool = True,
) -> str:
    """Return what to do about `RECORD_LOCKED`.

    Args:
        action: `details.action` as CRM sent it, or None; shown only if it is a plain word.
        retryable: Whether the guard waits for this action (it is in `retry_actions`).
        family: The kind of call that was refused.
        module: The module's API name, for the URLs in the hint; a placeholder if it is not valid.
        record_id: The record's id, likewise.
        version: The API version in those URLs; v8 if it is not valid.
        longer: Whether a larger budget would have helped: not if something else ended the wait.
    """
    path = _lock_path(module, record_id, version)
    if action == RECORD_LOCKING:
        what = "this record or one that it links to" if family is Family.UPDATE else "this record"
        return _FEATURE_LOCK_HINT.format(what=what, path=path)
    if not action:
        return _UNNAMED_LOCK_HINT.format(path=path)
    if action == MERGE and not retryable:
        return _MERGE_LOCK_HINT.format(action=action)
    return _action_hint(action, retryable, family, longer=longer)


def hint_for_uncertain(error: str | None) -> str:
    """Return what to do about a record that was sent but whose result is unknown.

    Args:
        error: What came instead of a result, formatted by `shown_error`; None if unknown.
    """
    return _UNCERTAIN_HINT.format(met=f"met {error}" if error else "has no answer that names it")


def hint_for_follow_up(error: str, status: int | None, retry_after: float | None) -> str:
    """Return what to do about a locked record whose resend failed for another reason.

    Args:
        error: That reason, formatted by `shown_error`.
        status: HTTP status, None if no answer came.
        retry_after: `Retry-After` of the answer in seconds, or None.
    """
    advice = {
        None: "Once that is resolved,",
        UNAUTHORIZED: "Renew the access token (`refresh=` does it before each resend),",
        TOO_MANY_REQUESTS: "Wait for a minute," if retry_after is None else f"Wait for {retry_after:g} s,",
    }.get(status, "Resolve that first,")
    return _FOLLOW_UP_HINT.format(error=error, advice=advice)


def hint_for_bystander() -> str:
    """Return what to do about a record that CRM refused only because of another record in the same call."""
    return _REFUSED_WITH_OTHERS_HINT


def shown_error(status: int | None, code: str, retry_after: float | None) -> str:
    """Describe an answer without results, or an exception, in a few words without personal data."""
    words = [str(status) if status is not None else "", harmless_state(code) or ""]
    text = " ".join(word for word in words if word) or "an unknown error"
    if status is not None and status < CLIENT_ERROR:
        text += " without a result"
    return text if retry_after is None else f"{text}, Retry-After {retry_after:g} s"


def harmless_state(state: object) -> str | None:
    """Return `state` if it is a plain word, safe to show and compare, else None."""
    return state if isinstance(state, str) and _PLAIN_WORD.fullmatch(state) else None


def _advice(case: ApprovalCase, family: Family, state: str | None = None, *, maybe: str = "") -> str:
    """Return the advice for a case; that of the queue if the state names one of this case."""
    state = harmless_state(state) or ""
    queue = (text for (key, pattern), text in _QUEUES.items() if key is case and fnmatchcase(state, pattern))
    text = next(queue, None) or _ADVICE.get((case, family)) or _ADVICE[case, None]
    return text.format(maybe=maybe, again=_again(family), state=state)


def _again(family: Family) -> str:
    return _AGAIN.get(family, "repeat the call")


def _candidate_list(cases: tuple[ApprovalCase, ...], family: Family) -> str:
    lines = (f"({n}) {_STATES[case]}: {_advice(case, family)}" for n, case in enumerate(cases, 1))
    return " ".join(lines) if len(cases) > 1 else _advice(cases[0], family)


def _state_note(state: str, cases: tuple[ApprovalCase, ...]) -> str:
    """Return what to say of a state that does not determine the case, before the candidates are listed."""
    shown = harmless_state(state) or "an unrecognised value"
    note = _STATE_NOTES.get(state) or _OTHER_STATE_NOTE.format(state=shown)
    tail = "which of these applies." if len(cases) > 1 else "whether this applies:"
    return f"{note} If the call still fails, check in CRM {tail}"


def _action_hint(action: str, retryable: bool, family: Family, *, longer: bool) -> str:
    """Return the hint for a lock of which only the `action` is known."""
    plain = _PLAIN_WORD.fullmatch(action) is not None
    adding = f'add "{action}" to `retry_actions`' if plain else "add its action to `retry_actions`"
    wait = (_MORE_TIME if longer else "") if retryable else f"{adding} and the guard waits for it"
    if action == IMAGE_CHECK:
        return _ZIA_LOCK_HINT.format(again=_again(family), wait=wait if retryable else f", or {wait}")
    text = _KNOWN_LOCK_HINT if retryable else _UNKNOWN_LOCK_HINT
    return text.format(again=_again(family), action=action if plain else "an unrecognised action", wait=wait)


def _lock_path(module: str | None, record_id: str | None, version: str) -> str:
    """Return the path of a record's lock information, with placeholders for unknown or unsafe parts."""
    return "/".join(
        (
            "/crm",
            version if _VERSION.fullmatch(version) else "v8",
            module if module and MODULE_NAME.fullmatch(module) else "{module}",
            record_id if record_id and RECORD_ID.fullmatch(record_id) else "{id}",
            "Locking_Information__s",
        )
    )
