"""Reads what is to be explained: a file, standard input, or a code in place of a file's name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from crm_guard.cli.explain.mentions import GUARDED_CODE, only_code
from crm_guard.cli.plain import CommandError, harmless

_USAGE_ERROR: Final = 2
_MOST_BYTES: Final = 16 * 1024 * 1024
_LONGEST_NAME: Final = 300
_HOW: Final = (
    "nothing to explain: pipe a response (`... | crm-guard explain`), name a FILE or a code "
    "(`crm-guard explain RECORD_LOCKED`), or pass - to paste one and end it with Ctrl-D"
)
_PASTE: Final = "crm-guard: reading standard input until Ctrl-D\n"


def read_source(source: str | None) -> str:
    """Return the text to explain.

    Without a source it is that of a pipe. A terminal is read only if asked for by `-`: one would wait without a
    word, and most terminals cut the lines of what is pasted at 4095 bytes.

    Args:
        source: Name of a file, `-` for standard input, or text: a code, or an answer in place of a name.

    Raises:
        CommandError: There is nothing, or it cannot be read, or it is not text.
    """
    if source is None and (sys.stdin is None or sys.stdin.isatty()):
        raise CommandError(_HOW, _USAGE_ERROR)
    if source is not None and source != "-" and not _is_file(source) and _is_text(source):
        return source
    if source == "-" and sys.stdin is not None and sys.stdin.isatty():
        sys.stderr.write(_PASTE)
    return read_text(source or "-")


def read_text(source: str) -> str:
    """Return the text of a file, or of standard input for `-`.

    Raises:
        CommandError: It cannot be read, is larger than 16 MiB, or is not text.
    """
    name = "standard input" if source == "-" else harmless(source[:_LONGEST_NAME])
    try:
        raw = _read_bytes(source)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "this is not the name of a file"
        message = f"{name} cannot be read: {reason}"
        raise CommandError(message, _USAGE_ERROR) from error
    if len(raw) > _MOST_BYTES:
        message = f"{name} is larger than {_MOST_BYTES >> 20} MiB: cut out the response"
        raise CommandError(message, _USAGE_ERROR)
    try:
        return _decode(raw)
    except UnicodeError as error:
        message = f"{name} is not UTF-8 text"
        raise CommandError(message, _USAGE_ERROR) from error


def _read_bytes(source: str) -> bytes:
    if source != "-":
        with Path(source).open("rb") as file:
            return file.read(_MOST_BYTES + 1)
    return sys.stdin.buffer.read(_MOST_BYTES + 1) if sys.stdin is not None else b""


def _decode(raw: bytes) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16")
    # After a head there may be an image: what the head says of it is enough.
    lenient = raw.lstrip().startswith((b"HTTP/", b"* ", b"> ", b"< "))
    return raw.decode("utf-8-sig", "replace" if lenient else "strict")


def _is_file(source: str) -> bool:
    try:
        return Path(source).exists()
    except (OSError, ValueError):  # too long, or with a character that no name has
        return False


def _is_text(source: str) -> bool:
    held = "{" in source or "\n" in source
    return held or only_code(source) is not None or GUARDED_CODE.search(source) is not None
