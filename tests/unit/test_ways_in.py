"""Any answer, recording or rules file: no traceback, no wrong number, every bar accounted for."""

from __future__ import annotations

import copy
import io
import json
import string
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from requests.adapters import BaseAdapter

from barflow.alerts.rules import RuleBook
from barflow.alerts.rules_file import load_rules
from barflow.errors import BadInputError, BarflowError
from barflow.market.recordings import Recording, validate_rows
from barflow.market.validation import Validated, validate
from barflow.twelvedata.client import Answer, TwelveDataClient

NOW = datetime(2025, 7, 30, 20, 0, tzinfo=UTC)
START = NOW - timedelta(hours=7)
ALWAYS = (datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))
SYMBOLS = ("AAPL", "MSFT")

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(["ok", "error", "1h", "5min", "CAD", "AAPL", "BRK-B", "200.5", "1e308", "NaN", "-0", "2025-07-30"]),
)
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner)),
    max_leaves=8,
)
FIELDS = ("datetime", "open", "high", "low", "close", "volume")


def good_part(symbol: str) -> dict[str, Any]:
    meta = {"symbol": symbol, "interval": "5min", "currency": "USD", "exchange_timezone": "America/New_York"}
    times = [f"{NOW - timedelta(minutes=5 * n):%Y-%m-%d %H:%M:%S}" for n in range(1, 5)]
    values = [dict(zip(FIELDS, (at, "10", "11", "9", "10.5", "7"), strict=True)) for at in times]
    return {"meta": meta, "values": values, "status": "ok"}


@st.composite
def changed_answers(draw: st.DrawFn) -> dict[str, Any]:
    """Return an answer for both symbols in which some values, fields or parts are replaced or removed."""
    body: dict[str, Any] = {symbol: good_part(symbol) for symbol in SYMBOLS}
    for _ in range(draw(st.integers(1, 4))):
        place: Any = body
        while isinstance(place, (dict, list)) and place:
            key = (
                draw(st.sampled_from(sorted(place)))
                if isinstance(place, dict)
                else draw(st.integers(0, len(place) - 1))
            )
            inner = place[key]
            if not isinstance(inner, (dict, list)) or not inner or draw(st.integers(0, 3)) == 0:
                if draw(st.booleans()):
                    place[key] = draw(anything)
                else:
                    del place[key]
                break
            place = inner
    return copy.deepcopy(body)


class Canned(BaseAdapter):
    """An HTTP adapter that always answers the same body."""

    def __init__(self, body: bytes, status: int) -> None:
        super().__init__()
        self.body, self.status = body, status

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        response = requests.Response()
        response.status_code, response.url, response.request = self.status, request.url or "", request
        response.raw = io.BytesIO(self.body)
        return response

    def close(self) -> None:
        pass


def results(body: bytes, status: int) -> list[Any] | None:
    """Return the client's results for this answer, or None for one clear error."""
    session = requests.Session()
    session.mount("http://", Canned(body, status))
    slept: list[float] = []
    client = TwelveDataClient(
        "http://127.0.0.1:1", SecretStr("key"), credits_per_minute=1000, credits_per_day=None, batch_size=8,
        clock=lambda: NOW + timedelta(seconds=sum(slept)), sleep=slept.append, session=session, attempts=2,
    )  # fmt: skip
    try:
        return list(client.time_series(SYMBOLS, START, NOW))
    except BarflowError as error:
        is_one_line(error)
        return None


def is_one_line(error: Exception, *named: object) -> None:
    text = str(error)
    assert text.strip()
    assert "\n" not in text
    assert all(str(name) in text for name in named)


def check(result: Validated) -> None:
    """Every received row is accounted for, and each stored bar is one that a row holds."""
    assert result.received == result.accepted + result.repeated + result.forming + len(result.rejected)
    assert all(item.reasons for item in result.rejected)
    for session in result.sessions.values():
        assert session.bars(), "every bar keeps the invariants"


@settings(max_examples=150, deadline=None)
@given(st.one_of(changed_answers(), anything), st.sampled_from([200, 200, 200, 404, 429, 500]))
def test_any_json_that_a_vendor_sends_gives_bars_or_one_clear_error(body: Any, status: int) -> None:
    answered = results(json.dumps(body).encode(), status)
    if answered is None:
        return
    assert sorted(item.symbol for item in answered) == sorted(SYMBOLS)
    for item in answered:
        if isinstance(item, Answer):
            result = validate(item.symbol, item.meta, item.values, NOW)
            check(result)
            for session in result.sessions.values():
                assert set(session.close) <= {float(v["close"]) for v in item.values if _is_number(v, "close")}


def _is_number(value: Any, name: str) -> bool:
    try:
        return isinstance(value, dict) and float(value[name]) is not None
    except (KeyError, TypeError, ValueError):
        return False


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_that_a_vendor_sends_give_one_clear_error(body: bytes) -> None:
    results(body, 200)


cells = st.one_of(
    st.sampled_from(
        ["2025-07-30 09:30:00", "2025-07-30 13:35", "30/07/2025 09:30", "200,5", "200.5", "1e309", '"x"', ""]
    ),
    st.text(string.printable, max_size=8),
    st.text(max_size=4),
    st.floats().map(repr),
)
good_lines = st.builds(
    lambda slot, symbol: f"{datetime(2025, 7, 30, 9, 30) + timedelta(minutes=5 * slot)},10,11,9,10.5,7,{symbol}",
    st.integers(0, 77), st.sampled_from(["AAPL", "brk-b", "BTC/USD", " TSLA "]),
)  # fmt: skip
lines = st.one_of(good_lines, st.lists(cells, min_size=1, max_size=8).map(",".join))
headers = st.sampled_from(
    [
        "datetime,open,high,low,close,volume,symbol",
        "Symbol;datetime;Open;high;low;close;volume",
        "sep=,",
        "# x",
        "a,b",
        "",
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(headers, min_size=1, max_size=3), st.lists(lines, max_size=6), st.sampled_from(["\n", "\r\n", "\r"]))
def test_any_csv_that_a_spreadsheet_writes_is_read_whole_or_rejected_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, head: list[str], body: list[str], ending: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(ending.join([*head, *body]).encode("utf-8", "surrogatepass"))
    try:
        recording = Recording.load(path)
    except BadInputError as error:
        is_one_line(error, path)
        return
    for symbol in recording.symbols:
        rows = recording.rows(symbol, *ALWAYS)
        assert len(rows) == recording.held(symbol, ALWAYS[1])
        check(validate_rows(symbol, rows, recording.as_of))


RULES = (Path(__file__).parents[2] / "barflow" / "alerts" / "alerts.toml").read_text()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_rules_file_is_read_or_rejected_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    text = RULES
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        new = data.draw(
            st.one_of(st.text(max_size=5), st.sampled_from(["=", "[[rule]]\n", "nan", "-1", "[]", "'", "\n"]))
        )
        text = text[:at] + new + text[at + data.draw(st.integers(0, 12)) :]
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        assert isinstance(load_rules(path), RuleBook)
    except BadInputError as error:
        is_one_line(error, path)
    else:
        tomllib.loads(text.removeprefix("\ufeff"))
