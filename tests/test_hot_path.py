"""What a call costs that meets no lock, counted and not timed; `tests/benchmarks` has the times.

A bound that fails is a question: is what was added worth being paid on every call by everybody?
"""

import gc
import importlib.util
import io
import json
import subprocess
import sys
import threading
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

import crm_guard
from crm_guard import GuardAdapter, GuardSettings

PACKAGE = str(Path(crm_guard.__file__).parent)
CRM = "https://www.zohoapis.com/crm/v8/"
ELSEWHERE = "https://www.zohoapis.com/books/v3/contacts/1"
JSON = "application/json;charset=UTF-8"


class Body(io.BytesIO):
    """A body that counts how often it was read from."""

    reads = 0

    def read(self, size=-1):
        self.reads += 1
        return super().read(size)


class CannedAdapter(HTTPAdapter):
    """Answers without a network; `body` is what the last response is read from."""

    status, kind, text = 200, JSON, b"{}"

    def send(self, request, stream=False, timeout=None, verify=True, cert=None, proxies=None):
        self.body = Body(self.text)
        headers = {"Content-Type": self.kind, "Content-Length": str(len(self.text))}
        raw = HTTPResponse(self.body, headers, status=self.status, preload_content=False)
        self.answer = self.build_response(request, raw)
        return self.answer


class GuardOverCanned(GuardAdapter, CannedAdapter):
    """A guard whose inherited `send` is the canned one."""


class Registry:
    """An empty lock registry that only says that it is empty."""

    asked = 0

    def __bool__(self):
        self.asked += 1
        return False


@pytest.fixture
def guard():
    return GuardOverCanned(GuardSettings())


def successes(count):
    item = {"code": "SUCCESS", "details": {"id": "1"}, "message": "record updated", "status": "success"}
    return json.dumps({"data": [item] * count}).encode()


def prepared(method, url):
    return requests.Request(method, url, data=b"{}" if method == "PUT" else None).prepare()


@contextmanager
def monitored(report):
    """Call `report(code)` for each instruction of this thread, as Python 3.12 and later offer it."""
    monitoring, tool, here = sys.monitoring, 4, threading.get_ident()  # 4: nobody's, by the documentation
    instruction = monitoring.events.INSTRUCTION

    def callback(code, _offset):
        if threading.get_ident() == here:  # events come from all threads
            report(code)

    monitoring.use_tool_id(tool, __name__)
    monitoring.register_callback(tool, instruction, callback)
    monitoring.set_events(tool, instruction)
    try:
        yield
    finally:
        monitoring.set_events(tool, monitoring.events.NO_EVENTS)
        monitoring.register_callback(tool, instruction, None)
        monitoring.free_tool_id(tool)


@contextmanager
def traced(report):
    """Call `report(code)` for each instruction of this thread, as Python 3.11 can; later ones lose some."""

    def trace(frame, event, _argument):
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            report(frame.f_code)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def opcodes(function):
    """Return how many instructions of Python's virtual machine a call executes in this package."""
    executed = 0

    def report(code):
        nonlocal executed
        executed += code.co_filename.startswith(PACKAGE)

    gc.disable()  # what earlier tests left is collected at any moment, and finalizers of ours would count
    try:
        with monitored(report) if hasattr(sys, "monitoring") else traced(report):
            function()
    finally:
        gc.enable()
    return executed


def cost(guard, method="PUT", url=CRM + "Leads", **answer):
    vars(guard).update(answer)
    request = prepared(method, url)
    guard.send(request)
    return opcodes(lambda: guard.send(request))


class TestInstructions:
    """Bounds are half as much again as what Python 3.11 takes; 3.12 and 3.13 take a little less than it."""

    @pytest.mark.parametrize(
        ("bound", "route"),
        [
            pytest.param(270, {"text": successes(1)}, id="write, success"),
            pytest.param(270, {"text": b'{"code":"INVALID_DATA"}', "status": 400}, id="write, another error"),
            pytest.param(270, {"text": successes(1), "status": 207}, id="write, mixed"),
            pytest.param(180, {"method": "GET"}, id="read"),
            pytest.param(200, {"kind": "text/html", "status": 502}, id="no JSON"),
            pytest.param(120, {"url": ELSEWHERE}, id="no CRM call"),
        ],
    )
    def test_a_call_without_a_lock_takes_few(self, guard, bound, route):
        assert 0 < cost(guard, **route) <= bound

    def test_their_number_does_not_depend_on_the_size_of_the_answer(self, guard):
        assert cost(guard, text=successes(100)) == cost(guard, text=successes(1))

    def test_nor_on_the_calls_before(self, guard):
        first = cost(guard, text=successes(3))
        for _ in range(100):
            guard.send(prepared("PUT", CRM + "Leads"))
        assert cost(guard) == first

    def test_an_empty_lock_registry_costs_one_truth_test(self):
        registry = Registry()
        guard = GuardOverCanned(GuardSettings(), lock_registry=registry)
        guard.send(prepared("PUT", CRM + "Leads"))
        assert registry.asked == 1

    def test_a_registry_is_not_even_asked_about_what_is_no_crm_call(self):
        registry = Registry()
        GuardOverCanned(GuardSettings(), lock_registry=registry).send(prepared("PUT", ELSEWHERE))
        assert registry.asked == 0


class TestBodies:
    @pytest.mark.parametrize("stream", [True, False])
    @pytest.mark.parametrize(
        ("method", "url", "kind", "status"),
        [
            ("GET", CRM + "files", "application/octet-stream", 200),
            ("GET", CRM + "Leads", JSON, 200),
            ("PUT", CRM + "Leads", "text/html", 502),
            ("PUT", ELSEWHERE, JSON, 400),
        ],
        ids=["download", "list", "HTML", "elsewhere"],
    )
    def test_are_left_unread(self, guard, method, url, kind, status, stream):
        vars(guard).update(kind=kind, status=status, text=b'RECORD_LOCKED"' * 1000)
        response = guard.send(prepared(method, url), stream=stream)
        assert response is guard.answer
        assert guard.body.reads == guard.body.tell() == 0
        assert response.raw.read() == guard.text

    def test_of_a_write_are_read_just_as_a_session_would(self, guard):
        guard.text = successes(100)
        response = guard.send(prepared("PUT", CRM + "Leads"))
        reads = guard.body.reads
        plain = CannedAdapter()
        plain.text = guard.text
        assert plain.send(prepared("PUT", CRM + "Leads")).content == response.content
        assert (guard.body.reads, plain.body.reads) == (reads, reads), "read once"


class TestMemory:
    def test_thousands_of_calls_leave_nothing_behind(self, guard):
        guard.text = successes(1)
        request = prepared("PUT", CRM + "Leads/1")

        def kept(calls):
            for _ in range(calls):
                guard.send(request)
            gc.collect()
            return tracemalloc.get_traced_memory()[0]

        tracemalloc.start()
        try:
            before = kept(500)
            after = kept(2_000)
        finally:
            tracemalloc.stop()
        assert after - before < 5_000

    def test_threads_share_an_adapter_without_state_between_calls(self, guard, together):
        before = vars(guard).keys()
        together([lambda: guard.send(prepared("PUT", CRM + "Leads"))] * 8)
        assert vars(guard).keys() - before <= {"body", "answer"}
        assert threading.active_count() < 8


class TestImports:
    """In processes of their own, since here everything is imported."""

    OPTIONAL = ("typer", "rich", "redis", "http.server", "flask", "tomllib", "backoff", "asyncio")
    LOCKS = (
        "crm_guard._protocol.conversation",
        "crm_guard._protocol.exchange",
        "crm_guard._protocol.matching",
        "crm_guard._protocol.approval_probe",
        "crm_guard._protocol.merge",
        "crm_guard._protocol.record_outcomes",
        "crm_guard._transport.driver",
        "crm_guard._transport.tap",
        "crm_guard.report",
        "crm_guard.events",
    )

    def imported(self, program):
        program += "; import sys; print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
        return set(done.stdout.split())

    @pytest.mark.parametrize(
        "program",
        [
            "import crm_guard",
            "from crm_guard import *; mount_guard, GuardError",
            "import crm_guard, requests; crm_guard.mount_guard(requests.Session())",
            "import crm_guard; crm_guard.install()",
        ],
    )
    def test_nothing_optional_is_imported_before_it_is_used(self, program):
        assert self.imported(program).isdisjoint(self.OPTIONAL)

    def test_a_program_that_meets_no_lock_does_not_load_what_handles_locks(self):
        program = "import crm_guard, requests; crm_guard.mount_guard(requests.Session())"
        assert self.imported(program).isdisjoint(self.LOCKS)
        assert all(importlib.util.find_spec(name) for name in self.LOCKS), "none of them was renamed"

    def test_importing_the_package_alone_imports_none_of_its_modules(self):
        assert {name for name in self.imported("import crm_guard") if name.startswith("crm_guard.")} == set()

    def test_every_public_name_is_there(self):
        assert sorted(crm_guard.__all__) == sorted(crm_guard._MODULES)
        for name in crm_guard.__all__:
            assert getattr(crm_guard, name) is getattr(sys.modules[f"crm_guard.{crm_guard._MODULES[name]}"], name)
        assert set(crm_guard._MODULES) <= set(dir(crm_guard))

    def test_a_name_that_is_none_is_an_attribute_error(self):
        with pytest.raises(AttributeError, match="module 'crm_guard' has no attribute 'GuardAdaptor'"):
            crm_guard.GuardAdaptor  # noqa: B018
