"""The error of a tick names every symbol that Twelve Data refused, by kind, with what to do about each kind."""

from __future__ import annotations

import pytest

from barflow.errors import BadInputError, BarflowError, UnavailableError, VendorRefusedError
from barflow.pipeline.ingest_report import IngestReport, raise_errors
from barflow.twelvedata.client import SymbolError

UNKNOWN = SymbolError("APPL", 404, "symbol not found.")
PLAN = SymbolError("VOD", 403, "available with the Grow plan")
SILENT = SymbolError("TSLA", 503, "no answer")
UNCLEAR = SymbolError("NVDA", 404, "nothing there")


def error_of(*errors: SymbolError) -> BarflowError:
    report = IngestReport("run", errors={item.symbol: item for item in errors})
    with pytest.raises(BarflowError) as caught:
        raise_errors(report)
    return caught.value


@pytest.mark.parametrize(
    ("error", "kind", "advice"),
    [
        (UNKNOWN, BadInputError, "Check the spelling, then run again."),
        (PLAN, VendorRefusedError, "Choose symbols of your plan, then run again."),
        (SILENT, UnavailableError, "Wait a minute, then run again."),
        (UNCLEAR, UnavailableError, "Wait a minute, then run again."),
    ],
)
def test_each_kind_has_its_own_error_and_advice(error: SymbolError, kind: type[BarflowError], advice: str) -> None:
    found = error_of(error)
    assert type(found) is kind
    assert str(found).endswith(f"Nothing was stored. {advice}")


def test_mixed_kinds_each_have_their_own_sentence_and_advice() -> None:
    assert str(error_of(SILENT, UNKNOWN, PLAN)) == (
        "Twelve Data refused VOD (available with the Grow plan). Twelve Data does not know APPL (symbol not found). "
        "Twelve Data gave no usable answer for TSLA (no answer). Nothing was stored. "
        "Choose symbols of your plan, check the spelling, wait a minute, then run again."
    )
