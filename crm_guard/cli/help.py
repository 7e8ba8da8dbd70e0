"""`crm-guard help TOPIC`: the docstrings that are the reference, as pages of a terminal."""

from __future__ import annotations

import difflib
import inspect
import pydoc
import re
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Final, NamedTuple

from crm_guard.cli.plain import CommandError, harmless

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_USAGE_ERROR: Final = 2
_WIDEST: Final = 100
_BULLET: Final = "- "
_EXAMPLE: Final = "::"
_LONE_EXAMPLE: Final = "\n::\n"
_INDENT: Final = "    "
_MARKUP: Final = re.compile(r":(?:class|meth|attr|func|mod):`")
_SECTION: Final = re.compile(r"(Args|Attributes|Returns|Raises|Yields):")
_ENTRY: Final = re.compile(r" {4}(?! )[^:]{1,60}:")


class Topic(NamedTuple):
    """What a page is about, and the objects whose docstrings it shows."""

    summary: str
    names: tuple[str, ...]


TOPICS: Final = {
    "start": Topic("a first example, and every public name", ("crm_guard",)),
    "mounting": Topic(
        "one session or the whole process; other clients; Retry",
        ("crm_guard.mounting", "crm_guard.mount_guard", "crm_guard.install"),
    ),
    "settings": Topic(
        "every setting, its default, and where it is read from",
        ("crm_guard.GuardSettings", "crm_guard.load_settings"),
    ),
    "errors": Topic("what raises and when, each refusal, reports", ("crm_guard.errors", "crm_guard.GuardReport")),
    "bulk": Topic("write_records: any number of rows", ("crm_guard.bulk", "crm_guard.write_records")),
    "queues": Topic(
        "what is left, for a task queue: Celery", ("crm_guard.remaining", "crm_guard.RemainingRequest")
    ),
    "fleets": Topic("many threads, processes, hosts; Redis", ("crm_guard.locks",)),
    "operations": Topic("log, metrics, traces, hooks", ("crm_guard.instrumentation", "crm_guard.GuardEvent")),
    "stopping": Topic("SIGTERM: Kubernetes, gunicorn, Celery", ("crm_guard.clock", "crm_guard.stop_waiting")),
    "testing": Topic(
        "pytest fixtures: a CRM, a guarded session, a clock",
        (
            "crm_guard.testing",
            "crm_guard.testing.simulated_zoho",
            "crm_guard.testing.overlapping_clock",
            "crm_guard.testing.ManualClock",
        ),
    ),
    "simulator": Topic(
        "the embedded CRM, its options and faults", ("crm_guard.simulator", "crm_guard.simulator.Options")
    ),
    "limits": Topic(
        "how it works, what it does not do, what it costs", ("crm_guard.adapter", "crm_guard.GuardAdapter")
    ),
    "explain": Topic("crm-guard explain: what it reads, and how", ("crm_guard.cli.explain",)),
    "simulate": Topic("crm-guard simulate: its control API, for any language", ("crm_guard.simulator.control",)),
    "sync": Topic("crm-guard sync: a file of rows", ("crm_guard.cli.sync",)),
}


def run_help(topic: str | None) -> None:
    """Print a page, or the list of them. Needs no package of the extra, but for the pages of commands.

    Raises:
        CommandError: There is no such topic, or its page is that of a command whose extra is missing.
    """
    lines = _list_of_topics() if topic is None else _page(topic.lower())
    for line in lines:
        sys.stdout.write(f"{line}\n")


def _list_of_topics() -> Iterator[str]:
    yield "crm-guard help TOPIC prints a page of the reference; help(crm_guard) in Python names all."
    yield ""
    width = max(map(len, TOPICS))
    yield from (f"{name:<{width}}  {topic.summary}" for name, topic in TOPICS.items())
    yield ""
    yield "The options of a command: crm-guard COMMAND --help"


def _page(topic: str) -> Iterator[str]:
    if topic not in TOPICS:
        raise CommandError(_unknown(topic), _USAGE_ERROR)
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    for number, name in enumerate(TOPICS[topic].names):
        yield from (("", "", name, "") if number else (name, ""))
        yield from reflow(_docstring(name), width)


def _docstring(name: str) -> str:
    try:
        found = pydoc.locate(name)
    except pydoc.ErrorDuringImport as error:
        message = f"{name} needs the extra: pip install 'crm-guard[cli]' ({error.value})"
        raise CommandError(message, _USAGE_ERROR) from error
    return inspect.getdoc(found) or ""


def _unknown(topic: str) -> str:
    near = difflib.get_close_matches(topic, TOPICS, 1)
    meant = f" Did you mean {near[0]}?" if near else ""
    return f"no topic {harmless(topic)!r}.{meant} Topics: {', '.join(TOPICS)}"


def reflow(page: str, width: int) -> Iterator[str]:
    """Yield the lines of a docstring, with its text filled anew; examples and tables stay as they are.

    Args:
        page: The docstring, without the indentation of its source.
        width: Columns of a filled line.
    """
    filling: list[str] = []
    in_section = False
    for line in [*_MARKUP.sub("`", page).replace(_LONE_EXAMPLE, "").splitlines(), ""]:
        in_section = bool(_SECTION.fullmatch(line)) or (in_section and line.startswith(_INDENT))
        is_verbatim = not line.strip() or (line.startswith(" ") and not in_section and not _in_list(filling))
        if is_verbatim or _begins(line, in_section):
            yield from _filled(filling, width)
            filling = []
        if is_verbatim:
            yield line
        else:
            filling.append(line)


def _in_list(filling: Sequence[str]) -> bool:
    return bool(filling) and filling[0].startswith(_BULLET)


def _begins(line: str, in_section: bool) -> bool:
    """Return whether a line begins a bullet, or a section or an entry of it."""
    return line.startswith(_BULLET) or (in_section and bool(_SECTION.fullmatch(line) or _ENTRY.match(line)))


def _filled(lines: Sequence[str], width: int) -> list[str]:
    text = " ".join(line.strip() for line in lines).replace(_EXAMPLE, ":")
    first = _INDENT if lines and lines[0].startswith(_INDENT) else ""
    rest = f"{first}  " if first or text.startswith(_BULLET) else ""
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
