"""The `where` of COQL. Pure functions.

ZOHO docs (COQL-Overview, COQL-Limitations): comparators, limits, and that more than two conditions have to be
grouped in pairs, as in `((a and b) and c)`. OAS (`coql`): the errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .conditions import MAX_DEPTH, Condition, Tree, joined
from .coql_tokens import unserved
from .messages import Reply, RequestError, bad_request

if TYPE_CHECKING:
    from .coql_tokens import Cursor

MAX_CONDITIONS = 25
MAX_IN = 50
COMPARATORS = ("=", "!=", ">", ">=", "<", "<=")


class Where:
    """Reads conditions, and counts them.

    Args:
        cursor: Stands behind the word `where`.
    """

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._count = 0

    def tree(self, depth: int = 0) -> Tree:
        """Read one condition or two.

        Args:
            depth: In how many parentheses.

        Raises:
            RequestError: CRM refuses them, or the simulator cannot answer them.
        """
        parts, words = [self._term(depth)], list[str]()
        while (word := self._cursor.next.word) in ("and", "or"):
            if words:
                raise RequestError(bad_request("SYNTAX_ERROR", "error occured while parsing the query", near=word))
            words.append(self._cursor.skip().lower())
            parts.append(self._term(depth))
        return joined(parts, words)

    def _term(self, depth: int) -> Tree:
        if depth > MAX_DEPTH:
            self._cursor.fail()
        if not self._cursor.take("("):
            return self._condition()
        tree = self.tree(depth + 1)
        self._cursor.expect(")")
        return tree

    def _condition(self) -> Condition:
        self._count += 1
        if self._count > MAX_CONDITIONS:
            message = f"only {MAX_CONDITIONS} criteria can be given"
            raise RequestError(bad_request("LIMIT_EXCEEDED", message, limit=MAX_CONDITIONS))
        if self._cursor.next.word == "not":
            raise RequestError(_unknown("not"))
        name = self._cursor.name()
        if self._cursor.next.text == "(":
            raise RequestError(unserved(f"the function {name}"))
        if self._cursor.next.kind == "operator":
            return Condition(name, self._comparator(), (self._value(),))
        if self._cursor.take("is"):
            negated = "not " if self._cursor.take("not") else ""
            self._cursor.expect("null")
            return Condition(name, f"is {negated}null")
        return self._worded(name, "not " if self._cursor.take("not") else "")

    def _comparator(self) -> str:
        operator = self._cursor.skip()
        if operator not in COMPARATORS:
            raise RequestError(_unknown(operator))
        return operator

    def _worded(self, name: str, negated: str) -> Condition:
        """Read a condition from its word on."""
        word = self._cursor.take("like", "in", "between")
        if word == "like":
            return Condition(name, f"{negated}like", (_pattern(self._value()),))
        if word == "in":
            return Condition(name, f"{negated}in", self._list())
        if not word:
            self._cursor.fail()
        if negated:
            raise RequestError(_unknown(f"not {word}"))
        lowest = self._value()
        self._cursor.expect("and")
        return Condition(name, word, (lowest, self._value()))

    def _list(self) -> tuple[str, ...]:
        self._cursor.expect("(")
        values = [self._value()]
        while self._cursor.take(","):
            values.append(self._value())
            if len(values) > MAX_IN:
                message = f"only {MAX_IN} values can be given"
                raise RequestError(bad_request("LIMIT_EXCEEDED", message, limit=MAX_IN))
        self._cursor.expect(")")
        return tuple(values)

    def _value(self) -> str:
        token = self._cursor.next
        if token.kind == "text":
            quote = token.text[0]
            value = token.text[1:-1].replace(quote * 2, quote)
        elif token.kind in ("number", "placeholder") or token.word in ("true", "false"):
            value = token.text
        elif token.text == "(" or token.word == "select":
            raise RequestError(unserved("subqueries"))
        else:
            self._cursor.fail()
        if value.startswith("${"):
            raise RequestError(unserved(value))
        self._cursor.skip()
        return value


def _unknown(operator: str) -> Reply:
    return bad_request("SYNTAX_ERROR", "operator not supported", operator=operator)


def _pattern(text: str) -> str:
    """Return a pattern, which may have a wildcard at its start and its end (ZOHO docs)."""
    if "%" in text[1:-1]:
        raise RequestError(unserved(f"a % in the middle of {text}"))
    return text
