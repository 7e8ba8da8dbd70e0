"""What programs ask through Zoho's official Python SDK before and beside their writes."""

import importlib
import warnings

import pytest

from .conftest import ROOT


def part(name):
    """Import one of the SDK's packages, without the warnings about its own sources."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(f"{ROOT}.crm.api.{name}")


@pytest.fixture
def params(sdk):
    """Return a function that makes a parameter map of a class's parameters."""

    def make(kind, **values):
        found = sdk.names.ParameterMap()
        for name, value in values.items():
            found.add(getattr(kind, name), value)
        return found

    return make


@pytest.fixture
def people(crm):
    """An account with two contacts, one of which has a note."""
    account = crm.add_record("Accounts", fields={"Account_Name": "Zylker"})
    lookup = {"id": account, "name": "Zylker"}
    first = crm.add_record(
        "Contacts", fields={"Last_Name": "Boyle", "Email": "p@zylker.example", "Account_Name": lookup, "Age": 30}
    )
    second = crm.add_record("Contacts", fields={"Last_Name": "Burns,B", "Account_Name": lookup, "Age": 40})
    parent = {"id": first, "name": "Boyle", "module": {"api_name": "Contacts", "id": "5725767000000002176"}}
    note = crm.add_record("Notes", fields={"Note_Title": "call", "Note_Content": "back", "Parent_Id": parent})
    return {"account": account, "first": first, "second": second, "note": note}


def rows(answer):
    """Return the ids of the records in an answer."""
    assert answer.get_status_code() == 200
    return [str(row.get_id()) for row in answer.get_object().get_data()]


class TestSearch:
    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ({"criteria": r"(Last_Name:equals:Burns\,B)"}, ["second"]),
            ({"criteria": "((Age:greater_than:20) and (Last_Name:starts_with:B))"}, ["second", "first"]),
            ({"email": "@zylker"}, ["first"]),
            ({"word": "boyle"}, ["first"]),
        ],
    )
    def test_finds_records(self, sdk, params, people, values, expected):
        record = sdk.names.record
        found = record.RecordOperations("Contacts").search_records(
            params(record.SearchRecordsParam, **values), sdk.names.HeaderMap()
        )
        assert rows(found) == [people[name] for name in expected]
        assert found.get_object().get_info().get_count() == len(expected)

    def test_nothing_is_204(self, sdk, params, people):
        record = sdk.names.record
        found = record.RecordOperations("Contacts").search_records(
            params(record.SearchRecordsParam, word="nobody"), sdk.names.HeaderMap()
        )
        assert found.get_status_code() == 204

    def test_bad_criteria_are_the_sdks_own_exception(self, sdk, params, people):
        record = sdk.names.record
        found = record.RecordOperations("Contacts").search_records(
            params(record.SearchRecordsParam, criteria="(Age:starts_with:4)"), sdk.names.HeaderMap()
        )
        assert found.get_status_code() == 400
        assert found.get_object().get_code().get_value() == "INVALID_QUERY"

    def test_records_are_counted(self, sdk, people):
        found = sdk.names.record.RecordOperations("Contacts").record_count(sdk.names.ParameterMap())
        assert found.get_object().get_count() == 2


class TestCoql:
    def ask(self, query):
        coql = part("coql")
        body = coql.BodyWrapper()
        body.set_select_query(query)
        return coql.CoqlOperations().get_records(body)

    def test_finds_records(self, sdk, people):
        query = "select Last_Name, Account_Name.Account_Name from Contacts where Age > 30 limit 2"
        found = self.ask(query)
        assert rows(found) == [people["second"]]
        (row,) = found.get_object().get_data()
        assert row.get_key_value("Last_Name") == "Burns,B"
        assert row.get_key_value("Account_Name.Account_Name") == "Zylker"
        assert found.get_object().get_info().get_more_records() is False

    def test_a_syntax_error_is_the_sdks_own_exception(self, sdk, people):
        found = self.ask("select Last_Name from Contacts")
        assert found.get_status_code() == 400
        assert found.get_object().get_code().get_value() == "SYNTAX_ERROR"


class TestRelatedRecords:
    def test_are_listed_and_read(self, sdk, params, people):
        related = part("related_records")
        lists = related.RelatedRecordsOperations("Contacts", "Accounts")
        asked = params(related.GetRelatedRecordsParam, fields="Last_Name")
        found = lists.get_related_records(int(people["account"]), asked, sdk.names.HeaderMap())
        assert rows(found) == [people["second"], people["first"]]
        one = lists.get_related_record(
            int(people["first"]),
            int(people["account"]),
            params(related.GetRelatedRecordParam, fields="Last_Name"),
            sdk.names.HeaderMap(),
        )
        assert one.get_object().get_data()[0].get_key_value("Last_Name") == "Boyle"

    def test_so_are_the_notes_of_a_record(self, sdk, params, people):
        related = part("related_records")
        lists = related.RelatedRecordsOperations("Notes", "Contacts")
        asked = params(related.GetRelatedRecordsParam, fields="Note_Title,Parent_Id")
        assert rows(lists.get_related_records(int(people["first"]), asked)) == [people["note"]]

    def test_and_all_notes(self, sdk, params, people):
        notes = part("notes")
        asked = params(notes.GetNotesParam, fields="Note_Title,Note_Content,Parent_Id")
        found = notes.NotesOperations().get_notes(asked, sdk.names.HeaderMap())
        (note,) = found.get_object().get_data()
        assert (note.get_note_title(), note.get_note_content()) == ("call", "back")
        assert str(note.get_parent_id().get_id()) == people["first"]


class TestSettings:
    def test_modules_are_listed_and_read(self, sdk, crm):
        crm.add_record("Cars")
        modules = part("modules").ModulesOperations()
        listed = modules.get_modules(sdk.names.ParameterMap(), sdk.names.HeaderMap()).get_object().get_modules()
        cars = next(module for module in listed if module.get_api_name() == "Cars")
        assert cars.get_generated_type().get_value() == "custom"
        for found in (modules.get_module_by_api_name("Cars"), modules.get_module(cars.get_id())):
            assert [module.get_api_name() for module in found.get_object().get_modules()] == ["Cars"]

    def test_fields_are_listed_and_read(self, sdk, params, people):
        fields = part("fields")
        operations = fields.FieldsOperations()
        listed = operations.get_fields(params(fields.GetFieldsParam, module="Contacts")).get_object().get_fields()
        types = {field.get_api_name(): field.get_data_type() for field in listed}
        assert (types["Age"], types["Account_Name"], types["Email"]) == ("integer", "lookup", "email")
        field = next(field for field in listed if field.get_api_name() == "Age")
        found = operations.get_field(field.get_id(), params(fields.GetFieldParam, module="Contacts"))
        assert found.get_object().get_fields()[0].get_api_name() == "Age"

    def test_the_current_user_is_found_and_read(self, sdk, params):
        users = part("users")
        operations = users.UsersOperations()
        found = operations.get_users(params(users.GetUsersParam, type="CurrentUser"), sdk.names.HeaderMap())
        (user,) = found.get_object().get_users()
        assert user.get_full_name() == "Patricia Boyle"
        same = operations.get_user(user.get_id(), sdk.names.HeaderMap())
        assert same.get_object().get_users()[0].get_id() == user.get_id()


@pytest.mark.parametrize(
    ("package", "operations", "method"),
    [
        ("roles", "RolesOperations", "get_roles"),
        ("variables", "VariablesOperations", "get_variables"),
        ("currencies", "CurrenciesOperations", "get_currencies"),
    ],
)
def test_what_is_not_simulated_reaches_the_user_as_such(sdk, package, operations, method):
    answer = getattr(getattr(part(package), operations)(), method)()
    assert answer.get_status_code() == 404
    error = answer.get_object()
    assert error.get_code().get_value() == "INVALID_URL_PATTERN"
    message = error.get_message()
    assert "not simulated: GET /crm/v8/" in (message.get_value() if hasattr(message, "get_value") else message)


def test_records_with_fields_of_every_type_are_read_and_updated(sdk, crm):
    account = crm.add_record("Accounts", fields={"Parent_Account": {"id": "77", "name": "elsewhere"}})
    fields = {
        "Last_Name": "Boyle",
        "Account_Name": {"id": account, "name": "Zylker"},
        "Lead_Status": "Hot",
        "Tags": ["a", "b"],
        "Rows": [{"Amount": 1}],
        "Day": "2024-01-31",
        "Instant": "2024-01-31T10:00:00+01:00",
        "Sold": True,
        "Price": 1.5,
    }
    lead = crm.add_record("Leads", fields=fields)
    (row,) = sdk.leads.get_record(int(lead), sdk.names.ParameterMap()).get_object().get_data()
    assert row.get_key_value("Lead_Status").get_value() == "Hot"
    assert [tag.get_value() for tag in row.get_key_value("Tags")] == ["a", "b"]
    assert row.get_key_value("Day").isoformat() == "2024-01-31"
    assert sdk.update(lead).get_status_code() == 200
    assert crm.get(lead).fields == {**fields, "Company": "Zylker"}
