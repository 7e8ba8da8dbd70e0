"""COQL: its grammar, what a query finds, and what is refused."""

# ruff: noqa: S608 (COQL, not SQL)

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_guard.simulator import Engine, Request
from crm_guard.simulator.comparing import keys_of
from crm_guard.simulator.conditions import Condition, Tree, held
from crm_guard.simulator.coql import test_of as made_test
from crm_guard.simulator.coql_grammar import Column, parse
from crm_guard.simulator.datatypes import type_of
from crm_guard.simulator.messages import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from crm_guard.simulator import Reply

    from .conftest import Send


def parsed(text: str, most: int = 2000) -> Any:
    return parse(text, most)


def where(text: str) -> Tree:
    return parse(f"select id from Leads where {text}", 2000).tree


@pytest.fixture
def crm(engine: Engine) -> Engine:
    engine.add_record("Accounts", 9, fields={"Account_Name": "Zylker", "Phone": "555"})
    account = {"id": "9", "name": "Zylker"}
    rows: list[dict[str, Any]] = [
        {"Last_Name": "Boyle", "Age": 30, "Sold": True, "Closing": "2024-05-01", "Account_Name": account},
        {"Last_Name": "O'Hara", "Age": 40.5, "Sold": False, "Closing": "2024-06-01"},
        {"Last_Name": "burns", "Email": "b@x.example"},
    ]
    for number, fields in enumerate(rows, start=1):
        engine.add_record("Leads", number, fields=fields)
    return engine


@pytest.fixture
def ask(send: Send) -> Callable[..., Reply]:
    return lambda engine, query: send(engine, "POST", "coql", {"select_query": query})


def ids(reply: Reply) -> list[str]:
    return [row["id"] for row in reply.json()["data"]] if reply.body else []


class TestWhatIsFound:
    @pytest.mark.parametrize(
        ("condition", "expected"),
        [
            ("Last_Name = 'boyle'", "1"),
            ("Last_Name != 'boyle'", "23"),
            ("Last_Name = 'O''Hara'", "2"),
            ('Last_Name = "O\'Hara"', "2"),
            ("Last_Name like 'b%'", "13"),
            ("Last_Name like '%a'", "2"),
            ("Last_Name like '%UR%'", "3"),
            ("Last_Name not like '%o%'", "3"),
            ("Last_Name in ('Boyle', 'Burns')", "13"),
            ("Last_Name not in ('Boyle', 'Burns')", "2"),
            ("Age > 30", "2"),
            ("Age >= 30", "12"),
            ("Age < '40'", "1"),
            ("Age <= 40.5", "12"),
            ("Age between 30 and 35", "1"),
            ("Age is null", "3"),
            ("Age is not null", "12"),
            ("Age != 30", "2"),
            ("Sold = true", "1"),
            ("Closing >= '2024-06-01'", "2"),
            ("Created_Time > '2020-01-01T00:00:00+00:00'", "123"),
            ("Account_Name = '9'", "1"),
            ("Account_Name.Phone = '555'", "1"),
            ("Account_Name.id = 9", "1"),
            ("id in (1, 3)", "13"),
            ("(Age > 10 and Sold = true) or Last_Name = 'burns'", "13"),
            ("Age > 10 and (Sold = false or Last_Name = 'burns')", "2"),
            ("City = 'Berlin'", ""),
            ("City is null", "123"),
        ],
    )
    def test_is_what_the_records_hold(
        self, crm: Engine, ask: Callable[..., Reply], condition: str, expected: str
    ) -> None:
        reply = ask(crm, f"select Last_Name from Leads where {condition}")
        assert ids(reply) == list(expected)
        assert reply.status == (200 if expected else 204)

    def test_columns_are_shown_by_their_names_with_null_where_nothing_is(
        self, crm: Engine, ask: Callable[..., Reply]
    ) -> None:
        columns = "Last_Name as Name, Email, Account_Name.Phone, Account_Name.Owner.name"
        first, second = ask(crm, f"select {columns} from Leads where id in (1, 2)").json()["data"]
        assert first == {
            "Name": "Boyle",
            "Email": None,
            "Account_Name.Phone": "555",
            "Account_Name.Owner.name": "Patricia Boyle",
            "id": "1",
        }
        assert second["Account_Name.Phone"] is None

    def test_order_limit_and_offset_are_as_asked(self, crm: Engine, ask: Callable[..., Reply]) -> None:
        def asked(tail: str) -> list[str]:
            return ids(ask(crm, f"SELECT id FROM Leads WHERE id IS NOT NULL {tail}"))

        assert asked("") == ["1", "2", "3"]
        assert asked("order by Last_Name") == ["1", "3", "2"]
        assert asked("order by Age desc, id asc") == ["2", "1", "3"]
        assert asked("order by id desc limit 2") == ["3", "2"]
        assert asked("limit 1 offset 1") == ["2"]
        assert asked("limit 2, 5") == ["3"]
        assert asked("offset 3") == []

    def test_more_records_tells_that_there_are_some(self, crm: Engine, ask: Callable[..., Reply]) -> None:
        info = ask(crm, "select id from Leads where id is not null limit 2").json()["info"]
        assert info == {"count": 2, "more_records": True}

    def test_no_more_records_where_the_limit_is_all_there_are(self, crm: Engine, ask: Callable[..., Reply]) -> None:
        info = ask(crm, "select id from Leads where id is not null limit 3").json()["info"]
        assert info == {"count": 3, "more_records": False}

    def test_what_holds_nothing_is_nothing_to_all_parts_of_a_query(
        self, engine: Engine, ask: Callable[..., Reply]
    ) -> None:
        for number, value in enumerate([None, "c", "", []], start=1):
            engine.add_record("Leads", number, fields={"C": value, "N": number})
        assert ids(ask(engine, "select id from Leads where C is not null")) == ["2"]
        assert ids(ask(engine, "select id from Leads where C is null")) == ["1", "3", "4"]
        assert ids(ask(engine, "select id from Leads where C != 'd'")) == ["2"]
        assert ask(engine, "select COUNT(C) from Leads where id > 0").json()["data"] == [{"COUNT(C)": 1}]
        order = ids(ask(engine, "select id from Leads where id > 0 order by C, N"))
        assert order == ["1", "3", "4", "2"]

    def test_of_a_deleted_record_a_lookup_tells_its_own_texts_alone(
        self, crm: Engine, ask: Callable[..., Reply], send: Send
    ) -> None:
        query = "select Account_Name.name, Account_Name.Phone from Leads where id = 1"
        assert send(crm, "DELETE", "Accounts/9").status == 200
        assert ask(crm, query).json()["data"] == [
            {"Account_Name.name": "Zylker", "Account_Name.Phone": None, "id": "1"}
        ]

    def test_without_a_limit_200_are_shown(self, engine: Engine, ask: Callable[..., Reply]) -> None:
        for _ in range(201):
            engine.add_record("Leads")
        info = ask(engine, "select id from Leads where id is not null").json()["info"]
        assert info == {"count": 200, "more_records": True}

    def test_count_counts(self, crm: Engine, ask: Callable[..., Reply]) -> None:
        query = "select count(id), COUNT(Age) as aged from Leads where {}"
        assert ask(crm, query.format("id is not null")).json() == {
            "data": [{"COUNT(id)": 3, "aged": 2}],
            "info": {"count": 1, "more_records": False},
        }
        assert ask(crm, query.format("id = 77")).json()["data"] == [{"COUNT(id)": 0, "aged": 0}]

    def test_records_are_found_whatever_their_approval(self, crm: Engine, ask: Callable[..., Reply]) -> None:
        crm.set_state("1", "zia_vision_validation")
        query = "select id from Leads where $approval_state = 'zia_vision_validation'"
        assert ids(ask(crm, query)) == ["1"]

    def test_a_composite_may_hold_a_query(self, crm: Engine, send: Send) -> None:
        query = {"select_query": "select Last_Name from Leads where id = 1"}
        sub = {"method": "POST", "uri": "/crm/v8/coql", "body": query}
        (result,) = send(crm, "POST", "__composite_requests", {"__composite_requests": [sub]}).json()[
            "__composite_requests"
        ]
        assert result["details"]["response"]["body"]["data"] == [{"Last_Name": "Boyle", "id": "1"}]

    @pytest.mark.parametrize(("limit", "cost"), [(1, 1), (200, 1), (201, 2), (1000, 2), (1001, 3), (2000, 3)])
    def test_credits_depend_on_the_limit(
        self, crm: Engine, ask: Callable[..., Reply], limit: int, cost: int
    ) -> None:
        ask(crm, f"select id from Leads where id is not null limit {limit}")
        assert crm.credits_spent == cost


class TestGrammar:
    def test_a_query_is_read_whole(self) -> None:
        query = parsed("select a, b.c from Leads where a = 'x' order by a desc, b limit 5 offset 2")
        assert query.columns == [Column("a"), Column("b.c")]
        assert (query.module, query.tree) == ("Leads", Condition("a", "=", ("x",)))
        assert (query.order, query.limit, query.offset) == ([("a", True), ("b", False)], 5, 2)

    def test_words_of_the_language_can_be_fields_in_quotes(self) -> None:
        assert parsed("select 'External', \"order\" from Leads where 'limit' = 1").columns[1] == Column("order")

    @pytest.mark.parametrize(
        ("query", "code", "details"),
        [
            ("", "SYNTAX_ERROR", {"near": ""}),
            ("update x", "SYNTAX_ERROR", {"line": 1, "column": 0, "near": "update"}),
            ("select a\nfrom from", "SYNTAX_ERROR", {"clause": "where"}),
            ("select a from Leads", "SYNTAX_ERROR", {"clause": "where"}),
            ("select from Leads", "SYNTAX_ERROR", {"line": 1, "column": 12, "near": "Leads"}),
            ("select a,\n* from x", "SYNTAX_ERROR", {"line": 2, "column": 0, "near": "*"}),
            ("select a from x where a =", "SYNTAX_ERROR", {"near": "="}),
            ("select a from x where a = 'b", "SYNTAX_ERROR", {"line": 1, "column": 26, "near": "'"}),
            ("select a from x where a <> 1", "SYNTAX_ERROR", {"operator": "<>"}),
            ("select a from x where not a = 1", "SYNTAX_ERROR", {"operator": "not"}),
            ("select a from x where a not between 1 and 2", "SYNTAX_ERROR", {"operator": "not between"}),
            ("select a from x where a = 1 and b = 2 and c = 3", "SYNTAX_ERROR", {"near": "and"}),
            ("select a from x where (a = 1", "SYNTAX_ERROR", {"near": "1"}),
            ("select a from x where a is 5", "SYNTAX_ERROR", {"line": 1, "column": 27, "near": "5"}),
            ("select a from x where a = 1 limit s", "INVALID_QUERY", {"limit": "s"}),
            ("select a from x where a = 1 limit 1.5", "INVALID_QUERY", {"limit": "1.5"}),
            ("select a from x where a = 1 offset -1", "INVALID_QUERY", {"offset": "-1"}),
            ("select a from x where a = 1 limit 0", "INVALID_DATA", {}),
            ("select a from x where a = 1 limit -3", "INVALID_DATA", {}),
            ("select a from x where a = 1 limit 2001", "LIMIT_EXCEEDED", {"limit": 2000}),
            ("select a from x where a = 1 garbage", "SYNTAX_ERROR", {"line": 1, "column": 28, "near": "garbage"}),
            ("select a, a from x where a = 1", "DUPLICATE_DATA", {"column_name": "a"}),
            (
                "select count(a), count(a) from x where a = 1",
                "DUPLICATE_DATA",
                {"column_name": "a", "aggregate": "COUNT"},
            ),
            (
                "select a as n, b as n from x where a = 1",
                "DUPLICATE_ALIAS",
                {"referred_columns": ["a", "b"], "alias": "n"},
            ),
            *(
                (f"select {columns} from x where a = 1", "INVALID_QUERY", {"column_name": "b", "alias": "a"})
                for columns in ("a, b as a", "b as a, a")
            ),
            (
                "select a from x where a = 1 limit 1, 2 offset 3",
                "SYNTAX_ERROR",
                {"line": 1, "column": 39, "near": "offset"},
            ),
            ("select a as '' from x where a = 1", "INVALID_ALIAS", {"column_name": "a", "alias": ""}),
            (
                "select Foo(a) from x where a = 1",
                "INVALID_DATA",
                {"reason": "unsupported aggregate function", "column": "Foo(a)"},
            ),
            ("select a from x where a = 1 order by b, b", "DUPLICATE_DATA", {"column_name": "b"}),
        ],
    )
    def test_what_is_wrong_is_refused_as_documented(
        self, crm: Engine, ask: Callable[..., Reply], query: str, code: str, details: dict[str, Any]
    ) -> None:
        reply = ask(crm, query)
        assert (reply.status, reply.json()["code"], reply.json()["details"]) == (400, code, details)
        assert "not simulated" not in reply.json()["message"]

    @pytest.mark.parametrize(
        "query",
        [
            "select a from x y where a = 1",
            "select a from x as y where a = 1",
            "select a from x join y where a = 1",
            "select a from x where a = 1 group by a",
            "select sum(a) from x where a = 1",
            "select count(id), a from x where a = 1",
            "select distinct a from x where a = 1",
            "select a from x where a in (select b from y where c = 1)",
            "select a from x where a = (select b from y where c = 1)",
            "select a from x where a = ${TODAY}",
            "select a from x where a = '${EMPTY}'",
            "select a from x where lower(a) = 'b'",
            "select a from x where a like 'b%c'",
            "select a.b.c.d from x where a = 1",
        ],
    )
    def test_what_is_not_evaluated_is_not_simulated(
        self, crm: Engine, ask: Callable[..., Reply], query: str
    ) -> None:
        reply = ask(crm, query)
        assert (reply.status, reply.json()["code"]) == (400, "SYNTAX_ERROR")
        assert reply.json()["message"].startswith("given coql query not supported; not simulated: ")

    @pytest.mark.parametrize(
        ("fine", "one_more"),
        [
            (",".join(f"c{n}" for n in range(50)) + " from x where a = 1", ", z"),
            ("a from x where a in (" + ",".join("1" * 50) + ")", ",1"),
        ],
    )
    def test_limits(self, fine: str, one_more: str) -> None:
        parsed(f"select {fine}")
        at = fine.index(" from") if " from" in fine and "where a = 1" in fine else fine.index(")")
        with pytest.raises(RequestError) as caught:
            parsed(f"select {fine[:at]}{one_more}{fine[at:]}")
        assert caught.value.reply.json()["code"] == "LIMIT_EXCEEDED"

    def test_25_conditions_are_the_most(self) -> None:
        def nested(count: int) -> str:
            return "(" * (count - 1) + "a = 1" + "".join(f" and b = {n})" for n in range(count - 1))

        where(nested(25))
        with pytest.raises(RequestError) as caught:
            where(nested(26))
        assert caught.value.reply.json()["code"] == "LIMIT_EXCEEDED"

    def test_deep_parentheses_and_huge_queries_are_refused_at_once(self) -> None:
        for text in ("(" * 1_000_000, "(" * 60 + "a = 1" + ")" * 60, "'" * 1_000_001, " " * 1_000_000):
            with pytest.raises(RequestError) as caught:
                where(text)
            assert len(caught.value.reply.body) < 1000

    def test_before_version_4_the_highest_limit_is_200(self, crm: Engine) -> None:
        body = b'{"select_query":"select id from Leads where id is not null limit 201"}'
        replies = [
            crm.handle(Request(method="POST", path=f"/crm/{version}/coql", body=body)) for version in ("v3", "v4")
        ]
        assert replies[0].json()["details"] == {"limit": 200}
        assert replies[1].status == 200


class TestRefusedQueries:
    @pytest.mark.parametrize(
        ("condition", "details"),
        [
            (
                "Last_Name > 'a'",
                {"reason": "invalid operator found", "column_name": "Last_Name", "operator": ">"},
            ),
            ("Age like '3%'", {"reason": "invalid operator found", "column_name": "Age", "operator": "like"}),
            ("Sold is null", {"reason": "invalid operator found", "column_name": "Sold", "operator": "is null"}),
            ("Age = 'x'", {"column_name": "Age", "clause": "where"}),
            ("Closing > 'soon'", {"column_name": "Closing", "clause": "where"}),
        ],
    )
    def test_operators_and_values_have_to_fit_the_field(
        self, crm: Engine, ask: Callable[..., Reply], condition: str, details: dict[str, str]
    ) -> None:
        reply = ask(crm, f"select id from Leads where {condition}")
        assert (reply.status, reply.json()["code"], reply.json()["details"]) == (400, "INVALID_QUERY", details)

    @pytest.mark.parametrize(("body", "code"), [({}, "MANDATORY_NOT_FOUND"), ({"select_query": 5}, "INVALID_DATA"),
        ({"select_query": None}, "INVALID_DATA")])  # fmt: skip
    def test_the_query_is_mandatory(self, crm: Engine, send: Send, body: Any, code: str) -> None:
        assert send(crm, "POST", "coql", body).json()["code"] == code

    def test_metadata_beside_the_rows_is_not_simulated(self, crm: Engine, send: Send) -> None:
        body = {"select_query": "select id from Leads where id = 1", "include_meta": ["fields"]}
        assert "not simulated" in send(crm, "POST", "coql", body).json()["message"]


# --- against a simple reading of the same trees ----------------------------------------------------------------

NUMBERS = st.integers(-3, 3)
LEAVES = st.tuples(st.sampled_from("ab"), st.sampled_from(["=", "!=", ">", ">=", "<", "<=", "null"]), NUMBERS)
TREES: Any = st.recursive(
    LEAVES, lambda inner: st.tuples(inner, st.sampled_from(["and", "or"]), inner), max_leaves=10
)


def written(tree: Any) -> str:
    left, middle, right = tree
    if middle in ("and", "or"):
        return f"({written(left)} {middle} {written(right)})"
    return f"{left} is null" if middle == "null" else f"{left} {middle} {right}"


def plainly(tree: Any, row: dict[str, int | None]) -> bool:
    left, middle, right = tree
    if middle == "and":
        return plainly(left, row) and plainly(right, row)
    if middle == "or":
        return plainly(left, row) or plainly(right, row)
    value = row[left]
    if value is None or middle == "null":
        return value is None and middle == "null"
    order = (value > right) - (value < right)
    return {"=": order == 0, "!=": order != 0, ">": order > 0, ">=": order >= 0, "<": order < 0, "<=": order <= 0}[
        middle
    ]


@given(TREES, st.fixed_dictionaries(dict.fromkeys("ab", st.none() | NUMBERS)))
def test_any_tree_finds_what_a_plain_reading_of_it_finds(tree: Any, row: dict[str, int | None]) -> None:
    def test(leaf: Condition) -> list[bool]:
        kind = type_of(leaf.field, row[leaf.field])
        return [made_test(leaf, kind)(keys_of(kind, row[leaf.field]))]

    assert held(where(written(tree)), test) == [plainly(tree, row)]


WORDS = st.sampled_from(
    [
        *("select", "from", "where", "and", "or", "not", "in", "like", "is", "null", "between", "order", "by"),
        *("limit", "offset", "as", "(", ")", ",", "=", ">", "'x'", "5", "a.b", "*", "count"),
    ]
)


@given(st.lists(WORDS, max_size=15).map(" ".join) | st.text(max_size=20))
def test_any_text_is_either_parsed_or_refused(text: str) -> None:
    for query in (text, f"select a from b where {text}"):
        with contextlib.suppress(RequestError):
            assert parsed(query).columns


@given(st.text(max_size=10))
def test_a_quoted_value_comes_back_whole(text: str) -> None:
    quoted = text.replace("'", "''")
    tree = where(f"a = '{quoted}'") if not text.startswith("${") else Condition("a", "=", (text,))
    assert tree == Condition("a", "=", (text,))
