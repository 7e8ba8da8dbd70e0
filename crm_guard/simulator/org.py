"""What clients ask on the way to a record: the token, modules, fields, the user and the organization.

OAS: modules, fields, users, org; of the many keys only those that clients read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .messages import Json, Reply, RequestError, answer, missing_param
from .records import USER

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .visit import Visit

_TOKEN_SECONDS = 3600
_ORG_ID = "5725767"
_MODULES = ("Leads", "Contacts", "Accounts", "Deals", "Products", "Vendors")
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "Leads": ("Last_Name", "First_Name", "Company", "Email", "Phone", "Description"),
    "Contacts": ("Last_Name", "First_Name", "Email", "Phone", "Description"),
    "Accounts": ("Account_Name", "Phone", "Website", "Description"),
    "Deals": ("Deal_Name", "Stage", "Description"),
}
_TYPES = ((bool, "boolean"), (int, "integer"), (float, "double"))


def issue_token(visit: Visit) -> Reply:
    """POST /oauth/v2/token, of the accounts server. Any client and grant will do."""
    visit.notes.credits = 0
    host = visit.request.header("Host")
    token = {"access_token": visit.new_token(), "expires_in": _TOKEN_SECONDS, "token_type": "Bearer"}
    return answer(200, {**token, **({"api_domain": f"http://{host}"} if host else {})})


def list_modules(visit: Visit) -> Reply:
    """GET /settings/modules: the usual ones, and those that have records."""
    names = dict.fromkeys((*_MODULES, *(record.module for record in visit.store.records.values())))
    return answer(200, {"modules": [_module(name, number) for number, name in enumerate(names)]})


def list_fields(visit: Visit) -> Reply:
    """GET /settings/fields?module=: the usual ones, and those that the module's records have."""
    module = visit.request.param("module")
    if not module:
        raise RequestError(missing_param("module"))
    values: dict[str, Any] = dict.fromkeys(_FIELDS.get(module, ("Name",)), "")
    for record in visit.store.living(module, visit.now):
        values |= record.fields
    mandatory = visit.options.mandatory.get(module, ())
    return answer(200, {"fields": list(_fields(values, mandatory))})


def list_users(_visit: Visit) -> Reply:
    """GET /users: there is one."""
    first, _, last = USER["name"].partition(" ")
    user = {
        "id": USER["id"],
        "full_name": USER["name"],
        "first_name": first,
        "last_name": last,
        "email": "patricia.boyle@zylker.example",
        "status": "active",
        "confirm": True,
    }
    info = {"per_page": 200, "count": 1, "page": 1, "more_records": False}
    return answer(200, {"users": [user], "info": info})


def show_org(_visit: Visit) -> Reply:
    """GET /org."""
    return answer(200, {"org": [{"id": f"{_ORG_ID}000000000001", "zgid": _ORG_ID, "company_name": "Zylker"}]})


def _module(name: str, number: int) -> Json:
    return {
        "id": str(5725767000000002175 + number),
        "api_name": name,
        "module_name": name,
        "plural_label": name,
        "generated_type": "default" if name in _MODULES else "custom",
        "api_supported": True,
        "visible": True,
    }


def _fields(values: Mapping[str, Any], mandatory: Iterable[str]) -> Iterable[Json]:
    for number, (name, value) in enumerate(values.items()):
        kind = next((kind for known, kind in _TYPES if isinstance(value, known)), "text")
        yield {
            "id": str(5725767000000002600 + number),
            "api_name": name,
            "field_label": name.replace("_", " "),
            "data_type": kind,
            "length": 255,
            "system_mandatory": name in mandatory,
            "read_only": False,
            "custom_field": False,
            "visible": True,
            "currency": {},
            "lookup": {},
            "pick_list_values": [],
        }
