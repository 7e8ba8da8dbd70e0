"""What is a credential in a request that is kept: told by the names of headers and query parameters alone.

The rule is wide on purpose. What it leaves out without need is named to whoever sends the request again, and can be
kept by its name; what it overlooks would lie in a queue unseen.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_plus

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

_CREDENTIAL: Final = re.compile(
    "auth|token|secret|passw|passphrase|passcode|pwd|cookie|credential|session|signature|jwt|hmac|bearer|csrf"
    "|assertion|ticket$|key$|^(sig|sid|otp|pin)$",
    re.IGNORECASE,
)
_HARMLESS: Final = frozenset({"page_token", "idempotency-key", "x-idempotency-key"})
"""`page_token` is CRM's own: it asks for the next page of a list."""
_URLS: Final = frozenset({"referer", "location", "content-location"})
"""Headers whose values are URLs."""
_USER: Final = re.compile(r"\A((?:[^:/]+:)?//)[^/]*@")
_PIECE: Final = re.compile(r"[^&;]*[&;]|[^&;]+")
"""A query parameter, with what separates it from the next."""


def is_credential(name: str) -> bool:
    """Return whether a header or query parameter of that name is left out of what is kept."""
    return _CREDENTIAL.search(name) is not None and name.lower() not in _HARMLESS


def named(names: str | Iterable[str]) -> frozenset[str]:
    """Return names as they are compared; a single one may come as it is."""
    return frozenset(name.lower() for name in ([names] if isinstance(names, str) else names))


def bare_headers(headers: Mapping[Any, Any], keep: Collection[str] = ()) -> tuple[dict[str, str], list[str]]:
    """Take the credentials out of headers.

    Args:
        headers: Headers; what is bytes in them becomes text.
        keep: Names in lower case that stay.

    Returns:
        The headers that stay, URLs in them without credentials; and the names of those that do not.
    """
    texts = {_text(name): _text(value) for name, value in headers.items()}
    texts = {name: bare_url(value)[0] if name.lower() in _URLS else value for name, value in texts.items()}
    left = [name for name in texts if is_credential(name) and name.lower() not in keep]
    return {name: value for name, value in texts.items() if name not in left}, left


def bare_url(url: str, keep: Collection[str] = ()) -> tuple[str, list[str]]:
    """Take the credentials out of a URL: user and password, query parameters; and the fragment, as none is sent.

    Args:
        url: A URL, or a reference such as `Location` may be.
        keep: Names of parameters, in lower case, that stay.

    Returns:
        The URL, byte for byte but for what is gone; and the names of the parameters that are.
    """
    place, mark, query = url.partition("#")[0].partition("?")
    pieces = [(piece, _name(piece)) for piece in _PIECE.findall(query)]
    left = [name for _, name in pieces if is_credential(name) and name.lower() not in keep]
    if left:
        query = "".join(piece for piece, name in pieces if name not in left).rstrip("&;")
        mark = mark if query else ""
    return _USER.sub(r"\1", place) + mark + query, left


def parameters(url: str) -> list[str]:
    """Return the names of the query parameters of a URL."""
    return [_name(piece) for piece in _PIECE.findall(url.partition("#")[0].partition("?")[2])]


def _name(piece: str) -> str:
    return unquote_plus(piece.rstrip("&;").partition("=")[0])


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
