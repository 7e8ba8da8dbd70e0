"""Records by a query. ZOHO docs: COQL-Overview, COQL-Limitations; OAS: `coql`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .comparing import FIND_NO_VALUE, among, is_value, ordered, sort_key
from .coql_grammar import parse
from .datatypes import LOOKUPS, MOMENTS, NUMBERS, TEXTS, DataType, missing
from .messages import Reply, RequestError, answer, bad_request, bare, invalid_field, not_simulated, read_json
from .org import KNOWN, is_module
from .reads import by_id
from .selection import column_of, selected

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .comparing import Key, Test
    from .conditions import Condition
    from .coql_grammar import Query
    from .messages import Json, Request
    from .records import Record
    from .visit import Visit

_LARGE_FROM = 4
_MOST, _MOST_BEFORE = 2000, 200
# The highest limit that costs one credit, and two; the rest costs three.
_STEPS = (200, 1000)
# By how a value compares with what is given: -1, 0 or 1. The ends of `between` belong to it.
_ORDER: Mapping[str, Callable[..., bool]] = {
    "between": lambda low, high: low >= 0 >= high,
    ">": lambda order: order > 0,
    ">=": lambda order: order >= 0,
    "<": lambda order: order < 0,
    "<=": lambda order: order <= 0,
}
_EQUAL = frozenset({"=", "!="})
_NULL = frozenset({"is null", "is not null"})
_IN = _EQUAL | _NULL | {"in", "not in"}
_LIKE = _IN | {"like", "not like"}
_ORDERED = _IN | _ORDER.keys()


def run_query(visit: Visit) -> Reply:
    """POST /coql: of all records of a module, approved and converted or not, as nothing documents a filter.

    The `id` comes with every record (OAS prints answers with and without), a column without a value as null.
    """
    query = _query(visit)
    if not is_module(visit, query.module):
        raise RequestError(bad_request("INVALID_MODULE", f"the given module is not supported in api {KNOWN}"))
    visit.notes.credits = 1 + sum(query.limit > step for step in _STEPS)
    records = list(visit.store.living(query.module, visit.now))
    found = selected(visit, records, query.tree, check, test_of)
    if query.columns[0].counts:
        rows, more = [_counts(visit, query, found)], False
    else:
        kept = _sorted(visit, query, found)[query.offset :]
        rows = _rows(visit, query, kept[: query.limit])
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
            keys = column_of(visit, found, name).map(sort_key).values
            places = sorted(range(len(found)), key=keys.__getitem__, reverse=down)
            found = [found[place] for place in places]
    return found


def _rows(visit: Visit, query: Query, shown: list[Record]) -> list[Json]:
    rows: list[Json] = [{} for _ in shown]
    for column in query.columns:
        for row, value in zip(rows, column_of(visit, shown, column.path).values, strict=True):
            row[column.key] = value
    return [{**row, "id": record.id} for row, record in zip(rows, shown, strict=True)]


def _counts(visit: Visit, query: Query, found: list[Record]) -> Json:
    """Return how many of the records have a value in each column."""
    columns = {column.key: column_of(visit, found, column.path) for column in query.columns}
    return {key: sum(not missing(value) for value in column.values) for key, column in columns.items()}


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


def test_of(condition: Condition, kind: DataType | None) -> Test:
    """Return the test whether what a field of type `kind` has meets a condition.

    Texts compare without case (undocumented).
    """
    if condition.operator in _NULL:
        return lambda keys: (keys is None) == (condition.operator in FIND_NO_VALUE)
    test = None if kind is None else _test(condition, kind)
    return lambda keys: keys is not None and test is not None and test(keys)


def _test(condition: Condition, kind: DataType) -> Callable[[tuple[Key, ...]], bool]:
    operator, values = condition.operator, condition.values
    if operator in _ORDER:
        return ordered(kind, values, _ORDER[operator])
    positive = operator.removeprefix("not ").replace("!=", "=")
    test = _like(values[0].casefold()) if positive == "like" else among(kind, values)
    return test if positive == operator else lambda keys: not test(keys)


def _like(pattern: str) -> Callable[[tuple[Key, ...]], bool]:
    middle = pattern.removeprefix("%").removesuffix("%")
    starts, ends = not pattern.startswith("%"), not pattern.endswith("%")

    def fits(text: str) -> bool:
        if starts and ends:
            return text == middle
        if starts:
            return text.startswith(middle)
        return text.endswith(middle) if ends else middle in text

    return lambda keys: any(isinstance(key, str) and fits(key) for key in keys)
