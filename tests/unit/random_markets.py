"""Random markets and rules for the tests of backtests: gaps, half days, splits, ties, and every kind of rule."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from random import Random
from typing import Any

from alert_bars import days

from barflow.alerts.condition_values import COLUMNS, FUNCTIONS, NAMES
from barflow.alerts.rules import RuleBook
from barflow.alerts.rules_file import parse_rules
from barflow.market.actions import Split
from barflow.market.bars import Bar, SessionBars
from barflow.market.sessions import Session

KNOWN_FROM = datetime(2025, 1, 1, tzinfo=UTC)
# Half days are 3 July and 29 November: the sessions up to 30 July 2025 have one of them.
SESSIONS = 26
COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")


def random_market(random: Random, symbols: int = 2) -> tuple[list[SessionBars], dict[str, list[Split]]]:
    """Return the sessions of some symbols, and the splits that are known: some of those that happened."""
    sessions, splits = [], {}
    for symbol in [f"S{number}" for number in range(symbols)]:
        count = random.choice((1, 2, 5, 12, SESSIONS))
        chosen = [traded for traded in days(SESSIONS)[-count:] if random.random() > 0.08] or days(1)
        price, step = random.uniform(20, 200), random.choice((0.0, 0.002, 0.01, 0.03))
        tick, keep = random.choice((0.01, 0.5)), random.choice((1.0, 0.97, 0.5, 0.05))
        for traded in chosen:
            if random.random() < 0.07:
                ratio = random.choice((2.0, 10.0, 0.25, 1.0, 1.281))
                price /= ratio
                if random.random() < 0.7:
                    known = Split(symbol, traded.session_date, ratio, "file", KNOWN_FROM)
                    splits.setdefault(symbol, []).append(known)
            price *= 1 + random.choice((0.0, 0.0, random.gauss(0, 0.06)))
            session, price = _session(random, symbol, traded, price, (step, tick, keep))
            sessions.append(session)
    return sessions, splits


def _session(
    random: Random, symbol: str, traded: Session, price: float, shape: tuple[float, float, float]
) -> tuple[SessionBars, float]:
    step, tick, keep = shape
    slots = [slot for slot in traded.slots if random.random() < keep] or [random.choice(traded.slots)]
    if random.random() < 0.1:
        slots = slots[random.randrange(len(slots)) :]
    bars = []
    for slot in slots:
        close = max(price * (1 + random.gauss(0, step)), tick)
        open_, high, low, close = (
            max(tick, round(value / tick) * tick)
            for value in (price, max(price, close) * 1.001, min(price, close) / 1.001, close)
        )
        volume = random.choice((0, 1000, random.randrange(1, 9000)))
        bars.append(Bar(slot, open_, max(high, open_, close), min(low, open_, close), close, volume))
        price = close
    return SessionBars.of(symbol, traded.session_date, bars), price


def random_book(random: Random, rules: int = 8) -> RuleBook:
    """Return rules of the kinds and as many expressions."""
    made = [_kind(random) for _ in range(rules)] + [{"when": condition(random, 2)} for _ in range(rules)]
    cool_down = (0, 30, 60, 2000)
    return parse_rules(
        {
            "rule": [
                {"id": f"r{number:02}", "cool_down_minutes": random.choice(cool_down), **values}
                for number, values in enumerate(made)
            ]
        }
    )


def _kind(random: Random) -> dict[str, Any]:
    n, direction = random.choice((2, 3, 8, 20)), {"direction": random.choice(("up", "down", "both"))}
    kinds: list[Callable[[], dict[str, Any]]] = [
        lambda: {"kind": "level", "level": random.choice((25.0, 60.0, 100.0, 150.0)), **direction},
        lambda: {"kind": "level", "level": 90.0, "as_of": random.choice(days(SESSIONS)).session_date, **direction},
        lambda: {"kind": "move", "percent": random.choice((0.2, 1.0, 3.0)), "minutes": 5 * n, **direction},
        lambda: {"kind": "gap", "percent": random.choice((0.5, 3.0, 6.0)), **direction},
        lambda: {"kind": "split"},
        lambda: {"kind": "volume", "times": random.choice((1.5, 3.0)), "sessions": n},
        lambda: {"kind": "average", "sessions": n, **direction},
        lambda: {"kind": "average", "bars": random.choice((2, 20, 60)), **direction},
        lambda: {"kind": "extreme", "sessions": n, **direction},
        lambda: {"kind": "silence", "minutes": random.choice((5, 20, 60, 390))},
    ]
    return random.choice(kinds)()


def condition(random: Random, depth: int) -> str:
    """Return a random condition in CEL."""
    if depth == 0 or random.random() < 0.3:
        if random.random() < 0.35:
            return f"{random.choice(('crosses_above', 'crosses_below'))}({value(random)}, {_operand(random)})"
        return f"{value(random)} {random.choice(COMPARISONS[:4])} {_operand(random)}"
    shape = random.randrange(6)
    if shape == 0:
        return f"!({condition(random, depth - 1)})"
    if shape == 1:
        yes, no = condition(random, depth - 1), condition(random, depth - 1)
        return f"({condition(random, 0)} ? {yes} : {no})"
    if shape == 2:
        return f"({condition(random, 0)}) == ({condition(random, depth - 1)})"
    if shape == 3:
        left = f"{value(random)} {random.choice('+-*/')} {number(random, depth - 1)}"
        return f"{left} {random.choice(COMPARISONS)} {number(random, depth - 1)}"
    return f"({condition(random, depth - 1)}) {random.choice(('&&', '||'))} ({condition(random, depth - 1)})"


def number(random: Random, depth: int) -> str:
    """Return a random number in CEL."""
    if depth <= 0 or random.random() < 0.4:
        return _operand(random)
    shape = random.randrange(6)
    if shape == 0:
        return f"(-{number(random, depth - 1)})"
    if shape == 1:
        return f"({condition(random, 0)} ? {number(random, 0)} : {number(random, depth - 1)})"
    return f"({number(random, depth - 1)} {random.choice('+-*/')} {number(random, 0)})"


def _operand(random: Random) -> str:
    return value(random) if random.random() < 0.6 else repr(random.choice((0.0, 0.5, 1.0, 3.0, 50.0, 100.0, -2.0)))


def value(random: Random) -> str:
    """Return a random value of a bar."""
    name = random.choice((*NAMES, *FUNCTIONS, "earlier", "close", "sma"))
    if name == "earlier":
        return f"earlier({random.choice((1, 3, 50))}).{random.choice(COLUMNS)}"
    if name in NAMES:
        return name
    return f"{name}({10 if name in ('rise_pct', 'fall_pct') else random.choice((2, 3, 5, 14))})"
