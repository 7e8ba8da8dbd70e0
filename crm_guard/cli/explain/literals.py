"""Reads one value of JSON, of a Python `repr`, or of the like (Node, Ruby), as far as the text goes. Pure.

Strict JSON is read by the standard decoder; this reader is for everything else, above all for text that was cut.
Each character is looked at once: no input takes more than time in proportion to its length.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

MOST_NESTED: Final = 64
"""Containers in containers; CRM's answers have about ten."""

STRING: Final = re.compile(
    r"""(?P<kind>[bBuU]?)(?:"(?P<double>(?:[^"\\]++|\\.)*+)"|'(?P<single>(?:[^'\\]++|\\.)*+)')""", re.DOTALL
)
_TOKEN: Final = re.compile(
    rf"""(?P<string>{STRING.pattern})
    |(?P<number>-?[0-9]++(?:\.[0-9]*+)?(?:[eE][-+]?[0-9]++)?)
    |(?P<word>[A-Za-z_$][\w$]*+)
    |(?P<mark>=>|[\[\]{{}}(),:])""",
    re.DOTALL | re.VERBOSE,
)
_BLANK: Final = re.compile(r"[\s\ufeff]*+")
_ESCAPE: Final = re.compile(r"\\(u[0-9a-fA-F]{4}|U000[0-9a-fA-F]{5}|x[0-9a-fA-F]{2}|[\s\S]|\Z)")
_LINE_BREAK: Final = re.compile(r"\r?\n")
_PLAIN_WORD: Final = re.compile(r"[\w$.-]{1,64}")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_ESCAPED: Final = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "\n": ""}
_WORDS: Final[dict[str, bool | None]] = {
    "true": True,
    "True": True,
    "false": False,
    "False": False,
    "null": None,
    "None": None,
    "nil": None,
    "undefined": None,
    "NaN": None,
}
_OPENINGS: Final = re.compile(r"[\[{(\s]*+")
_CLOSING: Final = {"[": "]", "{": "}", "(": ")"}
_MISSING: Final = object()
_LONGEST_NUMBER: Final = 300


@dataclass(slots=True)
class Literal:
    """A value, as far as it could be read.

    Attributes:
        value: Dictionaries, lists, texts, numbers, booleans and None.
        end: Where to go on reading.
        cut: Whether the text ends, or becomes unreadable, before the value does.
        open: The containers that were not closed, the outermost first; empty unless cut.
    """

    value: Any
    end: int
    cut: bool = False
    open: list[Any] = field(default_factory=list)


def read_literal(text: str, start: int) -> Literal:
    """Read the container at `start`. Of what is cut, unfinished texts and numbers are left out."""
    return _Reader(text, start).read()


def unescaped(inside: str) -> str:
    """Return what the inside of a quoted text means; escapes of JSON and of Python."""
    if "\\" not in inside:
        return inside
    plain = _ESCAPE.sub(_character, inside)
    if _SURROGATE.search(plain):  # JSON escapes some characters as a pair
        return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return plain


def string_value(found: re.Match[str]) -> str:
    """Return the value of a match of `STRING`; bytes are decoded."""
    inside = found["double"] if found["double"] is not None else found["single"]
    if "\n" in inside and _PLAIN_WORD.fullmatch(word := _LINE_BREAK.sub("", inside)):
        return word  # a terminal broke the line in an id or a code
    value = unescaped(inside)
    if found["kind"] in {"b", "B"}:
        return value.encode("latin-1", "replace").decode("utf-8", "replace")
    return value


def _character(escape: re.Match[str]) -> str:
    name = escape[1]
    if len(name) > 1:
        code = int(name[1:], 16)
        return chr(code) if code <= 0x10FFFF else "\ufffd"
    return _ESCAPED.get(name, name)


class _Reader:
    """One pass over one value: a stack of open containers instead of recursion."""

    def __init__(self, text: str, start: int) -> None:
        self._text, self._at, self._start = text, start, start
        self._stack: list[tuple[Any, str]] = []  # container, closing mark
        self._keys: list[Any] = []  # the pending key of each; of a list always missing
        self._root: Any = None
        self._resume = 0
        self._due = "value"  # what comes next: a value, key, colon or comma

    def read(self) -> Literal:
        while True:
            blank = _BLANK.match(self._text, self._at)
            self._at = blank.end() if blank else self._at
            token = _TOKEN.match(self._text, self._at)
            if token is None or not self._take(token):
                return self._cut(token)
            self._at = token.end()
            if not self._stack:
                return Literal(self._root, self._at)

    def _take(self, token: re.Match[str]) -> bool:
        """Take one token; return whether it may stand here."""
        if token["mark"]:
            return self._take_mark(token["mark"])
        if self._due == "key" and token["number"] is None:
            self._keys[-1] = string_value(token) if token["string"] else token["word"]
            self._due = "colon"
            return True
        if self._due in {"value", "key"}:
            value = self._scalar(token)
            if self._due == "key":
                self._keys[-1], self._due = str(value), "colon"
                return True
            return value is not _MISSING and self._put(value)
        return False

    def _take_mark(self, mark: str) -> bool:
        if mark in _CLOSING:
            return self._due == "value" and self._open(mark)
        if mark in {":", "=>"}:
            allowed, self._due = self._due == "colon", "value"
            return allowed
        if mark == ",":
            allowed = self._due == "comma"
            self._due = "key" if isinstance(self._stack[-1][0], dict) else "value"
            return allowed
        return self._close(mark)

    def _scalar(self, token: re.Match[str]) -> Any:
        if token["string"]:
            return string_value(token)
        if token["word"]:
            return _WORDS.get(token["word"], _MISSING)
        if token.end() == len(self._text):  # perhaps only its beginning
            return _MISSING
        number = token["number"]
        if len(number) > _LONGEST_NUMBER:
            return number
        return int(number) if number.lstrip("-").isdigit() else float(number)

    def _put(self, value: Any) -> bool:
        holder, key = self._stack[-1][0], self._keys[-1]
        if isinstance(holder, dict):
            holder[key] = value
            self._keys[-1] = _MISSING
        else:
            holder.append(value)
        self._due = "comma"
        return True

    def _open(self, mark: str) -> bool:
        if len(self._stack) >= MOST_NESTED:
            return False
        container: Any = {} if mark == "{" else []
        if self._stack:
            self._put(container)
        else:
            self._root = container
        self._stack.append((container, _CLOSING[mark]))
        self._keys.append(_MISSING)
        self._due = "key" if mark == "{" else "value"
        return True

    def _close(self, mark: str) -> bool:
        container, expected = self._stack[-1]
        dangling = self._due == "colon" or (isinstance(container, dict) and self._due == "value")
        if mark != expected or dangling:
            return False
        self._stack.pop()
        self._keys.pop()
        self._due = "comma"
        return True

    def _cut(self, token: re.Match[str] | None) -> Literal:
        """Return what was read. A text that runs over the end of a line may have swallowed what follows it."""
        unfinished = token is None and self._text[self._at : self._at + 2].lstrip("bBuU")[:1] in {'"', "'"}
        if unfinished:
            line_end = self._text.find("\n", self._at)
            end = len(self._text) if line_end < 0 else line_end
        else:
            end = self._swallowed()
        if len(self._stack) >= MOST_NESTED:
            end = self._deeper(end)
        return Literal(self._root, max(end, self._start + 1), cut=True, open=[found for found, _ in self._stack])

    def _deeper(self, at: int) -> int:
        """Return where a run of still deeper containers ends."""
        run = _OPENINGS.match(self._text, at)
        return run.end() if run else at

    def _swallowed(self) -> int:
        """Return where to go on: at the line that the last text ran into, if that is how the value broke."""
        quote = max(self._text.rfind('"', self._start, self._at), self._text.rfind("'", self._start, self._at))
        if quote + 1 != self._at:
            return self._at
        opened = self._text.rfind(self._text[quote], self._start, quote)
        line_end = self._text.find("\n", max(opened, self._start), quote)
        return self._at if line_end < 0 else line_end
