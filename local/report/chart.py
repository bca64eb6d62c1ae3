"""The geometry of a candlestick chart: hourly bars in, SVG paths and labels out. Pure.

Sessions follow each other without nights and weekends. A missing bar leaves its slot empty. Paths use the units of a
view box, which the page stretches to any width. Labels use percent of the chart, so that their text is not stretched.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from barflow.market.actions import Factors, Split
from barflow.market.sessions import Session, sessions_between

HOUR = timedelta(hours=1)
SIDES = ("up", "down")
PITCH, HALF_BODY = 10, 3  # a slot's width, and half a candle's
PRICE_HEIGHT, VOLUME_HEIGHT = 1000, 200  # units of the two view boxes
PRICE_SHARE, VOLUME_SHARE = 76, 18  # percent of the chart; the rest is space between them
LEAST_SLOTS = 40  # keeps the candles of a short history narrow
MANY_SESSIONS = 25  # above this, there is no room for a line and a label per day
LEFT_FROM = 70  # from here on, in percent of the width, a marker has its label on its left
PHONE_LABEL, WIDE_LABEL, DAY_LABEL = 14.0, 5.0, 2.4  # width of a label, in percent of the chart

Where = Literal["everywhere", "wide"]


@dataclass(frozen=True)
class Candle:
    """One hourly bar: ``bar_start`` in UTC, prices in dollars, volume in shares, counts in 5-minute bars."""

    symbol: str
    bar_start: datetime
    session_date: date
    open: float
    high: float
    low: float
    close: float
    volume: int
    bar_count: int
    expected_bars: int

    @property
    def side(self) -> str:
        """Return ``up`` when the bar closed at or above its open, else ``down``."""
        return "up" if self.close >= self.open else "down"


def adjusted(candles: Iterable[Candle], factors: Factors) -> list[Candle]:
    """Return the bars of one symbol with adjusted prices and volumes, in whole shares."""
    found = []
    for bar in candles:
        factor = factors.at(bar.session_date)
        prices = {name: getattr(bar, name) * factor.price for name in ("open", "high", "low", "close")}
        found.append(replace(bar, **prices, volume=round(bar.volume * factor.volume)))
    return found


class Tick(NamedTuple):
    """A price on the axis. ``y`` is in percent of the chart's height."""

    y: float
    label: str


class DateLabel(NamedTuple):
    """A session's label. ``x`` is in percent of the chart's width; ``where`` is the screens that show it."""

    x: float
    label: str
    where: Where


class Marker(NamedTuple):
    """A split. ``x`` is the open of its ex-date, in percent of the chart's width; ``side`` has room for the label."""

    x: float
    label: str
    side: Literal["left", "right"]


@dataclass(frozen=True)
class Chart:
    """What the page draws. ``bars`` holds the columns that it reads out under the pointer."""

    width: int
    slots: int
    sessions: int
    decimals: int
    candles: dict[str, list[str]]
    volumes: dict[str, str]
    price_ticks: list[Tick]
    last: Tick
    separators: list[float]
    labels: list[DateLabel]
    splits: list[Marker]
    most_volume: int
    description: str
    spark: str
    bars: dict[str, Any]


class Scale(NamedTuple):
    """The prices (dollars) at the bottom and at the top of the chart's price part."""

    low: float
    high: float

    @classmethod
    def of(cls, candles: Sequence[Candle]) -> Scale:
        """Return the scale from the lowest to the highest price, with a margin."""
        low, high = min(candle.low for candle in candles), max(candle.high for candle in candles)
        margin = (high - low) * 0.04 or high * 0.01
        return cls(low - margin, high + margin)

    def down(self, price: float, height: float) -> float:
        """Return a price's distance from the top, in units of ``height``."""
        return (self.high - price) / (self.high - self.low) * height


def draw(candles: Sequence[Candle], splits: Sequence[Split] = ()) -> Chart:
    """Return the chart of one symbol's hourly bars, at least one, oldest first, with a marker for each split."""
    sessions = sessions_between(candles[0].session_date, candles[-1].session_date)
    slots, starts, count = _slots(candles, sessions)
    scale = Scale.of(candles)
    decimals = 2 if min(candle.low for candle in candles) >= 1 else 4

    def tick(price: float, places: int) -> Tick:
        return Tick(round(scale.down(price, PRICE_SHARE), 2), f"{price:,.{places}f}")

    return Chart(
        width=count * PITCH,
        slots=count,
        sessions=len({candle.session_date for candle in candles}),
        decimals=decimals,
        candles={
            side: [_candle(slot, bar, scale) for slot, bar in zip(slots, candles, strict=True) if bar.side == side]
            for side in SIDES
        },
        volumes=_volumes(slots, candles),
        price_ticks=[tick(price, places) for price, places in _round_prices(scale, decimals)],
        last=tick(candles[-1].close, decimals),
        separators=[x for x, _ in (starts if len(starts) <= MANY_SESSIONS else _weeks(starts))[1:]],
        labels=_date_labels(starts),
        splits=_markers(starts, splits),
        most_volume=max(candle.volume for candle in candles),
        description=_description(candles, decimals, splits),
        spark=_spark(candles),
        bars=_read_out(slots, candles, decimals),
    )


def _slots(candles: Sequence[Candle], sessions: Sequence[Session]) -> tuple[list[int], list[tuple[float, date]], int]:
    """Return each bar's slot, each session's start (percent of the width) and the number of slots.

    The slots run from the first bar to the last one. Earlier hours were not fetched, and later ones are in the future.
    """
    offsets: dict[date, int] = {}
    total = 0
    for found in sessions:
        offsets[found.session_date] = total
        total += math.ceil((found.closes - found.opens) / HOUR)
    opens = {found.session_date: found.opens for found in sessions}
    slots = [offsets[bar.session_date] + (bar.bar_start - opens[bar.session_date]) // HOUR for bar in candles]
    first, count = slots[0], max(LEAST_SLOTS, slots[-1] - slots[0] + 1)
    starts = [(round(max(0, offset - first) / count * 100, 2), day) for day, offset in offsets.items()]
    return [slot - first for slot in slots], starts, count


def _candle(slot: int, bar: Candle, scale: Scale) -> str:
    """Return the path of a candle: wick, body, wick. The body is a box, so that a hollow one shows no wick inside."""
    x = slot * PITCH + PITCH // 2
    high, top, bottom, low = (
        round(scale.down(price, PRICE_HEIGHT))
        for price in (bar.high, max(bar.open, bar.close), min(bar.open, bar.close), bar.low)
    )
    wicks = (f"M{x} {high}V{top}" if high < top else "") + (f"M{x} {bottom}V{low}" if low > bottom else "")
    return f"{wicks}M{x - HALF_BODY} {top}h{2 * HALF_BODY}v{bottom - top}h-{2 * HALF_BODY}z"


def _volumes(slots: Iterable[int], candles: Sequence[Candle]) -> dict[str, str]:
    most = max(candle.volume for candle in candles) or 1
    paths = dict.fromkeys(SIDES, "")
    for slot, candle in zip(slots, candles, strict=True):
        x, top = slot * PITCH + PITCH // 2 - HALF_BODY, VOLUME_HEIGHT - round(candle.volume / most * VOLUME_HEIGHT)
        paths[candle.side] += f"M{x} {VOLUME_HEIGHT}V{top}h{2 * HALF_BODY}V{VOLUME_HEIGHT}"
    return paths


def _round_prices(scale: Scale, decimals: int) -> Iterator[tuple[float, int]]:
    """Yield about five round prices and their decimals, in steps of 1, 2, 2.5 or 5 times a power of ten."""
    rough = (scale.high - scale.low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(times * power for times in (1, 2, 2.5, 5, 10) if times * power >= rough)
    shown = next((places for places in (0, *range(decimals, 6)) if round(step, places) == step), 6)
    for number in range(math.ceil(scale.low / step), math.floor(scale.high / step) + 1):
        yield number * step, shown


def _weeks(starts: Sequence[tuple[float, date]]) -> list[tuple[float, date]]:
    """Return the first session, and the first one of every later week."""
    turns = (now for before, now in pairwise(starts) if before[1].isocalendar()[:2] != now[1].isocalendar()[:2])
    return [starts[0], *turns]


def _date_labels(starts: Sequence[tuple[float, date]]) -> list[DateLabel]:
    """Place week labels that fit a phone, then those that fit a wide screen, then the days between them."""
    placed: dict[float, DateLabel] = {}

    def place(x: float, label: str, where: Where, room: float) -> None:
        left = PHONE_LABEL if where == "everywhere" else WIDE_LABEL
        if all(x - other >= left or other - x >= room for other in placed):
            placed[x] = DateLabel(x, label, where)

    for x, day in _weeks(starts):
        place(x, f"{day:%b} {day.day}", "everywhere", PHONE_LABEL)
    for x, day in _weeks(starts):
        place(x, f"{day:%b} {day.day}", "wide", WIDE_LABEL)
    for x, day in starts if len(starts) <= MANY_SESSIONS else ():
        place(x, str(day.day), "wide", DAY_LABEL)
    return [placed[x] for x in sorted(placed)]


def _markers(starts: Sequence[tuple[float, date]], splits: Iterable[Split]) -> list[Marker]:
    """Return the markers of the splits between the first and the last session."""
    found = []
    for split in splits:
        x = next((x for x, day in starts[1:] if day >= split.ex_date), None)
        if x is not None and starts[0][1] < split.ex_date:
            found.append(Marker(x, split.label, "left" if x > LEFT_FROM else "right"))
    return found


def _description(candles: Sequence[Candle], decimals: int, splits: Iterable[Split]) -> str:
    """Return the chart in sentences, for screen readers."""
    first, last = candles[0], candles[-1]
    lowest, highest = min(candle.low for candle in candles), max(candle.high for candle in candles)
    return (
        f"{len(candles)} hourly bars from {first.session_date} to {last.session_date}: opened at "
        f"{first.open:,.{decimals}f} dollars, went as low as {lowest:,.{decimals}f} and as high as "
        f"{highest:,.{decimals}f}, and closed at {last.close:,.{decimals}f}."
    ) + "".join(
        f" {item.label} on {item.ex_date}." for item in splits if first.session_date < item.ex_date <= last.session_date
    )


def _spark(candles: Sequence[Candle]) -> str:
    """Return the path of the sessions' closes in a view box of 100 × 100."""
    closes = list({candle.session_date: candle.close for candle in candles}.values())
    low, span = min(closes), (max(closes) - min(closes)) or 1.0
    step = 100 / max(1, len(closes) - 1)
    points = [f"{index * step:.4g} {100 - (close - low) / span * 100:.3g}" for index, close in enumerate(closes)]
    return "M" + "L".join(points)


def _read_out(slots: Sequence[int], candles: Sequence[Candle], decimals: int) -> dict[str, Any]:
    """Return the bars as columns: times, prices and volumes.

    Times are minutes: the first since the epoch, each other one since the previous bar. ``slots`` is there only when
    a slot is empty, ``short`` only when a bar has fewer 5-minute bars than expected.
    """
    minutes = [int(candle.bar_start.timestamp()) // 60 for candle in candles]
    columns: dict[str, Any] = {"t": [minutes[0], *(now - before for before, now in pairwise(minutes))]}
    for name in ("open", "high", "low", "close"):
        columns[name[0]] = [round(getattr(candle, name), decimals) for candle in candles]
    columns["v"] = [candle.volume for candle in candles]
    if slots[-1] != len(candles) - 1:
        columns["slots"] = list(slots)
    short = {
        n: f"{bar.bar_count} of {bar.expected_bars}"
        for n, bar in enumerate(candles)
        if bar.bar_count < bar.expected_bars
    }
    if short:
        columns["short"] = short
    return columns
