"""Finds what belongs to a code that a text names: its brackets, its indented block, or its line. Pure.

A record or a cause that stands outside belongs to something else. Inside, too, one is named only where no other
one, and no other code, is there to be meant.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from crm_guard._base.codes import GUARDED, IMAGE_CHECK, RECORD_LOCKING, UNAPPROVED
from crm_guard.remediation import ApprovalCase

_NEAR: Final = 1200
"""Characters on either side of a code in which the ends of its unit are looked for."""
_BRACKET: Final = re.compile(r"[\[\]{}]")
QUOTED_ID: Final = re.compile(
    r"(?<![\w$])(?:record_)?id[\"']?\s{0,3}(?:[:=]|=>)\s{0,3}[\"']?([0-9]{1,25})\b", re.IGNORECASE
)
# What locks a record has an underscore; `update` or `insert` is what was asked for.
QUOTED_ACTION: Final = re.compile(
    r"(?<![\w$])action[\"']?\s{0,3}(?:[:=]|=>)\s{0,3}[\"']?([A-Za-z0-9]{1,32}+_\w{1,64}+)", re.IGNORECASE
)
_KNOWN_ACTIONS: Final = frozenset({IMAGE_CHECK, RECORD_LOCKING})
_KNOWN_CASES: Final = frozenset(case.value for case in ApprovalCase)
_OTHER: Final = re.compile(
    rf"(?i:(?<![\w$])code[\"']?\s{{0,3}}(?:[:=]|=>))|(?<!\w)(?:{'|'.join(sorted(GUARDED))})(?!\w)"
    rf"|(?i:\b(?:ok|success(?:ful|fully)?|updated|written)\b(?![\"']?\s{{0,3}}[:=]))"
)
_OWN_KEY: Final = re.compile(r"(?i)(?<![\w$])code[\"']?\s{0,3}(?:[:=]|=>)\s{0,3}[\"'\[]{0,2}\Z")
_ASIDE: Final = re.compile(r"[\"'\])]{0,2} {0,2}\((\w{1,64})\)")
# Between a code and what belongs to it on a line: nothing but names with values.
_PAIRS: Final = re.compile(
    r"(?:[\s,|:()\[\]{}\"'-]|[\w.$]{1,64}+[\"']?(?:=>|[=:])\s?(?:\"[^\"\n]{0,200}\"|'[^'\n]{0,200}'|[\w.:/$+-]{0,200}))*+"
)
_CODE_LINE: Final = re.compile(
    r"(?P<margin>[ \t]*+(?P<dash>- +)?)[\"']?[Cc]ode[\"']?\s*+[:=]\s*+[\"']?[A-Z_]+[\"']?,?\s*+"
)
_SDK_DETAILS: Final = re.compile(r"\n[ \t]*Details[ \t]*:?[ \t]*\r?(?=\n)")
_SDK_NEXT: Final = re.compile(r"\n[ \t]*(?:Status|Code|Message)\b")


@dataclass(frozen=True, slots=True)
class Belongings:
    """The record of a code and the cause, as far as the text gives them without doubt."""

    record: str | None = None
    cause: str | None = None


def belongings(text: str, start: int, end: int) -> Belongings:
    """Return what belongs to the code that stands at a place in a text."""
    aside = _ASIDE.match(text, end)
    known = _KNOWN_CASES if text[start:end] in UNAPPROVED else _KNOWN_ACTIONS
    cause = aside[1] if aside and aside[1] in known else None
    end = aside.end() if aside and cause else end
    lead = _OWN_KEY.search(text, max(0, start - 20), start)
    begin = lead.start() if lead else start
    first, last, flat = _unit(text, start, end)
    if _OTHER.search(text, first, begin) or _OTHER.search(text, end, last):
        return Belongings(cause=cause)
    actions = _only(QUOTED_ACTION, text, (first, last), (begin, end), flat=flat)
    if actions and flat and actions not in _KNOWN_ACTIONS:
        actions = None  # of a log line it may be the name of a job
    return Belongings(_only(QUOTED_ID, text, (first, last), (begin, end), flat=flat), cause or actions)


def _only(
    pattern: re.Pattern[str], text: str, unit: tuple[int, int], code: tuple[int, int], *, flat: bool
) -> str | None:
    """Return the value that a pattern finds in a unit, None if there are several."""
    found = list(pattern.finditer(text, *unit))
    if len({one[1] for one in found}) != 1:
        return None
    one = found[0]
    between = (one.end(), code[0]) if one.end() <= code[0] else (code[1], one.start())
    if flat and not _PAIRS.fullmatch(text, *between):
        return None
    return one[1]


def _unit(text: str, start: int, end: int) -> tuple[int, int, bool]:
    """Return where the unit of a code begins and ends, and whether it is no more than a line."""
    line = text.rfind("\n", 0, start) + 1, _end_of_line(text, end)
    opening, closing = _opening(text, start), _closing(text, end)
    if opening is not None and closing is not None:
        alone = not text[opening + 1 : start].strip("\"' ") and not text[end:closing].strip("\"' ")
        if not alone:
            return opening, closing, False
        opening, closing = _opening(text, opening), _closing(text, closing + 1)
        if opening is not None and closing is not None:
            return opening, closing, False
    own = _CODE_LINE.fullmatch(text, *line)
    if own:
        return *_block(text, line, own), False
    first = max(line[0], start - _NEAR, -1 if opening is None else opening)
    return first, min(line[1], end + _NEAR, len(text) if closing is None else closing), True


def _opening(text: str, at: int) -> int | None:
    """Return the place of the bracket that is open at a place."""
    depth = 0
    for found in reversed(list(_BRACKET.finditer(text, max(0, at - _NEAR), at))):
        depth += 1 if found[0] in "]}" else -1
        if depth < 0:
            return found.start()
    return None


def _closing(text: str, at: int) -> int | None:
    """Return the place of the bracket that closes what is open at a place."""
    depth = 0
    for found in _BRACKET.finditer(text, at, at + _NEAR):
        depth += 1 if found[0] in "[{" else -1
        if depth < 0:
            return found.start()
    return None


def _block(text: str, line: tuple[int, int], own: re.Match[str]) -> tuple[int, int]:
    """Return the lines around a code's own that are indented as it is, or deeper (YAML, what programs print)."""
    details = _SDK_DETAILS.match(text, line[1])
    if details:  # of Zoho's SDK, whose samples print one item right after the other
        following = _SDK_NEXT.search(text, details.end(), details.end() + _NEAR)
        return line[0], following.start() if following else min(len(text), details.end() + _NEAR)
    column, first, last = len(own["margin"]), line[0], line[1]
    while not own["dash"] and first > max(0, line[0] - _NEAR):
        begin = text.rfind("\n", 0, first - 1) + 1
        item = _indent(text[begin : first - 1])
        if item is None or item[0] < column:
            break
        first = begin
        if item[1] and item[0] == column:
            break
    while last < min(len(text), line[1] + _NEAR):
        stop = _end_of_line(text, last + 1)
        item = _indent(text[last + 1 : stop])
        if item is None or item[0] < column or (item[1] and item[0] == column):
            break
        last = stop
    return first, last


def _indent(line: str) -> tuple[int, bool] | None:
    """Return the column of a line's first word, and whether a dash is before it; None if it is empty."""
    bare = line.lstrip(" \t")
    if not bare.strip():
        return None
    dashed = bare.startswith("- ")
    word = bare[1:].lstrip(" ") if dashed else bare
    return len(line) - len(word), dashed


def _end_of_line(text: str, at: int) -> int:
    found = text.find("\n", at)
    return len(text) if found < 0 else found
