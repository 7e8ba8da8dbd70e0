"""`crm-guard simulate`, as a process of its own."""

import re
import shlex
import signal
import socket
import subprocess
import sys

import pytest
import requests

from crm_guard.cli import simulate

READY = "Try:"


def start(*options):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "crm_guard.cli", "simulate", "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def introduced(child):
    """Return what the simulator says until it is ready, with the line after."""
    lines = []
    for line in child.stdout:
        lines.append(line)
        if lines[-2:-1] == [f"{READY}\n"]:
            return "".join(lines)
    return "".join(lines)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_simulator_answers_until_it_is_told_to_stop(number):
    child = start("--token", "secret")
    try:
        said = introduced(child)
        curl = shlex.split(next(line for line in said.splitlines() if line.startswith("curl ")))
        url, header, body = curl[3], curl[5], curl[7]
        name, _, value = header.partition(": ")
        answer = requests.put(url, data=body, headers={name: value}, timeout=5)
        assert (answer.status_code, answer.json()["data"][0]["code"]) == (400, "RECORD_LOCKED")
        assert requests.put(url, data=body, timeout=5).status_code == 401
    finally:
        child.send_signal(number)
        out, err = child.communicate(timeout=10)
    assert (child.returncode, err) == (0, "")
    assert re.search(r"400 PUT +/crm/v8/Leads/\d+\n401 PUT", out)
    assert "calls answered: 2" in out


@pytest.mark.parametrize("quiet", [False, True])
def test_leads_in_each_state_are_named_and_calls_are_logged(monkeypatch, crm_guard_command, quiet):
    introduce, before = simulate._introduce, signal.getsignal(signal.SIGINT)

    def introduce_and_work(console, crm, samples, locked_for):
        introduce(console, crm, samples, locked_for)
        requests.get(f"{crm.url}/crm/v8/Leads/{samples['free'][0]}", timeout=5)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(simulate, "_introduce", introduce_and_work)
    ran = crm_guard_command("simulate", "--port", "0", "--records", "3", *["--quiet"] * quiet)
    assert ran.status == 0
    for state in (
        "free",
        "rejected by Zia",
        "record in approval",
        "image in approval",
        "in review",
        "record locking",
    ):
        assert re.search(rf"{state}.* \d{{18}}, \d{{18}} and 1 more", ran.out)
    assert ("200 GET" in ran.out) is not quiet
    assert signal.getsignal(signal.SIGINT) is before  # ignored, where the tests run in the background of a shell


def test_a_taken_port_ends_with_1_and_one_line(crm_guard_command):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = crm_guard_command("simulate", "--port", str(port))
    assert ran.status == 1
    assert f"port {port} is not available" in ran.err
