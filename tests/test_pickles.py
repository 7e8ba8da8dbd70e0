"""P7: what queues carry, pickles and plain data, holds no credentials; and says what its receiver has to add."""

import copy
import json
import pickle

import pytest
import requests
from celery.utils.serialization import get_pickleable_exception
from requests.adapters import HTTPAdapter

from crm_guard import (
    GuardAdapter,
    GuardError,
    GuardReport,
    NotApprovedError,
    RecordLockedError,
    RemainingRequest,
    get_report,
)
from crm_guard.clock import Wake
from crm_guard.locks import WaitContext

URL = "https://www.zohoapis.com/crm/v8/Leads"
SECRET = "s3cret"
ROW = {"data": [{"Company": "Zylker"}]}
ID = "111112000000075003"
HEADERS = ["Authorization", "AUTHORIZATION", "X-API-KEY", "apikey", "Ocp-Apim-Subscription-Key", "X-ZOHO-AUTHTOKEN"]
HEADERS += ["X-Auth-Token", "X-Amz-Security-Token", "X-Client-Secret", "X-Password", "X-Signature", "X-Session-Id"]
THE_SENDERS = ["Proxy-Authorization", "Cookie", "cookie"]
PARAMS = ["access_token", "token", "authtoken", "auth_token", "apikey", "api_key", "key", "sig", "client_secret"]
HEADERS += ["X-Hmac", "X-CSRF", "X-Passcode", "X-Bearer", "X-Zoho-Ticket", "PIN"]
PARAMS += ["hmac", "otp", "sid", "assertion", "bearer", "ticket"]
PARAMS += ["refresh_token", "zapikey", "password", "passwd", "ACCESS_TOKEN", "access%5Ftoken", "%61ccess_token"]
KEPT = {"orgId": "1", "X-CRM-ORG": "2", "X-EXTERNAL": "Leads.Email", "Idempotency-Key": "4", "X-Request-Id": "5"}
LOCKED = {
    "code": "RECORD_LOCKED",
    "details": {"id": ID, "action": "zia_vision_processing"},
    "message": "Cannot update record",
    "status": "error",
}
WORKS = "duplicate_check_fields=Email%2CPhone&page_token=abc&wf=a+b"


def refused(canned, url=URL, **options):
    """Return the error of a call that never waits."""
    session = canned((400, {"data": [LOCKED]}), timeout=0)
    with pytest.raises(GuardError) as caught:
        session.put(url, json={"data": [{"id": ID, "Company": "Zylker"}]}, **options)
    return caught.value


def travelled(thing):
    """Return what arrives of `thing` as a pickle, and assert that no protocol carries a secret."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        carried = pickle.dumps(thing, protocol)
        assert b"s3cret" not in carried
    return pickle.loads(carried)  # noqa: S301


class TestNoCredentialsTravel:
    @pytest.mark.parametrize("name", HEADERS + THE_SENDERS)
    def test_in_headers(self, canned, name):
        error = refused(canned, headers={name: SECRET, **KEPT})
        plain = error.remaining_request().to_dict()
        assert "s3cret" not in json.dumps(plain)
        there = travelled(error)
        for request in (
            travelled(get_report(error.response)).remaining_request(),
            travelled(error.remaining_request()),
            there.remaining_request(),
            there.request,
            there.response.request,
            RemainingRequest.from_dict(plain),
        ):
            assert name not in request.headers
            assert {header: request.headers[header] for header in KEPT} == KEPT
            assert request.missing == (() if name in THE_SENDERS else (name,))
        assert error.request.headers[name] == SECRET

    @pytest.mark.parametrize("name", PARAMS)
    def test_in_the_query(self, canned, name):
        error = refused(canned)
        decoded = requests.utils.unquote(name)
        for query, rest in {
            f"{name}=s3cret&{WORKS}": f"?{WORKS}",
            f"{WORKS}&{name}=s3cret": f"?{WORKS}",
            f"a=1;{name}=s3cret;b=2": "?a=1;b=2",
            f"{name}=s3cret": "",
            f"{name}=s3cret&{name}=s3cret2#access_token=s3cret": "",
        }.items():
            request = RemainingRequest.of(requests.Request("PUT", URL, json=ROW).prepare())
            request.url = f"{URL}?{query}"
            error.request = request
            assert "s3cret" not in json.dumps(request.to_dict())
            for there in (
                travelled(request),
                travelled(error).request,
                RemainingRequest.from_dict(request.to_dict()),
            ):
                assert (there.url, there.missing) == (URL + rest, (decoded,))

    def test_in_the_query_of_a_call(self, canned):
        error = refused(canned, f"{URL}?access_token=s3cret&{WORKS}", headers={"orgId": "1"})
        there = travelled(error)
        assert there.request.url == there.response.url == f"{URL}?{WORKS}"
        assert there.remaining_request().missing == ("access_token",)

    def test_in_the_url_of_a_referer(self, canned):
        error = refused(canned, headers={"Referer": f"https://u:{SECRET}@crm.example/?token={SECRET}&a=1"})
        assert travelled(error.remaining_request()).headers["Referer"] == "https://crm.example/?a=1"

    def test_in_the_user_of_the_url(self, canned):
        error = refused(canned, "https://s3cretjane:s3cret%40word@www.zohoapis.com/crm/v8/Leads")
        assert error.request.headers["Authorization"]
        there = travelled(error)
        assert there.request.url == there.response.url == URL
        assert travelled(error.remaining_request()).missing == ("Authorization",)

    def test_in_cookies_of_the_session(self, canned):
        session = canned((400, {"data": [LOCKED]}), timeout=0)
        session.cookies.set("crmcsr", SECRET)
        with pytest.raises(RecordLockedError) as caught:
            session.put(URL, json=ROW)
        assert "s3cret" in caught.value.request.headers["Cookie"]
        there = travelled(caught.value)
        assert (there.request.missing, there.remaining_request().missing) == ((), ())

    def test_in_the_response_and_those_before_it(self, canned):
        moved = (
            308,
            b"",
            {
                "Location": f"{URL}/{ID}?access_token=s3cret&a=1",
                "Set-Cookie": "a=s3cret",
                "Content-Type": "text/html",
            },
        )
        session = canned(moved, (400, {"data": [LOCKED]}), raise_on="never", timeout=0)
        with pytest.raises(RecordLockedError) as caught:
            get_report(session.put(URL, json=ROW, headers={"Authorization": SECRET})).raise_for_blocked()
        error = caught.value
        error.response.headers.update({"Set-Cookie": "b=s3cret", "X-API-CREDITS-REMAINING": "7"})
        error.response.cookies.set("c", SECRET)
        error.response.history[0].cookies.set("d", SECRET)
        there = travelled(error).response
        assert there.json() == error.response.json()
        assert there.headers["X-API-CREDITS-REMAINING"] == "7"
        assert (there.url, there.history[0].headers["Location"]) == (f"{URL}/{ID}?a=1", f"{URL}/{ID}?a=1")
        assert (list(there.cookies), list(there.history[0].cookies)) == ([], [])
        assert "s3cret" in str(error.response.cookies), "the original has its own"

    @pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
    def test_in_another_exception_that_a_report_hangs_on(self, canned, clock, kind):
        def break_off():
            raise kind

        clock.during_wait = break_off
        with pytest.raises(kind) as caught:
            canned((400, {"data": [LOCKED]})).put(URL, json=ROW, headers={"Authorization": SECRET})
        there = get_report(travelled(caught.value))
        assert there == get_report(caught.value) != GuardReport()
        assert there.remaining_request().missing == ("Authorization",)

    def test_through_celery(self, canned):
        error = refused(canned, headers={"Authorization": SECRET})
        assert get_pickleable_exception(error) is error
        assert travelled(error).report == error.report

    def test_an_error_of_an_error_is_as_discreet(self, canned):
        there = travelled(travelled(refused(canned, headers={"Authorization": SECRET})))
        assert there.request.missing == there.remaining_request().missing == ("Authorization",)

    def test_a_refusal_without_a_report_travels_too(self):
        request = requests.Request("PUT", URL, headers={"Authorization": SECRET}).prepare()
        there = travelled(NotApprovedError("text", request=request))
        assert (str(there), there.request.url, there.response) == ("text", URL, None)


class TestCopies:
    """Copying in a process is no journey."""

    @pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
    def test_are_whole(self, canned, copied):
        url = f"{URL}?access_token=s3cret"
        error = refused(canned, url, headers={"Authorization": SECRET})
        error.response.headers["Set-Cookie"] = "a=s3cret"
        error.response.cookies.set("a", SECRET)
        there = copied(error)
        assert there is not error
        assert there.response.headers["Set-Cookie"] == "a=s3cret"
        assert there.response.cookies["a"] == SECRET
        for request in (
            there.request,
            there.response.request,
            there.remaining_request(),
            copied(error.report).remaining_request(),
            copied(error.remaining_request()),
        ):
            assert (request.headers["Authorization"], request.url) == (SECRET, url)
            assert getattr(request, "missing", ()) == ()

    def test_of_what_has_arrived_know_what_is_missing(self, canned):
        arrived = travelled(refused(canned, headers={"Authorization": SECRET}).remaining_request())
        for there in (copy.copy(arrived), copy.deepcopy(arrived), RemainingRequest.of(arrived), travelled(arrived)):
            assert there.missing == ("Authorization",)
        assert RemainingRequest.from_dict(arrived.to_dict()).missing == ("Authorization",)


class TestTheReceiver:
    @pytest.fixture
    def task(self, crm, guard, leads, clock):
        """What is left of a call whose record is free again meanwhile."""
        lead = crm.add_record("Leads", locked_for=60)
        session = guard(timeout=0)
        with pytest.raises(RecordLockedError) as caught:
            session.put(
                f"{leads}/{lead}?access_token=s3cret&wf=1",
                json=ROW,
                headers={"Authorization": SECRET, "Cookie": "a=b"},
            )
        clock.advance(60)
        return caught.value

    @pytest.mark.parametrize("way", ["a pickled error", "a pickled report", "a pickled request", "plain data"])
    @pytest.mark.parametrize("guarded", [True, False])
    def test_is_told_at_once_what_to_add_back(self, crm, guard, task, way, guarded):
        todo = {
            "a pickled error": lambda: travelled(task).remaining_request(),
            "a pickled report": lambda: travelled(task.report).remaining_request(),
            "a pickled request": lambda: travelled(task.remaining_request()),
            "plain data": lambda: RemainingRequest.from_dict(
                json.loads(json.dumps(task.remaining_request().to_dict()))
            ),
        }[way]()
        session = guard() if guarded else requests.Session()
        calls = len(crm.calls)
        assert todo.missing == ("Authorization", "access_token")
        text = (
            r"^nothing was sent: this request was kept without its credentials\. Add them back, .*"
            r"headers\['Authorization'\].*\{'access_token': "
        )
        with pytest.raises(ValueError, match=text):
            session.send(todo)
        todo.headers["authorization"] = "new"
        with pytest.raises(ValueError, match="access_token") as caught:
            session.send(todo)
        assert "Authorization" not in str(caught.value)
        assert len(crm.calls) == calls
        todo.prepare_url(todo.url, {"access_token": "new"})
        assert todo.missing == ()
        assert session.send(todo).ok
        session.close()

    def test_gives_all_of_it_with_the_data(self, crm, task):
        plain = task.remaining_request().to_dict()
        todo = RemainingRequest.from_dict(plain, headers={"AUTHORIZATION": "new"}, params={"access_token": "new"})
        assert todo.missing == ()
        with requests.Session() as session:
            assert session.send(todo).ok

    def test_may_do_without(self, crm, task):
        plain = task.remaining_request().to_dict()
        todo = RemainingRequest.from_dict(plain, headers={"Authorization": None}, params={"access_token": None})
        assert (todo.missing, "Authorization" in todo.headers) == ((), False)
        with requests.Session() as session:
            assert session.send(todo).ok
        assert todo.url.endswith("?wf=1")

    def test_may_use_an_adapter_that_adds_them_itself(self, task):
        class Signing(HTTPAdapter):
            def send(self, request, **options):
                request.headers["Authorization"] = "own"
                request.prepare_url(request.url, {"access_token": "own"})
                return super().send(request, **options)

        with requests.Session() as session:
            session.mount("http://", Signing())
            assert session.send(travelled(task.remaining_request())).ok

    def test_may_authenticate_as_requests_does(self, task):
        todo = RemainingRequest.from_dict(task.remaining_request().to_dict(), params={"access_token": "new"})
        todo.prepare_auth(("user", "password"))
        with requests.Session() as session:
            assert session.send(todo).ok

    def test_need_not_add_what_was_never_there(self, crm):
        request = RemainingRequest.of(requests.Request("PUT", URL, json=ROW, headers={"orgId": "1"}).prepare())
        assert "withheld" not in request.to_dict()
        assert RemainingRequest.from_dict(request.to_dict()).path_url == "/crm/v8/Leads"

    def test_reads_data_that_was_kept_before_names_were(self):
        todo = RemainingRequest.from_dict({"method": "PUT", "url": URL, "headers": {}, "body": "{}"})
        assert (todo.missing, todo.body, todo.path_url) == ((), b"{}", "/crm/v8/Leads")

    def test_may_have_it_signed(self, task):
        def sign(request):
            request.headers["Authorization"] = f"Signature of {request.path_url}"
            return request

        arrived = pickle.loads(pickle.dumps(task.remaining_request()))  # noqa: S301
        arrived.prepare_auth(sign)
        assert arrived.missing == ("access_token",)
        assert arrived.headers["Authorization"].endswith("?wf=1")

    def test_and_its_copies_are_told_alike(self, task):
        arrived = pickle.loads(pickle.dumps(task.remaining_request())).copy()  # noqa: S301
        assert arrived.missing == ("Authorization", "access_token")
        with pytest.raises(ValueError, match="Authorization"):
            requests.Session().send(arrived)

    def test_is_told_before_any_wait(self, task, clock):
        session = requests.Session()
        guard = GuardAdapter(clock=clock)
        session.mount("http", guard)
        arrived = pickle.loads(pickle.dumps(task.remaining_request()))  # noqa: S301
        (record_id,) = task.record_ids
        key = f"{'/'.join(arrived.url.split('/', 3)[:3])}|{record_id}"
        other = guard.locks.waiter(WaitContext(clock, Wake(), lambda: False))
        other.verdict(locked=[key], free=())
        with pytest.raises(ValueError, match="Authorization"):
            session.send(arrived)
        assert clock.waits == []
        other.leave()

    def test_may_read_where_it_goes_before_it_has_the_token(self, task):
        assert "/crm/v8/Leads/" in travelled(task.remaining_request()).url


class TestKeeping:
    def test_in_plain_data(self, canned):
        todo = refused(
            canned, f"{URL}?apikey=kept&token=s3cret", headers={"Authorization": "kept", "X-API-KEY": SECRET}
        ).remaining_request()
        plain = todo.to_dict(keep=("authorization", "apikey"))
        assert "s3cret" not in json.dumps(plain)
        assert plain["withheld"] == {"headers": ["X-API-KEY"], "params": ["token"]}
        there = RemainingRequest.from_dict(plain)
        assert (there.headers["Authorization"], there.url) == ("kept", f"{URL}?apikey=kept")
        assert todo.to_dict(keep="Authorization")["headers"]["Authorization"] == "kept"
        assert "Authorization" not in todo.to_dict()["headers"]

    def test_in_pickles_and_in_pickles_of_these(self, canned):
        error = refused(canned, headers={"Authorization": "kept", "Cookie": SECRET})
        todo = RemainingRequest.of(error.remaining_request(), keep="Authorization")
        there = travelled(travelled(todo))
        assert (there.headers["Authorization"], there.missing) == ("kept", ())
        assert there.to_dict()["headers"]["Authorization"] == "kept"

    def test_goes_on_for_what_remains_of_it_and_for_its_errors(self, crm, guard, leads):
        lead = crm.add_record("Leads", locked_for=600)
        request = requests.Request("PUT", f"{leads}/{lead}", json=ROW, headers={"Authorization": "kept"}).prepare()
        request.headers["X-API-KEY"] = SECRET
        with pytest.raises(RecordLockedError) as caught:
            guard(timeout=0).send(RemainingRequest.of(request, keep=["Authorization"]))
        there = travelled(caught.value)
        for found in (there.request, there.response.request, there.remaining_request()):
            assert (found.headers["Authorization"], found.missing) == ("kept", ("X-API-KEY",))
