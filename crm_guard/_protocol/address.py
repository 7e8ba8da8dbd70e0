"""Whether a URL is a CRM call, and where its path goes on behind the API version. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from crm_guard.settings import DEFAULT_PATH_PATTERN

if TYPE_CHECKING:
    from collections.abc import Callable

# One segment may stand between `/crm` and the version, a gateway's path before them. No part reaches into a query
# (zoho/crm-oas v8.0, composite requests: `/crm(/.*)?/v[0-9]+([.][0-9]+)?/.*`).
_CRM: Final = r"/crm(?:/[^/?#]+)?/v\d+(?:\.\d+)?/"
_ANYWHERE: Final = re.compile(rf"(?:/[^/?#]+)*?{_CRM}")
_VERSION_ALONE: Final = re.compile(r"(?:/[^/?#]+)*?/v\d+(?:\.\d+)?/")
_ORIGIN: Final = r"[^:/?#]+://[^/?#]*"
_BEFORE_PATH: Final = re.compile(rf"(?:{_ORIGIN})?")
_USUAL: Final = re.compile(_ORIGIN + _CRM)  # what DEFAULT_PATH_PATTERN allows, in one step


def tail_finder(path_pattern: str) -> Callable[[str], int]:
    """Return a function that takes a URL and returns the offset just past its API version, -1 if it is no CRM call.

    Args:
        path_pattern: A regular expression that the path must begin with. It decides only whether.
    """
    if path_pattern == DEFAULT_PATH_PATTERN:
        return _usual_tail
    allowed = re.compile(path_pattern)

    def find(url: str) -> int:
        path = _path_start(url)
        if not allowed.match(url[path:]):  # cut off, so that `^` means the beginning of the path
            return -1
        found = _ANYWHERE.match(url, path) or _VERSION_ALONE.match(url, path)  # a gateway may leave out `/crm`
        return found.end() if found else -1

    return find


def tail_of(address: str) -> int:
    """Return the offset just past the API version of a URL, or of a path, -1 if there is none."""
    found = _ANYWHERE.match(address, _path_start(address))
    return found.end() if found else -1


def version_before(url: str, tail: int) -> str:
    """Return the API version, such as `v8`, that ends just before the offset `tail`."""
    return url[: max(tail - 1, 0)].rpartition("/")[2]


def _path_start(address: str) -> int:
    before = _BEFORE_PATH.match(address)
    return before.end() if before else 0


def _usual_tail(url: str) -> int:
    found = _USUAL.match(url)
    return found.end() if found else -1
