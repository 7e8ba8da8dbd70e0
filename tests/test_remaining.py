"""The rest of a job, as a request that a task queue can keep and send later."""

import copy
import io
import json
import pickle

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from crm_guard import RecordLockedError, RemainingRequest, get_report

URL = "https://www.zohoapis.com/crm/v8/Leads"
SECRETS = {"Authorization": "Zoho-oauthtoken 1000.abc", "Proxy-Authorization": "Basic xyz", "Cookie": "crmcsr=1"}


def remaining(method="PUT", url=URL, **options):
    return RemainingRequest.of(requests.Request(method, url, **options).prepare())


def there_and_back(request, **options):
    return RemainingRequest.from_dict(json.loads(json.dumps(request.to_dict())), **options)


class TestThroughJson:
    @pytest.mark.parametrize(
        ("options", "body"),
        [
            ({"json": {"data": [{"Company": "\u00c4rger & S\u00f6hne"}]}}, None),
            ({"data": "text \u00e4"}, "text \u00e4".encode()),
            ({"data": b"\xff\x00binary"}, b"\xff\x00binary"),
            ({"files": {"file": ("face.png", b"\x89PNG\r\n\x1a\n\xff", "image/png")}}, None),
            ({"data": {"a": "b c"}}, b"a=b+c"),
            ({}, None),
        ],
        ids=["json", "text", "binary", "multipart", "form", "nothing"],
    )
    def test_the_same_bytes_arrive(self, options, body):
        request = remaining(**options)
        there = there_and_back(request)
        wanted = request.body.encode() if isinstance(request.body, str) else request.body
        assert there.body == wanted
        assert body is None or there.body == body
        assert (there.method, there.url) == ("PUT", URL)
        assert there.headers == {**request.headers, "Content-Length": str(len(wanted or b""))}
        assert isinstance(there, requests.PreparedRequest)

    @settings(max_examples=50, deadline=None)
    @given(st.binary(max_size=30) | st.text(max_size=20).map(lambda text: text.encode("utf-8", "replace")))
    def test_any_bytes_arrive(self, body):
        assert (there_and_back(remaining(data=body)).body or b"") == body

    @pytest.mark.parametrize("name", ["Authorization", "AUTHORIZATION", "proxy-authorization", "Cookie"])
    def test_credentials_stay_behind(self, name):
        plain = remaining(headers={name: "s3cret", "X-A": "1"}, json={}).to_dict()
        assert "s3cret" not in json.dumps(plain)
        assert plain["headers"]["X-A"] == "1"

    def test_the_user_in_the_url_stays_behind(self):
        request = remaining(url="https://jane:pa55@www.zohoapis.com:8443/crm/v8/Leads?ids=1%2C2")
        request.url = "https://jane:pa55@www.zohoapis.com:8443/crm/v8/Leads?ids=1%2C2"
        plain = request.to_dict()
        assert plain["url"] == "https://www.zohoapis.com:8443/crm/v8/Leads?ids=1%2C2"
        assert there_and_back(request).url == plain["url"]
        assert "pa55" not in json.dumps(plain)

    def test_headers_of_bytes_become_text(self):
        assert there_and_back(remaining(headers={"X-A": b"caf\xe9"})).headers["X-A"] == "caf\u00e9"

    def test_headers_are_added_on_the_way_back(self):
        there = there_and_back(remaining(headers={"X-A": "1"}), headers={"Authorization": "new", "x-a": "2"})
        assert (there.headers["Authorization"], there.headers["X-A"]) == ("new", "2")

    def test_the_length_is_that_of_the_body_whatever_the_headers_say(self):
        plain = {"method": "PUT", "url": URL, "headers": {"Content-Length": "99"}, "body": "\u00e4"}
        assert RemainingRequest.from_dict(plain).headers["Content-Length"] == "2"

    def test_a_stream_is_refused_in_words(self):
        for body in (io.BytesIO(b"abc"), iter([b"abc"])):
            with pytest.raises(TypeError, match="a streamed body cannot be turned into plain data"):
                remaining(data=body).to_dict()


class TestTheObject:
    def test_shares_nothing_that_can_change_with_the_original(self):
        original = requests.Request("PUT", URL, headers={"X-A": "1"}, hooks={"response": print}).prepare()
        request = RemainingRequest.of(original)
        request.headers["X-A"] = "2"
        request.register_hook("response", repr)
        assert (original.headers["X-A"], original.hooks) == ("1", {"response": [print]})

    def test_shows_its_method_and_nothing_else(self):
        shown = repr(remaining(url=f"{URL}?token=s3cret", headers=SECRETS, data=b"body"))
        assert shown == "<RemainingRequest [PUT]>"

    @pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
    def test_a_copy_has_its_credentials_and_no_hooks(self, copied):
        request = remaining(headers=SECRETS, json={"a": 1}, hooks={"response": lambda *_, **__: None})
        there = copied(request)
        assert isinstance(there, RemainingRequest)
        assert (there.headers, there.body, there.hooks) == (request.headers, request.body, {"response": []})

    def test_a_pickle_has_neither(self):
        request = remaining(headers=SECRETS, json={"a": 1}, hooks={"response": lambda *_, **__: None})
        there = pickle.loads(pickle.dumps(request))  # noqa: S301
        assert isinstance(there, RemainingRequest)
        assert (there.body, there.hooks, there.missing) == (request.body, {"response": []}, ("Authorization",))
        assert there.headers.keys() == request.headers.keys() - SECRETS.keys()

    def test_with_a_stream_cannot_travel(self):
        assert not remaining(data=io.BytesIO(b"abc")).portable
        assert all(remaining(data=body).portable for body in (None, b"abc", "abc"))


def test_it_can_be_sent_later_and_writes_the_records_that_were_left(crm, guard, leads, clock):
    ids = [crm.add_record("Leads"), crm.add_record("Leads", locked_for=60)]
    session = guard(timeout=0)
    rows = [{"id": record_id, "Company": "Zylker"} for record_id in ids]
    response = session.put(leads, json={"data": rows}, headers={"Authorization": "Zoho-oauthtoken 1"})
    kept = json.dumps(get_report(response).remaining_request().to_dict())
    assert "oauthtoken" not in kept
    clock.advance(60)
    later = RemainingRequest.from_dict(json.loads(kept), headers={"Authorization": "Zoho-oauthtoken 2"})
    answer = session.send(later)
    assert answer.status_code == 200
    assert [found["details"]["id"] for found in answer.json()["data"]] == ids[1:]
    assert [crm.writes(record_id) for record_id in ids] == [1, 1]


def test_a_photo_can_be_sent_later(crm, guard, leads, clock):
    lead = crm.add_record("Leads", locked_for=60)
    session = guard(timeout=0)
    image = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
    with pytest.raises(RecordLockedError) as caught:
        session.post(f"{leads}/{lead}/photo", files={"file": ("a.png", image, "image/png")})
    kept = json.loads(json.dumps(caught.value.remaining_request().to_dict()))
    assert "body_base64" in kept
    clock.advance(60)
    assert session.send(RemainingRequest.from_dict(kept)).ok
    assert crm.writes(lead) == 1
