"""Locate the values of a JSON text, so that one can be replaced and every other byte stays the same.

The standard decoder reports where a value ends (`raw_decode`); a typed decoder gives values without offsets, and
serializing a whole document again changes white space, escapes, number forms and duplicate keys.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_DECODER: Final = json.JSONDecoder()
_WHITESPACE: Final = re.compile(r"[ \t\n\r]*")


class Span(NamedTuple):
    """A value in a JSON text, and its offsets."""

    start: int
    end: int
    value: Any


def members(text: str, start: int = 0) -> dict[str, Span] | None:
    """Return the members of the JSON object at `start`; None if it is not an object, or has a duplicate key."""
    found: dict[str, Span] = {}
    at = _opening(text, start, "{")
    if at is None:
        return None
    while not text.startswith("}", at):
        key = _value(text, at)
        colon = _skip(text, key.end)
        if not isinstance(key.value, str) or key.value in found or not text.startswith(":", colon):
            return None
        found[key.value] = value = _value(text, colon + 1)
        at = _after_comma(text, value.end, "}")
    return found


def elements(text: str, start: int = 0) -> list[Span] | None:
    """Return the elements of the JSON array at `start`; None if it is not an array."""
    found: list[Span] = []
    at = _opening(text, start, "[")
    if at is None:
        return None
    while not text.startswith("]", at):
        found.append(_value(text, at))
        at = _after_comma(text, found[-1].end, "]")
    return found


def splice(text: str, replacements: Mapping[tuple[int, int], str]) -> str:
    """Return `text` with the given ranges replaced. Ranges must not overlap."""
    pieces: list[str] = []
    at = 0
    for (start, end), replacement in sorted(replacements.items()):
        pieces += (text[at:start], replacement)
        at = end
    return "".join((*pieces, text[at:]))


def pick(text: str, spans: Sequence[Span], indexes: Sequence[int]) -> str:
    """Return a JSON array of the spans at `indexes`, each byte for byte."""
    return "[" + ",".join(text[spans[index].start : spans[index].end] for index in indexes) + "]"


def _skip(text: str, at: int) -> int:
    match = _WHITESPACE.match(text, at)
    return match.end() if match else at


def _opening(text: str, start: int, bracket: str) -> int | None:
    at = _skip(text, start)
    return _skip(text, at + 1) if text.startswith(bracket, at) else None


def _value(text: str, at: int) -> Span:
    start = _skip(text, at)
    value, end = _DECODER.raw_decode(text, start)
    return Span(start, end, value)


def _after_comma(text: str, at: int, bracket: str) -> int:
    at = _skip(text, at)
    if text.startswith(bracket, at):
        return at
    after = _skip(text, at + 1)
    if not text.startswith(",", at) or text.startswith(bracket, after):
        message = f"expected ',' and a value, or {bracket!r}"
        raise json.JSONDecodeError(message, text, at)
    return after
