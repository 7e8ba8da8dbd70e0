"""The reference's configuration of gunicorn: a worker that waits for a lock ends at once, and its view answers."""

from __future__ import annotations

import json
import signal
import threading

import pytest
import requests

import crm_guard
from tests.documents.pages import recipe
from tests.operations.conftest import free_port, listens, process, until

APP = """
import json, os

import requests

import crm_guard

crm = os.environ["CRM_URL"]
session = requests.Session()
crm_guard.mount_guard(session, crm)


def app(environ, start_response):
    lead = environ["PATH_INFO"].strip("/")
    try:
        response = session.put(f"{crm}/crm/v8/Leads/{lead}", json={"data": [{"Company": "Zylker"}]}, timeout=15)
    except crm_guard.RecordLockedError as error:
        start_response("503 Service Unavailable", [("Retry-After", f"{error.retry_after:.0f}")])
        return [json.dumps({"reason": error.reason, "rest": error.remaining_request().to_dict()}).encode()]
    start_response(f"{response.status_code} OK", [])
    return [response.content]
"""


@pytest.fixture
def serve(real_crm, tmp_path):
    (tmp_path / "gunicorn.conf.py").write_text(recipe("def post_worker_init"))
    (tmp_path / "app.py").write_text(APP)
    log = tmp_path / "log"

    def start(*options):
        port = free_port()
        address = f"127.0.0.1:{port}"
        command = ("-m", "gunicorn", "--bind", address, "--keep-alive", "1", *options, "app:app")
        start.url = f"http://{address}"
        running = process(*command, cwd=tmp_path, log=log, CRM_URL=real_crm.url, HOME=str(tmp_path))
        start.up = lambda: listens(port)
        return running

    start.log = log
    return start


class Visitor:
    """A request in a thread of its own."""

    def __init__(self, url):
        self.answers = []
        self.thread = threading.Thread(target=self.visit, args=(url,), daemon=True)
        self.thread.start()

    def visit(self, url):
        try:
            self.answers.append(requests.get(url, timeout=30))
        except requests.ConnectionError:
            self.answers.append(None)

    def answer(self):
        self.thread.join(15)
        assert not self.thread.is_alive(), "no answer"
        return self.answers[0]


@pytest.mark.parametrize("options", [["--worker-class=sync"], ["--worker-class=gthread", "--threads=4"]], ids=str)
def test_a_stopped_worker_answers_at_once_and_what_it_left_is_written_later(serve, real_crm, options):
    lead = real_crm.add_record("Leads", locked_for=1000)
    with serve(*options) as master:
        assert until(serve.up), serve.log.read_text()
        visitor = Visitor(f"{serve.url}/{lead}")
        assert until(lambda: real_crm.refusals(lead)), serve.log.read_text()
        master.send_signal(signal.SIGTERM)
        answer = visitor.answer()
        assert master.wait(15) == 0, serve.log.read_text()
    assert (answer.status_code, answer.json()["reason"]) == (503, "stopped"), serve.log.read_text()
    assert 2 <= int(answer.headers["Retry-After"]) <= 3
    assert (real_crm.refusals(lead), real_crm.writes(lead)) == (1, 0)
    real_crm.unlock(lead)
    with requests.Session() as session:
        assert session.send(crm_guard.RemainingRequest.from_dict(json.loads(answer.text)["rest"]), timeout=15).ok
    assert real_crm.writes(lead) == 1


def test_a_sync_worker_that_waits_longer_than_gunicorns_timeout_is_ended(serve, real_crm):
    """Hence `timeout` in the recipe. The call ends as by Ctrl-C, and the visitor gets nothing of use."""
    lead = real_crm.add_record("Leads", locked_for=1000)
    with serve("--worker-class=sync", "--timeout=1") as master:
        assert until(serve.up), serve.log.read_text()
        answer = Visitor(f"{serve.url}/{lead}").answer()
        master.send_signal(signal.SIGTERM)
        assert master.wait(15) == 0
    assert answer is None or answer.status_code == 500
    assert "WORKER TIMEOUT" in serve.log.read_text()
    assert real_crm.writes(lead) == 0
