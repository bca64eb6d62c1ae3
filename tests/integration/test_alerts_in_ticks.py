"""One event is one alert (guarantee G6), wherever a tick dies and however many ticks run at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from random import Random
from typing import Any

import alert_ticks
import pytest
from alert_ticks import (
    CONDITION,
    FIRING,
    FLAT,
    LEVEL,
    SYMBOLS,
    FakeChannel,
    answer,
    at,
    hop,
    ids,
    make_due,
    rules,
    slack,
)
from processes import Waiting, run, run_killed, start
from pymongo.database import Database
from ticks import everything

from barflow.alerts import delivery as alert_delivery
from barflow.alerts.evaluate import NEWS_SESSIONS
from barflow.alerts.history import SymbolState
from barflow.alerts.outbox import AlertStates, Outbox, PendingEvaluations
from barflow.alerts.tick import DEAD_AFTER
from barflow.errors import UnavailableError
from barflow.market.sessions import last_sessions, utc_now
from barflow.pipeline.replay import replay_rejected
from barflow.staging.connection import Document
from barflow.staging.ledger import FAILED
from barflow.staging.quarantine import Quarantine
from barflow.twelvedata.client import SymbolError
from emulators.slack.server import TOKEN, Fault, SlackEmulator

Mongo = Database[Document]
FIRED = "level_101|AAPL|2025-07-30T13:40:00Z"
AlertRule = dict[str, Any]
FALL = {"id": "fall", "kind": "move", "percent": 2.0, "minutes": 10, "cool_down_minutes": 0}
either_rule = pytest.mark.parametrize("rule", [LEVEL, CONDITION], ids=["kind", "condition"])


def ready(uri: str, database: Mongo, **settings: Any) -> Waiting:
    """Return a process that is ready to tick."""
    return start(alert_ticks.prepare, uri=uri, database=database.name, **settings)


def test_the_order_in_which_symbols_arrive_changes_no_alert(database: Mongo) -> None:
    random = Random(16)
    symbols = SYMBOLS[:5]
    closes = {
        name: [100.0, *(100 + random.choice((-1, 1)) * random.uniform(1.1, 3) for _ in range(6))] for name in symbols
    }
    found = []
    for turn in range(3):
        for slot in (2, 4, 6):
            now, order = at(slot), random.sample(symbols, len(symbols)) if turn else symbols
            answers = [answer(name, closes[name][:slot], now) for name in order]
            cut = random.randrange(len(order)) if turn else 0
            for part in (slice(cut), slice(cut, None)):  # one tick, or two
                hop(database, *answers[part], now=now, book=rules(LEVEL, FALL)).tick(order[part])
        found.append(sorted((item["_id"], item["message"]["text"]) for item in database["alerts"].find()))
        for name in database.list_collection_names():
            database[name].delete_many({})
    assert len(found[0]) > 5
    assert found[1:] == found[:1] * 2


def test_a_bar_gives_one_alert_in_the_tick_that_stores_it_and_none_later(database: Mongo) -> None:
    hop(database, answer("AAPL", FLAT, at(2)), now=at(2)).tick(["AAPL"])
    assert ids(database) == []
    for _ in range(3):
        hop(database, answer("AAPL", FIRING, at(3)), now=at(3)).tick(["AAPL"])
        assert ids(database) == [FIRED]
    [stored] = database["alerts"].find()
    assert stored["message"]["text"] == "AAPL rose to 102.00, through 101.00"
    assert stored["channels"]["sse"]["delivered_at"] == stored["created_at"], "the outbox itself is a channel"
    assert database["alert_pending"].count_documents({}) == 0


@either_rule
def test_corrections_of_a_bar_fire_at_most_once(database: Mongo, rule: AlertRule) -> None:
    book = rules(rule)
    hop(database, answer("AAPL", FLAT, at(2)), now=at(2), book=book).tick(["AAPL"])
    for slot, close in enumerate((102.0, 100.0, 103.0), start=2):
        hop(database, answer("AAPL", {0: 100.0, 1: close}, at(slot)), now=at(slot), book=book).tick(["AAPL"])
    [document] = database["bars"].find()
    assert document["revision"] == [0, 3]
    assert ids(database) == ["level_101|AAPL|2025-07-30T13:35:00Z"]


def test_cool_downs_and_evaluated_bars_survive_a_restart(database: Mongo) -> None:
    book = rules({**LEVEL, "cool_down_minutes": 20})
    closes = [100.0, 102, 100, 102, 100, 102, 100, 102, 100, 102]
    for count in range(1, len(closes) + 1):
        hop(database, answer("AAPL", closes[:count], at(count)), now=at(count), book=book).tick(["AAPL"])
    assert ids(database) == [f"level_101|AAPL|2025-07-30T{time}:00Z" for time in ("13:35", "13:55", "14:15")]


def test_a_first_run_over_twenty_sessions_fires_only_for_the_newest(database: Mongo) -> None:
    history = last_sessions(at(3), 20)
    answers = [answer("AAPL", [100.0, 102.0], at(3), item.session_date) for item in history]
    hop(database, *answers, now=at(3)).tick(["AAPL"])
    assert database["bars"].count_documents({}) == 20
    assert ids(database) == ["level_101|AAPL|2025-07-30T13:35:00Z"]


def test_a_backfill_fires_nothing(database: Mongo) -> None:
    hop(database, answer("AAPL", FLAT, at(2)), now=at(2)).tick(["AAPL"])
    past = [answer("AAPL", [100.0, 102.0], at(2), item.session_date) for item in last_sessions(at(2), 30)[:-1]]
    hop(database, *past, now=at(2)).tick(["AAPL"], window=(at(0, date(2025, 6, 2)), at(1)))
    assert database["bars"].count_documents({}) == 30
    assert ids(database) == []


WINDOWED = rules(
    {"id": "high", "kind": "extreme", "sessions": 30, "direction": "up"},
    {"id": "average", "kind": "average", "sessions": 30, "direction": "up"},
    {"id": "bars", "when": "close >= highest(4) && close > daily_sma(30)"},
)


@pytest.mark.parametrize("known", ["bars stored without alerts", "rules that looked back less", "backfill"])
def test_rules_see_their_history_however_it_was_stored(database: Mongo, known: str) -> None:
    history = last_sessions(at(3), 31)
    past = [answer("AAPL", [99.0 + place / 30], at(0), item.session_date) for place, item in enumerate(history[:-1])]
    today = answer("AAPL", [99.0, 98.0], at(2))
    if known == "bars stored without alerts":
        first = hop(database, *past, today, now=at(2))
        first.alerts = None
        first.tick(["AAPL"])
    elif known == "rules that looked back less":
        hop(database, *past, today, now=at(2)).tick(["AAPL"])
    else:
        hop(database, today, now=at(2), book=WINDOWED).tick(["AAPL"])
        hop(database, *past, now=at(2), book=WINDOWED).tick(["AAPL"], window=(history[0].opens, at(1)))
    hop(database, answer("AAPL", [99.0, 98.0, 101.0], at(3)), now=at(3), book=WINDOWED).tick(["AAPL"])
    assert ids(database) == [f"{rule}|AAPL|2025-07-30T13:40:00Z" for rule in ("average", "bars", "high")]


# Where a tick is killed. Each is before the alert is sent; the bars, the state and the alert may be stored or not.
DIES = {
    "before the pending evaluation is stored": ("PendingEvaluations.add", "before"),
    "before the bars are stored": ("PendingEvaluations.add", "after"),
    "between storing and evaluating": ("Staging.save", "after"),
    "before the state": ("AlertStates.save", "before"),
    "between the state and the outbox": ("AlertStates.save", "after"),
    "between the outbox and the end of the tick": ("Outbox.insert", "after"),
    "between the outbox and sending": ("Delivery._claim", "after"),
}


@either_rule
@pytest.mark.parametrize("point", DIES)
def test_a_tick_killed_anywhere_has_its_alert_sent_once_by_a_later_tick(
    database: Mongo, mongodb_uri: str, slack_server: SlackEmulator, point: str, rule: AlertRule
) -> None:
    book = rules(rule)
    hop(database, answer("AAPL", FLAT, at(2)), now=at(2), book=book).tick(["AAPL"])
    tick = {"now": at(3), "closes": {"AAPL": FIRING}, "slack": slack_server.url, "rules": [rule]}
    run_killed(ready(mongodb_uri, database, die=DIES[point], **tick))
    stored = database["bars"].find_one()
    assert stored
    assert slack_server.posts == []
    assert ids(database) == ([FIRED] if point == "between the outbox and the end of the tick" else []), (
        "with the state or not at all"
    )
    make_due(database)
    # The answer holds the bar again only where it is not stored: the evaluation must not depend on the answer.
    results = [] if len(stored["ts"]) == 3 else [answer("AAPL", FIRING, at(4))]
    for _ in range(2):
        hop(database, *results, now=at(4), book=book, channels=[slack(slack_server.url)]).tick(["AAPL"])
    assert ids(database) == [FIRED]
    assert len(slack_server.posts) == 1


def test_an_alert_of_a_dead_tick_is_new_to_those_who_follow_the_outbox(
    database: Mongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "insert", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            hop(database, answer("AAPL", FIRING, at(3)), now=at(3)).tick(["AAPL"])
    hour_ago = utc_now() - timedelta(hours=1)
    database["alert_state"].update_one({}, {"$set": {"outgoing.0.created_at": hour_ago}})
    before = utc_now() - timedelta(seconds=1)
    hop(database, now=at(3)).tick(["AAPL"])
    [alert] = database["alerts"].find()
    assert alert["_id"] == FIRED
    assert alert["created_at"] >= before


def test_a_tick_killed_between_sending_and_recording_sends_the_same_id_again(
    database: Mongo, mongodb_uri: str, slack_server: SlackEmulator
) -> None:
    tick = {"now": at(3), "closes": {"AAPL": FIRING}, "slack": slack_server.url}
    run_killed(ready(mongodb_uri, database, die=("Delivery._record_sent", "before"), **tick))
    assert len(slack_server.posts) == 1
    hop(database, now=at(4), channels=[slack(slack_server.url)]).tick(["AAPL"])
    assert len(slack_server.posts) == 1, "the claim of the dead delivery still holds"
    make_due(database)
    hop(database, now=at(4), channels=[slack(slack_server.url)]).tick(["AAPL"])
    assert slack_server.posts[0] == slack_server.posts[1], "at least once"
    assert ids(database) == [FIRED]


def test_a_pending_evaluation_is_removed_once_its_run_must_be_dead(database: Mongo) -> None:
    PendingEvaluations(database).add("dead", ["AAPL|5min|2025-07-30"])
    hop(database, now=at(2)).tick(["AAPL"])
    assert database["alert_pending"].count_documents({}) == 1, "its run may be alive"
    database["alert_pending"].update_many({}, {"$set": {"since": utc_now() - DEAD_AFTER * 2}})
    hop(database, now=at(2)).tick(["AAPL"])
    assert database["alert_pending"].count_documents({}) == 0


@either_rule
def test_two_ticks_at_once_send_one_alert_per_event(
    database: Mongo, mongodb_uri: str, slack_server: SlackEmulator, rule: AlertRule
) -> None:
    """In the second round, one of the two ticks has one bar more than the other."""

    def tick(bars: int) -> Waiting:
        closes = {symbol: {slot: 100.0 + 2 * (slot % 2) for slot in range(bars)} for symbol in SYMBOLS}
        settings = {"now": at(bars), "closes": closes, "slack": slack_server.url, "rules": [rule]}
        return ready(mongodb_uri, database, **settings)

    for one, other in ((2, 2), (3, 4)):
        ticks = tick(one), tick(other)
        run(*ticks)
        assert [item.process.exitcode for item in ticks] == [0, 0]
    expected = sorted(f"level_101|{symbol}|{at(slot):%Y-%m-%dT%H:%M:%SZ}" for symbol in SYMBOLS for slot in (1, 3))
    assert ids(database) == expected
    posted = [post["text"].split()[0] for post in slack_server.posts]
    assert sorted(posted) == sorted(SYMBOLS * 2)
    assert database["alert_pending"].count_documents({}) == 0


def test_a_channel_that_is_down_fails_no_tick_and_gets_the_alert_later(
    database: Mongo, slack_server: SlackEmulator
) -> None:
    slack_server.fault = Fault(500)
    channels = [slack(slack_server.url)]
    report = hop(database, answer("AAPL", FIRING, at(3)), now=at(3), channels=channels).tick(["AAPL"])
    assert report.counts["AAPL"].new == 3
    [waiting] = database["alerts"].find()
    assert ["HTTP 500" in note for note in report.notes["alerts"]] == [True], "the tick notes it"
    assert report.alerts == 1
    state = waiting["channels"]["slack"]
    assert (state["delivered_at"], state["attempts"]) == (None, 1)
    assert "HTTP 500" in state["last_error"]
    attempts = slack_server.attempts
    hop(database, now=at(4), channels=channels).tick(["AAPL"])
    assert slack_server.attempts == attempts, "not before the next attempt is due"
    make_due(database)
    hop(database, now=at(4), channels=channels).tick(["AAPL"])
    [waiting] = database["alerts"].find()
    assert waiting["channels"]["slack"]["attempts"] == 2
    assert waiting["due_at"] == waiting["channels"]["slack"]["next_at"] > state["next_at"], "the pause grows"
    slack_server.fault = None
    make_due(database)
    hop(database, now=at(4), channels=channels).tick(["AAPL"])
    hop(database, now=at(4), channels=channels).tick(["AAPL"])
    [sent] = database["alerts"].find()
    assert "due_at" not in sent
    assert len(slack_server.posts) == 1
    assert TOKEN not in everything(database)


def test_a_silence_fires_also_in_ticks_that_fail(database: Mongo) -> None:
    book = rules({"id": "stale", "kind": "silence", "minutes": 20})
    hop(database, answer("AAPL", FLAT, at(2)), now=at(2), book=book).tick(["AAPL"])
    for slot in (4, 6, 7):
        broken = hop(database, UnavailableError("Twelve Data does not answer"), now=at(slot), book=book)
        with pytest.raises(UnavailableError, match="does not answer"):
            broken.tick(["AAPL"])
    assert database["ledger"].count_documents({"outcome": FAILED}) == 3
    assert ids(database) == ["stale|AAPL|2025-07-30T13:40:00Z"]


def test_a_silence_fires_for_a_symbol_without_new_bars_and_not_for_one_that_never_had_any(database: Mongo) -> None:
    book = rules({"id": "stale", "kind": "silence", "minutes": 20})
    first = [answer(symbol, FLAT, at(2)) for symbol in ("AAPL", "MSFT")]
    hop(database, *first, now=at(2), book=book).tick(["AAPL", "MSFT", "NEWCO"])
    with_news = answer("AAPL", [100.0] * 6, at(6))
    refused = SymbolError("NEWCO", 404, "no such symbol")
    hop(database, with_news, answer("MSFT", FLAT, at(6)), refused, now=at(6), book=book).tick(["AAPL", "MSFT", "NEWCO"])
    assert ids(database) == ["stale|MSFT|2025-07-30T13:40:00Z"]


def test_a_bar_that_closed_after_its_answer_was_requested_is_not_missing(database: Mongo) -> None:
    """Bars may wait in memory until a batch is full, while time passes."""
    book = rules({"id": "stale", "kind": "silence", "minutes": 20})
    hop(database, answer("AAPL", FLAT, at(2)), now=at(8), book=book).tick(["AAPL"])
    assert ids(database) == []


@either_rule
def test_after_an_outage_only_the_last_five_sessions_fire(database: Mongo, rule: AlertRule) -> None:
    recent, book = last_sessions(at(2), 8), rules(rule)
    first = answer("AAPL", FLAT, recent[0].closes, recent[0].session_date)
    hop(database, first, now=recent[0].closes, book=book).tick(["AAPL"])
    answers = [answer("AAPL", [100.0, 102.0], at(2), item.session_date) for item in recent[1:]]
    hop(database, *answers, now=at(2), book=book).tick(["AAPL"])
    assert [name.split("|")[2][:10] for name in ids(database)] == [
        str(item.session_date) for item in recent[-NEWS_SESSIONS:]
    ]


def test_a_state_that_another_tick_changed_is_not_overwritten(database: Mongo) -> None:
    hop(database, answer("AAPL", FLAT, at(2)), now=at(2)).tick(["AAPL"])
    states = AlertStates(database)
    before = states.load(["AAPL"])["AAPL"]
    assert states.save([(before, replace(before, fired={"one": at(1)}))]) == set()
    assert states.save([(before, replace(before, fired={"two": at(2)}))]) == {"AAPL"}
    assert states.load(["AAPL"])["AAPL"].fired == {"one": at(1)}


def test_a_tick_that_is_overtaken_evaluates_again(database: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    """The faster tick evaluates one bar more. The slower one must not undo that in the state."""
    rule = rules({**LEVEL, "cool_down_minutes": 60})
    hop(database, answer("AAPL", FLAT, at(2)), now=at(2), book=rule).tick(["AAPL"])
    save, overtaken = AlertStates.save, []

    def overtake(states: AlertStates, changes: Sequence[tuple[SymbolState, SymbolState]]) -> set[str]:
        if not overtaken:
            overtaken.append(True)
            hop(database, answer("AAPL", {**FIRING, 3: 100.0, 4: 102.0}, at(5)), now=at(5), book=rule).tick(["AAPL"])
        return save(states, changes)

    monkeypatch.setattr(AlertStates, "save", overtake)
    hop(database, answer("AAPL", FIRING, at(3)), now=at(3), book=rule).tick(["AAPL"])
    assert ids(database) == [FIRED]
    state = AlertStates(database).load(["AAPL"])["AAPL"]
    assert [*state.sessions.values()][-1].slots == bytes(range(5))
    assert state.fired == {"level_101": at(2)}


def test_a_channel_gets_an_alert_once_although_another_channel_is_down(
    database: Mongo, slack_server: SlackEmulator
) -> None:
    works = FakeChannel()
    slack_server.fault = Fault("channel_not_found", times=2)
    hop(database, answer("AAPL", FIRING, at(3)), now=at(3), channels=[slack(slack_server.url), works]).tick(["AAPL"])
    for _ in range(3):
        make_due(database)
        hop(database, now=at(3), channels=[slack(slack_server.url), works]).tick(["AAPL"])
    assert works.accepted == [FIRED]
    assert len(slack_server.posts) == 1
    [sent] = database["alerts"].find()
    assert {name: state["attempts"] for name, state in sent["channels"].items()} == {"sns": 1, "slack": 3, "sse": 1}


def test_one_tick_sends_more_alerts_than_fit_in_one_claim(database: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alert_delivery, "CLAIM_SIZE", 3)
    works = FakeChannel()
    fired = [answer(symbol, FIRING, at(3)) for symbol in SYMBOLS[:7]]
    hop(database, *fired, now=at(3), channels=[works]).tick(SYMBOLS[:7])
    assert sorted(works.accepted) == ids(database)
    assert len(works.accepted) == 7
    assert Outbox(database).find(undelivered=True) == []


def test_an_alert_for_a_channel_that_is_not_set_up_is_due_rarely(database: Mongo) -> None:
    hop(database, answer("AAPL", FIRING, at(3)), now=at(3), channels=[slack()]).tick(["AAPL"])
    make_due(database)
    hop(database, now=at(3)).tick(["AAPL"])
    [waiting] = database["alerts"].find()
    assert waiting["due_at"] > utc_now() + timedelta(minutes=10)
    assert [item["_id"] for item in Outbox(database).find(undelivered=True)] == [FIRED]


def test_a_message_of_another_version_waits_and_does_not_stop_others(database: Mongo) -> None:
    hop(database, answer("AAPL", FIRING, at(3)), now=at(3), channels=[slack()]).tick(["AAPL"])
    database["alerts"].update_one({}, {"$set": {"message.schema_version": 2}})
    make_due(database)
    works = FakeChannel()
    works.name = "slack"
    report = hop(database, answer("MSFT", FIRING, at(3)), now=at(3), channels=[works]).tick(["MSFT"])
    assert works.accepted == ["level_101|MSFT|2025-07-30T13:40:00Z"]
    assert report.notes == {}
    [waiting] = Outbox(database).find(undelivered=True)
    assert "another version" in waiting["channels"]["slack"]["last_error"]


def test_a_replayed_bar_is_evaluated_by_the_next_tick(database: Mongo) -> None:
    """It was rejected as a bar from the future, because the clock was slow."""
    hop(database, answer("AAPL", FLAT, at(2)), now=at(2)).tick(["AAPL"])
    report = hop(database, answer("AAPL", {**FLAT, 3: 102.0}, at(2)), now=at(2)).tick(["AAPL"])
    assert report.counts["AAPL"].rejected == 1
    done = replay_rejected(database, Quarantine(database).find(), at(4))
    assert done.stored == 1
    assert ids(database) == []
    hop(database, now=at(4)).tick(["AAPL"])
    assert ids(database) == ["level_101|AAPL|2025-07-30T13:45:00Z"]
