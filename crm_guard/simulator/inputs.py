"""Values from outside against rules, with errors that name place, value and what is allowed. Pure."""

from __future__ import annotations

import base64
import difflib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from .faults import PathText
from .messages import Json, read_json

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_SECONDS = 10**9
MOST = 10**9
_LONGEST_DELAY = 86_400
_LONGEST_PATTERN = 1000
_MOST_BITS = 4096  # Python prints no more than 4300 digits
_SHOWN = 80
_GUESSED = 100
_CLOSE = 0.7

Allowed: TypeAlias = str | tuple[str, ...]


class InputError(ValueError):
    """A value is not allowed; the text says it all in one line.

    Attributes:
        field: Where it stands, for instance `records[3].state`; empty for the whole.
        value: The value, shortened; `None` where one is missing, or secret.
        allowed: What is allowed there, in words or as a list.
    """

    def __init__(self, problem: str, *, field: str, value: object = None, allowed: Allowed) -> None:
        super().__init__(problem)
        self.field = field
        self.value = _told(value)
        self.allowed = allowed


@dataclass(frozen=True, slots=True)
class Rule:
    """What a value may be.

    Attributes:
        allowed: In words that follow "must be", or as a list of texts.
        read: Returns the value as the engine takes it. Raises ValueError or TypeError if it is not allowed, and
            InputError, with a field within the value, if it is a part that is not.
        required: Whether it must be given.
        secret: Whether errors must not repeat it.
    """

    allowed: Allowed
    read: Callable[[Any], Any]
    required: bool = False
    secret: bool = False

    def needed(self) -> Rule:
        """Return this rule for a value that must be given."""
        return replace(self, required=True)

    def or_null(self, meaning: str = "null") -> Rule:
        """Return this rule for a value that may also be null."""
        words = self.allowed if isinstance(self.allowed, str) else ", ".join(self.allowed)
        return replace(self, allowed=f"{words}, or {meaning}", read=lambda x: None if x is None else self.read(x))


def decoded(body: bytes) -> Any:
    """Return the value of a JSON text; `{}` for an empty one.

    Raises:
        InputError: It is no JSON, holds a number that is not finite, or is nested too deeply.
    """
    try:
        return read_json(body) if body.strip() else {}
    except ValueError as error:
        msg = f"the document is no JSON: {error}"
        raise InputError(msg, field="", allowed="a JSON object") from None


def read_object(value: object, rules: Mapping[str, Rule], place: str = "") -> dict[str, Any]:
    """Return the members of an object as the engine takes them; those that are not given are left out.

    Args:
        value: The object.
        rules: Allowed keys, and the rules of their values.
        place: Where the object stands, for errors.

    Raises:
        InputError: It is no object, a key is unknown or missing, or a value is not allowed.
    """
    if not isinstance(value, Mapping):
        msg = f"{place or 'the document'} must be an object, not {_shown(value)}"
        raise InputError(msg, field=place, value=value, allowed="a JSON object")
    for key in value:
        if key not in rules:
            raise _unknown_key(key, rules, place)
    for key, rule in rules.items():
        if rule.required and key not in value:
            field = within(place, key)
            msg = f"{field} is missing: it must be {_words(rule.allowed)}"
            raise InputError(msg, field=field, allowed=rule.allowed)
    return {key: _read(rules[key], entry, within(place, key)) for key, entry in value.items()}


def read_list(value: object, place: str, read: Callable[[object, str], dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what `read` makes of each entry of an array and its place.

    Raises:
        InputError: It is no array, or one of its entries is not allowed.
    """
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        msg = f"{place}={_shown(value)} must be an array of objects"
        raise InputError(msg, field=place, value=value, allowed="an array of objects")
    return [read(entry, f"{place}[{index}]") for index, entry in enumerate(value)]


def within(place: str, key: str) -> str:
    """Return the name of a member of what stands at `place`."""
    return f"{place}.{key}" if place else key


def _read(rule: Rule, value: object, field: str) -> Any:
    try:
        return rule.read(value)
    except InputError as error:
        msg = f"{field}: {error}"
        raise InputError(msg, field=field, value=value, allowed=error.allowed) from None
    except (ValueError, TypeError):
        if rule.secret:
            msg = f"{field} must be {_words(rule.allowed)}"
            raise InputError(msg, field=field, allowed=rule.allowed) from None
        close = _close_to(value, rule.allowed)
        words = f"is not allowed{close}" if close else f"must be {_words(rule.allowed)}"
        msg = f"{field}={_shown(value)} {words}"
        raise InputError(msg, field=field, value=value, allowed=rule.allowed) from None


def _unknown_key(key: object, rules: Mapping[str, Rule], place: str) -> InputError:
    field, known = within(place, _shortened(str(key))), tuple(rules)
    close = _close_to(str(key), known) or f". Allowed: {', '.join(known) or 'none'}"
    return InputError(f"unknown key {_shown(field)}{close}", field=field, allowed=known)


def _close_to(value: object, allowed: Allowed) -> str:
    """Return a guess at what was meant, and all that is allowed; nothing if there is no guess."""
    if isinstance(allowed, str) or not isinstance(value, str) or len(value) > _GUESSED:
        return ""
    close = difflib.get_close_matches(value, allowed, n=1, cutoff=_CLOSE)
    return f", did you mean {close[0]}? Allowed: {', '.join(allowed)}" if close else ""


def _words(allowed: Allowed) -> str:
    return allowed if isinstance(allowed, str) else f"one of {', '.join(allowed)}"


def _told(value: object) -> object:
    """Return a value as an error repeats it: a short one as it is."""
    if isinstance(value, str):
        return _shortened(value)
    return value if value is None or isinstance(value, (bool, int)) else _shown(value)


def _shown(value: object) -> str:
    """Return a value as JSON on one short line of ASCII."""
    try:
        return _shortened(json.dumps(value, default=str))
    except ValueError:  # an integer of thousands of digits
        return f"a huge {type(value).__name__}"


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


# --- rules -------------------------------------------------------------------------------------------------------


def choice(*values: str) -> Rule:
    """Return the rule of a text that is one of `values`."""
    return Rule(values, lambda value: _if(isinstance(value, str) and value in values, value))


def text(pattern: str, allowed: str) -> Rule:
    """Return the rule of a text that matches a regular expression as a whole."""
    compiled = re.compile(pattern)
    return Rule(allowed, lambda value: _if(compiled.fullmatch(value), value))


def whole(least: int, most: int = MOST, what: str = "a whole number") -> Rule:
    """Return the rule of an integer between two others; `true` is none."""
    return Rule(
        f"{what} from {least} to {most}", lambda value: _if(type(value) is int and least <= value <= most, value)
    )


def seconds(most: float = MOST_SECONDS) -> Rule:
    """Return the rule of a finite number of seconds; `true` is none."""

    def read(value: Any) -> Any:
        return _if(type(value) in (int, float) and 0 <= value <= most, value)

    return Rule(f"a number of seconds from 0 to {most}", read)


def _if(fine: object, value: Any) -> Any:
    """Return `value`, or raise ValueError if it is not fine."""
    if not fine:
        raise ValueError
    return value


def _record_id(value: Any) -> str:
    """Return an id as text. Numbers are taken too: they are exact here, although not in every language."""
    digits = str(value) if type(value) is int else value
    return str(_if(re.fullmatch(r"[0-9]{1,30}", digits), digits))


def _plain(value: Any) -> Any:
    """Return a value if all of it can be sent as JSON: TOML has dates, and both have numbers beyond all bounds."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return _if(math.isfinite(value), value)
    if isinstance(value, int):
        return _if(value.bit_length() <= _MOST_BITS, value)
    return _if(value is None or isinstance(value, str), value)


def _members(value: Any) -> Json:
    return dict(_plain(_if(isinstance(value, Mapping), value)))


def _path_text(value: Any) -> PathText:
    return PathText(_if(isinstance(value, str) and 0 < len(value) <= _LONGEST_PATTERN, value))


def _base64(value: Any) -> bytes:
    return base64.b64decode(_if(isinstance(value, str), value), validate=True)


def _headers(value: Any) -> dict[str, str]:
    return {
        _if(re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", name) and name.lower() not in _FRAMING, name): _if(
            re.fullmatch(r"[\t -~\xa1-\xff]{0,4000}", entry), entry
        )
        for name, entry in _if(isinstance(value, Mapping), value).items()
    }


_FRAMING = ("content-length", "transfer-encoding", "connection")

RECORD_ID = Rule("a text of 1 to 30 digits", _record_id)
MODULE = text(r"[A-Za-z][A-Za-z0-9_]{0,99}", "the API name of a module: letters, digits and _, like Leads")
BOOLEAN = Rule("true or false", lambda value: _if(isinstance(value, bool), value))
MEMBERS = Rule("an object of names to values, without dates and infinite numbers", _members)
PLAIN = Rule("a text, or a JSON value without infinite numbers", _plain)
BASE64 = Rule("a text in base64, on one line", _base64)
PATH_TEXT = Rule(f"a text of 1 to {_LONGEST_PATTERN} characters", _path_text)
METHOD = text(r"[A-Za-z]{1,20}", "an HTTP method, like PUT")
HEADERS = Rule("an object of names to printable texts; not Content-Length, Transfer-Encoding, Connection", _headers)
SECONDS = seconds()
DELAY = seconds(_LONGEST_DELAY)
COUNT = whole(0)
