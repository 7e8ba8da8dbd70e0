"""Which records meet a tree of conditions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .conditions import conditions, holds
from .datatypes import common_type
from .reads import value_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .conditions import Condition, Tree
    from .datatypes import DataType
    from .records import Record
    from .visit import Visit


def selected(
    visit: Visit,
    records: Iterable[Record],
    tree: Tree,
    check: Callable[[Condition, DataType], None],
    matches: Callable[[Condition, DataType | None, Any], bool],
) -> list[Record]:
    """Return those of `records` for which `tree` holds.

    A field's data type is that of its values in the records. One that has none anywhere may still be a field of the
    module: it is taken for empty, where CRM would refuse an unknown name.

    Args:
        visit: The call.
        records: Records of one module.
        tree: What has to hold.
        check: Raises what tells that a condition does not fit the data type of its field.
        matches: Whether a value of a type meets a condition.
    """
    known = list(records)
    kinds = {condition.field: _type(visit, known, condition.field) for condition in conditions(tree)}
    for condition in conditions(tree):
        if (kind := kinds[condition.field]) is not None:
            check(condition, kind)
    return [record for record in known if holds(tree, _test(visit, record, kinds, matches))]


def value_at(visit: Visit, record: Record, path: str) -> Any:
    """Return what a record shows in a field; with dots, what the record of a lookup shows."""
    name, _, rest = path.partition(".")
    value = value_of(visit, record, name)
    if not rest:
        return value
    if not isinstance(value, dict):
        return None
    linked = visit.store.records.get(str(value.get("id")))
    if linked is None or linked.deleted:
        return None if "." in rest else value.get(rest)
    return value_at(visit, visit.store.get(linked.id, visit.now), rest)


def _type(visit: Visit, records: Sequence[Record], path: str) -> DataType | None:
    values = (value_at(visit, record, path) for record in records)
    return common_type(path.rpartition(".")[2], values)


def _test(
    visit: Visit,
    record: Record,
    kinds: dict[str, DataType | None],
    matches: Callable[[Condition, DataType | None, Any], bool],
) -> Callable[[Condition], bool]:
    return lambda condition: matches(condition, kinds[condition.field], value_at(visit, record, condition.field))
