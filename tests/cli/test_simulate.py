"""`crm-guard simulate`: as a process of its own, driven by curl; and what it reads and says, in this process."""

import json
import re
import shlex
import signal
import socket
import subprocess
import sys
from functools import partial

import pytest
import requests

from crm_guard.cli import simulate
from crm_guard.simulator import served_calls

READY = "Try:"
ROW = '{"data": [{"Company": "Zylker"}]}'


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


def curl(*arguments):
    """Return the status of the answer, and its body."""
    ran = subprocess.run(
        ["curl", "-sS", "-w", "\n%{http_code}", *arguments], capture_output=True, text=True, check=True
    )
    body, _, status = ran.stdout.rpartition("\n")
    return int(status), json.loads(body) if body else None


@pytest.fixture
def while_it_runs(monkeypatch):
    """Return a function that has something done with the simulator once it has introduced itself; then it ends."""

    def arrange(work):
        for name in ("_introduce", "_announce"):

            def introduce_and_work(introduce, *arguments):
                introduce(*arguments)
                work(arguments[-2])
                signal.raise_signal(signal.SIGTERM)

            monkeypatch.setattr(simulate, name, partial(introduce_and_work, getattr(simulate, name)))

    return arrange


def test_the_simulator_answers_until_it_is_told_to_stop():
    child = start("--token", "secret")
    try:
        said = introduced(child)
        command = shlex.split(next(line for line in said.splitlines() if line.startswith("curl ")))
        url, header, body = command[3], command[5], command[7]
        name, _, value = header.partition(": ")
        answer = requests.put(url, data=body, headers={name: value}, timeout=5)
        assert (answer.status_code, answer.json()["data"][0]["code"]) == (400, "RECORD_LOCKED")
        assert requests.put(url, data=body, timeout=5).status_code == 401
    finally:
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=10)
    assert (child.returncode, err) == (0, "")
    assert re.search(r"400 PUT +/crm/v8/Leads/\d+\n401 PUT", out)
    assert "calls answered: 2" in out


def test_curl_drives_an_end_to_end_test_without_waiting(tmp_path):
    """As a program in another language does: start it, read one line, set state, call CRM, look, reset, end it."""
    seed = tmp_path / "seed.json"
    seed.write_text('{"records": [{"module": "Leads", "id": "55", "locked_for": 3600}]}')
    child = start("--json", "--seed", str(seed))
    try:
        ready = json.loads(child.stdout.readline())
        crm, control = f"{ready['url']}/crm/v8/Leads", ready["control"]
        write = ("-X", "PUT", "-d", ROW)

        assert curl(f"{control}/records", "-d", '{"module": "Leads", "id": "101"}')[0] == 201
        assert curl(f"{control}/records/101/lock", "-d", '{"refusals": 1}')[1]["refusals_left"] == 1
        status, refused = curl(f"{crm}/101", *write)
        assert (status, refused["data"][0]["code"]) == (400, "RECORD_LOCKED")
        assert curl(f"{crm}/101", *write)[0] == 200
        counts = curl(f"{control}/counts")[1]
        assert (counts["writes"], counts["refusals"]) == ({"101": 1}, {"101": 1})

        fault = '{"kind": "429", "times": 2, "method": "PUT", "path": "/Leads/101"}'
        assert curl(f"{control}/faults", "-d", fault)[0] == 201
        assert [curl(f"{crm}/101", *write)[0] for _ in range(3)] == [429, 429, 200]
        calls = curl(f"{control}/calls?since=2")[1]["calls"]
        assert [(call["status"], call["fault"]) for call in calls] == [(429, "429"), (429, "429"), (200, None)]
        assert calls[0]["body"] == ROW

        curl(f"{control}/records/101/state", "-d", '{"state": "zia_vision_rejected"}')
        assert '"NOT_APPROVED"' in json.dumps(curl(f"{crm}/101", *write)[1])
        assert curl(f"{crm}/55", *write)[0] == 400
        assert curl(f"{control}/clock", "-d", '{"advance": 3600}')[0] == 200
        assert curl(f"{crm}/55", *write)[0] == 200

        status, wrong = curl(f"{control}/records", "-d", '{"module": "Leads", "state": "aproved"}')
        assert (status, wrong["error"]["field"]) == (400, "state")
        assert curl("-X", "POST", f"{control}/reset")[0] == 200
        assert [record["id"] for record in curl(f"{control}/records")[1]["records"]] == ["55"]
        assert curl(f"{crm}/55", *write)[0] == 400
        assert curl(f"{control}/counts")[1]["answered"] == 1
    finally:
        child.send_signal(signal.SIGTERM)
        out, err = child.communicate(timeout=10)
    assert (child.returncode, out, err) == (0, "", "")


@pytest.mark.parametrize("quiet", [False, True])
def test_leads_in_each_state_are_named_and_calls_are_logged(while_it_runs, crm_guard_command, quiet):
    before = signal.getsignal(signal.SIGINT)
    while_it_runs(lambda crm: requests.get(f"{crm.url}/crm/v8/Leads/{min(crm.records)}", timeout=5))
    ran = crm_guard_command("simulate", "--port", "0", "--records", "3", *["--quiet"] * quiet)
    assert (ran.status, ran.err) == (0, "")
    for state in (
        "free",
        "rejected by Zia",
        "record in approval",
        "image in approval",
        "in review",
        "record locking",
    ):
        assert re.search(rf"{state}.* \d{{18}}, \d{{18}} and 1 more", ran.out)
    assert re.search(r"curl http://127\.0\.0\.1:\d+/__simulator shows", ran.out)
    assert ("200 GET" in ran.out) is not quiet
    assert signal.getsignal(signal.SIGINT) is before  # ignored, where the tests run in the background of a shell


def test_a_taken_port_ends_with_1_and_one_line(crm_guard_command):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = crm_guard_command("simulate", "--port", str(port))
    assert ran.status == 1
    assert f"port {port} is not available" in ran.err


@pytest.mark.parametrize("host", ["192.0.2.1", "not a host", "a" * 100, "\x1b[31m"])
def test_a_host_that_is_none_of_ours_ends_with_1_and_one_line(crm_guard_command, host):
    """The first is reserved for documentation: no machine has it."""
    ran = crm_guard_command("simulate", "--port", "0", "--host", host)
    assert (ran.status, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert ran.err.startswith("crm-guard: host ")
    assert "is not available: " in ran.err
    assert "\x1b" not in ran.err


@pytest.mark.parametrize(
    ("host", "warns"),
    [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)],  # noqa: S104 (for an instant)
)
def test_only_a_host_that_others_reach_is_warned_of(while_it_runs, crm_guard_command, host, warns):
    def work(crm):
        assert requests.get(f"{crm.url}/__simulator", timeout=5).ok

    while_it_runs(work)
    ran = crm_guard_command("simulate", "--port", "0", "--host", host)
    said = f"crm-guard: warning: --host {host}: whoever reaches this port may read and change everything\n"
    assert (ran.status, ran.err) == (0, said if warns else "")


def test_a_start_state_takes_the_place_of_the_samples_and_options_go_before_its_own(
    while_it_runs, crm_guard_command, tmp_path
):
    seed = tmp_path / "seed.toml"
    seed.write_text('options = {token = "file", credits = 7}\nrecords = [{module = "Deals"}]\n')
    seen = []

    def work(crm):
        seen.append((len(crm.records), crm.tokens, crm.credits_remaining, crm._options.validation_seconds))

    while_it_runs(work)
    common = ("simulate", "--port", "0", "--seed", str(seed))
    runs = [
        crm_guard_command(*common, *more)
        for more in ([], ["--token", "given", "--records", "2", "--upload-check", "3"], ["--records", "0"])
    ]
    assert seen == [(1, {"file"}, 7, 10.0), (19, {"given"}, 7, 3.0), (1, {"file"}, 7, 10.0)]
    assert "Records: 1." in runs[0].out
    assert "/__simulator/records -d '{" in runs[0].out
    assert "rejected by Zia" in runs[1].out


def test_a_reset_brings_the_samples_back_with_the_same_ids(while_it_runs, crm_guard_command):
    def work(crm):
        before = set(crm.records)
        requests.delete(f"{crm.url}/crm/v8/Leads/{min(before)}", timeout=5)
        assert len(crm.records) == 8
        requests.post(f"{crm.url}/__simulator/reset", timeout=5)
        assert set(crm.records) == before

    while_it_runs(work)
    assert crm_guard_command("simulate", "--port", "0", "--records", "1").status == 0


def test_as_json_it_says_one_line_with_the_samples(while_it_runs, crm_guard_command):
    while_it_runs(lambda crm: requests.get(f"{crm.url}/crm/v8/org", timeout=5))
    ran = crm_guard_command("simulate", "--port", "0", "--json")
    said = ran.json()
    assert (ran.out.count("\n"), said["control"]) == (1, f"{said['url']}/__simulator")
    assert len(said["samples"]["rejected by Zia"]) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '{"records": [{"module": "Leads"}, {"module": "Leads", "state": "x"}]}',
            'records[1].state="x" must be one',
        ),
        ('{"record": []}', 'unknown key "record", did you mean records?'),
        ('{"options": {"token": 5}}', "options.token must be a text of 1 to 1000"),
        ("[", "the document is no JSON"),
    ],
)
def test_a_bad_start_state_ends_with_2_and_one_line_that_names_file_and_place(
    crm_guard_command, tmp_path, text, said
):
    seed = tmp_path / "seed.json"
    seed.write_text(text)
    ran = crm_guard_command("simulate", "--port", "0", "--seed", str(seed))
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert ran.err.startswith(f"crm-guard: {seed}: {said}")


def test_the_calls_that_are_served_can_be_listed(crm_guard_command):
    ran = crm_guard_command("simulate", "--served")
    *calls, rest = ran.out.splitlines()
    assert (ran.status, calls) == (0, [str(call) for call in served_calls()])
    assert "not simulated" in rest


def test_an_empty_host_is_no_address(crm_guard_command):
    ran = crm_guard_command("simulate", "--host", "", "--port", "0")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("crm-guard: --host is empty")
