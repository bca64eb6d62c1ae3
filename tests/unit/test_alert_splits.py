"""Rules compare prices and volumes in the shares of the evaluated session (guarantee G10)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from fractions import Fraction
from typing import Any

import pytest
from alert_bars import FIVE, NEWEST_DAY, backtested, bars_of, days, reference_alerts, traded
from alert_histories import KINDS, histories
from hypothesis import given, settings
from hypothesis import strategies as st

from barflow.alerts.evaluate import NEWS_SESSIONS, Evaluator, Event
from barflow.alerts.history import SymbolState
from barflow.alerts.message import describe
from barflow.alerts.rules import (
    AverageRule,
    ExtremeRule,
    GapRule,
    LevelRule,
    MoveRule,
    Rule,
    RuleBook,
    SilenceRule,
    SplitRule,
    VolumeRule,
)
from barflow.market.actions import Split, split_text
from barflow.market.bars import SessionBars
from barflow.staging.sessions import StoredSession

LEARNED = datetime(2025, 7, 1, tzinfo=UTC)
*_, EVE, EX_DATE, NEXT = (item.session_date for item in days(22))
GAP = GapRule(id="gap_5pct", kind="gap", percent=5)


def split(ratio: float, ex_date: date = EX_DATE) -> Split:
    return Split("AAPL", ex_date, ratio, "endpoint", LEARNED)


def shares(splits: Sequence[Split], day: date) -> float:
    """Return how many shares of the newest day one share of ``day`` became."""
    return math.prod(item.ratio for item in splits if item.ex_date > day)


def in_raw_shares(bars: SessionBars, ratio: float) -> SessionBars:
    """Return bars in the shares of their own day. Their volumes are so already."""
    prices = {name: [price * ratio for price in getattr(bars, name)] for name in ("open", "high", "low", "close")}
    return replace(bars, **prices)


def in_newest_shares(bars: SessionBars, ratio: float) -> SessionBars:
    """Return bars with volumes in the shares of the newest day. Their prices are so already."""
    volumes: Any = [volume * Fraction(ratio) for volume in bars.volume]
    return replace(bars, volume=volumes)


splits_of_days = st.lists(
    st.builds(
        split, st.sampled_from([10.0, 2.0, 0.125, 1.281, 7.0]), st.sampled_from([item.session_date for item in days(6)])
    ),
    max_size=3,
    unique_by=lambda item: item.ex_date,
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50, deadline=None)
@given(history=histories(), splits=splits_of_days, data=st.data())
def test_raw_bars_with_splits_fire_as_bars_in_one_basis_do(
    kind: str, history: list[SessionBars], splits: list[Split], data: st.DataObject
) -> None:
    """The reference implementation gets bars that no split divides. Prices of an alert are those of its session."""
    rule = data.draw(KINDS[kind])
    ratios = {bars.session_date: shares(splits, bars.session_date) for bars in history}
    raw = [in_raw_shares(bars, ratios[bars.session_date]) for bars in history]
    written = rule
    if isinstance(rule, LevelRule):
        as_of = data.draw(st.sampled_from([item.session_date for item in days(8)]))
        written = rule.model_copy(update={"as_of": as_of, "level": rule.level * shares(splits, as_of)})
    events = backtested(RuleBook.of([written]), raw, traded(NEWEST_DAY).closes, {"AAPL": splits})
    one_basis = [in_newest_shares(bars, ratios[bars.session_date]) for bars in history]
    expected = reference_alerts(rule, one_basis, NEWEST_DAY) if history else []
    found = [
        (event.bar_start, event.direction, event.value / (ratios[event.session_date] if rule.unit == "dollars" else 1))
        for event in events
    ]
    assert sorted(found) == sorted((*item[:2], pytest.approx(item[2], abs=1e-4)) for item in expected)
    closes = {ts: close for bars in raw for ts, close in zip(bars.ts, bars.close, strict=True)}
    assert kind == "silence" or all(event.price == closes[event.bar_start] for event in events)


@pytest.mark.parametrize(("ratio", "before"), [(10.0, 1208.9), (0.125, 12.4), (1.281, 128.37)])
def test_a_gap_across_a_split_is_the_true_gap(ratio: float, before: float) -> None:
    past = bars_of(EVE, [before])
    for gap, fires in ((-6.0, True), (-4.0, False), (6.0, True)):
        opened = before / ratio * (1 + gap / 100)
        today = bars_of(EX_DATE, [opened])
        events = backtested(RuleBook.of([GAP]), [past, today], traded(EX_DATE).closes, {"AAPL": [split(ratio)]})
        assert [event.value for event in events] == ([pytest.approx(gap, abs=1e-4)] if fires else [])
        for event in events:
            assert event.id == "gap_5pct|AAPL|2025-07-29T13:30:00Z"
            assert event.price == opened, "raw dollars of the session"
            assert event.reference == pytest.approx(before / ratio)
            side = "above" if gap > 0 else "below"
            assert describe(event) == (
                f"AAPL opened 6.00 % {side} the previous close of {before / ratio:,.2f} ({before:,.2f} before a "
                f"{split_text(ratio)})"
            )


def test_the_same_price_and_volume_across_a_split_fire_nothing() -> None:
    """10.7 / 10 is another double than 1.07. A price must not exceed itself."""
    rules = [
        ExtremeRule(id="extreme", kind="extreme", sessions=5),
        VolumeRule(id="volume", kind="volume", times=1.5, sessions=5),
    ]
    for before, after, ratio in ((10.7, 1.07, 10.0), (3.3, 1.1, 3.0), (0.38, 1.14, 1 / 3)):
        sessions = past(before, volume=dict.fromkeys(range(5), 300))
        volume = dict.fromkeys(range(5), int(300 * ratio))
        sessions += [bars_of(day, [after] * 5, volume=volume) for day in (EX_DATE, NEXT)]
        events = backtested(RuleBook.of(rules), sessions, traded(NEXT).closes, {"AAPL": [split(ratio)]})
        assert events == []


def past(close: float, until: date = EVE, **columns: object) -> list[SessionBars]:
    return [bars_of(item.session_date, [close] * 5, **columns) for item in days(22) if item.session_date <= until]


class Ticks:
    """The ticks of one symbol, with what a tick keeps in MongoDB: the bars, the state and the outbox."""

    def __init__(self, *rules: Rule) -> None:
        self.book = RuleBook.of(rules)
        self.stored: dict[date, StoredSession] = {}
        self.state: SymbolState | None = None
        self.notes: list[str] = []
        self.outbox: dict[str, Event] = {}

    def tick(self, *sessions: SessionBars, splits: Sequence[Split] = (), now: datetime | None = None) -> list[str]:
        """Store and evaluate sessions, and return the ids of the new alerts."""
        changed = []
        for bars in sessions:
            before = self.stored.get(bars.session_date)
            changed.append(StoredSession(bars, before.version + 1 if before else 1))
            self.stored[bars.session_date] = changed[-1]
        evaluator = Evaluator(self.book, now or max(item.bars.ts[-1] for item in self.stored.values()) + FIVE)
        state = self.state or evaluator.new_state("AAPL")
        repeated = [self.stored[day] for day in evaluator.sessions_to_repeat(state, splits)]
        fired: dict[str, list[datetime]] = {}
        for event in self.outbox.values():
            fired.setdefault(event.rule.id, []).append(event.bar_start)
        self.state, events, self.notes, _ = evaluator.evaluate(state, [*repeated, *changed], splits, fired)
        new = {event.id: event for event in events if event.id not in self.outbox}
        self.outbox |= new
        return [*new]


HIGH = ExtremeRule(id="high", kind="extreme", sessions=5, direction="up", cool_down_minutes=0)
HIGHER_AT_THE_THIRD_BAR = [100.0, 99.0, 102.0, 101.0]
HIGH_FIRED = "high|AAPL|2025-07-29T13:40:00Z"


def test_a_split_learned_late_fires_what_the_right_basis_fires_and_once() -> None:
    """A spin-off of 1.281: the session is below every earlier price, until the split is known."""
    ticks = Ticks(HIGH)
    ticks.tick(*past(128.1))
    assert ticks.tick(bars_of(EX_DATE, HIGHER_AT_THE_THIRD_BAR)) == []
    assert ticks.tick(splits=[split(1.281)]) == [HIGH_FIRED]
    assert ticks.outbox[HIGH_FIRED].reference == pytest.approx(100)
    assert ticks.tick(splits=[split(1.281)]) == []
    assert ticks.tick(bars_of(EX_DATE, [*HIGHER_AT_THE_THIRD_BAR, 101.0]), splits=[split(1.281)]) == []


def test_a_split_that_changes_or_is_withdrawn_repeats_its_sessions_and_withdraws_no_alert() -> None:
    ticks = Ticks(HIGH)
    ticks.tick(*past(128.1))
    assert ticks.tick(bars_of(EX_DATE, HIGHER_AT_THE_THIRD_BAR), splits=[split(1.2)]) == []
    assert ticks.tick(splits=[split(1.281)]) == [HIGH_FIRED], "the ratio was corrected"
    assert ticks.tick(splits=[]) == []
    assert ticks.tick(splits=[split(1.281, NEXT)]) == [], "its ex-date is in the future"
    assert ticks.state is not None
    assert ticks.state.splits == {}
    assert ticks.tick(splits=[split(1.281)]) == [], "known again: the same id"
    assert [*ticks.outbox] == [HIGH_FIRED]
    wrong = Ticks(HIGH)
    wrong.tick(*past(100.0))
    flat = [100.0, 99.0, 100.0]
    assert wrong.tick(bars_of(EX_DATE, flat), splits=[split(1.2)]) == ["high|AAPL|2025-07-29T13:30:00Z"]
    assert wrong.tick(bars_of(EX_DATE, [*flat, 101.0]), splits=[]) == ["high|AAPL|2025-07-29T13:45:00Z"]


def test_a_split_of_an_older_session_repeats_nothing_and_holds_for_later_bars() -> None:
    """The session at the edge is the oldest of the last five."""
    recent = [item.session_date for item in days(NEWS_SESSIONS + 1)]
    for ex_date, expected in ((recent[0], 0), (recent[1], NEWS_SESSIONS - 1)):
        ticks = Ticks(HIGH.model_copy(update={"sessions": 8}))
        before = [bars for bars in past(128.1, recent[0]) if bars.session_date < ex_date]
        ticks.tick(*before)
        for item in days(NEWS_SESSIONS + 1):
            if item.session_date >= ex_date:
                close = 100.0 if item.session_date == NEWEST_DAY else 100.0 + item.session_date.day / 10
                assert ticks.tick(bars_of(item.session_date, [close])) == []
        known = [split(1.281, ex_date)]
        assert len(ticks.tick(splits=known)) == expected
        assert ticks.state is not None
        assert ticks.state.splits == {ex_date: 1.281}
        later = ticks.tick(bars_of(NEWEST_DAY, [100.0, 110.0]), splits=known)
        assert later == ["high|AAPL|2025-07-30T13:35:00Z"]


def test_a_repeated_session_respects_the_cool_downs_of_all_its_alerts() -> None:
    """The state has only the newest bar that fired, at 14:00. The outbox has also the one at 13:35.

    With the split, the rule holds at 13:30: within the cool-down of an alert that was sent.
    """
    rule = AverageRule(id="cross", kind="average", bars=3, cool_down_minutes=15, direction="up")
    ticks = Ticks(rule)
    ticks.tick(*past(100.0)[:-1], bars_of(EVE, [100.0, 100, 99]))
    first = ticks.tick(bars_of(EX_DATE, [98.0, 101, 101, 97, 97, 96, 102]))
    assert first == ["cross|AAPL|2025-07-29T13:35:00Z", "cross|AAPL|2025-07-29T14:00:00Z"]
    assert ticks.tick(splits=[split(1.1)]) == []
    alone = Ticks(rule.model_copy(update={"cool_down_minutes": 0}))
    alone.tick(*past(100.0)[:-1], bars_of(EVE, [100.0, 100, 99]))
    alone.tick(bars_of(EX_DATE, [98.0, 101, 101, 97, 97, 96, 102]))
    assert alone.tick(splits=[split(1.1)]) == ["cross|AAPL|2025-07-29T13:30:00Z"], "without a cool-down it fires"


def test_a_repeated_session_fires_neither_moves_nor_silences_again() -> None:
    """A feed that was down fired one alert of the feed, so the silence of the symbol is not in its outbox."""
    silence = SilenceRule(id="stale", kind="silence", minutes=20)
    move = MoveRule(id="move", kind="move", percent=3, minutes=30, cool_down_minutes=0)
    ticks = Ticks(silence, move)
    ticks.tick(*past(100.0, EVE))
    found = ticks.tick(bars_of(EX_DATE, {0: 100.0, 1: 104.0, 9: 104.0}))
    assert [name.partition("|")[0] for name in found] == ["move", "stale"]
    ticks.outbox.clear()
    assert ticks.state is not None
    ticks.state = replace(ticks.state, fired={})
    assert ticks.tick(splits=[split(1.281)]) == []


def test_a_state_of_an_earlier_version_is_evaluated_with_the_splits_that_are_known_now() -> None:
    ticks = Ticks(HIGH)
    ticks.tick(*past(128.1), bars_of(EX_DATE, [100.0]))
    assert ticks.state is not None
    assert ticks.state.splits == {}
    raw = {day: item for day, item in ticks.state.sessions.items() if day <= EVE}
    ticks.tick(bars_of(EX_DATE, [100.0, 101.0]), splits=[split(1.281)])
    assert {day: item for day, item in ticks.state.sessions.items() if day <= EVE} == raw, "the state stays raw"


UNKNOWN = SplitRule(id="unknown_split", kind="split")
COMPARING: tuple[Rule, ...] = (
    GAP,
    UNKNOWN,
    ExtremeRule(id="extreme", kind="extreme", sessions=5),
    VolumeRule(id="volume", kind="volume", times=2, sessions=5),
    AverageRule(id="days", kind="average", sessions=5),
    LevelRule(id="level", kind="level", level=500, as_of=EVE),
)


@pytest.mark.parametrize(("ratio", "direction"), [(10.0, "down"), (0.125, "up"), (1.5, "down")])
def test_an_open_like_an_unknown_split_fires_one_alert_of_its_own(ratio: float, direction: str) -> None:
    """No other rule compares the session with earlier ones, and each tick notes it."""
    ticks = Ticks(*COMPARING)
    ticks.tick(*past(1000.0))
    opened = 1000.0 / ratio * 0.94
    today = bars_of(EX_DATE, [opened, opened, opened * 0.999], volume={0: 90_000})
    assert ticks.tick(today) == ["unknown_split|AAPL|2025-07-29T13:30:00Z"]
    [event] = ticks.outbox.values()
    assert (event.direction, event.reference, event.price) == (direction, 1000.0, opened)
    assert event.value == pytest.approx((0.94 / ratio - 1) * 100, abs=1e-4)
    [note] = ticks.notes
    assert f"like a {split_text(ratio)} that is not known" in note
    assert "`barflow actions refresh --symbols AAPL`" in note
    assert ticks.tick(splits=[split(ratio)])[0] == "gap_5pct|AAPL|2025-07-29T13:30:00Z"
    assert ticks.outbox["gap_5pct|AAPL|2025-07-29T13:30:00Z"].value == pytest.approx(-6.0, abs=1e-4)
    assert ticks.notes == []


def test_rules_within_the_session_are_evaluated_although_a_split_is_not_known() -> None:
    move = MoveRule(id="move", kind="move", percent=3, minutes=30)
    silence = SilenceRule(id="stale", kind="silence", minutes=20)
    ticks = Ticks(move, LevelRule(id="level", kind="level", level=103), silence)
    ticks.tick(*past(1000.0))
    fired = ticks.tick(bars_of(EX_DATE, {0: 100.0, 1: 104.0, 9: 104.0}))
    assert [name.partition("|")[0] for name in fired] == ["move", "level", "stale"]


def test_the_next_session_compares_again_where_the_vendor_never_lists_a_split() -> None:
    """Only a session's own open is looked at, so a fall by half mutes its own session alone."""
    ticks = Ticks(*COMPARING)
    ticks.tick(*past(100.0))
    assert ticks.tick(bars_of(EX_DATE, [50.0] * 5)) == ["unknown_split|AAPL|2025-07-29T13:30:00Z"]
    fired = ticks.tick(bars_of(NEXT, [47.0] * 5))
    assert fired == ["gap_5pct|AAPL|2025-07-30T13:30:00Z", "extreme|AAPL|2025-07-30T13:30:00Z"]
    assert ticks.notes == []


def test_a_ratio_of_one_says_that_the_fall_is_true() -> None:
    ticks = Ticks(*COMPARING)
    ticks.tick(*past(100.0))
    ticks.tick(bars_of(EX_DATE, [50.0] * 5))
    fired = ticks.tick(splits=[split(1.0)])
    assert "gap_5pct|AAPL|2025-07-29T13:30:00Z" in fired
    assert ticks.outbox["gap_5pct|AAPL|2025-07-29T13:30:00Z"].value == -50.0
    elsewhere = Ticks(*COMPARING)
    elsewhere.tick(*past(100.0), splits=[split(1.0, EVE), split(1.0, NEXT)])
    assert elsewhere.tick(bars_of(EX_DATE, [50.0]), splits=[split(1.0, EVE), split(1.0, NEXT)]) == [
        "unknown_split|AAPL|2025-07-29T13:30:00Z"
    ], "it says so of its own day only"


def test_a_known_split_is_not_suspected_and_a_wrong_ratio_is() -> None:
    for known, expected in ((10.0, []), (5.0, ["unknown_split|AAPL|2025-07-29T13:30:00Z"])):
        ticks = Ticks(*COMPARING)
        ticks.tick(*past(2000.0))
        assert ticks.tick(bars_of(EX_DATE, [200.0] * 3), splits=[split(known)]) == expected
        assert ticks.tick(bars_of(EX_DATE, [200.0] * 4), splits=[split(10.0)]) == [], "corrected"


def test_prices_that_are_not_adjusted_compare_as_they_are() -> None:
    bars = [bars_of(EVE, [1000.0]), bars_of(EX_DATE, [100.0])]
    events = backtested(RuleBook.of(COMPARING), bars, traded(EX_DATE).closes, None)
    assert [(event.rule.id, event.value) for event in events] == [("gap_5pct", -90.0), ("level", 100.0)]


def level_rule(level: float, **values: object) -> LevelRule:
    return LevelRule.model_validate({"id": "level", "kind": "level", "level": level, **values})


def test_a_level_follows_the_splits_since_its_day() -> None:
    """1,300 dollars of the day before a 10-for-1 split are 130 after it, and 1,300 of an ex-date stay."""
    for as_of, fired in ((EVE, True), (EX_DATE, False), (None, False)):
        sessions = [*past(1290.0), bars_of(EX_DATE, [129.0, 130.5])]
        rule = level_rule(1300.0, as_of=as_of)
        events = backtested(RuleBook.of([rule]), sessions, traded(EX_DATE).closes, {"AAPL": [split(10.0)]})
        assert bool(events) == fired
        for event in events:
            assert (event.value, event.reference) == (130.5, 130.0)
            text = "AAPL rose to 130.50, through 130.00 (1,300.00 in the shares of 2025-07-28)"
            assert describe(event) == text


def test_a_level_follows_a_split_that_is_learned_late() -> None:
    ticks = Ticks(level_rule(128.1, as_of=EVE, direction="up"))
    ticks.tick(*past(127.0))
    assert ticks.tick(bars_of(EX_DATE, [99.0, 101.0])) == []
    assert ticks.tick(splits=[split(1.281)]) == ["level|AAPL|2025-07-29T13:35:00Z"]


def test_a_level_without_a_day_is_reported_once_per_split_since_it_was_first_evaluated() -> None:
    ticks = Ticks(level_rule(1300.0), level_rule(1200.0, id="dated", as_of=EVE))
    ticks.tick(*past(1000.0), splits=[split(2.0, days(15)[0].session_date)])
    assert ticks.notes == [], "a split before it was first evaluated"
    ticks.tick(bars_of(EX_DATE, [100.0]), splits=[split(10.0)])
    [note] = ticks.notes
    assert note == (
        "rule level has had the level 1300 since 2025-07-28, and AAPL had a 10-for-1 split on 2025-07-29. The level "
        "stays 1300 dollars a new share. If it means old shares, write as_of = 2025-07-28 in the rule: it is then 130 "
        "and follows later splits. If it means new shares, write as_of = 2025-07-29"
    )
    for bars in (2, 3):
        ticks.tick(bars_of(EX_DATE, [100.0] * bars), splits=[split(10.0)])
        assert ticks.notes == []
    ticks.tick(bars_of(NEXT, [100.0]), splits=[split(10.0), split(1.281, NEXT)])
    assert ["had a 1.281-for-1 split on 2025-07-30" in note for note in ticks.notes] == [True]
