"""What a query costs: the texts in it and the values in the records are each looked at once."""

# ruff: noqa: S608 (COQL, not SQL)

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from crm_guard.simulator import Engine, comparing, messages, org, selection

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Send

RECORDS = 40
MOMENT = "2024-01-01T00:00:00+01:00"


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str], Counter[str]]:
    """Return a function that counts the calls of another one from then on."""

    def count(module: Any, name: str) -> Counter[str]:
        calls, original = Counter[str](), getattr(module, name)

        def counting(*args: Any, **options: Any) -> Any:
            calls[name] += 1
            return original(*args, **options)

        monkeypatch.setattr(module, name, counting)
        return calls

    return count


def joined(condition: str) -> str:
    """Return 25 of a condition, in pairs."""
    text = condition
    for _ in range(24):
        text = f"({text} or {condition})"
    return text


def query(send: Send, engine: Engine, where: str) -> int:
    return send(engine, "POST", "coql", {"select_query": f"select id from Leads where {where}"}).status


def test_texts_are_read_once_and_not_for_each_record(
    engine: Engine, send: Send, counted: Callable[[Any, str], Counter[str]]
) -> None:
    for number in range(1, RECORDS + 1):
        engine.add_record("Leads", number, fields={"At": MOMENT.replace("00:00:00", f"00:{number:02}:00")})
    texts = ",".join(f"'2024-01-01T00:{number:02}:00Z'" for number in range(50))
    calls = counted(comparing, "as_moment")
    assert query(send, engine, joined(f"At in ({texts})")) == 204
    # Twice: the texts are checked, and then read.
    assert 0 < calls["as_moment"] <= RECORDS + 25 * 50 + 50


def test_a_value_is_read_once_for_all_conditions_and_for_all_records_that_lead_to_it(
    engine: Engine, send: Send, counted: Callable[[Any, str], Counter[str]]
) -> None:
    engine.add_record("Accounts", 99, fields={"Text": "some text" * 100})
    for number in range(1, RECORDS + 1):
        engine.add_record("Leads", number, fields={"A": {"id": "99"}, "B": "x"})
    calls, values = counted(comparing, "texts_of"), counted(selection, "value_of")
    assert query(send, engine, joined("A.Text in ('a', 'b')")) == 204
    assert (calls["texts_of"], values["value_of"]) == (1, RECORDS + 1)
    calls.clear()
    criteria = " or ".join(f"(B:equals:{letter})" for letter in "abcdefghij")
    assert send(engine, "GET", f"Leads/search?fields=id&criteria=({criteria})").status == 204
    assert 0 < calls["texts_of"] <= RECORDS


def test_the_modules_are_gathered_once(
    engine: Engine, send: Send, counted: Callable[[Any, str], Counter[str]]
) -> None:
    engine.add_record("Leads", 1)
    for number in range(5):
        engine.add_record(f"Module{number}", fields={"Lead": {"id": "1"}})
    calls = counted(org, "known_modules")
    for path in ("settings/modules", "settings/fields?module=Module1", "settings/related_lists?module=Leads"):
        calls.clear()
        assert send(engine, "GET", path).status == 200
        assert calls["known_modules"] == 1


@pytest.mark.parametrize("path", ["Leads?", "Leads/search?word=xx&", "Leads/actions/count?", "Accounts/99/Leads?"])
def test_the_query_of_a_list_is_read_as_often_for_many_records_as_for_one(
    send: Send, counted: Callable[[Any, str], Counter[str]], path: str
) -> None:
    counts, calls = [], counted(messages, "parse_qs")
    for number in (1, RECORDS):
        engine = Engine()
        engine.add_record("Accounts", 99)
        for _ in range(number):
            engine.add_record("Leads", fields={"Text": "xx", "A": {"id": "99"}})
        calls.clear()
        assert send(engine, "GET", f"{path}fields=id&sort_by=id").status == 200
        counts.append(calls["parse_qs"])
    assert 0 < counts[0] == counts[1]
