"""The reference's recipe for Celery, run with a real worker on a real Redis."""

import importlib.util
import os
import re
import subprocess
import sys
import threading

import pytest

from crm_guard.clock import SystemClock
from crm_guard.simulator import Simulator
from tests.documents.pages import recipe


@pytest.fixture
def crm_server():
    with Simulator(token="secret") as simulator:
        yield simulator


@pytest.fixture
def worker(server, crm_server, tmp_path):
    """A Celery worker in a process of its own that runs the recipe; yields the module of the recipe."""
    (tmp_path / "crm_tasks.py").write_text(recipe("Celery("))
    told = {
        "BROKER_URL": server.url,
        "CRM_URL": crm_server.url,
        "CRM_TOKEN": "Zoho-oauthtoken secret",
        "CRM_GUARD_WAIT_INITIAL": "0.02",
        "PYTHONWARNINGS": "ignore",
    }
    # It has no neighbours to look for, which would take it a second.
    alone = ["--pool=solo", "--without-mingle", "--without-gossip", "--without-heartbeat"]
    command = [sys.executable, "-m", "celery", "-A", "crm_tasks", "worker", "--loglevel=INFO", *alone]
    with (tmp_path / "worker.log").open("w") as log, pytest.MonkeyPatch.context() as patch:
        process = subprocess.Popen(command, cwd=tmp_path, env=os.environ | told, stdout=log, stderr=log)
        for name, value in told.items():
            patch.setenv(name, value)
        try:
            yield module_from(tmp_path / "crm_tasks.py"), tmp_path / "worker.log"
        finally:
            process.terminate()
            process.wait(60)


def module_from(path):
    spec = importlib.util.spec_from_file_location("crm_tasks", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def until(condition, seconds=30.0):
    clock, never = SystemClock(), threading.Event()
    end = clock.now() + seconds
    while not condition() and clock.now() < end:
        clock.wait(never, 0.05)
    return condition()


def told_dead(log):
    """Return record and code of every dead letter in the worker's log."""
    return re.findall(r"(\S+) may not have been written: (\w+)\. (?=\S)", log.read_text())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_batch_is_finished_by_the_queue_and_no_record_of_it_is_lost(worker, crm_server):
    """Ten of a hundred are locked for two sends; one is rejected for good, and one only after the first send."""
    tasks, log = worker
    locked = {"refusals": 2}
    ids = [crm_server.add_record("Leads", **({} if number % 10 else locked)) for number in range(98)]
    rejected = crm_server.add_record("Leads", state="zia_vision_rejected")
    in_the_end = crm_server.add_record("Leads", refusals=1, then="zia_vision_pending")
    rows = [{"id": lead, "Company": "Zylker"} for lead in (*ids, rejected, in_the_end)]
    crm_server.fault("429", method="PUT", retry_after=0.1)
    tasks.update(f"{crm_server.url}/crm/v8/Leads", rows)
    assert until(lambda: len(crm_server.write_counts) == 98), log.read_text()
    assert set(crm_server.write_counts.values()) == {1}
    sent = [len(call.record_ids) for call in crm_server.calls if call.method == "PUT"]
    assert sent == [0, 100, 11, 10], "a 429 is not looked into"
    assert until(lambda: len(told_dead(log)) == 2), log.read_text()
    assert sorted(told_dead(log)) == sorted([(rejected, "NOT_APPROVED"), (in_the_end, "NOT_APPROVED")])
    # The first of two rows for one record is refused, the second applied: to send the first again would undo that.
    twice = crm_server.add_record("Leads", refusals=1)
    tasks.update(
        f"{crm_server.url}/crm/v8/Leads", [{"id": twice, "Company": "old"}, {"id": twice, "Company": "new"}]
    )
    assert until(lambda: (twice, "RECORD_LOCKED") in told_dead(log)), log.read_text()
    assert crm_server.get(twice).fields["Company"] == "new"
    text = log.read_text()
    assert text.count("Retry in ") == 3
    assert "secret" not in text
    assert until(lambda: "succeeded" in log.read_text())
    tasks.app.close()
