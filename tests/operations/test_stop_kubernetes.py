"""The reference's job for Kubernetes: SIGTERM ends it at once, and the next run writes what it has left."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess

import pytest

from crm_guard.simulator import Simulator
from tests.documents.pages import recipe
from tests.operations.conftest import process, until

MAIN = """
import itertools
import os


import requests

import crm_guard

{recipe}

crm = os.environ["CRM_URL"]
with open("rows.json") as file:
    rows = json.load(file)
with requests.Session() as session:
    crm_guard.mount_guard(session, crm)
    job(session, f"{{crm}}/crm/v8/Leads", rows, Path("kept.jsonl"))
print("done")
"""
SINGLE = """
import json, os, signal, requests, crm_guard

signal.signal(signal.SIGTERM, lambda number, frame: crm_guard.stop_waiting(for_good=True))
crm = os.environ["CRM_URL"]
with requests.Session() as session:
    crm_guard.mount_guard(session, crm)
    for lead in json.load(open("rows.json")):
        try:
            session.put(f"{crm}/crm/v8/Leads/{lead}", json={"data": [{"Company": "Z"}]}, timeout=15)
        except crm_guard.RecordLockedError as error:
            print(error.reason, json.dumps(error.remaining_request().to_dict()), flush=True)
"""
RUNTIME = """
import os, signal, subprocess, sys

inner = "import os, runpy; print(os.getpid(), flush=True); runpy.run_path('job.py')"
pod = subprocess.Popen(["unshare", "--fork", "--pid", "--kill-child", sys.executable, "-c", inner])


def forward(number, frame):
    child = open(f"/proc/{pod.pid}/task/{pod.pid}/children").read().split()[0]
    os.kill(int(child), number)


signal.signal(signal.SIGTERM, forward)
sys.exit(pod.wait())
"""
"""A container's runtime: the job gets the process id 1, and then the SIGTERM."""
HAS_NAMESPACES = (
    shutil.which("unshare") is not None
    and subprocess.run(["unshare", "--fork", "--pid", "true"], capture_output=True, check=False).returncode == 0
)


@pytest.fixture
def latency():
    return 0.0


@pytest.fixture
def real_crm(latency):
    with Simulator(latency=latency) as crm:
        yield crm


@pytest.fixture
def job(real_crm, tmp_path):
    (tmp_path / "job.py").write_text(MAIN.format(recipe=recipe("def job(")))
    log = tmp_path / "log"

    def start(*before):
        return process(*before, "job.py", cwd=tmp_path, log=log, CRM_URL=real_crm.url)

    start.path, start.log = tmp_path, log
    return start


def test_a_job_that_is_stopped_ends_at_once_and_the_next_run_writes_the_rest_once(job, real_crm):
    free = [real_crm.add_record("Leads") for _ in range(250)]
    locked = [real_crm.add_record("Leads", locked_for=1000) for _ in range(3)]
    rows = [{"id": lead, "Company": "Zylker"} for lead in [*free[:100], *locked, *free[100:]]]
    (job.path / "rows.json").write_text(json.dumps(rows))
    with job() as first:
        assert until(lambda: all(real_crm.refusals(lead) for lead in locked)), job.log.read_text()
        assert until(lambda: len(real_crm.write_counts) == 250)
        first.send_signal(signal.SIGTERM)
        assert first.wait(60) == 0, job.log.read_text()
    kept = [json.loads(line) for line in (job.path / "kept.jsonl").read_text().splitlines()]
    assert [row["id"] for row in kept] == locked
    for lead in locked:
        real_crm.unlock(lead)
    (job.path / "rows.json").write_text("[]")
    with job() as second:
        assert second.wait(60) == 0, job.log.read_text()
    assert set(real_crm.write_counts.values()) == {1}
    assert len(real_crm.write_counts) == 253
    assert (job.path / "kept.jsonl").read_text() == ""
    assert job.log.read_text().count("done") == 2


@pytest.mark.parametrize("latency", [0.2])
def test_rows_that_were_never_read_are_kept_as_well(job, real_crm):
    rows = [{"id": real_crm.add_record("Leads"), "Company": "Zylker"} for _ in range(12_000)]
    (job.path / "rows.json").write_text(json.dumps(rows))
    with job() as first:
        assert until(lambda: real_crm.write_counts), job.log.read_text()
        first.send_signal(signal.SIGTERM)
        assert first.wait(60) == 0, job.log.read_text()
    kept = [json.loads(line)["id"] for line in (job.path / "kept.jsonl").read_text().splitlines()]
    written = real_crm.write_counts
    assert len(kept) + len(written) == 12_000
    assert not written.keys() & set(kept)
    assert set(written.values()) == {1}


def test_later_calls_of_a_loop_do_not_wait_either(real_crm, tmp_path):
    leads = [real_crm.add_record("Leads", locked_for=1000) for _ in range(3)]
    (tmp_path / "rows.json").write_text(json.dumps(leads))
    (tmp_path / "loop.py").write_text(SINGLE)
    log = tmp_path / "log"
    with process("loop.py", cwd=tmp_path, log=log, CRM_URL=real_crm.url) as loop:
        assert until(lambda: real_crm.refusals(leads[0])), log.read_text()
        loop.send_signal(signal.SIGTERM)
        assert loop.wait(60) == 0, log.read_text()
    letters = [line for line in log.read_text().splitlines() if line.startswith("stopped ")]
    assert [lead for line, lead in zip(letters, leads, strict=True) if lead in line] == leads
    assert [real_crm.refusals(lead) for lead in leads] == [1, 1, 1]


@pytest.mark.skipif(not HAS_NAMESPACES, reason="needs process namespaces")
def test_it_works_with_the_process_id_1_as_in_a_container(job, real_crm, tmp_path):
    lead = real_crm.add_record("Leads", locked_for=1000)
    (tmp_path / "rows.json").write_text(json.dumps([{"id": lead, "Company": "Zylker"}]))
    (tmp_path / "one.py").write_text(RUNTIME)
    with process("one.py", cwd=tmp_path, log=job.log, CRM_URL=real_crm.url) as runtime:
        assert until(lambda: real_crm.refusals(lead)), job.log.read_text()
        runtime.send_signal(signal.SIGTERM)
        assert runtime.wait(60) == 0, job.log.read_text()
    assert job.log.read_text().split() == ["1", "done"]
    assert lead in (tmp_path / "kept.jsonl").read_text()
