"""Each day of each name belongs to exactly one share, and a wrong file is rejected with one line."""

from __future__ import annotations

import tomllib
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barflow.errors import BadInputError
from barflow.market.instruments import DEFAULT_FILE, Instruments, Name, load_instruments, parse_instruments
from barflow.settings import load_settings

FIRST, DAY = date(2022, 1, 1), timedelta(days=1)
META = """
[[instrument]]
symbol = "META"
former = [{ symbol = "FB", last_day = 2022-06-08 }]
first_session = 2012-05-18
"""
# A fund that has the ticker FB since 2025.
REUSED = '[[instrument]]\nsymbol = "FB"\nfirst_session = 2025-06-02\n'
B, C = (
    'former = [{{ symbol = "{}", last_day = {} }}]'.format(*pair) for pair in (("B", "2022-06-08"), ("C", "2021-06-08"))
)


def instruments(*texts: str) -> Instruments:
    return parse_instruments(tomllib.loads("".join(texts)))


def test_a_renamed_share_has_one_name_on_each_day() -> None:
    found = instruments(META)
    assert found.names("FB") == found.names("META")
    assert found.names("META") == (
        Name("FB", date(2012, 5, 18), date(2022, 6, 8)),
        Name("META", date(2022, 6, 9), date.max),
    )
    assert (found.present("FB"), found.present("META"), found.present("AAPL")) == ("META", "META", "AAPL")
    assert found.present_on("FB", date(2022, 6, 8)) == "META"
    # FB after the rename is not Meta's.
    assert found.present_on("FB", date(2022, 6, 9)) == "FB"
    assert found.stored_names(["AAPL", "META", "FB"]) == ("AAPL", "META", "FB")
    assert found.resolve(["FB", "AAPL", "META"]) == (
        ("META", "AAPL"),
        ["FB is META today: it was FB until 2022-06-08"],
    )


def test_a_share_is_listed_from_its_first_to_its_last_session_under_any_name() -> None:
    found = instruments(META.replace("2012-05-18", "2012-05-18\nlast_session = 2024-03-01"))
    listed = [date(2012, 5, 18), date(2022, 6, 8), date(2022, 6, 9), date(2024, 3, 1)]
    assert all(found.is_listed(name, day) for name in ("FB", "META") for day in listed)
    assert not any(found.is_listed(name, day) for name in ("FB", "META") for day in (listed[0] - DAY, listed[-1] + DAY))
    assert found.is_listed("AAPL", date.min)
    assert found.to_ask(["META", "AAPL"], date(2024, 3, 1)) == (("META", "AAPL"), {})
    assert found.to_ask(["FB", "META", "AAPL"], date(2024, 3, 2)) == (
        ("AAPL",),
        dict.fromkeys(("FB", "META"), "not asked for: its last session was 2024-03-01"),
    )


def test_a_ticker_that_another_share_has_today_means_that_share() -> None:
    found = instruments(META, REUSED)
    assert (found.present("FB"), found.present("META")) == ("FB", "META")
    assert found.present_on("FB", date(2022, 6, 8)) == "META"
    assert found.present_on("FB", date(2025, 6, 2)) == "FB"
    assert found.stored_names(["META"]) == ("META", "FB")
    assert found.to_ask(["FB", "META"], date(2026, 1, 2)) == (("FB", "META"), {})


def test_the_newest_name_of_a_session_that_is_stored_twice_is_read() -> None:
    days = [date(2022, 6, day) for day in (7, 8, 9)]
    stored = [("FB", days[0]), ("META", days[1]), ("FB", days[1]), ("META", days[2]), ("FB", days[2])]
    expected = {
        ("META", days[0]): "FB",
        ("META", days[1]): "META",
        ("META", days[2]): "META",
        ("FB", days[2]): "FB",
    }
    assert instruments(META).chosen(stored) == expected
    assert instruments(META).chosen(reversed(stored)) == expected


def test_the_shipped_file_is_found_in_the_package_and_is_that_of_config() -> None:
    shipped = load_instruments(load_settings().instruments_file)
    assert shipped.names("META") == instruments(META).names("META")
    assert (shipped.present("ANTM"), shipped.present("UTX")) == ("ELV", "RTX")
    assert not shipped.is_listed("TWTR", date(2022, 10, 28))
    assert DEFAULT_FILE.read_bytes() == (Path(__file__).parents[2] / "config" / "instruments.toml").read_bytes()


def test_the_setting_names_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "own.toml"
    path.write_text('[[instrument]]\nsymbol = "new"\nformer = [{ symbol = "old", last_day = 2024-01-02 }]\n')
    monkeypatch.setenv("BARFLOW_INSTRUMENTS_FILE", str(path))
    assert load_instruments(load_settings().instruments_file).present("OLD") == "NEW"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[instrument]]\nsymbol = "A"\nlisted = 1', "instrument A: listed: unknown field; allowed are symbol, former"),
        (f'[[instrument]]\nsymbol = "A"\n{B[:-3]}, x = 1 }}]', "instrument A: former.1.x: unknown field; allowed are"),
        ("[[instrument]]\nformer = []", "instrument number 1: symbol is missing"),
        ('[[instrument]]\nsymbol = "A"\nformer = [{ symbol = "B" }]', "instrument A: former.1.last_day is missing"),
        ('[[instrument]]\nsymbol = "a b"', "instrument a b: symbol = 'a b': must be letters, digits"),
        (
            '[[instrument]]\nsymbol = "A"\nfirst_session = 20220608',
            "A: first_session = 20220608: must be a day without",
        ),
        ('[[instrument]]\nsymbol = "A"\nlast_session = "2022-06-08"', "A: last_session = '2022-06-08': must be a day"),
        ('[[instrument]]\nsymbol = "A"\nlast_session = 2022-06-08T00:00:00', "must be a day without quotes"),
        (f'[[instrument]]\nsymbol = "A"\n{B.replace("2022-06-08", "9999-12-31")}', "must be less than"),
        ('[[instrument]]\nsymbol = "A"\nformer = "B"', "instrument A: former = 'B': must be"),
        ('[[instrument]]\nsymbol = "A"\n' * 2, "instrument A: two entries have this symbol; write one entry per share"),
        (f'[[instrument]]\nsymbol = "B"\n{B}', "instrument B: former B: it is the present symbol; leave it out"),
        (
            f'[[instrument]]\nsymbol = "A"\n{B}\n[[instrument]]\nsymbol = "C"\n{B}',
            "instrument C: former B: it is already a former symbol of A; keep one entry",
        ),
        (
            f'[[instrument]]\nsymbol = "A"\n{B}\n[[instrument]]\nsymbol = "B"',
            "instrument A: former B: until 2022-06-08, but instrument B has this symbol. If that is the same share",
        ),
        (
            f'[[instrument]]\nsymbol = "A"\n{B}\n[[instrument]]\nsymbol = "B"\n{C.replace("C", "A")}',
            "instrument A: former B: until 2022-06-08, but instrument B has this symbol since 2021-06-09",
        ),
        (
            '[[instrument]]\nsymbol = "A"\nfirst_session = 2022-01-03\nlast_session = 2021-01-04',
            "instrument A: first_session 2022-01-03 is after last_session 2021-01-04",
        ),
        (
            f'[[instrument]]\nsymbol = "A"\nlast_session = 2022-06-08\n{B}',
            "instrument A: last_session 2022-06-08 is not after the last_day of its former symbols",
        ),
        (
            f'[[instrument]]\nsymbol = "A"\n{B[:-1]}, {C[10:]}',
            "instrument A: former C: last_day 2021-06-08 is before 2022-06-09, its first day; oldest first",
        ),
        ("instrument = 3", "instrument: not a list of tables; write each share as a table [[instrument]]"),
        ("instruments = 3", "instruments: unknown; write each share as a table [[instrument]]"),
        ("[[instrument", "are not TOML"),
    ],
)
def test_an_error_names_the_file_the_entry_and_what_to_do(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "instruments.toml"
    path.write_text(text)
    with pytest.raises(BadInputError) as error:
        load_instruments(path)
    assert message in str(error.value)
    assert str(error.value).startswith(f"instruments {path}")
    assert "\n" not in str(error.value)


def test_the_error_of_a_missing_file_names_the_file_and_the_setting(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"missing\.toml cannot be read .*BARFLOW_INSTRUMENTS_FILE"):
        load_instruments(tmp_path / "missing.toml")


DAYS = st.integers(0, 40).map(lambda days: FIRST + days * DAY)
SYMBOLS = st.sampled_from("ABCDE")
FORMER = st.dictionaries(DAYS, SYMBOLS, max_size=3).map(
    lambda found: [{"symbol": symbol, "last_day": day} for day, symbol in sorted(found.items())]
)
ENTRIES = st.fixed_dictionaries(
    {"symbol": SYMBOLS, "former": FORMER},
    optional={"first_session": DAYS, "last_session": DAYS},
)


@given(st.lists(ENTRIES, max_size=4))
def test_any_file_gives_each_day_of_each_name_to_exactly_one_share(entries: list[dict[str, object]]) -> None:
    try:
        found = parse_instruments({"instrument": entries})
    except ValueError:
        return
    shares = {found.present(name) for name in "ABCDE"} | {str(entry["symbol"]) for entry in entries}
    for day in (FIRST + days * DAY for days in range(-1, 43)):
        for name in "ABCDE":
            owners = [
                share
                for share in shares
                for item in found.names(share)
                if item.symbol == name and item.first <= day <= item.last
            ]
            assert len(owners) <= 1
            assert not owners or owners == [found.present_on(name, day)]
            assert name in found.stored_names([found.present_on(name, day)])
        for share in shares:
            held = [item for item in found.names(share) if item.first <= day <= item.last]
            assert len(held) == found.is_listed(share, day)
    for share in shares:
        assert found.present(share) == share
        assert found.names(share)[-1].symbol == share
