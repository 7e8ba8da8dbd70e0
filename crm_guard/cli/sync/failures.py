"""The file of failures: each row that was not written for certain, as it was, and why. Itself a valid input."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import stat
from typing import TYPE_CHECKING, Any, Final, TextIO

from crm_guard.cli.sync.entry import UNCERTAIN
from crm_guard.cli.sync.source import Format
from crm_guard.cli.terminal import CommandError, harmless

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from crm_guard.cli.sync.source import Source
    from crm_guard.cli.sync.tally import Failure

_OWN: Final = ("_line", "_state", "_code", "_case", "_message", "_hint", UNCERTAIN)
_BAD_FILE: Final = 2


def write_nothing(failure: Failure) -> None:
    """Write no failure: there is no file."""


@contextlib.contextmanager
def failures_file(path: Path | None, source: Source) -> Iterator[Callable[[Failure], None]]:
    """Yield a function that writes a failure to a new file, at once. A file that stays empty is removed.

    Args:
        path: Of the file; None for no file.
        source: The input, which gives format and columns.

    Raises:
        CommandError: The file cannot be made, has something in it, or is the input.
    """
    if path is None:
        yield write_nothing
        return
    file = _made(path, source)
    try:
        yield _Writer(file, source)
    finally:
        is_file = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        with contextlib.suppress(OSError):  # what could not be written was told
            file.close()
        if is_file and not path.stat().st_size:
            path.unlink()


class _Writer:
    """Writes failures, in the format of the input."""

    def __init__(self, file: TextIO, source: Source) -> None:
        self._file = file
        self._columns = (*(name for name in source.columns if name not in _OWN), *_OWN)
        self._csv = csv.writer(file, lineterminator="\n") if source.kind is Format.CSV else None
        self._is_new = True

    def __call__(self, failure: Failure) -> None:
        """Write a failure, and flush it."""
        cells = {**failure.entry.notes, **failure.entry, **_about(failure)}
        if self._csv is None:
            self._file.write(json.dumps(cells, ensure_ascii=False) + "\n")
        else:
            if self._is_new:
                self._csv.writerow(self._columns)
            self._csv.writerow(_cell(cells.get(name)) for name in self._columns)
        self._is_new = False
        self._file.flush()


def _about(failure: Failure) -> dict[str, Any]:
    values = (
        failure.entry.line,
        failure.state.value,
        failure.code,
        failure.case,
        harmless(failure.message),
        harmless(failure.hint),
        failure.uncertain,
    )
    return dict(zip(_OWN, values, strict=True))


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def _made(path: Path, source: Source) -> TextIO:
    shown = harmless(str(path))
    try:
        found = path.stat() if path.exists() else None
        if found is not None and source.status is not None and os.path.samestat(found, source.status):
            message = f"--failed {shown} is the input itself; it must be another file"
            raise CommandError(message, _BAD_FILE)
        if found is not None and stat.S_ISREG(found.st_mode) and found.st_size:
            message = f"--failed {shown} exists, and may be what tells the failures of another run: move it away"
            raise CommandError(message, _BAD_FILE)
        return path.open("x" if found is None else "w", encoding="utf-8", newline="")
    except OSError as error:
        message = f"--failed {shown} cannot be written: {error.strerror or error}"
        raise CommandError(message, _BAD_FILE) from error
