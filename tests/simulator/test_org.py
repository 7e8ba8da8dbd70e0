"""What clients ask on the way to a record."""

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
    assert types == {"Name": "text", "Doors": "integer", "Sold": "boolean", "Price": "double", "Colour": "text"}


def test_fields_of_no_module_are_refused():
    assert ask(Engine(), "GET", "/crm/v8/settings/fields").json()["code"] == "REQUIRED_PARAM_MISSING"


def test_there_is_one_user_in_one_organization():
    users = ask(Engine(), "GET", "/crm/v8/users", "type=CurrentUser").json()
    assert [user["full_name"] for user in users["users"]] == ["Patricia Boyle"]
    assert users["info"]["more_records"] is False
    assert ask(Engine(), "GET", "/crm/v8/org").json()["org"][0]["zgid"]
