"""What `bulk.py` writes: rows as a nightly job has them, how long some are locked, and CRM's answers."""

from __future__ import annotations

import itertools
import random

import msgspec
from canned import JSON, dumped, lock, record_id, success

URL = "/crm/v8/Leads"
KIND = JSON

LOCKS = {
    "5..60 s": lambda chance: chance.uniform(5, 60),
    "30 s": lambda chance: 30.0,  # noqa: ARG005 (all of these take one)
    "80 % 5..10, 20 % 50..60 s": lambda chance: (
        chance.uniform(50, 60) if chance.random() < 0.2 else chance.uniform(5, 10)
    ),
}
"""How long records are locked, in seconds."""


def row(number: int) -> dict:
    return {
        "id": record_id(number),
        "Company": f"Zylker Trading {number}",
        "First_Name": "Patricia",
        "Last_Name": f"Boyle {number}",
        "Email": f"p.boyle{number}@zylker.example",
        "Phone": f"+1 555 {number % 10_000:04}",
        "Lead_Status": "Contact in Future",
        "Annual_Revenue": 1_000.5 + number,
        "Email_Opt_Out": number % 3 == 0,
        "Owner": {"id": "111112000000032101"},
        "Description": "Asked for a call back about the offer of last week; prefers afternoons.",
    }


def rows(count: int):
    return map(row, range(count))


def locked(count: int, share: float, draw, seed: int) -> dict[str, float]:
    """Return for how long each locked record is, in seconds from the start."""
    chance = random.Random(seed)
    return {record_id(number): draw(chance) for number in sorted(chance.sample(range(count), round(count * share)))}


# -- answers in CRM's documented shape: written for speed, as the server must not be what is measured


class _Named(msgspec.Struct):
    id: str


class _Rows(msgspec.Struct):
    data: list[_Named]


_decoder = msgspec.json.Decoder(_Rows)
_MARK = record_id(0).encode()
_SUCCESS = dumped(success(0)).partition(_MARK)[::2]
_LOCK = dumped(lock(0)).partition(_MARK)[::2]


def ids_of(body: bytes) -> list[str]:
    """Return the records that a request names, in its order."""
    return [named.id for named in _decoder.decode(body).data]


def answer(ids: list[str], refused: list[bool]) -> tuple[int, bytes]:
    """Return status and body of the answer to a request."""
    items = []
    for record, is_refused in zip(ids, refused, strict=True):
        before, after = _LOCK if is_refused else _SUCCESS
        items.append(b"%b%b%b" % (before, record.encode(), after))
    status = 200 if not any(refused) else 400 if all(refused) else 207
    return status, b'{"data":[%b]}' % b",".join(items)


def batches(items, size: int):
    source = iter(items)
    while batch := list(itertools.islice(source, size)):
        yield batch
