"""Rules are data: each value is validated, and an error names the rule, the field and the allowed values."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from barflow.alerts.rules import GapRule, LevelRule, MoveRule
from barflow.alerts.rules_file import load_rules
from barflow.errors import BadInputError
from barflow.settings import load_settings

LEVEL = '[[rule]]\nid = "level"\nkind = "level"\nlevel = 100\n'
GAP = '[[rule]]\nid = "gap"\nkind = "gap"\n'


@pytest.fixture
def rules_file(tmp_path: Path) -> Path:
    return tmp_path / "alerts.toml"


def test_the_default_rules_are_those_of_the_documentation() -> None:
    rules = {rule.id: rule for rule in load_rules().all}
    assert list(rules) == [
        "gap_5pct",
        "unknown_split",
        "move_3pct_30min",
        "volume_spike_5x",
        "cross_average_20d",
        "high_low_10d",
        "stale_feed",
    ]
    gap, move = rules["gap_5pct"], rules["move_3pct_30min"]
    assert isinstance(gap, GapRule)
    assert gap.percent == 5
    assert isinstance(move, MoveRule)
    assert (move.percent, move.minutes) == (3, 30)


def test_the_setting_alerts_file_overrides_the_default_rules(rules_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules_file.write_text(GAP + "percent = 1.0")
    monkeypatch.setenv("BARFLOW_ALERTS_FILE", str(rules_file))
    assert [rule.id for rule in load_rules(load_settings().alerts_file).all] == ["gap"]
    monkeypatch.setenv("BARFLOW_ALERTS_FILE", "")
    assert load_settings().alerts_file is None


def test_a_file_of_a_windows_editor_is_read(rules_file: Path) -> None:
    rules_file.write_bytes(b"\xef\xbb\xbf" + (GAP + "percent = 1.0").replace("\n", "\r\n").encode())
    assert [rule.id for rule in load_rules(rules_file).all] == ["gap"]
    rules_file.write_text(GAP + "percent = 1.0", "utf-16")
    with pytest.raises(BadInputError, match=r"\.toml are not UTF-8 text\. Save the file as UTF-8"):
        load_rules(rules_file)


def test_a_rules_value_for_a_symbol_wins_over_the_rules_own_and_over_the_defaults(rules_file: Path) -> None:
    rules_file.write_text(
        """
        [defaults."*"]
        severity = "warning"
        cool_down_minutes = 30
        [defaults.TSLA]
        cool_down_minutes = 240
        channels = ["slack"]
        [[rule]]
        id = "move"
        kind = "move"
        percent = 3.0
        minutes = 30
        per_symbol.tsla.percent = 5.0
        [[rule]]
        id = "gap"
        kind = "gap"
        percent = 5.0
        severity = "critical"
        symbols = "TSLA, NVDA"
        """
    )
    book = load_rules(rules_file)

    def values_of(symbol: str) -> list[tuple[str, float, str, int, tuple[str, ...]]]:
        return [
            (rule.id, getattr(rule, "percent", 0), rule.severity, rule.cool_down_minutes, rule.channels)
            for rule in book.rules(symbol)
        ]

    every = ("sns", "slack", "apprise", "webhook", "sse")
    assert values_of("AAPL") == [("move", 3, "warning", 30, every)]
    assert values_of("NVDA") == [("move", 3, "warning", 30, every), ("gap", 5, "critical", 30, every)]
    assert values_of("TSLA") == [("move", 5, "warning", 240, ("slack",)), ("gap", 5, "critical", 240, ("slack",))]


def test_a_level_has_the_day_of_its_shares(rules_file: Path) -> None:
    for text in ("2024-05-31", '"2024-05-31"'):
        rules_file.write_text(LEVEL + f"as_of = {text}\nper_symbol.NVDA.as_of = 2024-06-10")
        book = load_rules(rules_file)
        found = [
            rule.as_of for symbol in ("AAPL", "NVDA") for rule in book.rules(symbol) if isinstance(rule, LevelRule)
        ]
        assert found == [date(2024, 5, 31), date(2024, 6, 10)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GAP + "percent = -5", "rule gap: percent = -5: must be greater than 0"),
        (GAP + 'percent = "x"', "rule gap: percent = 'x': must be a valid number"),
        (GAP, "rule gap: percent is missing"),
        (GAP + "percent = 5\nfoo = 1", "rule gap: foo: unknown field; allowed are severity, cool_down_minutes"),
        (GAP + 'percent = 5\nseverity = "loud"', "severity = 'loud': must be 'info', 'warning' or 'critical'"),
        (
            GAP + 'percent = 5\nchannels = ["fax"]',
            "channels = 'fax': must be 'sns', 'slack', 'apprise', 'webhook' or 'sse'",
        ),
        (GAP + "percent = 5\ncool_down_minutes = -1", "rule gap: cool_down_minutes = -1: must be greater than or"),
        (GAP + "percent = 5\nsymbols = 3", "rule gap: symbols = 3: must be a list"),
        (GAP + "percent = 5\nper_symbol.TSLA.percent = 0", "rule gap for TSLA: percent = 0: must be greater than 0"),
        (
            GAP + "percent = 5\nper_symbol.BRK.B.percent = 9",
            'per_symbol.BRK.B: write a symbol with a dot in quotes: "BRK.B"',
        ),
        ("[defaults.BRK.B]\ncool_down_minutes = 5", 'defaults.BRK.B: write a symbol with a dot in quotes: "BRK.B"'),
        (GAP + "percent = 5\nper_symbol = 3", "rule gap: per_symbol: not tables by symbol"),
        (GAP + "percent = 5\n" + GAP + "percent = 6", "rule gap: id: two rules have it"),
        ('[[rule]]\nid = "a"\nkind = "jump"', "rule a: kind = 'jump': allowed are level, move, gap, split, volume"),
        (
            '[[rule]]\nid = "A|b"\nkind = "gap"\npercent = 5',
            "id = 'A|b': must be lower-case letters, digits and _",
        ),
        ('[[rule]]\nkind = "gap"\npercent = 5', "rule number 1: id is missing"),
        (
            '[[rule]]\nid = "a"\nkind = "volume"',
            "rule a: times is missing: The bar's volume is more than x times",
        ),
        ('[[rule]]\nid = "a"\nkind = "average"', "rule a: give either sessions (2 to 250 daily closes) or bars"),
        ('[[rule]]\nid = "a"\nkind = "level"\nlevel = inf', "rule a: level = inf: must be a finite number"),
        (LEVEL + "as_of = 2999-01-01", "rule level: as_of = 2999-01-01: must be a day up to today"),
        (LEVEL + 'as_of = "31 May"', "rule level: as_of = '31 May': must be a date such as 2024-05-31"),
        (LEVEL + "as_of = 2024", "rule level: as_of = 2024: must be a date such as 2024-05-31"),
        (LEVEL + "as_of = 2024-05-31T09:30:00", "as_of = 2024-05-31 09:30:00: must be a date such as 2024-05-31"),
        (GAP + "percent = 5\nas_of = 2024-05-31", "rule gap: as_of: unknown field"),
        ('[[rule]]\nid = "a"\nkind = "silence"\nminutes = 7', "rule a: minutes = 7: must be a multiple of 5"),
        ("[defaults.TSLA]\npercent = 5", "defaults of TSLA: percent: unknown field; allowed are severity"),
        ("defaults = 3", "defaults: not tables by symbol"),
        ("rule = [3]", "rule: not a list of tables; write each rule as a table [[rule]]"),
        ("rules = 3", "rules: unknown; allowed are"),
        ("[[rule", "are not TOML"),
        pytest.param("rule = " + "[" * 20_000, "not TOML of rules: values are nested too deeply", id="nested"),
    ],
)
def test_an_error_names_the_rule_the_field_and_the_allowed_values(rules_file: Path, text: str, message: str) -> None:
    rules_file.write_text(text)
    with pytest.raises(BadInputError) as error:
        load_rules(rules_file)
    assert message in str(error.value)
    assert str(rules_file) in str(error.value)
    assert "\n" not in str(error.value)


def test_the_error_of_a_missing_file_names_the_file_and_the_setting(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"missing\.toml cannot be read .*BARFLOW_ALERTS_FILE"):
        load_rules(tmp_path / "missing.toml")
