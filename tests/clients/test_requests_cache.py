"""`requests_cache.install_cache()` puts a subclass in place of `requests.Session`: `install` and it get along."""

import contextlib
import itertools

import pytest
import requests

from crm_guard import GuardAdapter, install, mount_guard, uninstall

WHY = "needs requests-cache: pip install requests-cache"
requests_cache = pytest.importorskip("requests_cache", reason=WHY)

PLAIN = requests.sessions.Session
CHOOSING = vars(PLAIN)["get_adapter"]
ROW = {"data": [{"Company": "Zylker"}]}
FOUR = ("install", "install_cache", "uninstall", "uninstall_cache")
ORDERS = [
    order
    for order in itertools.permutations(FOUR)
    if order.index("install") < order.index("uninstall")
    and order.index("install_cache") < order.index("uninstall_cache")
]


@pytest.fixture(autouse=True)
def _nothing_stays():
    yield
    uninstall()
    requests_cache.uninstall_cache()
    assert requests.Session is PLAIN
    left, PLAIN.get_adapter = vars(PLAIN)["get_adapter"], CHOOSING
    assert left is CHOOSING


@pytest.fixture
def world(crm, clock):
    with contextlib.ExitStack() as sessions:
        yield World(crm, clock, sessions)


class World:
    """A record that Zia locks again before each call, and all who call."""

    def __init__(self, crm, clock, sessions):
        self.crm, self.clock, self.sessions = crm, clock, sessions
        self.lead = crm.add_record("Leads")
        self.callers = [requests]
        self.meet()

    def meet(self):
        """Make a session, of whatever class `requests.Session` is now."""
        self.callers.append(self.sessions.enter_context(requests.Session()))

    def do(self, step):
        steps = {
            "install": lambda: install(self.crm.url, clock=self.clock),
            "install_cache": lambda: requests_cache.install_cache(backend="memory"),
            "uninstall": uninstall,
            "uninstall_cache": requests_cache.uninstall_cache,
        }
        steps[step]()

    def statuses(self):
        """Return what each caller gets for a write to the locked record."""
        return [self._write(caller) for caller in self.callers]

    def _write(self, caller):
        self.crm.set_state(self.lead, "zia_vision_validation", locked_for=5.0)
        return caller.put(f"{self.crm.url}/crm/v8/Leads/{self.lead}", json=ROW).status_code


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
def test_every_session_is_guarded_while_installed_and_none_before_or_after(world, order):
    for count, step in enumerate(order, start=1):
        world.do(step)
        world.meet()
        installed = "install" in order[:count] and "uninstall" not in order[:count]
        assert world.statuses() == [200 if installed else 400] * (count + 2), step


def test_a_second_install_and_a_block_change_nothing(world):
    world.do("install_cache")
    world.do("install")
    world.do("install")
    world.do("uninstall_cache")
    with install(world.crm.url, settings={"attempts": 4}, clock=world.clock):
        assert world.statuses() == [200, 200]
    assert world.statuses() == [200, 200]
    world.do("uninstall")
    assert world.statuses() == [400, 400]


def test_a_block_within_an_enabled_cache(world):
    with requests_cache.enabled(backend="memory"), install(world.crm.url, clock=world.clock):
        world.meet()
        with requests_cache.disabled():
            world.meet()
            assert world.statuses() == [200] * 4
    assert world.statuses() == [400] * 4


def test_reads_are_cached_all_the_same(crm, clock):
    lead = crm.add_record("Leads", locked_for=5.0)
    requests_cache.install_cache(backend="memory")
    with install(crm.url, clock=clock):
        answers = [requests.get(f"{crm.url}/crm/v8/org") for _ in range(3)]
        assert requests.put(f"{crm.url}/crm/v8/Leads/{lead}", json=ROW).status_code == 200
    assert [answer.from_cache for answer in answers] == [False, True, True]


def test_a_factory_that_chooses_its_adapter_itself_is_hooked_and_restored(crm, clock):
    class Choosy(requests_cache.CachedSession):
        def get_adapter(self, url):
            return next(found for prefix, found in self.adapters.items() if url.startswith(prefix))

    own = vars(Choosy)["get_adapter"]
    requests_cache.install_cache(backend="memory", session_factory=Choosy)
    with install(crm.url, clock=clock) as guard, requests.Session() as session:
        assert session.get_adapter(crm.url + "/") is guard
    assert vars(Choosy)["get_adapter"] is own


def test_a_plain_session_made_before_can_be_mounted_on_meanwhile():
    with requests.Session() as plain:
        requests_cache.install_cache(backend="memory")
        guard = mount_guard(plain)
        with requests.Session() as cached:
            assert isinstance(mount_guard(cached), GuardAdapter)
    assert isinstance(guard, GuardAdapter)
