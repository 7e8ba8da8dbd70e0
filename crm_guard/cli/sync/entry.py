"""One row of the input, in the two forms that a writer takes: as a mapping, or as a record id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX: Final = "_"
"""What the names of columns begin with that are about a row, and never sent."""
UNCERTAIN: Final = "_uncertain"


class Entry(dict[str, Any]):
    """The fields of a row that are sent.

    Args:
        line: The line on which the row begins; the first is 1.
        cells: The row: names to values. Those that begin with `_` are put aside.

    Attributes:
        line: As given.
        notes: What was put aside.
    """

    __slots__ = ("line", "notes")

    def __init__(self, line: int, cells: Mapping[str, Any]) -> None:
        super().__init__((name, value) for name, value in cells.items() if not name.startswith(PREFIX))
        self.line = line
        self.notes = {name: value for name, value in cells.items() if name.startswith(PREFIX)}

    @property
    def marked_uncertain(self) -> bool:
        """Whether an earlier run left it uncertain."""
        return str(self.notes.get(UNCERTAIN, "")).strip().lower() == "true"


class EntryId(str):
    """The record id of a row that is to be deleted."""

    __slots__ = ("entry",)
    entry: Entry

    @classmethod
    def of(cls, entry: Entry) -> EntryId:
        """Return the id of an entry."""
        record_id = cls(entry["id"])
        record_id.entry = entry
        return record_id


def entry_of(row: Entry | EntryId) -> Entry:
    """Return the entry of a row that was given to a writer."""
    return row.entry if isinstance(row, EntryId) else row
