"""Searching and counting the records of a module. OAS: `module_search`, `record_count`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from . import criteria
from .datatypes import DataType, texts_of, type_of
from .messages import Reply, RequestError, answer, bare
from .reads import in_order, listed, page_of, paging, refuse_unserved
from .selection import selected, value_at

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .records import Record
    from .visit import Visit

MAX_FOUND = 2000
_MIN_WORD = 2
_MIN_PHONE = 3
_PHONE = re.compile(r"\+?[0-9\s\-().]+")
_COUNT_FROM = 2.1


def search_records(visit: Visit) -> Reply:
    """GET /{module}/search: by criteria, email, phone or word; of several, the first in this order counts.

    Whether records that are not approved are found is undocumented: taken like the list of records, where
    `approved=both` or an `approval_state` asks for them. CRM may find a new record only after a while; here it is
    found at once.
    """
    if _asked(visit) is None:
        missing = {"param_names": list(_SEARCHES)}
        raise RequestError(bare(400, "EXPECTED_PARAM_MISSING", "one of the expected parameter is missing", missing))
    refuse_unserved(visit)
    page, per_page = paging(visit)
    if page * per_page > MAX_FOUND:
        message = "maximum response iteration limit reached"
        raise RequestError(bare(400, "LIMIT_REACHED", message, {"limit": str(MAX_FOUND)}))
    return page_of(visit, in_order(visit, _found(visit)))


def count_records(visit: Visit) -> Reply:
    """GET /{module}/actions/count: of all records that the list shows, or of those that a search finds."""
    if visit.route.version < _COUNT_FROM:
        details = {"supported_version": f"v{_COUNT_FROM}"}
        raise RequestError(bare(400, "API_NOT_SUPPORTED", "api not supported in this version", details))
    if visit.request.param("cvid") and (other := _asked(visit)) is not None:
        raise RequestError(_ambiguous(other))
    refuse_unserved(visit)
    return answer(200, {"count": len(_found(visit))})


def _ambiguous(search: str) -> Reply:
    both = [{"param_name": "cvid"}, {"param_name": search}]
    message = "Please use either Cvid or Search Params. Combination of both the params is not allowed"
    return bare(400, "AMBIGUITY_DURING_PROCESSING", message, {"ambiguity_due_to": both})


def _asked(visit: Visit) -> str | None:
    """Return the parameter that tells what to search for, or `None`."""
    return next((name for name in _SEARCHES if visit.request.param(name)), None)


def _found(visit: Visit) -> list[Record]:
    """Return the records that the query asks for, all where it does not say."""
    records = listed(visit, visit.store.living(visit.route.module, visit.now))
    name = _asked(visit)
    if name is None:
        return records
    return _SEARCHES[name](visit, records, visit.request.param(name) or "")


def _by_criteria(visit: Visit, records: list[Record], text: str) -> list[Record]:
    return selected(visit, records, criteria.parse(text), criteria.check, criteria.test_of)


def _by_email(_visit: Visit, records: list[Record], text: str) -> list[Record]:
    """Return the records with an address that contains the text."""
    return [record for record in records if any(text.casefold() in found for found in _texts(record, _EMAILS))]


def _by_phone(_visit: Visit, records: list[Record], text: str) -> list[Record]:
    """Return the records with a phone number that contains the digits."""
    wanted = _digits(text)
    if len(text.strip()) < _MIN_PHONE or not wanted or not _PHONE.fullmatch(text.strip()):
        raise RequestError(bare(400, "INVALID_QUERY", "Invalid query formed", {"param_name": "phone"}))
    return [record for record in records if any(wanted in _digits(found) for found in _texts(record, _PHONES))]


def _by_word(visit: Visit, records: list[Record], text: str) -> list[Record]:
    """Return the records with a text that contains the word or phrase. How CRM finds words is undocumented."""
    wanted = text.strip().casefold()
    if len(wanted) < _MIN_WORD:
        message = "provide atleast 2 letters for search"
        raise RequestError(bare(400, "INVALID_DATA", message, {"param_name": "word"}))
    return [record for record in records if any(wanted in found for found in _words(visit, record))]


_SEARCHES: Mapping[str, Callable[[Visit, list[Record], str], list[Record]]] = {
    "criteria": _by_criteria,
    "email": _by_email,
    "phone": _by_phone,
    "word": _by_word,
}
_EMAILS = frozenset({DataType.EMAIL})
_PHONES = frozenset({DataType.PHONE})


def _texts(record: Record, kinds: frozenset[DataType]) -> list[str]:
    """Return the texts of a record's fields of some data types."""
    return [
        text for name, value in record.fields.items() if type_of(name, value) in kinds for text in texts_of(value)
    ]


def _words(visit: Visit, record: Record) -> list[str]:
    values: list[Any] = [value_at(visit, record, "Full_Name"), *record.fields.values()]
    return [text for value in values for text in texts_of(value)]


def _digits(text: str) -> str:
    return "".join(character for character in text if character.isdecimal())
