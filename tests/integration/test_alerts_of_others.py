"""Ticks with rules that name another symbol: G6 holds in every order of arrival, after kills and with two at once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import alert_ticks
import pytest
from alert_ticks import SYMBOLS, answer, at, hop, ids, rules
from processes import Waiting, run, run_killed, start
from pymongo.database import Database
from typer.testing import CliRunner

from barflow.alerts.history import SymbolState
from barflow.alerts.outbox import AlertStates
from barflow.alerts.tick import Alerts
from barflow.cli.main import app
from barflow.errors import BadInputError, UnavailableError
from barflow.pipeline import ingest
from barflow.pipeline.stores import Stores
from barflow.settings import load_settings
from barflow.staging.connection import Document
from barflow.staging.sessions import Staging

Mongo = Database[Document]
WEAK = {"id": "weak", "when": 'of("SPY").close < 100.0 && close > 100.0', "symbols": "AAPL", "cool_down_minutes": 0}
CLOSES = {"AAPL": [101.0, 101, 101, 99, 101, 101], "SPY": [101.0, 99, 99, 99, 99, 101]}
EXPECTED = [f"weak|AAPL|2025-07-30T{time}:00Z" for time in ("13:35", "13:50")]


def tick(database: Mongo, *names: str, bars: int, **closes: Sequence[float]) -> None:
    """Tick with an answer for each name, in this order. Every tick is for both symbols."""
    answers = [answer(name, closes.get(name, CLOSES[name])[:bars], at(bars)) for name in names]
    hop(database, *answers, now=at(bars), book=rules(WEAK)).tick(["AAPL", "SPY"])


@pytest.mark.parametrize("order", ["AAPL SPY", "SPY AAPL", "SPY later", "AAPL later", "SPY refused at first"])
@pytest.mark.parametrize("batches", ["one batch", "a batch each"])
def test_the_order_in_which_symbols_arrive_changes_no_alert(
    database: Mongo, monkeypatch: pytest.MonkeyPatch, order: str, batches: str
) -> None:
    if batches == "a batch each":
        monkeypatch.setattr("barflow.pipeline.ingest.FLUSH_BARS", 1)
    for bars in range(1, 7):
        if order.endswith("later"):
            tick(database, *({"AAPL", "SPY"} - {order.split()[0]}), bars=bars)
            tick(database, order.split()[0], bars=bars - bars % 2)
        elif "refused" in order:
            tick(database, *(["AAPL", "SPY"] if bars > 4 else ["AAPL"]), bars=bars)
        else:
            tick(database, *order.split(), bars=bars)
    assert ids(database) == EXPECTED
    assert database["alert_pending"].count_documents({}) == 0


def test_a_tick_reads_no_stored_bars_to_compare_symbols(database: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    tick(database, "AAPL", "SPY", bars=1)
    keys: list[str] = []
    read = Staging.sessions
    monkeypatch.setattr(Staging, "sessions", lambda staging, asked: keys.extend(asked) or read(staging, asked))
    tick(database, "AAPL", bars=2)
    tick(database, "SPY", bars=2)
    assert ids(database) == EXPECTED[:1]
    assert keys == []
    [stored] = database["alert_state"].find({"_id": "AAPL"})
    [compared] = stored["compared"]
    assert compared["bars"] == {"2025-07-30": bytes((0, 0, 0, 1, 0, 0))}
    assert database["alert_state"].find_one({"_id": "SPY"}, {"compared": 1})["compared"] == []  # type: ignore[index]


DIES = {
    "between the batches": ("Staging.save", "after", 1),
    "before the comparison is recorded": ("EvaluationJournal.add", "before", 3),
    "between the journal and the state": ("AlertStates.save", "before", 3),
    "between the state and the outbox": ("AlertStates.save", "after", 3),
}


@pytest.mark.parametrize("point", DIES)
def test_a_killed_comparison_is_done_by_the_next_tick(database: Mongo, mongodb_uri: str, point: str) -> None:
    """The next tick brings a revision of SPY, by which the bar at which the rule fired would not fire."""
    rule = {**WEAK, "cool_down_minutes": 60}
    hop(database, *(answer(name, [101.0], at(1)) for name in CLOSES), now=at(1), book=rules(rule)).tick([*CLOSES])
    settings: dict[str, Any] = {"now": at(2), "closes": {name: {0: 101.0} for name in CLOSES}, "rules": [rule]}
    settings["closes"] = {"AAPL": {0: 101.0, 1: 101.0}, "SPY": {0: 101.0, 1: 99.0}}
    settings |= {"die": DIES[point], "flush_bars": 1, "uri": mongodb_uri, "database": database.name}
    run_killed(start(alert_ticks.prepare, **settings))
    revised = {"AAPL": [101.0, 101, 101], "SPY": [101.0, 101, 99]}
    for _ in range(2):
        answers = [answer(name, closes, at(3)) for name, closes in revised.items()]
        hop(database, *answers, now=at(3), book=rules(rule)).tick([*CLOSES])
    is_compared = point == "between the state and the outbox"
    assert ids(database) == [f"weak|AAPL|2025-07-30T{'13:35' if is_compared else '13:40'}:00Z"]


def test_two_ticks_at_once_fire_each_alert_once(database: Mongo, mongodb_uri: str) -> None:
    """In the second round, one of the two ticks has one bar more than the other."""
    rule = {"id": "weak", "when": "of('S00').close < 101.0 && close < 101.0", "cool_down_minutes": 0}

    def ready(bars: int) -> Waiting:
        closes = {symbol: {slot: 102.0 - 2 * (slot % 2) for slot in range(bars)} for symbol in SYMBOLS[::-1]}
        settings = {"now": at(bars), "closes": closes, "rules": [rule], "flush_bars": 20}
        return start(alert_ticks.prepare, uri=mongodb_uri, database=database.name, **settings)

    for one, other in ((2, 2), (3, 4)):
        ticks = ready(one), ready(other)
        run(*ticks)
        assert [item.process.exitcode for item in ticks] == [0, 0]
    times = [f"{at(slot):%Y-%m-%dT%H:%M:%SZ}" for slot in (1, 3)]
    assert ids(database) == sorted(f"weak|{symbol}|{time}" for symbol, time in itertools.product(SYMBOLS, times))
    assert database["alert_pending"].count_documents({}) == 0


def test_a_comparison_that_is_overtaken_compares_again(database: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    tick(database, "AAPL", "SPY", bars=1)
    save, overtaken = AlertStates.save, []

    def overtake(states: AlertStates, changes: Sequence[tuple[SymbolState, SymbolState]]) -> set[str]:
        if any(after.outgoing for _, after in changes) and not overtaken:
            overtaken.append(True)
            tick(database, "AAPL", "SPY", bars=5)
        return save(states, changes)

    monkeypatch.setattr(AlertStates, "save", overtake)
    tick(database, "AAPL", "SPY", bars=2)
    assert overtaken
    assert ids(database) == EXPECTED
    state = Alerts(database, rules(WEAK)).states.load(["AAPL"])["AAPL"]
    assert state.fired == {"weak": at(4)}
    [compared] = state.compared["SPY"].bars.values()
    assert compared[::3] == bytes(range(5))


def test_a_tick_and_the_list_of_rules_refuse_a_rule_that_names_an_unknown_symbol(
    database: Mongo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "alerts.toml"
    file.write_text("""[[rule]]\nid = "weak"\nwhen = 'of("SPY").close < 100.0'\n""")
    monkeypatch.setenv("BARFLOW_ALERTS_FILE", str(file))
    monkeypatch.setenv("BARFLOW_SYMBOLS", "AAPL")
    stores = Stores(load_settings())
    stores.__dict__["database"] = database
    with pytest.raises(BadInputError, match="rule weak: when: position 1: SPY is not a symbol of this environment"):
        ingest.run(stores, ["AAPL"], print)
    listed = CliRunner().invoke(app, ["alerts", "rules"])
    assert isinstance(listed.exception, BadInputError)
    assert database.list_collection_names() == []


def test_symbols_are_compared_also_in_a_tick_that_fails(database: Mongo) -> None:
    tick(database, "AAPL", "SPY", bars=1)
    answers = [answer(name, CLOSES[name][:2], at(2)) for name in CLOSES]
    broken = hop(database, *answers, UnavailableError("Twelve Data does not answer"), now=at(2), book=rules(WEAK))
    with pytest.raises(UnavailableError):
        broken.tick([*CLOSES])
    assert ids(database) == EXPECTED[:1]
