"""The file of failures: each row that was not written for certain, as it was, and why. Itself a valid input."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import stat
from typing import TYPE_CHECKING, Any, Final, TextIO

from crm_guard.cli.plain import CommandError, harmless
from crm_guard.cli.sync.entry import UNCERTAIN
from crm_guard.cli.sync.source import Format

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
    part = _part_of(path)
    file = _made(path, part, source)
    writer = _Writer(file, source)
    try:
        yield writer
    finally:
        is_file = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        with contextlib.suppress(OSError):  # what could not be written was told
            file.close()
        if is_file:
            _finish(part, path, writer.whole)


def _finish(part: Path, path: Path, whole: int) -> None:
    """Give a file its name, cut back to its last whole row; remove it if there is none."""
    if not whole:
        part.unlink()
        return
    with contextlib.suppress(OSError):  # the summary tells that it is incomplete
        os.truncate(part, whole)
    part.replace(path)


class _Writer:
    """Writes failures, in the format of the input.

    Attributes:
        whole: How many bytes hold whole rows.
    """

    def __init__(self, file: TextIO, source: Source) -> None:
        self._file = file
        self._columns = (*(name for name in source.columns if name not in _OWN), *_OWN)
        self._csv = csv.writer(file, lineterminator="\n") if source.kind is Format.CSV else None
        self._is_new = True
        self.whole = 0

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
        self.whole = self._file.tell() if self._file.seekable() else 0


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


def _part_of(path: Path) -> Path:
    """Return where a file is written until it is whole: a run that is killed leaves that, under another name."""
    return path if path.exists() and not path.is_file() else path.with_name(f"{path.name}.part")


def _made(path: Path, part: Path, source: Source) -> TextIO:
    shown = harmless(str(path))
    try:
        found = path.stat() if path.exists() else None
        if found is not None and source.status is not None and os.path.samestat(found, source.status):
            message = f"--failed {shown} is the input itself; it must be another file"
            raise CommandError(message, _BAD_FILE)
        if found is not None and stat.S_ISREG(found.st_mode) and found.st_size:
            message = f"--failed {shown} exists, and may be what tells the failures of another run: move it away"
            raise CommandError(message, _BAD_FILE)
        if part is not path and part.exists():
            message = (
                f"{harmless(str(part))} exists: another run writes it, or was killed. It tells only some of the "
                "rows that were not written: look into CRM, then move it away"
            )
            raise CommandError(message, _BAD_FILE)
        return part.open("w" if part is path else "x", encoding="utf-8", newline="")
    except OSError as error:
        message = f"--failed {shown} cannot be written: {error.strerror or error}"
        raise CommandError(message, _BAD_FILE) from error
