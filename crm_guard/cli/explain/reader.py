"""Finds the answers of CRM in a pasted text, whatever it was pasted from. Pure.

The text is split at HTTP heads; in what stands between them, each value in the syntax of JSON or Python is read and
unwrapped until it is an answer of CRM. What no value accounts for is searched for refusals told in words.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from crm_guard.cli.explain.disguises import undisguised, without_control
from crm_guard.cli.explain.facts import facts_in
from crm_guard.cli.explain.heads import turns
from crm_guard.cli.explain.literals import STRING, Literal, string_value, unescaped
from crm_guard.cli.explain.mentions import (
    GUARDED_CODE,
    SDK_FORM,
    bare,
    failures_in,
    mentioned_in,
    only_code,
    sdk_text,
    told_in,
)
from crm_guard.cli.explain.pasted import Facts, Pasted
from crm_guard.cli.explain.shapes import body_of
from crm_guard.cli.explain.unwrapping import Wrapping, unwrap, worth_telling
from crm_guard.cli.explain.values import Budget, close

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crm_guard.cli.explain.heads import Turn

_SHORTEST: Final = len('{"code":"A"}')
_SHORTEST_VALUE: Final = len('{"org":[]}')
_IN_A_LINE: Final = " in a line of text"
# What may begin a value: an object with a key, a list of more than numbers, a quoted text that holds one of them.
_START: Final = re.compile(
    r"""\{(?=\s*+(?:\}|[\w$]{1,80}+\s*+:|[bu]?(?:"[^"\\]{0,200}+"|'[^'\\]{0,200}+')\s*+(?::|=>)))"""
    r"""|\[(?=\s*+[\[{("'bu])"""
    r"""|(?<![\\\w])[bBuU]?(["'])(?=[\s\\"']{0,20}[{\[](?!\1))"""
)
_BLANK: Final = re.compile(r"\s*+")
_BEGINS: Final = re.compile(r"\s*+[{\[]")


def read_paste(text: str, *, trusted: bool = False) -> list[Pasted]:
    """Return the answers in a text, in its order.

    Args:
        text: What was pasted.
        trusted: Whether any JSON object is an answer, as its call is known.
    """
    text = without_control(text)
    code = only_code(text)
    if code:
        return [bare(code, Facts(), form=f"the code {code} alone")]
    wrapping = Wrapping(budget=Budget(text), read=_read_text)
    found = _read_text(text, wrapping)
    return found or (_any_object(text, wrapping) if trusted else [])


def _any_object(text: str, wrapping: Wrapping) -> list[Pasted]:
    """Return the first JSON object in a text as an answer whose form is unknown, unless it names a guarded code."""
    at = text.find("{")
    literal = wrapping.budget.value_at(text, at)[0] if at >= 0 else None
    if literal is None or literal.cut or GUARDED_CODE.search(text):
        return []
    return [Pasted(body=body_of(literal.value), form="JSON that is none of CRM's known answers")]


def _read_text(text: str, wrapping: Wrapping) -> list[Pasted]:
    return worth_telling([one for turn in turns(text) for one in _read_turn(turn, wrapping)])


def _read_turn(turn: Turn, wrapping: Wrapping) -> list[Pasted]:
    """Read a response, the first answer after its head; or a text without a head."""
    head = turn.head
    if head is None:
        return [one.with_facts(turn.facts) for one in _read_values(turn.text, wrapping)]
    if head.holds_image:
        return [Pasted(form=f"{head.form}, body {head.media_type}", facts=turn.facts)]
    found = _read_values(turn.text, wrapping)
    if not head.holds_json and not (found and _BEGINS.match(turn.text)):  # a page: what follows is another answer's
        return [Pasted(form=f"{head.form}, body {head.media_type}", facts=turn.facts), *found]
    found = found or _any_object(turn.text, wrapping)
    if not found:
        return [Pasted(form=head.form, facts=turn.facts)]
    form = f"{head.form}: {found[0].form.removesuffix(_IN_A_LINE)}"  # curl writes a note behind the body
    first = replace(found[0], facts=turn.facts.over(found[0].facts), request=turn.sent, form=form)
    return [first, *found[1:]]


def _read_values(text: str, wrapping: Wrapping) -> list[Pasted]:
    """Read the values in a text, and the refusals that are told between them."""
    found: list[Pasted] = []
    gaps: list[tuple[int, str]] = []
    at = 0
    before = 0
    for start, end, answers in _answers(text, wrapping):
        gaps.append((len(found), text[at:start]))
        found += [_placed(one, text[before:start], text[end : end + 200], wrapping) for one in answers]
        at, before = end, end if answers else before
    gaps.append((len(found), text[at:]))
    codes = {match[0] for one in found for match in GUARDED_CODE.finditer(one.body.decode())}
    for place, gap in reversed(gaps):
        told = _told_in_gap(gap, wrapping, codes, alone=not found)
        if not wrapping.depth:
            wrapping.budget.count(len(told))
        found[place:place] = told
    return found


def _told_in_gap(gap: str, wrapping: Wrapping, codes: set[str], *, alone: bool) -> list[Pasted]:
    """Read a text that holds no value: perhaps one in disguise, an exception, or a code.

    Args:
        gap: The text.
        wrapping: What it stands in.
        codes: Guarded codes in the answers around it: when they are named again, that is a comment.
        alone: Whether there are no answers around it.
    """
    named = GUARDED_CODE.search(gap)
    if not (named or alone):
        return []
    for changed in undisguised(gap):
        found = _read_text(changed, wrapping.deeper()) if wrapping.allows(changed) else []
        if found and not all(one.bare for one in found):
            return found
    told = [one for _, one in told_in(gap)]
    if not told and named:
        told = [one for one in mentioned_in(gap) if not codes.intersection(GUARDED_CODE.findall(one.body.decode()))]
    if not told and alone:
        told = failures_in(gap)
    return [one.with_facts(wrapping.facts) for one in told]


def _placed(one: Pasted, before: str, after: str, wrapping: Wrapping) -> Pasted:
    """Return an answer with what the text around it tells."""
    line, rest = before.rpartition("\n")[2], after.partition("\n")[0]
    form = one.form
    if "Traceback (most recent call last)" in before:
        form += " in a traceback"
    elif re.search(r"(?:```|~~~)[\w-]{0,20}\s{0,9}\Z", before[-60:]):
        form += " in a Markdown block"
    elif re.search(r"\w", line + rest):
        form += _IN_A_LINE
    return replace(one, form=form, facts=one.facts.over(facts_in(before)).over(wrapping.facts))


def _answers(text: str, wrapping: Wrapping) -> Iterator[tuple[int, int, list[Pasted]]]:
    """Yield the values that hold answers, or are whole and hold none: where they begin and end, and what they hold.

    A whole value is not searched again: what its texts say is that of a field.
    """
    at = 0
    while start := _START.search(text, at):
        if text[start.end() - 1] in "{[":
            literal, syntax = wrapping.budget.value_at(text, start.start())
            long = literal.end - start.start() >= _SHORTEST_VALUE
            answers = _unwrap_literal(literal, syntax, wrapping) if long else []
            answers = answers or _sdk_answer(text, start.start(), literal)
            end, whole = literal.end, not literal.cut and _has_members(literal.value)
        else:
            end, answers = _quoted(text, start, wrapping)
            whole = end > start.end()
        if not wrapping.depth:  # those inside of texts are counted with the text
            wrapping.budget.count(len(answers))
        if answers or whole:
            yield start.start(), end, answers
        at = max(end, start.end())


def _quoted(text: str, start: re.Match[str], wrapping: Wrapping) -> tuple[int, list[Pasted]]:
    """Read an encoded text: its end, and its answers; just its quote if it holds none."""
    found = STRING.match(text, start.start())
    inside = string_value(found) if found else unescaped(text[start.end() :])
    if len(inside) < _SHORTEST or not wrapping.allows(inside):
        return start.end(), []
    kind = "bytes" if start[0][:1] in {"b", "B"} else "a string"
    answers = _read_text(inside, wrapping.deeper())
    cut = not found or any(one.cut for one in answers)
    blank = _BLANK.match(text, start.end())
    at = blank.end() if blank else start.end()
    if (cut or "\n" in text[start.end() : at]) and _is_whole(text, at, wrapping):
        return start.end(), []  # quotes around a value that has such quotes itself, or one that ends before it
    answers = [replace(one, form=f"{one.form} in {kind}", cut=one.cut or not found) for one in answers]
    if answers:
        return found.end() if found else len(text), answers
    return found.end() if found and _is_one_value(inside, wrapping) else start.end(), []


def _has_members(value: Any) -> bool:
    """Return whether a container is an object, or a list of more than texts and numbers."""
    return any(isinstance(one, dict | list) for one in value) if isinstance(value, list) else bool(value)


def _is_one_value(text: str, wrapping: Wrapping) -> bool:
    """Return whether a text is the JSON of one object or list, and nothing else."""
    text = text.strip()
    literal = wrapping.budget.value_at(text, 0)[0] if text[:1] in {"{", "["} else None
    return literal is not None and not literal.cut and literal.end == len(text) and _has_members(literal.value)


def _is_whole(text: str, at: int, wrapping: Wrapping) -> bool:
    return text[at : at + 1] in {"{", "["} and not wrapping.budget.value_at(text, at)[0].cut


def _sdk_answer(text: str, start: int, literal: Literal) -> list[Pasted]:
    """Return the answer in an exception of Zoho's SDK, which puts `details` behind its text."""
    before = sdk_text(text[max(0, start - 600) : start])
    if not before or not isinstance(literal.value, dict):
        return []
    item = {**before, "status": "error", "details": literal.value}
    return [Pasted(body=body_of(item), form=SDK_FORM, cut=literal.cut)]


def _unwrap_literal(literal: Literal, syntax: str, wrapping: Wrapping) -> list[Pasted]:
    vague = close(literal) if literal.cut else False
    found = unwrap(literal.value, wrapping.deeper(syntax))
    if not literal.cut:
        return found
    return [*found[:-1], replace(found[-1], cut=True, vague=found[-1].vague or vague)] if found else []
