"""Logs for machines: structlog, JSON formatters and Django take the fields of an event from the standard logger."""

from __future__ import annotations

import io
import json
import logging
import logging.config
import logging.handlers
import pickle
import queue
import textwrap
from collections import Counter

import pytest
import structlog
from structlog.stdlib import ExtraAdder, ProcessorFormatter, add_log_level, add_logger_name

import crm_guard
from crm_guard import EventKind, GuardSettings
from tests.bulk.world import add, rows_of, session_for, take
from tests.instrumentation.lab import ACTION, ROW, guarded, said

FIELDS = {
    *("kind", "method", "path", "module", "record_ids", "attempt", "delay", "waited", "again", "pending"),
    *("reason", "records", "code", "action", "case", "hint", "error", "calls"),
}
OWN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Records(logging.Handler):
    """Keeps what is logged."""

    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


@pytest.fixture
def logged():
    """Attach handlers to the guard's logger, for all levels; they are taken off again."""
    logger = logging.getLogger("crm_guard")
    level, added = logger.level, []

    def attach(handler):
        logger.addHandler(handler)
        added.append(handler)
        return handler

    logger.setLevel(logging.DEBUG)
    yield attach
    logger.setLevel(level)
    for handler in added:
        logger.removeHandler(handler)


def everything(crm, clock, leads):
    """Make calls in which everything happens that is told of."""
    ids = [crm.add_record("Leads", refusals=count) for count in (0, 2, 9)]
    ids += [crm.add_record("Leads", state="zia_vision_rejected")]
    rows = [{"id": one, "Company": "s3cret", "Email": "jane@example.com"} for one in ids]
    headers = {"Authorization": "Zoho-oauthtoken s3cret"}
    with guarded(crm, clock=clock, attempts=4) as session:
        session.put(f"{leads}?token=s3cret", json={"data": rows}, headers=headers)
        external = crm.add_record("Leads", refusals=1)
        details = {"id": external, "action": ACTION}
        item = {"code": "RECORD_LOCKED", "details": details, "message": "s3cret", "status": "error"}
        crm.fault("answer", path="jane", status=400, body={"data": [item]}, times=2)
        session.put(f"{leads}/jane@example.com", json=ROW, headers={"X-EXTERNAL": "Leads.Ext", **headers})
    return ids


def json_lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


class TestARecordOfTheLog:
    def test_has_every_field_of_the_event_as_plain_values_and_overwrites_nothing(self, crm, clock, leads, logged):
        records = logged(Records()).records
        everything(crm, clock, leads)
        assert {record.guard_kind for record in records} == {kind.value for kind in EventKind}
        for record in records:
            added = set(vars(record)) - OWN
            assert added == {f"guard_{name}" for name in FIELDS}
            assert (record.module, record.name) == ("event_log", "crm_guard")
            assert record.guard_module == "Leads"
            plain = {name: value for name, value in vars(record).items() if name in added}
            assert json.loads(json.dumps(plain)).keys() == plain.keys()
            for value in plain.values():
                assert type(value) in {str, int, float, bool, tuple, type(None)}

    def test_holds_no_body_no_token_and_no_field_value(self, crm, clock, leads, logged):
        records = logged(Records()).records
        everything(crm, clock, leads)
        assert len(records) > 8
        text = "\n".join(f"{record.getMessage()} {vars(record)!r}" for record in records)
        assert not [word for word in ("s3cret", "jane", "Zylker", "oauthtoken", "Leads.Ext") if word in text]

    def test_travels_to_another_thread_and_another_process(self, crm, clock, leads, logged):
        """As a `QueueHandler` and a `SocketHandler` send it."""
        records, waiting = logged(Records()).records, queue.SimpleQueue()
        logged(logging.handlers.QueueHandler(waiting))
        everything(crm, clock, leads)
        for record in records:
            arrived = pickle.loads(pickle.dumps(vars(waiting.get_nowait())))  # noqa: S301
            assert arrived["message"] == record.getMessage()
            assert {name: arrived[f"guard_{name}"] for name in FIELDS} == {
                name: getattr(record, f"guard_{name}") for name in FIELDS
            }
        assert waiting.empty()

    def test_of_a_writer_has_the_same_fields(self, crm, leads, logged):
        records = logged(Records()).records
        ids = [*add(crm, 5), *add(crm, 4, refusals=1), *add(crm, 2, state="zia_vision_rejected")]
        with session_for(crm) as session:
            take(crm_guard.write_records(session, "PUT", leads, rows_of(ids)))
        kinds = Counter(record.guard_kind for record in records)
        assert set(kinds) == {"locked", "waiting", "resending", "unlocked", "blocked"}
        assert {frozenset(set(vars(record)) - OWN) for record in records} == {
            frozenset(f"guard_{name}" for name in FIELDS)
        }
        (blocked,) = [record for record in records if record.guard_kind == "blocked"]
        assert (blocked.guard_records, blocked.guard_case) == (2, "zia_rejected")
        assert sorted(blocked.guard_record_ids) == sorted(ids[-2:])


BEFORE = {"processors": [ExtraAdder(), ProcessorFormatter.remove_processors_meta]}
CHAIN = {
    "processors": [ProcessorFormatter.remove_processors_meta],
    "foreign_pre_chain": [add_log_level, add_logger_name, ExtraAdder()],
}


class TestStructlog:
    @pytest.mark.parametrize("where", [BEFORE, CHAIN], ids=["processors", "foreign_pre_chain"])
    def test_has_the_fields_as_json(self, crm, clock, leads, logged, where):
        handler = logged(logging.StreamHandler(io.StringIO()))
        renderer = structlog.processors.JSONRenderer()
        handler.setFormatter(ProcessorFormatter(**{**where, "processors": [*where["processors"], renderer]}))
        ids = everything(crm, clock, leads)
        lines = json_lines(handler.stream)
        first = lines[0]
        assert first["event"].startswith("PUT /crm/v8/Leads: locked, 2 records (")
        assert first["guard_kind"] == "locked"
        assert (first["guard_code"], first["guard_action"]) == ("RECORD_LOCKED", ACTION)
        assert first["guard_record_ids"] == ids[1:3]
        assert (first["guard_module"], first["guard_attempt"], first["guard_waited"]) == ("Leads", 1, 0.0)
        assert {line["guard_kind"] for line in lines} == {kind.value for kind in EventKind}
        (gave_up,) = [line for line in lines if line["guard_kind"] == "gave_up"]
        assert gave_up["guard_reason"] == "attempts"
        assert "raise `timeout` and `attempts`" in gave_up["guard_hint"]
        (blocked,) = [line for line in lines if line["guard_kind"] == "blocked"]
        assert (blocked["guard_code"], blocked["guard_case"]) == ("NOT_APPROVED", "zia_rejected")
        if where is CHAIN:
            assert (gave_up["level"], gave_up["logger"]) == ("warning", "crm_guard")

    def test_shows_them_on_a_console_as_well(self, crm, clock, leads, logged):
        handler = logged(logging.StreamHandler(io.StringIO()))
        console = structlog.dev.ConsoleRenderer(colors=False)
        handler.setFormatter(
            ProcessorFormatter(processors=[ExtraAdder(), ProcessorFormatter.remove_processors_meta, console])
        )
        everything(crm, clock, leads)
        assert "guard_action=zia_vision_processing" in handler.stream.getvalue()


class AsJson(logging.Formatter):
    """What many projects have: whatever `extra` adds, as JSON."""

    def format(self, record):
        extra = {name: value for name, value in vars(record).items() if name not in OWN}
        return json.dumps({"level": record.levelname, "message": record.getMessage(), **extra}, default=str)


class TestFormatters:
    def test_of_pythons_own_write_the_fields_as_json(self, crm, clock, leads, logged):
        handler = logged(logging.StreamHandler(io.StringIO()))
        handler.setFormatter(AsJson())
        everything(crm, clock, leads)
        levels = Counter((line["level"], line["guard_kind"]) for line in json_lines(handler.stream))
        assert levels["WARNING", "blocked"] == levels["WARNING", "gave_up"] == 1
        assert levels["INFO", "waiting"] == 2
        assert levels["DEBUG", "resending"] == 5

    def test_with_a_default_show_lines_that_are_about_no_call_too(self, crm, clock, leads, logged):
        def fail(event):
            if event.kind is EventKind.LOCKED:
                raise LookupError

        handler = logged(logging.StreamHandler(io.StringIO()))
        handler.setLevel(logging.INFO)
        handler.setFormatter(
            logging.Formatter(
                "%(levelname)s %(guard_module)s %(guard_kind)s",
                defaults=dict.fromkeys(["guard_module", "guard_kind"], "-"),
            )
        )
        with guarded(crm, fail, clock=clock) as session:
            session.put(f"{leads}/{crm.add_record('Leads', refusals=1)}", json=ROW)
        assert handler.stream.getvalue().splitlines() == [
            "WARNING - -",
            "INFO Leads waiting",
            "INFO Leads unlocked",
        ]

    @pytest.mark.parametrize("disable", [False, True])
    def test_of_a_dictionary_as_djangos_setting_has_it(self, crm, clock, leads, disable):
        stream, logger = io.StringIO(), logging.getLogger("crm_guard")
        before = logger.handlers[:], logger.level, logger.propagate, logger.disabled
        others = {
            name: other.disabled
            for name, other in logging.Logger.manager.loggerDict.items()
            if isinstance(other, logging.Logger)
        }
        try:
            logging.config.dictConfig(
                {
                    "version": 1,
                    "disable_existing_loggers": disable,
                    "formatters": {"json": {"()": AsJson}},
                    "handlers": {"json": {"class": "logging.StreamHandler", "stream": stream, "formatter": "json"}},
                    "loggers": {"crm_guard": {"handlers": ["json"], "level": "INFO", "propagate": False}},
                }
            )
            with guarded(crm, clock=clock) as session:
                session.put(f"{leads}/{crm.add_record('Leads', refusals=1)}", json=ROW)
        finally:
            logger.handlers[:], logger.level, logger.propagate, logger.disabled = before
            logger.manager._clear_cache()
            for name, was in others.items():
                logging.getLogger(name).disabled = was
        assert [line["guard_kind"] for line in json_lines(stream)] == ["waiting", "unlocked"]


SHOP = """
import prometheus_client
from django.apps import AppConfig
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()

class ShopConfig(AppConfig):
    name = "shop"

    def ready(self):
        import crm_guard
        from crm_guard.instrumentation import OpenTelemetryHook, PrometheusHook

        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        crm_guard.instrument([OpenTelemetryHook(tracer_provider=provider), PrometheusHook()])
"""

SITE = """
import io, json, logging, sys
directory, disable, order = sys.argv[1:]
sys.path.insert(0, directory)
if order == "before":
    import crm_guard, crm_guard.adapter, crm_guard.bulk, crm_guard._transport.event_log
import django
from django.conf import settings

stream = io.StringIO()
settings.configure(
    INSTALLED_APPS=["shop"],
    LOGGING={
        "version": 1,
        "disable_existing_loggers": disable == "True",
        "formatters": {
            "crm": {
                "()": "logging.Formatter",
                "fmt": "%(levelname)s %(guard_module)s %(guard_kind)s %(module)s",
                "defaults": {"guard_module": "-", "guard_kind": "-"},
            }
        },
        "handlers": {"crm": {"class": "logging.StreamHandler", "stream": stream, "formatter": "crm"}},
        "loggers": {"crm_guard": {"handlers": ["crm"], "level": "INFO"}},
    },
)
django.setup()
assert ("crm_guard" in sys.modules) and django.apps.apps.is_installed("shop")

import prometheus_client, requests
import crm_guard
from crm_guard.simulator import Simulator
from crm_guard.testing import ManualClock
import shop.apps

clock = ManualClock()
with Simulator(clock=clock) as crm, crm_guard.install(crm.url, clock=clock):
    for _ in range(2):
        lead = crm.add_record("Leads", refusals=1)
        assert requests.put(f"{crm.url}/crm/v8/Leads/{lead}", json={"data": [{"Company": "9"}]}).ok
print(json.dumps(stream.getvalue().splitlines()))
print(prometheus_client.generate_latest().decode().count('crm_guard_resends_total{module="Leads"} 2.0'))
print(*[span.name for span in shop.apps.exporter.get_finished_spans()])
"""


@pytest.mark.parametrize(("disable", "order"), [("False", "after"), ("True", "before")])
def test_a_site_of_djangos_logs_traces_and_counts_what_its_setting_and_its_app_say(tmp_path, disable, order):
    """Whether the guard was imported before `django.setup()` or after, and whether that disables other loggers."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("")
    (tmp_path / "shop" / "apps.py").write_text(textwrap.dedent(SHOP))
    lines, counted, spans = said(SITE, str(tmp_path), disable, order)
    assert json.loads(lines) == ["INFO Leads waiting event_log", "INFO Leads unlocked event_log"] * 2
    assert counted == "1"
    assert spans == "crm_guard.wait crm_guard.wait"


def test_nothing_is_written_where_nobody_asked_for_it(crm, clock, leads, capfd):
    """No handler of last resort speaks up: the package has a `NullHandler`."""
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("crm_guard").handlers)
    policy = GuardSettings(attempts=2, raise_on="never")
    with session_for(crm, policy, clock=clock) as session:
        session.put(f"{leads}/{crm.add_record('Leads', refusals=9)}", json=ROW)
    assert capfd.readouterr() == ("", "")
