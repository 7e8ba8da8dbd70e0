"""Waits out Zoho CRM's temporary record locks, and explains the refusals that waiting cannot fix.

::

    import requests
    import crm_guard

    session = requests.Session()
    crm_guard.mount_guard(session)  # one session; or crm_guard.install(): every session of the process

    lead = "https://www.zohoapis.com/crm/v8/Leads/111112000000075003"
    response = session.put(lead, json={"data": [{"Company": "Zylker"}]})
    print(response.status_code, crm_guard.get_report(response).waited)

While an image is checked, CRM refuses writes with `RECORD_LOCKED`; the guard waits, and sends again
only what CRM refused. What waiting cannot fix raises at once, with what to do about it.

Put it in place:

- `mount_guard(session)`: on one session, for the hosts `CRM_PREFIXES`;
- `install()`, `uninstall()`: under every session of the process, `requests.put(...)` included;
- `GuardAdapter`: the adapter itself, for `session.mount`;
- `GuardSettings`, `load_settings`: its policy, from arguments, environment, a mapping or TOML;
  `SettingsError`.

See what became of a call:

- `get_report(response_or_error)`: a `GuardReport` with a `RecordOutcome` for each record; its
  `error` is a `CallError`, its `reason` a `GiveUpReason`;
- `NotApprovedError` (its `case` is an `ApprovalCase`) and `RecordLockedError`, both `GuardError`;
- `RemainingRequest`: what is still locked, as a request for a task queue.

Write any number of rows:

- `write_records(session, "PUT", url, rows)`: a `RecordWriter`, which gives a `RowResult` for each
  row; then `WriteCounts`, and an `UnfinishedRow` (with its `RowState`) for each row without a
  result.

Operate it:

- `stop_waiting()`: ends all waits at once, for a handler of SIGTERM;
- the logger `crm_guard`; `instrument([hook])` with a `GuardHook`, which is told each `GuardEvent`
  (`EventKind`);
- `Clock`: the protocol behind `clock=`.

Test code that uses it: the pytest fixtures and the clock of `crm_guard.testing`, the embedded CRM
of `crm_guard.simulator`.

`help()` of each name tells all of it. By topic, with examples, `crm-guard help` in a terminal, or
`help()` of:

- `crm_guard.mounting`: other clients, adapters and `Retry` policies;
- `crm_guard.GuardSettings`: every setting and its default;
- `crm_guard.errors`: what raises and when, each refusal;
- `crm_guard.bulk`: many rows; `crm_guard.remaining`: task queues; `crm_guard.locks`: many callers,
  Redis;
- `crm_guard.instrumentation`: logs, metrics, traces; `crm_guard.clock`: a clean stop (SIGTERM);
- `crm_guard.testing`: pytest fixtures; `crm_guard.simulator`, `crm_guard.simulator.control`: the
  embedded CRM;
- `crm_guard.adapter`: how it works, limits, cost;
- `crm_guard.cli.explain`, `crm_guard.cli.sync`: the commands.
"""

import importlib
import logging
import sys
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

    # For type checkers. At run time `__getattr__` gives it.
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

__version__ = "0.1.0"
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
        # Not for `help(crm_guard)`, which would then print every class in full: 2,000 lines.
        if name == "__all__" and sys._getframe(1).f_globals.get("__name__") != "pydoc":  # noqa: SLF001
            return [*_MODULES]
        if name not in _MODULES:
            message = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(message)
        from crm_guard._base.imports import first_import  # noqa: PLC0415 (importing the package alone imports no module)

        with first_import:
            value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
