"""The message describes an alert in fields and in a sentence, in the format of its published schema."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alert_bars import NEWEST_DAY, backtested, bars_of, days, traded

from barflow.alerts.message import Message, schema
from barflow.alerts.rules import RuleBook
from barflow.alerts.rules_file import parse_rules

SCHEMA = Path(__file__).parents[2] / "docs" / "alert-message.schema.json"
CREATED_AT = datetime(2025, 7, 30, 20, 0, 1, tzinfo=UTC)
FLAT = [100.0] * 78
PAST = [bars_of(item.session_date, FLAT[: item.expected_bars]) for item in days(6)[:-1]]


def only_message(closes: list[float], **rule: object) -> Message:
    """Return the message of the only alert that a rule fires on a session after five sessions at 100 dollars."""
    columns = {name: rule.pop(name) for name in ("open", "high", "low", "volume") if name in rule}
    book: RuleBook = parse_rules({"rule": [{"id": "rule", **rule}]})
    today = bars_of(NEWEST_DAY, closes, **columns)
    (event,) = backtested(book, [*PAST, today], traded(NEWEST_DAY).closes)
    return Message.of(event, CREATED_AT)


def test_the_published_schema_matches_the_message() -> None:
    assert json.loads(SCHEMA.read_text()) == schema(), "update it with python -m barflow.alerts.message"


def test_a_message_has_the_fields_that_a_bot_needs_and_survives_json() -> None:
    message = only_message(FLAT, kind="gap", percent=5.0, open={0: 93.0}, low={0: 93.0}, severity="critical")
    assert json.loads(message.model_dump_json()) == {
        "schema_version": 1,
        "id": "rule|AAPL|2025-07-30T13:30:00Z",
        "rule": "rule",
        "kind": "gap",
        "symbol": "AAPL",
        "severity": "critical",
        "session_date": "2025-07-30",
        "bar_start": "2025-07-30T13:30:00Z",
        "direction": "down",
        "value": -7.0,
        "unit": "percent",
        "reference": 100.0,
        "price": 100.0,
        "text": "AAPL opened 7.00 % below the previous close of 100.00",
        "created_at": "2025-07-30T20:00:01Z",
    }
    assert Message.model_validate_json(message.model_dump_json()) == message


@pytest.mark.parametrize(
    ("closes", "rule", "text"),
    [
        ([100, 104, *[104] * 76], {"kind": "level", "level": 103}, "AAPL rose to 104.00, through 103.00"),
        (
            [100, 96, *[96] * 76],
            {"kind": "move", "percent": 3, "minutes": 30},
            "AAPL fell 4.00 % within 30 min, from 100.00 to 96.00",
        ),
        (
            [10.0] * 78,
            {"kind": "split", "open": {0: 10.1}},
            "AAPL opened 89.90 % below the previous close of 100.00, like a 10-for-1 split that is not known; no "
            "other rule compares this session with earlier ones",
        ),
        (
            FLAT,
            {"kind": "volume", "times": 5, "sessions": 5, "volume": {7: 12_345}},
            "AAPL traded 12.3 times its usual volume for the time of day (1,000 shares)",
        ),
        (
            [99.0, *[101.0] * 77],
            {"kind": "average", "sessions": 5, "direction": "up"},
            "AAPL rose to 101.00, through its 5-session average of 100.20",
        ),
        (
            [99.0, *[101.0] * 77],
            {"kind": "average", "bars": 10, "direction": "up"},
            "AAPL rose to 101.00, through its 10-bar average of 100.00",
        ),
        ([102.0] * 78, {"kind": "extreme", "sessions": 5}, "AAPL reached 102.00, above its 5-session high of 100.00"),
        (
            FLAT[:70],
            {"kind": "silence", "minutes": 30},
            "AAPL has had no bar for 40 min of the open session; its last close was 100.00",
        ),
    ],
)
def test_each_kind_of_alert_has_a_sentence(closes: list[float], rule: dict[str, object], text: str) -> None:
    assert only_message(closes, **rule).text == text
