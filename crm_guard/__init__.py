"""Waits out Zoho CRM's transient record locks, and explains the refusals that waiting cannot fix.

Mount it on a session that you hold with :func:`mount_guard`, or under every session of the process with
:func:`install`.
"""

from crm_guard.adapter import GuardAdapter
from crm_guard.errors import GiveUpReason, GuardError, NotApprovedError, RecordLockedError, SettingsError
from crm_guard.events import EventKind, GuardEvent, GuardHook
from crm_guard.inspection import get_report
from crm_guard.mounting import CRM_PREFIXES, install, mount_guard, uninstall
from crm_guard.remaining import RemainingRequest
from crm_guard.remediation import ApprovalCase
from crm_guard.report import GuardReport, RecordOutcome
from crm_guard.settings import GuardSettings, load_settings

__version__ = "0.1.0"

__all__ = [
    "CRM_PREFIXES",
    "ApprovalCase",
    "EventKind",
    "GiveUpReason",
    "GuardAdapter",
    "GuardError",
    "GuardEvent",
    "GuardHook",
    "GuardReport",
    "GuardSettings",
    "NotApprovedError",
    "RecordLockedError",
    "RecordOutcome",
    "RemainingRequest",
    "SettingsError",
    "get_report",
    "install",
    "load_settings",
    "mount_guard",
    "uninstall",
]
