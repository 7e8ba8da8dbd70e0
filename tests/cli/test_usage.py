"""Usage, exit statuses, and what is imported when."""

import importlib.util
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import crm_guard
from crm_guard.cli import main
from crm_guard.cli.app import app


def test_the_version_is_printed(crm_guard_command):
    assert crm_guard_command("--version") == (0, f"crm-guard {crm_guard.__version__}\n", "")


@pytest.mark.parametrize("command", [[], ["demo"], ["explain"], ["simulate"], ["settings"], ["sync"]])
def test_every_command_has_help(command):
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "Missing command"),
        (["frobnicate"], "frobnicate"),
        (["demo", "--speed", "fast"], "--speed"),
        (["demo", "--records", "3"], "--records"),
        (["demo", "--spede", "3"], "--spede"),
        (["demo", "--rows", "0"], "--rows"),
        (["sync", "leads.csv", "--url", "https://www.zohoapis.com", "--module", "Leads"], "--method"),
        (["explain"], "JSON without an answer"),
        (["explain", "-", "--state", "not a state"], "$approval_state"),
        (["simulate", "--latency", "inf"], "latency"),
        (["simulate", "--seed", "missing.json"], "missing.json: No such file"),
        (["simulate", "--port", "70000"], "--port"),
    ],
)
def test_bad_usage_ends_with_2_and_one_line_that_names_it(crm_guard_command, arguments, named):
    ran = crm_guard_command(*arguments, stdin="{}")
    assert (ran.status, ran.out) == (2, "")
    assert named in ran.err
    assert ran.err.startswith("crm-guard: ")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_a_missing_extra_ends_with_2_and_the_command_that_installs_it(monkeypatch, capsys, missing):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    assert main(["--version"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"crm-guard needs {missing}: pip install 'crm-guard[cli]'\n"


def test_importing_the_library_imports_nothing_of_the_extra():
    code = (
        "import sys, crm_guard, crm_guard.simulator, crm_guard.cli\n"
        "sys.exit(bool({'typer', 'rich', 'click'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_error_of_the_programs_own_is_not_dressed_up(monkeypatch, crm_guard_command):
    def fail(*_args, **_kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr("crm_guard.cli.app.run_settings", fail)
    with pytest.raises(ZeroDivisionError):
        crm_guard_command("settings")


def test_a_reader_that_goes_away_ends_the_command_quietly():
    """As in `crm-guard settings | head -1`."""
    child = subprocess.Popen(
        [sys.executable, "-m", "crm_guard.cli", "settings"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    child.stdout.close()
    assert child.stderr.read() == b""
    child.stderr.close()
    assert child.wait(10) == 1
