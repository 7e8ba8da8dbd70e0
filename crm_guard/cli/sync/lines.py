"""The lines of the input: decoded one after the other, and numbered."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST: Final = 16 * 1024 * 1024
"""Bytes of a line at most: what has no line ends is no file of rows."""
_BOM: Final = "\ufeff"
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")


class InputError(Exception):
    """The input is bad: where, and why."""

    def __init__(self, line: int, cause: str) -> None:
        super().__init__(f"line {line}: {cause}")


class Lines:
    """Iterates over the lines of a binary file, as text.

    Args:
        file: The file.
        waits: Called with True before each read, and with False after it.

    Attributes:
        number: Of the most recent line; the first is 1.

    Raises:
        InputError: A line is no UTF-8, or too long.
    """

    def __init__(self, file: BinaryIO, waits: Callable[[bool], object]) -> None:
        self._file, self._waits = file, waits
        self.number = 0

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        raw = self._read()
        if not raw:
            raise StopIteration
        self.number += 1
        if len(raw) > _LONGEST:
            raise InputError(self.number, f"is longer than {_LONGEST // 1024**2} MiB")
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(self.number, _undecodable(raw, error, self.number)) from None
        return text.removeprefix(_BOM) if self.number == 1 else text

    def _read(self) -> bytes:
        try:
            self._waits(True)
            return self._file.readline(_LONGEST + 1)
        except OSError as error:
            raise InputError(self.number + 1, f"cannot be read: {error.strerror or error}") from error
        finally:
            self._waits(False)


def _undecodable(raw: bytes, error: UnicodeDecodeError, number: int) -> str:
    if number == 1 and raw.startswith(_UTF_16):
        return "is UTF-16; save the file as UTF-8"
    return f"is no UTF-8: byte {error.start + 1} of the line is 0x{raw[error.start]:02x}"
