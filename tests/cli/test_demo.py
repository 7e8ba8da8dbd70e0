"""`crm-guard demo`."""

import io
import random
import re
import sys

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from crm_guard import EventKind, GuardEvent, GuardReport, RecordOutcome, instrument
from crm_guard.cli.demo import bulk, crew, unguarded
from crm_guard.cli.demo.board import Board, Rows
from crm_guard.cli.demo.plan import Planner
from crm_guard.cli.demo.results import Result
from crm_guard.remediation import ApprovalCase
from crm_guard.simulator import Engine, Simulator, State

FAST = ("demo", "--speed", "60", "--rows", "150")
CHECKS = 10


@pytest.fixture(autouse=True)
def _one_habit(monkeypatch):
    """Let one program without the guard run beside: `test_demo_story` has them all, and they take time."""
    monkeypatch.setattr(unguarded, "HABITS", unguarded.HABITS[:1])


@pytest.fixture
def jobs():
    return Planner(Engine(), random.Random(1), 1.0).plan(20)


def test_the_demo_ends_with_0_and_says_that_every_check_passed(crm_guard_command):
    ran = crm_guard_command(*FAST)
    assert ran.status == 0, ran.out
    assert f"All {CHECKS} checks passed." in ran.out
    assert "\x1b" not in ran.out
    assert all(len(line) <= 100 for line in ran.out.splitlines())
    for case in ApprovalCase:
        assert case in ran.out
    assert "Locking_Information__s" in ran.out
    assert re.search(r"write_records: 150 rows, 1 locked: \d+ calls, \d\.\d s\.\nGuarded batches", ran.out)
    assert ran.err == ""


def test_the_json_document_has_checks_counts_and_outcomes(crm_guard_command):
    ran = crm_guard_command(*FAST, "--json", "--seed", "3", "--records", "40")
    found = ran.json()
    assert (ran.status, found["ok"], found["seed"], found["speed"]) == (0, True, 3, 60.0)
    assert [check["held"] for check in found["checks"]] == [True] * CHECKS
    assert found["counts"]["records"] == 40 + 180
    assert found["counts"]["jobs"] == len(found["outcomes"]) == 43
    assert found["counts"]["calls"] == sum(outcome["calls"] for outcome in found["outcomes"])
    blocked = [record for outcome in found["outcomes"] for record in outcome["blocked"]]
    assert len(blocked) == found["counts"]["records_blocked"] == 11
    assert {record["case"] for record in blocked} == {*ApprovalCase, None}
    assert all(record["hint"] for record in blocked)


def test_the_json_document_has_the_bulk_update_both_ways(crm_guard_command):
    found = crm_guard_command(*FAST, "--json", "--rows", "400").json()["bulk"]
    assert (found["rows"], found["locked"]) == (400, 4)
    for way in ("write_records", "batches"):
        assert (found[way]["wrong"], found[way]["error"]) == (0, "")
        assert found[way]["calls"] >= 5
        assert found[way]["seconds"] > 0


def test_the_metrics_tell_what_the_demo_met(crm_guard_command):
    ran = crm_guard_command(*FAST, "--json", "--metrics")
    found = ran.json()
    assert ran.status == 0
    page = {family.name: family.samples for family in text_string_to_metric_families(found["metrics"])}
    totals = {
        name: sum(sample.value for sample in samples if sample.name.endswith(("_total", "_count")))
        for name, samples in page.items()
    }
    assert totals["crm_guard_blocked_records"] == found["counts"]["records_blocked"] == 11
    assert totals["crm_guard_gave_up"] == 0
    locked = totals["crm_guard_refused_records"]
    assert locked >= found["counts"]["refusals"] - found["counts"]["records_blocked"]
    assert totals["crm_guard_refusals"] <= locked
    assert totals["crm_guard_resends"] >= totals["crm_guard_wait_seconds"] > 0
    assert {sample.value for sample in page["crm_guard_waits_in_progress"]} == {0.0}
    waited_for = {sample.labels["module"] for sample in page["crm_guard_unlocked_records"]}
    assert waited_for, "at this speed a lock may end before a call meets it, but not all of them"
    assert waited_for <= {"Leads", "Contacts", "Accounts", "Deals"}


def test_the_metrics_are_served_meanwhile_and_printed_at_the_end(crm_guard_command):
    ran = crm_guard_command(*FAST, "--metrics")
    assert ran.status == 0
    url = re.search(r"^Metrics while it runs: (http://127\.0\.0\.1:\d+/metrics)$", ran.out, re.MULTILINE)[1]
    assert re.search(r'^crm_guard_blocked_records_total\{cause="zia_rejected",.*\} \d', ran.out, re.MULTILINE)
    assert instrument([]) == (), "the hooks of the process are as before"
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=5)


def test_metrics_without_their_library_name_the_extra(monkeypatch, crm_guard_command):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    ran = crm_guard_command(*FAST, "--metrics")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err == "crm-guard: --metrics needs prometheus-client: pip install 'crm-guard[prometheus]'\n"


def test_the_bulk_update_is_the_same_both_ways(monkeypatch, crm_guard_command):
    met = []

    class Noting(bulk._LateLocks):
        def __init__(self, locks, **options):
            met.append((locks, options))
            super().__init__(locks, **options)

    monkeypatch.setattr(bulk, "_LateLocks", Noting)
    assert crm_guard_command(*FAST, "--json").status == 0
    assert met[0] == met[1]
    assert met[0][0]


@pytest.mark.parametrize("way", ["write_records", "batches"])
def test_a_row_of_the_bulk_update_that_was_not_written_once_is_told(monkeypatch, crm_guard_command, way):
    class Stubborn(bulk._LateLocks):
        made = 0

        def __init__(self, locks, **options):
            type(self).made += 1
            rejected = Stubborn.made == (1 if way == "write_records" else 2)
            self.rejected = next(iter(locks)) if rejected else None
            super().__init__(locks, **options)

        def add_record(self, module, id=None, **about):  # noqa: A002
            state = {"state": State.ZIA_VISION_REJECTED} if id == self.rejected and id else {}
            self._locks.pop(self.rejected, None)
            return super().add_record(module, id, **state, **about)

    monkeypatch.setattr(bulk, "_LateLocks", Stubborn)
    found = crm_guard_command(*FAST, "--json")
    assert (found.status, found.json()["ok"]) == (1, False)
    (check,) = [check for check in found.json()["checks"] if not check["held"]]
    assert check["name"] == "each row of the bulk update was written exactly once"
    assert check["detail"] == f"{way}: not so for 1 row"


def test_the_bulk_update_tells_what_ended_it(monkeypatch, crm_guard_command):
    class Closed(bulk._LateLocks):
        def start(self):
            self.expire_token("another")
            return super().start()

    monkeypatch.setattr(bulk, "_LateLocks", Closed)
    found = crm_guard_command(*FAST, "--json").json()
    assert found["bulk"]["write_records"]["wrong"] == found["bulk"]["batches"]["wrong"] == 150
    assert found["bulk"]["write_records"]["error"] == "GuardError"
    assert found["ok"] is False


def test_a_seed_draws_the_same_plan(jobs):
    again = Planner(Engine(), random.Random(1), 2.0).plan(20)
    assert [job.name for job in again] == [job.name for job in jobs]
    assert [job.endings for job in again] == [job.endings for job in jobs]
    assert [[2 * seconds for seconds in job.locks.values()] for job in again] == [
        pytest.approx(list(job.locks.values())) for job in jobs
    ]


class Miscounting(Simulator):
    """A CRM that has written a record once too often."""

    @property
    def write_counts(self):
        counts = dict(super().write_counts)
        counts[min(counts, key=counts.get)] += 1
        return counts


class Intruding(Simulator):
    """A CRM in which somebody else has written, too."""

    @property
    def write_counts(self):
        return {**super().write_counts, "999": 1}


class Overbilling(Simulator):
    """A CRM that has seen a call nobody reports."""

    @property
    def calls(self):
        return (*super().calls, super().calls[0])


class Failing(Simulator):
    """A CRM with a bad moment: one call of each kind is refused for another cause."""

    def start(self):
        self.fault("500", method="PUT", times=1)
        self.fault("drop", method="POST", times=1)
        return super().start()


@pytest.mark.parametrize(
    ("broken", "name", "detail"),
    [
        (Miscounting, "each write reached its record exactly once", "was written 2 times instead of 1"),
        (Intruding, "no blocked record was written", "record 999 was written 1 times instead of 0"),
        (Overbilling, "every call is accounted for", "the guard reports"),
        (Failing, "no job failed", "status 500"),
    ],
)
def test_a_check_that_does_not_hold_ends_with_1_and_is_named(monkeypatch, crm_guard_command, broken, name, detail):
    monkeypatch.setattr("crm_guard.cli.demo.Simulator", broken)
    ran = crm_guard_command(*FAST, "--records", "12")
    assert ran.status == 1
    said = " ".join(ran.out.split())
    assert name in said.partition(f"of {CHECKS} checks failed: ")[2]
    assert detail in said


def test_a_lock_that_was_not_waited_out_is_named(monkeypatch, crm_guard_command):
    monkeypatch.setenv("CRM_GUARD_TIMEOUT", "0")
    found = crm_guard_command(*FAST, "--json").json()
    failed = {check["name"]: check["detail"] for check in found["checks"] if not check["held"]}
    assert "is still locked (timeout)" in failed["every transient lock was waited out"]
    assert found["ok"] is False


def test_a_block_that_was_not_recognised_is_named(monkeypatch, crm_guard_command):
    planted = Simulator.deny_scope
    monkeypatch.setattr(Simulator, "start", lambda self: (planted(self, None, "Leads", "READ"), START(self))[1])
    found = crm_guard_command(*FAST, "--json", "--records", "12").json()
    failed = {check["name"]: check["detail"] for check in found["checks"] if not check["held"]}
    assert "the guard says no case (state not asked for)" in failed["every block was recognised, case and state"]


START = Simulator.start


def test_ctrl_c_ends_with_130(monkeypatch, crm_guard_command):
    def interrupted(_futures):
        raise KeyboardInterrupt

    monkeypatch.setattr(crew, "as_completed", interrupted)
    ran = crm_guard_command("demo")
    assert (ran.status, ran.err) == (130, "crm-guard: interrupted\n")


def lead_event(job, kind, **about):
    return GuardEvent(kind=kind, method="PUT", path="/crm/v8/Leads", record_ids=job.ids, **about)


def drawn(rows, *, width, height=60, whole=False, encoding="utf-8"):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    console = Console(file=stream, width=width, height=height, force_terminal=True, color_system=None)
    console.print(Board(rows, whole=whole))
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [24, 40, 59, 80, 87, 88, 100, 200])
def test_the_board_fits_every_terminal(jobs, width):
    text = drawn(Rows(jobs), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert text.count("queued") == len(jobs) or width < 40


def test_the_board_of_a_low_terminal_shows_what_is_under_way(jobs):
    rows = Rows(jobs)
    last = rows.of(jobs[-1])
    last.start()
    last.note(lead_event(jobs[-1], EventKind.WAITING, delay=60.0))
    text = drawn(rows, width=100, height=10)
    assert "locked, sent again in" in text
    assert f"{len(jobs) - 3} more" in text
    assert len(text.splitlines()) < 10
    assert "more" not in drawn(rows, width=100, height=10, whole=True)


def test_the_board_needs_no_unicode(jobs):
    assert drawn(Rows(jobs), width=100, encoding="ascii").isascii()


def test_a_row_follows_the_events_of_its_job(jobs):
    batch = jobs[0]
    row = Rows(jobs).of(batch)
    assert (row.view().state, row.view().sends) == ("queued", 0)
    row.start()
    assert row.view().state == "sending"
    row.note(lead_event(batch, EventKind.LOCKED))
    row.note(lead_event(batch, EventKind.WAITING, delay=60.0, waited=1.5))
    view = row.view()
    assert view.state.startswith("100 of 100 locked, again in ")
    assert (view.sends, view.settled) == (1, 0)
    assert view.waited >= 1.5
    row.note(lead_event(batch, EventKind.RESENDING, attempt=2))
    assert row.view().state == "sending again"
    some = GuardEvent(kind=EventKind.UNLOCKED, method="PUT", path="/", record_ids=batch.ids[:40], attempt=2)
    row.note(some)
    assert row.view().settled == 40
    report = GuardReport(outcomes=(RecordOutcome(position=0, code="NOT_APPROVED"),), attempts=2, waited=3.0)
    row.advance(report)
    row.finish(Result(job=batch, reports=(report,)))
    assert row.view()[1:] == ("99 written, 1 blocked", 2, 3.0, 100)


def test_the_live_board_is_followed_by_the_summary(monkeypatch, crm_guard_command):
    class Terminal(Console):
        """A terminal of 80 columns, whatever the test runs in."""

        def __init__(self):
            super().__init__(force_terminal=True, force_interactive=True, width=80, height=24, color_system=None)

    monkeypatch.setattr("crm_guard.cli.demo.make_console", Terminal)
    ran = crm_guard_command(*FAST)
    assert ran.status == 0
    assert "200 of 200 records  23 of 23 jobs" in ran.out
    assert "\x1b[" in ran.out
