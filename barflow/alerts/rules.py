"""Which rules judge a bar? Read from a TOML file, each checked, its values settled for every symbol.

A value of a rule is the one given for the symbol in the rule (``[rule.per_symbol.TSLA]``), else the rule's own, else
the symbol's default (``[defaults.TSLA]``), else the default of all (``[defaults."*"]``). ``percent = 5.0``
means 5 %, prices are in dollars, minutes are those of an open session.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from barflow.errors import BadInputError

SHIPPED = Path(__file__).with_name("alerts.toml")
ALL = "*"
# The fewest bars that a session has: a half day's.
HALF_DAY_BARS = 42

Severity = Literal["info", "warning", "critical"]
ChannelName = Literal["sns", "slack", "sse"]
Direction = Literal["up", "down", "both"]
Dollars = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Percent = Annotated[float, Field(gt=0, le=1000)]
Minutes = Annotated[int, Field(ge=5, le=390, multiple_of=5)]


def _names(value: Any) -> Any:
    """``"TSLA, NVDA"`` is as good as ``["TSLA", "NVDA"]``; names are upper case."""
    parts = value.split(",") if isinstance(value, str) else value
    return [part.strip().upper() if isinstance(part, str) else part for part in parts] if type(parts) is list else parts


class Defaults(BaseModel):
    """What a rule takes when it says nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    severity: Severity = "info"
    cool_down_minutes: int = Field(60, ge=0, le=100_000, description="no second alert of a rule and symbol within it")
    channels: tuple[ChannelName, ...] = ("sns", "slack", "sse")


class BaseRule(Defaults):
    """What every rule has. ``history`` is how many sessions before the judged one it looks at; ``detail``, those of
    which it needs every bar. ``unit`` is that of an alert's value."""

    unit: ClassVar[str]

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9_]{0,39}$")
    symbols: Annotated[tuple[str, ...], BeforeValidator(_names)] = (ALL,)

    @property
    def history(self) -> int:
        return 1

    @property
    def detail(self) -> int:
        return 0

    def applies(self, symbol: str) -> bool:
        return ALL in self.symbols or symbol in self.symbols


class LevelRule(BaseRule):
    """The close reaches or passes a price that the close before it was short of."""

    unit = "dollars"
    kind: Literal["level"]
    level: Dollars
    direction: Direction = "both"


class MoveRule(BaseRule):
    """The close is x % away from a price of the last n minutes of the same session."""

    unit = "percent"
    kind: Literal["move"]
    percent: Percent
    minutes: Minutes
    direction: Direction = "both"


class GapRule(BaseRule):
    """The session's first bar opens x % away from the close of the exchange's session before."""

    unit = "percent"
    kind: Literal["gap"]
    percent: Percent
    direction: Direction = "both"


class VolumeRule(BaseRule):
    """The bar's volume is over x times the mean of its time of day in the previous n sessions.

    At least half of those sessions must have had a bar at that time.
    """

    unit = "times"
    kind: Literal["volume"]
    times: float = Field(gt=1, allow_inf_nan=False)
    sessions: Annotated[int, Field(ge=1, le=60)] = 20

    @property
    def history(self) -> int:
        return self.sessions

    @property
    def detail(self) -> int:
        return self.sessions


class AverageRule(BaseRule):
    """The close crosses its moving average: of n bars up to this one, or of n daily closes with today's so far
    being this close."""

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
        return self.sessions or self.detail

    @property
    def detail(self) -> int:
        return 1 + self.bars // HALF_DAY_BARS if self.bars else 0


class ExtremeRule(BaseRule):
    """The session's high is above, or its low below, that of each of the previous n sessions."""

    unit = "dollars"
    kind: Literal["extreme"]
    sessions: Annotated[int, Field(ge=1, le=250)]
    direction: Direction = "both"

    @property
    def history(self) -> int:
        return self.sessions


class SilenceRule(BaseRule):
    """No bar for n minutes of an open session, of a symbol that had bars before."""

    unit = "minutes"
    kind: Literal["silence"]
    minutes: Minutes


Model = TypeVar("Model", bound=BaseModel)
Rule = LevelRule | MoveRule | GapRule | VolumeRule | AverageRule | ExtremeRule | SilenceRule
KINDS: dict[str, type[Rule]] = {
    "level": LevelRule,
    "move": MoveRule,
    "gap": GapRule,
    "volume": VolumeRule,
    "average": AverageRule,
    "extreme": ExtremeRule,
    "silence": SilenceRule,
}


class RuleBook:
    """The rules of a file, settled for any symbol."""

    def __init__(self, by_symbol: Mapping[str, tuple[Rule, ...]]) -> None:
        """``by_symbol`` has the rules of all symbols under ``*``, and those of each symbol with values of its own."""
        self._by_symbol = by_symbol
        self._chosen: dict[str, tuple[Rule, ...]] = {}

    @classmethod
    def of(cls, rules: Iterable[Rule]) -> RuleBook:
        """A book without values of single symbols."""
        return cls({ALL: tuple(rules)})

    def rules(self, symbol: str) -> tuple[Rule, ...]:
        """The rules that apply to a symbol, in the file's order."""
        if symbol not in self._chosen:
            settled = self._by_symbol.get(symbol, self._by_symbol[ALL])
            self._chosen[symbol] = tuple(rule for rule in settled if rule.applies(symbol))
        return self._chosen[symbol]

    def only(self, rule_id: str) -> RuleBook:
        """The book of that rule alone."""
        return RuleBook(
            {symbol: tuple(rule for rule in rules if rule.id == rule_id) for symbol, rules in self._by_symbol.items()}
        )

    @property
    def all(self) -> tuple[Rule, ...]:
        """Every rule as it stands for a symbol without values of its own."""
        return self._by_symbol[ALL]

    @property
    def with_own_values(self) -> dict[str, tuple[Rule, ...]]:
        """The rules of each symbol that the file gives values of its own."""
        return {symbol: self.rules(symbol) for symbol in self._by_symbol if symbol != ALL}

    @cached_property
    def history(self) -> int:
        """How many sessions before the judged one the rules look at."""
        return max((rule.history for rules in self._by_symbol.values() for rule in rules), default=1)

    @cached_property
    def detail(self) -> int:
        """Of how many of those they need every bar."""
        return max((rule.detail for rules in self._by_symbol.values() for rule in rules), default=0)


def load_rules(path: Path | None = None) -> RuleBook:
    """The rules of a file, or those shipped. Raises BadInputError naming the rule, the field and what is allowed."""
    path = path or SHIPPED
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BadInputError(
            f"alert rules {path} cannot be read ({error.strerror}). Set BARFLOW_ALERTS_FILE to a TOML file of rules."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInputError(f"alert rules {path} are not TOML: {error}") from None
    try:
        return settle(content)
    except ValueError as error:
        raise BadInputError(f"alert rules {path}: {error}") from None


def settle(content: Mapping[str, Any]) -> RuleBook:
    """Raises ValueError with what is wrong."""
    unknown = sorted(set(content) - {"defaults", "rule"})
    if unknown:
        raise ValueError(f'{unknown[0]} is not known here: allowed are [defaults."*"], [defaults.SYMBOL] and [[rule]]')
    given = content.get("rule", [])
    if not isinstance(given, list) or not all(isinstance(values, dict) for values in given):
        raise ValueError("rule: allowed are tables of their own, [[rule]]")
    defaults = _by_symbol("defaults", content.get("defaults", {}))
    for symbol, values in defaults.items():
        _checked(f"defaults of {symbol}", Defaults, values)
    rules: dict[str, tuple[dict[str, Any], dict[str, dict[str, Any]]]] = {}
    for place, values in enumerate(given, start=1):
        name = f"rule {values.get('id', f'number {place}')}"
        if name in rules:
            raise ValueError(f"{name}: id: two rules have it; allowed is an id of its own for each")
        own = _by_symbol(f"{name}: per_symbol", values.get("per_symbol", {}))
        rules[name] = ({key: value for key, value in values.items() if key != "per_symbol"}, own)
    symbols = {ALL, *defaults, *(symbol for _, own in rules.values() for symbol in own)}
    settled: dict[str, tuple[Rule, ...]] = {}
    for symbol in sorted(symbols):
        general = {**defaults.get(ALL, {}), **defaults.get(symbol, {})}
        settled[symbol] = tuple(
            _rule(f"{name} for {symbol}" if symbol in own else name, {**general, **values, **own.get(symbol, {})})
            for name, (values, own) in rules.items()
        )
    return RuleBook(settled)


def _by_symbol(where: str, tables: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(tables, dict) or not all(isinstance(values, dict) for values in tables.values()):
        raise ValueError(f"{where}: allowed are tables by symbol, such as TSLA")
    return {symbol.upper(): values for symbol, values in tables.items()}


def _rule(where: str, values: Mapping[str, Any]) -> Rule:
    model = KINDS.get(str(values.get("kind")))
    if model is None:
        raise ValueError(f"{where}: kind = {values.get('kind')!r}: allowed are {', '.join(KINDS)}")
    return _checked(where, model, values)


def _checked(where: str, model: type[Model], values: Mapping[str, Any]) -> Model:
    """The model of these values, or a ValueError in words for the person who wrote them."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
    if not problem["loc"]:
        raise ValueError(f"{where}: {problem['ctx']['error']}")
    field = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        raise ValueError(f"{where}: {field}: not a field of it; allowed are {', '.join(model.model_fields)}")
    if problem["type"] == "missing":
        raise ValueError(f"{where}: {field} is missing: {model.__doc__}")
    allowed = problem["msg"].removeprefix("Input should be ").replace("valid tuple", "list")
    if problem["type"] == "string_pattern_mismatch":
        allowed = "small letters, digits and _, at most 40"
    raise ValueError(f"{where}: {field} = {problem['input']!r}: allowed is {allowed}")
