"""Zoho's host, answered by a simulated CRM with the records that the documents speak of."""

from __future__ import annotations

import logging
import signal
from pathlib import Path

import pytest
from requests.adapters import HTTPAdapter

import crm_guard
from crm_guard._testing.hosts import zoho_hosts_at
from crm_guard.simulator import Simulator
from tests.clients.conftest import load, signed_in

HOST = "https://www.zohoapis.com"
ACCOUNTS = "https://accounts.zoho.com"
LOCKED, REJECTED = "111112000000075003", "111112000000075009"
IDS = [str(111112000000142001 + number) for number in range(100)]


@pytest.fixture
def zoho(monkeypatch, tmp_path):
    """A simulated CRM behind Zoho's host; what an example leaves in the process is taken back."""
    monkeypatch.setenv("CRM_GUARD_WAIT_INITIAL", "0.01")
    monkeypatch.setenv("CRM_GUARD_WAIT_MAX", "0.02")
    with Simulator() as crm, zoho_hosts_at(crm.url):
        crm.add_record("Leads", LOCKED, refusals=2)
        crm.add_record("Leads", REJECTED, state="zia_vision_rejected")
        for number, record_id in enumerate(IDS):
            crm.add_record("Leads", record_id, **({} if number % 10 else {"refusals": 2}))
        stock = HTTPAdapter.send

        def send(self, request, **kwargs):
            if "expired" in request.headers.get("Authorization", ""):
                crm.fault("401")
            return stock(self, request, **kwargs)

        monkeypatch.setattr(HTTPAdapter, "send", send)
        monkeypatch.chdir(tmp_path)
        lines = [f"{record_id},Zylker" for record_id in [*IDS, REJECTED]]
        Path("leads.csv").write_text("\n".join(["id,Company", *lines]))
        before = signal.getsignal(signal.SIGTERM)
        logger = logging.getLogger("crm_guard")
        handlers, level = list(logger.handlers), logger.level
        yield crm
        crm_guard.uninstall()
        signal.signal(signal.SIGTERM, before)
        crm_guard.instrument([])
        logger.handlers[:] = handlers
        logger.setLevel(level)


@pytest.fixture
def pasted(zoho):
    """Run an example as if it were pasted alone into a new file, and return its names."""

    def run(example):
        names = {"__name__": "__main__"}
        exec(compile(example, "example.py", "exec"), names)  # noqa: S102 (our own text)
        return names

    return run


@pytest.fixture
def zoho_sdk(zoho, monkeypatch, tmp_path):
    """The official SDK, signed in at Zoho's host."""
    environment = load().DataCenter.Environment(HOST, f"{ACCOUNTS}/oauth/v2/token", HOST)
    return signed_in(monkeypatch, tmp_path, environment)
