"""`barflow status` shows undelivered alerts, and nothing about alerts when there are none."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from barflow.cli.terminal import show_status, status_json
from barflow.pipeline.status import SymbolStatus

NOW = datetime(2025, 7, 17, 15, 0, tzinfo=UTC)
FOUND = {"AAPL": SymbolStatus("AAPL", newest_staged=NOW)}


@pytest.mark.parametrize(("seconds", "shown"), [(2520.4, True), (0.0, False)])
def test_undelivered_alerts_are_shown(seconds: float, shown: bool, capsys: pytest.CaptureFixture[str]) -> None:
    show_status(FOUND, {}, NOW, seconds)
    printed = " ".join(capsys.readouterr().out.split())
    assert ("an alert has waited for 42 min: `barflow alerts list --undelivered`" in printed) is shown
    assert status_json(FOUND, {}, NOW, seconds)["undelivered_alert_seconds"] == round(seconds)
