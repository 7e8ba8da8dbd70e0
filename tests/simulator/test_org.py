"""What clients ask on the way to a record."""

import pytest

from crm_guard.simulator import Engine, Request


def ask(engine, method, path, query="", token="none"):
    headers = {"Authorization": f"Zoho-oauthtoken {token}", "Host": "127.0.0.1:1"}
    return engine.handle(Request(method=method, path=path, query=query, headers=headers))


def test_a_new_token_is_accepted_from_then_on_and_costs_nothing():
    engine = Engine(token="old", credits=10)
    engine.expire_token()
    assert ask(engine, "GET", "/crm/v8/org", token="old").status == 401
    answer = ask(engine, "POST", "/oauth/v2/token").json()
    assert answer["api_domain"] == "http://127.0.0.1:1"
    assert ask(engine, "GET", "/crm/v8/org", token=answer["access_token"]).status == 200
    assert engine.credits_spent == 1


def test_a_crm_that_accepts_any_token_still_gives_one_out():
    engine = Engine()
    assert ask(engine, "POST", "/oauth/v2/token").json()["access_token"]
    assert engine.tokens is None


def test_modules_and_fields_cover_the_records_that_are_there():
    engine = Engine()
    engine.add_record("Cars", fields={"Doors": 4, "Sold": True, "Price": 1.5, "Colour": "red"})
    modules = {
        found["api_name"]: found for found in ask(engine, "GET", "/crm/v8/settings/modules").json()["modules"]
    }
    assert modules["Leads"]["generated_type"] == "default"
    assert modules["Cars"]["generated_type"] == "custom"
    fields = ask(engine, "GET", "/crm/v8/settings/fields", "module=Cars").json()["fields"]
    types = {found["api_name"]: found["data_type"] for found in fields}
    assert types == {
        "Name": "text",
        "Doors": "integer",
        "Sold": "boolean",
        "Price": "double",
        "Colour": "text",
        "Owner": "ownerlookup",
        "Created_Time": "datetime",
        "Modified_Time": "datetime",
    }


def test_fields_of_no_module_are_refused():
    assert ask(Engine(), "GET", "/crm/v8/settings/fields").json()["code"] == "REQUIRED_PARAM_MISSING"


def fields_of(engine, module):
    answer = ask(engine, "GET", "/crm/v8/settings/fields", f"module={module}").json()
    return {found["api_name"]: found for found in answer["fields"]}


def test_data_types_follow_names_and_values():
    engine = Engine()
    account = engine.add_record("Accounts")
    engine.add_record("Leads")
    engine.add_record(
        "Leads",
        fields={
            "Day": "2024-01-31",
            "Instant": "2024-01-31T10:00:00+01:00",
            "Account": {"id": account, "name": "Zylker"},
            "Unknown": {"id": "77"},
            "Tags": ["a"],
            "Rows": [{"a": 1}],
            "Lead_Status": "Hot",
        },
    )
    found = fields_of(engine, "Leads")
    types = {name: found[name]["data_type"] for name in found}
    assert (
        types
        | {
            "Email": "email",
            "Phone": "phone",
            "Description": "textarea",
            "Day": "date",
            "Instant": "datetime",
            "Account": "lookup",
            "Unknown": "lookup",
            "Tags": "multiselectpicklist",
            "Rows": "subform",
            "Lead_Status": "picklist",
        }
        == types
    )
    assert found["Account"]["lookup"]["module"]["api_name"] == "Accounts"
    assert found["Unknown"]["lookup"] == {}


def test_a_field_is_found_by_its_id_or_name():
    engine = Engine()
    email = fields_of(engine, "Leads")["Email"]
    for key in (email["id"], "Email"):
        answer = ask(engine, "GET", f"/crm/v8/settings/fields/{key}", "module=Leads")
        assert answer.json() == {"fields": [email]}
    answer = ask(engine, "GET", "/crm/v8/settings/fields/5", "module=Leads")
    assert (answer.status, answer.json()["details"]) == (400, {"resource_path_index": 2})
    assert ask(engine, "GET", f"/crm/v8/settings/fields/{email['id']}").json()["code"] == "REQUIRED_PARAM_MISSING"


def test_a_module_is_found_by_its_name_or_id():
    engine = Engine()
    engine.add_record("Cars")
    listed = ask(engine, "GET", "/crm/v8/settings/modules").json()["modules"]
    assert len({module["id"] for module in listed}) == len(listed)
    cars = listed[-1]
    for key in ("Cars", cars["id"]):
        assert ask(engine, "GET", f"/crm/v8/settings/modules/{key}").json() == {"modules": [cars]}


def test_a_module_without_a_record_that_is_none_of_the_usual_is_invalid():
    answer = ask(Engine(), "GET", "/crm/v8/settings/modules/Cars")
    assert (answer.status, answer.json()["details"]) == (400, {"resource_path_index": 2})
    answer = ask(Engine(), "GET", "/crm/v8/settings/fields", "module=Cars")
    assert (answer.status, answer.json()["code"]) == (400, "INVALID_MODULE")
    assert answer.json()["details"] == {"param_name": "module"}


USER = "5725767000000411001"


@pytest.mark.parametrize(
    "query", ["", "type=CurrentUser", "type=AllUsers", "type=ActiveConfirmedAdmins", f"ids={USER}"]
)
def test_there_is_one_user(query):
    users = ask(Engine(), "GET", "/crm/v8/users", query).json()
    assert [(user["id"], user["full_name"]) for user in users["users"]] == [(USER, "Patricia Boyle")]
    assert users["info"]["more_records"] is False


@pytest.mark.parametrize("query", ["type=DeletedUsers", "type=NotConfirmedUsers", "page=2", "ids=5"])
def test_there_is_no_other_user(query):
    assert ask(Engine(), "GET", "/crm/v8/users", query).status == 204


def test_an_unknown_type_of_users_is_refused():
    answer = ask(Engine(), "GET", "/crm/v8/users", "type=Nobody").json()
    assert (answer["code"], answer["details"]) == ("INVALID_DATA", {"param_name": "type"})


def test_the_user_is_found_by_id():
    answer = ask(Engine(), "GET", f"/crm/v8/users/{USER}").json()
    assert answer["users"][0]["profile"]["name"] == "Administrator"
    answer = ask(Engine(), "GET", "/crm/v8/users/5")
    assert (answer.status, answer.json()["details"]) == (400, {"resource_path_index": 1})


def test_there_is_one_organization():
    assert ask(Engine(), "GET", "/crm/v8/org").json()["org"][0]["zgid"]
