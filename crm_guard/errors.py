"""The exceptions of a guarded call, and the reasons for giving up.

::

    requests.RequestException
    └── requests.HTTPError
        └── GuardError                CRM's answer is in `.response`, the outcome of each record in `.report`
            ├── RecordLockedError     still locked: later may work, see `.retryable`, `.retry_after`
            └── NotApprovedError      waiting does not help: see `.case`, `.hint`
    ValueError
    └── SettingsError

Existing `except requests.RequestException` keeps working. Every class can be pickled, as task queues do with the
errors of their tasks. A pickled error has its request and response, with their bodies, but no credentials: what
`RemainingRequest` leaves out of a request stays behind, and likewise in the response and its history, above all
cookies. What `RemainingRequest.of(request, keep=...)` says is kept of a request is kept here, too. Copies made with
the module `copy` have their credentials.

The classes are defined beside what they carry: in :mod:`crm_guard.report` and :mod:`crm_guard.settings`.
"""

from __future__ import annotations

from crm_guard.outcomes import GiveUpReason
from crm_guard.report import GuardError, NotApprovedError, RecordLockedError
from crm_guard.settings import SettingsError

__all__ = ["GiveUpReason", "GuardError", "NotApprovedError", "RecordLockedError", "SettingsError"]
