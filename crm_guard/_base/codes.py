"""CRM's codes, lock actions and states, and the HTTP statuses that matter here: each is written once.

Sources: Zoho's announcement of `RECORD_LOCKED` and `NOT_APPROVED` (October 2020), API v7 `update-records`, and the
OpenAPI files of zoho/crm-oas v8.0.
"""

from __future__ import annotations

from typing import Final

SUCCESS: Final = "SUCCESS"
RECORD_LOCKED: Final = "RECORD_LOCKED"
NOT_APPROVED: Final = "NOT_APPROVED"
NOT_REVIEWED: Final = "NOT_REVIEWED"
UNAPPROVED: Final = frozenset({NOT_APPROVED, NOT_REVIEWED})
"""A person must decide first."""
GUARDED: Final = UNAPPROVED | {RECORD_LOCKED}
"""The refusals that the guard exists for."""

IMAGE_CHECK: Final = "zia_vision_processing"
"""`details.action` of a lock that lasts as long as Zia checks an image."""
RECORD_LOCKING: Final = "record_locking"
"""`details.action` of a lock by the record-locking feature."""
MERGE: Final = "merge"
"""`details.action` of a lock by a merge of duplicates."""
BEING_CHECKED: Final = "zia_vision_validation"
"""`$approval_state` of a record whose image Zia is checking."""

OK: Final = 200
CREATED: Final = 201
ACCEPTED: Final = 202
MULTI_STATUS: Final = 207
REDIRECT: Final = 300
CLIENT_ERROR: Final = 400
UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
PROXY_UNAUTHORIZED: Final = 407
REQUEST_TIMEOUT: Final = 408
TOO_MANY_REQUESTS: Final = 429
SERVER_ERROR: Final = 500
