"""Summaries of backtests for the tests of the report and of the page."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from barflow.backtest.statistics import Returns, RuleStatistics, Silence
from barflow.backtest.summary import Summary
from barflow.backtest.thresholds import Sensitivity

MADE = datetime(2025, 7, 31, 12, 0, tzinfo=UTC)
HOSTILE = """<img src=x onerror="alert(1)">&'</script>"""


def figures(name: str, alerts: int = 40, mean: float = 0.0123) -> RuleStatistics:
    """Return the figures of a rule: made up, each different."""
    found = Returns(alerts - 3, 12, mean, (mean - 0.01, mean + 0.01), -0.0004, 0.523, (0.45, 0.612), 0.496)
    few = Returns(3, 2, -0.002, None, 0.001, 1 / 3, None, 0.5)
    horizons = {"30min": few, "1h": found, "close": found, "1_session": found, "5_sessions": Returns()}
    return RuleStatistics(
        name, alerts, 30, 10, 38.2, 5, {"2025-06": 1234, "2025-07": 30}, {"TSLA": 30, "AAPL": 10},
        Silence(7, date(2025, 7, 8), date(2025, 7, 16)), horizons,
        (Sensitivity("rsi(14) < 30.0", 30.0, {"-20": 12, "-10": 25, "+10": 52, "+20": 71}),),
    )  # fmt: skip


def silent(name: str) -> RuleStatistics:
    """Return the figures of a rule that never fired."""
    returns = dict.fromkeys(("30min", "1h", "close", "1_session", "5_sessions"), Returns())
    return RuleStatistics(
        name,
        0,
        0,
        0,
        0.0,
        0,
        {"2025-06": 0, "2025-07": 0},
        {},
        Silence(22, date(2025, 6, 27), date(2025, 7, 30)),
        returns,
    )


def summary(minutes: int = 0, *, rule: str = "dip", note: str = "a note") -> Summary:
    """Return a backtest of two rules that was made so many minutes after MADE."""
    return Summary(
        MADE + timedelta(minutes=minutes), f"barflow alerts backtest --rule {rule}", "the archive", date(2025, 6, 27),
        date(2025, 7, 30), 22, ("AAPL", "TSLA"), 3432, "splits", False, (figures(rule), silent("never")),
        {rule: "rsi(14) < 30.0", "never": "gap: 90 percent"}, (note,),
    )  # fmt: skip
