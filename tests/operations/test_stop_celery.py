"""The reference's recipes for Celery: what a SIGTERM leaves to the next worker, which writes it once."""

from __future__ import annotations

import importlib.util
import signal
import sys
from contextlib import contextmanager

import pytest
import redis

from tests.documents.pages import recipe
from tests.locks.conftest import redis_server
from tests.operations.conftest import process, until

ALONE = ["--loglevel=INFO", "--without-mingle", "--without-gossip", "--without-heartbeat"]


def waiting_tasks():
    """Return the recipe whose tasks wait, and which ends them with their worker."""
    never = 'load_settings(timeout=0, raise_on="never")'
    source = recipe("Celery(")
    assert never in source
    return source.replace(never, 'load_settings(raise_on="never")') + recipe("worker_shutting_down")


@pytest.fixture
def broker(tmp_path):
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture
def fleet(real_crm, broker, tmp_path, monkeypatch):
    """Starts workers on a module of tasks."""
    env = {
        "BROKER_URL": broker.url,
        "CRM_URL": real_crm.url,
        "CRM_TOKEN": "Zoho-oauthtoken any",
        "CRM_GUARD_WAIT_INITIAL": "1.0",
    }
    for name, value in env.items():
        monkeypatch.setenv(name, value)

    class Fleet:
        log = tmp_path / "worker.log"

        def tasks(self, source):
            (tmp_path / "stop_tasks.py").write_text(source)
            spec = importlib.util.spec_from_file_location("stop_tasks", tmp_path / "stop_tasks.py")
            module = importlib.util.module_from_spec(spec)
            monkeypatch.setitem(sys.modules, "stop_tasks", module)
            spec.loader.exec_module(module)
            return module

        @contextmanager
        def worker(self, pool):
            command = ["-m", "celery", "-A", "stop_tasks", "worker", f"--pool={pool}", "--concurrency=1", *ALONE]
            with process(*command, cwd=tmp_path, log=self.log, **env) as running:
                yield running

    return Fleet()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("pool", ["threads", "gevent"])
def test_a_task_that_waits_ends_with_its_worker_and_the_next_one_writes_the_rest(fleet, real_crm, broker, pool):
    tasks = fleet.tasks(waiting_tasks())
    locked, free = real_crm.add_record("Leads", locked_for=1000), real_crm.add_record("Leads")
    tasks.update(f"{real_crm.url}/crm/v8/Leads", [{"id": lead, "Company": "Zylker"} for lead in (locked, free)])
    with fleet.worker(pool) as first:
        assert until(lambda: real_crm.refusals(locked)), fleet.log.read_text()
        first.send_signal(signal.SIGTERM)
        if pool == "gevent":  # this pool goes on taking tasks while it shuts down
            assert until(lambda: real_crm.refusals(locked) > 1 or first.poll() is not None), fleet.log.read_text()
            real_crm.unlock(locked)
        assert first.wait(60) == 0, fleet.log.read_text()
    real_crm.unlock(locked)
    if pool == "gevent":
        with fleet.worker("solo"):
            assert until(lambda: real_crm.writes(locked)), fleet.log.read_text()
        assert real_crm.write_counts == {locked: 1, free: 1}
    else:
        assert real_crm.write_counts == {free: 1}
        with redis.Redis.from_url(broker.url) as client:
            assert client.llen("celery") == 1, "the rest of the task"
    tasks.app.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_tasks_that_never_wait_are_left_in_the_broker(fleet, real_crm):
    tasks = fleet.tasks(recipe("Celery("))
    locked, free = real_crm.add_record("Leads", locked_for=1000), real_crm.add_record("Leads")
    tasks.update(f"{real_crm.url}/crm/v8/Leads", [{"id": lead, "Company": "Zylker"} for lead in (locked, free)])
    with fleet.worker("prefork") as first:
        assert until(lambda: "Retry in" in fleet.log.read_text()), fleet.log.read_text()
        first.send_signal(signal.SIGTERM)
        assert first.wait(60) == 0, fleet.log.read_text()
    real_crm.unlock(locked)
    with fleet.worker("solo"):
        assert until(lambda: real_crm.writes(locked)), fleet.log.read_text()
    assert real_crm.write_counts == {locked: 1, free: 1}
    tasks.app.close()
