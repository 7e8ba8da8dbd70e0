"""Where the rows of a writer go: how many fit into a call, how they are encoded, and which must keep their order.

Pure. Sources: API v7 and v8 pages of the endpoints (most rows, credits), and Zoho's "Kaizen #56" for the fields by
which an upsert finds a record. See :mod:`crm_guard._protocol.endpoints` for what a resend may do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from crm_guard._protocol.endpoints import IdsIn, Resend, locate
from crm_guard._protocol.envelope import identifier
from crm_guard._protocol.request_records import CrmRequest
from crm_guard._protocol.scheduling.row import Row

if TYPE_CHECKING:
    from crm_guard._protocol.crm_url import CrmUrl

Keys = Callable[[Any], Collection[Hashable]]


class _Rows(NamedTuple):
    """What is known of one endpoint besides the endpoint table."""

    most: int
    rows_per_credit: int
    needs: tuple[str, ...] = ()
    """Members that the common part of the body must have."""


_ROWS: Final = {
    "update": _Rows(100, 10),
    "create": _Rows(100, 10),
    "upsert": _Rows(100, 10),
    "assign territories": _Rows(100, 100),
    "remove territories": _Rows(100, 100),
    "delete": _Rows(100, 100),
    "add tags": _Rows(500, 50, ("tags",)),
    "remove tags": _Rows(500, 50, ("tags",)),
    "mass update": _Rows(500, 500, ("data",)),
    "mass delete": _Rows(500, 500),
    "change owner": _Rows(500, 500, ("owner",)),
}

_FOUND_BY: Final = {
    "Leads": "Email",
    "Contacts": "Email",
    "Accounts": "Account_Name",
    "Deals": "Deal_Name",
    "Campaigns": "Campaign_Name",
    "Cases": "Subject",
    "Solutions": "Solution_Title",
    "Products": "Product_Name",
    "Vendors": "Vendor_Name",
    "Price_Books": "Price_Book_Name",
    "PriceBooks": "Price_Book_Name",
    **dict.fromkeys(("Quotes", "Sales_Orders", "Purchase_Orders", "Invoices"), "Subject"),
    **dict.fromkeys(("SalesOrders", "PurchaseOrders"), "Subject"),
}
"""The field by which an upsert finds a record where the call names none. Unique fields of a user's own come after
it, and are known to CRM alone."""


class Target:
    """Where the rows of one writer go. Immutable, thread-safe.

    Args:
        method: HTTP method.
        address: The URL, with its query if it has one.
        body: The members that every batch carries beside its rows.
        external: The field whose values name the records (header `X-EXTERNAL`), None for CRM's own ids.
        key: Returns the key of a row; rows with one key are written in input order. None: see :func:`_usual_keys`.

    Attributes:
        address: The URL.
        method: HTTP method.
        most: How many rows CRM takes in one call.
        rows_per_credit: How many rows cost one API credit.
        template: A request without rows: its endpoint, and how its records are named.
        keys: Returns the keys of a row.

    Raises:
        ValueError: The call takes no rows, or `body` lacks what it needs.
    """

    def __init__(
        self,
        method: str,
        address: CrmUrl,
        body: Mapping[str, Any] | None = None,
        *,
        external: str | None = None,
        key: Callable[[Any], Hashable] | None = None,
    ) -> None:
        self.method, self.address = method, address
        route = replace(locate(method, address.path), external=external is not None)
        endpoint = route.endpoint
        known = address.tail >= 0 and route.names_module and endpoint.resend is Resend.NARROWED
        kind = _ROWS.get(endpoint.name) if known else None
        if kind is None:
            raise ValueError(_no_rows(method, address))
        self.most, self.rows_per_credit = kind.most, kind.rows_per_credit
        self._in_query = method == "DELETE"
        self._by_id = endpoint.ids_in is IdsIn.IDS
        self._member = "ids" if self._by_id else "data"
        _check_body(body, kind.needs, self._member, in_query=self._in_query)
        _check_query(address.url)
        home = "query.ids" if self._in_query else f"body.{self._member}"
        self.template = CrmRequest(route, (), home)
        self._common = b"".join(
            b",%b:%b" % (_encoder.encode(name), _encoded(value, name)) for name, value in (body or {}).items()
        )
        self._external = external
        self._keeps_ids = key is None and external is None and endpoint.name not in {"create", "upsert"}
        self._keeps_ids &= not self._by_id
        self.keys: Keys = _one_key(key) if key else _usual_keys(endpoint.name, route.module, body or {}, external)

    def row(self, index: int, value: Any) -> Row:
        """Return a row on its way.

        Args:
            index: Where it stood in the input.
            value: The row, as it was given.

        Raises:
            TypeError: As by `encode`, or its key cannot be compared with others.
            ValueError: As by `encode`.
        """
        if self._keeps_ids and type(value) is dict:  # the usual one, quickly
            record_id = value.get("id")
            if type(record_id) is str and record_id:
                return Row(index, value, _encoded(value), record_id, (record_id,))
        encoded = self.encode(value)
        return Row(index, value, encoded, self.record_id(value), self.keys(value))

    def encode(self, row: Any) -> bytes:
        """Return a row as it goes into a request.

        Raises:
            TypeError: The row is of a kind that the call does not take, or holds what is no JSON.
            ValueError: It is an empty id, or holds text that is no Unicode, or a number that is none.
        """
        if not self._by_id:
            if not isinstance(row, Mapping):
                message = f"is a {type(row).__name__}; this call takes mappings from field names to values"
                raise TypeError(message)
            return _encoded(row)
        record_id = _id_of(row)
        return record_id.encode() if self._in_query else _encoder.encode(record_id)

    def record_id(self, row: Any) -> str | None:
        """Return the id of a row's record, None where the row does not say."""
        if self._external:
            return None
        return identifier(row) if self._by_id else identifier(_plain(row.get("id")))

    def request(self, encoded: Sequence[bytes]) -> tuple[str, bytes | None]:
        """Return URL and body of the call for some rows."""
        if not self._in_query:
            return self.address.url, b'{"%b":[%b]%b}' % (
                self._member.encode(),
                b",".join(encoded),
                self._common,
            )
        url, hash_, fragment = self.address.url.partition("#")
        joined = ",".join(record_id.decode() for record_id in encoded)
        return f"{url}{'&' if '?' in url else '?'}ids={joined}{hash_}{fragment}", None

    def credits_of(self, rows: int) -> int:
        """Return the API credits that a call with so many rows costs, by Zoho's price list."""
        return -(-rows // self.rows_per_credit)


def _unknown(value: Any) -> Any:
    """Encode what `msgspec` does not know: mappings of other classes."""
    if isinstance(value, Mapping):
        return dict(value)
    message = f"holds a {type(value).__name__}, which is no JSON"
    raise TypeError(message)


_encoder: Final = msgspec.json.Encoder(enc_hook=_unknown)


def _encoded(value: Any, member: str | None = None) -> bytes:
    """Encode a row, or a member of the common part of the body, which an error then names."""
    where = "" if member is None else f"body[{member!r}] "
    try:
        encoded = _encoder.encode(value)
    except UnicodeError as exc:
        message = f"{where}holds text that is no Unicode"
        raise ValueError(message) from exc
    except TypeError as exc:
        odd = [name for name in value if not isinstance(name, str)] if isinstance(value, Mapping) else []
        if member is None and not odd:
            raise
        named = f"has a field whose name is a {type(odd[0]).__name__}" if odd else str(exc)
        message = f"{where}{named}"
        raise TypeError(message) from exc
    if b"null" in encoded and _has_no_number(value):
        message = f"{where}holds a number that is none (NaN or infinity), which would clear a field"
        raise ValueError(message)
    return encoded


def _has_no_number(value: Any) -> bool:
    """Return whether a value holds NaN or infinity anywhere: in JSON these become null."""
    if isinstance(value, float):
        return not isfinite(value)
    if isinstance(value, Mapping):
        return any(map(_has_no_number, value.values()))
    return isinstance(value, list | tuple | set | frozenset) and any(map(_has_no_number, value))


def _plain(value: Any) -> Any:
    """Return a value as it stands in the JSON: a `Decimal`, a `UUID` or a date as text, for example."""
    return value if isinstance(value, str) else msgspec.to_builtins(value, str_keys=True, enc_hook=_unknown)


def _id_of(row: object) -> str:
    record_id = identifier(row)
    if record_id is None or not isinstance(row, str | int):
        message = f"is a {type(row).__name__}; this call takes record ids"
        raise TypeError(message)
    if not record_id.isalnum() or not record_id.isascii():
        message = "is no record id: one has letters and digits only"
        raise ValueError(message)
    return record_id


def _one_key(key: Callable[[Any], Hashable]) -> Keys:
    def keys(row: Any) -> tuple[Hashable, ...]:
        found = key(row)
        try:
            hash(found)
        except TypeError as exc:
            message = f"has a key of type {type(found).__name__}, which cannot be compared: {exc}"
            raise TypeError(message) from exc
        return () if found is None else (found,)

    return keys


def _usual_keys(name: str, module: str | None, body: Mapping[str, Any], external: str | None) -> Keys:
    """Return the keys where the caller gives none: the record, or what an upsert finds it by; none for an insert.

    An upsert may find one record by any of several values, and CRM compares texts without regard to case: each
    value is a key, in lower case.
    """
    if name == "create":
        return lambda _row: ()
    if name != "upsert" and external is None:
        return lambda row: (found,) if (found := identifier(_plain(row.get("id") if _is_row(row) else row))) else ()
    if name != "upsert":
        return _values_of((external or "",))
    given = body.get("duplicate_check_fields")
    fields = [given] if isinstance(given, str) else list(given or ())
    usual = [_FOUND_BY[module]] if not fields and module in _FOUND_BY else []
    return _values_of(tuple(map(str, dict.fromkeys([external or "id", *fields, *usual]))))


def _values_of(fields: Sequence[str]) -> Keys:
    def keys(row: Any) -> tuple[Hashable, ...]:
        found = ((field, _folded(row.get(field) if _is_row(row) else row)) for field in fields)
        return tuple((field, text) for field, text in found if text)

    return keys


def _folded(value: object) -> str:
    """Return a value as CRM compares it, empty for none: by its text, whatever its type."""
    plain = _plain(value)
    if isinstance(plain, float):
        if not isfinite(plain):  # no JSON: it is sent as null
            return ""
        plain = int(plain) if plain.is_integer() else plain
    if plain is None or isinstance(plain, str):
        return (plain or "").strip().casefold()
    return json.dumps(plain, sort_keys=True).casefold()


def _is_row(row: object) -> bool:
    return isinstance(row, Mapping)


def _no_rows(method: str, address: CrmUrl) -> str:
    shown = address.path if address.tail >= 0 else "a URL without /crm/vN/"
    return (
        f"{method} {shown} takes no rows. What does: PUT, POST or DELETE {{module}}; POST {{module}}/upsert; and "
        "POST {module}/actions/ with add_tags, remove_tags, mass_update, mass_delete, change_owner, "
        "assign_territories or remove_territories"
    )


def _check_body(body: object, needs: Iterable[str], member: str, *, in_query: bool) -> None:
    given = body or {}
    if not isinstance(given, Mapping):
        message = f"body must be a mapping of members that every batch carries, and is a {type(body).__name__}"
        raise TypeError(message)
    if in_query and given:
        message = "body must be None: a DELETE has its ids in the URL"
        raise ValueError(message)
    if not all(isinstance(name, str) for name in given):
        message = "body must be a mapping of members, whose names are texts"
        raise TypeError(message)
    for name in (member, "cvid"):
        if name in given:
            message = f"body must not have {name!r}: it names records, and these come from `rows`"
            raise ValueError(message)
    missing = [name for name in needs if name not in given]
    if missing:
        message = f"body must have {missing[0]!r}: what to do with each of the records"
        raise ValueError(message)


def _check_query(url: str) -> None:
    query = url.partition("#")[0].partition("?")[2]
    for pair in query.split("&"):
        name = pair.partition("=")[0]
        if name in {"ids", "cvid"}:
            message = f"url must not have {name!r} in its query: the records come from `rows`"
            raise ValueError(message)
