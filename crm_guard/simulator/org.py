"""What clients ask on the way to a record: the token, modules, fields, the user and the organization.

OAS: modules, fields, users, org; of the many keys only those that clients read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .datatypes import DataType, common_type, plain_type
from .messages import Json, Reply, RequestError, answer, bare, missing_param
from .records import USER
from .routes import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .records import Record
    from .visit import Visit

_TOKEN_SECONDS = 3600
_ORG_ID = "5725767"
_FIRST_MODULE_ID = 5725767000000002175
_FIRST_FIELD_ID = 5725767000000002600
# The usual ones, in the order of their ids.
_MODULES = (
    *("Leads", "Contacts", "Accounts", "Deals", "Products", "Vendors"),
    *("Tasks", "Events", "Calls", "Notes", "Campaigns", "Cases", "Solutions", "Price_Books"),
    *("Quotes", "Sales_Orders", "Purchase_Orders", "Invoices"),
)
KNOWN = "(known are the usual modules, and those that have a record)"
"""A word for answers about a module that is none."""
_FIRST_RECORDS = (Kind.CREATE, Kind.UPSERT)
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "Leads": ("Last_Name", "First_Name", "Company", "Email", "Phone", "Description"),
    "Contacts": ("Last_Name", "First_Name", "Email", "Phone", "Description"),
    "Accounts": ("Account_Name", "Phone", "Website", "Description"),
    "Deals": ("Deal_Name", "Stage", "Description"),
    "Notes": ("Note_Title", "Note_Content"),
}
_OWN_FIELDS: Mapping[str, DataType] = {
    "Owner": DataType.OWNER,
    "Created_Time": DataType.DATETIME,
    "Modified_Time": DataType.DATETIME,
}
_USER_FIELDS: Json = {
    "id": USER["id"],
    "full_name": USER["name"],
    "first_name": USER["name"].partition(" ")[0],
    "last_name": USER["name"].partition(" ")[2],
    "email": "patricia.boyle@zylker.example",
    "role": {"name": "CEO", "id": "5725767000000026005"},
    "profile": {"name": "Administrator", "id": "5725767000000026011"},
    "status": "active",
    "confirm": True,
    "type__s": "Regular User",
}
# What the one user is; and what a user may be besides (OAS).
_HIS_TYPES = frozenset(
    {
        *("ActiveAndDeactive", "ActiveConfirmedAdmins", "ActiveConfirmedUsers", "ActiveUsers", "AdminUsers"),
        *("AllActiveUsers", "AllUsers", "ConfirmedUsers", "CurrentUser"),
    }
)
_OTHER_TYPES = frozenset(
    {
        *("ActiveLiteUser", "ChildRoleUsers", "ConfirmedReportingUsers", "DeactiveUsers", "DeletedUsers"),
        *("DeveloperUsers", "NotConfirmedUsers", "ParentRoleUsers", "SubordinateRoleUsers"),
    }
)


def issue_token(visit: Visit) -> Reply:
    """POST /oauth/v2/token, of the accounts server. Any client and grant will do."""
    visit.notes.credits = 0
    host = visit.request.header("Host")
    token = {"access_token": visit.new_token(), "expires_in": _TOKEN_SECONDS, "token_type": "Bearer"}
    return answer(200, {**token, **({"api_domain": f"http://{host}"} if host else {})})


def list_modules(visit: Visit) -> Reply:
    """GET /settings/modules: the usual ones, and those that have records."""
    return answer(200, {"modules": [_module(name, key) for name, key in module_ids(visit).items()]})


def show_module(visit: Visit) -> Reply:
    """GET /settings/modules/{module}, by its API name or its id."""
    found = [_module(name, key) for name, key in module_ids(visit).items() if visit.route.entry in (name, key)]
    if not found:
        raise RequestError(_unknown_module({"resource_path_index": 2}))
    return answer(200, {"modules": found})


def known_modules(visit: Visit) -> Sequence[str]:
    """Return the API names of the usual modules, and of those that have records."""
    return list(dict.fromkeys((*_MODULES, *(record.module for record in visit.store.records.values()))))


def require_module(visit: Visit) -> None:
    """Check that there is a module of the name in the path. One comes to be with its first record.

    Raises:
        RequestError: There is none.
    """
    name = visit.route.module
    if name and visit.route.kind not in _FIRST_RECORDS and not is_module(visit, name):
        raise RequestError(_unknown_module({"resource_path_index": 0}))


def is_module(visit: Visit, name: str) -> bool:
    """Return whether a module is a usual one, or has records."""
    return name in _MODULES or any(record.module == name for record in visit.store.records.values())


def module_ids(visit: Visit) -> Mapping[str, str]:
    """Return the API names of the modules that are known, with their ids."""
    return {name: str(_FIRST_MODULE_ID + number) for number, name in enumerate(known_modules(visit))}


def list_fields(visit: Visit) -> Reply:
    """GET /settings/fields?module=: the usual ones, and those that the module's records have."""
    return answer(200, {"fields": list(_fields(visit))})


def show_field(visit: Visit) -> Reply:
    """GET /settings/fields/{field}?module=, by its id; by its API name, too, as CRM does for modules."""
    found = [entry for entry in _fields(visit) if visit.route.entry in (entry["id"], entry["api_name"])]
    if not found:
        where = {"resource_path_index": 2}
        raise RequestError(bare(400, "INVALID_DATA", "The Field Id is Invalid", where))
    return answer(200, {"fields": found})


def list_users(visit: Visit) -> Reply:
    """GET /users: there is one, who is all that a user can be at once. No user of a type is 204 (undocumented)."""
    kind, ids = visit.request.param("type") or "AllUsers", visit.request.param("ids")
    if kind not in _HIS_TYPES | _OTHER_TYPES:
        raise RequestError(bare(400, "INVALID_DATA", "the type given seems to be invalid", {"param_name": "type"}))
    page = visit.request.param("page") or "1"
    if kind in _OTHER_TYPES or page != "1" or (ids and USER["id"] not in ids.split(",")):
        return Reply(status=204)
    info = {"per_page": 200, "count": 1, "page": 1, "more_records": False}
    return answer(200, {"users": [dict(_USER_FIELDS)], "info": info})


def show_user(visit: Visit) -> Reply:
    """GET /users/{user}."""
    if visit.route.entry != USER["id"]:
        where = {"resource_path_index": 1}
        raise RequestError(bare(400, "INVALID_DATA", "the id given seems to be invalid", where))
    return answer(200, {"users": [dict(_USER_FIELDS)]})


def show_org(_visit: Visit) -> Reply:
    """GET /org."""
    return answer(200, {"org": [{"id": f"{_ORG_ID}000000000001", "zgid": _ORG_ID, "company_name": "Zylker"}]})


def _unknown_module(details: Json) -> Reply:
    """Return the answer about a module that CRM does not know, with a word on those that the simulator does."""
    return bare(400, "INVALID_MODULE", f"the module name given seems to be invalid {KNOWN}", details)


def _module(name: str, key: str) -> Json:
    return {
        "id": key,
        "api_name": name,
        "module_name": name,
        "singular_label": name.removesuffix("s"),
        "plural_label": name,
        "generated_type": "default" if name in _MODULES else "custom",
        "api_supported": True,
        "creatable": True,
        "editable": True,
        "deletable": True,
        "viewable": True,
        "visible": True,
        "status": "visible",
    }


def _fields(visit: Visit) -> Iterator[Json]:
    """Yield the fields of the module that the query names.

    Raises:
        RequestError: It names none, or one that is not known.
    """
    module = visit.request.param("module")
    if not module:
        raise RequestError(missing_param("module"))
    ids = module_ids(visit)
    if module not in ids:
        raise RequestError(_unknown_module({"param_name": "module"}))
    records = list(visit.store.living(module, visit.now))
    held = [name for record in records for name in record.fields]
    names = dict.fromkeys((*_FIELDS.get(module, ("Name",)), *held, *_OWN_FIELDS))
    mandatory = visit.options.mandatory.get(module, ())
    for number, name in enumerate(names):
        values = [record.fields.get(name) for record in records]
        kind = _OWN_FIELDS.get(name) or common_type(name, values) or plain_type(name)
        yield {
            "id": str(_FIRST_FIELD_ID + number),
            "api_name": name,
            "field_label": name.replace("_", " "),
            "data_type": kind.value,
            "length": 255,
            "system_mandatory": name in mandatory,
            "read_only": name in _OWN_FIELDS,
            "custom_field": False,
            "visible": True,
            "currency": {},
            "lookup": _target(visit, values, ids) if kind is DataType.LOOKUP else {},
            "pick_list_values": [],
        }


def _target(visit: Visit, values: Sequence[Any], module_ids: Mapping[str, str]) -> Json:
    """Return to which module a lookup leads, by the records that its values name; nothing where none is there."""
    ids = (str(value.get("id")) for value in values if isinstance(value, dict))
    record: Record | None = next((visit.store.records[key] for key in ids if key in visit.store.records), None)
    if record is None:
        return {}
    return {
        "module": {"api_name": record.module, "id": module_ids[record.module]},
        "display_label": record.module,
    }
