"""Every Python snippet of the README runs, in order, against a simulated CRM; its claims about the code hold."""

import logging
import re
import shlex
import signal
from pathlib import Path

import pytest
import requests
from requests.adapters import HTTPAdapter

import crm_guard
from crm_guard.simulator import Simulator

README = (Path(__file__).parent.parent / "README.md").read_text()
SNIPPETS = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
# The recipes for servers and task queues are run by tests/locks/test_celery_recipe.py and tests/operations.
SNIPPETS = [snippet for snippet in SNIPPETS if not re.search(r"Celery\(|celery import|post_worker_init", snippet)]
SHELL = re.findall(r"^```sh\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
HOST = "https://www.zohoapis.com"


@pytest.fixture
def zoho(monkeypatch, tmp_path):
    """Zoho's host, answered by a simulated CRM with the records that the README speaks of."""
    monkeypatch.setenv("CRM_GUARD_WAIT_INITIAL", "0.01")
    monkeypatch.setenv("CRM_GUARD_WAIT_MAX", "0.02")
    with Simulator() as crm:
        crm.add_record("Leads", "111112000000075003", refusals=2)
        crm.add_record("Leads", "111112000000075009", state="zia_vision_rejected")
        for number in range(100):
            crm.add_record("Leads", str(111112000000142001 + number), **({} if number % 10 else {"refusals": 2}))
        stock = HTTPAdapter.send

        def send(self, request, **kwargs):
            here = request.copy()
            here.url = here.url.replace(HOST, crm.url)
            if here.headers.get("Authorization") == "expired":
                crm.fault("401")
            response = stock(self, here, **kwargs)
            response.request = request
            return response

        monkeypatch.setattr(HTTPAdapter, "send", send)
        monkeypatch.chdir(tmp_path)
        ids = [str(111112000000142001 + number) for number in range(100)]
        lines = [f"{record_id},Zylker" for record_id in [*ids, "111112000000075009"]]
        Path("leads.csv").write_text("\n".join(["id,Company", *lines]))
        before = signal.getsignal(signal.SIGTERM)
        logger = logging.getLogger("crm_guard")
        handlers, level = list(logger.handlers), logger.level
        yield crm
        signal.signal(signal.SIGTERM, before)
        crm_guard.instrument([])
        logger.handlers[:] = handlers
        logger.setLevel(level)


def test_the_snippets_run_in_order_and_print_what_they_say(zoho, capsys):
    names = {"__name__": "readme"}
    for snippet in SNIPPETS:
        exec(compile(snippet, "README.md", "exec"), names)  # noqa: S102 (our own text)
    printed = capsys.readouterr().out
    assert printed.startswith("200 0.0")
    assert "200 100 3" in printed
    assert "1 111112000000075009 NOT_APPROVED zia_rejected Zia rejected" in printed
    assert "zia_rejected ('111112000000075009',) Zia rejected" in printed
    assert "30.0 10 4.0" in printed
    assert "401 INVALID_TOKEN True 100" in printed
    assert "100 111112000000075009 NOT_APPROVED Zia rejected" in printed
    assert "100 1 " in printed, "written, blocked"
    assert max(zoho.write_counts.values()) <= 4  # some records are written by as many snippets


def test_blocked_rows_are_kept_in_a_file_and_sent_again_tomorrow(zoho):
    recipe = next(snippet for snippet in SNIPPETS if "def sync(" in snippet)
    names = {"crm_guard": crm_guard, "session": requests.Session(), "leads": f"{HOST}/crm/v8/Leads"}
    exec(compile(recipe, "README.md", "exec"), names)  # noqa: S102 (our own text)
    assert Path("blocked.csv").read_text().splitlines() == ["id,Company", "111112000000075009,Zylker"]
    zoho.unlock("111112000000075009")
    assert names["sync"]("blocked.csv", "still_blocked.csv").written == 1
    assert Path("still_blocked.csv").read_text().splitlines() == ["id,Company"]
    assert set(zoho.write_counts.values()) == {1}
    assert len(zoho.write_counts) == 101


def test_the_fixture_of_the_readme_works_in_a_users_test(pytester_snippet):
    result = pytester_snippet(
        "import crm_guard\nimport requests\n" + next(s for s in SNIPPETS if "@pytest.fixture" in s)
    )
    result.assert_outcomes(passed=1)


@pytest.fixture
def pytester_snippet(pytester):
    def run(source):
        pytester.makepyfile(source)
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:randomly")

    return run


def test_the_example_stands_in_the_first_thirty_lines():
    assert "mount_guard(session)" in "".join(README.splitlines(keepends=True)[:30])


def test_the_settings_table_gives_the_defaults():
    defaults = crm_guard.GuardSettings()
    rows = dict(re.findall(r"^\| (`[a-z_`, ]+`) \| (.*?) \|", README, re.MULTILINE))
    told = {}
    for names, values in rows.items():
        fields = [name.strip("` ") for name in names.split(",")]
        for field, value in zip(fields, values.split(", ") if len(fields) > 1 else [values], strict=True):
            told[field] = value.strip("`")
    for field in crm_guard.GuardSettings.__struct_fields__:
        value = getattr(defaults, field)
        shown = (
            {8 * 1024 * 1024: "8 MiB"}.get(value, str(value)) if not isinstance(value, str | tuple | bool) else None
        )
        if shown is None:
            shown = value if field == "path_pattern" else f'"{value}"' if isinstance(value, str) else str(value)
        assert told[field].replace("'", '"') == shown.replace("'", '"'), field


def test_the_two_commands_are_the_ones_that_ci_runs():
    ci = (Path(__file__).parent.parent / ".ci" / "run").read_text()
    assert SHELL[1].strip() in ci
    assert shlex.split(SHELL[0])[-2:] == ["crm-guard", "demo"] or SHELL[0].strip().endswith("crm-guard demo")
    assert SHELL[0].strip() in ci


def test_the_readme_names_every_public_name_or_its_home():
    public = {
        "GuardSettings",
        "NotApprovedError",
        "RecordLockedError",
        "GuardError",
        "SettingsError",
        "GiveUpReason",
    }
    public |= {"mount_guard", "install", "load_settings", "get_report", "GuardAdapter"}
    assert [name for name in sorted(public) if name not in README] == []
    assert requests.Session.get_adapter.__qualname__ == "Session.get_adapter"
