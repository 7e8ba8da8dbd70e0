"""Strip credentials from requests that are stored, by the names of headers and query parameters.

The rule is deliberately broad: what it removes without need is reported as missing and can be kept by name, but a
credential that it misses would be stored unnoticed.
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
_NOT_CREDENTIALS: Final = frozenset({"page_token", "idempotency-key", "x-idempotency-key"})
"""`page_token` selects the next page of a list in CRM."""
_URL_HEADERS: Final = frozenset({"referer", "location", "content-location"})
"""Headers whose values are URLs."""
_USERINFO: Final = re.compile(r"\A((?:[^:/]+:)?//)[^/]*@")
_PARAMETER: Final = re.compile(r"[^&;]*[&;]|[^&;]+")
"""A query parameter, with the separator that follows it."""


def is_credential(name: str) -> bool:
    """Return whether a header or query parameter of that name counts as a credential."""
    return _CREDENTIAL.search(name) is not None and name.lower() not in _NOT_CREDENTIALS


def lower_names(names: str | Iterable[str]) -> frozenset[str]:
    """Return names in lower case; a string is a single name."""
    return frozenset(name.lower() for name in ([names] if isinstance(names, str) else names))


def bare_headers(headers: Mapping[Any, Any], keep: Collection[str] = ()) -> tuple[dict[str, str], list[str]]:
    """Remove the credentials from headers.

    Args:
        headers: Headers; bytes in them are decoded.
        keep: Names, in lower case, to keep.

    Returns:
        The remaining headers, with credentials removed from URLs in them; and the names of the removed ones.
    """
    texts = {_text(name): _text(value) for name, value in headers.items()}
    texts = {name: bare_url(value)[0] if name.lower() in _URL_HEADERS else value for name, value in texts.items()}
    removed = [name for name in texts if is_credential(name) and name.lower() not in keep]
    return {name: value for name, value in texts.items() if name not in removed}, removed


def bare_url(url: str, keep: Collection[str] = ()) -> tuple[str, list[str]]:
    """Remove user, password, credential parameters and the fragment (which is never sent) from a URL.

    Args:
        url: A URL, or a relative reference.
        keep: Names of parameters, in lower case, to keep.

    Returns:
        The URL, otherwise byte for byte the same; and the names of the removed parameters.
    """
    base, mark, query = url.partition("#")[0].partition("?")
    found = [(parameter, _name(parameter)) for parameter in _PARAMETER.findall(query)]
    removed = [name for _, name in found if is_credential(name) and name.lower() not in keep]
    if removed:
        query = "".join(parameter for parameter, name in found if name not in removed).rstrip("&;")
        mark = mark if query else ""
    return _USERINFO.sub(r"\1", base) + mark + query, removed


def parameters(url: str) -> list[str]:
    """Return the names of the query parameters of a URL."""
    return [_name(parameter) for parameter in _PARAMETER.findall(url.partition("#")[0].partition("?")[2])]


def _name(parameter: str) -> str:
    return unquote_plus(parameter.rstrip("&;").partition("=")[0])


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
