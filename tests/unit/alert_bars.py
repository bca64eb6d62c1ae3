"""Sessions for the tests of alerts, and a reference implementation of each rule.

``reference_alerts`` is the oracle. It is simple and slow: whole lists of bars, exact fractions, no stored state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from fractions import Fraction
from types import MappingProxyType

from barflow.alerts.evaluate import Event
from barflow.alerts.rules import (
    AverageRule,
    ExtremeRule,
    GapRule,
    LevelRule,
    MoveRule,
    Rule,
    RuleBook,
    SilenceRule,
    VolumeRule,
)
from barflow.backtest.run import run
from barflow.backtest.sources import Splits, from_sessions
from barflow.market.bars import Bar, SessionBars
from barflow.market.sessions import BAR, Session, last_sessions, previous_session, session

FIVE = timedelta(minutes=5)
NEWEST_DAY = date(2025, 7, 30)


def days(count: int) -> list[Session]:
    """Return the last ``count`` sessions up to 30 July 2025, oldest first."""
    return last_sessions(datetime.fromisoformat("2025-07-30T20:00:00+00:00"), count)


def traded(day: date) -> Session:
    found = session(day)
    assert found is not None
    return found


def backtested(
    book: RuleBook,
    sessions: Sequence[SessionBars],
    until: datetime,
    splits: Splits = MappingProxyType({}),
    *,
    screened: bool = True,
) -> list[Event]:
    """Return what the rules would have fired if each session had been evaluated at its close."""
    return run(book, from_sessions(sessions, splits), until, screened=screened).events if sessions else []


def bars_of(
    day: date, closes: Mapping[int, float] | Sequence[float], symbol: str = "AAPL", **columns: object
) -> SessionBars:
    """Return a session with these closes, by slot or from its open on.

    A bar opens at the close before it, the first one at its own close. ``columns`` are ``open``, ``high``, ``low`` and
    ``volume`` by slot.
    """
    by_slot = dict(closes) if isinstance(closes, Mapping) else dict(enumerate(closes))
    given: dict[str, dict[int, float]] = {name: dict(values) for name, values in columns.items()}  # type: ignore[call-overload]
    bars, before = [], by_slot[min(by_slot)]
    for slot, close in sorted(by_slot.items()):
        open_ = given.get("open", {}).get(slot, before)
        high = max(given.get("high", {}).get(slot, close), open_, close)
        low = min(given.get("low", {}).get(slot, close), open_, close)
        volume = int(given.get("volume", {}).get(slot, 1000))
        bars.append(Bar(traded(day).opens + slot * BAR, open_, high, low, close, volume))
        before = close
    return SessionBars.of(symbol, day, bars)


Fired = tuple[datetime, str | None, float]
Held = dict[str, Fraction]


def reference_alerts(rule: Rule, sessions: Sequence[SessionBars], until: date) -> list[Fired]:
    """Return every alert of one symbol's sessions, each evaluated after its close: bar, side and value."""
    by_day = {item.session_date: item.bars() for item in sessions}
    fired: list[Fired] = []
    first = min(by_day)
    for item in (traded(day) for day in calendar(first, until)):
        for found in _of_session(rule, by_day, item):
            last = fired[-1][0] if fired else None
            if last is None or found[0] - last >= max(
                timedelta(minutes=rule.cool_down_minutes), timedelta(microseconds=1)
            ):
                fired.append(found)
    return fired


def calendar(first: date, last: date) -> Iterator[date]:
    day = first
    while day <= last:
        if session(day):
            yield day
        day += timedelta(days=1)


def _of_session(rule: Rule, by_day: Mapping[date, list[Bar]], item: Session) -> Iterator[Fired]:
    bars = by_day.get(item.session_date, [])
    past = [by_day[day] for day in sorted(by_day) if day < item.session_date]
    if isinstance(rule, SilenceRule):
        yield from _silences(rule, bars, bool(past), item)
        return
    for at, bar in enumerate(bars):
        now = HOLDS[type(rule)](rule, bars, at, past, item)
        before = HOLDS[type(rule)](rule, bars, at - 1, past, item) if at else {}
        for side, value in now.items():
            if side not in before and getattr(rule, "direction", "both") in ("both", side):
                yield bar.ts, side, float(value)


def _silences(rule: SilenceRule, bars: list[Bar], known: bool, item: Session) -> Iterator[Fired]:
    ends = [bar.ts + FIVE for bar in bars]
    starts = [bar.ts for bar in bars]
    gaps = list(zip([item.opens, *ends], [*starts, item.closes], strict=True))
    for place, (since, until) in enumerate(gaps):
        minutes = int((until - since).total_seconds()) // 60
        if minutes >= rule.minutes and (known or place):
            yield since, None, minutes


def exact(value: float) -> Fraction:
    return Fraction(str(value))


def change(price: float, reference: float) -> Fraction:
    return (exact(price) / exact(reference) - 1) * 100


def crossing(before: Fraction, now: Fraction, value: float) -> Held:
    return ({"up": exact(value)} if before < 0 <= now else {}) | ({"down": exact(value)} if before > 0 >= now else {})


def _level(rule: LevelRule, bars: list[Bar], at: int, past: list[list[Bar]], item: Session) -> Held:
    flat = [bar for each in past for bar in each] + bars[: at + 1]
    if len(flat) < 2:
        return {}
    level = exact(rule.level)
    return crossing(exact(flat[-2].close) - level, exact(flat[-1].close) - level, flat[-1].close)


def _move(rule: MoveRule, bars: list[Bar], at: int, past: list[list[Bar]], item: Session) -> Held:
    since = bars[at].ts + FIVE - timedelta(minutes=rule.minutes)
    known = [(bars[0].ts, bars[0].open), *((bar.ts + FIVE, bar.close) for bar in bars[:at])]
    changes = [change(bars[at].close, price) for moment, price in known if moment >= since]
    return {side: value for side, value in _sides(changes).items() if abs(value) >= exact(rule.percent)}


def _sides(changes: list[Fraction]) -> Held:
    return ({"up": max(changes)} if changes and max(changes) > 0 else {}) | (
        {"down": min(changes)} if changes and min(changes) < 0 else {}
    )


def _gap(rule: GapRule, bars: list[Bar], at: int, past: list[list[Bar]], item: Session) -> Held:
    night = previous_session(item.session_date)
    if at or not past or night is None or past[-1][0].ts < night.opens:
        return {}
    value = change(bars[0].open, past[-1][-1].close)
    return {side: found for side, found in _sides([value]).items() if abs(found) >= exact(rule.percent)}


def _volume(rule: VolumeRule, bars: list[Bar], at: int, past: list[list[Bar]], item: Session) -> Held:
    clock = bars[at].ts.time()
    usual = [bar.volume for each in past[-rule.sessions :] for bar in each if bar.ts.time() == clock]
    if len(usual) * 2 < rule.sessions or not sum(usual):
        return {}
    times = Fraction(bars[at].volume) / Fraction(sum(usual), len(usual))
    return {"up": times} if times > exact(rule.times) else {}


def _average(rule: AverageRule, bars: list[Bar], at: int, past: list[list[Bar]], item: Session) -> Held:
    def apart(place: int) -> Fraction | None:
        if rule.bars:
            closes = [bar.close for each in past for bar in each] + [bar.close for bar in bars[: place + 1]]
        else:
            closes = [each[-1].close for each in past] + ([bars[place].close] if place >= 0 else [])
        window = [exact(close) for close in closes[-(rule.bars or rule.sessions or 0) :]]
        return window[-1] - sum(window) / len(window) if len(window) == (rule.bars or rule.sessions) else None

    before, now = apart(at - 1), apart(at)
    return {} if before is None or now is None else crossing(before, now, bars[at].close)


def _extreme(rule: ExtremeRule, bars: list[Bar], at: int, past: list[list[Bar]], item: Session) -> Held:
    window = past[-rule.sessions :]
    if len(window) < rule.sessions:
        return {}
    high, low = max(bar.high for each in window for bar in each), min(bar.low for each in window for bar in each)
    highest, lowest = max(bar.high for bar in bars[: at + 1]), min(bar.low for bar in bars[: at + 1])
    return ({"up": exact(highest)} if highest > high else {}) | ({"down": exact(lowest)} if lowest < low else {})


HOLDS: dict[type, Callable[..., Held]] = {
    LevelRule: _level,
    MoveRule: _move,
    GapRule: _gap,
    VolumeRule: _volume,
    AverageRule: _average,
    ExtremeRule: _extreme,
}
