"""References of a composite's sub-request to the answers of others: `@{1:$.data[0].details.id}` (OAS). Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

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


def filled_text(text: str, bodies: Mapping[str, Any], where: str) -> str:
    """Return the address `text` with the values of its references, percent-encoded.

    Raises:
        BrokenReferenceError: See :func:`filled`.
    """
    return _replaced(text, bodies, where, lambda value: quote(value, safe=""))


def filled(value: Any, bodies: Mapping[str, Any], where: str) -> Any:
    """Return a JSON value with the values of its references.

    A text that is one reference becomes that value whatever its type; within a text it becomes text.

    Args:
        value: The value.
        bodies: Ids of sub-requests to the decoded bodies of their answers.
        where: JSON path of the value.

    Raises:
        BrokenReferenceError: The answer that one names has no such value, or one that cannot be part of a text.
    """
    if isinstance(value, dict):
        return {key: filled(entry, bodies, f"{where}.{key}") for key, entry in value.items()}
    if isinstance(value, list):
        return [filled(entry, bodies, f"{where}[{index}]") for index, entry in enumerate(value)]
    if not isinstance(value, str):
        return value
    whole = _REFERENCE.fullmatch(value)
    return _value_of(whole, bodies, where) if whole else _replaced(value, bodies, where, lambda text: text)


def _texts(value: object, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield value, where
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from _texts(entry, f"{where}.{key}")
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _texts(entry, f"{where}[{index}]")


def _replaced(text: str, bodies: Mapping[str, Any], where: str, write: Callable[[str], str]) -> str:
    def replacement(found: re.Match[str]) -> str:
        value = _value_of(found, bodies, where)
        if value is None or isinstance(value, (dict, list)):
            raise BrokenReferenceError(found[0], where)
        return write(value if isinstance(value, str) else json.dumps(value))

    return _REFERENCE.sub(replacement, text)


def _value_of(found: re.Match[str], bodies: Mapping[str, Any], where: str) -> Any:
    inside = _INSIDE.fullmatch(found[1])
    try:
        value = bodies[inside[1]] if inside else None
        for name, index in _STEP.findall(inside[2] if inside else ".?"):
            value = _entry(value, name, index)
    except LookupError:
        raise BrokenReferenceError(found[0], where) from None
    return value


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
