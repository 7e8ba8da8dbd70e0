"""The input of a sync: a file or standard input, its format, and its rows, each checked before it is given."""

from __future__ import annotations

import contextlib
import enum
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from crm_guard.cli.plain import CommandError, harmless
from crm_guard.cli.sync.csv_rows import CsvRows
from crm_guard.cli.sync.json_rows import JsonRows
from crm_guard.cli.sync.lines import InputError, Lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from crm_guard.cli.sync.entry import Entry

STDIN: Final = "-"
_BAD_INPUT: Final = 2


class Format(enum.StrEnum):
    """How rows are written in a file."""

    CSV = "csv"
    JSONL = "jsonl"


class Empty(enum.StrEnum):
    """What becomes of an empty cell of a CSV file."""

    OMIT = "omit"
    NULL = "null"


_ENDINGS: Final = {".csv": Format.CSV, ".jsonl": Format.JSONL, ".ndjson": Format.JSONL}


class Source:
    """An open input. Used by one thread.

    Args:
        file: The input, binary.
        name: What to call it.
        kind: Its format.
        nulls: Send empty cells as null.
        needs_id: Whether each row must have a record id.
        waits: Called with True before a read that may take long, and with False after it.

    Attributes:
        name: As given.
        kind: As given.
        status: What the system knows of the file, None if it is none.
    """

    def __init__(
        self,
        file: BinaryIO,
        name: str,
        kind: Format,
        *,
        nulls: bool,
        needs_id: bool,
        waits: Callable[[bool], object],
    ) -> None:
        self._file, self.name, self.kind = file, name, kind
        self._nulls, self._needs_id, self._waits = nulls, needs_id, waits
        self.status = _status(file)
        self._open()

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, where these are the same for all rows."""
        return self._rows.columns

    @property
    def line(self) -> int:
        """The line that was read most recently; the first is 1."""
        return self._lines.number

    @property
    def is_file(self) -> bool:
        """Whether it can be read more than once, and without waiting."""
        return self.status is not None and stat.S_ISREG(self.status.st_mode) and self._file.seekable()

    def check(self, counts: Callable[[Entry], bool]) -> int:
        """Read a file to its end, go back, and return of how many rows `counts` is true.

        Raises:
            InputError: A row is bad.
        """
        count = sum(map(counts, self.entries()))
        self._file.seek(self._start)
        self._open()
        return count

    def entries(self) -> Iterator[Entry]:
        """Yield the rows, from where the latest iteration stopped.

        Raises:
            InputError: A row is bad.
        """
        for entry in self._rows:
            if self._needs_id:
                _check_id(entry)
            yield entry

    def _open(self) -> None:
        self._start = self._file.tell() if self.is_file else 0
        self._lines = Lines(self._file, _ignored if self.is_file else self._waits)
        if self.kind is Format.CSV:
            self._rows: CsvRows | JsonRows = CsvRows(self._lines, nulls=self._nulls)
            if self._needs_id and "id" not in self._rows.columns:
                raise InputError(1, "there is no column 'id', which names the record of each row")
        else:
            self._rows = JsonRows(self._lines)


@contextlib.contextmanager
def opened(
    name: str, kind: Format | None, *, nulls: bool, needs_id: bool, waits: Callable[[bool], object]
) -> Iterator[Source]:
    """Open the input.

    Args:
        name: Its path, or `-` for standard input.
        kind: Its format, None for that of its name.
        nulls: As for `Source`.
        needs_id: As for `Source`.
        waits: As for `Source`.

    Raises:
        CommandError: It cannot be opened, its format is not known, or its header is bad.
    """
    found = kind or _ENDINGS.get(Path(name).suffix.lower())
    if found is None:
        message = f"{harmless(name)}: its name tells no format (.csv, .jsonl, .ndjson); give --format"
        message = "standard input needs --format" if name == STDIN else message
        raise CommandError(message, _BAD_INPUT)
    called = "standard input" if name == STDIN else harmless(name)
    if name == STDIN and sys.stdin is None:
        message = "standard input cannot be read: it is closed"
        raise CommandError(message, _BAD_INPUT)
    with contextlib.ExitStack() as stack:
        try:
            file = sys.stdin.buffer if name == STDIN else stack.enter_context(Path(name).open("rb"))
            source = Source(file, called, found, nulls=nulls, needs_id=needs_id, waits=waits)
        except (OSError, ValueError) as error:
            message = f"{called} cannot be read: {getattr(error, 'strerror', None) or error}"
            raise CommandError(message, _BAD_INPUT) from error
        except InputError as error:
            raise bad(called, error) from None
        yield source


def bad(name: str, error: InputError) -> CommandError:
    """Return the error of the command for a bad input."""
    return CommandError(f"{name}, {harmless(str(error))}", _BAD_INPUT)


def _check_id(entry: Entry) -> None:
    record_id = entry.get("id")
    if isinstance(record_id, int) and not isinstance(record_id, bool):
        record_id = entry["id"] = str(record_id)
    if record_id in (None, ""):
        raise InputError(entry.line, "has no 'id', which names its record")
    if not (isinstance(record_id, str) and record_id.isascii() and record_id.isalnum()):
        shown = repr(record_id)[:40]
        rounded = ": was it rounded by a spreadsheet?" if "E+" in shown or "." in shown else ""
        raise InputError(entry.line, f"its id {harmless(shown)} is no record id{rounded}")


def _ignored(waits: bool) -> None:
    """No-op."""


def _status(file: BinaryIO) -> os.stat_result | None:
    try:
        return os.fstat(file.fileno())
    except (OSError, ValueError):
        return None
