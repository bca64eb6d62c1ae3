"""Recorded bars: the reader of CSV files and of recorded Twelve Data answers.

Two forms are read:

- a CSV file with the columns ``datetime,open,high,low,close,volume,symbol``, in New York time, rows in any order. The
  delimiter may be a comma, a semicolon or a tab; a line ``sep=;`` and lines with ``#`` may precede the header;
- a Twelve Data answer (JSON, one symbol) in New York time, or a folder of them (``time_series_*.json``).

The reader checks the form alone. A bad bar (negative price, off-grid time, ``NaN``) stays as recorded, because the
pipeline's validation has to see it. What cannot be read as a bar at all raises BadInputError, with its file and line.
"""

from __future__ import annotations

import bisect
import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson

from barflow.errors import BadInputError
from barflow.market.answers import contradictions, wrong_interval, wrong_zone
from barflow.market.bars import INTERVAL
from barflow.market.sessions import BAR, NEW_YORK, last_sessions, new_york, utc_now
from barflow.market.validation import FIELD_NAMES, TIME_FORMAT, Validated, validate
from barflow.symbol import check_symbol, one_spelling
from barflow.text import counted

# One bar: its open (aware, UTC), then open, high, low, close (dollars) and volume (shares) as the vendor's text.
# None if a recorded answer holds null.
Row = tuple[datetime, str | None, str | None, str | None, str | None, str | None]

VALUES = ("open", "high", "low", "close", "volume")
COLUMNS = ("datetime", *VALUES, "symbol")
DELIMITERS = (",", ";", "\t")
# A last moment that is this far after all others is a stray row, if there are at least MIN_MOMENTS others.
STRAY = timedelta(days=60)
MIN_MOMENTS = 8
EXPECTED = f"expected the columns {','.join(COLUMNS)}"


class Recording:
    """Recorded bars by symbol, in time order. The text of each number stays exactly as recorded."""

    def __init__(self, bars: Iterable[tuple[str, Row]]) -> None:
        """Sort the bars by symbol and time.

        Args:
            bars: (symbol, row) in any order.

        Raises:
            ValueError: There is no bar.
        """
        by_symbol: dict[str, list[Row]] = {}
        names: dict[str, str] = {}  # of several spellings of one share, the first one
        for symbol, row in bars:
            by_symbol.setdefault(names.setdefault(one_spelling(symbol), symbol), []).append(row)
        if not by_symbol:
            raise ValueError("a recording needs at least one bar")
        self._rows = {symbol: sorted(rows, key=_open) for symbol, rows in by_symbol.items()}
        self._opens = {symbol: [row[0] for row in rows] for symbol, rows in self._rows.items()}
        self.symbols: tuple[str, ...] = tuple(self._rows)
        self.first: datetime = min(opens[0] for opens in self._opens.values())
        moments = sorted({opened for opens in self._opens.values() for opened in opens})
        self.as_of: datetime = _newest(moments, utc_now()) + BAR
        # Rows after the clock, by symbol: too far ahead of all others to be bars of this recording.
        self.strays = [
            (symbol, opened) for symbol, opens in self._opens.items() for opened in opens if opened >= self.as_of
        ]

    @classmethod
    def load(cls, path: str | Path) -> Recording:
        """Read a CSV file, a JSON answer or a folder of JSON answers. Raise BadInputError, in one line."""
        path = Path(path)
        if not path.exists():
            raise BadInputError(f"recording {path} does not exist: give a CSV file or a folder of JSON answers")
        if path.is_dir():
            files = sorted(path.glob("time_series_*.json"))
            if not files:
                raise BadInputError(
                    f"recording {path} has no time_series_*.json in it: give a folder of Twelve Data answers"
                )
            bars = [bar for file in files for bar in _json_bars(file)]
        else:
            bars = list(_json_bars(path) if path.suffix.lower() == ".json" else _csv_bars(path))
        if not bars:
            raise BadInputError(f"recording {path} has no bars in it: give another one")
        recording = cls(bars)
        for symbol in recording.symbols:
            if wrong := wrong_interval(recording._opens[symbol]):
                raise BadInputError(
                    f"recording {path}, {symbol}: {wrong.message}. Nothing was stored. Give {INTERVAL} bars."
                )
            clocks = [f"{new_york(opened):{TIME_FORMAT}}" for opened in recording._opens[symbol]]
            if wrong := wrong_zone(clocks, NEW_YORK):
                raise BadInputError(
                    f"recording {path}, {symbol}: {wrong.message}. Nothing was stored. Record the bars in New York "
                    "time: request them without timezone=UTC."
                )
        return recording

    @property
    def describe(self) -> str:
        """Return its size in words: symbols, exchange-local days, bars. Stray rows are named."""
        opens = [opened for each in self._opens.values() for opened in each]
        days = len({new_york(opened).date() for opened in opens})
        size = f"{counted(len(self.symbols), 'symbol')}, {counted(days, 'session')}, {counted(len(opens), 'bar')}"
        if not self.strays:
            return size
        symbol, opened = self.strays[0]
        more = f" and {len(self.strays) - 1} more" if self.strays[1:] else ""
        return (
            f"{size}; left out as too far ahead of the others: {symbol} {new_york(opened):%Y-%m-%d %H:%M} "
            f"New York{more}"
        )

    @property
    def sessions(self) -> int:
        """Return how many of the newest sessions a tick has to request to receive every bar up to ``as_of``."""
        return sum(item.closes > self.first for item in last_sessions(self.as_of, 1_000_000)) + 1

    def held(self, symbol: str, until: datetime) -> int:
        """Return how many bars of the symbol open before ``until`` (UTC)."""
        return bisect.bisect_left(self._opens.get(symbol, []), until)

    def knows(self, symbol: str) -> bool:
        """Return whether it holds a bar of the symbol."""
        return symbol in self._rows

    def rows(self, symbol: str, start: datetime, end: datetime) -> list[Row]:
        """Return the bars that open in [start, end) (UTC), oldest first. Duplicates stay as recorded."""
        opens = self._opens.get(symbol, [])
        return self._rows.get(symbol, [])[bisect.bisect_left(opens, start) : bisect.bisect_left(opens, end)]


def validate_rows(symbol: str, rows: Sequence[Row], now: datetime) -> Validated:
    """Validate a symbol's rows as ingest validates Twelve Data's answer with the same bars at ``now`` (UTC)."""
    values = [dict(zip(FIELD_NAMES, (f"{row[0]:{TIME_FORMAT}}", *row[1:]), strict=True)) for row in rows]
    return validate(symbol, {}, values, now)


def _newest(moments: Sequence[datetime], now: datetime) -> datetime:
    """Return the last of the sorted moments that is neither in the future nor far after all others."""
    last = len(moments) - 1
    while last and (moments[last] > now or (last >= MIN_MOMENTS and moments[last] - moments[last - 1] > STRAY)):
        last -= 1
    return moments[last]


def _open(row: Row) -> datetime:
    return row[0]


def _csv_bars(path: Path) -> Iterator[tuple[str, Row]]:
    file = io.StringIO(_text(path), newline="")
    first, skipped = _header(file)
    delimiter = max(DELIMITERS, key=first.count)
    header = [name.strip().lower() for name in next(csv.reader([first], delimiter=delimiter), [])]
    places = _places(path, header)
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            line = skipped + reader.line_num
            if not cells:
                continue
            if len(cells) != len(header):
                raise _malformed(path, line, f"{len(cells)} columns where the header has {len(header)}")
            when, o, h, low, c, volume, symbol = (cells[place].strip() for place in places)
            if not symbol:
                raise _malformed(path, line, "the symbol is empty")
            yield _symbol(symbol, path, line), (_utc(when, path, line), o, h, low, c, volume)
    except csv.Error as error:
        raise _malformed(path, skipped + reader.line_num, str(error)) from None


def _header(file: io.StringIO) -> tuple[str, int]:
    """Read up to the header: blank lines, comments and a spreadsheet's ``sep=`` line may precede it.

    Return the header and its line number.
    """
    number = 0
    for number, line in enumerate(iter(file.readline, ""), 1):
        text = line.strip().lower()
        if text and not text.startswith(("#", "sep=")):
            return line, number
    return "", number


def _places(path: Path, header: list[str]) -> list[int]:
    missing = [name for name in COLUMNS if name not in header]
    if len(missing) == len(COLUMNS):
        raise BadInputError(f"recording {path} has no header line: {EXPECTED}")
    if missing:
        raise BadInputError(f"recording {path} lacks the column(s) {', '.join(missing)}: {EXPECTED}")
    return [header.index(name) for name in COLUMNS]


def _json_bars(path: Path) -> list[tuple[str, Row]]:
    try:
        body = orjson.loads(_text(path))
    except orjson.JSONDecodeError as error:
        raise BadInputError(f"recording {path} is broken JSON: {error}") from None
    if isinstance(body, dict) and body.get("status") == "error":
        raise BadInputError(f"recording {path} holds an error answer, not bars: {body.get('message')}")
    try:
        meta, values = body["meta"], list(body["values"])
        symbol = meta["symbol"]
    except (KeyError, TypeError):
        needs = "meta.symbol and values"
        raise BadInputError(f"recording {path} is not one symbol's answer: it needs {needs}") from None
    name = _symbol(str(symbol), path, 1, "meta")
    if found := contradictions(name, meta):
        raise BadInputError(
            f"recording {path} is rejected: {'; '.join(item.message for item in found)}. Nothing was stored. Give "
            f"{INTERVAL} bars of US shares or funds, in dollars."
        )
    return [(name, _json_row(value, path, n)) for n, value in enumerate(values, 1)]


def _symbol(text: str, path: Path, number: int, unit: str = "line") -> str:
    try:
        return check_symbol(text)
    except BadInputError as error:
        raise _malformed(path, number, str(error), unit) from None


def _json_row(value: object, path: Path, number: int) -> Row:
    if not isinstance(value, dict):
        raise _malformed(path, number, "not an object", "value")
    missing = [name for name in COLUMNS[:-1] if name not in value]
    if missing:
        raise _malformed(path, number, f"lacks {', '.join(missing)}", "value")
    opened = _utc(str(value["datetime"]), path, number, "value")
    o, h, low, c, volume = (_as_text(value[name]) for name in VALUES)
    return opened, o, h, low, c, volume


def _as_text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()


def _utc(text: str, path: Path, number: int, unit: str = "line") -> datetime:
    try:
        naive = datetime.fromisoformat(text)
        if naive.tzinfo is None and len(text) > len("2025-07-02") and 1900 <= naive.year < 2200:
            return naive.replace(tzinfo=NEW_YORK).astimezone(UTC)
    except ValueError:
        pass
    raise _malformed(path, number, f"{text[:40]!r} is not a wall-clock datetime such as '2025-07-02 09:30:00'", unit)


def _malformed(path: Path, number: int, what: str, unit: str = "line") -> BadInputError:
    return BadInputError(f"recording {path}, {unit} {number}: {what}")


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BadInputError(f"recording {path} cannot be read: {error.strerror}") from None
    if not raw.strip():
        raise BadInputError(f"recording {path} is empty: {EXPECTED}, or a Twelve Data JSON answer")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise BadInputError(f"recording {path} is not a UTF-8 text file: {EXPECTED}")
    return text
