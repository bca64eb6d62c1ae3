"""The screen: where in a share's bars a rule may fire. The live code then evaluates only these places.

It never leaves out a place at which the live code would fire. What it does not know, it lets through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from barflow.alerts.condition_values import Operation, Tree, Value
from barflow.alerts.rules import (
    AverageRule,
    ExpressionRule,
    ExtremeRule,
    GapRule,
    LevelRule,
    MoveRule,
    Rule,
    SplitRule,
    VolumeRule,
)
from barflow.backtest.columns import Column, Columns
from barflow.backtest.ranges import (
    Bools,
    Range,
    Truth,
    above,
    add,
    at_most,
    below,
    choose,
    divide,
    equal,
    less,
    multiply,
    negative,
    subtract,
)
from barflow.backtest.series import Places, Series

CLOSE = Value("close")
UP, DOWN = "up", "down"
ARITHMETIC: Mapping[str, Callable[[Range, Range], Range]] = {
    "+": add,
    "-": subtract,
    "*": multiply,
    "/": divide,
}
COMPARISONS: Mapping[str, Callable[[Range, Range], Truth]] = {
    "<": less,
    "<=": at_most,
    ">": lambda a, b: less(b, a),
    ">=": lambda a, b: at_most(b, a),
    "==": equal,
    "!=": lambda a, b: ~equal(a, b),
}
Sides = Iterator[tuple[str, Truth]]


class _UnknownError(Exception):
    """A value that the screen does not compute."""


class Screen:
    """The screen of one share. ``unknown_splits`` are the sessions that the live code compares with no earlier one."""

    def __init__(self, series: Series, unknown_splits: Bools) -> None:
        self.columns = Columns(series)
        self._numbers: dict[float, Column] = {}
        self._crossings: dict[Value, tuple[Truth, Bools]] = {}
        self._all = np.ones(len(series), np.bool_)
        self._everything = unknown_splits[self.columns.row]

    def places(self, rule: Rule) -> Places:
        """Return the bars at which a rule may fire: it may hold there, and may not have held at the bar before."""
        found = self._everything.copy()
        try:
            with np.errstate(all="ignore"):
                for direction, truth in SCREENS[type(rule)](self, rule):
                    if getattr(rule, "direction", "both") in ("both", direction):
                        found |= truth.may & ~self._held(truth)
        except _UnknownError:
            found = self._all
        return np.flatnonzero(found)

    def _held(self, truth: Truth) -> Bools:
        """Return where something must have held at the session's bar before."""
        held = np.roll(truth.must, 1)
        held[self.columns.start] = False
        return held

    def condition(self, rule: ExpressionRule) -> Truth:
        """Return whether a condition holds. Where a value is not known, it does not."""
        known, walk = self._all.copy(), _Walk(self)
        for value in rule.condition.values:
            known &= self.known(value)
        truth = walk.truth(rule.condition.tree)
        return Truth((truth.may | walk.wild) & known, truth.must & ~walk.wild & known)

    def known(self, value: Value) -> Bools:
        """Return where a value is known."""
        if value.compared:
            return self.crossing(value)[1]
        return self.column(value).known

    def column(self, value: Value | float) -> Column:
        """Return the column of a value or a number."""
        if isinstance(value, float):
            if value not in self._numbers:
                self._numbers[value] = self.columns.number(value)
            return self._numbers[value]
        found = self.columns.value(value)
        if found is None:
            raise _UnknownError
        return found

    def crossing(self, value: Value) -> tuple[Truth, Bools]:
        """Return whether one value crosses another one, and where that is known."""
        if value not in self._crossings:
            one, other = (self.column(each) for each in value.compared)
            self._crossings[value] = self.crosses(one, other, UP if value.name == "crosses_above" else DOWN)
        return self._crossings[value]

    def crosses(self, one: Column, other: Column, direction: str) -> tuple[Truth, Bools]:
        """Return whether one column crosses another one, and where that is known."""
        (one_before, one_known), (other_before, other_known) = map(self.columns.before, (one, other))
        came = below if direction == UP else above
        truth = came(one_before, other_before) & ~came(one.here, other.here)
        known = one.known & other.known & one_known & other_known
        return Truth(truth.may & known, truth.must & known), known

    def both_crossings(self, other: Column) -> Sides:
        """Yield where the close crosses a column, by direction."""
        for direction in (UP, DOWN):
            yield direction, self.crosses(self.column(CLOSE), other, direction)[0]

    def beyond(self, column: Column, least: float, *, strictly: bool = False) -> Truth:
        """Return where a column is known and at least, or more than, a number."""
        limit = self.column(least).here
        truth = less(limit, column.here) if strictly else at_most(limit, column.here)
        return Truth(truth.may & column.known, truth.must & column.known)


class _Walk:
    """Walks the tree of a condition. ``wild`` says where a number may be infinite or undefined."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.wild = np.zeros(len(screen.columns.series), np.bool_)

    def truth(self, tree: Tree) -> Truth:
        """Return whether a part that is a condition holds."""
        if isinstance(tree, Value):
            return self.screen.crossing(tree)[0]
        assert isinstance(tree, Operation), "a number is no condition"
        sign, parts = tree
        if sign == "!":
            return ~self.truth(parts[0])
        if sign == "?":
            condition, yes, no = map(self.truth, parts)
            return (condition & yes) | (~condition & no)
        if sign in ("&&", "||"):
            one, other = map(self.truth, parts)
            return one & other if sign == "&&" else one | other
        if self._is_condition(parts[0]):
            one, other = map(self.truth, parts)
            same = (one & other) | (~one & ~other)
            return same if sign == "==" else ~same
        left, right = map(self.number, parts)
        return COMPARISONS[sign](left, right)

    def number(self, tree: Tree) -> Range:
        """Return the numbers of a part."""
        if not isinstance(tree, Operation):
            return self.screen.column(tree).here
        sign, parts = tree
        if sign == "?":
            found = choose(self.truth(parts[0]), self.number(parts[1]), self.number(parts[2]))
        elif len(parts) == 1:
            found = negative(self.number(parts[0]))
        else:
            found = ARITHMETIC[sign](self.number(parts[0]), self.number(parts[1]))
        self.wild |= found.wild
        return found

    def _is_condition(self, tree: Tree) -> bool:
        if isinstance(tree, Operation):
            return tree.sign in ("!", "&&", "||", *COMPARISONS) or (
                tree.sign == "?" and self._is_condition(tree.parts[1])
            )
        return isinstance(tree, Value) and bool(tree.compared)


def _level(screen: Screen, rule: LevelRule) -> Sides:
    yield from screen.both_crossings(screen.columns.level(rule))


def _move(screen: Screen, rule: MoveRule) -> Sides:
    yield UP, screen.beyond(screen.column(Value("rise_pct", rule.minutes)), rule.percent)
    yield DOWN, screen.beyond(screen.column(Value("fall_pct", rule.minutes)), rule.percent)


def _gap(screen: Screen, rule: GapRule) -> Sides:
    column, opens = screen.column(Value("gap_pct")), screen.columns.place == 0
    fall = column._replace(here=negative(column.here))
    for direction, each in ((UP, column), (DOWN, fall)):
        yield direction, screen.beyond(each._replace(known=each.known & opens), rule.percent)


def _split(screen: Screen, rule: SplitRule) -> Sides:
    yield from ()


def _volume(screen: Screen, rule: VolumeRule) -> Sides:
    yield UP, screen.beyond(screen.column(Value("volume_times", rule.sessions)), rule.times, strictly=True)


def _average(screen: Screen, rule: AverageRule) -> Sides:
    if rule.bars is None:
        yield from screen.both_crossings(screen.column(Value("daily_sma", rule.sessions or 0)))
        return
    average = screen.column(Value("sma", rule.bars))
    # Where sessions have so few bars that the average reaches over more of them, the live code must look.
    sparse = (screen.columns.place + screen.columns.start[screen.columns.row] + 1 >= rule.bars) & ~(
        average.known & screen.columns.before(average)[1]
    )
    for direction, truth in screen.both_crossings(average):
        yield direction, Truth(truth.may | sparse, truth.must & ~sparse)


def _extreme(screen: Screen, rule: ExtremeRule) -> Sides:
    for direction, beyond, name in ((UP, above, "high"), (DOWN, below, "low")):
        past = screen.column(Value(f"daily_{name}est", rule.sessions))
        truth = beyond(screen.column(Value(f"session_{name}")).here, past.here)
        yield direction, Truth(truth.may & past.known, truth.must & past.known)


def _expression(screen: Screen, rule: ExpressionRule) -> Sides:
    yield UP, screen.condition(rule)


SCREENS: Mapping[type[Any], Callable[[Screen, Any], Sides]] = {
    LevelRule: _level,
    MoveRule: _move,
    GapRule: _gap,
    SplitRule: _split,
    VolumeRule: _volume,
    AverageRule: _average,
    ExtremeRule: _extreme,
    ExpressionRule: _expression,
}
