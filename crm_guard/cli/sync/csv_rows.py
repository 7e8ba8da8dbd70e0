"""Reads rows from CSV: a header with the API names of fields, and one row per record."""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING, Final

from crm_guard.cli.plain import harmless
from crm_guard.cli.sync.entry import Entry
from crm_guard.cli.sync.lines import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from crm_guard.cli.sync.lines import Lines

_API_NAME: Final = re.compile(r"[\w$.]+")
_SEPARATORS: Final = {";": "semicolons", "\t": "tabs", "|": "bars"}


class CsvRows:
    """Iterates over the rows of a CSV file.

    Every value is a text, without any change: CRM converts numbers, dates and switches by the type of the field.
    An empty cell is left out, so the field stays as it is; or it is sent as null, which empties the field. A row
    without any value is skipped.

    Args:
        lines: The lines of the file.
        nulls: Send empty cells as null.

    Attributes:
        columns: The header.

    Raises:
        InputError: The header or a row is bad.
    """

    def __init__(self, lines: Lines, *, nulls: bool) -> None:
        self._lines, self._nulls = lines, nulls
        self._reader = csv.reader(lines, strict=True)
        self._line = 1
        self.columns: tuple[str, ...] = tuple(name.strip() for name in self._next() or ())
        _check_header(self.columns, self._line)

    def __iter__(self) -> Iterator[Entry]:
        while (cells := self._next()) is not None:
            if not any(cells):
                continue
            if len(cells) != len(self.columns):
                raise InputError(self._line, f"has {_cells(len(cells))}, and the header has {len(self.columns)}")
            values = zip(self.columns, cells, strict=True)
            yield Entry(self._line, {name: cell or None for name, cell in values if cell or self._nulls})

    def _next(self) -> list[str] | None:
        """Return the next row; None at the end."""
        self._line = self._lines.number + 1
        try:
            return next(self._reader, None)
        except csv.Error as error:
            raise InputError(self._line, _explained(str(error))) from None


def _check_header(columns: Sequence[str], line: int) -> None:
    if not any(columns):
        raise InputError(line, "there is no header: the first line must have the API names of the fields")
    if len(columns) == 1:
        for sign, name in _SEPARATORS.items():
            if sign in columns[0]:
                raise InputError(line, f"the columns are separated by {name}; they must be by commas")
    for place, name in enumerate(columns):
        if not name:
            raise InputError(line, f"column {place + 1} has no name")
        if not _API_NAME.fullmatch(name):
            raise InputError(line, f"column {place + 1}, {harmless(name)!r:.60}, is no API name of a field")
        if name in columns[:place]:
            raise InputError(line, f"column {place + 1}, {name!r}, is there twice")


def _cells(count: int) -> str:
    return f"{count} cell{'s' if count != 1 else ''}"


def _explained(error: str) -> str:
    if "field limit" in error:
        return f"a cell has more than {csv.field_size_limit():,} characters: is a quotation mark missing?"
    if "unexpected end" in error:
        return "the file ends within a quoted cell: is a quotation mark missing?"
    if "new-line" in error:
        return "a bare carriage return is in the line; lines must end with a line feed"
    return f"is no CSV: {error}"
