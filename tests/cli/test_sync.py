"""`crm-guard sync`, against a simulated CRM over loopback."""

import csv
import errno
import io
import json
import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from crm_guard.cli.plain import CommandError
from crm_guard.cli.sync.failures import _Writer
from crm_guard.cli.sync.lines import _LONGEST
from crm_guard.cli.sync.signals import Stop, Stopped, handled
from crm_guard.cli.sync.source import Format, opened
from crm_guard.simulator import Simulator, State
from tests.bulk.world import until

TOKEN = "1000.0123456789abcdef.secret"
FIRST = 111112000000100000
OWN = ["_line", "_state", "_code", "_case", "_message", "_hint", "_uncertain"]


def record_id(number):
    return str(FIRST + number)


class Crm(Simulator):
    """A CRM that does something when it gets a write, before it answers; `bodies` are those of the writes."""

    def __init__(self, **options):
        super().__init__(**options)
        self.bodies = []
        self.before = lambda _count: None

    def handle(self, request, *, hold=None):
        if request.method != "GET":
            self.bodies.append(json.loads(request.body) if request.body else request.query)
            self.before(len(self.bodies))
        return super().handle(request, hold=hold)


@pytest.fixture
def crm(monkeypatch):
    monkeypatch.setenv("CRM_TOKEN", TOKEN)
    for name, seconds in (("WAIT_INITIAL", "0.01"), ("WAIT_MAX", "0.02"), ("TIMEOUT", "1")):
        monkeypatch.setenv(f"CRM_GUARD_{name}", seconds)
    with Crm(token=TOKEN) as simulator:
        yield simulator


@pytest.fixture
def sync(crm, crm_guard_command):
    """Runs `crm-guard sync` for the leads of the simulated CRM."""

    def run(file, *options, method="update", stdin=""):
        target = ("--url", crm.url, "--module", "Leads", "--method", method)
        return crm_guard_command("sync", str(file), *target, *options, stdin=stdin)

    return run


@pytest.fixture
def csv_file(crm, tmp_path):
    """Makes a CSV file of leads that CRM has."""

    def make(count, name="leads.csv", **first):
        for number in range(count):
            crm.add_record("Leads", record_id(number), **(first if number == 0 else {}))
        path = tmp_path / name
        path.write_text("id,Company\n" + "".join(f"{record_id(n)},Zylker {n}\n" for n in range(count)))
        return path

    return make


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def sent(crm):
    return [row for body in crm.bodies for row in body["data"]]


class TestRows:
    def test_a_csv_file_is_written_row_by_row(self, sync, crm, csv_file):
        ran = sync(csv_file(250, locked_for=0.05))
        assert (ran.status, ran.err) == (0, "")
        assert ran.out.startswith("✓ 250 of 250 rows written in ")
        assert dict(crm.write_counts) == {record_id(number): 1 for number in range(250)}
        assert crm.get(record_id(7)).fields["Company"] == "Zylker 7"

    def test_nothing_shows_the_token(self, sync, csv_file, crm, tmp_path):
        path = csv_file(2, state=State.ZIA_VISION_REJECTED)
        ran = sync(path, "--failed", str(tmp_path / "failed.csv"), "--json")
        assert "secret" not in ran.out + ran.err + (tmp_path / "failed.csv").read_text()
        assert {call.headers["Authorization"] for call in crm.calls} == {f"Zoho-oauthtoken {TOKEN}"}

    @pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
    def test_a_byte_order_mark_quoted_line_ends_and_spaces_are_taken(self, sync, crm, tmp_path, bom):
        path = tmp_path / "leads.csv"
        path.write_bytes(bom + b'Last_Name, Company\r\n"R\xc3\xb6sler",  "a ""b""\r\nc"\r\n\r\n,\r\n')
        path.write_bytes(bom + b'Last_Name, Company\r\n"R\xc3\xb6sler","a ""b""\r\nc,"\r\n\r\n,\r\n')
        assert sync(path, method="insert").status == 0
        assert sent(crm) == [{"Last_Name": "Rösler", "Company": 'a "b"\r\nc,'}]

    @pytest.mark.parametrize(
        ("options", "row"),
        [((), {"Last_Name": "007"}), (("--empty", "null"), {"Last_Name": "007", "Email": None})],
    )
    def test_values_are_texts_and_empty_cells_are_left_out_or_null(self, sync, crm, tmp_path, options, row):
        path = tmp_path / "leads.csv"
        path.write_text("Last_Name,Email\n007,\n")
        assert sync(path, *options, method="insert").status == 0
        assert sent(crm) == [row]

    @pytest.mark.parametrize("name", ["leads.jsonl", "LEADS.NDJSON"])
    def test_json_lines_keep_their_types(self, sync, crm, tmp_path, name):
        row = {"Last_Name": "Ö", "Number": 1.5, "Tags": [{"name": "x"}], "Email": None, "Big": 10**25}
        path = tmp_path / name
        path.write_text(f"{json.dumps({**row, '_note': 1})}\n\n   \n{json.dumps({'Last_Name': 'b'})}")
        assert sync(path, method="insert").status == 0
        assert sent(crm) == [row, {"Last_Name": "b"}]

    def test_standard_input_needs_a_format(self, sync, crm):
        assert "--format" in sync("-", method="insert").err
        ran = sync("-", "--format", "csv", method="insert", stdin="Last_Name\na\nb\n")
        assert (ran.status, sent(crm)) == (0, [{"Last_Name": "a"}, {"Last_Name": "b"}])

    def test_rows_are_read_as_they_are_sent(self, crm, sync, monkeypatch):
        """As many as may be pending, and not all of them."""

        class Endless(io.RawIOBase):
            lines = 0

            def readable(self):
                return True

            def readline(self, _limit=-1):
                self.lines += 1
                if self.lines > 30_000:
                    return b""
                return b"Last_Name\n" if self.lines == 1 else b"a\n"

        source, seen = Endless(), []
        crm.before = lambda count: (
            seen.append(source.lines) or (count == 3 and os.kill(os.getpid(), signal.SIGTERM))
        )
        monkeypatch.setattr("crm_guard.cli.sync.source.sys", SimpleNamespace(stdin=SimpleNamespace(buffer=source)))
        sync("-", "--format", "csv", method="insert")
        assert seen[0] < 2_000
        assert source.lines < 12_000

    def test_the_bar_knows_how_many_rows_are_sent(self, sync, csv_file, tmp_path, monkeypatch):
        totals, marked = [], tmp_path / "marked.csv"
        monkeypatch.setattr("crm_guard._bulk.progress.open_bar", totals.append)
        sync(csv_file(3))
        marked.write_text(f"id,_uncertain\n{record_id(0)},true\n{record_id(1)},false\n")
        sync(marked)
        sync("-", "--format", "csv", stdin=marked.read_text())
        assert totals == [3, 1, None]

    @pytest.mark.parametrize("options", [(), ("--batch-size", "1")])
    def test_delete_sends_ids_only(self, sync, crm, csv_file, options):
        assert sync(csv_file(3), *options, method="delete").status == 0
        assert not crm.records

    def test_json_ids_may_be_numbers(self, sync, crm, csv_file, tmp_path):
        csv_file(2)
        path = tmp_path / "leads.jsonl"
        path.write_text(f'{{"id": {record_id(0)}}}\n{{"id": "{record_id(1)}"}}\n')
        assert sync(path, method="delete").status == 0
        assert not crm.records

    def test_the_options_become_the_body_of_each_call(self, sync, crm, tmp_path):
        path = tmp_path / "leads.csv"
        path.write_text("Last_Name,Email\na,a@example.com\n")
        options = ("--duplicate-check", "Email", "--trigger", "workflow", "--trigger", "approval")
        assert sync(path, *options, method="upsert").status == 0
        assert sync(path, "--trigger", "none", "--version", "v7", method="insert").status == 0
        assert [call.path for call in crm.calls] == ["/crm/v8/Leads/upsert", "/crm/v7/Leads"]
        assert crm.bodies[0]["duplicate_check_fields"] == ["Email"]
        assert [body["trigger"] for body in crm.bodies] == [["workflow", "approval"], []]

    def test_a_delete_without_triggers_says_so_in_the_url(self, sync, crm, csv_file):
        assert sync(csv_file(1), "--trigger", "none", method="delete").status == 0
        assert crm.bodies == [f"wf_trigger=false&ids={record_id(0)}"]

    def test_settings_come_from_a_file_too(self, sync, csv_file, tmp_path):
        bad = tmp_path / "guard.toml"
        bad.write_text("timeout = -1\n")
        ran = sync(csv_file(1), "--settings", str(bad))
        assert ran.status == 2
        assert "timeout" in ran.err


class TestFailures:
    def test_a_round_trip_writes_every_row_exactly_once(self, sync, crm, csv_file, tmp_path):
        path, failed, again = csv_file(120), tmp_path / "failed.csv", tmp_path / "again.csv"
        blocked = [record_id(number) for number in (3, 50, 119)]
        for name in blocked:
            crm.set_state(name, State.ZIA_VISION_REJECTED)
        ran = sync(path, "--failed", str(failed))
        assert (ran.status, ran.err) == (1, "")
        assert "117 of 120 rows" in ran.out
        assert "NOT_APPROVED zia_rejected (lines 5, 52, 121)" in ran.out
        assert "The 3 rows that were not written are in" in ran.out
        kept = sorted(rows_of(failed), key=lambda row: int(row["_line"]))
        assert list(kept[0]) == ["id", "Company", *OWN]
        assert [(row["id"], row["_line"], row["_uncertain"]) for row in kept] == list(
            zip(blocked, ["5", "52", "121"], ["false"] * 3, strict=True)
        )
        assert {(row["_state"], row["_code"], row["_case"]) for row in kept} == {
            ("blocked", "NOT_APPROVED", "zia_rejected")
        }
        assert all(row["_hint"] and row["_message"] for row in kept)

        for name in blocked:
            crm.unlock(name)
        ran = sync(failed, "--failed", str(again))
        assert (ran.status, ran.err) == (0, "")
        assert dict(crm.write_counts) == {record_id(number): 1 for number in range(120)}
        assert crm.get(blocked[0]).fields["Company"] == "Zylker 3"
        assert not again.exists()

    def test_a_round_trip_of_json_lines(self, sync, crm, tmp_path):
        crm.add_record("Leads", record_id(0), state=State.RECORD_LOCKING)
        path, failed = tmp_path / "leads.jsonl", tmp_path / "failed.jsonl"
        row = {"id": record_id(0), "Company": "Zylker", "Tags": [1, None], "_note": "mine"}
        path.write_text(json.dumps(row) + "\n")
        assert sync(path, "--failed", str(failed)).status == 1
        (kept,) = map(json.loads, failed.read_text().splitlines())
        assert row.items() <= kept.items()
        assert (kept["_line"], kept["_code"], kept["_case"]) == (1, "RECORD_LOCKED", "record_locking")
        assert kept["_uncertain"] is False
        crm.unlock(record_id(0))
        assert sync(failed).status == 0
        assert sent(crm)[-1] == {name: value for name, value in row.items() if name != "_note"}

    def test_failures_of_a_delete_have_all_columns(self, sync, csv_file, tmp_path):
        failed = tmp_path / "failed.csv"
        assert sync(csv_file(2, state=State.RECORD_LOCKING), "--failed", str(failed), method="delete").status == 1
        assert [row["Company"] for row in rows_of(failed)] == ["Zylker 0"]

    def test_failures_are_there_as_soon_as_they_are_known(self, sync, crm, csv_file, tmp_path):
        failed, seen = tmp_path / "failed.csv", []
        part = tmp_path / "failed.csv.part"
        path = csv_file(5, state=State.RECORD_LOCKING)
        crm.before = lambda _count: seen.append(len(part.read_text().splitlines()))
        sync(path, "--failed", str(failed), "--workers", "1", "--batch-size", "1")
        assert seen[0] == 0
        assert seen[-1] == 2

    def test_uncertain_rows_are_not_sent_again_unless_asked_for(self, sync, crm, csv_file, tmp_path):
        failed, again, third = (tmp_path / f"{name}.csv" for name in ("failed", "again", "third"))
        path = csv_file(2)
        crm.fault("drop", method="PUT", times=1)
        ran = sync(path, "--failed", str(failed))
        assert ran.status == 1
        assert "2  uncertain" in ran.out
        assert {row["_uncertain"] for row in rows_of(failed)} == {"true"}
        before = dict(crm.write_counts)

        ran = sync(failed, "--failed", str(again), "--json")
        assert (ran.status, dict(crm.write_counts)) == (1, before)
        assert (ran.json()["uncertain"], ran.json()["calls"]) == (2, 0)
        assert ran.json()["failures"][0]["held_back"] is True
        assert [row["_code"] for row in rows_of(again)] == [row["_code"] for row in rows_of(failed)]
        assert "--include-uncertain sends them" in sync(again).out

        assert sync(again, "--include-uncertain", "--failed", str(third)).status == 0
        assert {crm.get(record_id(n)).fields["Company"] for n in range(2)} == {"Zylker 0", "Zylker 1"}

    def test_a_call_that_crm_refuses_ends_the_run_and_every_row_is_kept(self, sync, crm, csv_file, tmp_path):
        failed, path = tmp_path / "failed.csv", csv_file(1200)
        crm.before = lambda count: count == 3 and crm.expire_token("other")
        ran = sync(path, "--failed", str(failed), "--workers", "1")
        assert ran.status == 1
        assert ran.err == "crm-guard: ended before time by 401 INVALID_TOKEN (is the access token valid?)\n"
        refused = [row for row in rows_of(failed) if row["_state"] == "parked"]
        assert [row["_code"] for row in refused] == ["INVALID_TOKEN"] * 100
        assert "CRM took none of the call that it was in" in ran.out
        written, kept = set(crm.write_counts), [row["id"] for row in rows_of(failed)]
        assert len(written) == 200
        assert sorted([*written, *kept]) == [record_id(number) for number in range(1200)]
        assert "never_sent" in {row["_state"] for row in rows_of(failed)}
        assert "not sent" in ran.out

    def test_rows_of_standard_input_that_were_not_read_are_told(self, sync, crm):
        crm.expire_token("other")
        ran = sync("-", "--format", "csv", method="insert", stdin="Last_Name\n" + "a\n" * 20_000)
        assert ran.status == 1
        assert "Nothing was read from line " in ran.out

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
    def test_a_full_disk_ends_the_run_and_is_told(self, sync, csv_file):
        ran = sync(csv_file(3, state=State.RECORD_LOCKING), "--failed", "/dev/full")
        assert ran.status == 1
        assert "--failed cannot be written: No space left" in ran.err
        assert "2 of 3 rows" in ran.out

    def test_a_disk_that_is_full_meanwhile_leaves_whole_rows_and_is_told(
        self, sync, crm, csv_file, tmp_path, monkeypatch
    ):
        failed, writes, path = tmp_path / "failed.csv", [], csv_file(9)
        for number in range(5):
            crm.set_state(record_id(number), State.RECORD_LOCKING)
        write = _Writer.__call__

        def until_full(self, failure):
            writes.append(failure)
            if len(writes) == 3:
                self._file.write("half a r")
                self._file.flush()
                raise OSError(errno.ENOSPC, "No space left on device")
            write(self, failure)

        monkeypatch.setattr(_Writer, "__call__", until_full)
        ran = sync(path, "--failed", str(failed))
        assert ran.status == 1
        assert f"{failed} is incomplete: 2 of 5 rows are in it." in ran.out
        assert len(rows_of(failed)) == 2

    def test_a_run_that_was_killed_leaves_a_part_that_no_other_run_takes_for_whole(
        self, sync, crm, csv_file, tmp_path
    ):
        failed = tmp_path / "failed.csv"
        (tmp_path / "failed.csv.part").write_text("id\n1\n")
        ran = sync(csv_file(2), "--failed", str(failed))
        assert (ran.status, ran.out) == (2, "")
        assert "failed.csv.part exists: another run writes it, or was killed" in ran.err
        assert not crm.bodies
        assert not failed.exists()

    def test_a_closed_standard_input_is_told(self, monkeypatch):
        monkeypatch.setattr("sys.stdin", None)
        with (
            pytest.raises(CommandError, match="standard input cannot be read: it is closed"),
            opened("-", Format.CSV, nulls=False, needs_id=False, waits=bool),
        ):
            pass

    def test_a_file_of_failures_is_never_overwritten(self, sync, crm, csv_file, tmp_path):
        path, failed = csv_file(1), tmp_path / "failed.csv"
        failed.write_text("precious")
        for name, said in ((failed, "exists"), (path, "is the input itself"), (tmp_path / "no" / "f", "cannot be")):
            ran = sync(path, "--failed", str(name))
            assert (ran.status, ran.out) == (2, "")
            assert said in ran.err
        assert failed.read_text() == "precious"
        assert not crm.bodies


class TestBadInput:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (b"", "line 1: there is no header"),
            (b"\n1\n", "line 1: there is no header"),
            (b"id,Company,\n", "line 1: column 3 has no name"),
            (b"id,Company,id\n", "line 1: column 3, 'id', is there twice"),
            (b"id,Last Name\n", "line 1: column 2, 'Last Name', is no API name of a field"),
            (b"id;Company\n1;a\n", "line 1: the columns are separated by semicolons"),
            (b"Company\na\n", "line 1: there is no column 'id'"),
            (b"id,Company\n1,a\n2,b,c\n", "line 3: has 3 cells, and the header has 2"),
            (b'id,Company\n1,"a\n\nb"\n2\n', "line 5: has 1 cell, and"),
            (b"id,Company\n1,a\n,b\n", "line 3: has no 'id'"),
            (b"id,Company\n1.11112E+17,a\n", "line 2: its id '1.11112E+17' is no record id"),
            (b"id,Company\n1,a\n2,\xff\n", "line 3: is no UTF-8: byte 3 of the line is 0xff"),
            ("id,Company\n".encode("utf-16"), "line 1: is UTF-16"),
            (b'id,Company\n1,"a\n2,b\n', "line 2: the file ends within a quoted cell"),
            (b'id,Company\n1,"a"b\n', "line 2: is no CSV"),
            (b"id,Company\r1,a\r2,b\r", "line 1: a bare carriage return"),
            (b"id,Company\n1," + b"a" * 200_000, "line 2: a cell has more than 131,072 characters"),
            (b"id,Company\n1," + b"a" * _LONGEST, "line 2: is longer than 16 MiB"),
        ],
    )
    def test_of_csv_is_told_in_one_line_before_anything_is_sent(self, sync, crm, tmp_path, text, said):
        path, failed = tmp_path / "leads.csv", tmp_path / "failed.csv"
        path.write_bytes(text)
        ran = sync(path, "--failed", str(failed))
        assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert ran.err.startswith(f"crm-guard: {path}, {said}"), ran.err
        assert not crm.bodies
        assert not failed.exists()

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (b"{}\n[1]\n", "line 2: must be a JSON object: Expected `object`, got `array`"),
            (b'{"a":NaN}\n', "line 1: is no JSON"),
            (b'{"a":1\n', "line 1: is no JSON"),
            (b'{"a":"\\ud800"}\n', "line 1: is no JSON"),
            (b'{"a":' + b"[" * 3000 + b"\n", "line 1: is no JSON"),
            (b'\n{"a":"\xff"}\n', "line 2: is no UTF-8"),
        ],
    )
    def test_of_json_lines_too(self, sync, crm, tmp_path, text, said):
        path = tmp_path / "leads.jsonl"
        path.write_bytes(text)
        ran = sync(path, method="insert")
        assert (ran.status, ran.err.count("\n")) == (2, 1)
        assert ran.err.startswith(f"crm-guard: {path}, {said}"), ran.err
        assert not crm.bodies

    @pytest.mark.parametrize(
        ("bad", "kind", "said"),
        [
            ("b,c\nd\n", "csv", "line 302: has 2 cells"),
            ("\xff\nd\n", "csv", "line 302: is no UTF-8"),
            ('"b', "csv", "line 302: the file ends within a quoted cell"),
            ("[]\n{}\n", "jsonl", "line 301: must be a JSON object"),
        ],
    )
    def test_in_the_middle_of_standard_input_ends_the_run_in_order(self, sync, crm, tmp_path, bad, kind, said):
        good = "Last_Name\n" + "a\n" * 300 if kind == "csv" else '{"Last_Name": "a"}\n' * 300
        failed = tmp_path / "failed"
        ran = sync(
            "-", "--format", kind, "--failed", str(failed), method="insert", stdin=(good + bad).encode("latin-1")
        )
        assert ran.status == 2
        assert ran.err.startswith(f"crm-guard: standard input, {said}")
        assert ran.err.count("\n") == 1
        kept = len(failed.read_text().splitlines()) - (kind == "csv") if failed.exists() else 0
        assert len(crm.records) + kept == 300
        assert "Nothing was read from line 30" in ran.out

    def test_a_file_that_is_not_there_or_tells_no_format(self, sync, tmp_path):
        for name, said in (
            (tmp_path / "none.csv", "No such file"),
            (tmp_path, "--format"),
            ("leads.txt", "--format"),
        ):
            ran = sync(name)
            assert (ran.status, ran.out) == (2, "")
            assert said in ran.err
        assert "Is a directory" in sync(tmp_path, "--format", "csv").err


class TestUsage:
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (("--url", "http://www.zohoapis.com"), "https://"),
            (("--url", "https://www.zohoapis.com/crm/v8/Leads"), "--url must be"),
            (("--url", "https://user:pass@www.zohoapis.com"), "--url must be"),
            (("--url", "www.zohoapis.com"), "--url must be"),
            (("--url", "https://[::1"), "--url must be"),
            (("--url", "ftp://www.zohoapis.com"), "--url must be"),
            (("--module", "Leads/1"), "--module"),
            (("--version", "8"), "--version"),
            (("--method", "merge"), "--method"),
            (("--duplicate-check", "Email"), "--duplicate-check is for --method upsert"),
            (("--trigger", "everything"), "--trigger"),
            (("--trigger", "none", "--trigger", "workflow"), "--trigger 'none'"),
            (("--method", "delete", "--trigger", "workflow"), "delete"),
            (("--workers", "0"), "--workers"),
            (("--batch-size", "101"), "--batch-size"),
            (("--token-env", "NOT_SET"), "NOT_SET must hold the access token, and is not set"),
        ],
    )
    def test_bad_options_end_with_2_and_one_line(self, sync, crm, csv_file, options, said):
        ran = sync(csv_file(1), *options)
        assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert said in ran.err
        assert "pass" not in ran.err
        assert not crm.calls

    @pytest.mark.parametrize("given", [TOKEN, "secret_token", "secret-token"])
    def test_a_token_given_for_its_variable_is_not_shown(self, sync, csv_file, given):
        ran = sync(csv_file(1), "--token-env", given)
        assert ran.status == 2
        assert "secret" not in ran.err

    @pytest.mark.parametrize("value", ["", "secret two", "sec\nret", "sécret"])
    def test_a_variable_without_a_token_is_named_and_not_shown(self, sync, monkeypatch, csv_file, value):
        monkeypatch.setenv("CRM_TOKEN", value)
        ran = sync(csv_file(1))
        assert ran.status == 2
        assert "CRM_TOKEN" in ran.err
        assert "cret" not in ran.err

    def test_the_scheme_may_be_in_the_variable(self, sync, monkeypatch, csv_file):
        monkeypatch.setenv("CRM_TOKEN", f"Zoho-oauthtoken {TOKEN}\n")
        assert sync(csv_file(1)).status == 0

    def test_the_json_document(self, sync, csv_file):
        ran = sync(csv_file(3, state=State.ZIA_VISION_REJECTED), "--json")
        found = ran.json()
        assert ran.status == 1
        assert (found["ok"], found["rows"], found["written"], found["blocked"]) == (False, 3, 2, 1)
        assert (found["calls"], found["credits"], found["error"], found["failed_file"]) == (2, 2, None, None)
        assert found["failures"][0]["first_lines"] == [2]
        assert found["failures"][0]["case"] == "zia_rejected"

    def test_the_summary_fits_80_columns(self, sync, monkeypatch, csv_file):
        monkeypatch.setenv("COLUMNS", "80")
        ran = sync(csv_file(3, state=State.RECORD_LOCKING))
        assert all(len(line) <= 80 for line in ran.out.splitlines())


class TestSignals:
    @pytest.fixture(autouse=True)
    def _heeded(self, monkeypatch):
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a shell
        yield
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, before)

    @pytest.mark.parametrize(
        ("number", "status", "said"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 1, "ended by SIGTERM")]
    )
    def test_the_first_awaits_what_is_under_way_and_keeps_the_rest(
        self, sync, crm, csv_file, tmp_path, number, status, said
    ):
        path, failed = csv_file(700, locked_for=60.0), tmp_path / "failed.csv"
        crm.before = lambda count: count == 3 and os.kill(os.getpid(), number)
        ran = sync(path, "--failed", str(failed), "--workers", "2")
        assert (ran.status, ran.err) == (status, f"crm-guard: {said}\n")
        kept = rows_of(failed)
        assert sorted([*crm.write_counts, *(row["id"] for row in kept)]) == [record_id(n) for n in range(700)]
        assert set(crm.write_counts.values()) == {1}
        assert len(crm.write_counts) >= 200
        assert {row["_uncertain"] for row in kept} == {"false"}
        assert next(row for row in kept if row["id"] == record_id(0))["_code"] == "RECORD_LOCKED"
        crm.before = lambda _count: None
        crm.unlock(record_id(0))
        assert sync(failed).status == 0
        assert dict(crm.write_counts) == {record_id(number): 1 for number in range(700)}

    def test_one_ends_the_waits_for_locks(self, sync, crm, csv_file, tmp_path, monkeypatch):
        for name, value in (("TIMEOUT", "30"), ("ATTEMPTS", "100000")):
            monkeypatch.setenv(f"CRM_GUARD_{name}", value)
        path, failed, began = csv_file(2, locked_for=60.0), tmp_path / "failed.csv", time.monotonic()
        crm.before = lambda count: count == 3 and os.kill(os.getpid(), signal.SIGTERM)
        assert sync(path, "--failed", str(failed)).status == 1
        assert time.monotonic() - began < 15
        assert [(row["id"], row["_code"]) for row in rows_of(failed)] == [(record_id(0), "RECORD_LOCKED")]

    @pytest.fixture
    def stops(self, monkeypatch):
        """What the runs of the test know of signals."""
        made, first = [], Stop.__init__
        monkeypatch.setattr(Stop, "__init__", lambda self: (first(self), made.append(self))[0])
        return made

    def test_a_second_ctrl_c_awaits_nothing(self, sync, crm, csv_file, tmp_path, stops):
        path, failed, let_go = csv_file(200), tmp_path / "failed.csv", threading.Event()

        def interrupt_twice(count):
            if count == 1:
                os.kill(os.getpid(), signal.SIGINT)
                until(lambda: stops[0].by is not None)  # two at once would be one
                os.kill(os.getpid(), signal.SIGINT)
                let_go.wait(5)

        crm.before = interrupt_twice
        ran = sync(path, "--failed", str(failed), "--workers", "1")
        let_go.set()
        assert ran.status == 130
        assert {row["_state"] for row in rows_of(failed)} == {"uncertain", "never_sent"}
        assert len(rows_of(failed)) == 200

    @pytest.mark.parametrize(
        ("number", "status", "said"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 1, "ended by SIGTERM")]
    )
    def test_one_ends_a_wait_for_input(self, sync, crm, monkeypatch, number, status, said):
        """As in `tail -f | crm-guard sync -`."""
        ours, theirs = os.pipe()
        os.write(theirs, b"Last_Name\na\nb\nc\n")
        crm.before = lambda count: count == 3 and threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
        with os.fdopen(ours, "rb") as pipe:
            monkeypatch.setattr(
                "crm_guard.cli.sync.source.sys", SimpleNamespace(stdin=SimpleNamespace(buffer=pipe))
            )
            ran = sync("-", "--format", "csv", "--batch-size", "1", method="insert")
        os.close(theirs)
        assert (ran.status, ran.err) == (status, f"crm-guard: {said}\n")
        assert "3 of 3 rows" in ran.out
        assert "Nothing was read from line 5 on." in ran.out
        assert len(crm.records) == 3

    def test_one_with_nothing_left_to_send_is_no_end_of_the_input(self, sync, crm, monkeypatch, stops):
        class Pipe(io.BytesIO):
            def readline(self, limit=-1):
                line = super().readline(limit)
                if line == b"stop\n":
                    until(lambda: len(crm.bodies) >= 3)
                    Stop.waiting(stops[0], False)
                    os.kill(os.getpid(), signal.SIGTERM)
                return line

        pipe = SimpleNamespace(stdin=SimpleNamespace(buffer=Pipe(b"Last_Name\na\nb\nc\nstop\nd\n")))
        monkeypatch.setattr("crm_guard.cli.sync.source.sys", pipe)
        ran = sync("-", "--format", "csv", "--batch-size", "1", method="insert")
        assert (ran.status, ran.err) == (1, "crm-guard: ended by SIGTERM\n")
        assert "Nothing was read from line 6 on." in ran.out

    def test_one_that_comes_just_before_a_wait_for_input_ends_it_too(self):
        stop = Stop()
        stop.waiting(True)
        stop.waiting(False)
        stop.handle(signal.SIGTERM, None)
        with pytest.raises(Stopped):
            stop.waiting(True)

    def test_ctrl_c_is_noted_where_it_would_lose_a_row(self):
        stop = Stop()
        stop.handle(signal.SIGINT, None)
        assert stop.interrupted
        stop.may_interrupt = True
        with pytest.raises(KeyboardInterrupt):
            stop.handle(signal.SIGINT, None)

    def test_once_noted_the_next_ctrl_c_interrupts(self):
        stop = Stop()
        stop.handle(signal.SIGINT, None)
        with pytest.raises(KeyboardInterrupt):
            stop.check()
        with pytest.raises(KeyboardInterrupt):
            stop.handle(signal.SIGINT, None)

    def test_one_that_the_process_ignores_stays_ignored(self):
        """As under `nohup`."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with handled(Stop()):
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        signal.signal(signal.SIGINT, signal.default_int_handler)
