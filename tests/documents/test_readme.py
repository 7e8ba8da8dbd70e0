"""Every Python example of the README runs alone against a simulated CRM; its claims about the code hold."""

import re
import shlex
from pathlib import Path

import pytest

import crm_guard
from crm_guard.cli.app import app
from crm_guard.cli.help import TOPICS
from tests.documents.conftest import IDS, LOCKED, REJECTED
from tests.documents.pages import READ_ME_EXAMPLES, README

SHELL = re.findall(r"^```sh\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
CONSOLE = re.findall(r"^```console\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
PRINTS = {
    "install()": [r"200 0\.0\d+", r"200 0\.0"],
    "except crm_guard.NotApprovedError": [rf"zia_rejected \('{REJECTED}',\) Zia rejected .*"],
    "load_settings(": [r"30\.0 partial 4\.0"],
    "write_records(": [r"100 0 \d+"],
}


def example_with(marker):
    (found,) = [example for example in READ_ME_EXAMPLES if marker in example]
    return found


def test_a_newcomer_reads_it_to_the_end():
    assert len(README.splitlines()) <= 220


@pytest.mark.parametrize("marker", PRINTS)
def test_an_example_pasted_alone_runs_and_prints_what_it_says(pasted, zoho, capsys, marker):
    pasted(example_with(marker))
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(PRINTS[marker])
    assert all(re.fullmatch(wanted, line) for wanted, line in zip(PRINTS[marker], printed, strict=True))


def test_the_first_example_shows_both_ways_and_writes_twice_in_all(pasted, zoho):
    pasted(example_with("install()"))
    assert READ_ME_EXAMPLES[0] == example_with("mount_guard(session)  #")
    assert zoho.write_counts == {LOCKED: 2}


def test_the_rows_are_each_written_once(pasted, zoho):
    pasted(example_with("write_records("))
    assert zoho.write_counts == dict.fromkeys(IDS, 1)


def test_the_sdk_says_which_records_of_a_batch_were_written(pasted, zoho, zoho_sdk, capsys):
    assert pasted(example_with("zohocrmsdk"))["update"](zoho_sdk.rows(IDS[0], REJECTED)) is None
    written, refused = capsys.readouterr().out.splitlines()
    assert written.startswith(f"{IDS[0]} True None")
    assert refused.startswith(f"{REJECTED} False zia_rejected Zia rejected")
    assert zoho.write_counts == {IDS[0]: 1}


def test_every_python_example_has_a_test():
    elsewhere = ("zohocrmsdk", "def test_a_locked_lead_is_written_once")
    seen = [*PRINTS, *elsewhere]
    assert [example for example in READ_ME_EXAMPLES if not any(marker in example for marker in seen)] == []
    assert len(READ_ME_EXAMPLES) == len(seen)


def test_the_two_commands_are_the_ones_that_ci_runs():
    ci = (Path(__file__).parents[2] / ".ci" / "run").read_text()
    assert SHELL[1].strip() in ci
    assert SHELL[0].strip() in ci
    assert shlex.split(SHELL[0])[-1] == "demo"


def test_the_commands_and_the_pages_that_it_names_exist():
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}
    (listed,) = CONSOLE
    assert set(re.findall(r"crm-guard ([a-z]+)", README)) <= commands
    assert set(re.findall(r"[a-z]+", listed.splitlines()[-1].removeprefix("crm-guard"))) <= commands
    assert set(re.findall(r"crm-guard help ([a-z]+)", README)) <= set(TOPICS)


def test_it_names_every_error_and_the_ways_in():
    public = {"NotApprovedError", "RecordLockedError", "mount_guard", "install", "load_settings", "get_report"}
    public |= {case.name for case in crm_guard.ApprovalCase}
    assert [name for name in sorted(public) if name not in README] == []


def test_the_defaults_that_it_gives_are_those_of_the_settings():
    settings = crm_guard.GuardSettings()
    text = " ".join(README.split())
    waits = f"waits of {settings.wait_initial * (1 - settings.wait_jitter):g} to {settings.wait_max:.0f} s"
    assert f"{settings.attempts} `attempts` within a `timeout` of {settings.timeout:.0f} s, {waits}" in text
    assert f"lists all {len(crm_guard.GuardSettings.__struct_fields__)}" in text
