"""Reads rows from JSON lines: one object per line, from API names of fields to values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from crm_guard.cli.sync.entry import Entry
from crm_guard.cli.sync.lines import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crm_guard.cli.sync.lines import Lines


class JsonRows:
    """Iterates over the rows of a file of JSON lines. Values are sent as they are; empty lines are skipped.

    Args:
        lines: The lines of the file.

    Attributes:
        columns: Empty: each line has its own names.

    Raises:
        InputError: A line is no JSON object.
    """

    columns: tuple[str, ...] = ()

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._decoder = msgspec.json.Decoder(dict[str, Any])

    def __iter__(self) -> Iterator[Entry]:
        for text in self._lines:
            if text.isspace():
                continue
            line = self._lines.number
            try:
                cells = self._decoder.decode(text)
            except msgspec.ValidationError as error:
                raise InputError(line, f"must be a JSON object: {error}") from None
            except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                raise InputError(line, f"is no JSON: {error}") from None
            yield Entry(line, cells)
