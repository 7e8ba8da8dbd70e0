"""COQL: `select Last_Name from Leads where Company = 'Zylker' limit 10`. Pure functions.

ZOHO docs (COQL-Overview, COQL-Limitations): clauses and limits. OAS (`coql`): the errors. What Zoho documents
beyond this (joins by `from`, subqueries, `group by`, aggregates other than COUNT, placeholders) is refused as "not
simulated". The texts about limits are undocumented.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .conditions import Condition
from .coql_tokens import END, Cursor, unserved
from .coql_where import Where
from .messages import RequestError, bad_request

if TYPE_CHECKING:
    from .conditions import Tree

DEFAULT_LIMIT = 200
MAX_COLUMNS = 50
MAX_ORDER = 10
_AGGREGATES = ("SUM", "MIN", "MAX", "AVG")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the answer.

    Attributes:
        path: API name of a field, with dots for the fields of a lookup's record.
        alias: Another name for it; empty for none.
        counts: It tells how many records have something there.
    """

    path: str
    alias: str = ""
    counts: bool = False

    @property
    def key(self) -> str:
        """Under which name the answer has it."""
        return self.alias or (f"COUNT({self.path})" if self.counts else self.path)


@dataclass(slots=True)
class Query:
    """What a query asks for.

    Attributes:
        columns: What to show of each record.
        module: API name of the module.
        tree: What has to hold for a record.
        order: Fields to sort by, each with whether the highest comes first.
        limit: How many records to show at most.
        offset: How many to leave out before.
    """

    columns: list[Column] = field(default_factory=list)
    module: str = ""
    tree: Tree = field(default_factory=lambda: Condition("id", "is not null"))
    order: list[tuple[str, bool]] = field(default_factory=list)
    limit: int = DEFAULT_LIMIT
    offset: int = 0


def parse(text: str, most: int) -> Query:
    """Return what a query asks for.

    Args:
        text: The query.
        most: Highest limit that it may have.

    Raises:
        RequestError: CRM refuses it, or the simulator cannot answer it.
    """
    cursor = Cursor(text)
    cursor.expect("select")
    query = Query(columns=_columns(cursor))
    cursor.expect("from")
    query.module = cursor.name()
    if cursor.next is END:
        raise RequestError(bad_request("SYNTAX_ERROR", "missing clause", clause="where"))
    if not cursor.take("where"):
        if cursor.next.kind == "name":
            raise RequestError(unserved("aliases and joins of modules"))
        cursor.fail()
    query.tree = Where(cursor).tree()
    if cursor.next.word in ("group", "having"):
        raise RequestError(unserved("group by"))
    if cursor.take("order"):
        query.order = _order(cursor)
    query.limit, query.offset = _window(cursor, most)
    if cursor.next is not END:
        cursor.fail()
    return query


def _columns(cursor: Cursor) -> list[Column]:
    if cursor.next.word == "distinct":
        raise RequestError(unserved("distinct"))
    columns = [_column(cursor)]
    while cursor.take(","):
        columns.append(_column(cursor))
        if len(columns) > MAX_COLUMNS:
            message = f"only {MAX_COLUMNS} columns can be selected"
            raise RequestError(bad_request("LIMIT_EXCEEDED", message, limit=MAX_COLUMNS))
    if len({column.counts for column in columns}) > 1:
        raise RequestError(unserved("COUNT beside other columns"))
    for position, column in enumerate(columns):
        _check_repeated(columns[:position], column)
    return columns


def _column(cursor: Cursor) -> Column:
    path, counts = cursor.name(), False
    if cursor.take("("):
        path, counts = _counted(cursor, path), True
    if not cursor.take("as"):
        return Column(path, counts=counts)
    if cursor.next.text in ("''", '""'):
        message = "alias name cannot be an empty string"
        raise RequestError(bad_request("INVALID_ALIAS", message, column_name=path, alias=""))
    return Column(path, cursor.name(), counts)


def _counted(cursor: Cursor, function: str) -> str:
    path = cursor.name()
    cursor.expect(")")
    if function.upper() in _AGGREGATES:
        raise RequestError(unserved(function.upper()))
    if function.upper() != "COUNT":
        details = {"reason": "unsupported aggregate function", "column": f"{function}({path})"}
        raise RequestError(bad_request("INVALID_DATA", "invalid data", **details))
    return path


def _check_repeated(before: list[Column], column: Column) -> None:
    """Check that neither the alias of a column nor the column was there before."""
    _check_alias(before, column)
    same = next((known for known in before if known.key == column.key), None)
    if same is not None and column.alias:
        details = {"referred_columns": [same.path, column.path], "alias": column.alias}
        message = "same alias cannot refer more than one column"
        raise RequestError(bad_request("DUPLICATE_ALIAS", message, **details))
    if column.path not in (known.path for known in before):
        return
    if column.counts:
        details = {"column_name": column.path, "aggregate": "COUNT"}
        raise RequestError(bad_request("DUPLICATE_DATA", "duplicate aggregate function", **details))
    raise RequestError(bad_request("DUPLICATE_DATA", "duplicate select column", column_name=column.path))


def _check_alias(before: list[Column], column: Column) -> None:
    """Check that no alias is the name of a column that has none."""
    for aliased, plain in [(column, known) for known in before] + [(known, column) for known in before]:
        if aliased.alias and not plain.alias and aliased.alias == plain.key:
            message = (
                "column name or property name given in select columns without alias name "
                "cannot be an alias name for other select columns"
            )
            details = {"column_name": aliased.path, "alias": aliased.alias}
            raise RequestError(bad_request("INVALID_QUERY", message, **details))


def _order(cursor: Cursor) -> list[tuple[str, bool]]:
    cursor.expect("by")
    order: list[tuple[str, bool]] = []
    while True:
        name = cursor.name()
        if name in (known for known, _ in order):
            raise RequestError(bad_request("DUPLICATE_DATA", "duplicate order by column", column_name=name))
        order.append((name, cursor.take("asc", "desc") == "desc"))
        if len(order) > MAX_ORDER:
            message = f"only {MAX_ORDER} columns can be given"
            raise RequestError(bad_request("LIMIT_EXCEEDED", message, limit=MAX_ORDER))
        if not cursor.take(","):
            return order


def _window(cursor: Cursor, most: int) -> tuple[int, int]:
    """Read `limit`, as `limit 10 offset 20` or `limit 20, 10`; returns limit and offset."""
    limit, offset = DEFAULT_LIMIT, 0
    if cursor.take("limit"):
        limit = _whole(cursor, "limit")
        if cursor.take(","):
            offset, limit = limit, _whole(cursor, "limit")
            if cursor.next.word == "offset":
                cursor.fail()
    if cursor.take("offset"):
        offset = _whole(cursor, "offset")
    if limit < 1:
        raise RequestError(bad_request("INVALID_DATA", "limit should be greater than 0"))
    if limit > most:
        message = f"limit should not be greater than {most}"
        raise RequestError(bad_request("LIMIT_EXCEEDED", message, limit=most))
    return limit, offset


def _whole(cursor: Cursor, name: str) -> int:
    text = cursor.next.text
    allowed = "-?[0-9]{1,9}" if name == "limit" else "[0-9]{1,9}"
    if not re.fullmatch(allowed, text):
        raise RequestError(bad_request("INVALID_QUERY", f"{name} given seems to be invalid", **{name: text}))
    return int(cursor.skip())
