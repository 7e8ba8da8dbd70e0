"""Search criteria: their grammar, and what they find."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_guard.simulator.comparing import keys_of
from crm_guard.simulator.conditions import Condition, Group, Tree, conditions, held
from crm_guard.simulator.criteria import check, parse
from crm_guard.simulator.criteria import test_of as made_test
from crm_guard.simulator.datatypes import DataType, type_of
from crm_guard.simulator.messages import RequestError


def one(text: str) -> Condition:
    tree = parse(text)
    assert isinstance(tree, Condition)
    return tree


def refusal(text: str) -> dict[str, Any]:
    with pytest.raises(RequestError) as caught:
        parse(text)
    found: dict[str, Any] = caught.value.reply.json()
    assert caught.value.reply.status == 400
    return found


def meets(text: str, value: Any) -> bool:
    """Return whether a value of the field in the criteria is found."""
    condition = one(text)
    kind = type_of(condition.field, value)
    if kind is not None:
        check(condition, kind)
    return made_test(condition, kind)(keys_of(kind, value))


class TestGrammar:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            (r"(Last_Name:equals:Burns\,B)", "Burns,B"),
            (r"(Last_Name:equals:K\\)", "K\\"),
            (r"(Last_Name:equals:a \(b\))", "a (b)"),
            (r"(Last_Name:equals:a\b)", r"a\b"),
            ("(Created_Time:equals:2024-12-18T10:30:00+05:30)", "2024-12-18T10:30:00+05:30"),
            ("( Last_Name : equals : two words )", "two words"),
        ],
    )
    def test_values_are_unescaped(self, text: str, value: str) -> None:
        assert one(text).values == (value,)

    def test_in_and_between_take_several_values(self) -> None:
        assert one(r"(Full_Name:in:Patricia,Boyle\,B, Kate)").values == ("Patricia", "Boyle,B", "Kate")
        assert one("(Amount:between:5,20)").values == ("5", "20")

    def test_words_join_and_parentheses_group(self) -> None:
        a, b, c = (Condition(name, "equals", ("1",)) for name in "abc")
        inner = Group(every=False, parts=(b, c))
        assert parse("((a:equals:1) and ((b:equals:1) or (c:equals:1)))") == Group(every=True, parts=(a, inner))
        assert parse("(a:equals:1)and(b:equals:1)and(c:equals:1)") == Group(every=True, parts=(a, b, c))

    def test_and_binds_before_or(self) -> None:
        a, b, c = (Condition(name, "equals", ("1",)) for name in "abc")
        both = Group(every=True, parts=(b, c))
        assert parse("((a:equals:1) or (b:equals:1) and (c:equals:1))") == Group(every=False, parts=(a, both))

    @pytest.mark.parametrize("text", ["", "x", "()", "(a:equals)", "a:equals:1", "(a:equals:1", "(a:equals:1))",
        "((a:equals:1) nor (b:equals:1))", "((a:equals:1) and )", r"(a:equals:K\)", "(a:equals:b(1))",
        "(a:equals:1)(b:equals:1)", "(" * 60 + "a:equals:1" + ")" * 60, "(" * 2999,
        "(a:equals:" + "x" * 3000 + ")"])  # fmt: skip
    def test_what_is_malformed_or_too_long_is_an_invalid_query(self, text: str) -> None:
        found = refusal(text)
        assert (found["code"], found["message"]) == ("INVALID_QUERY", "Invalid query formed")
        assert found["details"] == {"param_name": "criteria"}

    @pytest.mark.parametrize("text", ["(a:equals:b,c)", "(a:between:1)", "(a:between:1,2,3)", "(a:equals:)",
        "(a:in:b,,c)", "(a:in:b,)"])  # fmt: skip
    def test_the_wrong_number_of_values_is_refused(self, text: str) -> None:
        found = refusal(text)
        assert found["message"] == "invalid value for search"
        assert found["details"]["api_name"] == "a"

    def test_unknown_operators_are_refused(self) -> None:
        found = refusal("(Name:contains:x)")
        assert found["message"] == "invalid operator found"
        assert found["details"] == {"operator": "contains", "api_name": "Name"}

    def test_there_may_be_ten_criteria_and_a_hundred_values(self) -> None:
        ten = " and ".join(["(a:equals:1)"] * 10)
        assert len([*conditions(parse(f"({ten})"))]) == 10
        assert refusal(f"({ten} and (a:equals:1))")["code"] == "CRITERIA_LIMIT_EXCEEDED"
        assert len(one(f"(a:in:{','.join('1' * 100)})").values) == 100
        found = refusal(f"(a:in:{','.join('1' * 101)})")
        assert found["message"] == 'Only 100 values are allowed in "IN" criteria'


class TestMatches:
    @pytest.mark.parametrize(
        ("text", "value", "expected"),
        [
            ("(Company:equals:abc)", "The ABC Inc.", True),
            ("(Company:equals:abcd)", "ABC", False),
            ("(Lead_Status:equals:Hot)", "hot", True),
            ("(Lead_Status:equals:Hot)", "Not Hot", False),  # a pick list
            ("(Company:not_equal:abc)", "ABC Inc.", True),
            ("(Company:not_equal:abc)", None, True),
            ("(Company:starts_with:ab)", "ABC", True),
            ("(Company:starts_with:bc)", "ABC", False),
            ("(Company:in:x,abc)", "ABC", True),
            ("(Company:in:x,ab)", "ABC", False),
            ("(Age:equals:5)", 5.0, True),
            ("(Age:between:5,7)", 7, True),
            ("(Age:between:5,7)", 7.5, False),
            ("(Age:greater_than:5)", 5, False),
            ("(Age:less_equal:5)", 5, True),
            ("(Age:in:1,2)", 2, True),
            ("(Age:equals:5)", None, False),
            ("(Sold:equals:true)", True, True),
            ("(Sold:not_equal:true)", False, True),
            ("(Closing:greater_than:2024-01-31)", "2024-02-01", True),
            ("(Seen:greater_equal:2024-01-01T00:00:00+00:00)", "2024-01-01T01:00:00+01:00", True),
            ("(Seen:between:2024-01-01,2024-12-31)", "2024-12-31T23:00:00+05:30", True),
            ("(Account:equals:Zylker)", {"id": "7", "name": "zylker"}, True),
            ("(Account:equals:7)", {"id": "7", "name": "Zylker"}, True),
            ("(Account:equals:Zyl)", {"id": "7", "name": "Zylker"}, False),
            ("(Account:starts_with:Zyl)", {"id": "7", "name": "Zylker"}, True),
            ("(Tags:equals:CRM)", ["crm", "x"], True),
            ("(Tags:in:x,y)", ["y"], True),
            ("(id:equals:12)", "12", True),
        ],
    )
    def test_values_are_found_as_the_documentation_says(self, text: str, value: Any, *, expected: bool) -> None:
        assert meets(text, value) is expected

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("(Company:greater_than:a)", "ABC"),
            ("(Age:starts_with:5)", 5),
            ("(Sold:in:true)", True),
            ("(Lead_Status:starts_with:H)", "Hot"),
            ("(Account:between:1,2)", {"id": "1"}),
        ],
    )
    def test_an_operator_that_the_data_type_does_not_take_is_refused(self, text: str, value: Any) -> None:
        with pytest.raises(RequestError) as caught:
            meets(text, value)
        found = caught.value.reply.json()
        assert found["message"] == "invalid operator found"
        assert found["details"]["operator"] == one(text).operator

    @pytest.mark.parametrize(("text", "value", "kind"), [("(Age:equals:x)", 5, "integer"),
        ("(Closing:equals:13/1/24)", "2024-01-13", "date"), ("(Sold:equals:yes)", True, "boolean")])  # fmt: skip
    def test_a_value_of_another_data_type_is_refused(self, text: str, value: Any, kind: str) -> None:
        with pytest.raises(RequestError) as caught:
            meets(text, value)
        assert caught.value.reply.json()["details"]["expected_data_type"] == kind

    def test_subforms_cannot_be_searched(self) -> None:
        with pytest.raises(RequestError, match="400"):
            check(one("(Rows:equals:x)"), DataType.SUBFORM)


# --- against a simple reading of the same trees ----------------------------------------------------------------

NUMBERS = st.integers(-3, 3)
COMPARISONS = {
    "equals": lambda value, limit: value == limit,
    "not_equal": lambda value, limit: value != limit,
    "greater_than": lambda value, limit: value is not None and value > limit,
    "greater_equal": lambda value, limit: value is not None and value >= limit,
    "less_than": lambda value, limit: value is not None and value < limit,
    "less_equal": lambda value, limit: value is not None and value <= limit,
}
LEAVES = st.tuples(st.sampled_from("ab"), st.sampled_from(sorted(COMPARISONS)), NUMBERS)
TREES: Any = st.recursive(
    LEAVES, lambda inner: st.tuples(inner, st.sampled_from(["and", "or"]), inner), max_leaves=10
)


def written(tree: Any) -> str:
    left, middle, right = tree
    if middle in ("and", "or"):
        return f"({written(left)} {middle} {written(right)})"
    return f"({left}:{middle}:{right})"


def plainly(tree: Any, row: dict[str, int | None]) -> bool:
    left, middle, right = tree
    if middle == "and":
        return plainly(left, row) and plainly(right, row)
    if middle == "or":
        return plainly(left, row) or plainly(right, row)
    return bool(COMPARISONS[middle](row[left], right))


def found(tree: Tree, row: dict[str, int | None]) -> bool:
    def test(leaf: Condition) -> list[bool]:
        kind = type_of(leaf.field, row[leaf.field])
        return [made_test(leaf, kind)(keys_of(kind, row[leaf.field]))]

    return [*held(tree, test)] == [True]


@given(TREES, st.fixed_dictionaries(dict.fromkeys("ab", st.none() | NUMBERS)))
def test_any_tree_finds_what_a_plain_reading_of_it_finds(tree: Any, row: dict[str, int | None]) -> None:
    assert found(parse(written(tree)), row) == plainly(tree, row)


@given(st.text(st.sampled_from("()abc:,\\ 1"), max_size=40) | st.text(max_size=20))
def test_any_text_is_either_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(RequestError):
        assert [*conditions(parse(text))]


@given(st.text(min_size=1, max_size=10).filter(lambda text: text == text.strip()))
def test_an_escaped_value_comes_back_whole(text: str) -> None:
    escaped = "".join(f"\\{character}" if character in "(),\\" else character for character in text)
    assert one(f"(a:equals:{escaped})").values == (text,)
