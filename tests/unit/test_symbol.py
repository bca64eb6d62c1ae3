"""Symbols: one check on every way in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barflow.alerts.rules_file import parse_rules
from barflow.errors import BadInputError
from barflow.market.recordings import Recording
from barflow.settings import load_settings
from barflow.symbol import check_symbol, is_symbol, parse_symbols, read_watch_list
from config.environment import Environment
from config.validation import ConfigError

WRONG = (
    "../../etc", "..", "A..B", "/A", "A/", "-A", "A\x1b[31m", "ＡＡＰＬ", "ſ", "ıbm", "A\u202eB", "<!channel>",
    "A" * 25,     "AA PL", "A\n", "a|b", "[/x]", "*A",
)  # fmt: skip
RIGHT = ("AAPL", "BRK.B", "AAPL:NASDAQ", "BTC/USD", "BF-B", "7203")


@pytest.mark.parametrize("symbol", RIGHT)
def test_a_symbol_is_taken_in_upper_case(symbol: str) -> None:
    assert check_symbol(symbol.lower()) == symbol


@given(st.text(st.characters(), max_size=30))
def test_what_is_taken_is_ascii_without_a_path(text: str) -> None:
    if is_symbol(text):
        assert text.isascii()
        assert text.isprintable()
        assert ".." not in text
        assert text[0].isalnum()


def recorded(symbol: str, folder: Path, kind: str) -> Path:
    bar = {"datetime": "2025-07-02 09:30:00", "open": "1", "high": "1", "low": "1", "close": "1", "volume": "1"}
    if kind == "json":
        path = folder / "answer.json"
        path.write_text(json.dumps({"meta": {"symbol": symbol}, "values": [bar]}))
    else:
        path = folder / "bars.csv"
        path.write_text(f'{",".join(bar)},symbol\n{",".join(bar.values())},"{symbol}"\n')
    return path


@pytest.mark.parametrize("symbol", [item for item in WRONG if item != "A\n"])
def test_every_way_in_rejects_what_is_no_symbol(symbol: str, tmp_path: Path) -> None:
    for attempt in (
        lambda: parse_symbols(f"AAPL,{symbol}"),
        lambda: load_settings(symbols=symbol),
        lambda: load_settings(symbols=("AAPL", symbol)),
        lambda: Recording.load(recorded(symbol, tmp_path, "csv")),
        lambda: Recording.load(recorded(symbol, tmp_path, "json")),
    ):
        with pytest.raises(BadInputError, match=r"is not a symbol|must hold only visible characters") as caught:
            attempt()
        assert str(caught.value).isprintable()
    with pytest.raises(ConfigError, match=r"symbols.* is "):
        Environment(name="dev", symbols=(symbol,))
    rule = {"id": "a", "kind": "level", "level": 1}
    for content in ({"rule": [{**rule, "symbols": [symbol]}]}, {"rule": [rule], "defaults": {symbol: {}}}):
        with pytest.raises(ValueError, match="single"):
            parse_rules(content)


def test_of_several_spellings_of_a_share_the_first_one_stays() -> None:
    assert parse_symbols("BRK-B, aapl, BRK.B, brk/b, AAPL, BTC/USD") == ("BRK-B", "AAPL", "BTC/USD")


def test_a_watch_list_has_a_symbol_per_line_and_comments(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_bytes(b"\xef\xbb\xbf# tech\r\naapl\r\n\r\n  MSFT  # cloud\r\nBRK.B\r\nAAPL\r\nBRK-B")
    assert read_watch_list(file) == ("AAPL", "MSFT", "BRK.B")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no symbols: write one per line, such as AAPL"),
        (b"# nothing\n\n", "has no symbols"),
        (b"AAPL\nMSFT, TSLA\n", "line 2: 'MSFT, TSLA' is not a symbol: use letters"),
        (b"AAPL\n../etc\n", "line 2: '../etc' is not a symbol"),
        (b"\xff\xfe\x00", "is not UTF-8 text. Save the file as UTF-8"),
        (None, r"cannot be read \(No such file or directory\)"),
    ],
)
def test_a_bad_watch_list_is_named_with_its_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "list.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BadInputError, match=f"watch list .*list.txt,? {message}"):
        read_watch_list(file)
