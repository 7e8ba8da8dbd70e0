"""From method and path to the call that is meant: one table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import unquote

from .messages import RequestError, invalid_url, wrong_method

if TYPE_CHECKING:
    from collections.abc import Mapping


class Kind(StrEnum):
    """The calls that the simulator knows; the value names the documentation page or its nearest."""

    LIST = "get-records"
    READ = "get-record"
    CREATE = "insert-records"
    UPDATE = "update-records"
    UPDATE_ONE = "update-record"
    UPSERT = "upsert-records"
    DELETE = "delete-records"
    DELETE_ONE = "delete-record"
    ADD_TAGS = "add-tags"
    REMOVE_TAGS = "remove-tags"
    ADD_TAGS_ONE = "add-tags-to-record"
    REMOVE_TAGS_ONE = "remove-tags-from-record"
    SHARE = "share-record"
    SHARE_CHANGE = "update-share"
    SHARE_LIST = "get-shared-record"
    SHARE_REVOKE = "revoke-shared-record"
    MASS_UPDATE = "mass-update-records"
    MASS_DELETE = "mass-delete-records"
    CHANGE_OWNER = "change-owner-of-records"
    CHANGE_OWNER_ONE = "change-owner-of-record"
    CONVERT = "convert-lead"
    INVENTORY_CONVERT = "convert-inventory"
    MASS_CONVERT = "mass-convert-lead"
    CONVERSION_OPTIONS = "lead-conversion-options"
    PHOTO_GET = "download-image"
    PHOTO_POST = "upload-image"
    PHOTO_DELETE = "delete-image"
    PORTAL_INVITE = "portal-invite"
    ASSIGN_TERRITORIES = "assign-territories-to-records"
    REMOVE_TERRITORIES = "remove-territories-of-records"
    ASSIGN_TERRITORIES_ONE = "assign-territories-to-record"
    REMOVE_TERRITORIES_ONE = "remove-territories-of-record"
    BLUEPRINT = "update-blueprint"
    SEND_MAIL = "send-mail"
    CLONE = "clone-record"
    LOCKS = "get-locking-information"
    LOCK_READ = "get-locking-information-by-id"
    LOCK = "lock-record"
    LOCK_CHANGE = "update-lock-reason"
    UNLOCK = "unlock-record"
    COMPOSITE = "composite-api"
    TOKEN = "refresh-token"  # noqa: S105
    MODULES = "get-modules"
    FIELDS = "get-fields"
    USERS = "get-users"
    ORG = "get-org"


@dataclass(frozen=True, slots=True)
class Route:
    """What a request addresses.

    Attributes:
        kind: The call.
        version: API version, for instance `8.0` or `2.1`.
        module: API name of the module; empty where a call is about none.
        reference: Record id, or external value, of the path; empty where the path has none.
        lock_id: Id of the lock in the path of an unlock call, else empty.
    """

    kind: Kind
    version: float
    module: str = ""
    reference: str = ""
    lock_id: str = ""


_ADDRESS = re.compile(r"/crm(?:/[^/]+)*?/v(\d+(?:\.\d+)?)/(.+)")
# From the first up to but not including the second. Version 9 is in use but undocumented: served like version 8.
_VERSIONS = (2.0, 10.0)
TOKEN_PATH = "/oauth/v2/token"  # noqa: S105

_M = r"(?P<module>[A-Za-z][A-Za-z0-9_]{0,99})"
_R = _M + r"/(?P<reference>(?!actions$|upsert$|search$|deleted$)[^/]+)"
_TABLE: tuple[tuple[str, Mapping[str, Kind]], ...] = (
    ("__composite_requests", {"POST": Kind.COMPOSITE}),
    ("settings/modules", {"GET": Kind.MODULES}),
    ("settings/fields", {"GET": Kind.FIELDS}),
    ("users", {"GET": Kind.USERS}),
    ("org", {"GET": Kind.ORG}),
    (
        _M,
        {"GET": Kind.LIST, "POST": Kind.CREATE, "PUT": Kind.UPDATE, "DELETE": Kind.DELETE},
    ),
    (_M + "/upsert", {"POST": Kind.UPSERT}),
    (_M + "/actions/add_tags", {"POST": Kind.ADD_TAGS}),
    (_M + "/actions/remove_tags", {"POST": Kind.REMOVE_TAGS}),
    (_M + "/actions/mass_update", {"POST": Kind.MASS_UPDATE}),
    (_M + "/actions/mass_delete", {"POST": Kind.MASS_DELETE}),
    (_M + "/actions/change_owner", {"POST": Kind.CHANGE_OWNER}),
    (_M + "/actions/assign_territories", {"POST": Kind.ASSIGN_TERRITORIES}),
    (_M + "/actions/remove_territories", {"POST": Kind.REMOVE_TERRITORIES}),
    ("(?P<module>Leads)/actions/mass_convert", {"POST": Kind.MASS_CONVERT}),
    (_R, {"GET": Kind.READ, "PUT": Kind.UPDATE_ONE, "DELETE": Kind.DELETE_ONE}),
    (_R + "/actions/add_tags", {"POST": Kind.ADD_TAGS_ONE}),
    (_R + "/actions/remove_tags", {"POST": Kind.REMOVE_TAGS_ONE}),
    (
        _R + "/actions/share",
        {
            "GET": Kind.SHARE_LIST,
            "POST": Kind.SHARE,
            "PUT": Kind.SHARE_CHANGE,
            "DELETE": Kind.SHARE_REVOKE,
        },
    ),
    (_R + "/actions/change_owner", {"POST": Kind.CHANGE_OWNER_ONE}),
    ("(?P<module>Leads)/(?P<reference>[^/]+)/actions/convert", {"POST": Kind.CONVERT}),
    ("(?P<module>Quotes|Sales_Orders)/(?P<reference>[^/]+)/actions/convert", {"POST": Kind.INVENTORY_CONVERT}),
    ("(?P<module>Leads)/(?P<reference>[^/]+)/__conversion_options", {"GET": Kind.CONVERSION_OPTIONS}),
    (
        _R + "/photo",
        {"GET": Kind.PHOTO_GET, "POST": Kind.PHOTO_POST, "DELETE": Kind.PHOTO_DELETE},
    ),
    (_R + "/actions/portal_invite", {"POST": Kind.PORTAL_INVITE}),
    (_R + "/actions/assign_territories", {"POST": Kind.ASSIGN_TERRITORIES_ONE}),
    (_R + "/actions/remove_territories", {"POST": Kind.REMOVE_TERRITORIES_ONE}),
    (_R + "/actions/blueprint", {"PUT": Kind.BLUEPRINT}),
    (_R + "/actions/send_mail", {"POST": Kind.SEND_MAIL}),
    (_R + "/actions/clone", {"POST": Kind.CLONE}),
    (_R + "/Locking_Information__s", {"GET": Kind.LOCKS, "POST": Kind.LOCK}),
    (
        _R + "/Locking_Information__s/(?P<lock_id>[^/]+)",
        {"GET": Kind.LOCK_READ, "PUT": Kind.LOCK_CHANGE, "DELETE": Kind.UNLOCK},
    ),
)
_ROUTES = tuple((re.compile(pattern), kinds) for pattern, kinds in _TABLE)


def resolve(method: str, path: str) -> Route:
    """Return the route of a request.

    Args:
        method: HTTP method.
        path: Percent-encoded path. Anything may stand between `/crm` and `/vN` (ZOHO docs: composite-api).

    Raises:
        RequestError: No such address (404), or it does not take this method (405).
    """
    if path == TOKEN_PATH and method == "POST":
        return Route(Kind.TOKEN, _VERSIONS[0])
    address = _ADDRESS.fullmatch(path)
    if address is None or not _VERSIONS[0] <= float(address[1]) < _VERSIONS[1]:
        raise RequestError(invalid_url())
    for pattern, kinds in _ROUTES:
        if found := pattern.fullmatch(address[2]):
            if method not in kinds:
                raise RequestError(wrong_method())
            parts = {name: unquote(value) for name, value in found.groupdict().items()}
            return Route(kinds[method], float(address[1]), **parts)
    raise RequestError(invalid_url())
