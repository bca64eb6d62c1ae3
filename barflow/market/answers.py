"""The contract of an answer: 5-minute bars of one US share or fund, in dollars, at the times it states.

Every number of another interval, currency or exchange looks like a valid bar. So an answer that contradicts the
contract is rejected whole, with a reason code of its own. A field that the vendor leaves out contradicts nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from barflow.market.bars import INTERVAL
from barflow.market.sessions import NEW_YORK, parse_slot
from barflow.symbol import same_symbol

WRONG_SYMBOL = "wrong_symbol"
WRONG_INTERVAL = "wrong_interval"
WRONG_CURRENCY = "wrong_currency"
WRONG_EXCHANGE = "wrong_exchange"
WRONG_TYPE = "wrong_type"
WRONG_TIME_ZONE = "wrong_time_zone"

# The codes with their meaning. Each applies to all bars of an answer.
ANSWER_REASONS = {
    WRONG_SYMBOL: "the answer is for another symbol than the requested one",
    WRONG_INTERVAL: f"the answer's interval is not {INTERVAL}",
    WRONG_CURRENCY: "the answer's prices are not in US dollars",
    WRONG_EXCHANGE: "the answer is from an exchange outside of the US",
    WRONG_TYPE: "the answer is not for a share or a fund",
    WRONG_TIME_ZONE: "the answer's times fit another time zone than the stated one",
}
CURRENCY = "USD"
US_ZONES = frozenset({NEW_YORK.key, "US/Eastern", "EST5EDT"})
# Market identifier codes (ISO 10383) of US exchanges and their segments. They decide where no time zone is given.
US_MICS = frozenset(
    (  # noqa: SIM905
        "XNAS XNGS XNMS XNCM XNIM XBOS XPHL XPSX XNYS ARCX XASE XCIS XCHI BATS BATY EDGA EDGX XCBO IEXG LTSE MEMX EPRL "
        "OTCM OTCB OTCQ PINX PINI PINL PINC PSGM EXPM"
    ).split()
)
NOT_SHARES = frozenset({"Digital Currency", "Physical Currency", "Index", "Commodity", "Precious Metal"})
# Times show their zone only in an answer that holds about an hour of bars.
MIN_TIMES = 12
# The share of times that fit another zone. A few odd rows hide nothing; bars of a longer day fit both to 40 percent.
MOST = 0.9


@dataclass(frozen=True)
class Contradiction:
    """One way in which an answer contradicts the contract: the reason code, and what was found as text."""

    reason: str
    message: str


def contradictions(symbol: str, meta: Mapping[str, Any]) -> list[Contradiction]:
    """Return how an answer's ``meta`` contradicts the contract for the requested symbol; nothing if it keeps it."""
    found = []

    def check(reason: str, value: Any, expected: str, kept: Callable[[str], bool], name: Any = None) -> None:
        if value not in (None, "") and not (isinstance(value, str) and kept(value)):
            shown = f"{name:.40} in {value!s:.40}" if isinstance(name, str) and name else f"{value!s:.40}"
            found.append(Contradiction(reason, f"{reason.removeprefix('wrong_')} {shown} instead of {expected}"))

    check(WRONG_SYMBOL, meta.get("symbol"), symbol, lambda value: same_symbol(symbol, value))
    check(WRONG_INTERVAL, meta.get("interval"), INTERVAL, lambda value: value == INTERVAL)
    check(WRONG_CURRENCY, meta.get("currency"), CURRENCY, lambda value: value == CURRENCY)
    zone = meta.get("exchange_timezone")
    if zone in (None, ""):
        check(WRONG_EXCHANGE, meta.get("mic_code"), "one in the US", lambda value: value in US_MICS)
    else:
        check(WRONG_EXCHANGE, zone, NEW_YORK.key, lambda value: value in US_ZONES, meta.get("exchange"))
    check(WRONG_TYPE, meta.get("type"), "a share or fund", lambda value: value not in NOT_SHARES)
    return found


def wrong_zone(times: Sequence[Any], stated: ZoneInfo) -> Contradiction | None:
    """Return the contradiction of naive times that fit another zone than the stated one, else None.

    ``times`` are texts as ``2025-07-02 09:30:00``. The zones are New York and UTC, in which Twelve Data writes them.
    They contradict the stated zone when nearly all of them are opens of a session's bars in the other one, and fewer
    than half are in the stated one.
    """
    naive = [moment for text in times if (moment := _naive(text))]
    if len(naive) < MIN_TIMES:
        return None
    other = NEW_YORK if stated.key == "UTC" else ZoneInfo("UTC")
    fitting, otherwise = (sum(_is_slot(moment, zone) for moment in naive) for zone in (stated, other))
    if 2 * fitting >= len(times) or otherwise < MOST * len(times):
        return None
    return Contradiction(
        WRONG_TIME_ZONE,
        f"only {fitting} of {len(times)} times are in a session as {stated.key}, which is stated, and {otherwise} as "
        f"{other.key}",
    )


def wrong_interval(times: Sequence[datetime]) -> Contradiction | None:
    """Return the contradiction of sorted times that show another interval than 5 minutes, else None.

    Most times of shorter bars are off the grid. Nearly all steps within a day are a multiple of a quarter of an hour
    where bars are longer; those of a share that trades rarely are not.
    """
    steps = [later - sooner for sooner, later in pairwise(times) if later.date() == sooner.date() and later > sooner]
    if len(steps) < MIN_TIMES:
        return None
    off_grid = sum(moment.minute % 5 != 0 or moment.second != 0 for moment in times)
    long = sum(step % timedelta(minutes=15) == timedelta() for step in steps)
    if 2 * off_grid > len(times):
        return Contradiction(WRONG_INTERVAL, f"{off_grid} of {len(times)} times are not on a five-minute mark")
    if long >= MOST * len(steps):
        return Contradiction(WRONG_INTERVAL, f"{long} of {len(steps)} steps between bars are 15 minutes or longer")
    return None


def _naive(text: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo is None else None


def _is_slot(moment: datetime, zone: ZoneInfo) -> bool:
    return parse_slot(f"{moment.replace(tzinfo=zone).astimezone(UTC):%Y-%m-%d %H:%M:%S}") is not None
