"""What is pasted, and what is printed, takes time and memory in proportion to its size."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tracemalloc
from typing import Any

import pytest

from crm_guard.cli.explain import Question, explain
from crm_guard.cli.terminal import CommandError, TrailingBlankFilter

LOCKED = {"code": "RECORD_LOCKED", "status": "error", "message": "", "details": {"id": "7"}}
BODY = json.dumps({"data": [LOCKED]})


class Counted(str):
    """A text that counts the characters that are copied out of it."""

    __slots__ = ()
    copied = 0

    def strip(self, *_: Any) -> Counted:
        return self

    def __add__(self, other: str) -> Counted:
        return Counted(str(self) + other)

    def __getitem__(self, key: Any) -> Counted:
        found = Counted(super().__getitem__(key))
        Counted.copied += len(found)
        return found


def test_any_number_of_heads_is_read_without_copying_what_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counted, "copied", 0)
    pasted = Counted("HTTP/1.1 100 Continue\r\n\r\n" * 2000 + BODY)
    assert explain(Question(answer=pasted)).guarded == 1
    assert Counted.copied < 3 * len(pasted)


@pytest.mark.parametrize("head", ["HTTP/1.1 400 x\n" + "a\n" * 250_000, "HTTP/1.1 400 x\n" + "a" * 500_000 + "\n"])
def test_a_long_head_leaves_nothing_behind(head: str) -> None:
    tracemalloc.start()
    try:
        assert explain(Question(answer=f"{head}\n{BODY}")).guarded == 1
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
    ],
)
def test_no_paste_keeps_the_command_busy(crm_guard_command: Any, text: str) -> None:
    """Each of them would, for minutes or hours, if it were read again from each of its characters on."""
    assert crm_guard_command("explain", "-", "--json", stdin=text).status in (0, 1)


def test_json_of_any_depth_is_explained_or_refused() -> None:
    """At some depth it can still be read, and not be written any more."""
    for depth in range(sys.getrecursionlimit() - 200, sys.getrecursionlimit() + 10):
        with contextlib.suppress(CommandError):
            explain(Question(answer="[" * depth + "]" * depth))


@pytest.mark.parametrize(
    "path", ["/crm" * 50_000, "/crm/v" + "1" * 200_000, "/crm/v8/Leads?ids=" + "&ids=" * 40_000]
)
def test_no_path_does(path: str) -> None:
    assert explain(Question(answer=BODY, path=path, method="DELETE")).guarded == 1


def test_blanks_are_taken_away_at_the_ends_of_lines_alone() -> None:
    """A long run of them that ends elsewhere would be looked at from each of its places on, for an hour."""
    written = io.StringIO()
    trimmed = TrailingBlankFilter(written)
    run = " " * 1_000_000
    trimmed.write(f"a  \n{run}x{run}\n  b\n \n c ")
    assert written.getvalue() == f"a\n{run}x\n  b\n\n c"
