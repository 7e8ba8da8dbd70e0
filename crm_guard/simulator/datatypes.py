"""What kind of value a field holds, and how values compare. Pure functions.

The simulator knows no field but by its values and by its name: the data types are guesses from these. ZOHO docs:
field metadata.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

# Numbers with numbers, and dates with moments.
Ordered: TypeAlias = int | float | date | datetime


class DataType(StrEnum):
    """Data types of fields; the values are those of the field metadata."""

    BOOLEAN = "boolean"
    INTEGER = "integer"
    BIGINT = "bigint"
    DOUBLE = "double"
    DATE = "date"
    DATETIME = "datetime"
    LOOKUP = "lookup"
    OWNER = "ownerlookup"
    PICKLIST = "picklist"
    MULTISELECT = "multiselectpicklist"
    SUBFORM = "subform"
    EMAIL = "email"
    PHONE = "phone"
    TEXTAREA = "textarea"
    TEXT = "text"


NUMBERS = frozenset({DataType.INTEGER, DataType.BIGINT, DataType.DOUBLE})
MOMENTS = frozenset({DataType.DATE, DataType.DATETIME})
LOOKUPS = frozenset({DataType.LOOKUP, DataType.OWNER})
TEXTS = frozenset({DataType.TEXT, DataType.TEXTAREA, DataType.EMAIL, DataType.PHONE})

_NAMED = {"id": DataType.BIGINT, "Owner": DataType.OWNER, "Description": DataType.TEXTAREA}
# Of the usual modules.
_PICKLISTS = frozenset(
    {
        *("Account_Type", "Industry", "Lead_Source", "Lead_Status", "Ownership", "Pipeline", "Priority", "Rating"),
        *("Salutation", "Stage", "Status", "Type", "$approval_state"),
    }
)
_EMAIL_NAME = re.compile("e_?mail", re.IGNORECASE)
_PHONE_NAME = re.compile("phone|mobile|fax", re.IGNORECASE)
_ADDRESS = re.compile(r"[^@\s]+@[^@\s]+")
_NUMBER = re.compile(r"[+-]?\d{1,50}(?:\.\d{1,50})?")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_DATETIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-]\d\d:?\d\d)?")


def type_of(name: str, value: Any) -> DataType | None:
    """Return the data type of the field `name` that holds `value`; `None` where the value does not tell."""
    if value is None or value == "":
        return None
    if name in _NAMED:
        return _NAMED[name]
    for kind, known in ((bool, DataType.BOOLEAN), (int, DataType.INTEGER), (float, DataType.DOUBLE)):
        if isinstance(value, kind):
            return known
    if isinstance(value, dict):
        return DataType.LOOKUP
    if isinstance(value, list):
        plain = all(isinstance(entry, str) for entry in value)
        return DataType.MULTISELECT if plain else DataType.SUBFORM
    return _text_type(name, str(value))


def _text_type(name: str, text: str) -> DataType:
    if name in _PICKLISTS:
        return DataType.PICKLIST
    if (moment := as_moment(text)) is not None:
        return DataType.DATETIME if isinstance(moment, datetime) else DataType.DATE
    if _EMAIL_NAME.search(name) or _ADDRESS.fullmatch(text):
        return DataType.EMAIL
    return DataType.PHONE if _PHONE_NAME.search(name) else DataType.TEXT


def as_moment(text: str) -> date | datetime | None:
    """Return the day or the instant that a text names, or `None`. Without an offset it is taken as UTC."""
    try:
        if _DATE.fullmatch(text):
            return date.fromisoformat(text)
        moment = datetime.fromisoformat(text) if _DATETIME.fullmatch(text) else None
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def as_number(text: str) -> int | float | None:
    """Return the number that a text names, or `None`."""
    if not _NUMBER.fullmatch(text):
        return None
    return float(text) if "." in text else int(text)


def as_ordered(kind: DataType, value: Any) -> Ordered | None:
    """Return a value, or a text that is to be compared with one of type `kind`, in a form that has an order."""
    if kind in MOMENTS:
        return as_moment(str(value))
    if kind not in NUMBERS or isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return None if isinstance(value, float) and math.isnan(value) else value
    return as_number(str(value))


def compare(left: Ordered, right: Ordered) -> int:
    """Return -1, 0 or 1. A day and an instant compare by the day of the instant (undocumented)."""
    if isinstance(left, datetime) != isinstance(right, datetime):
        left, right = _day(left), _day(right)
    # Both are numbers or both are moments: `as_ordered` saw to that.
    return (left > right) - (left < right)  # type: ignore[operator]


def orders(kind: DataType, value: Any, texts: Iterable[str]) -> list[int]:
    """Return how a value compares with each of some texts; nothing where one of them has no order."""
    found = as_ordered(kind, value)
    limits = [as_ordered(kind, text) for text in texts]
    known = [compare(found, limit) for limit in limits if limit is not None and found is not None]
    return known if len(known) == len(limits) else []


def _day(moment: Ordered) -> Ordered:
    return moment.date() if isinstance(moment, datetime) else moment


def names_of(value: Any) -> tuple[str, ...]:
    """Return by which texts a lookup can be named: its name and its id, in lower case."""
    found = (value.get("name"), value.get("id")) if isinstance(value, dict) else (value,)
    return tuple(str(text).casefold() for text in found if text is not None)


def texts_of(value: Any) -> tuple[str, ...]:
    """Return the texts in a value, in lower case: itself, those in a list, or the name of a lookup."""
    if isinstance(value, list):
        return tuple(entry.casefold() for entry in value if isinstance(entry, str))
    if isinstance(value, dict):
        return () if value.get("name") is None else (str(value["name"]).casefold(),)
    return () if value is None or isinstance(value, bool) else (str(value).casefold(),)


def is_value(kind: DataType, text: str) -> bool:
    """Return whether a text can be compared with values of type `kind`."""
    if kind is DataType.BOOLEAN:
        return text.lower() in ("true", "false")
    return as_ordered(kind, text) is not None if kind in NUMBERS | MOMENTS else True


def equals(kind: DataType, value: Any, text: str) -> bool:
    """Return whether a field of type `kind` has exactly this value; texts compare without case (undocumented)."""
    if kind is DataType.BOOLEAN:
        return isinstance(value, bool) and value == (text.lower() == "true")
    if kind in NUMBERS | MOMENTS:
        left, right = as_ordered(kind, value), as_ordered(kind, text)
        return left is not None and right is not None and compare(left, right) == 0
    if kind in LOOKUPS:
        return text.casefold() in names_of(value)
    return text.casefold() in texts_of(value)


def sort_key(value: Any) -> tuple[int, Any]:
    """Return by what values of any type are put in order: those that are nothing first (undocumented)."""
    if value is None:
        return (0, 0)
    if isinstance(value, (bool, int, float)):
        return (1, value)
    text = value.get("name") or value.get("id") if isinstance(value, dict) else value
    moment = as_moment(str(text))
    if isinstance(moment, datetime):
        return (2, moment.timestamp())
    if moment is not None:
        return (2, datetime(moment.year, moment.month, moment.day, tzinfo=UTC).timestamp())
    return (3, str(text).casefold())


def common_type(name: str, values: Iterable[Any]) -> DataType | None:
    """Return the data type of a field by the first of its values that tells; `None` where none does."""
    return next((kind for kind in (type_of(name, value) for value in values) if kind is not None), None)
