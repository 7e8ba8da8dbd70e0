"""Start states: what a file may say, and what is said of one that may not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from crm_guard.simulator import Engine, Request
from crm_guard.simulator.inputs import InputError
from crm_guard.simulator.seeds import load_seed, read_seed

if TYPE_CHECKING:
    from pathlib import Path

    from crm_guard.testing import ManualClock

STATE = {
    "options": {"token": "secret", "credits": 50, "mandatory": {"Leads": ["Company"]}, "gzip": True},
    "records": [
        {"module": "Leads", "fields": {"Company": "Zylker"}},
        {"module": "Leads", "id": "111112000000142001", "locked_for": 60, "then": "zia_vision_rejected"},
    ],
    "faults": [{"kind": 429, "retry_after": 2}],
    "refuse_new": [{"module": "Contacts", "refusals": 1, "where": {"Last_Name": "A"}}],
}
TOML = """
[options]
token = "secret"
credits = 50
mandatory = { Leads = ["Company"] }
gzip = true

[[records]]
module = "Leads"
fields = { Company = "Zylker" }

[[records]]
module = "Leads"
id = 111112000000142001  # the first id that would be made up
locked_for = 60
then = "zia_vision_rejected"

[[faults]]
kind = 429
retry_after = 2

[[refuse_new]]
module = "Contacts"
refusals = 1
where = { Last_Name = "A" }
"""


@pytest.mark.parametrize(
    ("name", "text"), [("a.json", json.dumps(STATE)), ("a.TOML", TOML), ("a", json.dumps(STATE))]
)
def test_a_file_says_all_that_python_can(tmp_path: Path, clock: ManualClock, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    seed = load_seed(path)
    engine = Engine(clock=clock, **seed.options)
    seed.plant(engine)
    assert sorted(engine.records) == ["111112000000142001", "111112000000142002"]
    assert engine.get("111112000000142001").locked_until == clock.now() + 60
    assert engine.get("111112000000142002").fields == {"Company": "Zylker"}
    assert (engine.tokens, engine.credits_remaining) == ({"secret"}, 50)
    (fault,), (plan,) = engine.faults, engine.new_refusals
    assert (fault.kind, fault.retry_after, plan.module, plan.refusals) == ("429", 2, "Contacts", 1)
    held = {"Authorization": "Zoho-oauthtoken secret"}
    for row, statuses in (({"Last_Name": "A"}, (429, 400, 201)), ({"Last_Name": "B"}, (201,))):
        body = json.dumps({"data": [row]}).encode()
        request = Request(method="POST", path="/crm/v8/Contacts", headers=held, body=body)
        assert tuple(engine.handle(request).status for _ in statuses) == statuses


def test_an_empty_object_is_an_empty_start() -> None:
    engine = Engine()
    read_seed({}).plant(engine)
    assert not engine.records


LEAD = {"module": "Leads"}


@pytest.mark.parametrize(
    ("document", "field", "message"),
    [
        ([], "", r"the document must be an object, not \[\]"),
        ({"records": {}}, "records", r"records=\{\} must be an array of objects"),
        ({"records": [LEAD, 5]}, "records[1]", r"records\[1\] must be an object, not 5"),
        ({"records": [LEAD, {}]}, "records[1].module", r"records\[1\]\.module is missing"),
        ({"records": [LEAD, {**LEAD, "sate": 1}]}, "records[1].sate", 'unknown key "records.1..sate", did'),
        ({"records": [{**LEAD, "id": 1}, LEAD, {**LEAD, "id": "1"}]}, "records[2].id", "1 is the id of records.0."),
        ({"faults": [{"kind": 1}]}, "faults[0].kind", r"faults\[0\]\.kind=1 must be one of reset"),
        ({"faults": [{"kind": 500, "seconds": 1}]}, "faults[0].seconds", r"faults\[0\]\.seconds goes with kind"),
        ({"refuse_new": [{"module": 1}]}, "refuse_new[0].module", r"refuse_new\[0\]\.module=1 must be"),
        ({"options": {"clock": 1}}, "options.clock", 'unknown key "options.clock". Allowed|did you mean'),
        ({"options": {"latency": -1}}, "options.latency", r"options\.latency=-1 must be a number of seconds"),
        ({"options": {"gzip": 1}}, "options.gzip", r"options\.gzip=1 must be true or false"),
        ({"options": {"mandatory": {"Leads": "A"}}}, "options.mandatory", "must be an object of modules to arrays"),
        ({"options": {"mandatory": 5}}, "options.mandatory", "must be an object of modules to arrays"),
    ],
)  # fmt: skip
def test_what_is_not_allowed_is_named_with_its_place(document: object, field: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        read_seed(document)
    assert raised.value.field == field
    assert raised.value.allowed


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("a.json", b"", "the file is empty"),
        ("a.json", b'{"records": [}', "the document is no JSON: Expecting value"),
        ("a.json", b"\xff\xfe\xfd", "the document is no JSON"),
        ("a.json", b"[" * 10_000, "the document is no JSON: nested too deeply"),
        ("a.toml", b"records = [", "Invalid value"),
        ("a.toml", b"a = \xff", "utf-8"),
        ("a.toml", b"records = " + b"[" * 10_000, "."),
        (
            "a.toml",
            b"[[records]]\nmodule = 'Leads'\nfields = {Due = 2026-05-10}",
            "records.0..fields=.* without dates",
        ),
        ("a.toml", b"[[records]]\nmodule = 'Leads'\nfields = {A = inf}", "records.0..fields=.* infinite numbers"),
        ("a.toml", b"[[records]]\nmodule = 'Leads'\nrefusals = 0x" + b"f" * 9999, "records.0..refusals=a huge int"),
        ("a.toml", b"[[records]]\nmodule = 'Leads'\nfields = {A = 0x" + b"f" * 9999 + b"}", "records.0..fields="),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, raw: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(raw)
    with pytest.raises(InputError, match=message) as raised:
        load_seed(path)
    assert str(raised.value).startswith(f"{path}: ")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Is a directory"):
        load_seed(tmp_path)
