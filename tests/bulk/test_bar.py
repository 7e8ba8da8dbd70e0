"""The bar on stderr: with `rich`, with `tqdm`, with neither, on terminals that can little, and on none."""

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

from crm_guard._bulk import bar, progress
from crm_guard._bulk.bar_text import bar_words, fitting
from crm_guard.row_results import WriteCounts

HALF = WriteCounts(read=600, written=480, blocked=15, failed=3, uncertain=2, waiting=7, elapsed=10.0)
DONE = WriteCounts(read=1000, written=980, blocked=15, failed=3, uncertain=2, elapsed=20.0)
LIBRARIES = ("rich", "tqdm")

PROGRAM = """
import sys
for name in {hidden!r}:
    sys.modules[name] = None
from crm_guard._bulk.bar import open_bar
from crm_guard.row_results import WriteCounts
bar = open_bar({total!r})
if bar is None:
    sys.exit("no bar")
bar(WriteCounts(read=600, written=480, waiting=7, elapsed=10.0))
bar(WriteCounts(read=1000, written=997, blocked=3, elapsed=20.0))
bar.close()
bar.close()
print("after")
"""


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def put_terminal(monkeypatch):
    """Put in place a stderr that says it is a terminal; return it: it keeps what it gets."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)  # not in a fixture: pytest puts its own in place afterwards
    return stream


def hide(monkeypatch, *names):
    """Make packages look as if they were not installed, and forget what was imported of them."""
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.delitem(sys.modules, f"crm_guard._bulk.{name}_bar", raising=False)
        for module in [module for module in sys.modules if module.startswith(f"{name}.")]:
            monkeypatch.setitem(sys.modules, module, None)


def in_a_terminal(library, *, columns=80, total=1000, **environment):
    """Run the program in a pseudo terminal; return what the terminal got, and the exit status."""
    hidden = [name for name in LIBRARIES if name != library]
    program = PROGRAM.format(hidden=hidden, total=total)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    plain = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "NO_COLOR"}}
    child = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**plain, "TERM": "xterm-256color", **environment},
    )
    os.close(theirs)
    got = b""
    try:
        while piece := os.read(ours, 65536):
            got += piece
    except OSError:  # Linux says so at the end
        pass
    os.close(ours)
    return got.decode(), child.wait(10)


def shown(text):
    """Return the lines that stay on a terminal, without control codes."""
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r\n", "\n").split("\n")
    return [line.rpartition("\r")[2].rstrip() for line in lines]


class TestWords:
    def test_the_counts_come_first_and_those_that_are_0_are_left_out(self):
        assert bar_words(HALF, 1000) == [
            "480/1,000 written",
            "15 blocked",
            "3 failed",
            "2 uncertain",
            "7 waiting",
            "0:10 left",
            "50 rows/s",
        ]
        assert bar_words(WriteCounts(read=1, written=1234, elapsed=3700.4), None) == [
            "1,234 written",
            "1:01:40",
            "0 rows/s",
        ]

    def test_before_anything_is_known_nothing_is_divided_by_it(self):
        assert bar_words(WriteCounts(), 10) == ["0/10 written", "0:00", "0 rows/s"]
        assert bar_words(WriteCounts(), 0)[0] == "0/0 written"

    def test_more_rows_than_were_announced_leave_no_time(self):
        assert "0:20" in bar_words(DONE, 10)

    @pytest.mark.parametrize("width", [0, 1, 5, 20, 40, 80, 200])
    def test_what_does_not_fit_is_left_out(self, width):
        words = bar_words(HALF, 1000)
        text = fitting(words, width)
        assert len(text) <= width
        assert "  ".join(words).startswith(text)


class TestChoice:
    @pytest.mark.parametrize("library", LIBRARIES)
    def test_the_bar_is_that_of_what_is_installed(self, monkeypatch, library):
        terminal = put_terminal(monkeypatch)
        hide(monkeypatch, *[name for name in LIBRARIES if name != library])
        drawn = bar.open_bar(1000)
        assert type(drawn).__module__ == f"crm_guard._bulk.{library}_bar"
        assert terminal.getvalue() == ""
        drawn(HALF)
        drawn(DONE)
        drawn.close()
        drawn.close()
        drawn(HALF)
        assert "480/1,000 written" in terminal.getvalue()
        assert "15 blocked" in shown(terminal.getvalue())[0]
        assert shown(terminal.getvalue())[0].count("980/1,000 written") == 1
        assert terminal.getvalue().replace("\x1b[?25h", "").endswith("\n")

    def test_rich_is_preferred(self, monkeypatch):
        put_terminal(monkeypatch)
        assert type(bar.open_bar()).__name__ == "RichBar"

    def test_without_either_there_is_none(self, monkeypatch):
        put_terminal(monkeypatch)
        hide(monkeypatch, *LIBRARIES)
        assert bar.open_bar() is None

    def test_a_bar_that_never_showed_anything_leaves_nothing(self, monkeypatch):
        terminal = put_terminal(monkeypatch)
        bar.open_bar().close()
        hide(monkeypatch, "rich")
        bar.open_bar().close()
        assert terminal.getvalue() == ""

    def test_without_a_terminal_there_is_none(self, monkeypatch):
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        assert bar.open_bar() is None

    def test_without_a_stderr_there_is_none(self, monkeypatch):
        monkeypatch.setattr(sys, "stderr", None)
        assert bar.open_bar() is None
        closed = io.StringIO()
        closed.close()
        monkeypatch.setattr(sys, "stderr", closed)
        assert bar.open_bar() is None


class TestProgress:
    def test_the_bar_learns_how_many_rows_there_are(self, monkeypatch):
        totals = []
        monkeypatch.setattr(progress, "open_bar", totals.append)
        for rows in ([1, 2, 3], iter([1]), Unmeasurable(), None):
            progress.Progress(True, lambda: 0.0, rows)
        assert totals == [3, None, None, None]

    def test_rows_are_measured_for_a_bar_only(self):
        class Counted:
            asked = False

            def __len__(self):
                type(self).asked = True
                return 1

        progress.Progress(None, lambda: 0.0, Counted())
        progress.Progress(print, lambda: 0.0, Counted())
        assert not Counted.asked


class Unmeasurable:
    def __len__(self):
        raise RuntimeError


class TestRealTerminals:
    @pytest.mark.parametrize("library", LIBRARIES)
    def test_the_last_line_stays(self, library):
        text, status = in_a_terminal(library)
        assert status == 0
        line, after, *_ = shown(text)
        assert "997/1,000 written  3 blocked  0:20  50 rows/s" in line
        assert after == "after"
        assert "480/1,000 written  7 waiting  0:11 left  48 rows/s" in text

    @pytest.mark.parametrize("library", LIBRARIES)
    def test_the_number_of_rows_need_not_be_known(self, library):
        text, _ = in_a_terminal(library, total=None)
        assert shown(text)[:2] == ["997 written  3 blocked  0:20  50 rows/s", "after"]

    @pytest.mark.parametrize("library", LIBRARIES)
    @pytest.mark.parametrize("columns", [12, 30])
    def test_a_narrow_terminal_gets_one_line(self, library, columns):
        text, _ = in_a_terminal(library, columns=columns)
        line, after, *_ = shown(text)
        assert line.startswith("997/1,000 w")
        assert len(line) < columns
        assert after == "after"

    @pytest.mark.parametrize("library", LIBRARIES)
    def test_a_dumb_terminal_gets_the_last_line_without_control_codes(self, library):
        text, _ = in_a_terminal(library, TERM="dumb")
        assert "\x1b" not in text
        assert "480" not in text
        assert text.count("997/1,000 written") == 1

    @pytest.mark.parametrize("library", LIBRARIES)
    def test_no_color_is_heeded(self, library):
        text, _ = in_a_terminal(library, NO_COLOR="1")
        assert not re.search(r"\x1b\[[0-9;]*[34][0-9]", text)

    @pytest.mark.parametrize("library", LIBRARIES)
    def test_ascii_is_enough(self, library):
        text, status = in_a_terminal(library, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
        assert status == 0
        assert text.isascii()

    def test_without_a_library_there_is_none(self):
        text, status = in_a_terminal("none")
        assert (shown(text)[0], status) == ("no bar", 1)
