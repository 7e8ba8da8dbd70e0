"""Which record of a request each item of an answer is about. Pure.

A *request index* is where a record stands in the request of the caller, a *sent index* where it stands in the most
recent send, which may hold fewer records. An answer is believed only where each item can be matched to one sent
index without doubt: see :func:`match`. CRM documents the order of an answer for updates and creates alone
(zoho/crm-oas v8.0), and prints a mass delete that is out of order, so ids come before order.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Final

from crm_guard._protocol.envelope import Envelope, Item, identifier
from crm_guard._protocol.json_spans import Span, elements, members, splice

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from crm_guard._protocol.request_records import CrmRequest

_JSON_PATH: Final = re.compile(r"\$\.(data|ids)\[(\d{1,6})\]")
_MOST_NESTED: Final = 4  # CRM nests errors once; each level is read anew, so their number must be small


def match(
    items: Sequence[Item],
    sent: Sequence[str | None],
    *,
    container: str = "data",
    ids_only: bool = False,
    ordered: bool = True,
) -> list[int | None] | None:
    """Match each item of an answer to one sent index.

    An item that names its record (`details.id`, or `$.data[i]` in `details.json_path`) belongs there. The others
    keep their own index if all named ones do; else they take the indexes that are left if it cannot matter which.
    Linear in the items.

    Args:
        items: The answer.
        sent: The ids sent, in order; None where unknown.
        container: The name of the request's list, to which a `json_path` must point.
        ids_only: Whether bare ids were sent: two with one id are the same request, so either may be meant.
        ordered: Whether the answer is documented to be in the order of the request.

    Returns:
        A sent index per item, None for items whose index is not certain. None as a whole if in doubt: counts
        differ, an id was not asked for, two items claim one index, an item names two, or stands where another
        record was sent.
    """
    if len(items) != len(sent):
        return None
    claims = _Claims(sent, container)
    if not all(claims.add(number, item) for number, item in enumerate(items)):
        return None
    if not claims.in_order and not ids_only and not claims.distinct:
        return None
    matched = claims.completed(ordered=ordered)
    return matched if all(_fits(item, sent, index) for item, index in zip(items, matched, strict=True)) else None


def _fits(item: Item, sent: Sequence[str | None], index: int | None) -> bool:
    """Return whether an item may be about what was sent at an index: it reports nothing of another record."""
    if index is None or not (item.succeeded or item.guarded):
        return True
    return item.record_id is None or sent[index] in {None, item.record_id}


class _Claims:
    """The sent indexes that the items of an answer claim, one item after the other."""

    def __init__(self, sent: Sequence[str | None], container: str) -> None:
        self._sent = sent
        self._container = container
        self._all_known = None not in sent
        self._of_record: dict[str, list[int]] = {}  # the first index last: it is removed once it is taken
        for index in reversed(range(len(sent))):
            if record_id := sent[index]:
                self._of_record.setdefault(record_id, []).append(index)
        self.distinct = self._all_known and len(self._of_record) == len(sent)
        self._unknown_ids = False
        self._taken: dict[int, int] = {}
        self._claimed: list[int | None] = []
        self._raw: list[bytes] = []

    def add(self, number: int, item: Item) -> bool:
        """Add the claim of an item, if it names an index or a record; return False if it is contradictory."""
        pointed_at = pointed_index(item, self._container, len(self._sent))
        record_id = item.record_id or ""
        known = record_id in self._of_record
        if record_id and not known and self._all_known and (item.succeeded or item.guarded):
            return False  # an id that was not asked for
        self._unknown_ids |= bool(record_id) and not known
        claimed = self._choose(record_id, number, pointed_at) if known else pointed_at
        if claimed is None and known:
            return False
        if claimed is not None and self._taken.setdefault(claimed, number) != number:
            return False
        self._claimed.append(claimed)
        self._raw.append(item.raw)
        return True

    def _choose(self, record_id: str, number: int, pointed_at: int | None) -> int | None:
        """Return a free index of the record: the one pointed at, else the item's own, else the first."""
        wanted = number if pointed_at is None else pointed_at
        if self._sent[wanted] == record_id and wanted not in self._taken:
            return wanted
        if pointed_at is not None:
            return None
        indexes = self._of_record[record_id]
        while indexes and indexes[-1] in self._taken:  # none is ever given back, so each is passed over once
            indexes.pop()
        return indexes[-1] if indexes else None

    @property
    def in_order(self) -> bool:
        """Whether every item with a claim stands at the index that it claims."""
        return all(claimed in (None, number) for number, claimed in enumerate(self._claimed))

    def completed(self, *, ordered: bool) -> list[int | None]:
        """Return the indexes, with those added that order or elimination make certain.

        Where the order is not documented, records under names that were not sent (ids for external values) may
        stand in any.
        """
        if self.in_order and (ordered or not self._unknown_ids):
            return list(range(len(self._sent)))
        unnamed = [number for number, claimed in enumerate(self._claimed) if claimed is None]
        if len({self._raw[number] for number in unnamed}) == 1:  # one, or several that say the same
            left = sorted(set(range(len(self._sent))) - self._taken.keys())
            for number, index in zip(unnamed, left, strict=True):
                self._claimed[number] = index
        return self._claimed


def match_named(items: Sequence[Item], sent: Sequence[str | None]) -> dict[int, Item]:
    """Return, by sent index, the items that name an id which was sent once, and which no other item names."""
    sent_once, named_once = Counter(sent), Counter(item.record_id for item in items)
    by_id = {item.record_id: item for item in items if item.record_id and named_once[item.record_id] == 1}
    return {
        index: by_id[record_id]
        for index, record_id in enumerate(sent)
        if record_id in by_id and sent_once[record_id] == 1
    }


def match_response(request: CrmRequest, envelope: Envelope) -> list[int | None] | None:
    """Match the items of an answer to the request's indexes, as `match` does; None where that cannot be."""
    if request.ids is None or request.names_one or envelope.composite or (envelope.bare and len(request.ids) > 1):
        return None
    if envelope.key == "tags":  # these items are about the tags (zoho/crm-oas v8.0, tag input errors)
        return None
    return match_sent(request, envelope.items, request.ids)


def match_sent(request: CrmRequest, items: Sequence[Item], sent: Sequence[str | None]) -> list[int | None] | None:
    """Match items to what was `sent` of a request, as `match` does."""
    ordered = request.endpoint.ordered
    return match(items, sent, container=request.container, ids_only=request.ids_only, ordered=ordered)


def found_in(
    request: CrmRequest, items: Sequence[Item], sent: Sequence[str | None]
) -> tuple[dict[int, Item], bool]:
    """Return the items by sent index as far as that is certain, and whether the answer as a whole is in no doubt.

    Where it is in doubt, items that name an id which was sent once are believed all the same.
    """
    matched = match_sent(request, items, sent)
    if not matched:
        return match_named(items, sent), False
    return {index: item for index, item in zip(matched, items, strict=True) if index is not None}, True


def records(request: CrmRequest, envelope: Envelope, matched: Sequence[int | None] | None) -> list[str | None]:
    """Return the record that each item is about, None where that is not certain.

    Args:
        request: The request.
        envelope: The answer.
        matched: The items' request indexes by `match_response`: an item that names no record is about the one at
            its matched index, not about the one where it stands in the answer. None: without such help.
    """
    if matched is None or request.ids is None:
        return [resolve(request, envelope, number)[0] for number, _ in enumerate(envelope.items)]
    sent = [None if index is None else request.ids[index] for index in matched]
    return [item.record_id or record_id for item, record_id in zip(envelope.items, sent, strict=True)]


def resolve(request: CrmRequest, envelope: Envelope, number: int) -> tuple[str | None, str]:
    """Find the record that an item is about.

    Returns:
        The record id or None, and where it was found.
    """
    item, ids = envelope.items[number], request.ids or ()
    if item.record_id:
        source = "details.id" if identifier(item.details.get("id")) else "details.record_id"
        return item.record_id, source if item.sub is None else f"sub[{item.sub}].{source}"
    if item.sub is not None:
        return (ids[item.sub], f"sub[{item.sub}].path") if item.sub < len(ids) and ids[item.sub] else (None, "none")
    index = None if request.names_one else pointed_index(item, request.container, len(ids))
    if index is not None and ids[index]:
        return ids[index], f"json_path->{_source(request, index)}"
    if found := request.route.record_at(item.details.get("resource_path_index")):
        return found, "resource_path_index->path[1]"
    if request.route.record_id:
        return request.route.record_id, "path[1]"
    if not envelope.bare and not request.names_one and len(ids) == len(envelope.items) and ids[number]:
        return ids[number], f"position->{_source(request, number)}"
    return None, "none"


def repointed(item: Item, container: str, sent_index: int, request_index: int) -> Item:
    """Return an item with its `json_path` pointing to `request_index` instead of `sent_index`, as in a resend."""
    if sent_index == request_index or b'"json_path"' not in item.raw:
        return item
    text = item.raw.decode()
    wrong, right = f"$.{container}[{sent_index}]", f"$.{container}[{request_index}]"
    try:
        replacements = {
            (span.start, span.end): json.dumps(right + span.value.removeprefix(wrong))
            for span in _json_paths(text, 0, _MOST_NESTED)
            if isinstance(span.value, str) and span.value.startswith(wrong)
        }
    except (ValueError, RecursionError):
        return item
    return item.reread(splice(text, replacements).encode())


def _json_paths(text: str, start: int, depth: int) -> Iterator[Span]:
    """Yield the `json_path` of the item at `start`, and of the errors in it, `depth` levels deep."""
    top = members(text, start) or {}
    details = (members(text, top["details"].start) if "details" in top else None) or {}
    if "json_path" in details:
        yield details["json_path"]
    if "errors" not in details or not depth:
        return
    for error in elements(text, details["errors"].start) or ():
        yield from _json_paths(text, error.start, depth - 1)


def _source(request: CrmRequest, index: int) -> str:
    return f"{request.home}[{index}]{'.id' if request.container == 'data' else ''}"


def pointed_index(item: Item, container: str, count: int) -> int | None:
    """Return the index that an item's `json_path` points to; None for `[*]`, other lists and other ends."""
    path = item.details.get("json_path")
    found = _JSON_PATH.match(path) if isinstance(path, str) else None
    return int(found[2]) if found and found[1] == container and int(found[2]) < count else None
