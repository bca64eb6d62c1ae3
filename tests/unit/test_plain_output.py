"""Output of the commands: any text from outside is plain."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.text import Text

from barflow.cli import common, terminal
from barflow.cli.alerts import _show_alerts
from barflow.cli.main import _stop
from barflow.pipeline.ingest_report import Counts, IngestReport

HOSTILE = (
    "[/x][red]a[/] :smile: \x1b]0;owned\x07\x1b[2J\x9b\u202egnp.exe\u2028b\x00\ud800\r[link=https://evil.example]c"
)
SHOWN = r"[/x][red]a[/] :smile: \x1b]0;owned\x07\x1b[2J\x9b\u202egnp.exe\u2028b\x00\ud800\r[link=https://evil.example]c"
NOW = datetime(2026, 5, 29, 20, tzinfo=UTC)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@contextmanager
def terminal_output() -> Iterator[Terminal]:
    """Yield what the commands print within the block, on a terminal of 1000 columns."""
    stream = Terminal()
    given = {"COLUMNS": "1000", "TERM": "xterm", "NO_COLOR": "1"}
    with mock.patch.dict(os.environ, given), redirect_stdout(stream), redirect_stderr(stream):
        yield stream


def assert_plain(text: str) -> None:
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)  # the styles of our own words
    assert text.replace("\n", "").isprintable(), text
    text.encode()


def test_a_rejected_bar_with_markup_and_escapes_is_listed() -> None:
    item = {"_id": HOSTILE, "symbol": HOSTILE, "reasons": [HOSTILE], "payload": {"datetime": HOSTILE}, "seen_at": NOW}
    with terminal_output() as printed:
        terminal.show_rejected([{**item, "times": 1}, {**item, "payload": HOSTILE, "times": 1}])
    assert_plain(printed.getvalue())
    assert printed.getvalue().count(SHOWN) == 6


@pytest.mark.parametrize("style", ["table", "csv", "json"])
def test_a_query_result_reaches_the_terminal_as_plain_text(style: str) -> None:
    with terminal_output() as printed:
        terminal.show_rows([HOSTILE, "[/n]"], [[HOSTILE, 1], ["two\nlines", None]], style)
    assert_plain(printed.getvalue())
    assert style == "json" or printed.getvalue().count(SHOWN) == 2
    assert "two\nlines" not in printed.getvalue()


def test_a_file_gets_the_exact_text_of_a_query() -> None:
    with redirect_stdout(io.StringIO()) as stream:
        terminal.show_rows(["a"], [["x\x1b[31m"]], "csv")
    assert stream.getvalue() == "a\nx\x1b[31m\n"


def test_a_pipe_gets_wide_rows_whole(capsys: pytest.CaptureFixture[str]) -> None:
    wide = ["x" * 300, "y" * 300]
    terminal.show_rows(["a", "b"], [wide], "table")
    assert wide in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_messages_errors_ticks_and_alerts_are_plain() -> None:
    state = {"delivered_at": None, "last_error": HOSTILE}
    alert = {"severity": HOSTILE, "rule": HOSTILE, "message": {"text": HOSTILE}, "channels": {HOSTILE: state}}
    with terminal_output() as printed:
        common.log(f"{HOSTILE} password=hunter2")
        with pytest.raises(SystemExit):
            _stop(f"{HOSTILE}\nerror: all is well", 1)
        common.show_result({"found": HOSTILE}, False)
        terminal.show_tick(IngestReport(HOSTILE, {HOSTILE: Counts()}, notes={HOSTILE: [HOSTILE]}), False)
        _show_alerts([{**alert, "bar_start": NOW}])
    text = printed.getvalue()
    assert_plain(text)
    assert "hunter2" not in text
    assert "error: all is well" not in text.splitlines()
    assert text.count(SHOWN) == 12, text


@given(st.text(st.characters()))
@example("[/]")
@example("[bold]x[/bold]")
def test_any_text_is_a_cell_and_a_line(text: str) -> None:
    stream = Terminal()
    console = common.PlainConsole(file=stream, width=400, color_system=None)
    shown = terminal.table(text, (text, "b"))
    shown.add_row(text, Text("✓"))
    console.print(shown)
    console.print(text)
    assert_plain(stream.getvalue())


def test_json_has_no_character_beyond_ascii() -> None:
    with terminal_output() as printed:
        common.print_json({"text": HOSTILE})
    assert printed.getvalue().isascii()
    assert json.loads(printed.getvalue()) == {"text": HOSTILE}
