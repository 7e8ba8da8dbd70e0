"""Takes off what terminals, web pages and word processors put around or into a text. Pure."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Final

from crm_guard.cli.explain.literals import unescaped

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONTROL: Final = re.compile(r"\x1b(?:\[[0-?]{0,40}[ -/]{0,8}[@-~]|\][^\x07\x1b]{0,2000}(?:\x07|\x1b\\)|[@-Z\\-_])")
_ENTITY: Final = re.compile(r"&(?:quot|#34|#x22|apos|#39|#x27);")
_QUOTES: Final = str.maketrans(
    dict.fromkeys("\u201c\u201d\u201e\u201f\u2033", '"')
    | dict.fromkeys("\u2018\u2019\u201a\u201b\u2032", "'")
    | {"\xa0": " "}
)
_ZOHO_TOKEN: Final = re.compile(r"(?<![0-9a-zA-Z])1000\.[0-9a-f]++\.[0-9a-f]++", re.IGNORECASE)
_MARGIN: Final = re.compile(r"(?m)^(?:[\w.-]{1,80}[ \t]{0,40}\||>)(?:[ \t]|$)")


def without_control(text: str) -> str:
    """Return a text without the colours of a terminal and without byte order marks."""
    text = text.replace("\ufeff", "").replace("\x00", "")
    return _CONTROL.sub("", text) if "\x1b" in text else text


def without_tokens(text: str) -> str:
    """Return a text without the access and refresh tokens of Zoho: `1000.`, and two runs of hexadecimal digits."""
    return _ZOHO_TOKEN.sub("1000.***", text)


def undisguised(text: str) -> Iterator[str]:
    """Yield what a text may have been before, likeliest first; nothing if it shows no sign of a change."""
    if _has_margin(text):
        yield _MARGIN.sub("", text)
    if _ENTITY.search(text):
        yield html.unescape(text)
    if '\\"' in text:
        yield unescaped(text)
    if (straight := text.translate(_QUOTES)) != text:
        yield straight


def _has_margin(text: str) -> bool:
    """Return whether each line begins with the mark of a quotation, or with a container's name and a bar."""
    lines = [line for line in text.split("\n") if line.strip()]
    return len(lines) > 1 and all(_MARGIN.match(line) for line in lines)
