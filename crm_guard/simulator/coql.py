"""Records by a query. ZOHO docs: COQL-Overview, COQL-Limitations; OAS: `coql`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .coql_grammar import parse
from .datatypes import (
    LOOKUPS,
    MOMENTS,
    NUMBERS,
    TEXTS,
    DataType,
    equals,
    is_value,
    orders,
    sort_key,
    texts_of,
)
from .messages import Reply, RequestError, answer, bad_request, bare, invalid_field, not_simulated, read_json
from .reads import by_id
from .selection import selected, value_at

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .conditions import Condition
    from .coql_grammar import Query
    from .messages import Json, Request
    from .records import Record
    from .visit import Visit

_LARGE_FROM = 4
_MOST, _MOST_BEFORE = 2000, 200
# The highest limit that costs one credit, and two; the rest costs three.
_STEPS = (200, 1000)
_ORDER: Mapping[str, Callable[[int], bool]] = {
    ">": lambda order: order > 0,
    ">=": lambda order: order >= 0,
    "<": lambda order: order < 0,
    "<=": lambda order: order <= 0,
}
_EQUAL = frozenset({"=", "!="})
_NULL = frozenset({"is null", "is not null"})
_IN = _EQUAL | _NULL | {"in", "not in"}
_LIKE = _IN | {"like", "not like"}
_ORDERED = _IN | _ORDER.keys() | {"between"}


def run_query(visit: Visit) -> Reply:
    """POST /coql: of all records of a module, approved and converted or not, as nothing documents a filter.

    The `id` comes with every record (OAS prints answers with and without), a column without a value as null.
    """
    query = _query(visit)
    visit.notes.credits = 1 + sum(query.limit > step for step in _STEPS)
    records = list(visit.store.living(query.module, visit.now))
    found = selected(visit, records, query.tree, check, matches)
    if query.columns[0].counts:
        rows, more = [_counts(visit, query, found)], False
    else:
        kept = _sorted(visit, query, found)[query.offset :]
        rows = [_row(visit, query, record) for record in kept[: query.limit]]
        more = len(kept) > query.limit
    if not rows:
        return Reply(status=204)
    return answer(200, {"data": rows, "info": {"count": len(rows), "more_records": more}})


def queried_module(request: Request) -> str:
    """Return the API name of the module that a query is about; empty where the query is none."""
    try:
        body = read_json(request.body)
        return parse(body["select_query"], _MOST).module
    except (RequestError, ValueError, TypeError, LookupError):
        return ""


def _query(visit: Visit) -> Query:
    """Return the query of the body.

    Raises:
        RequestError: It is missing, wrong, or beyond the simulator.
    """
    if "select_query" not in visit.body:
        details = {"api_name": "select_query"}
        raise RequestError(bare(400, "MANDATORY_NOT_FOUND", "mandatory key not found", details))
    text = visit.body["select_query"]
    if not isinstance(text, str):
        raise RequestError(invalid_field("select_query", "text"))
    if visit.body.get("include_meta") is not None:
        where = {"api_name": "include_meta", "json_path": "$.include_meta"}
        raise RequestError(bare(400, "INVALID_DATA", f"invalid data; {not_simulated('include_meta')}", where))
    return parse(text, _MOST if visit.route.version >= _LARGE_FROM else _MOST_BEFORE)


def _sorted(visit: Visit, query: Query, found: list[Record]) -> list[Record]:
    """Return records as `order by` wants them, else by their ids."""
    found = sorted(found, key=by_id)
    for name, down in reversed(query.order):
        if name == "id":
            found.sort(key=by_id, reverse=down)
        else:
            found.sort(key=lambda record, name=name: sort_key(value_at(visit, record, name)), reverse=down)  # type: ignore[misc]
    return found


def _row(visit: Visit, query: Query, record: Record) -> Json:
    return {**{column.key: value_at(visit, record, column.path) for column in query.columns}, "id": record.id}


def _counts(visit: Visit, query: Query, found: list[Record]) -> Json:
    """Return how many of the records have a value in each column."""
    paths = {column.key: column.path for column in query.columns}
    return {key: sum(value_at(visit, record, path) is not None for record in found) for key, path in paths.items()}


def allowed(kind: DataType) -> frozenset[str]:
    """Return the operators that fields of a data type take."""
    if kind in NUMBERS | MOMENTS:
        return _ORDERED
    if kind in TEXTS or kind in (DataType.PICKLIST, DataType.MULTISELECT):
        return _LIKE
    if kind in LOOKUPS:
        return _IN
    return _EQUAL if kind is DataType.BOOLEAN else frozenset()


def check(condition: Condition, kind: DataType) -> None:
    """Check that a condition fits the data type of its field.

    Raises:
        RequestError: The field does not take the operator, or not such a value.
    """
    name, operator = condition.field, condition.operator
    if not allowed(kind):
        raise RequestError(bad_request("INVALID_QUERY", "unsupported column", column_name=name))
    if operator not in allowed(kind):
        details = {"reason": "invalid operator found", "column_name": name, "operator": operator}
        raise RequestError(bad_request("INVALID_QUERY", "Invalid query formed", **details))
    if not all(is_value(kind, value) for value in condition.values):
        details = {"column_name": name, "clause": "where"}
        raise RequestError(bad_request("INVALID_QUERY", "Invalid query formed", **details))


def matches(condition: Condition, kind: DataType | None, value: Any) -> bool:
    """Return whether a value of type `kind` meets a condition.

    As in SQL, what has no value meets `is null` alone; and texts compare without case. Both are undocumented.
    """
    operator, values = condition.operator, condition.values
    missing = kind is None or value is None or value in ("", [])
    if operator in _NULL:
        return missing == (operator == "is null")
    if missing or kind is None:
        return False
    if operator in _ORDER or operator == "between":
        return _in_order(condition, kind, value)
    positive = operator.removeprefix("not ").replace("!=", "=")
    if positive == "like":
        met = any(_like(text, values[0].casefold()) for text in texts_of(value))
    else:
        met = any(equals(kind, value, text) for text in values)
    return met == (positive == operator)


def _like(text: str, pattern: str) -> bool:
    middle = pattern.removeprefix("%").removesuffix("%")
    starts, ends = not pattern.startswith("%"), not pattern.endswith("%")
    if starts and ends:
        return text == middle
    if starts:
        return text.startswith(middle)
    return text.endswith(middle) if ends else middle in text


def _in_order(condition: Condition, kind: DataType, value: Any) -> bool:
    """Return whether a value lies where a comparison wants it; the ends of `between` belong to it."""
    found = orders(kind, value, condition.values)
    if condition.operator == "between":
        return len(found) == 2 and found[0] >= 0 >= found[1]
    return bool(found) and _ORDER[condition.operator](found[0])
