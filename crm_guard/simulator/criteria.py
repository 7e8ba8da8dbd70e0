"""Search criteria: `((Company:equals:Zylker) and (Last_Name:starts_with:B))`. Pure functions.

OAS (`module_search`, `record_count`): the grammar, the operators by data type, the limits and the errors.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .comparing import FIND_NO_VALUE, among, is_value, ordered
from .conditions import MAX_DEPTH, Condition, Tree, joined
from .datatypes import LOOKUPS, MOMENTS, NUMBERS, TEXTS, DataType
from .messages import Reply, RequestError, bad_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .comparing import Key, Test

MAX_LENGTH = 3000
MAX_CONDITIONS = 10
MAX_IN = 100

# By how a value compares with what is given: -1, 0 or 1. The ends of `between` belong to it.
_ORDER: Mapping[str, Callable[..., bool]] = {
    "between": lambda low, high: low >= 0 >= high,
    "greater_than": lambda order: order > 0,
    "greater_equal": lambda order: order >= 0,
    "less_than": lambda order: order < 0,
    "less_equal": lambda order: order <= 0,
}
OPERATORS = frozenset({"equals", "not_equal", "starts_with", "in", *_ORDER})
_OF_ALL = frozenset({"equals", "not_equal"})
_OF_TEXTS = _OF_ALL | {"starts_with", "in"}
_OF_ORDERED = OPERATORS - {"starts_with"}
_TOKEN = re.compile(r"\s*(?:(?P<word>and|or)\b|(?P<open>\()|(?P<close>\)))\s*", re.IGNORECASE)
_LEAF = re.compile(
    r"\s*(?P<field>[\w$.]+)\s*:\s*(?P<operator>[A-Za-z_]+)\s*:(?P<value>(?:\\.|[^()\\])*)", re.DOTALL
)
_ESCAPED = re.compile(r"\\([(),\\])")
_PIECE = re.compile(r"(?:\\.|[^,\\])*", re.DOTALL)


def malformed() -> Reply:
    """Return the answer to what are no criteria. OAS prints it for the parameters email, phone and word."""
    return bad_request("INVALID_QUERY", "Invalid query formed", param_name="criteria")


def _invalid(message: str, **details: str) -> Reply:
    return bad_request("INVALID_QUERY", message, **details)


def parse(text: str) -> Tree:
    """Return the tree that criteria mean. The outermost parentheses may be left out.

    Raises:
        RequestError: They are malformed, too long, nested too deeply or too many; or an operator is unknown, or
            has a wrong number of values.
    """
    if len(text) > MAX_LENGTH:
        raise RequestError(malformed())
    parser = _Parser(text)
    tree = parser.group(0)
    if parser.at != len(text):
        raise RequestError(malformed())
    return tree


class _Parser:
    """Where the parser stands in the text, and how many conditions it has read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._count = 0
        self.at = 0

    def group(self, depth: int) -> Tree:
        """Read parts in parentheses, with words between them."""
        parts, words = [self._part(depth)], []
        while word := self._take("word"):
            words.append(word.lower())
            parts.append(self._part(depth))
        return joined(parts, words)

    def _part(self, depth: int) -> Tree:
        if depth > MAX_DEPTH or not self._take("open"):
            raise RequestError(malformed())
        found = _LEAF.match(self._text, self.at)
        if found:
            self.at = found.end()
            tree: Tree = self._condition(found)
        else:
            tree = self.group(depth + 1)
        if not self._take("close"):
            raise RequestError(malformed())
        return tree

    def _condition(self, found: re.Match[str]) -> Condition:
        self._count += 1
        if self._count > MAX_CONDITIONS:
            # OAS prints 15 in the text of this answer, and 10 everywhere else.
            text = f"no of criterium that can be given exceed the limit {MAX_CONDITIONS}"
            raise RequestError(bad_request("CRITERIA_LIMIT_EXCEEDED", text))
        field, operator = found["field"], found["operator"].lower()
        if operator not in OPERATORS:
            details = {"operator": found["operator"], "api_name": field}
            raise RequestError(_invalid("invalid operator found", **details))
        return Condition(field, operator, _values(field, operator, found["value"]))

    def _take(self, kind: str) -> str | None:
        found = _TOKEN.match(self._text, self.at)
        if found is None or found[kind] is None:
            return None
        self.at = found.end()
        return found[kind]


def _values(field: str, operator: str, text: str) -> tuple[str, ...]:
    values = tuple(_ESCAPED.sub(r"\1", piece.strip()) for piece in _pieces(text))
    if operator == "in" and len(values) > MAX_IN:
        raise RequestError(_invalid('Only 100 values are allowed in "IN" criteria', api_name=field))
    # A comma that belongs to the value has to be escaped.
    wanted = {"in": len(values), "between": 2}.get(operator, 1)
    if len(values) != wanted or not all(values):
        reason = "Please check the value of the field"
        raise RequestError(_invalid("invalid value for search", reason=reason, api_name=field, value=text))
    return values


def _pieces(text: str) -> Iterator[str]:
    """Yield what stands between commas that are not escaped."""
    at = 0
    while found := _PIECE.match(text, at):
        yield found[0]
        if found.end() == len(text):
            return
        at = found.end() + 1


def allowed(kind: DataType) -> frozenset[str]:
    """Return the operators that fields of a data type take."""
    if kind in NUMBERS | MOMENTS:
        return _OF_ORDERED
    if kind in TEXTS | LOOKUPS or kind is DataType.MULTISELECT:
        return _OF_TEXTS
    if kind is DataType.PICKLIST:
        return _OF_TEXTS - {"starts_with"}
    return _OF_ALL if kind is DataType.BOOLEAN else frozenset()


def check(condition: Condition, kind: DataType) -> None:
    """Check that a condition fits the data type of its field.

    Raises:
        RequestError: The field is not to be searched, does not take the operator, or not such a value.
    """
    name = condition.field
    if not allowed(kind):
        message = "the field is not available for search"
        raise RequestError(_invalid(message, reason=message, api_name=name))
    if condition.operator not in allowed(kind):
        reason = "The operator is not valid for the field type"
        details = {"operator": condition.operator, "reason": reason, "api_name": name}
        raise RequestError(_invalid("invalid operator found", **details))
    wrong = next((value for value in condition.values if not is_value(kind, value)), None)
    if wrong is not None:
        reason = "invalid value for search"
        message = "Invalid query formed" if kind in MOMENTS else reason
        details = {"expected_data_type": kind.value, "reason": reason, "api_name": name, "value": wrong}
        raise RequestError(_invalid(message, **details))


def test_of(condition: Condition, kind: DataType | None) -> Test:
    """Return the test whether what a field of type `kind` has meets a condition.

    `equals` means "contains" but for picklists (OAS); without case, and letter by letter, where CRM "may" find
    texts that look alike.
    """
    test = None if kind is None else _test(condition, kind)
    found_empty = condition.operator in FIND_NO_VALUE
    return lambda keys: found_empty if keys is None or test is None else test(keys)


def _test(condition: Condition, kind: DataType) -> Callable[[tuple[Key, ...]], bool]:
    operator, first = condition.operator, condition.values[0].casefold()
    if operator == "starts_with":
        return lambda keys: any(isinstance(key, str) and key.startswith(first) for key in keys)
    if operator == "equals" and kind in TEXTS:
        return lambda keys: any(isinstance(key, str) and first in key for key in keys)
    if operator in _ORDER:
        return ordered(kind, condition.values, _ORDER[operator])
    equal = among(kind, condition.values)
    return equal if operator != "not_equal" else lambda keys: not equal(keys)
