"""One event is one alert (guarantee G6): whatever a tick dies of, however often and however many at once it runs."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta

import pytest
from alert_ticks import LEVEL, answer, at, go, hop, ids, later, rules, slack, start
from pymongo.database import Database
from ticks import everything

from barflow.alerts import delivery as alert_delivery
from barflow.alerts.channels import Receipts
from barflow.alerts.evaluate import NEWS_SESSIONS
from barflow.alerts.message import Message
from barflow.alerts.outbox import AlertStates, Intents, Outbox
from barflow.alerts.tick import DEAD_AFTER
from barflow.errors import UnavailableError
from barflow.market.sessions import last_sessions, utc_now
from barflow.staging.connection import Document
from barflow.staging.ledger import FAILED
from barflow.staging.quarantine import Quarantine
from barflow.staging.sessions import Staging
from barflow.twelvedata.client import SymbolError
from emulators.slack.server import TOKEN, Fault, SlackEmulator

Mongo = Database[Document]
FIRED = "level_101|AAPL|2025-07-30T13:40:00Z"
CALM = {0: 100.0, 1: 100.0}
FIRING = {**CALM, 2: 102.0}


@pytest.fixture
def slack_server() -> Iterator[SlackEmulator]:
    with SlackEmulator() as running:
        yield running


def test_the_tick_that_stores_a_bar_leaves_its_alert_and_no_tick_after_it_another(database: Mongo) -> None:
    hop(database, answer("AAPL", CALM, at(2)), now=at(2)).tick(["AAPL"])
    assert ids(database) == []
    for _ in range(3):
        hop(database, answer("AAPL", FIRING, at(3)), now=at(3)).tick(["AAPL"])
        assert ids(database) == [FIRED]
    [kept] = database["alerts"].find()
    assert kept["message"]["text"] == "AAPL rose to 102.00, through 101.00"
    assert kept["channels"]["sse"]["delivered_at"] == kept["created_at"], "the outbox is a channel itself"
    assert database["alert_pending"].count_documents({}) == 0


def test_a_correction_at_the_source_may_fire_and_never_twice(database: Mongo) -> None:
    hop(database, answer("AAPL", CALM, at(2)), now=at(2)).tick(["AAPL"])
    for slot, close in enumerate((102.0, 100.0, 103.0), start=2):
        hop(database, answer("AAPL", {0: 100.0, 1: close}, at(slot)), now=at(slot)).tick(["AAPL"])
    [document] = database["bars"].find()
    assert document["revision"] == [0, 3]
    assert ids(database) == ["level_101|AAPL|2025-07-30T13:35:00Z"]


def test_cool_down_and_judged_bars_outlive_the_process(database: Mongo) -> None:
    book = rules({**LEVEL, "cool_down_minutes": 20})
    closes = [100.0, 102, 100, 102, 100, 102, 100, 102, 100, 102]
    for count in range(1, len(closes) + 1):
        hop(database, answer("AAPL", closes[:count], at(count)), now=at(count), book=book).tick(["AAPL"])
    assert ids(database) == [f"level_101|AAPL|2025-07-30T{time}:00Z" for time in ("13:35", "13:55", "14:15")]


def test_a_first_run_over_twenty_days_gives_alerts_of_the_newest_session_alone(database: Mongo) -> None:
    history = last_sessions(at(3), 20)
    answers = [answer("AAPL", [100.0, 102.0], at(3), item.session_date) for item in history]
    hop(database, *answers, now=at(3)).tick(["AAPL"])
    assert database["bars"].count_documents({}) == 20
    assert ids(database) == ["level_101|AAPL|2025-07-30T13:35:00Z"]


def test_a_backfill_gives_no_alerts(database: Mongo) -> None:
    hop(database, answer("AAPL", CALM, at(2)), now=at(2)).tick(["AAPL"])
    past = [answer("AAPL", [100.0, 102.0], at(2), item.session_date) for item in last_sessions(at(2), 30)[:-1]]
    hop(database, *past, now=at(2)).tick(["AAPL"], window=(at(0, date(2025, 6, 2)), at(1)))
    assert database["bars"].count_documents({}) == 30
    assert ids(database) == []


WINDOWED = rules(
    {"id": "high", "kind": "extreme", "sessions": 30, "direction": "up"},
    {"id": "average", "kind": "average", "sessions": 30, "direction": "up"},
)


@pytest.mark.parametrize("known", ["bars stored before there were alerts", "rules that looked back less", "backfill"])
def test_rules_see_the_history_they_look_at_wherever_it_came_from(database: Mongo, known: str) -> None:
    history = last_sessions(at(3), 31)
    past = [answer("AAPL", [99.0 + place / 30], at(0), item.session_date) for place, item in enumerate(history[:-1])]
    today = answer("AAPL", [99.0, 98.0], at(2))
    if known == "bars stored before there were alerts":
        first = hop(database, *past, today, now=at(2))
        first.alerts = None
        first.tick(["AAPL"])
    elif known == "rules that looked back less":
        hop(database, *past, today, now=at(2)).tick(["AAPL"])
    else:
        hop(database, today, now=at(2), book=WINDOWED).tick(["AAPL"])
        hop(database, *past, now=at(2), book=WINDOWED).tick(["AAPL"], window=(history[0].opens, at(1)))
    hop(database, answer("AAPL", [99.0, 98.0, 101.0], at(3)), now=at(3), book=WINDOWED).tick(["AAPL"])
    assert ids(database) == ["average|AAPL|2025-07-30T13:40:00Z", "high|AAPL|2025-07-30T13:40:00Z"]


# Where a tick dies. After all of these the bars and the alert may be there or not; nobody has been told yet.
DIES = {
    "before it says what it will store": ("Intents.add", "before"),
    "before it stores": ("Intents.add", "after"),
    "between storing and judging": ("Staging.save", "after"),
    "before the outbox": ("Outbox.add", "before"),
    "between outbox and state": ("Outbox.add", "after"),
    "between state and its end": ("AlertStates.save", "after"),
    "between outbox and sending": ("Delivery._claim", "after"),
}


@pytest.mark.parametrize("point", DIES)
def test_a_tick_killed_anywhere_has_its_alert_sent_once_by_the_next(
    database: Mongo, mongodb_uri: str, slack_server: SlackEmulator, point: str
) -> None:
    hop(database, answer("AAPL", CALM, at(2)), now=at(2)).tick(["AAPL"])
    tick = {"now": at(3).isoformat(), "closes": {"AAPL": FIRING}, "slack": slack_server.url}
    assert go(start(mongodb_uri, database, die=DIES[point], **tick)) == [-signal.SIGKILL]
    stored = database["bars"].find_one()
    assert stored
    assert slack_server.posts == []
    later(database)
    # The vendor brings the bar again only where it is not stored: what was judged must not depend on it.
    results = [] if len(stored["ts"]) == 3 else [answer("AAPL", FIRING, at(4))]
    for _ in range(2):
        hop(database, *results, now=at(4), channels=[slack(slack_server.url)]).tick(["AAPL"])
    assert ids(database) == [FIRED]
    assert len(slack_server.posts) == 1


def test_killed_between_sending_and_noting_it_an_alert_is_sent_again_with_its_id(
    database: Mongo, mongodb_uri: str, slack_server: SlackEmulator
) -> None:
    tick = {"now": at(3).isoformat(), "closes": {"AAPL": FIRING}, "slack": slack_server.url}
    assert go(start(mongodb_uri, database, die=("Delivery._sent", "before"), **tick)) == [-signal.SIGKILL]
    assert len(slack_server.posts) == 1
    hop(database, now=at(4), channels=[slack(slack_server.url)]).tick(["AAPL"])
    assert len(slack_server.posts) == 1, "the dead deliverer's claim still holds"
    later(database)
    hop(database, now=at(4), channels=[slack(slack_server.url)]).tick(["AAPL"])
    assert slack_server.posts[0] == slack_server.posts[1], "at least once"
    assert ids(database) == [FIRED]


def test_what_a_dead_tick_said_it_would_store_is_forgotten_once_it_is_surely_dead(database: Mongo) -> None:
    Intents(database).add("dead", ["AAPL|5min|2025-07-30"])
    hop(database, now=at(2)).tick(["AAPL"])
    assert database["alert_pending"].count_documents({}) == 1, "it may be alive"
    database["alert_pending"].update_many({}, {"$set": {"since": utc_now() - DEAD_AFTER * 2}})
    hop(database, now=at(2)).tick(["AAPL"])
    assert database["alert_pending"].count_documents({}) == 0


SYMBOLS = [f"S{number:02}" for number in range(40)]


def test_two_ticks_at_once_in_two_processes_give_one_alert_an_event_sent_once(
    database: Mongo, mongodb_uri: str, slack_server: SlackEmulator
) -> None:
    """In the second round, one of the two has a bar more than the other."""

    def ready(bars: int) -> subprocess.Popen[str]:
        closes = {symbol: {slot: 100.0 + 2 * (slot % 2) for slot in range(bars)} for symbol in SYMBOLS}
        return start(mongodb_uri, database, now=at(bars).isoformat(), closes=closes, slack=slack_server.url)

    for one, other in ((2, 2), (3, 4)):
        assert go(ready(one), ready(other)) == [0, 0]
    expected = sorted(f"level_101|{symbol}|{at(slot):%Y-%m-%dT%H:%M:%SZ}" for symbol in SYMBOLS for slot in (1, 3))
    assert ids(database) == expected
    posted = [post["text"].split()[0] for post in slack_server.posts]
    assert sorted(posted) == sorted(SYMBOLS * 2)
    assert database["alert_pending"].count_documents({}) == 0


def test_a_channel_that_is_down_fails_no_tick_and_gets_the_alert_when_it_is_back(
    database: Mongo, slack_server: SlackEmulator
) -> None:
    slack_server.fault = Fault(500)
    ways = [slack(slack_server.url)]
    report = hop(database, answer("AAPL", FIRING, at(3)), now=at(3), channels=ways).tick(["AAPL"])
    assert report.counts["AAPL"].new == 3
    [waiting] = database["alerts"].find()
    assert ["HTTP 500" in note for note in report.notes["alerts"]] == [True], "the tick says so"
    assert report.alerts == 1
    state = waiting["channels"]["slack"]
    assert (state["delivered_at"], state["attempts"]) == (None, 1)
    assert "HTTP 500" in state["last_error"]
    attempts = slack_server.attempts
    hop(database, now=at(4), channels=ways).tick(["AAPL"])
    assert slack_server.attempts == attempts, "not before its time"
    later(database)
    hop(database, now=at(4), channels=ways).tick(["AAPL"])
    [waiting] = database["alerts"].find()
    assert waiting["channels"]["slack"]["attempts"] == 2
    assert waiting["due_at"] == waiting["channels"]["slack"]["next_at"] > state["next_at"], "each time later"
    slack_server.fault = None
    later(database)
    hop(database, now=at(4), channels=ways).tick(["AAPL"])
    hop(database, now=at(4), channels=ways).tick(["AAPL"])
    [sent] = database["alerts"].find()
    assert "due_at" not in sent
    assert len(slack_server.posts) == 1
    assert TOKEN not in everything(database)


def test_a_feed_that_the_vendor_fails_goes_stale_and_the_tick_still_fails(database: Mongo) -> None:
    book = rules({"id": "stale", "kind": "silence", "minutes": 20})
    hop(database, answer("AAPL", CALM, at(2)), now=at(2), book=book).tick(["AAPL"])
    for slot in (4, 6, 7):
        broken = hop(database, UnavailableError("Twelve Data does not answer"), now=at(slot), book=book)
        with pytest.raises(UnavailableError, match="does not answer"):
            broken.tick(["AAPL"])
    assert database["ledger"].count_documents({"outcome": FAILED}) == 3
    assert ids(database) == ["stale|AAPL|2025-07-30T13:40:00Z"]


def test_a_symbol_without_a_new_bar_goes_stale_and_one_that_never_had_any_does_not(database: Mongo) -> None:
    book = rules({"id": "stale", "kind": "silence", "minutes": 20})
    first = [answer(symbol, CALM, at(2)) for symbol in ("AAPL", "MSFT")]
    hop(database, *first, now=at(2), book=book).tick(["AAPL", "MSFT", "NEWCO"])
    going_on = answer("AAPL", [100.0] * 6, at(6))
    refused = SymbolError("NEWCO", 404, "no such symbol")
    hop(database, going_on, answer("MSFT", CALM, at(6)), refused, now=at(6), book=book).tick(["AAPL", "MSFT", "NEWCO"])
    assert ids(database) == ["stale|MSFT|2025-07-30T13:40:00Z"]


def test_a_bar_that_closed_after_its_answer_was_asked_for_is_not_missing(database: Mongo) -> None:
    """Bars may wait in memory for a batch to fill while the clock goes on."""
    book = rules({"id": "stale", "kind": "silence", "minutes": 20})
    hop(database, answer("AAPL", CALM, at(2)), now=at(8), book=book).tick(["AAPL"])
    assert ids(database) == []


def test_sessions_missed_in_an_outage_are_judged_when_they_come_and_older_ones_are_history(database: Mongo) -> None:
    recent = last_sessions(at(2), 8)
    hop(database, answer("AAPL", CALM, recent[0].closes, recent[0].session_date), now=recent[0].closes).tick(["AAPL"])
    answers = [answer("AAPL", [100.0, 102.0], at(2), item.session_date) for item in recent[1:]]
    hop(database, *answers, now=at(2)).tick(["AAPL"])
    assert [name.split("|")[2][:10] for name in ids(database)] == [
        str(item.session_date) for item in recent[-NEWS_SESSIONS:]
    ]


def test_a_state_that_another_tick_changed_is_not_written_over(database: Mongo) -> None:
    hop(database, answer("AAPL", CALM, at(2)), now=at(2)).tick(["AAPL"])
    states = AlertStates(database)
    before = states.load(["AAPL"])["AAPL"]
    assert states.save([(before, replace(before, fired={"one": at(1)}))]) == set()
    assert states.save([(before, replace(before, fired={"two": at(2)}))]) == {"AAPL"}
    assert states.load(["AAPL"])["AAPL"].fired == {"one": at(1)}


def test_a_tick_overtaken_while_it_judges_judges_again(database: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    """The faster one stores and judges a bar more; the slower one must not put that back to unjudged."""
    rule = rules({**LEVEL, "cool_down_minutes": 60})
    hop(database, answer("AAPL", CALM, at(2)), now=at(2), book=rule).tick(["AAPL"])
    keep, overtaken = Outbox.add, []

    def overtake(outbox: Outbox, messages: Iterable[tuple[Message, Sequence[str]]]) -> int:
        if not overtaken:
            overtaken.append(True)
            hop(database, answer("AAPL", {**FIRING, 3: 100.0, 4: 102.0}, at(5)), now=at(5), book=rule).tick(["AAPL"])
        return keep(outbox, messages)

    monkeypatch.setattr(Outbox, "add", overtake)
    hop(database, answer("AAPL", FIRING, at(3)), now=at(3), book=rule).tick(["AAPL"])
    assert ids(database) == [FIRED]
    state = AlertStates(database).load(["AAPL"])["AAPL"]
    assert [*state.sessions.values()][-1].slots == bytes(range(5))
    assert state.fired == {"level_101": at(2)}


class Recorder:
    """A channel that takes everything."""

    name = "sns"

    def __init__(self) -> None:
        self.taken: list[str] = []

    def send(self, messages: Sequence[Message]) -> Iterator[Receipts]:
        for message in messages:
            self.taken.append(message.id)
            yield {message.id: None}


def test_a_channel_that_has_an_alert_does_not_get_it_again_for_the_sake_of_one_that_is_down(
    database: Mongo, slack_server: SlackEmulator
) -> None:
    works = Recorder()
    slack_server.fault = Fault("channel_not_found", times=2)
    hop(database, answer("AAPL", FIRING, at(3)), now=at(3), channels=[slack(slack_server.url), works]).tick(["AAPL"])
    for _ in range(3):
        later(database)
        hop(database, now=at(3), channels=[slack(slack_server.url), works]).tick(["AAPL"])
    assert works.taken == [FIRED]
    assert len(slack_server.posts) == 1
    [sent] = database["alerts"].find()
    assert {name: state["attempts"] for name, state in sent["channels"].items()} == {"sns": 1, "slack": 3, "sse": 1}


def test_more_than_one_claim_holds_is_sent_in_one_tick(database: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alert_delivery, "CLAIMED_AT_ONCE", 3)
    works = Recorder()
    fired = [answer(symbol, FIRING, at(3)) for symbol in SYMBOLS[:7]]
    hop(database, *fired, now=at(3), channels=[works]).tick(SYMBOLS[:7])
    assert sorted(works.taken) == ids(database)
    assert len(works.taken) == 7
    assert Outbox(database).find(undelivered=True) == []


def test_a_channel_that_is_no_longer_set_up_is_waited_for_without_a_hurry(database: Mongo) -> None:
    hop(database, answer("AAPL", FIRING, at(3)), now=at(3), channels=[slack()]).tick(["AAPL"])
    later(database)
    hop(database, now=at(3)).tick(["AAPL"])
    [waiting] = database["alerts"].find()
    assert waiting["due_at"] > utc_now() + timedelta(minutes=10)
    assert [item["_id"] for item in Outbox(database).find(undelivered=True)] == [FIRED]


def test_a_message_that_another_version_wrote_waits_and_stops_nothing(database: Mongo) -> None:
    hop(database, answer("AAPL", FIRING, at(3)), now=at(3), channels=[slack()]).tick(["AAPL"])
    database["alerts"].update_one({}, {"$set": {"message.schema_version": 2}})
    later(database)
    works = Recorder()
    works.name = "slack"
    report = hop(database, answer("MSFT", FIRING, at(3)), now=at(3), channels=[works]).tick(["MSFT"])
    assert works.taken == ["level_101|MSFT|2025-07-30T13:40:00Z"]
    assert report.notes == {}
    [waiting] = Outbox(database).find(undelivered=True)
    assert "another version" in waiting["channels"]["slack"]["last_error"]


def test_a_bar_that_comes_back_from_quarantine_is_judged_by_the_next_tick(database: Mongo) -> None:
    """It was refused for the future, and a clock set right lets it pass."""
    hop(database, answer("AAPL", CALM, at(2)), now=at(2)).tick(["AAPL"])
    report = hop(database, answer("AAPL", {**CALM, 3: 102.0}, at(2)), now=at(2)).tick(["AAPL"])
    assert report.counts["AAPL"].rejected == 1
    quarantine = Quarantine(database)
    done = quarantine.replay(Staging(database), quarantine.find(), "replay", at(4))
    assert done.stored == 1
    assert ids(database) == []
    hop(database, now=at(4)).tick(["AAPL"])
    assert ids(database) == ["level_101|AAPL|2025-07-30T13:45:00Z"]
