"""Terminal output of the commands: consoles, symbols, JSON."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TextIO, cast

from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Mapping


class Signs(NamedTuple):
    """The symbols that start a line."""

    good: str
    bad: str
    waiting: str
    sending: str
    queued: str
    more: str


_UNICODE: Final = Signs("✓", "✗", "◔", "→", "·", "…")
_BLANKS: Final = re.compile(r"(?<! ) +$", re.MULTILINE)  # linear: an inner run of blanks is scanned once
_ASCII: Final = Signs("+", "x", "~", ">", ".", "...")


class TrailingBlankFilter:
    """A stream that drops trailing blanks, with which tables pad their lines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write `text` without trailing blanks."""
        return self._stream.write(_BLANKS.sub("", text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def make_console() -> Console:
    """Return a console on standard output: without control codes unless that is a terminal.

    The environment variable `NO_COLOR` keeps colours and other styles from a terminal, and `TERM=dumb` all control
    codes.
    """
    if sys.stdout.isatty():
        colors: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
        return Console(color_system=colors, highlight=False, markup=False, emoji=False)
    plain = cast("TextIO", TrailingBlankFilter(sys.stdout))
    return Console(
        file=plain, force_terminal=False, force_interactive=False, highlight=False, markup=False, emoji=False
    )


def signs(console: Console) -> Signs:
    """Return symbols that the console's encoding supports."""
    return _ASCII if console.options.ascii_only else _UNICODE


def write_json(document: Mapping[str, Any]) -> None:
    """Write one JSON document to standard output."""
    sys.stdout.write(json.dumps(document, indent=2) + "\n")
