"""The words of COQL, and where a parser stands in them. Pure functions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from .messages import Reply, RequestError, bad_request, not_simulated

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DOTS = 2
"""Lookups that a name may go through (ZOHO docs: two relations)."""

_TOKEN = re.compile(
    r"""\s*+(?:(?P<text>'(?:[^']++|'')*+'|"(?:[^"]++|"")*+")
    |(?P<number>-?\d+(?:\.\d+)?)
    |(?P<placeholder>\$\{[^}]*\})
    |(?P<name>[A-Za-z_$][\w$]*(?:\.[\w$]+)*)
    |(?P<operator><=|>=|!=|<>|=|<|>)
    |(?P<mark>[(),*])
    |(?P<other>\S))""",
    re.VERBOSE,
)
_SHOWN = 200  # characters of a token, in an answer
_PARSING = "error occured while parsing the query"


def unserved(what: str) -> Reply:
    """Return the refusal of a query that CRM may well answer, but the simulator cannot."""
    return bad_request("SYNTAX_ERROR", f"given coql query not supported; {not_simulated(what)}")


@dataclass(frozen=True, slots=True)
class Token:
    """One word, number, text, operator or mark.

    Attributes:
        kind: `name`, `text` (in quotes), `number`, `operator`, `mark`, `placeholder`, `other` or `end`.
        text: As it stands in the query.
        at: Where it begins.
    """

    kind: str
    text: str
    at: int

    @property
    def word(self) -> str:
        """A name in lower case, for keywords; empty for anything else."""
        return self.text.lower() if self.kind == "name" else ""


END = Token("end", "", -1)


class Cursor:
    """Where a parser stands in a query, which it reads as far as it needs to.

    Args:
        text: The query.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._rest = _tokens(text)
        self._last = END
        self.next = next(self._rest, END)
        """The token that comes next; `END` behind the last."""

    def skip(self) -> str:
        """Go past the next token; returns its text."""
        self._last, self.next = self.next, next(self._rest, END)
        return self._last.text

    def take(self, *words: str) -> str:
        """Go past the next token if it is one of these keywords or marks; return it in lower case, else nothing."""
        token = self.next
        found = token.text if token.kind == "mark" else token.word
        if found not in words:
            return ""
        self.skip()
        return found

    def expect(self, word: str) -> None:
        """Go past a keyword or mark that has to come next.

        Raises:
            RequestError: Something else does.
        """
        if not self.take(word):
            self.fail()

    def name(self) -> str:
        """Read the name of a field or module; one that is a word of the language has to be quoted.

        Raises:
            RequestError: Something else comes next.
        """
        token = self.next
        text = token.text[1:-1] if token.kind == "text" else token.text
        if token.kind not in ("name", "text") or not re.fullmatch(r"[\w$.]+", text):
            self.fail()
        if text.count(".") > MAX_DOTS:
            raise RequestError(unserved(f"more than {MAX_DOTS} lookups in {text}"))
        self.skip()
        return text

    def fail(self) -> NoReturn:
        """Refuse the next token.

        Raises:
            RequestError: Always.
        """
        token = self.next
        if token is END:
            raise RequestError(bad_request("SYNTAX_ERROR", _PARSING, near=self._last.text[:_SHOWN]))
        before = self._text[: token.at]
        line, column = before.count("\n") + 1, token.at - (before.rfind("\n") + 1)
        where = {"line": line, "column": column, "near": token.text[:_SHOWN]}
        raise RequestError(bad_request("SYNTAX_ERROR", "unexpected token", **where))


def _tokens(text: str) -> Iterator[Token]:
    at = 0
    while found := _TOKEN.match(text, at):
        kind = found.lastgroup or "other"
        yield Token(kind, found[kind], found.start(kind))
        at = found.end()
