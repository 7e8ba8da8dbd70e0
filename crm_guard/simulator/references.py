"""References of a composite's sub-request to the answers of others: `@{1:$.data[0].details.id}` (OAS). Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .messages import item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .messages import Json

_REFERENCE = re.compile(r"@\{([^{}]*)\}")
# The documented form of an id, and the JSON paths that OAS shows: names after dots, and numbers in brackets.
_INSIDE = re.compile(r"([a-zA-Z0-9][a-zA-Z0-9_]*):\$((?:\.[A-Za-z0-9_$]+|\[[0-9]{1,4}\])+)")
_STEP = re.compile(r"\.([A-Za-z0-9_$]+)|\[([0-9]+)\]")
_PLACEHOLDER = "0"


class BrokenReferenceError(Exception):
    """A reference that cannot be followed.

    Attributes:
        reference: Its text, `@{..}`.
        where: JSON path of the text that holds it.
    """

    def __init__(self, reference: str, where: str) -> None:
        super().__init__(reference)
        self.reference, self.where = reference, where

    def item(self) -> Json:
        """Return the item that tells of it (OAS: the keys of its details; its text is undocumented)."""
        details = {"api_name": self.where.rpartition(".")[2], "json_path": self.where, "reference": self.reference}
        return item("INVALID_REFERENCE", "the reference given seems to be invalid", details)


@dataclass(frozen=True, slots=True)
class Reference:
    """One reference.

    Attributes:
        text: As written.
        sub: The `sub_request_id` that it names; empty where it is malformed.
        path: The JSON path behind the `$`.
        where: JSON path of the text that holds it.
    """

    text: str
    sub: str
    path: str
    where: str


def references(value: object, where: str) -> Iterator[Reference]:
    """Yield the references in the texts of a JSON value, malformed ones too.

    Args:
        value: The value.
        where: Its own JSON path.
    """
    for text, place in _texts(value, where):
        for found in _REFERENCE.finditer(text):
            inside = _INSIDE.fullmatch(found[1])
            yield Reference(found[0], inside[1] if inside else "", inside[2] if inside else "", place)


def masked(text: str) -> str:
    """Return `text` with a plain segment for each reference, so that it reads as a path before they are known."""
    return _REFERENCE.sub(_PLACEHOLDER, text)


class Answers:
    """The answers so far, by the ids of their sub-requests, and how much of them may be copied.

    Args:
        most: Characters that the values of references may have together, written as JSON.
    """

    def __init__(self, most: int) -> None:
        self._left = most
        self._bodies: dict[str, Any] = {}

    def keep(self, sub: str, body: Any) -> None:
        """Keep the decoded body of an answer."""
        self._bodies[sub] = body

    def text(self, text: str, where: str) -> str:
        """Return the address `text` with the values of its references, percent-encoded.

        Raises:
            BrokenReferenceError: See :meth:`filled`.
        """
        return self._replaced(text, where, lambda value: quote(value, safe=""))

    def filled(self, value: Any, where: str) -> Any:
        """Return a JSON value with the values of its references.

        A text that is one reference becomes that value whatever its type; within a text it becomes text.

        Args:
            value: The value.
            where: Its JSON path.

        Raises:
            BrokenReferenceError: The answer that one names has no such value, one that cannot be part of a text, or
                one too many.
        """
        if isinstance(value, dict):
            return {key: self.filled(entry, f"{where}.{key}") for key, entry in value.items()}
        if isinstance(value, list):
            return [self.filled(entry, f"{where}[{index}]") for index, entry in enumerate(value)]
        if not isinstance(value, str):
            return value
        whole = _REFERENCE.fullmatch(value)
        return self._value(whole, where) if whole else self._replaced(value, where, str)

    def _replaced(self, text: str, where: str, write: Callable[[str], str]) -> str:
        def replacement(found: re.Match[str]) -> str:
            value = self._value(found, where)
            if value is None or isinstance(value, (dict, list)):
                raise BrokenReferenceError(found[0], where)
            return write(value if isinstance(value, str) else json.dumps(value))

        return _REFERENCE.sub(replacement, text)

    def _value(self, found: re.Match[str], where: str) -> Any:
        inside = _INSIDE.fullmatch(found[1])
        try:
            value = self._bodies[inside[1]] if inside else None
            for name, index in _STEP.findall(inside[2] if inside else ".?"):
                value = _entry(value, name, index)
        except LookupError:
            raise BrokenReferenceError(found[0], where) from None
        self._left -= len(value) if isinstance(value, str) else len(json.dumps(value))
        if self._left < 0:
            raise BrokenReferenceError(found[0], where)
        return value


def _texts(value: object, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield value, where
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from _texts(entry, f"{where}.{key}")
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _texts(entry, f"{where}[{index}]")


def _entry(value: Any, name: str, index: str) -> Any:
    """Return a member or an element.

    Raises:
        LookupError: There is none.
    """
    if name and isinstance(value, dict):
        return value[name]
    if index and isinstance(value, list):
        return value[int(index)]
    raise LookupError
