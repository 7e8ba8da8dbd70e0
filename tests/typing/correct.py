"""A program without mistakes, which uses all that is public: a type checker finds nothing, and it runs.

Read and run by `test_typing.py`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3 import Retry

from crm_guard import (
    CRM_PREFIXES,
    ApprovalCase,
    Clock,
    EventKind,
    GiveUpReason,
    GuardAdapter,
    GuardError,
    GuardEvent,
    GuardHook,
    GuardReport,
    GuardSettings,
    NotApprovedError,
    RecordLockedError,
    RecordOutcome,
    RecordWriter,
    RemainingRequest,
    RowResult,
    RowState,
    SettingsError,
    UnfinishedRow,
    WriteCounts,
    get_report,
    install,
    load_settings,
    mount_guard,
    stop_waiting,
    uninstall,
    write_records,
)
from crm_guard.settings import origins
from crm_guard.simulator import Simulator
from crm_guard.testing import ManualClock, simulated_zoho

ROW = {"data": [{"Company": "Zylker"}]}


class Event(Protocol):
    """What a clock needs to know of that which may end a wait."""

    def is_set(self) -> bool: ...


class Hurried:
    """A clock on which nobody waits."""

    def __init__(self) -> None:
        self.instant = 0.0

    def now(self) -> float:
        return self.instant

    def wait(self, event: Event, timeout: float) -> bool:
        self.instant += timeout
        return event.is_set()


class Counter:
    """A hook with a state."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def __call__(self, event: GuardEvent, /) -> None:
        if event.kind is EventKind.WAITING:
            self.waits.append(event.delay)


def show(event: GuardEvent) -> None:
    reason: GiveUpReason | None = event.reason
    print(event.kind.value, event.method, event.path, event.record_ids, event.attempt, event.waited, reason)


def renew(request: requests.PreparedRequest) -> None:
    request.headers["Authorization"] = "Zoho-oauthtoken new"


def policies() -> list[GuardSettings]:
    read: GuardSettings = load_settings(
        {"TIMEOUT": 5}, env={}, attempts=3, raise_on="partial", retry_actions=("a",)
    )
    for name, (value, place) in origins(env={}, timeout=1.5, share_locks=False).items():
        print(name, value, place)
    with suppress(SettingsError):
        load_settings("no such file.toml")
    return [GuardSettings(), GuardSettings(timeout=5, diagnose=False), read]


def adapters(policy: GuardSettings, clock: Hurried) -> list[BaseAdapter]:
    hooks: list[GuardHook] = [show, Counter()]
    return [
        GuardAdapter(env_free(policy), hooks=hooks, refresh=renew, clock=clock, pool_maxsize=4),
        GuardAdapter({"timeout": 5}, inner=HTTPAdapter(pool_block=True)),
        GuardAdapter(settings=policy, max_retries=Retry(connect=3, read=False, other=0)),
        GuardAdapter(10, 20, 0, pool_block=True),
        GuardAdapter(10, settings=policy, hooks=(show,), lock_registry=None),
        GuardAdapter(),
    ]


def env_free(policy: GuardSettings) -> GuardSettings:
    return load_settings(env={}, attempts=policy.attempts)


def explain(outcome: RecordOutcome) -> str:
    case: ApprovalCase | None = outcome.case
    if case is ApprovalCase.ZIA_REJECTED:
        return f"{outcome.record_id}: {outcome.hint}"
    return f"{outcome.position} {outcome.code} {outcome.message} {outcome.succeeded} {outcome.retryable}"


def put(session: requests.Session, url: str) -> GuardReport:
    try:
        response = session.put(url, json=ROW, timeout=(3.05, 27))
    except NotApprovedError as error:
        print(error.case, error.candidates, error.record_ids, error.hint)
        return get_report(error)
    except RecordLockedError as error:
        later: RemainingRequest | None = error.remaining_request()
        if later is not None and error.retry_after is not None and error.retryable:
            print(later.to_dict(keep="orgId"), later.missing, round(error.retry_after), error.reason)
            kept = RemainingRequest.of(later, keep=("Authorization", "access_token")).to_dict()
            later = RemainingRequest.from_dict(kept, headers={"Authorization": None}, params={"token": "new"})
        return get_report(error)
    except GuardError as error:
        if error.report is None:
            raise
        return error.report
    return get_report(response)


def write(session: requests.Session, url: str) -> int:
    report = put(session, url)
    for outcome in (*report.outcomes, *report.blocked):
        print(explain(outcome))
    print(report.attempts, report.waited, report.credits_spent, report.reason, report.retry_after)
    if report.blocked:
        kept: RemainingRequest = report.request_for(outcome for outcome in report.blocked)
        print(kept.to_dict(), GuardError("refused", report=report).request_for(report.blocked).missing)
    report.raise_for_blocked()
    return report.attempts


def show_counts(counts: WriteCounts) -> None:
    print(counts.written, counts.final, counts.final_below, counts.to_dict())


def sync(session: requests.Session, url: str, ids: list[str]) -> list[UnfinishedRow[dict[str, str]]]:
    rows = ({"id": record_id, "Company": "Zylker"} for record_id in ids)
    writer: RecordWriter[dict[str, str]]
    writer = write_records(session, "PUT", url, rows, workers=2, key=lambda row: row["id"], progress=show_counts)
    with writer:
        for result in writer:
            told: RowResult[dict[str, str]] = result
            print(told.row["id"], told.outcome.code, told.index, told.attempts, round(told.waited), told.reason)
    writer.raise_for_blocked()
    left = [row for row in writer.unfinished() if row.may_be_sent and row.state is not RowState.UNCERTAIN]
    with write_records(session, "DELETE", url, ids, timeout=(3.05, 27), settings={"timeout": 9}) as deletions:
        print([result.row.upper() for result in deletions], deletions.counts.elapsed)
    return left


def test_with_the_fixtures(
    zoho_crm: Simulator,
    zoho_clock: ManualClock,
    guarded_session: requests.Session,
    crm_guard_settings: GuardSettings,
) -> None:
    lead = zoho_crm.add_record("Leads", locked_for=60.0)
    assert guarded_session.put(f"https://www.zohoapis.com/crm/v8/Leads/{lead}", json=ROW).ok
    assert sum(zoho_clock.waits) < crm_guard_settings.timeout


def main() -> None:
    clock = Hurried()
    by_hand: Clock = ManualClock()
    assert by_hand.now() == 0.0
    with Simulator(clock=clock.now) as crm, requests.Session() as session:
        for policy in policies():
            for adapter in adapters(policy, clock):
                adapter.close()
        counter = Counter()
        guard: GuardAdapter = mount_guard(session, crm.url, settings={"attempts": 9}, hooks=[counter], clock=clock)
        lead = crm.add_record("Leads", locked_for=5.0)
        assert write(session, f"{crm.url}/crm/v8/Leads/{lead}") == len(counter.waits) + 1
        more = [crm.add_record("Leads") for _ in range(3)]
        assert sync(session, f"{crm.url}/crm/v8/Leads", more) == []
        guard.stop_waiting()
        guard.close()
        stop_waiting()
        with install([*CRM_PREFIXES, crm.url], settings=GuardSettings(timeout=9), clock=clock) as shared:
            print(shared.settings.timeout, requests.get(f"{crm.url}/crm/v8/org", timeout=5).status_code)
        install(pool_maxsize=4, max_retries=0)
        uninstall()
    time = ManualClock()
    with simulated_zoho(time, sandbox=True) as zoho, requests.Session() as session:
        policy = mount_guard(session).settings
        test_with_the_fixtures(zoho, time, session, policy)


if __name__ == "__main__":
    main()
