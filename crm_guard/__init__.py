"""Waits out Zoho CRM's transient record locks, and explains the refusals that waiting cannot fix.

Mount it on a session that you hold with :func:`mount_guard`, or under every session of the process with
:func:`install`.
"""

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crm_guard.adapter import GuardAdapter
    from crm_guard.bulk import RecordWriter, write_records
    from crm_guard.clock import Clock, stop_waiting
    from crm_guard.events import EventKind, GuardEvent, GuardHook
    from crm_guard.instrumentation import instrument
    from crm_guard.mounting import CRM_PREFIXES, install, mount_guard, uninstall
    from crm_guard.outcomes import CallError, GiveUpReason, RecordOutcome
    from crm_guard.remaining import RemainingRequest
    from crm_guard.remediation import ApprovalCase
    from crm_guard.report import GuardError, GuardReport, NotApprovedError, RecordLockedError, get_report
    from crm_guard.row_results import RowResult, RowState, UnfinishedRow, WriteCounts
    from crm_guard.settings import GuardSettings, SettingsError, load_settings

__version__ = "0.1.0"

__all__ = [
    "CRM_PREFIXES",
    "ApprovalCase",
    "CallError",
    "Clock",
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
    "RecordWriter",
    "RemainingRequest",
    "RowResult",
    "RowState",
    "SettingsError",
    "UnfinishedRow",
    "WriteCounts",
    "get_report",
    "install",
    "instrument",
    "load_settings",
    "mount_guard",
    "stop_waiting",
    "uninstall",
    "write_records",
]

# A name is imported when it is first asked for: a program that meets no lock never loads what handles locks.
_NAMES = {
    "clock": ["Clock", "stop_waiting"],
    "adapter": ["GuardAdapter"],
    "bulk": ["RecordWriter", "write_records"],
    "events": ["EventKind", "GuardEvent", "GuardHook"],
    "instrumentation": ["instrument"],
    "mounting": ["CRM_PREFIXES", "install", "mount_guard", "uninstall"],
    "remaining": ["RemainingRequest"],
    "remediation": ["ApprovalCase"],
    "outcomes": ["CallError", "GiveUpReason", "RecordOutcome"],
    "report": ["GuardError", "GuardReport", "NotApprovedError", "RecordLockedError", "get_report"],
    "row_results": ["RowResult", "RowState", "UnfinishedRow", "WriteCounts"],
    "settings": ["GuardSettings", "SettingsError", "load_settings"],
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}

logging.getLogger(__name__).addHandler(logging.NullHandler())


if not TYPE_CHECKING:  # a type checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            message = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(message)
        from crm_guard._base.imports import first_import  # noqa: PLC0415 (importing the package alone imports no module)

        with first_import:
            value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
