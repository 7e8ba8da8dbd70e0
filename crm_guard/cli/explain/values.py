"""Reads the value at a place in a text, and completes one that was cut. Pure."""

from __future__ import annotations

import json
import re
from typing import Final

from crm_guard.cli.explain.literals import Literal, read_literal
from crm_guard.cli.explain.pasted import MOST_ANSWERS
from crm_guard.cli.explain.shapes import body_of, completed, is_item, items_in

_TIMES_READ: Final = 6
"""How often the characters of a text may be read again, as the inside of something, before it is left alone."""
_PER_TEXT: Final = 100
"""What even the shortest text costs, in characters."""
_MOST_FAILURES: Final = 200
"""Of the standard decoder: its error messages count the lines before them, so each reads all of the text."""
_DECODER: Final = json.JSONDecoder(parse_constant=lambda _: None)


class TooManyError(Exception):
    """A text holds more answers than are explained at once."""


class Budget:
    """What may still be read: bounds the time, however texts are nested in texts.

    Args:
        text: The whole text.
    """

    def __init__(self, text: str) -> None:
        self._characters = _TIMES_READ * len(text) + 1000
        self._failures = _MOST_FAILURES
        self._answers = 0

    def count(self, answers: int) -> None:
        """Count answers that were found.

        Raises:
            TooManyError: They are more than are explained.
        """
        self._answers += answers
        if self._answers > MOST_ANSWERS:
            raise TooManyError

    def allows(self, text: str) -> bool:
        """Return whether a text may be read, and count it."""
        self._characters -= len(text) + _PER_TEXT
        return self._characters > 0

    def value_at(self, text: str, start: int) -> tuple[Literal, str]:
        """Return the container at `start`, and the name of its syntax."""
        if self._failures > 0:
            try:
                value, end = _DECODER.raw_decode(text, start)
                return Literal(value, end), "JSON"
            except (ValueError, RecursionError):
                self._failures -= 1
        literal = read_literal(text, start)
        quote = re.search("[\"']", text[start : start + 200])
        return literal, "JSON" if literal.cut and quote and quote[0] == '"' else "a Python repr"


def close(literal: Literal) -> bool:
    """Complete what was cut, or leave it out if not even its code is known; return whether its details lack."""
    vague = False
    for outer, inner in zip([None, *literal.open], literal.open, strict=False):
        if not isinstance(inner, dict):
            continue
        if isinstance(inner.get("code"), str):
            vague = not isinstance(inner.get("details"), dict) or any(
                inner["details"] is one for one in literal.open
            )
            inner.update(completed(inner))
        if isinstance(outer, list) and not is_item(inner) and (not inner or any(is_item(one) for one in outer)):
            outer.pop()
    _close_composite(literal)
    return vague


def _close_composite(literal: Literal) -> None:
    """Leave out a sub-request whose answer was cut off: its outer code only says that it was executed."""
    subs = literal.value.get("__composite_requests") if isinstance(literal.value, dict) else None
    if not isinstance(subs, list) or not subs or not any(subs[-1] is one for one in literal.open):
        return
    part = subs[-1]
    for name in ("details", "response", "body"):
        part = part.get(name) if isinstance(part, dict) else None
    if not isinstance(part, dict) or items_in(body_of(part)) is None:
        subs.pop()
