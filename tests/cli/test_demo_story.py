"""What `crm-guard demo` tells a newcomer: at each width, without colour, without a terminal, and at its end."""

import fcntl
import io
import os
import random
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress

import pytest
from rich.console import Console

from crm_guard import EventKind, GuardEvent
from crm_guard.cli.demo import unguarded
from crm_guard.cli.demo.board import Board, Lines, Rows
from crm_guard.cli.demo.plan import Planner
from crm_guard.cli.demo.unguarded import HABITS, Twins, Unguarded
from crm_guard.simulator import Engine, Simulator, State

FAST = ("demo", "--speed", "100", "--rows", "100", "--records", "12")
STORY = (
    r"15 jobs on 192 records",
    r"Zia Vision, Zoho's image check, locks a record",
    r"refused with RECORD_LOCKED",
    r"sends again only what was refused",
    r"blocked until a person acts",
    r"update +100 Contacts +98 written, 2 blocked",
    r"Batches: only what CRM refused was sent again",
    r"11 records stay blocked: who must do what",
    r"zia_rejected +state zia_vision_rejected",
    r"All 10 checks passed\.",
)
END = re.compile(
    r"Without the guard: [^:]+: 5 sends at most, 0\.02 s apart\.\n"
    r"Each call once: +\d+ of 180 records not written.*\n"
    r"Loop on RECORD_LOCKED: \w+ records? written .*; 1 job gave up\n"
    r"Loop on both codes:    \d+ records written .*; 8 jobs gave up\n\Z"
)
SEED = 1


@pytest.fixture
def one_habit(monkeypatch):
    monkeypatch.setattr(unguarded, "HABITS", HABITS[:1])


def told(text):
    return re.sub(r"\s*\n(?=\S)", " ", text)


@pytest.mark.parametrize("width", [80, 120])
def test_the_story_fits_the_width_where_there_is_no_terminal(monkeypatch, crm_guard_command, width):
    monkeypatch.setenv("COLUMNS", str(width))
    ran = crm_guard_command(*FAST)
    assert ran.status == 0, ran.out
    assert max(map(len, ran.out.splitlines())) <= width
    assert "\x1b" not in ran.out
    for words in STORY:
        assert re.search(words, ran.out.replace("\n", " ")), words
    end = ran.out[ran.out.index("Without the guard") :]
    assert END.match(re.sub(r"\n(?!Each|Loop| and)(?=.)", " ", end)), end


def test_a_terminal_of_80_columns_without_colour_has_the_story_uncut():
    """A process in a terminal: `rich` asks the terminal of the process for its width."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "crm_guard.cli", *FAST],
        stdin=slave,
        stdout=slave,
        stderr=subprocess.PIPE,
        env={**environment, "NO_COLOR": "1", "TERM": "xterm-256color"},
    )
    os.close(slave)
    shown = read_all(master)
    assert (process.communicate(timeout=30)[1], process.returncode) == (b"", 0)
    assert "\x1b[2K" in shown, "the board is live"
    assert not re.search(r"\x1b\[[0-9;]*m", shown), "neither colour nor another style"
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r\n", "\n")
    lines = [line for part in plain.splitlines() for line in part.split("\r")]
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if re.search(r"[a-z0-9]…", line)], "no cell is cut"
    for words in STORY:
        assert re.search(words, told(plain)), words


def read_all(master):
    parts = []
    with suppress(OSError):  # how Linux says that the other end is closed
        while part := os.read(master, 65536):
            parts.append(part)
    os.close(master)
    return b"".join(parts).decode()


class Terminal(io.StringIO):
    """A terminal, as far as a program can ask."""

    def isatty(self):
        return True


@pytest.mark.usefixtures("one_habit")
def test_a_dumb_terminal_gets_lines_without_control_codes(monkeypatch, crm_guard_command):
    terminal = Terminal()
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert crm_guard_command(*FAST).status == 0
    assert "\x1b" not in terminal.getvalue()
    assert re.search(STORY[5], terminal.getvalue())


def test_a_wait_is_told_without_a_terminal_once_per_number_of_locked_records():
    jobs = Planner(Engine(), random.Random(SEED), 1.0).plan(12)
    stream = io.StringIO()
    lines = Lines(jobs, Console(file=stream, width=80))
    batch, row = jobs[0], lines.rows.of(jobs[0])

    def note(kind, ids, delay=0.0):
        row.note(GuardEvent(kind=kind, method="PUT", path="/crm/v8/Contacts", record_ids=ids, delay=delay))

    row.start()
    note(EventKind.LOCKED, batch.ids[:12])
    note(EventKind.WAITING, batch.ids[:12], delay=60.0)
    note(EventKind.RESENDING, batch.ids[:12])
    note(EventKind.WAITING, batch.ids[:12], delay=60.0)
    note(EventKind.UNLOCKED, batch.ids[:9])
    note(EventKind.WAITING, batch.ids[9:12], delay=60.0)
    first, second = stream.getvalue().splitlines()
    assert re.fullmatch(r"  0\.\d  update +100 Contacts  12 of 100 locked, again in \d\d\.\d s", first)
    assert "  3 of 100 locked, again in " in second
    assert len(first) <= 80


class Kept(Simulator):
    """Simulators that can be asked when all is over."""

    made: list[Simulator] = []  # noqa: RUF012 (emptied by the fixture)

    def __init__(self, **options):
        super().__init__(**options)
        self.made.append(self)


@pytest.fixture
def twin(monkeypatch):
    """Return a function that runs the day by one habit, and returns what it told, its simulator and its plan."""
    monkeypatch.setattr(unguarded, "Simulator", Kept)
    monkeypatch.setattr(Kept, "made", [])

    def run(habit, speed):
        monkeypatch.setattr(unguarded, "HABITS", (habit,))
        with Twins(
            seed=SEED, records=12, speed=speed, options={"seed": SEED, "validation_seconds": 2.0 / speed}
        ) as twins:
            (found,) = twins.results()
        (crm,) = Kept.made
        return found, crm, Planner(Engine(), random.Random(SEED), speed).plan(12)

    return run


def test_a_session_without_the_guard_leaves_each_locked_record_unwritten(twin):
    found, crm, jobs = twin(HABITS[0], 0.02)  # no lock is shorter than 30 s
    locked = {name for job in jobs for name in job.locks if name not in job.endings and job.writes[name]}
    again = {job.ids[0] for job in jobs if job.name == "upload, update"}
    assert {name for name in crm.records if crm.get(name).state is State.ZIA_VISION_VALIDATION} >= locked
    assert found.not_written == len(locked | again)
    assert all(crm.writes(name) == 0 for name in locked)
    assert found.unnoticed == sum(name in locked for job in jobs if not job.single for name in job.ids) == 23
    assert (found.records, found.extra, found.calls) == (180, (), crm.answered)


@pytest.mark.parametrize(("habit", "gave_up"), [(HABITS[1], 1), (HABITS[2], 8)])
def test_a_loop_writes_again_what_was_written(twin, habit, gave_up):
    found, crm, jobs = twin(habit, 20.0)
    wanted = {name: times for job in jobs for name, times in job.writes.items()}
    extra = {name: times for name, times in crm.write_counts.items() if times > wanted[name]}
    assert sorted(found.extra) == sorted(extra.values())
    free = [name for name in jobs[0].ids if name not in jobs[0].locks and name not in jobs[0].endings]
    sends = sum(call.method == "PUT" and len(call.record_ids) == 100 for call in crm.calls)
    assert sends == (5 if habit is HABITS[2] else pytest.approx(3, abs=2))
    assert {crm.writes(name) for name in free} == {sends}
    assert found.gave_up == gave_up
    assert found.records_sent == sum(len(call.record_ids) for call in crm.calls)


def test_the_json_document_has_the_days_without_the_guard(crm_guard_command):
    found = crm_guard_command(*FAST, "--json").json()
    others = found["without_guard"]
    assert set(others) == {"single_sends", "loop_on_locks", "loop_on_refusals"}
    assert {other["records"] for other in others.values()} == {180}
    assert others["single_sends"]["calls"] == 16
    assert others["loop_on_locks"]["calls"] >= 20, "one record is locked for good"
    assert others["single_sends"]["written_too_often"] == 0
    assert others["loop_on_refusals"]["written_too_often"] >= 86
    assert others["loop_on_refusals"]["most_writes"] == others["loop_on_refusals"]["most_sends"] == 5


class Dropping(Simulator):
    """A CRM to which no connection lasts."""

    def start(self):
        self.fault("drop", times=None)
        return super().start()


def test_what_happens_without_the_guard_does_not_decide_the_status(monkeypatch, crm_guard_command):
    monkeypatch.setattr(unguarded, "Simulator", Dropping)
    ran = crm_guard_command(*FAST)
    assert ran.status == 0
    assert re.search(
        r"^Each call once: +180 of 180 records not written, 0 answered with 2xx$", ran.out, re.MULTILINE
    )
    line = r"^Loop on RECORD_LOCKED: 180 of 180 records not written, no records written too often; no jobs gave up$"
    assert re.search(line, ran.out, re.MULTILINE)


@pytest.mark.parametrize(
    ("habit", "counts", "line"),
    [
        (0, {}, "Each call once:        0 of 587 records not written"),
        (
            0,
            {"not_written": 252, "unnoticed": 23},
            "Each call once:        252 of 587 records not written, 23 answered with 2xx",
        ),
        (1, {}, "Loop on RECORD_LOCKED: no records written too often; no jobs gave up"),
        (1, {"extra": (3,), "gave_up": 1}, "Loop on RECORD_LOCKED: 1 record written 3 times; 1 job gave up"),
        (1, {"extra": (2, 2)}, "Loop on RECORD_LOCKED: 2 records written 2 times; no jobs gave up"),
        (
            2,
            {"extra": (5, 2, 3), "gave_up": 12},
            "Loop on both codes:    3 records written 2 to 5 times; 12 jobs gave up",
        ),
    ],
)
def test_the_end_counts_in_words_that_fit_the_numbers(habit, counts, line):
    zero = {
        "not_written": 0,
        "unnoticed": 0,
        "extra": (),
        "calls": 1,
        "records_sent": 1,
        "gave_up": 0,
        "seconds": 1.0,
    }
    assert Unguarded(habit=HABITS[habit], records=587, **{**zero, **counts}).line() == line
    assert len(line) <= 80


def test_the_board_of_80_columns_cuts_no_state():
    jobs = Planner(Engine(), random.Random(SEED), 1.0).plan(12)
    rows = Rows(jobs)
    for job, ids in ((jobs[0], jobs[0].ids[:12]), (jobs[3], jobs[3].ids)):
        rows.of(job).start()
        for kind in (EventKind.LOCKED, EventKind.WAITING):
            rows.of(job).note(GuardEvent(kind=kind, method="PUT", path="/", record_ids=ids, delay=99.9))
    stream = io.StringIO()
    Console(file=stream, width=80).print(Board(rows, whole=True))
    assert re.search(r" 100 Contacts  12 of 100 locked, again in \d\d\.\d s  ", stream.getvalue())
    assert re.search(r" …\d{6} +locked, sent again in \d\d\.\d s  ", stream.getvalue())


def test_after_an_interrupt_no_loop_sends_again(monkeypatch):
    monkeypatch.setattr(unguarded, "Simulator", Kept)
    monkeypatch.setattr(Kept, "made", [])
    monkeypatch.setattr(unguarded, "HABITS", HABITS[2:])
    with pytest.raises(KeyboardInterrupt), Twins(seed=SEED, records=12, speed=0.2, options={"seed": SEED}):
        raise KeyboardInterrupt
    assert Kept.made[0].answered <= 16, "each call once, but for the wait between two sends"
