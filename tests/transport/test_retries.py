"""Which of urllib3's retry policies may apply a write twice: our answer is compared with what urllib3 does."""

import itertools

import pytest
import requests
from urllib3 import HTTPResponse, Retry
from urllib3.exceptions import HTTPError, ProtocolError, ProxyError, ReadTimeoutError, SSLError

from crm_guard import GuardAdapter, GuardSettings
from crm_guard._transport.retries import unsafe_repeats, warning_about

ONLY_WHAT_NEVER_LEFT = Retry(connect=3, read=False, other=0, respect_retry_after_header=False)
AND_429 = Retry(
    total=5,
    connect=3,
    read=False,
    other=0,
    status=5,
    status_forcelist=[429],
    allowed_methods=None,
    backoff_factor=1,
    raise_on_status=False,
    respect_retry_after_header=False,
)
SAFE = [
    pytest.param(policy, id=name)
    for name, policy in {
        "never left": ONLY_WHAT_NEVER_LEFT,
        "and 429": AND_429,
        "stock": Retry(0, read=False),
        "off": Retry(False),
        "reads only": Retry(3, other=0, status_forcelist=[500], allowed_methods=["GET"]),
        "Retry-After of 429 only": type("Own", (Retry,), {"RETRY_AFTER_STATUS_CODES": {429}})(3, read=0, other=0),
        "a number": 0,
        "nothing": None,
    }.items()
]

MAYBE_APPLIED = [ReadTimeoutError(None, "/", ""), ProtocolError(""), SSLError(""), ProxyError("", SSLError(""))]
CHOICES = {
    "total": [None, 0, False, 1, 3],
    "read": [None, False, 0, 1],
    "other": [None, False, 0, 1],
    "status": [None, False, 0, 1],
    "status_forcelist": [None, [429], [429, 500]],
    "allowed_methods": [None, Retry.DEFAULT_ALLOWED_METHODS, ["GET"], ["POST"]],
    "respect_retry_after_header": [True, False],
}


ANSWERS = {status: HTTPResponse(status=status) for status in (413, 500, 503)}


def goes_on(policy, **event):
    """Return whether urllib3 would send again after an error or a response."""
    try:
        policy.increment(**event)
    except HTTPError:
        return False
    return True


def repeats_a_write(policy):
    """Return whether urllib3 would send a write again after anything but a 429 or a failure to connect."""
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        if any(goes_on(policy, method=method, url="/", error=error) for error in MAYBE_APPLIED):
            return True
        for (status, answer), asked in itertools.product(ANSWERS.items(), (False, True)):
            if policy.is_retry(method, status, asked) and goes_on(policy, method=method, url="/", response=answer):
                return True
    return False


@pytest.mark.parametrize("total", CHOICES["total"])
def test_the_answer_is_urllib3s_own_for_every_combination_of_counters(total):
    names = [name for name in CHOICES if name != "total"]
    for values in itertools.product(*(CHOICES[name] for name in names)):
        policy = Retry(total, **dict(zip(names, values, strict=True)))
        assert bool(unsafe_repeats(policy)) == repeats_a_write(policy), policy


@pytest.mark.parametrize("policy", SAFE)
def test_a_safe_policy_has_no_cause_no_warning_and_an_error_that_tells_of_all_tries(policy):
    assert unsafe_repeats(policy) == []
    assert warning_about(policy) == ""
    assert not unsafe_repeats(GuardAdapter(GuardSettings(), max_retries=policy or 0).max_retries)


def test_a_number_is_read_as_requests_reads_it():
    assert unsafe_repeats(3) == unsafe_repeats(Retry(3)) != []
    assert unsafe_repeats(GuardAdapter(GuardSettings(), max_retries=3).max_retries)


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"status_forcelist": [502, 500]}, "status 500, 502 (status_forcelist)"),
        ({"status_forcelist": range(500, 600)}, "status 500, 501, 502, 503, ... (status_forcelist)"),
        ({"respect_retry_after_header": True}, "status 413, 503 with Retry-After (respect_retry_after_header)"),
        ({"read": None}, "read errors (read=None)"),
        ({"read": 2}, "read errors (read=2)"),
        ({"other": None}, "TLS and proxy errors (other=None)"),
    ],
)
def test_the_warning_names_each_cause(options, cause):
    policy = AND_429.new(**options)
    assert unsafe_repeats(policy) == [cause]
    assert cause in warning_about(policy)


def test_the_warning_shows_both_safe_policies():
    text = warning_about(Retry(3, status_forcelist=[500]))
    given = "connect=3, read=False, other=0, respect_retry_after_header=False"
    more = "status=5, status_forcelist=[429], allowed_methods=None, backoff_factor=1, raise_on_status=False"
    assert f"Retry({given})" in text
    assert more in text
    for shown in (given, f"{given}, {more}"):
        assert unsafe_repeats(eval(f"Retry({shown})")) == []  # noqa: S307 (our own text)


@pytest.mark.parametrize(
    "policy", [Retry(3), Retry(0, status_forcelist=[500]), Retry(3, status=0, status_forcelist=[5])]
)
def test_a_policy_that_repeats_no_status_is_not_warned_of(policy):
    assert warning_about(policy) == ""


class TestAgainstTheSimulator:
    @pytest.fixture
    def send(self, crm):
        """Send one write under the policy that also repeats 429."""
        lead = crm.add_record("Leads")

        def put():
            with requests.Session() as session:
                session.mount(crm.url, GuardAdapter(GuardSettings(), max_retries=AND_429))
                try:
                    return session.put(
                        f"{crm.url}/crm/v8/Leads/{lead}", json={"data": [{"Company": "a"}]}, timeout=1
                    )
                except requests.RequestException as error:
                    return error

        return put

    def test_429_is_repeated_without_a_warning(self, crm, send):
        crm.fault("429", times=1, retry_after=60)
        assert send().status_code == 200
        assert [call.status for call in crm.calls] == [429, 200]

    @pytest.mark.parametrize("fault", ["500", "502", "reset", "drop"])
    def test_nothing_else_is(self, crm, send, fault):
        crm.fault(fault, times=9, applied=True)
        send()
        assert len(crm.calls) == 1
        assert list(crm.write_counts.values()) == [1]

    @pytest.mark.parametrize("fault", ["500", "502", "reset", "drop"])
    def test_nor_after_a_429(self, crm, send, fault):
        crm.fault("429", times=1)
        crm.fault(fault, times=9, applied=True)
        send()
        assert len(crm.calls) == 2
        assert list(crm.write_counts.values()) == [1]
