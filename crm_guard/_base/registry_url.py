"""What a `lock_registry` URL may look like, and how it is shown. Pure; redis-py is not needed.

A URL holds a password in more places than the one that is meant for it: where the host is forgotten the password
stands in its place, where an `@` is forgotten in that of the port, and so on. No rule tells such a URL from a good
one, so nothing is ever shown of one but its scheme. What redis-py would refuse later, in a text that quotes it, is
refused here.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from urllib.parse import SplitResult

MAY_BE_URL: Final = re.compile(r"(?i)://|@|\b(rediss?|unix):|password=")
"""Found in what may hold a password although it stands where no URL belongs."""

_SCHEMES: Final = ("redis", "rediss", "unix")
_PLACE: Final = re.compile(r"(\[[0-9A-Fa-f:.]+(%25?[\w.-]+)?\]|[\w.-]*)(:[0-9]*)?")
_DATABASE: Final = re.compile(r"(/([0-9]{1,9}/?)?)?")
_ENCODED: Final = "are special characters of the password percent-encoded?"


class _Kind(NamedTuple):
    """What the value of an option may be."""

    allowed: str
    pattern: str


_TEXT: Final = _Kind("a text", r"(?s).*")
_WHOLE: Final = _Kind("a whole number", r"[0-9]{0,9}")
_SECONDS: Final = _Kind("a number of seconds", r"([0-9]{1,9}(\.[0-9]{1,9})?)?")
_SWITCH: Final = _Kind("true or false", r"(?i)([01tfyn]|true|false|yes|no)?")

# The options of redis-py that make sense here.
_OPTIONS: Final = {
    "db": _WHOLE,
    "username": _TEXT,
    "password": _TEXT,
    "client_name": _TEXT,
    "protocol": _Kind("2 or 3", "[23]?"),
    "encoding": _Kind("utf-8", "(?i)(utf-?8)?"),  # redis-py looks it up at once, and quotes it
    "decode_responses": _SWITCH,
    "socket_timeout": _SECONDS,
    "socket_connect_timeout": _SECONDS,
    "socket_read_size": _WHOLE,
    "health_check_interval": _WHOLE,
    "max_connections": _WHOLE,
    "retry_on_timeout": _SWITCH,
}
_TCP: Final = _OPTIONS | {"socket_keepalive": _SWITCH}
_TLS: Final = _TCP | {
    "ssl_keyfile": _TEXT,
    "ssl_certfile": _TEXT,
    "ssl_ca_certs": _TEXT,
    "ssl_ca_path": _TEXT,
    "ssl_ca_data": _TEXT,
    "ssl_password": _TEXT,
    "ssl_ciphers": _TEXT,
    "ssl_cert_reqs": _Kind("none, optional or required", "(none|optional|required)?"),
    "ssl_check_hostname": _SWITCH,
    "ssl_validate_ocsp": _SWITCH,
    "ssl_validate_ocsp_stapled": _SWITCH,
    "ssl_min_version": _WHOLE,
}
OPTIONS: Final[Mapping[str, Mapping[str, _Kind]]] = MappingProxyType(
    {"redis": _TCP, "rediss": _TLS, "unix": _OPTIONS}
)
"""Scheme -> the options that its query may hold."""


def masked_url(url: str) -> str:
    """Return a `lock_registry` for people to read: `"memory"`, or a scheme; `"***"` for anything else."""
    scheme, separator, _ = url.partition("://")
    if separator and scheme in _SCHEMES:
        return f"{scheme}://***"
    return url if url == "memory" else "***"


def check_url(url: str) -> None:
    """Refuse what redis-py could not use, and what it would silently leave out.

    Args:
        url: A URL without blanks that begins with a scheme of `OPTIONS`.

    Raises:
        ValueError: It cannot be used. The text quotes nothing of it but the name of an option that we know, and no
            other error hangs on it.
    """
    try:
        parts = urlsplit(url)
        readable = parts.port != 0
    except ValueError:  # its text may quote a piece of the password: not to be chained
        readable = False
    if not readable or not _PLACE.fullmatch(parts.netloc.rpartition("@")[2]):
        flaw: str | None = f"host or port cannot be read: {_ENCODED}"
    else:
        flaw = _flaw_of_path(parts) or _flaw_of_options(parts)
    if flaw:
        raise ValueError(flaw)


def _flaw_of_path(parts: SplitResult) -> str | None:
    if parts.fragment:
        return f"nothing may follow a '#': {_ENCODED}"
    if parts.scheme == "unix":
        return None if parts.path else "the path of the socket is missing: unix:///path/to/redis.sock"
    # redis-py takes database 0 where it cannot read the number.
    return None if _DATABASE.fullmatch(parts.path) else f"the path is no number of a database, as in /0: {_ENCODED}"


def _flaw_of_options(parts: SplitResult) -> str | None:
    known = OPTIONS[parts.scheme]
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            return f"the query holds an option other than {', '.join(known)}"
        if not re.fullmatch(known[name].pattern, value):
            return f"the option {name} has to be {known[name].allowed}"
    return None
