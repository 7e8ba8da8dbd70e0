"""What kind of value a field holds. Pure functions.

The simulator knows no field but by its values and by its name: the data types are guesses from these. ZOHO docs:
field metadata.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


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
# Fields of the usual modules, whatever their texts look like.
_EMAILS = frozenset({"Email", "Secondary_Email"})
_PHONES = frozenset({"Phone", "Mobile", "Fax", "Home_Phone", "Other_Phone"})
_PLAIN_TEXTS = frozenset(
    {
        *("Last_Name", "First_Name", "Full_Name", "Company", "Designation", "Title", "Department", "Website"),
        *("Account_Name", "Deal_Name", "Product_Name", "Vendor_Name", "Campaign_Name", "Subject", "Name"),
        *("Note_Title", "Note_Content", "Street", "City", "State", "Zip_Code", "Country", "Twitter", "Skype_ID"),
    }
)
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
    if missing(value):
        return None
    if name in _NAMED:
        return _NAMED[name]
    if not isinstance(value, (dict, list)) and (usual := _of_usual_field(name)) is not None:
        return usual
    for kind, known in ((bool, DataType.BOOLEAN), (int, DataType.INTEGER), (float, DataType.DOUBLE)):
        if isinstance(value, kind):
            return known
    if isinstance(value, dict):
        return DataType.LOOKUP
    if isinstance(value, list):
        plain = all(isinstance(entry, str) for entry in value)
        return DataType.MULTISELECT if plain else DataType.SUBFORM
    return _text_type(name, str(value))


def missing(value: Any) -> bool:
    """Return whether a field holds nothing, the same for all that ask.

    That is null, an empty text or list, or what answers show as null: a number that is not finite.
    """
    return value is None or value in ("", []) or (isinstance(value, float) and not math.isfinite(value))


def _of_usual_field(name: str) -> DataType | None:
    """Return the data type of a field of the usual modules, unless it holds a lookup or a list."""
    sets = ((_PICKLISTS, DataType.PICKLIST), (_EMAILS, DataType.EMAIL), (_PHONES, DataType.PHONE))
    found = next((kind for names, kind in sets if name in names), None)
    return found or (DataType.TEXT if name in _PLAIN_TEXTS else None)


def _text_type(name: str, text: str) -> DataType:
    if (moment := as_moment(text)) is not None:
        return DataType.DATETIME if isinstance(moment, datetime) else DataType.DATE
    return DataType.EMAIL if _ADDRESS.fullmatch(text) else plain_type(name)


def plain_type(name: str) -> DataType:
    """Return the data type that the name of a field tells, where its values are texts of any kind."""
    if (kind := _NAMED.get(name) or _of_usual_field(name)) is not None:
        return kind
    if _EMAIL_NAME.search(name):
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


def texts_of(value: Any) -> tuple[str, ...]:
    """Return the texts in a value, in lower case: itself, those in a list, or the name of a lookup."""
    if isinstance(value, list):
        return tuple(entry.casefold() for entry in value if isinstance(entry, str))
    if isinstance(value, dict):
        return () if value.get("name") is None else (str(value["name"]).casefold(),)
    return () if value is None or isinstance(value, bool) else (str(value).casefold(),)


def common_type(name: str, values: Iterable[Any]) -> DataType | None:
    """Return the narrowest data type that fits all values of a field; `None` where none of them tells.

    Numbers of both kinds are a double, days beside instants are instants, and what else has nothing in common is
    text. One lookup or list makes the field one of these.
    """
    kinds = {kind for kind in (type_of(name, value) for value in values) if kind is not None}
    if len(kinds) <= 1:
        return next(iter(kinds), None)
    if kinds <= NUMBERS:
        return DataType.DOUBLE
    if kinds <= MOMENTS:
        return DataType.DATETIME
    structured = (DataType.SUBFORM, DataType.MULTISELECT, DataType.LOOKUP)
    return next((kind for kind in structured if kind in kinds), plain_type(name))
