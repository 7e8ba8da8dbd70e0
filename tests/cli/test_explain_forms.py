"""`crm-guard explain` understands every documented answer in every form in which people paste it."""

from __future__ import annotations

import contextlib
import html
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

import pytest

from crm_guard.cli.explain import Explanation, Question, explain
from crm_guard.cli.explain.reader import read_paste
from crm_guard.cli.plain import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable

TOKEN = "1000.secret-access-token"


class Case(NamedTuple):
    """A documented request and response."""

    name: str
    method: str
    path: str
    sent: str | None
    status: int
    body: Any
    media_type: str
    expect: dict[str, Any]

    @property
    def text(self) -> str:
        return json.dumps(self.body)

    @property
    def known(self) -> dict[str, Any]:
        return {"method": self.method, "path": self.path, "status": self.status, "request": self.sent}


def load(path: Path) -> Case:
    raw = json.loads(path.read_text())
    request, response = raw["request"], raw["response"]
    query = request.get("raw_url_query") or urlencode(request["query"])
    sent = request["body"]
    return Case(
        path.stem,
        request["method"],
        request["path"] + (f"?{query}" if query else ""),
        sent if isinstance(sent, str) or sent is None else json.dumps(sent),
        response["status"],
        response.get("body"),
        response.get("headers", {}).get("Content-Type", "application/json;charset=UTF-8"),
        raw["expect"],
    )


CASES = [load(path) for path in sorted((Path(__file__).parents[1] / "corpus").glob("*.json"))]
WITH_BODY = [case for case in CASES if case.body is not None]


def quoted(text: str) -> str:
    return json.dumps(text)


def indented(case: Case) -> str:
    return json.dumps(case.body, indent=2)


def wrapped(text: str, width: int = 76) -> str:
    """Break lines as a terminal's selection does."""
    return "\n".join(text[at : at + width] for at in range(0, len(text), width))


def node(value: Any) -> str:
    """Print as `console.log` of Node does."""
    if isinstance(value, dict):
        inner = ", ".join(f"{key if key.isidentifier() else repr(key)}: {node(one)}" for key, one in value.items())
        return f"{{ {inner} }}"
    if isinstance(value, list):
        return f"[ {', '.join(map(node, value))} ]"
    return json.dumps(value) if not isinstance(value, str) else repr(value)


# What the body alone can be pasted as. The call is told by options, or not at all.
BODIES: dict[str, Callable[[Case], str]] = {
    "pretty": indented,
    "in a list": lambda case: f"[{case.text}]",
    "twice encoded": lambda case: quoted(case.text),
    "thrice encoded": lambda case: quoted(quoted(case.text)),
    "pretty and encoded": lambda case: quoted(indented(case)),
    "the inside of a string": lambda case: quoted(case.text)[1:-1],
    "repr": lambda case: repr(case.body),
    "repr of bytes": lambda case: repr(case.text.encode()),
    "repr of a str": lambda case: repr(case.text),
    "repr of a list": lambda case: repr([case.body]),
    "repr of Python 2": lambda case: "u" + repr(case.text),
    "node": lambda case: node(case.body),
    "ruby": lambda case: case.text.replace('": ', '"=>').replace("null", "nil"),
    "log line": lambda case: f"2026-01-01 12:00:00,417 ERROR [worker-3] zoho: refused: {case.text} (giving up)",
    "log line with a repr": lambda case: f"2026-01-01T12:00:00Z app[512]: Zoho said {case.body!r}",
    "log line with quotes": lambda case: f'level=error msg="call failed" body="{case.text}" took=12ms',
    "log line with escapes": lambda case: f"level=error msg={quoted(f'call failed: {case.text}')} took=12ms",
    "log object": lambda case: json.dumps({"level": "error", "time": 1, "response": case.body}),
    "log object with a text": lambda case: json.dumps({"level": "error", "message": f"failed: {case.text}"}),
    "log object with an encoded body": lambda case: json.dumps({"code": 3, "event": {"body": case.text}}),
    "axios": lambda case: node({"statusText": "Bad Request", "headers": {}, "data": case.body}),
    "Markdown": lambda case: f"We get this:\n\n```json\n{indented(case)}\n```\n\nWhat is it?",
    "Markdown quote": lambda case: "\n".join(f"> {line}" for line in indented(case).split("\n")),
    "docker": lambda case: "\n".join(f"app_1  | {line}" for line in indented(case).split("\n")),
    "HTML": lambda case: f"<pre>{html.escape(case.text)}</pre>",
    "colours": lambda case: f"\x1b[1;39m{case.text.replace(':', ':' + chr(27) + '[0;32m')}\x1b[0m",
    "byte order mark": lambda case: f"\ufeff{case.text}",
    "smart quotes": lambda case: case.text.replace('"', "\u201d"),
    "wrapped": lambda case: wrapped(case.text.replace(" ", "\t")).replace("\t", " "),
    "traceback": lambda case: (
        'Traceback (most recent call last):\n  File "job.py", line 7, in push\n    raise ZohoError(answer)\n'
        f"ZohoError: {case.body!r}\n"
    ),
    "exception repr": lambda case: f"ZohoError({case.text!r})",
    "assertion": lambda case: f"AssertionError: assert {case.body!r} == None",
}


# An item in a list is the result of a record, and alone it may be that of the call; a terminal breaks any word.
NOT_THE_SAME_BODY = {"in a list", "repr of a list", "axios", "wrapped"}


def head(case: Case) -> str:
    return f'HTTP/1.1 {case.status} \r\nContent-Type: {case.media_type}\r\nNEL: {{"code": 1}}\r\n\r\n'


def response(case: Case) -> str:
    return head(case) + ("" if case.body is None else case.text)


def verbose(case: Case, version: str = "HTTP/1.1") -> str:
    asked = f"> {case.method} {case.path} {version}\r\n> Host: www.zohoapis.com\r\n"
    said = "".join(f"< {line}\r\n" for line in head(case).replace("HTTP/1.1", version).split("\r\n")[:-1])
    return (
        "* Connected to www.zohoapis.com (127.0.0.1) port 443\n"
        f"{asked}> Authorization: Zoho-oauthtoken {TOKEN}\r\n>\r\n"
        "} [57 bytes data]\n* upload completely sent off\n"
        f"{said.replace('< ' + chr(13), '<' + chr(13))}{{ [173 bytes data]\n"
        f"{'' if case.body is None else case.text}* Connection #0 to host www.zohoapis.com left intact\n"
    )


def har(case: Case) -> str:
    entry = {
        "request": {"method": case.method, "url": f"https://www.zohoapis.com{case.path}"},
        "response": {"status": case.status, "content": {"mimeType": case.media_type, "text": case.text}},
    }
    return json.dumps({"log": {"version": "1.2", "entries": [entry]}})


# What tells the call, too: also of answers without a body.
EXCHANGES: dict[str, Callable[[Case], str]] = {
    "curl -v": verbose,
    "curl -v over HTTP/2": lambda case: verbose(case, "HTTP/2"),
    "an exchange": lambda case: (
        f"{case.method} {case.path} HTTP/1.1\r\nAuthorization: Zoho-oauthtoken {TOKEN}\r\n\r\n"
        f"{case.sent or ''}\r\n{response(case)}"
    ),
    "curl -v with 100 Continue": lambda case: verbose(case).replace(
        "* upload", "< HTTP/1.1 100 Continue\r\n<\r\n* upload"
    ),
}
LOGS: dict[str, Callable[[Case], str]] = {
    "HAR": har,
    "log line": lambda case: (
        f"2026-01-01 ERROR: {case.method} https://www.zohoapis.com{case.path} -> {case.status}: {case.text}"
    ),
    "urllib3": lambda case: (
        "DEBUG https://www.zohoapis.com:443 "
        f'"{case.method} {case.path} HTTP/1.1" {case.status} None\n{case.body!r}\n'
    ),
    "log object": lambda case: json.dumps(
        {"http_status": case.status, "method": case.method, "url": case.path, "body": case.text}
    ),
    "source": lambda case: (
        f"requests.{case.method.lower()}('https://www.zohoapis.com{case.path}')\n<Response [{case.status}]>\n"
        f"{case.body}"
    ),
}


def told(text: str, **known: Any) -> list[Any]:
    """Return what is said of each answer in a text; an empty list if there is none."""
    found: tuple[Explanation, ...] = ()
    with contextlib.suppress(CommandError):
        found = explain(Question(answer=text, **known))
    return [
        (tuple(map(unwrapped, one.outcomes)), one.error and unwrapped(one.error), one.meanings) for one in found
    ]


def seen_in(text: str) -> tuple[Any, Any]:
    """Return what is read without knowing the call, apart from the name of the form."""
    found = [(json.loads(one.body), replace(one, body=b"", form="")) for one in read_paste(text)]
    return json.loads(json.dumps([body for body, _ in found]).replace("\\n", "")), [one for _, one in found]


_plain: dict[str, tuple[list[Any], Any]] = {}


def plain(case: Case) -> tuple[list[Any], Any]:
    """Return what is said of the body as it is: with what is known of the call, and what is read without."""
    if case.name not in _plain:
        _plain[case.name] = told(case.text, **case.known), seen_in(case.text)
    return _plain[case.name]


def unwrapped(found: Any) -> Any:
    """Return an outcome or error whose message does not depend on where a terminal broke it."""
    return replace(found, message="".join(found.message.split()))


def only(text: str, **known: Any) -> Explanation:
    (found,) = explain(Question(answer=text, **known))
    return found


@pytest.mark.parametrize("case", WITH_BODY, ids=lambda case: case.name)
def test_a_documented_answer_means_what_is_documented(case: Case) -> None:
    found = only(case.text, **case.known)
    assert bool(found.guarded) == case.expect["guard_acts"]
    for wanted in case.expect["outcomes"]:
        if wanted["code"] in {"RECORD_LOCKED", "NOT_APPROVED", "NOT_REVIEWED"}:
            one = next(one for one in found.outcomes if one.record_id == wanted["record_id"])
            assert (one.code, one.retryable) == (wanted["code"], wanted["retryable"])
            assert list(one.candidates) == wanted.get("not_approved_candidates", list(one.candidates))
        else:
            assert found.error or wanted["code"] in {one.code for one in found.outcomes}


@pytest.mark.parametrize("form", BODIES)
def test_every_form_of_a_body_means_the_same(form: str) -> None:
    for case in WITH_BODY:
        text, (known, read) = BODIES[form](case), plain(case)
        if not case.name.startswith("88_"):  # which has no shape of CRM's
            assert told(text, **case.known) == known != [], case.name
        if form not in NOT_THE_SAME_BODY:
            assert seen_in(text) == read, case.name


@pytest.mark.parametrize("form", EXCHANGES)
def test_every_form_of_an_exchange_tells_the_call(form: str) -> None:
    for case in CASES:
        text = EXCHANGES[form](case)
        plain = "" if case.body is None else case.text
        found, wanted = only(text, request=case.sent), only(plain, **case.known)
        assert (found.outcomes, found.error) == (wanted.outcomes, wanted.error), case.name
        assert (found.facts.status, found.method, found.path) == (case.status, wanted.method, wanted.path)
        assert not found.guessed
        assert bool(found.guarded) == case.expect["guard_acts"]


@pytest.mark.parametrize("form", LOGS)
def test_every_log_of_a_call_tells_the_call(form: str) -> None:
    for case in WITH_BODY:
        if case.name.startswith("88_"):
            continue  # no shape of CRM, and nothing but a head makes an answer of it
        found, wanted = only(LOGS[form](case), request=case.sent), only(case.text, **case.known)
        assert (found.outcomes, found.error) == (wanted.outcomes, wanted.error), case.name
        assert (found.facts.status, found.method, found.path) == (case.status, wanted.method, wanted.path)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_rest_of_a_look_alike_is_never_a_lock(case: Case) -> None:
    """Without any option: either the guard would act on the answer, or no record is called blocked."""
    found = [] if case.body is None else told(case.text)
    blocked = any(outcome.blocked for outcomes, *_ in found for outcome in outcomes)
    assert blocked == case.expect["guard_acts"]


@pytest.mark.parametrize("encode", [str, quoted, repr], ids=["plain", "encoded", "repr"])
def test_a_body_that_is_cut_means_the_same_as_far_as_it_goes(encode: Callable[[str], str]) -> None:
    for case in WITH_BODY:
        if case.name.startswith("67_"):
            continue  # one error of the whole call: which record caused it stands at its end
        whole = only(case.text, **case.known)
        text = encode(case.text)
        for end in range(len(text) - 1, 0, -max(1, len(text) // 5)):
            for outcomes, _, _ in told(text[:end], **case.known):
                assert [one.code for one in outcomes] == [one.code for one in whole.outcomes[: len(outcomes)]]
                for one, full in zip(outcomes, whole.outcomes, strict=False):
                    assert one.record_id in {full.record_id, None} or one.record_id in case.path
                    assert one.action in {full.action, None}
                    assert one.succeeded == full.succeeded
