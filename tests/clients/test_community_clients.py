"""Clients that others wrote: one that holds a session, one that has none."""

import json

import pytest

from crm_guard import NotApprovedError, install, mount_guard

WHY = "needs the community clients: .venv/bin/pip install -e '.[clients]'"


class TestZohoCrmConnector:
    """It mounts adapters with retries of its own on the session that it makes."""

    @pytest.fixture
    def client(self, crm, tmp_path):
        connector = pytest.importorskip("zoho_crm_connector", reason=WHY)
        (tmp_path / "access_token.json").write_text(json.dumps({"access_token": "1000.abc"}))
        client = connector.Zoho_crm("refresh", "id", "secret", tmp_path, base_url=f"{crm.url}/crm/v8/")
        yield client
        client.requests_session.close()

    def test_a_locked_record_is_updated_through_the_session_that_it_holds(self, crm, client, clock):
        lead = crm.add_record("Leads", locked_for=5.0)
        with pytest.warns(UserWarning, match="status_forcelist") as warned:
            mount_guard(client.requests_session, crm.url, clock=clock)
        assert len(warned) == 1
        done, answer = client.update_zoho_module("Leads", {"data": [{"id": lead, "Company": "Zylker"}]})
        assert done
        assert answer["data"][0]["code"] == "SUCCESS"
        assert crm.writes(lead) == 1

    def test_its_own_retries_are_kept(self, crm, client, clock):
        with pytest.warns(UserWarning, match="status_forcelist"):
            guard = mount_guard(client.requests_session, crm.url, clock=clock)
        assert guard.max_retries.total == 10
        assert guard.max_retries.status_forcelist == (500, 502, 503, 504)

    def test_installing_reaches_it_too(self, crm, client, clock):
        lead = crm.add_record("Leads", locked_for=5.0)
        with install(crm.url, clock=clock), pytest.warns(UserWarning, match="status_forcelist") as warned:
            done, answer = client.delete_from_module("Leads", lead)
        assert done
        assert answer["data"][0]["code"] == "SUCCESS"
        assert len(warned) == 1

    def test_a_refusal_says_what_to_do(self, crm, client, clock):
        lead = crm.add_record("Leads", state="zia_vision_rejected")
        with pytest.warns(UserWarning, match="status_forcelist"):
            mount_guard(client.requests_session, crm.url, clock=clock)
        with pytest.raises(NotApprovedError, match="upload another image"):
            client.update_zoho_module("Leads", {"data": [{"id": lead, "Company": "Zylker"}]})


class TestZohoCrmApi:
    """It calls `requests.request`, and shows its user the item's message, nothing else."""

    @pytest.fixture
    def lead(self, crm):
        zohocrm = pytest.importorskip("zohocrm", reason=WHY)
        client = zohocrm.ZohoCRMRestClient("id", "secret", "https://client.example/")
        client.api_base_url = client.accounts_url = crm.url
        client.generate_access_token("grant")
        lead = zohocrm.ZohoCRMLead(client)
        lead.Company = "Zylker"
        return lead

    def test_a_locked_record_is_updated_and_deleted(self, crm, lead, installed):
        lead.id = crm.add_record("Leads", locked_for=5.0)
        lead.update()
        crm.set_state(lead.id, "zia_vision_validation", locked_for=5.0)
        record = lead.id
        lead.delete()
        assert crm.writes(record) == 2

    def test_its_error_holds_the_hint_where_hints_are_put_in_the_body(self, crm, lead, clock):
        lead.id = crm.add_record("Leads", state="zia_vision_rejected")
        policy = {"raise_on": "never", "hints_in_body": True}
        with (
            install(crm.url, clock=clock, settings=policy),
            pytest.raises(ValueError, match="upload another image"),
        ):
            lead.update()
