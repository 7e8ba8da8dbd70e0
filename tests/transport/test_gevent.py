"""Greenlets: each call is guarded by itself, and waits without holding up the others, whenever gevent patches.

Each case runs in a process of its own, since a patch cannot be taken back. The simulated CRM stays in this one.
"""

import json
import subprocess
import sys

import pytest

from crm_guard.simulator import Simulator

pytest.importorskip("gevent", reason="needs gevent: pip install gevent")

CALLS = 30
LOCK = 0.2
SIDE_BY_SIDE = CALLS * LOCK / 2  # seconds: half of what it takes one after the other, ten times what it should take

# Reads orders line by line: for each guard some leads, each to be written by a greenlet; tells what they got.
PROGRAM = """
import json, sys, threading, time

url, patch = sys.argv[1:]
if patch == "before":
    from gevent import monkey
    monkey.patch_all()

import requests
from requests.adapters import HTTPAdapter
import crm_guard

class Own(HTTPAdapter):
    pass

sessions = {"own pool": requests.Session(), "inner adapter": requests.Session()}
sessions["inner adapter"].mount(url, Own(pool_maxsize=40))
settings = {"wait_initial": 0.1, "wait_max": 0.1, "raise_on": "never"}
guards = [crm_guard.mount_guard(session, url, settings=settings, pool_maxsize=40) for session in sessions.values()]
assert [type(guard.inner) for guard in guards] == [type(None), Own]

if patch == "after":
    from gevent import monkey
    monkey.patch_all()
import gevent

def write(session, lead):
    response = session.put(f"{url}/crm/v8/Leads/{lead}", json={"data": [{"Company": "Zylker"}]})
    report = crm_guard.get_report(response)
    return response.status_code, report.attempts, report.reason

print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    began = time.monotonic()
    jobs = [gevent.spawn(write, sessions[guard], lead) for guard, leads in order.items() for lead in leads]
    if len(order) == 1:
        gevent.spawn_later(0.2, crm_guard.stop_waiting)
    gevent.joinall(jobs, raise_error=True)
    print(json.dumps([time.monotonic() - began, [job.value for job in jobs]]), flush=True)
    assert type(guards[0].locks.mutex) is type(threading.Lock())
"""


@pytest.fixture
def crm():
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def greenlets(crm):
    """Starts the program, and returns a function that gives it an order: seconds, and what each greenlet got."""
    programs = []

    def start(patch):
        command = [sys.executable, "-c", PROGRAM, crm.url, patch]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        programs.append(subprocess.Popen(command, text=True, **pipes))
        assert programs[-1].stdout.readline() == "ready\n", programs[-1].stderr.read()

        def write(order):
            programs[-1].stdin.write(json.dumps(order) + "\n")
            programs[-1].stdin.flush()
            return json.loads(programs[-1].stdout.readline() or programs[-1].stderr.read())

        return write

    yield start
    for program in programs:
        _, complaints = program.communicate(timeout=10)
        assert program.returncode == 0, complaints
        assert "a guard sends through another guard" not in complaints


def refusing(crm):
    """Records that refuse each two calls: about one lock each."""
    return [crm.add_record("Leads", refusals=2) for _ in range(CALLS)]


@pytest.mark.parametrize("patch", ["before", "after"])
def test_greenlets_wait_side_by_side(crm, greenlets, patch):
    write = greenlets(patch)
    order = {"inner adapter": refusing(crm), "own pool": refusing(crm)}
    seconds, results = write(order)
    assert {(status, attempts) for status, attempts, _ in results} == {(200, 3)}
    assert crm.write_counts == dict.fromkeys(order["inner adapter"] + order["own pool"], 1)
    assert seconds < SIDE_BY_SIDE

    lead = crm.add_record("Leads", locked_for=LOCK)
    seconds, results = write({"inner adapter": [lead] * CALLS, "own pool": []})
    assert {status for status, _, _ in results} == {200}
    assert crm.writes(lead) == CALLS
    assert seconds < SIDE_BY_SIDE

    seconds, results = write({"inner adapter": [crm.add_record("Leads", locked_for=60.0) for _ in range(CALLS)]})
    assert {(status, reason) for status, _, reason in results} == {(400, "stopped")}
    assert seconds < SIDE_BY_SIDE


def test_without_a_patch_they_write_one_after_the_other(crm, greenlets):
    order = {"inner adapter": refusing(crm)[:2], "own pool": refusing(crm)[:2]}
    _, results = greenlets("never")(order)
    assert {(status, attempts) for status, attempts, _ in results} == {(200, 3)}
    assert crm.write_counts == dict.fromkeys(order["inner adapter"] + order["own pool"], 1)
