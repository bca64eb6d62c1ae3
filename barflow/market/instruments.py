"""Instruments: the symbols under which a share traded, and its first and last session, from a TOML file.

A session document, a file of the archive and a row of the warehouse keep the symbol under which their bars arrived.
Readers join them here into one series under the present symbol. On each day a symbol belongs to exactly one share: a
former symbol up to its last day, and later another owner's. Where several symbols of a share hold the same session,
readers take the newest symbol, because its bars were fetched last.

Here, a *name* is a symbol that a share has or had. Pure: days are exchange-local.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from barflow.errors import BadInputError
from barflow.symbol import EXPECTED, is_symbol
from barflow.toml_files import read_toml

# A link to config/instruments.toml, which bundles and wheels carry as a file. The package may be in a zip file.
DEFAULT_FILE = resources.files(__package__).joinpath("instruments.toml")
DAY = timedelta(days=1)


def _symbol(text: str) -> str:
    if not is_symbol(text):
        raise ValueError(f"must be {EXPECTED}")
    return text.upper()


Symbol = Annotated[str, AfterValidator(_symbol)]
# Strict: 20220608 without dashes is not a moment of 1970.
Day = Annotated[date, Field(strict=True)]


class Former(BaseModel):
    """A former symbol of a share, and the last session under it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    symbol: Symbol
    last_day: Annotated[Day, Field(lt=date.max)]


class Instrument(BaseModel):
    """A share: its present or last symbol, its former ones, and its first and last session if the file states them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    symbol: Symbol
    former: tuple[Former, ...] = ()
    first_session: Day | None = None
    last_session: Day | None = None

    @property
    def first(self) -> date:
        """Return the first day of the listing, or the first of all days."""
        return self.first_session or date.min

    @property
    def last(self) -> date:
        """Return the last day of the listing, or the last of all days."""
        return self.last_session or date.max

    @cached_property
    def names(self) -> tuple[Name, ...]:
        """Return the names in order, the oldest first. Their days cover the listing without gap or overlap."""
        found, first = [], self.first
        for former in self.former:
            found.append(Name(former.symbol, first, former.last_day))
            first = former.last_day + DAY
        return (*found, Name(self.symbol, first, self.last))


@dataclass(frozen=True)
class Name:
    """A symbol, and the first and last day on which a share had it."""

    symbol: str
    first: date
    last: date


class Instruments:
    """The shares of a file. A symbol without an entry never changed its name and is listed on every day."""

    def __init__(self, entries: Iterable[Instrument] = ()) -> None:
        """Hold the entries. Raise ValueError that names the entry if names overlap or a listing has no day."""
        self._entries = {entry.symbol: entry for entry in _checked(entries)}

    @cached_property
    def former(self) -> Mapping[str, tuple[str, date]]:
        """Return the present symbol and the last day of each former symbol."""
        return {
            former.symbol: (entry.symbol, former.last_day)
            for entry in self._entries.values()
            for former in entry.former
        }

    def present(self, symbol: str) -> str:
        """Return the present symbol of the share that has, or last had, this name."""
        return symbol if symbol in self._entries else self.former.get(symbol, (symbol, None))[0]

    def states(self, symbol: str) -> bool:
        """Return whether the file states this symbol, as a present or a former one."""
        return symbol in self._entries or symbol in self.former

    def present_on(self, symbol: str, day: date) -> str:
        """Return the present symbol of the share whose bars of a day are stored under this name."""
        present, last_day = self.former.get(symbol, (symbol, date.min))
        return present if day <= last_day else symbol

    def names(self, symbol: str) -> tuple[Name, ...]:
        """Return the names of the share that ``present`` finds, with the days of each, the oldest first."""
        present = self.present(symbol)
        entry = self._entries.get(present)
        return entry.names if entry else (Name(present, date.min, date.max),)

    def stored_names(self, symbols: Iterable[str]) -> tuple[str, ...]:
        """Return every name under which bars of these shares may be stored, each share's newest name first."""
        return tuple(dict.fromkeys(name.symbol for symbol in symbols for name in self.names(symbol)[::-1]))

    def is_listed(self, symbol: str, day: date) -> bool:
        """Return whether the share is listed on a day, under any of its names."""
        names = self.names(symbol)
        return names[0].first <= day <= names[-1].last

    def trades_as(self, symbol: str, day: date) -> bool:
        """Return whether a share is listed on a day under exactly this name."""
        return any(name.symbol == symbol and name.first <= day <= name.last for name in self.names(symbol))

    def ended(self, symbol: str, day: date) -> str | None:
        """Return why no share trades under this name on a day after its last one, else None."""
        if (last := self.last_session(symbol)) and last < day:
            return f"delisted after {last}"
        present, last_day = self.former.get(symbol, (symbol, date.max))
        return f"{present} since {last_day + DAY}" if last_day < day and self.present(symbol) == present else None

    def last_session(self, symbol: str) -> date | None:
        """Return the last session of a share that is delisted or will be, else None."""
        last = self.names(symbol)[-1].last
        return None if last == date.max else last

    def resolve(self, symbols: Iterable[str]) -> tuple[tuple[str, ...], list[str]]:
        """Return the present symbols, each once, and a line to log for each former symbol."""
        present = {symbol: self.present(symbol) for symbol in symbols}
        renamed = [
            f"{symbol} is {name} today: it was {symbol} until {self.former[symbol][1]}"
            for symbol, name in present.items()
            if name != symbol
        ]
        return tuple(dict.fromkeys(present.values())), renamed

    def to_ask(self, symbols: Iterable[str], day: date) -> tuple[tuple[str, ...], dict[str, str]]:
        """Return the present symbols that are not delisted on a day, and a note for each other symbol given."""
        present = {symbol: self.present(symbol) for symbol in symbols}
        notes = {
            symbol: f"asked for as {name}, its symbol since {self.former[symbol][1] + DAY}"
            for symbol, name in present.items()
            if name != symbol
        }
        gone = {symbol: last for symbol, name in present.items() if (last := self.last_session(name)) and last < day}
        notes |= {symbol: f"not asked for: its last session was {last}" for symbol, last in gone.items()}
        return tuple(dict.fromkeys(name for symbol, name in present.items() if symbol not in gone)), notes

    def chosen(self, stored: Iterable[tuple[str, date]]) -> dict[tuple[str, date], str]:
        """Return which name to read for each (present symbol, day), given the (name, day) pairs that are stored."""
        found: dict[tuple[str, date], str] = {}
        for name, day in stored:
            key = (self.present_on(name, day), day)
            order = self.stored_names([key[0]])
            if key not in found or order.index(name) < order.index(found[key]):
                found[key] = name
        return found


def load_instruments(path: Path | None = None) -> Instruments:
    """Return the instruments of a file, or of the package's. Raise BadInputError that names the file and the entry."""
    source: Path | Traversable = path or DEFAULT_FILE
    content = read_toml(source, "instruments", "BARFLOW_INSTRUMENTS_FILE")
    try:
        return parse_instruments(content)
    except ValueError as error:
        raise BadInputError(f"instruments {source}: {error}") from None


def parse_instruments(content: Mapping[str, Any]) -> Instruments:
    """Return the instruments of a parsed TOML file. Raise ValueError that names the entry, the field and the fault."""
    if unknown := sorted(set(content) - {"instrument"}):
        raise ValueError(f"{unknown[0]}: unknown; write each share as a table [[instrument]]")
    given = content.get("instrument", [])
    if not isinstance(given, list) or not all(isinstance(values, dict) for values in given):
        raise ValueError("instrument: not a list of tables; write each share as a table [[instrument]]")
    return Instruments([_entry(place, values) for place, values in enumerate(given, start=1)])


def _entry(place: int, values: Mapping[str, Any]) -> Instrument:
    try:
        return Instrument.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
    where = f"instrument {values.get('symbol', f'number {place}')}"
    field = ".".join(str(part + 1 if isinstance(part, int) else part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        model = Former if problem["loc"][0] == "former" else Instrument
        raise ValueError(f"{where}: {field}: unknown field; allowed are {', '.join(model.model_fields)}")
    if problem["type"] == "missing":
        raise ValueError(f"{where}: {field} is missing")
    message = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if problem["type"].startswith("date"):
        message = "must be a day without quotes, such as 2022-06-08"
    raise ValueError(f"{where}: {field} = {problem['input']!r}: {message}")


def _checked(entries: Iterable[Instrument]) -> Sequence[Instrument]:
    """Return the entries. Raise ValueError if a listing has no day, or two shares have a symbol on the same day."""
    entries = list(entries)
    present: dict[str, Name] = {}
    for entry in entries:
        for name in entry.names:
            if name.first > name.last:
                raise ValueError(_empty(entry, name))
        if entry.symbol in present:
            raise ValueError(f"instrument {entry.symbol}: two entries have this symbol; write one entry per share")
        present[entry.symbol] = entry.names[-1]
    owner: dict[str, str] = {}
    for entry in entries:
        for former in entry.former:
            where = f"instrument {entry.symbol}: former {former.symbol}"
            if former.symbol == entry.symbol:
                raise ValueError(f"{where}: it is the present symbol; leave it out")
            if former.symbol in owner:
                raise ValueError(f"{where}: it is already a former symbol of {owner[former.symbol]}; keep one entry")
            owner[former.symbol] = entry.symbol
            today = present.get(former.symbol)
            if today and today.first <= former.last_day:
                since = "" if today.first == date.min else f" since {today.first}"
                raise ValueError(
                    f"{where}: until {former.last_day}, but instrument {former.symbol} has this symbol{since}. If that "
                    "is the same share, write one entry; if it is another one, give it a first_session after that day"
                )
    return entries


def _empty(entry: Instrument, name: Name) -> str:
    where = f"instrument {entry.symbol}"
    if entry.first > entry.last:
        return f"{where}: first_session {entry.first} is after last_session {entry.last}"
    if name.symbol == entry.symbol and name.last == entry.last:
        return f"{where}: last_session {name.last} is not after the last_day of its former symbols"
    return f"{where}: former {name.symbol}: last_day {name.last} is before {name.first}, its first day; oldest first"
