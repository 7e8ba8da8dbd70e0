"""Every documented answer that the simulator can produce is the answer it gives."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from crm_guard.simulator import Engine, Reply, Request

if TYPE_CHECKING:
    from collections.abc import Callable

CORPUS = Path(__file__).parent.parent / "corpus"
LEAD = "111112000000075003"
A, B, C, D = (f"11111200000014200{n}" for n in range(1, 5))
TAGGED = "3060320000002538026"
PNG = base64.b64decode(json.loads((CORPUS / "62_photo_get_200_png_bytes_contain_code.json").read_text())
                       ["response"]["body_base64"])  # fmt: skip

NOT_PRODUCED = {
    "09": "mixes both styles of details in one answer",
    "18": "constructed: Zia's message on a lock without an action",
    "31": "adapted: a partial success of tags is 200, not 207, in the newest files",
    "68": "adapted: in the newest files an upsert's error carries neither `action` nor `duplicate_field`",
    "44": "blueprint and stop-processing are no states of the simulator",
    "88": "constructed: not a shape of CRM's",
}
"""Corpus files that need `fault("answer")`, and why."""


@dataclass
class Scene:
    """The org in which a corpus file's request gets the corpus file's answer."""

    records: dict[str, str] = field(default_factory=dict)
    module: str = "Leads"
    options: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    before: Callable[[Engine], object] = Engine.clear_faults


def _convert(engine: Engine) -> None:
    path = "/crm/v8/Leads/3652397000007566544/actions/convert"
    assert engine.handle(Request(method="POST", path=path)).status == 200


ZIA, LOCKED, REJECTED = "zia_vision_validation", "record_locking", "zia_vision_rejected"
REVIEW, OK = "review_process_pending", "approved"

SCHEDULER = {"code": "CANNOT_PROCESS", "details": {}, "message": "Scheduler is running", "status": "error"}

SCENES = {
    "01": Scene({LEAD: ZIA}, options={"envelope": "bare"}),
    "02": Scene({LEAD: REJECTED}),
    "04": Scene({A: REJECTED}, options={"details_style": "oas"}),
    "06": Scene({A: LOCKED}),
    "07": Scene({A: REVIEW}),
    "08": Scene({A: OK, B: ZIA, C: OK}),
    "10": Scene({A: OK, B: OK}),
    "11": Scene({"5725767000000524157": OK}),
    "12": Scene({A: OK, B: ZIA}, options={"sandbox": True}),
    "16": Scene({"492070000199308229": OK}, headers={"If-Unmodified-Since": "2023-06-04T12:00:20+05:30"}),
    "17": Scene({LEAD: ZIA}, record={"fields": {"External_Lead_ID": "EXT-00017"}}),
    "20": Scene({"5040565000001052497": LOCKED}),
    "21": Scene({"5040565000001052497": REJECTED}),
    "22": Scene({"5040565000001052497": REJECTED}),
    "23": Scene({"5040565000001052497": LOCKED}),
    "26": Scene({"410405000002264040": OK, "410405000002264025": OK}),
    "27": Scene({TAGGED: LOCKED}),
    "28": Scene({TAGGED: LOCKED}),
    "30": Scene({TAGGED: LOCKED}),
    "32": Scene({TAGGED: ZIA}),
    "34": Scene({TAGGED: OK}),
    "35": Scene({"3652397000001970045": ZIA}),
    "37": Scene({"3652397000001970045": OK}),
    "39": Scene(before=lambda engine: engine.fault("answer", status=403, body=SCHEDULER)),
    "40": Scene({"1990117000045575047": OK, "1990117000045575059": OK, "1990117000045639003": LOCKED}),
    "42": Scene({"1990117000045639003": REJECTED}),
    "43": Scene(),
    "46": Scene({"1990117000045639003": REJECTED}),
    "47": Scene({"3652397000007566544": ZIA}),
    "49": Scene({"3652397000007566544": OK}, before=_convert),
    "50": Scene({"3652397000007566544": OK}, options={"scheduled_convert": True}),
    "52": Scene({"3652397000007566544": "approval_process_pending"}),
    "53": Scene({"111111000000072001": REJECTED}, module="Quotes"),
    "56": Scene({"3000000038009": ZIA}),
    "58": Scene({"111111000000091057": "approval_process_pending"}),
    "59": Scene({"111111000000091108": REVIEW}),
    "61": Scene({"111111000000091019": OK}),
    "62": Scene({"3000000038009": OK}, record={"image": PNG}),
    "63": Scene({"3000000038009": OK}),
    "65": Scene({"4987786000003224629": LOCKED}),
    "67": Scene({"4987786000003224001": OK}),
    "71": Scene({A: OK, LEAD: ZIA}),
    "73": Scene({"3652397000009850001": OK, "3652397000009851001": OK}),
    "75": Scene({A: OK}, record={"fields": {"Last_Name": "Doe", "Description": '{"code":"RECORD_LOCKED"}'}}),
    "76": Scene(
        {A: OK},
        module="Incidents",
        record={
            "fields": {
                "code": "RECORD_LOCKED",
                "status": "error",
                "message": "Cannot update record that is not approved yet",
                "details": {"action": "zia_vision_processing", "id": A},
            }
        },
    ),
    "78": Scene({A: ZIA, B: REJECTED, C: "zia_vision_pending", LEAD: "approval_process_pending"}),
    "79": Scene(),
    "81": Scene(),
    "82": Scene(options={"token": "another"}),
    "83": Scene(options={"credits": 0}),
    "84": Scene(before=lambda engine: engine.fault(500)),
}
EXACT = {
    "code", "message", "status", "action", "api_name", "json_path", "resource_path_index", "status_code",
    "locked_count", "success_count", "duplicate_field", "$approval_state", "$in_merge", "expected_data_type",
}  # fmt: skip
"""Keys whose values are compared too; of all others only type and keys."""


def _load(number: str) -> dict[str, Any]:
    (path,) = CORPUS.glob(f"{number}_*.json")
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def _request(case: dict[str, Any], headers: dict[str, str]) -> Request:
    asked = case["request"]
    body, sent = asked["body"], {**asked.get("request_headers", {}), **headers}
    if isinstance(body, str):
        sent["Content-Type"] = "multipart/form-data; boundary=xyz"
        part = b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="img1.png"\r\n\r\n'
        content = part + PNG + b"\r\n--xyz--\r\n"
    else:
        content = b"" if body is None else json.dumps(body).encode()
    return Request(
        method=asked["method"], path=asked["path"], query=urlencode(asked["query"]), headers=sent, body=content
    )


def _differences(actual: Any, expected: Any, where: str = "$", *, wide: bool) -> list[str]:
    """List where `actual` has another shape; a `wide` part may say more than the corpus kept."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        wide = {"success": True, "error": False}.get(expected.get("status", ""), wide)
        missing, extra = expected.keys() - actual.keys(), actual.keys() - expected.keys()
        found = [f"{where}: misses {missing}"] if missing else []
        found += [f"{where}: has also {extra}"] if extra and not wide else []
        for key in expected.keys() & actual.keys():
            if key in EXACT and not isinstance(expected[key], (dict, list)) and expected[key] != actual[key]:
                found.append(f"{where}.{key}: {actual[key]!r} is not {expected[key]!r}")
            found += _differences(actual[key], expected[key], f"{where}.{key}", wide=wide)
        return found
    if isinstance(expected, list) and isinstance(actual, list):
        found = [f"{where}: {len(actual)} items, not {len(expected)}"] if len(actual) != len(expected) else []
        pairs = zip(actual, expected, strict=False)
        return found + [
            line for i, pair in enumerate(pairs) for line in _differences(*pair, f"{where}[{i}]", wide=wide)
        ]
    nullable = expected is None or actual is None
    return [] if nullable or type(actual) is type(expected) else [f"{where}: {actual!r} is not like {expected!r}"]


def _reply(number: str) -> tuple[Reply, dict[str, Any]]:
    case, scene = _load(number), SCENES[number]
    engine = Engine(**scene.options)
    for record_id, state in scene.records.items():
        engine.add_record(scene.module, record_id, state=state, **scene.record)
    scene.before(engine)
    return engine.handle(_request(case, scene.headers)), case["response"]


@pytest.mark.parametrize("number", SCENES)
def test_the_simulator_gives_the_documented_answer(number: str) -> None:
    """Status, envelope, keys, codes and messages are those of the corpus file."""
    reply, expected = _reply(number)
    assert reply.status == expected["status"]
    if "body" in expected:
        assert _differences(reply.json(), expected["body"], wide=_load(number)["request"]["method"] == "GET") == []


@pytest.mark.parametrize(
    "number", [n for n in SCENES if int(n) in (1, 2, 4, 6, 20, 21, 22, 27, 47, 52, 53, 56, 65)]
)
def test_refusals_equal_the_documented_ones_to_the_letter(number: str) -> None:
    """Refusal bodies hold nothing variable, so they are equal."""
    reply, expected = _reply(number)
    assert reply.json() == expected["body"]


def test_a_photo_comes_back_as_uploaded() -> None:
    reply, expected = _reply("62")
    assert reply.body == base64.b64decode(expected["body_base64"])
    assert reply.headers["Content-Type"] == "image/png"


def test_every_corpus_file_is_produced_or_excused() -> None:
    numbers = {path.name[:2] for path in CORPUS.glob("*.json")}
    assert numbers == SCENES.keys() | NOT_PRODUCED.keys()
