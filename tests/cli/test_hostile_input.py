"""What is pasted, and what is printed, takes time and memory in proportion to its size."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tracemalloc
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crm_guard.cli.explain import Question, explain
from crm_guard.cli.explain.show import understood
from crm_guard.cli.plain import CommandError
from crm_guard.cli.terminal import TrailingBlankFilter

LOCKED = {"code": "RECORD_LOCKED", "status": "error", "message": "", "details": {"id": "7"}}
BODY = json.dumps({"data": [LOCKED]})
# What pasted texts are made of, to be put together in any way.
PARTS = [
    *(
        BODY,
        BODY[:40],
        repr(LOCKED),
        json.dumps(BODY),
        json.dumps(BODY)[:60],
        "RECORD_LOCKED",
        "NOT_APPROVED",
        "\n",
    ),
    *(
        "HTTP/1.1 400 x\n",
        "> PUT /crm/v8/Leads HTTP/1.1\n",
        "< HTTP/2 207\n",
        "\r\n\r\n",
        "{",
        "[",
        '"',
        "'",
        "\\",
        "b'",
    ),
    *("CRM refused record 1 with NOT_REVIEWED", "Caused By: A_B - c", "&quot;", "```json\n", "}", "]", ":", ","),
]
KEYS = st.sampled_from(["data", "code", "status", "details", "message", "body", "info", "id", "request", "log"])


@pytest.mark.parametrize("head", ["HTTP/1.1 400 x\n" + "a\n" * 250_000, "HTTP/1.1 400 x\n" + "a" * 500_000 + "\n"])
def test_a_long_head_leaves_nothing_behind(head: str) -> None:
    tracemalloc.start()
    try:
        assert explain(Question(answer=f"{head}\n{BODY}"))[0].guarded == 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * len(head)


@pytest.mark.parametrize(
    "text",
    [
        "HTTP/1.1 100 Continue\r\n" + "a: b\r\n" * 100_000,
        "HTTP/" + "1." * 300_000,
        "HTTP/1.1 429 x" + "\r" * 500_000,
        "HTTP/1.1 429 x\r\n" + ("retry-after:" + " " * 400 + "x\r\n") * 1000 + "\r\n" + BODY,
        "HTTP/1.1 429 x\r\nretry-after:" + " " * 500_000 + "x\r\n\r\n" + BODY,
        "[" * 500_000,
        "9" * 500_000,
        "{" * 500_000,
        "[" + "9" * 500_000,
        '{"a": "' + "\\\\" * 250_000,
        '"{' + "\\" * 500_000,
        "{'a': '" + "x\n" * 200_000,
        "> PUT /x HTTP/1.1\n" + "< " * 200_000,
        "CRM refused " * 40_000,
        "RecordOutcome(" + "code=" * 100_000,
        "status" + " " * 500_000,
        "\x1b]" * 200_000,
        " " * 500_000,
    ],
)
def test_no_paste_keeps_the_command_busy(crm_guard_command: Any, text: str) -> None:
    """Each of them would, for minutes or hours, if it were read again from each of its characters on."""
    assert crm_guard_command("explain", "-", "--json", stdin=text).status in (0, 2)


def test_values_that_never_end_are_read_once() -> None:
    """The standard decoder's errors count the lines before them: asked at each value it would read for hours."""
    for part in ('{"a":', '[1, "', '"{ "', "{'a': \n", '{"message": "{'):
        with contextlib.suppress(CommandError):
            explain(Question(answer=part * 6000))


def test_texts_in_texts_are_read_a_bounded_number_of_times() -> None:
    text = BODY
    for _ in range(3):
        text = json.dumps({"message": text})
    (found,) = explain(Question(answer=text))
    assert found.guarded == 1
    while len(text) < 500_000:
        text = json.dumps({"message": text})
    with pytest.raises(CommandError, match="it is open whether a record is blocked"):
        explain(Question(answer=text))


@settings(deadline=None, max_examples=40)
@given(st.text() | st.lists(st.sampled_from(PARTS)).map("".join))
def test_no_text_ends_in_a_traceback(text: str) -> None:
    with contextlib.suppress(CommandError):
        for found in explain(Question(answer=text)):
            assert understood(found)


@given(st.binary() | st.lists(st.sampled_from(PARTS)).map(lambda parts: "".join(parts).encode("utf-16")))
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_end_in_a_traceback(crm_guard_command: Any, raw: bytes) -> None:
    ran = crm_guard_command("explain", stdin=raw)
    assert ran.status in (0, 2)
    assert (ran.out == "") == (ran.status == 2) == (ran.err.count("\n") == 1)


@settings(deadline=None, max_examples=40)
@given(st.recursive(st.text() | st.integers() | st.none(), lambda one: st.lists(one) | st.dictionaries(KEYS, one)))
def test_no_value_ends_in_a_traceback(value: Any) -> None:
    for text in (json.dumps(value), repr(value), json.dumps(value)[:-2]):
        with contextlib.suppress(CommandError):
            explain(Question(answer=text, status=400))


def test_json_of_any_depth_is_explained_or_refused() -> None:
    """At some depth it can still be read, and not be written any more."""
    for depth in range(sys.getrecursionlimit() - 200, sys.getrecursionlimit() + 10):
        with contextlib.suppress(CommandError):
            explain(Question(answer="[" * depth + "]" * depth))


@pytest.mark.parametrize(
    "path", ["/crm" * 50_000, "/crm/v" + "1" * 200_000, "/crm/v8/Leads?ids=" + "&ids=" * 40_000]
)
def test_no_path_does(path: str) -> None:
    assert explain(Question(answer=BODY, path=path, method="DELETE"))[0].guarded == 1


def test_blanks_are_taken_away_at_the_ends_of_lines_alone() -> None:
    """A long run of them that ends elsewhere would be looked at from each of its places on, for an hour."""
    written = io.StringIO()
    trimmed = TrailingBlankFilter(written)
    run = " " * 1_000_000
    trimmed.write(f"a  \n{run}x{run}\n  b\n \n c ")
    assert written.getvalue() == f"a\n{run}x\n  b\n\n c"
