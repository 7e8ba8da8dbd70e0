"""Every documented endpoint, from method and path to what may be sent again."""

import pytest

from crm_guard import GuardSettings, RecordLockedError, get_report
from crm_guard._protocol.endpoints import OTHER_READ, OTHER_WRITE, IdsIn, Resend, locate
from crm_guard.remediation import Family

LOCK = {
    "code": "RECORD_LOCKED",
    "details": {"action": "zia_vision_processing"},
    "message": "Cannot update record that is not approved yet",
    "status": "error",
}

# Method, path, name, where the records stand, what may be sent again, family.
ENDPOINTS = [
    ("PUT", "Leads", "update", "BODY_DATA", "NARROWED", "UPDATE"),
    ("PUT", "Leads/1", "update one", "PATH", "WHOLE", "UPDATE"),
    ("POST", "Leads", "create", "BODY_DATA", "NARROWED", "UPDATE"),
    ("POST", "Leads/upsert", "upsert", "BODY_DATA", "NARROWED", "UPDATE"),
    ("DELETE", "Leads", "delete", "IDS", "NARROWED", "DELETE"),
    ("DELETE", "Leads/1", "delete one", "PATH", "WHOLE", "DELETE"),
    ("POST", "Leads/actions/add_tags", "add tags", "IDS", "NARROWED", "UPDATE"),
    ("POST", "Leads/actions/remove_tags", "remove tags", "IDS", "NARROWED", "UPDATE"),
    ("POST", "Leads/1/actions/add_tags", "add tags to one", "PATH", "WHOLE", "UPDATE"),
    ("POST", "Leads/1/actions/remove_tags", "remove tags from one", "PATH", "WHOLE", "UPDATE"),
    ("POST", "Leads/1/actions/share", "share", "PATH", "WHOLE", "UPDATE"),
    ("PUT", "Leads/1/actions/share", "share", "PATH", "WHOLE", "UPDATE"),
    ("DELETE", "Leads/1/actions/share", "revoke share", "PATH", "WHOLE", "UPDATE"),
    ("POST", "Leads/actions/mass_update", "mass update", "IDS", "NARROWED", "UPDATE"),
    ("POST", "Leads/actions/mass_delete", "mass delete", "IDS", "NARROWED", "DELETE"),
    ("POST", "Leads/actions/change_owner", "change owner", "IDS", "NARROWED", "UPDATE"),
    ("POST", "Leads/1/actions/change_owner", "change owner of one", "PATH", "WHOLE", "UPDATE"),
    ("POST", "Leads/actions/assign_territories", "assign territories", "BODY_DATA", "NARROWED", "UPDATE"),
    ("POST", "Leads/actions/remove_territories", "remove territories", "BODY_DATA", "NARROWED", "UPDATE"),
    ("POST", "Leads/1/actions/assign_territories", "assign territories to one", "PATH", "WHOLE", "UPDATE"),
    ("POST", "Leads/1/actions/remove_territories", "remove territories from one", "PATH", "WHOLE", "UPDATE"),
    ("PUT", "Leads/1/actions/blueprint", "update blueprint", "PATH", "WHOLE", "UPDATE"),
    ("POST", "Leads/1/actions/clone", "clone", "PATH", "WHOLE", "UPDATE"),
    ("POST", "Leads/1/actions/send_mail", "send mail", "PATH", "WHOLE", "UPDATE"),
    ("POST", "Leads/1/actions/convert", "convert", "PATH", "WHOLE", "CONVERT"),
    ("POST", "Quotes/1/actions/convert", "convert inventory", "PATH", "WHOLE", "APPROVAL_ONLY"),
    ("POST", "Leads/actions/mass_convert", "mass convert", "IDS", "NEVER", "CONVERT"),
    ("GET", "Leads/1/photo", "download image", "PATH", "WHOLE", "PHOTO_READ"),
    ("POST", "Leads/1/photo", "upload image", "PATH", "WHOLE", "PHOTO_WRITE"),
    ("DELETE", "Leads/1/photo", "delete image", "PATH", "WHOLE", "PHOTO_WRITE"),
    ("GET", "Leads/1/__conversion_options", "conversion options", "PATH", "WHOLE", "APPROVAL_ONLY"),
    ("POST", "Contacts/1/actions/portal_invite", "portal invite", "PATH", "WHOLE", "APPROVAL_ONLY"),
    ("POST", "__composite_requests", "composite", "COMPOSITE", "NEVER", "OTHER"),
    ("POST", "coql", "query", "PATH", "WHOLE", "OTHER"),
]
SOME_ACCEPTED = {"change owner", "assign territories", "remove territories"}  # 202 where others answer 207
SOME_FINE = {"add tags", "remove tags"}  # and 200
READS = {"download image", "conversion options", "query"}


@pytest.mark.parametrize(("method", "path", "name", "ids_in", "resend", "family"), ENDPOINTS)
def test_a_documented_endpoint_is_known(method, path, name, ids_in, resend, family):
    endpoint = locate(method, path).endpoint
    assert (endpoint.name, endpoint.ids_in, endpoint.resend) == (name, IdsIn[ids_in], Resend[resend])
    assert (endpoint.family, endpoint.reads) == (Family[family], name in READS)
    assert endpoint.entries == ("share" in name)
    assert endpoint.partial_status == (202 if name in SOME_ACCEPTED else 200 if name in SOME_FINE else 207)


@pytest.mark.parametrize(("method", "path", "name"), [row[:3] for row in ENDPOINTS])
@pytest.mark.parametrize("disguise", ["{}/", "/{}", "{}//", "custom"])
def test_slashes_and_custom_modules_make_no_difference(method, path, name, disguise):
    if disguise != "custom":
        path = disguise.format(path)
    elif name not in {"convert", "composite", "query", "convert inventory"}:
        path = path.replace("Leads", "Zia_Tests__c")
    assert locate(method, path).endpoint.name == name


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "Leads/1"),
        ("POST", "Leads/1/Notes"),
        ("PUT", "Leads/1/Products/2"),
        ("POST", "Leads/1/actions/unheard_of"),
        ("POST", "Leads/actions/unheard_of"),
        ("PATCH", "Leads/1"),
        ("PATCH", "Leads"),
        ("PUT", "Leads/upsert"),
        ("DELETE", "Leads/1/photo/2"),
        ("POST", "leads/1/actions/CONVERT"),
        ("POST", "__composite_requests/1"),
        ("POST", "bulk/v8/write"),
        ("POST", ""),
        ("POST", "/"),
    ],
)
def test_an_unknown_write_is_read_with_caution(method, path):
    assert locate(method, path).endpoint is OTHER_WRITE


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "Leads"),
        ("GET", "Leads/1"),
        ("GET", "coql"),
        ("HEAD", "Leads/1/photo"),
        ("OPTIONS", "Leads"),
        ("GET", ""),
    ],
)
def test_an_unknown_read_is_a_read(method, path):
    assert locate(method, path).endpoint is OTHER_READ
    assert OTHER_READ.reads


@pytest.mark.parametrize(
    ("path", "module", "record_id"),
    [
        ("Leads/111112000000075003", "Leads", "111112000000075003"),
        ("Leads/1/actions/convert", "Leads", "1"),
        ("Leads/upsert", "Leads", None),
        ("Leads/actions/add_tags", "Leads", None),
        ("Leads/deleted", "Leads", None),
        ("Leads/search", "Leads", None),
        ("Leads", "Leads", None),
        ("", None, None),
        ("__composite_requests", None, None),
        ("__apis/1", None, None),
        ("L%65ads/%31%32", "Leads", "12"),
        ("Leads/EXT%2F1", "Leads", "EXT/1"),
        ("Leads/%ff", "Leads", "\ufffd"),
    ],
)
def test_module_and_record_are_found_in_the_path(path, module, record_id):
    route = locate("PUT", path)
    assert (route.module, route.record_id) == (module, record_id)


@pytest.mark.parametrize(
    ("index", "wanted"),
    [(1, "7"), (0, None), (2, None), (-1, None), (True, None), ("1", None), (None, None), ([], None)],
)
def test_only_index_one_of_the_path_names_the_record(index, wanted):
    assert locate("PUT", "Leads/7/photo").record_at(index) == wanted


CRM_PATHS = [
    *(f"/crm/{version}/Leads/1" for version in ("v2", "v2.1", "v2.2", "v3", "v4", "v5", "v6", "v7", "v8", "v10")),
    "/crm/sandbox/v8/Leads/1",
    "/crm/org12345/v2.1/Leads/1",
    "/crm/v8/Leads/1/",
    "/crm/v8/L%65ads/1?trigger=workflow",
    "/crm/v8/Leads/1?next=/crm/v2/Contacts/2",
]
OTHER_PATHS = [
    "/books/v3/invoices/1",
    "/bigin/v2/Leads/1",
    "/crm/Leads/1",
    "/crm/v8",
    "/crm/vX/Leads/1",
    "/crm/8/Leads/1",
    "/CRM/v8/Leads/1",
    "/crmplus/v8/Leads/1",
    "/crm/a/b/v8/Leads/1",
    "/other/crm/v8/Leads/1",
    "/?path=/crm/v8/Leads/1",
    "/oauth/v2/token",
]


@pytest.mark.parametrize("path", CRM_PATHS)
def test_every_version_of_the_api_is_guarded(canned, path):
    session = canned((400, {"data": [LOCK]}), timeout=0)
    with pytest.raises(RecordLockedError) as caught:
        session.put(f"https://www.zohoapis.com{path}")
    assert caught.value.outcomes[0].record_id == "1"
    plain = get_report(session.inner.given[0])
    assert (plain.outcomes[0].record_id, plain.outcomes[0].retryable) == ("1", True)


@pytest.mark.parametrize("path", OTHER_PATHS)
def test_p1_other_paths_are_none_of_its_business(canned, path):
    session = canned((400, {"data": [LOCK]}), timeout=0)
    response = session.put(f"https://www.zohoapis.com{path}", stream=True)
    assert response is session.inner.given[0]
    assert response.raw.tell() == 0
    assert not get_report(response).outcomes


def test_the_default_path_pattern_is_that_of_the_reports():
    assert GuardSettings().path_pattern == r"/crm(/[^/]+)?/v\d+(\.\d+)?/"
