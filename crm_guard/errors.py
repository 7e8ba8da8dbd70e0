"""What a call raises, when, and what each refusal means.

Every error of the guard is a `requests.HTTPError` with `.response`, `.request`, `.report`,
`.outcomes` and `.hint`, so existing `except requests.RequestException` keeps working::

    import requests
    import crm_guard

    session = requests.Session()
    crm_guard.mount_guard(session)
    lead = "https://www.zohoapis.com/crm/v8/Leads/111112000000075009"
    try:
        session.put(lead, json={"data": [{"Company": "Zylker"}]})
    except crm_guard.NotApprovedError as error:
        print(error.case, error.record_ids, error.hint)
    except crm_guard.RecordLockedError as error:
        print(error.reason, error.retry_after, error.hint)

The tree:

    requests.RequestException
    └── requests.HTTPError
        └── GuardError                CRM's answer is in `.response`, the outcome of each record in `.report`
            ├── RecordLockedError     still locked: later may work, see `.retryable`, `.retry_after`
            └── NotApprovedError      waiting does not help: see `.case`, `.hint`
    ValueError
    └── SettingsError

What CRM refuses, the `$approval_state` behind it, and what becomes of it:

- `RECORD_LOCKED` with the action `zia_vision_processing` (`zia_vision_validation`): the guard
  waits. If the budget ends first, `RecordLockedError` (`retryable`): try again after `retry_after`
  seconds.
- `RECORD_LOCKED`, `record_locking`: `RecordLockedError` at once. Have it unlocked; the hint names
  both calls.
- `RECORD_LOCKED` without an action (`merge_pending`, or not known): `RecordLockedError` at once.
  Wait for the merge, or have it unlocked.
- `NOT_APPROVED`, case 1, `ZIA_REJECTED` (`zia_vision_rejected`): `NotApprovedError`. Upload another
  image, or delete the rejected one and resubmit; on delete only the latter.
- `NOT_APPROVED`, case 2, `RECORD_APPROVAL` (`zia_vision_pending`): `NotApprovedError`. Wait for the
  reviewer, and do not change the images.
- `NOT_APPROVED`, case 3, `IMAGE_APPROVAL` (`approved`, or `zia_vision_pending` for image calls):
  `NotApprovedError`. Wait for the person who approves the image.
- `NOT_APPROVED`, `APPROVAL_PROCESS` (`approval_process_*`, `webform_*`, `email_parser_*`):
  `NotApprovedError`. Approve or reject it in CRM.
- `NOT_REVIEWED`, `REVIEW_PROCESS` (`review_process_*`): `NotApprovedError`. Wait for the reviewer.

The body of the error is the same for all cases of `NOT_APPROVED`. So the guard asks CRM once for
`$approval_state`: one call for up to 100 records, to the same origin, with the call's own
`Authorization`, for 5 seconds at most. If the state cannot be read (no READ scope, a slow server),
`case` is None and `candidates` lists the possible cases; the result is returned all the same.
`diagnose=False` turns it off.

The setting `raise_on` decides what raises: `"failure"` (default) if CRM applied nothing of the
call, `"partial"` if any record stayed blocked, `"never"`. Where nothing is raised,
`get_report(response)` has the same report.

`GiveUpReason` says why the guard stopped waiting:

- `ATTEMPTS`, `TIMEOUT`: the budget of the settings ended.
- `NOT_REPLAYABLE`: the body was a generator, and cannot be sent again.
- `UNMATCHED`: the answer leaves doubt about what was applied. It is returned unmodified, or raised
  with `"partial"`.
- `FOLLOW_UP`: a resend met a 401, 429, 5xx or a broken connection, which `report.error`, the text
  and the hint name.
- `CREDITS`: `min_credits` was reached. `STOPPED`: by `stop_waiting()`. `INTERRUPTED`: by Ctrl-C.

A call that failed as a whole (a 401, 429, 5xx, or a 400 without an item for each record) has an
outcome for each record that it names: refused, or `uncertain` if CRM may have written it.
`report.error` says what failed. This works for the answer to any CRM call, guarded or not::

    import requests
    import crm_guard

    rows = [{"id": "111112000000075003", "Company": "Zylker"}]
    expired = {"Authorization": "Zoho-oauthtoken expired"}
    response = requests.put("https://www.zohoapis.com/crm/v8/Leads", json={"data": rows}, headers=expired)
    report = crm_guard.get_report(response)
    print(report.error, [(outcome.record_id, outcome.succeeded, outcome.uncertain) for outcome in report.outcomes])

If the connection breaks during a resend and other records already have their results, you get a
`GuardError` from the transport error; records that were sent without an answer are `uncertain` in
its outcomes. `get_report(exception)` returns the same for a `KeyboardInterrupt` at any line, and
for an error of a client, `asyncio` or a retry library that wraps the guard's.

Every class can be pickled, as task queues do with the errors of their tasks. A pickled error has
its request and response, with their bodies, but no credentials: what `RemainingRequest` leaves out
of a request stays behind, and likewise in the response and its history, above all cookies. What
`RemainingRequest.of(request, keep=...)` says is kept of a request is kept here, too. Copies made
with the module `copy` have their credentials.

The classes are defined beside what they carry: in `crm_guard.report` and `crm_guard.settings`.
"""

from __future__ import annotations

from crm_guard.outcomes import GiveUpReason
from crm_guard.report import GuardError, NotApprovedError, RecordLockedError
from crm_guard.settings import SettingsError

__all__ = ["GiveUpReason", "GuardError", "NotApprovedError", "RecordLockedError", "SettingsError"]
