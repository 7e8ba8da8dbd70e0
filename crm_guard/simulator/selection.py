"""Which records meet a tree of conditions."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .comparing import keys_of
from .conditions import conditions, held
from .datatypes import common_type
from .reads import value_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .comparing import Keys, Test
    from .conditions import Condition, Tree
    from .datatypes import DataType
    from .records import Record
    from .visit import Visit

T = TypeVar("T")
S = TypeVar("S")


class Column(Generic[T]):
    """What records have in a field, one value for each.

    Args:
        values: The values.
    """

    def __init__(self, values: Iterable[T]) -> None:
        self.values: Sequence[T] = list(values)

    def map(self, function: Callable[[T], S]) -> Column[S]:
        """Return what a function makes of each value, at the cost of once where records share a value.

        One long text that many lookups lead to costs no more than one record's.
        """
        made: dict[int, S] = {}
        for value in self.values:
            if id(value) not in made:
                made[id(value)] = function(value)
        return Column(made[id(value)] for value in self.values)


def selected(
    visit: Visit,
    records: Iterable[Record],
    tree: Tree,
    check: Callable[[Condition, DataType], None],
    test_of: Callable[[Condition, DataType | None], Test],
) -> list[Record]:
    """Return those of `records` for which `tree` holds.

    A field's data type is that of its values in the records. One that has none anywhere may still be a field of the
    module: it is taken for empty, where CRM would refuse an unknown name.

    Args:
        visit: The call.
        records: Records of one module.
        tree: What has to hold.
        check: Raises what tells that a condition does not fit the data type of its field.
        test_of: Makes the test whether a field of a type meets a condition.
    """
    known = list(records)
    kinds: dict[str, DataType | None] = {}
    keys: dict[str, Column[Keys]] = {}
    for name in dict.fromkeys(condition.field for condition in conditions(tree)):
        column = column_of(visit, known, name)
        kinds[name] = common_type(name.rpartition(".")[2], column.values)
        keys[name] = column.map(partial(keys_of, kinds[name]))
    for condition in conditions(tree):
        if (kind := kinds[condition.field]) is not None:
            check(condition, kind)

    def test(condition: Condition) -> Sequence[bool]:
        return keys[condition.field].map(test_of(condition, kinds[condition.field])).values

    return [record for record, fits in zip(known, held(tree, test), strict=True) if fits]


def column_of(visit: Visit, records: Iterable[Record], path: str) -> Column[Any]:
    """Return what records show in a field; with dots, what the records of a lookup show."""
    linked: dict[tuple[str, str], Any] = {}
    return Column(_value(visit, record, path, linked) for record in records)


def value_at(visit: Visit, record: Record, path: str) -> Any:
    """Return what one record shows in a field; with dots, what the record of a lookup shows."""
    return _value(visit, record, path, {})


def _value(visit: Visit, record: Record, path: str, known: dict[tuple[str, str], Any]) -> Any:
    """Return the value of a path; `known` holds what was read of linked records before."""
    name, _, rest = path.partition(".")
    value = value_of(visit, record, name)
    if not rest:
        return value
    if not isinstance(value, dict):
        return None
    linked = visit.store.records.get(str(value.get("id")))
    if linked is None or linked.deleted:
        return None if "." in rest else value.get(rest)
    key = (linked.id, rest)
    if key not in known:
        known[key] = _value(visit, visit.store.get(linked.id, visit.now), rest, known)
    return known[key]
