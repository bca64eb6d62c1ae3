"""The thresholds of a rule, and the rules with one of them moved: how sensitive a count of alerts is.

A threshold is the ``percent``, ``times`` or ``level`` of a rule. In a condition it is each number that is compared
alone, such as 30.0 in ``rsi(14) < 30.0``. A number within a calculation is none, nor is 0, which no percentage moves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from barflow.alerts.condition_values import CROSSINGS
from barflow.alerts.expressions import TOKEN, condition
from barflow.alerts.rules import ExpressionRule, Rule, RuleBook

# By how many percent each threshold moves.
MOVES = (-20, -10, 10, 20)
FIELDS = ("percent", "times", "level")
COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
BEFORE = ("", "&&", "||", "(", "?", ":", ",")
AFTER = ("", "&&", "||", ")", "?", ":", ",")


class Threshold(NamedTuple):
    """A threshold: ``name`` shows where it is (``percent``, or the comparison as it is written)."""

    name: str
    value: float


@dataclass(frozen=True)
class Sensitivity:
    """How many alerts a rule has with one threshold moved: ``counts`` is by the percentage, such as ``-20``."""

    threshold: str
    value: float
    counts: dict[str, int]


class _Number(NamedTuple):
    """A number of a condition that is a threshold, and its place in the text."""

    start: int
    end: int
    value: float
    name: str


def thresholds(rule: Rule) -> list[Threshold]:
    """Return the thresholds of a rule, in order."""
    if isinstance(rule, ExpressionRule):
        return [Threshold(found.name, found.value) for found in _numbers(rule.when)]
    return [Threshold(name, float(getattr(rule, name))) for name in FIELDS if hasattr(rule, name)]


def moved(rule: Rule, place: int, percent: int) -> Rule | None:
    """Return the rule with the threshold at a place moved by a percentage, or None if it has no such threshold."""
    factor = 1 + percent / 100
    found = thresholds(rule)
    if place >= len(found):
        return None
    if not isinstance(rule, ExpressionRule):
        return rule.model_copy(update={found[place].name: found[place].value * factor})
    number = _numbers(rule.when)[place]
    text = f"{abs(number.value) * factor:.10g}"
    text += "" if re.search(r"[.e]", text) else ".0"
    when = rule.when[: number.start] + text + rule.when[number.end :]
    try:
        condition(when)
    except ValueError:  # the text is too long now
        return None
    return rule.model_copy(update={"when": when})


class Variants:
    """A rule book that holds only rules with a moved threshold, for one run over the same bars."""

    def __init__(self, book: RuleBook) -> None:
        self._of = {
            f"{rule.id}/{place}/{percent}": (rule.id, place, percent)
            for rule in book.all
            for place in range(len(thresholds(rule)))
            for percent in MOVES
        }
        self._thresholds = {rule.id: thresholds(rule) for rule in book.all}
        self.book = book.replaced(self._variants)

    def __bool__(self) -> bool:
        return bool(self._of)

    def _variants(self, rule: Rule) -> Iterator[Rule]:
        """Yield the variants of a rule, also of a symbol that has its own values."""
        for name, (rule_id, place, percent) in self._of.items():
            if rule_id == rule.id and (variant := moved(rule, place, percent)):
                yield variant.model_copy(update={"id": name})

    def sensitivity(self, counts: Mapping[str, int]) -> dict[str, Sequence[Sensitivity]]:
        """Return the sensitivity of each rule, from the number of alerts of each variant."""
        return {
            rule_id: [
                Sensitivity(
                    item.name,
                    item.value,
                    {f"{percent:+d}": counts.get(f"{rule_id}/{place}/{percent}", 0) for percent in MOVES},
                )
                for place, item in enumerate(found)
            ]
            for rule_id, found in self._thresholds.items()
        }


def _numbers(when: str) -> list[_Number]:
    """Return the thresholds of a condition, in the order of the text."""
    tokens = [(match.lastgroup, match[match.lastgroup or 0], match.start()) for match in _tokens(when)]
    texts = ["", *(text for _, text, _ in tokens), ""]
    found = []
    for place, (kind, text, start) in enumerate(tokens, 1):
        if kind not in ("number", "whole") or not float(text):
            continue
        negative = texts[place - 1] == "-" and texts[place - 2] in (*COMPARISONS, *BEFORE)
        before, after = texts[place - 1 - negative], texts[place + 1]
        compared = (before in COMPARISONS and after in AFTER) or (before in BEFORE and after in COMPARISONS)
        if compared or _is_crossed(texts, place - negative, place):
            first, last = _around(texts, place)
            name = " ".join(when[tokens[first - 1][2] : tokens[last - 1][2] + len(texts[last])].split())
            value = -float(text) if negative else float(text)
            found.append(_Number(start, start + len(text), value, name))
    return found


def _tokens(when: str) -> Iterator[re.Match[str]]:
    return TOKEN.finditer(when)


def _is_crossed(texts: Sequence[str], first: int, last: int) -> bool:
    """Return whether a number is an argument of a crossing: no other function has two arguments."""
    if texts[first - 1] == "," and texts[last + 1] == ")":
        return True
    return texts[first - 1] == "(" and texts[first - 2] in CROSSINGS and texts[last + 1] == ","


def _around(texts: Sequence[str], place: int) -> tuple[int, int]:
    """Return the first and last place of the comparison around a number: up to && and ||, or its parentheses."""
    bounds = []
    for step, opening, closing in ((-1, ")", "("), (1, "(", ")")):
        at, depth = place, 0
        while texts[at + step] not in ("", "&&", "||", "?", ":") or depth:
            depth += (texts[at + step] == opening) - (texts[at + step] == closing)
            if depth < 0:
                break
            at += step
        bounds.append(at)
    first, last = bounds
    if texts[first - 2] in CROSSINGS:
        first, last = first - 2, last + 1
    return first, last
