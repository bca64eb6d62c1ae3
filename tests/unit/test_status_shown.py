"""Does `barflow status` tell of alerts that no channel takes, and say nothing of them while none waits?"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from barflow.cli.terminal import show_status, status_json
from barflow.pipeline.status import SymbolStatus

NOW = datetime(2025, 7, 17, 15, 0, tzinfo=UTC)
FOUND = {"AAPL": SymbolStatus("AAPL", newest_staged=NOW)}


@pytest.mark.parametrize(("seconds", "told"), [(2520.4, True), (0.0, False)])
def test_alerts_that_wait_are_told(seconds: float, told: bool, capsys: pytest.CaptureFixture[str]) -> None:
    show_status(FOUND, {}, NOW, seconds)
    shown = " ".join(capsys.readouterr().out.split())
    assert ("an alert has waited for 42 min: `barflow alerts list --undelivered`" in shown) is told
    assert status_json(FOUND, {}, NOW, seconds)["undelivered_alert_seconds"] == round(seconds)
