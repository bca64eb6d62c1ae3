"""What a tick did, per symbol, and the error that follows where symbols failed."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from barflow.errors import BadInputError, BarflowError, UnavailableError, VendorRefusedError
from barflow.market.answers import ANSWER_REASONS
from barflow.market.validation import REASONS
from barflow.staging.ledger import FAILED, PARTIAL, SUCCEEDED
from barflow.twelvedata.client import SymbolError

# The code of a symbol whose closed bars were all rejected.
ALL_REJECTED = 422
SUPPORTED = "Barflow stores regular sessions of US shares and funds, in dollars."


@dataclass
class Counts:
    """The bars of one symbol in one tick: received = new + revised + unchanged + rejected + forming."""

    received: int = 0
    new: int = 0
    revised: int = 0
    unchanged: int = 0
    rejected: int = 0
    forming: int = 0

    @property
    def balanced(self) -> bool:
        """Return whether every received bar is accounted for."""
        return self.received == self.new + self.revised + self.unchanged + self.rejected + self.forming

    def add(self, other: Counts) -> None:
        """Add other counts to these."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass
class IngestReport:
    """What a tick did: counts, errors, notes (flags) and the reasons of rejected bars, per symbol."""

    run_id: str
    counts: dict[str, Counts] = field(default_factory=dict)
    errors: dict[str, SymbolError] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    reasons: dict[str, Counter[str]] = field(default_factory=dict)
    alerts: int = 0

    @property
    def total(self) -> Counts:
        """Return the counts of all symbols together."""
        total = Counts()
        for counts in self.counts.values():
            total.add(counts)
        return total

    def add(self, other: IngestReport) -> None:
        """Add what another tick did to the counts and errors."""
        for symbol, counts in other.counts.items():
            self.counts.setdefault(symbol, Counts()).add(counts)
        self.errors |= other.errors

    def to_json(self) -> dict[str, Any]:
        """Return the report as one JSON object."""
        return {
            "run_id": self.run_id,
            "symbols": {symbol: asdict(counts) for symbol, counts in self.counts.items()},
            "errors": {symbol: item.message for symbol, item in self.errors.items()},
            "notes": self.notes,
        }

    @property
    def outcome(self) -> str:
        """Return ``succeeded``, ``partial`` or ``failed``."""
        if not self.errors:
            return SUCCEEDED
        return PARTIAL if self.counts else FAILED


def raise_errors(report: IngestReport) -> None:
    """Raise an error if Twelve Data refused any symbol of the tick.

    Raises UnavailableError if no answer was usable, VendorRefusedError for the limits of the plan, BadInputError
    for unknown symbols and for those whose bars were all rejected.
    """
    if not report.errors:
        return
    errors = list(report.errors.values())
    stored = len(report.counts.keys() - report.errors.keys())
    plural = "1 other symbol was" if stored == 1 else f"{stored} other symbols were"
    kept = f"{plural} stored." if stored else "Nothing was stored."
    rejected = [item for item in errors if item.code == ALL_REJECTED]
    unanswered = [item for item in errors if not item.is_final and item not in rejected]
    refused = [item for item in errors if item not in unanswered and item not in rejected]
    beyond_plan = [item for item in refused if "plan" in item.message.lower()]
    unknown = [item for item in refused if item not in beyond_plan]
    kinds: list[tuple[list[SymbolError], type[BarflowError], str, str]] = [
        (beyond_plan, VendorRefusedError, "Twelve Data refused", "Choose symbols of your plan"),
        (unknown, BadInputError, "Twelve Data does not know", "Check the spelling"),
        (rejected, BadInputError, "Every bar was rejected for", "See `barflow rejected list`"),
        (unanswered, UnavailableError, "Twelve Data gave no usable answer for", "Wait a minute"),
    ]
    found = [kind for kind in kinds if kind[0]]
    said = [f"{start} {'; '.join(map(_named, items))}." for items, _, start, _ in found]
    if rejected:
        said.append(SUPPORTED)
    (_, error, _, advice), *others = found
    todo = "".join(f", {other.lower()}" for *_, other in others)
    raise error(f"{' '.join(said)} {kept} {advice}{todo}, then run again.")


def add_rejections(report: IngestReport) -> None:
    """Add an error for each symbol with rejected bars and none that is stored, with the commonest reasons."""
    for symbol, counts in report.counts.items():
        if not counts.rejected or counts.received > counts.rejected + counts.forming:
            continue
        whole = [note for note in report.notes.get(symbol, ()) if note.partition(":")[0] in ANSWER_REASONS]
        common = [
            f"{count} of {counts.received} {reason}, {REASONS[reason]}"
            for reason, count in report.reasons[symbol].most_common(2)
        ]
        report.errors[symbol] = SymbolError(symbol, ALL_REJECTED, "; ".join(dict.fromkeys(whole or common)))


def _named(error: SymbolError) -> str:
    return f"{error.symbol} ({error.message.rstrip('.')})"
