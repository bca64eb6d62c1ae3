"""The alert rules: a model of each kind, and the book of the rules that hold for each symbol.

``percent = 5.0`` means 5 %, prices are in dollars, and minutes are those of an open session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from barflow.alerts.condition_values import sessions_with
from barflow.alerts.expressions import Condition, condition
from barflow.errors import BadInputError
from barflow.market.instruments import Instruments
from barflow.market.sessions import new_york, utc_now
from barflow.symbol import EXPECTED, is_symbol

ALL = "*"
# Symbols in a message.
MOST_SHOWN = 10

Severity = Literal["info", "warning", "critical"]
ChannelName = Literal["sns", "slack", "apprise", "webhook", "sse"]
Direction = Literal["up", "down", "both"]
Dollars = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Percent = Annotated[float, Field(gt=0, le=1000)]
Minutes = Annotated[int, Field(ge=5, le=390, multiple_of=5)]


def _parse_symbols(value: Any) -> Any:
    """Return symbols in upper case. ``"TSLA, NVDA"`` means the same as ``["TSLA", "NVDA"]``."""
    parts = value.split(",") if isinstance(value, str) else value
    return (
        [_symbol(part.strip()) if isinstance(part, str) else part for part in parts] if type(parts) is list else parts
    )


def _symbol(text: str) -> str:
    """Return a symbol in upper case, or ``*``. Raises ValueError for another text."""
    if text != ALL and not is_symbol(text):
        raise ValueError(f"{EXPECTED}, or {ALL}")
    return text.upper()


def _past_day(value: Any) -> Any:
    """Return a date of the file, also one in quotes. Raises ValueError for another value or a day to come."""
    try:
        day = date.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        day = None
    if type(day) is not date:
        raise ValueError("a date such as 2024-05-31")
    if day > (today := new_york(utc_now()).date()):
        raise ValueError(f"a day up to today ({today}): later splits are not known")
    return day


def _checked(text: str) -> str:
    """Return the text of a condition. Raises ValueError that names the position and what is allowed."""
    condition(text)
    return text


class Defaults(BaseModel):
    """The values of a rule that does not give its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    severity: Severity = "info"
    cool_down_minutes: int = Field(
        60, ge=0, le=100_000, description="no second alert of a rule for a symbol within this time"
    )
    channels: tuple[ChannelName, ...] = ("sns", "slack", "apprise", "webhook", "sse")


class BaseRule(Defaults):
    """The fields of every rule.

    ``unit`` is the unit of an alert's value. ``has_sides`` is False for a rule whose alerts are neither up nor down.
    """

    unit: ClassVar[str]
    has_sides: ClassVar[bool] = True

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9_]{0,39}$")
    symbols: Annotated[tuple[str, ...], BeforeValidator(_parse_symbols)] = (ALL,)

    @property
    def history(self) -> int:
        """Return how many sessions before the evaluated one the rule looks at."""
        return 1

    @property
    def detail(self) -> int:
        """Return for how many of those sessions the rule needs every bar."""
        return 0

    @property
    def prices(self) -> int:
        """Return for how many of those sessions the rule needs every bar's open, high and low."""
        return 0

    @property
    def looks_back(self) -> bool:
        """Return whether the rule compares with earlier sessions."""
        return True

    @property
    def others(self) -> Mapping[str, int]:
        """Return by other symbol that the rule's condition names the position in its text."""
        return {}

    def applies_to(self, symbol: str) -> bool:
        """Return whether the rule is evaluated for a symbol."""
        return ALL in self.symbols or symbol in self.symbols


class LevelRule(BaseRule):
    """The close reaches or passes a price that the close before it did not reach.

    The level is in the shares of the day ``as_of``, and follows the splits since. Without it, the level stays.
    """

    unit = "dollars"
    kind: Literal["level"]
    level: Dollars
    as_of: Annotated[date, BeforeValidator(_past_day)] | None = None
    direction: Direction = "both"


class MoveRule(BaseRule):
    """The close is x % away from a price of the last n minutes of the same session."""

    unit = "percent"
    kind: Literal["move"]
    percent: Percent
    minutes: Minutes
    direction: Direction = "both"

    @property
    def looks_back(self) -> bool:
        """Return False: the prices are of the same session."""
        return False


class GapRule(BaseRule):
    """The session's first bar opens x % away from the close of the exchange's session before."""

    unit = "percent"
    kind: Literal["gap"]
    percent: Percent
    direction: Direction = "both"


class SplitRule(BaseRule):
    """The session's first bar opens like a split that is not known, so no rule compares it with earlier sessions."""

    unit = "percent"
    kind: Literal["split"]


class VolumeRule(BaseRule):
    """The bar's volume is more than x times the mean at its time of day in the previous n sessions.

    At least half of those sessions must have had a bar at that time.
    """

    unit = "times"
    kind: Literal["volume"]
    times: float = Field(gt=1, allow_inf_nan=False)
    sessions: Annotated[int, Field(ge=1, le=60)] = 20

    @property
    def history(self) -> int:
        """Return the rule's number of sessions."""
        return self.sessions

    @property
    def detail(self) -> int:
        """Return the rule's number of sessions: it needs the volume of every bar."""
        return self.sessions


class AverageRule(BaseRule):
    """The close crosses its moving average: of n bars up to it, or of n daily closes with itself as today's close."""

    unit = "dollars"
    kind: Literal["average"]
    sessions: Annotated[int, Field(ge=2, le=250)] | None = None
    bars: Annotated[int, Field(ge=2, le=390)] | None = None
    direction: Direction = "both"

    @model_validator(mode="after")
    def _one_window(self) -> AverageRule:
        if (self.sessions is None) == (self.bars is None):
            raise ValueError("give either sessions (2 to 250 daily closes) or bars (2 to 390), not both")
        return self

    @property
    def history(self) -> int:
        """Return the rule's number of sessions, or how many sessions hold its number of bars."""
        return self.sessions or self.detail

    @property
    def detail(self) -> int:
        """Return how many sessions hold the rule's number of bars, or 0 for daily closes."""
        return sessions_with(self.bars) if self.bars else 0


class ExtremeRule(BaseRule):
    """The session's high is above, or its low below, that of each of the previous n sessions."""

    unit = "dollars"
    kind: Literal["extreme"]
    sessions: Annotated[int, Field(ge=1, le=250)]
    direction: Direction = "both"

    @property
    def history(self) -> int:
        """Return the rule's number of sessions."""
        return self.sessions


class SilenceRule(BaseRule):
    """A symbol that had bars before has none for n minutes of an open session."""

    unit = "minutes"
    kind: Literal["silence"]
    minutes: Minutes


class ExpressionRule(BaseRule):
    """The condition ``when`` holds: an expression in CEL over the bar, its session and earlier ones."""

    unit = "dollars"
    has_sides = False
    kind: Literal["expression"]
    when: Annotated[str, AfterValidator(_checked)]

    @property
    def condition(self) -> Condition:
        """Return the checked condition."""
        return condition(self.when)

    @property
    def history(self) -> int:
        """Return how many sessions the values of the condition need, at least one."""
        return max(1, *self.condition.past)

    @property
    def detail(self) -> int:
        """Return for how many sessions the values need every bar."""
        return max(self.condition.past.bars, self.condition.past.prices)

    @property
    def prices(self) -> int:
        """Return for how many sessions the values need every bar's open, high and low."""
        return self.condition.past.prices

    @property
    def looks_back(self) -> bool:
        """Return whether a value of the condition needs earlier sessions."""
        return any(self.condition.past)

    @property
    def others(self) -> Mapping[str, int]:
        """Return by other symbol that the condition names its position in the text, counted from 1."""
        return self.condition.others


Rule = (
    LevelRule | MoveRule | GapRule | SplitRule | VolumeRule | AverageRule | ExtremeRule | SilenceRule | ExpressionRule
)
KINDS: dict[str, type[Rule]] = {
    "level": LevelRule,
    "move": MoveRule,
    "gap": GapRule,
    "split": SplitRule,
    "volume": VolumeRule,
    "average": AverageRule,
    "extreme": ExtremeRule,
    "silence": SilenceRule,
    "expression": ExpressionRule,
}


class RuleBook:
    """The rules of a file, with the values that hold for each symbol, and its watch lists: symbols by name."""

    def __init__(
        self, by_symbol: Mapping[str, tuple[Rule, ...]], lists: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    ) -> None:
        """Hold the rules of each symbol that has its own values, and those of all other symbols under ``*``."""
        self._by_symbol = by_symbol
        self.lists = lists
        self._applicable: dict[str, tuple[Rule, ...]] = {}
        self._fixed_levels: dict[str, tuple[LevelRule, ...]] = {}
        self._others: dict[str, tuple[str, ...]] = {}

    @classmethod
    def of(cls, rules: Iterable[Rule]) -> RuleBook:
        """Return a book in which no symbol has its own values."""
        return cls({ALL: tuple(rules)})

    def rules(self, symbol: str) -> tuple[Rule, ...]:
        """Return the rules that apply to a symbol, in the file's order."""
        if symbol not in self._applicable:
            values = self._by_symbol.get(symbol, self._by_symbol[ALL])
            self._applicable[symbol] = tuple(rule for rule in values if rule.applies_to(symbol))
        return self._applicable[symbol]

    def fixed_levels(self, symbol: str) -> tuple[LevelRule, ...]:
        """Return the rules of a symbol with a level that follows no splits."""
        if symbol not in self._fixed_levels:
            levels = (rule for rule in self.rules(symbol) if isinstance(rule, LevelRule))
            self._fixed_levels[symbol] = tuple(rule for rule in levels if rule.as_of is None)
        return self._fixed_levels[symbol]

    def others(self, symbol: str) -> tuple[str, ...]:
        """Return the other symbols that the rules of a symbol name."""
        if symbol not in self._others:
            self._others[symbol] = tuple(dict.fromkeys(name for rule in self.rules(symbol) for name in rule.others))
        return self._others[symbol]

    def check_others(self, symbols: Iterable[str], instruments: Instruments) -> None:
        """Raise BadInputError if a rule names another symbol that is not among the ``symbols`` of the environment."""
        present, _ = instruments.resolve(symbols)
        for rule in (rule for rules in self._by_symbol.values() for rule in rules):
            for name, position in rule.others.items():
                if instruments.present(name) not in present:
                    shown = ", ".join(present[:MOST_SHOWN]) + " …" * (len(present) > MOST_SHOWN)
                    raise BadInputError(
                        f"alert rule {rule.id}: when: position {position}: {name} is not a symbol of this environment; "
                        f"symbols are {shown}. Add {name} to BARFLOW_SYMBOLS, or change the rule."
                    )

    def only(self, rule_id: str) -> RuleBook:
        """Return a book that holds only the rule with this id."""
        return self.replaced(lambda rule: [rule] if rule.id == rule_id else [])

    def replaced(self, replace: Callable[[Rule], Iterable[Rule]]) -> RuleBook:
        """Return a book with other rules in place of each rule, also of a symbol that has its own values."""
        return RuleBook(
            {
                symbol: tuple(made for rule in rules for made in replace(rule))
                for symbol, rules in self._by_symbol.items()
            },
            self.lists,
        )

    @property
    def all(self) -> tuple[Rule, ...]:
        """Return every rule with its values for a symbol without its own."""
        return self._by_symbol[ALL]

    @property
    def with_own_values(self) -> dict[str, tuple[Rule, ...]]:
        """Return the rules of each symbol that has its own values."""
        return {symbol: self.rules(symbol) for symbol in self._by_symbol if symbol != ALL}

    @cached_property
    def history(self) -> int:
        """Return how many sessions before the evaluated one the rules look at."""
        return max((rule.history for rules in self._by_symbol.values() for rule in rules), default=1)

    @cached_property
    def detail(self) -> int:
        """Return for how many of those sessions the rules need every bar."""
        return max((rule.detail for rules in self._by_symbol.values() for rule in rules), default=0)

    @cached_property
    def prices(self) -> int:
        """Return for how many of those sessions the rules need every bar's open, high and low."""
        return max((rule.prices for rules in self._by_symbol.values() for rule in rules), default=0)
