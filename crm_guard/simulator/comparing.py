"""How what fields hold compares with the texts of a query. Pure functions.

Both sides are brought into one form, once: a value by :func:`keys_of`, the texts of a condition when its test is
made. So a query costs as many steps as there are records and conditions, however many texts these have.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from .datatypes import LOOKUPS, MOMENTS, NUMBERS, DataType, as_moment, as_number, missing, texts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# Numbers with numbers, and dates with moments.
Ordered: TypeAlias = int | float | date | datetime
Key: TypeAlias = str | Ordered
Keys: TypeAlias = tuple[Key, ...] | None
"""What a value compares by: all texts of a list, for instance. `None` is no value."""
Test: TypeAlias = "Callable[[Keys], bool]"

FIND_NO_VALUE = frozenset({"is null", "not_equal"})
"""The operators that find a field without a value; no other finds it. Undocumented for both languages.

COQL is taken to be like SQL: `is null` alone, so that `!=`, `not in` and `not like` leave such records out.
In search criteria, which cannot ask for null, `not_equal` finds them.
"""


def keys_of(kind: DataType | None, value: Any) -> Keys:
    """Return what a value of a field of type `kind` compares by."""
    if kind is None or missing(value):
        return None
    if kind is DataType.BOOLEAN:
        return (value,) if isinstance(value, bool) else ()
    if kind in NUMBERS | MOMENTS:
        found = _as_ordered(kind, value)
        return () if found is None else (found,)
    if kind in LOOKUPS:
        return names_of(value)
    return (str(value).casefold(),) if isinstance(value, bool) else texts_of(value)


def _key(kind: DataType, text: str) -> Key | None:
    """Return what a text of a query compares by."""
    if kind is DataType.BOOLEAN:
        return text.lower() == "true"
    return _as_ordered(kind, text) if kind in NUMBERS | MOMENTS else text.casefold()


def is_value(kind: DataType, text: str) -> bool:
    """Return whether a text can be compared with values of type `kind`."""
    if kind is DataType.BOOLEAN:
        return text.lower() in ("true", "false")
    return _key(kind, text) is not None


def among(kind: DataType, texts: Iterable[str]) -> Callable[[tuple[Key, ...]], bool]:
    """Return a test: is a value one of some texts? Texts compare without case (undocumented)."""
    keys = {key for key in (_key(kind, text) for text in texts) if key is not None}
    instants = {key for key in keys if isinstance(key, datetime)}
    days = {key for key in keys if isinstance(key, date)} - instants
    wanted = keys | {instant.date() for instant in instants}

    def test(found: tuple[Key, ...]) -> bool:
        return any(key in wanted or (isinstance(key, datetime) and key.date() in days) for key in found)

    return test


def ordered(kind: DataType, texts: Iterable[str], fits: Callable[..., bool]) -> Callable[[tuple[Key, ...]], bool]:
    """Return a test: does a value lie where a comparison with some texts wants it?

    Args:
        kind: Data type of the field.
        texts: What its values are compared with.
        fits: Takes how a value compares with each of the texts: -1, 0 or 1.
    """
    keys = [_key(kind, text) for text in texts]
    limits = [key for key in keys if key is not None]
    if len(limits) != len(keys):
        return lambda _found: False
    return lambda found: bool(found) and fits(*(_compare(found[0], limit) for limit in limits))


def names_of(value: Any) -> tuple[str, ...]:
    """Return by which texts a lookup can be named: its name and its id, in lower case."""
    found = (value.get("name"), value.get("id")) if isinstance(value, dict) else (value,)
    return tuple(str(text).casefold() for text in found if text is not None)


def sort_key(value: Any) -> tuple[int, Any]:
    """Return by what values of any type are put in order: those that are nothing first (undocumented)."""
    if missing(value):
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


def _as_ordered(kind: DataType, value: Any) -> Ordered | None:
    if kind in MOMENTS:
        return as_moment(str(value))
    if isinstance(value, bool):
        return None
    return value if isinstance(value, (int, float)) else as_number(str(value))


def _compare(left: Key, right: Key) -> int:
    """Return -1, 0 or 1. A day and an instant compare by the day of the instant (undocumented)."""
    if isinstance(left, datetime) != isinstance(right, datetime):
        left, right = _day(left), _day(right)
    # Both are numbers or both are moments: `_as_ordered` saw to that.
    return (left > right) - (left < right)  # type: ignore[operator]


def _day(moment: Key) -> Key:
    return moment.date() if isinstance(moment, datetime) else moment
