"""Zoho's own SDK, pointed at the simulated CRM, with nothing left of it after a test."""

import importlib
import types
import warnings

import pytest

from crm_guard import install

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(200))


ROOT = "zohocrmsdk.src.com.zoho"
NAMES = {
    "OAuthToken": "api.authenticator.oauth_token",
    "FileStore": "api.authenticator.store",
    "HeaderMap": "crm.api",
    "Initializer": "crm.api",
    "ParameterMap": "crm.api",
    "convert_lead": "crm.api",
    "record": "crm.api",
    "tags": "crm.api",
    "DataCenter": "crm.api.dc",
    "SDKException": "crm.api.exception",
    "StreamWrapper": "crm.api.util",
}


def load():
    """Import what we use of the SDK."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the SDK's own sources, and only while they are compiled
        for module in ("crm.api.record", "crm.api.tags", "crm.api.convert_lead"):
            importlib.import_module(f"{ROOT}.{module}")
        found = {name: getattr(importlib.import_module(f"{ROOT}.{where}"), name) for name, where in NAMES.items()}
    return types.SimpleNamespace(**found)


class SDK:
    """The official SDK with a few of its many words put together."""

    def __init__(self, names):
        self.names = names
        self.error = names.SDKException

    @property
    def leads(self):
        return self.names.record.RecordOperations("Leads")

    def body(self, lead=None, company="Zylker"):
        row = self.names.record.Record()
        row.add_key_value("Company", company)
        if lead is not None:
            row.set_id(int(lead))
        wrapper = self.names.record.BodyWrapper()
        wrapper.set_data([row])
        return wrapper

    def update(self, lead):
        return self.leads.update_record(int(lead), self.body(), self.names.HeaderMap())

    def rows(self, *leads):
        return [row for lead in leads for row in self.body(lead).get_data()]

    def update_many(self, *leads):
        body = self.body()
        body.set_data(self.rows(*leads))
        return self.leads.update_records(body, self.names.HeaderMap())

    def delete(self, lead):
        return self.leads.delete_record(int(lead), self.names.ParameterMap(), self.names.HeaderMap())

    def delete_many(self, *leads):
        params = self.names.ParameterMap()
        params.add(self.names.record.DeleteRecordsParam.ids, ",".join(leads))
        return self.leads.delete_records(params, self.names.HeaderMap())

    def upload_photo(self, lead):
        body = self.names.record.FileBodyWrapper()
        body.set_file(self.names.StreamWrapper("photo.png", PNG))
        return self.leads.upload_photo(int(lead), body)

    def download_photo(self, lead):
        return self.leads.get_photo(int(lead))

    def delete_photo(self, lead):
        return self.leads.delete_photo(int(lead))

    def add_tags(self, lead):
        return self.names.tags.TagsOperations().add_tags("Leads", int(lead), self._tags())

    def add_tags_to_many(self, *leads):
        body = self._tags()
        body.set_ids([int(lead) for lead in leads])
        return self.names.tags.TagsOperations().add_tags_to_multiple_records("Leads", body)

    def convert(self, lead):
        row = self.names.convert_lead.LeadConverter()
        row.set_overwrite(True)
        body = self.names.convert_lead.BodyWrapper()
        body.set_data([row])
        return self.names.convert_lead.ConvertLeadOperations(int(lead)).convert_lead(body)

    def _tags(self):
        tag = self.names.tags.Tag()
        tag.set_name("hot")
        body = self.names.tags.NewTagRequestWrapper()
        body.set_tags([tag])
        return body


def signed_in(monkeypatch, folder, environment):
    """Return the official SDK, signed in at an environment of its own kind, until the end of the test."""
    names = load()
    # Setting both attributes through monkeypatch has it put them back, too.
    monkeypatch.setattr(names.Initializer, "initializer", None)
    monkeypatch.setattr(names.Initializer.LOCAL, "init", None, raising=False)
    names.Initializer.initialize(
        environment,
        names.OAuthToken(client_id="id", client_secret="secret", refresh_token="refresh"),
        store=names.FileStore(str(folder / "tokens.txt")),
        resource_path=str(folder),
    )
    return SDK(names)


@pytest.fixture
def sdk(crm, monkeypatch, tmp_path):
    """The official SDK, signed in at the simulated CRM."""
    environment = load().DataCenter.Environment(crm.url, f"{crm.url}/oauth/v2/token", crm.url)
    return signed_in(monkeypatch, tmp_path, environment)


@pytest.fixture
def installed(crm, clock):
    """The shared guard, under everything that calls the simulated CRM."""
    with install(crm.url, clock=clock) as guard:
        yield guard
