"""Each rule fires where its reference implementation does, once, however its bars are split over ticks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
from alert_bars import FIVE, NEWEST_DAY, backtested, bars_of, days, reference_alerts, traded
from alert_histories import KINDS, histories
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import Recordings
from recordings.market import OPENS
from recordings.reading import as_utc, overnight_gaps

from barflow.alerts.evaluate import NEWS_SESSIONS, Evaluator, Event
from barflow.alerts.history import SymbolState
from barflow.alerts.rules import AverageRule, ExtremeRule, LevelRule, MoveRule, Rule, RuleBook, SilenceRule, VolumeRule
from barflow.alerts.rules_file import load_rules
from barflow.market.bars import SessionBars
from barflow.staging.sessions import StoredSession


def as_alerts(events: Sequence[Event]) -> list[tuple[datetime, str | None, float]]:
    return sorted((event.bar_start, event.direction, pytest.approx(event.value, abs=1e-4)) for event in events)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50, deadline=None)
@given(history=histories(), data=st.data())
def test_each_rule_fires_where_its_reference_implementation_does(
    kind: str, history: list[SessionBars], data: st.DataObject
) -> None:
    rule = data.draw(KINDS[kind])
    events = backtested(RuleBook.of([rule]), history, traded(NEWEST_DAY).closes)
    expected = reference_alerts(rule, history, NEWEST_DAY) if history else []
    assert as_alerts(events) == sorted(expected)


class Outbox(dict[str, Event]):
    """Holds the first event of each id, as the collection does."""

    def add(self, events: Sequence[Event]) -> None:
        for event in events:
            self.setdefault(event.id, event)


@settings(max_examples=75, deadline=None)
@given(st.one_of(*KINDS.values()), histories(), st.data())
def test_splitting_bars_over_ticks_and_killing_ticks_does_not_change_the_alerts(
    rule: Rule, history: list[SessionBars], data: st.DataObject
) -> None:
    """A tick brings some bars. A killed tick has written the outbox but not the state."""
    book, outbox, state, version = RuleBook.of([rule]), Outbox(), None, 0
    for item in days(6):
        whole = next((bars for bars in history if bars.session_date == item.session_date), None)
        arrived = 0
        while whole is not None and arrived < len(whole):
            arrived += data.draw(st.integers(1, len(whole) - arrived))
            version += 1
            part = SessionBars.of(whole.symbol, whole.session_date, whole.bars()[:arrived])
            evaluator = Evaluator(book, part.ts[-1] + FIVE)
            state = state or evaluator.new_state(whole.symbol)
            after, events, *_ = evaluator.evaluate(state, [StoredSession(part, version)])
            outbox.add(events)
            state = state if data.draw(st.booleans()) else after
        if state is not None:
            evaluator = Evaluator(book, item.closes)
            changed = [StoredSession(whole, version)] if whole is not None else []
            state, events, *_ = evaluator.evaluate(state, changed)
            outbox.add(events)
    expected = reference_alerts(rule, history, NEWEST_DAY) if history else []
    assert sorted((event.bar_start, event.direction) for event in outbox.values()) == sorted(
        item[:2] for item in expected
    )


def level(price: float, **values: object) -> LevelRule:
    return LevelRule.model_validate({"id": "level", "kind": "level", "level": price, "cool_down_minutes": 0, **values})


class Feed:
    """The ticks of one symbol: each gets bars and returns the ids of the alerts."""

    def __init__(self, *rules: Rule) -> None:
        self.book = RuleBook.of(rules)
        self.state: SymbolState | None = None

    def tick(self, bars: SessionBars, version: int = 1, now: datetime | None = None) -> list[str]:
        evaluator = Evaluator(self.book, now or bars.ts[-1] + FIVE)
        state = self.state or evaluator.new_state(bars.symbol)
        self.state, events, *_ = evaluator.evaluate(state, [StoredSession(bars, version)])
        return [event.id for event in events]


def test_a_rule_that_still_holds_fires_again_only_after_it_stopped_holding() -> None:
    rule = MoveRule(id="move", kind="move", percent=3, minutes=30, cool_down_minutes=0)
    feed = Feed(rule)
    closes = [100.0, 104, 104, 104, 104, 104, 104, 104, 104, 104, 109]
    found = [feed.tick(bars_of(NEWEST_DAY, closes[: count + 1]), count + 1) for count in range(len(closes))]
    assert found == [[], ["move|AAPL|2025-07-30T13:35:00Z"], *([[]] * 8), ["move|AAPL|2025-07-30T14:20:00Z"]]


def test_evaluating_the_same_bars_again_fires_nothing() -> None:
    feed = Feed(level(101))
    bars = bars_of(NEWEST_DAY, [100, 102])
    assert feed.tick(bars) == ["level|AAPL|2025-07-30T13:35:00Z"]
    assert feed.tick(bars) == []
    assert feed.tick(bars, version=2) == [], "a new version without another bar"


def test_a_crossing_within_the_cool_down_never_fires() -> None:
    rule = level(101, cool_down_minutes=20)
    closes = [100.0, 102, 100, 102, 102, 102, 100, 102]
    bars = bars_of(NEWEST_DAY, closes)
    assert Feed(rule).tick(bars) == ["level|AAPL|2025-07-30T13:35:00Z", "level|AAPL|2025-07-30T14:00:00Z"]


def test_revisions_of_a_bar_fire_at_most_once() -> None:
    feed = Feed(level(101))
    assert feed.tick(bars_of(NEWEST_DAY, [100, 100.5]), 1) == []
    revised = bars_of(NEWEST_DAY, [100, 102])
    revised.revision[1] = 1
    assert feed.tick(revised, 2) == ["level|AAPL|2025-07-30T13:35:00Z"]
    again = bars_of(NEWEST_DAY, [100, 103])
    again.revision[1] = 2
    assert feed.tick(again, 3) == []


def test_a_revision_of_an_old_bar_evaluates_only_that_bar() -> None:
    feed = Feed(level(101, direction="up"))
    feed.tick(bars_of(NEWEST_DAY, [100, 100, 100, 100]), 1)
    revised = bars_of(NEWEST_DAY, [100, 102, 100, 102])
    revised.revision[1] = 1
    assert feed.tick(revised, 2) == ["level|AAPL|2025-07-30T13:35:00Z"]


def test_a_late_bar_is_evaluated_when_it_arrives() -> None:
    feed = Feed(level(101))
    assert feed.tick(bars_of(NEWEST_DAY, {0: 100, 2: 100}), 1) == []
    assert feed.tick(bars_of(NEWEST_DAY, [100, 102, 100]), 2) == ["level|AAPL|2025-07-30T13:35:00Z"]


def test_a_slow_tick_with_an_older_version_changes_nothing() -> None:
    feed = Feed(level(101))
    feed.tick(bars_of(NEWEST_DAY, [100, 100, 100]), 2)
    before = feed.state
    assert feed.tick(bars_of(NEWEST_DAY, [100, 102]), 1) == []
    assert feed.state == before


def test_a_first_run_fires_only_for_its_newest_session() -> None:
    rule = level(101, direction="up")
    stored = [StoredSession(bars_of(item.session_date, [100, 102, 100, 102]), 1) for item in days(20)]
    evaluator = Evaluator(RuleBook.of([rule]), traded(NEWEST_DAY).closes)
    _, events, *_ = evaluator.evaluate(evaluator.new_state("AAPL"), stored)
    assert {event.session_date for event in events} == {NEWEST_DAY}
    assert len(events) == 2


def test_a_backfill_of_older_sessions_fires_nothing() -> None:
    feed = Feed(level(101))
    now = traded(NEWEST_DAY).closes
    feed.tick(bars_of(NEWEST_DAY, [100, 100]), 1, now)
    for item in days(30)[:-1]:
        assert feed.tick(bars_of(item.session_date, [100, 102]), 1, now) == []


def test_after_an_outage_only_the_last_five_sessions_fire() -> None:
    feed = Feed(level(101, direction="up"))
    recent = days(9)
    feed.tick(bars_of(recent[0].session_date, [100, 100]), 1)
    now = recent[-1].closes
    fired = [feed.tick(bars_of(item.session_date, [100, 102]), 1, now) for item in recent[1:]]
    assert [len(ids) for ids in fired] == [0] * (8 - NEWS_SESSIONS) + [1] * NEWS_SESSIONS


@pytest.mark.parametrize("sessions", [5, 20, 60])
def test_a_rule_over_n_sessions_sees_n_sessions(sessions: int) -> None:
    """With fewer sessions a rule never fires. Without edge triggering it fires at every bar."""
    average = AverageRule(id="average", kind="average", sessions=sessions, direction="up")
    extreme = ExtremeRule(id="extreme", kind="extreme", sessions=sessions, direction="up")
    volume = VolumeRule(id="volume", kind="volume", sessions=sessions, times=3)
    feed = Feed(average, extreme, volume)
    *past, today = days(sessions + 10)
    for item in past:
        assert feed.tick(bars_of(item.session_date, [100.0] * item.expected_bars)) == []
    jump = bars_of(today.session_date, [99.5, *[101.0] * 77], volume=dict.fromkeys(range(40, 78), 5000))
    found = [feed.tick(SessionBars.of("AAPL", NEWEST_DAY, jump.bars()[:count]), count) for count in range(1, 79)]
    assert [(place, ids) for place, ids in enumerate(found) if ids] == [
        (1, ["average|AAPL|2025-07-30T13:35:00Z", "extreme|AAPL|2025-07-30T13:35:00Z"]),
        (40, ["volume|AAPL|2025-07-30T16:50:00Z"]),
    ]


@pytest.mark.parametrize("sessions", [7, 14])
def test_a_constant_price_crosses_no_average(sessions: int) -> None:
    """The mean of seven times 1.21 is another double than 1.21."""
    feed = Feed(
        AverageRule(id="days", kind="average", sessions=sessions), AverageRule(id="bars", kind="average", bars=sessions)
    )
    for item in days(sessions + 3):
        assert feed.tick(bars_of(item.session_date, [1.21, 1.21 + 1e-15, 1.21 - 1e-15, *[1.21] * 20])) == []


@pytest.mark.parametrize(
    ("closes", "fired"),
    [
        ([100, 101], ["13:35"]),  # reaching the level is enough
        ([100, 102, 100, 102], ["13:35", "13:40", "13:45"]),
        ([101, 102], []),  # it was there already
        ([100, 101, 102], ["13:35"]),  # not again when it rises further
        ([102, 101, 102], ["13:35"]),
    ],
)
def test_a_level_fires_when_the_close_reaches_it(closes: list[float], fired: list[str]) -> None:
    found = Feed(level(101)).tick(bars_of(NEWEST_DAY, closes))
    assert found == [f"level|AAPL|2025-07-30T{time}:00Z" for time in fired]


@pytest.mark.parametrize(("minutes", "fired"), [(15, False), (20, True)])
def test_a_move_within_n_minutes_ignores_older_prices(minutes: int, fired: bool) -> None:
    """The session opens at 100, 20 minutes before the fourth bar closes. No bar closes below 103."""
    rule = MoveRule(id="move", kind="move", percent=5, minutes=minutes)
    bars = bars_of(NEWEST_DAY, [103, 103, 103, 105], open={0: 100})
    assert bool(Feed(rule).tick(bars)) == fired


def test_a_silence_fires_once_for_its_first_missing_bar() -> None:
    rule = SilenceRule(id="stale", kind="silence", minutes=20, cool_down_minutes=0)
    feed, opens = Feed(rule), traded(NEWEST_DAY).opens
    bars = bars_of(NEWEST_DAY, [100, 100])
    late = {minutes: feed.tick(bars, 1, opens + timedelta(minutes=minutes)) for minutes in (10, 29, 30, 35, 390, 600)}
    assert late == {10: [], 29: [], 30: ["stale|AAPL|2025-07-30T13:40:00Z"], 35: [], 390: [], 600: []}
    assert feed.tick(bars_of(NEWEST_DAY, {0: 100, 1: 100, 9: 100}), 2, opens + timedelta(minutes=50)) == []
    assert feed.tick(bars_of(NEWEST_DAY, {0: 100, 1: 100, 9: 100}), 2, opens + timedelta(minutes=70)) == [
        "stale|AAPL|2025-07-30T14:20:00Z"
    ]


def test_a_closed_market_fires_no_silence() -> None:
    feed = Feed(SilenceRule(id="stale", kind="silence", minutes=5))
    friday = date(2025, 7, 25)
    assert feed.tick(bars_of(friday, [100.0] * 78)) == []
    assert feed.tick(bars_of(friday, [100.0] * 78), 1, traded(friday).closes + timedelta(hours=40)) == []


def test_the_state_does_not_grow_with_the_history() -> None:
    book = load_rules()
    sizes = []
    for count in (60, 120):
        feed = Feed(*book.all)
        for item in days(count):
            feed.tick(bars_of(item.session_date, [100.0] * item.expected_bars))
        assert feed.state is not None
        sizes.append(sum(len(item.closes) + len(item.volumes) for item in feed.state.sessions.values()))
    assert sizes[0] == sizes[1]


def test_on_a_recording_gap_5pct_fires_for_exactly_the_overnight_gaps_of_five_percent(recordings: Recordings) -> None:
    gaps = overnight_gaps(recordings.watch_list)
    assert min(gaps.values()) < -7
    sessions = recorded(recordings.watch_list)
    events = backtested(load_rules().only("gap_5pct"), sessions, max(bars.ts[-1] for bars in sessions) + FIVE)
    assert {(event.symbol, event.session_date): event.value for event in events} == {
        key: round(gap, 4) for key, gap in gaps.items()
    }
    assert [event.id for event in events] == [
        f"gap_5pct|{symbol}|{as_utc(datetime.combine(day, OPENS)):%Y-%m-%dT%H:%M:%SZ}" for symbol, day in gaps
    ]


def recorded(path: Path) -> list[SessionBars]:
    from barflow.backtest.sources import recorded_sessions
    from barflow.market.recordings import Recording

    return list(recorded_sessions(Recording.load(path)))
