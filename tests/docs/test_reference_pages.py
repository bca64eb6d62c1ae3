"""The reference pages are complete: they list what the code has, each with its meaning."""

from __future__ import annotations

import re
from itertools import count

import typer

from barflow.cli.main import app
from barflow.settings import Settings
from tools.reference_pages import PAGES, records, walk
from tools.warehouse_tables import COLUMNS

ROW = re.compile(r"^\| (?P<cells>.+) \|$", re.MULTILINE)


def rows(page: str) -> list[list[str]]:
    """Return the cells of each row of the tables of a page, without heads and rules."""
    found = [re.split(r" (?<!\\)\| ", row["cells"]) for row in ROW.finditer(page)]
    rules = [place for place, cells in enumerate(found) if set(cells[0]) == {"-"}]
    return [cells for place, cells in enumerate(found) if place not in rules and place + 1 not in rules]


def test_every_command_has_its_help_and_an_example() -> None:
    page = PAGES["reference/commands.md"]()
    chapters = dict(re.findall(r"^## (barflow .+?)\n\n(.+?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    assert set(chapters) == {name for name, _ in walk(typer.main.get_command(app))}
    examples = {
        name: re.findall(r"^Examples?:\n\n```\n(.+?)\n```", text, re.MULTILINE | re.DOTALL)
        for name, text in chapters.items()
    }
    wrong = [
        name
        for name, found in examples.items()
        if len(found) != 1 or not all(name in it for it in found[0].splitlines())
    ]
    assert wrong == []
    assert [cells for cells in rows(page) if not cells[-1].strip()] == []


def test_every_setting_has_its_variable_and_its_meaning() -> None:
    listed = {cells[0].strip("`"): cells for cells in rows(PAGES["reference/settings.md"]())}
    assert len(listed) == len(Settings.model_fields)
    assert {"BARFLOW_MONGODB_URI", "TWELVEDATA_API_KEY"} <= set(listed)
    assert [name for name, cells in listed.items() if not cells[-1].strip()] == []
    assert "(secret)" in listed["BARFLOW_WAREHOUSE_DSN"][1]


def test_every_column_has_a_meaning() -> None:
    """A column says it by `comment on column` in sql/, or takes it from the Bar or from a column of the same name."""
    page = PAGES["reference/tables.md"]()
    listed = rows(page)
    assert [cells[0] for cells in listed if not cells[-1].strip()] == []
    assert {"`bar_start`", "`rsi_14`", "`load_id`", "`above_sma_20`"} <= {cells[0] for cells in listed}
    assert "The columns are those of [market.bar_5min]" in page


def test_no_meaning_is_kept_for_a_column_that_is_gone() -> None:
    assert set(COLUMNS) <= {cells[0].strip("`") for cells in rows(PAGES["reference/tables.md"]())}


def test_the_api_lists_every_request_and_explains_no_field_twice() -> None:
    page = PAGES["reference/api.md"]()
    assert {"GET /api/watchlist", "GET /api/bars/{symbol}", "POST /api/session"} <= set(re.findall(r"### (.+)", page))
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    assert len(headings) == len(set(headings))


def test_the_environments_settings_show_their_defaults() -> None:
    listed = {cells[0]: cells for cells in rows(PAGES["reference/environments.md"]())}
    assert listed["`name`"][2] == "required"
    assert listed["`staging_days`"][2] == "`90`"


def test_decision_records_have_consecutive_numbers_that_their_files_begin_with() -> None:
    for number, (path, head) in zip(count(1), records(), strict=False):
        assert (path.name[:4], head["number"]) == (f"{number:04}", str(number))


def test_decision_records_are_dated_in_order_and_have_a_known_status() -> None:
    heads = [head for _, head in records()]
    assert [head["date"] for head in heads] == sorted(head["date"] for head in heads)
    known = re.compile(r"Accepted|Superseded by \[\d+\]\(\d{4}-[a-z0-9-]+\.md\)")
    assert [head["status"] for head in heads if not known.fullmatch(head["status"])] == []


def test_decision_records_keep_their_three_parts() -> None:
    for path, _ in records():
        parts = re.findall(r"^\*\*(.+?)\.\*\*", path.read_text(), re.MULTILINE)
        assert parts == ["Context", "Decision", "Consequences"], path.name
