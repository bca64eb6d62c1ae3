"""A backtest as known: the evaluations of past ticks again, on exactly the bars and splits that they saw.

The journal of evaluations holds what each of them saw. The alerts of the rules that the ticks had are therefore those
of the outbox. For a time that the journal does not cover, bars are evaluated by the times from which they were known.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from barflow.alerts.history import SymbolState
from barflow.alerts.journal import Evaluation, EvaluationJournal, Seen
from barflow.alerts.outbox import AlertStates
from barflow.alerts.rules import RuleBook
from barflow.backtest.known_bars import KnownBars
from barflow.backtest.known_moments import evaluate_when_known
from barflow.backtest.replay import NEARLY, Replay, listed
from barflow.backtest.result import Backtest

NO_TICK_BEFORE = datetime.min.replace(tzinfo=UTC)


def as_known(known: KnownBars, book: RuleBook, symbols: Sequence[str], start: date, end: date) -> Backtest:
    """Return the alerts of the sessions from ``start`` to ``end``, both included, as ticks would have found them.

    Former names of the ``symbols`` are included. If the journal covers a symbol from its first evaluation on and the
    ticks had the rules of ``book``, the ids are those of the live alerts. Notes say where that is not so.
    """
    instruments = known.instruments
    names = instruments.stored_names(symbols)
    named = instruments.stored_names(name for symbol in names for name in book.others(symbol))
    needed = [*dict.fromkeys((*names, *named))]
    journal, states = EvaluationJournal(known.database), AlertStates(known.database).load(needed)
    replay = Replay(known, book, (start, end), states, shown=names, named=named)
    journaled = JournalIndex.of(journal.evaluations(), states, needed)
    evaluate_when_known(replay, {symbol: journaled.begins.get(symbol) for symbol in needed})
    if missing := [symbol for symbol in needed if symbol not in journaled.begins]:
        replay.notes[f"{listed(missing)}: no tick has recorded what it saw: {NEARLY}"] = None
    for evaluation in journal.evaluations():
        replay.evaluate(evaluation, [seen for seen in evaluation.seen if journaled.took_effect(evaluation.id, seen)])
    return replay.result(tuple(symbols))


@dataclass
class JournalIndex:
    """From when on the journal covers each symbol (UTC), and which evaluations did not take effect.

    It covers all the time before the first evaluation of a symbol.
    """

    names: frozenset[str]
    begins: dict[str, datetime] = field(default_factory=dict)
    without_effect: set[tuple[str, str]] = field(default_factory=set)

    @classmethod
    def of(
        cls, evaluations: Iterable[Evaluation], states: Mapping[str, SymbolState], names: Sequence[str]
    ) -> JournalIndex:
        """Read the journal once.

        Of the evaluations that began with the same state, at most one has written the next: the one that a later
        evaluation, or the present state, names. The others died before or lost a race.
        """
        found = cls(frozenset(names))
        # By symbol, the evaluations that may have written the state: what each began with.
        open_: dict[str, dict[str, str | None]] = defaultdict(dict)
        for evaluation in evaluations:
            for seen in evaluation.seen:
                if seen.symbol not in found.names:
                    continue
                found.begins.setdefault(seen.symbol, NO_TICK_BEFORE if seen.before is None else evaluation.now)
                rivals = open_[seen.symbol]
                if seen.before in rivals:
                    found._settle(seen.symbol, rivals, seen.before)
                if seen.is_written:
                    rivals[evaluation.id] = seen.before
        for symbol, rivals in open_.items():
            last = states[symbol].evaluation if symbol in states else None
            found._settle(symbol, rivals, last)
            found.without_effect |= {(symbol, name) for name in rivals}
        return found

    def _settle(self, symbol: str, rivals: dict[str, str | None], written: str | None) -> None:
        """Record that an evaluation has written the state, and its rivals have not."""
        if written not in rivals:
            return
        before = rivals.pop(written)
        for lost in [name for name, began_with in rivals.items() if began_with == before]:
            del rivals[lost]
            self.without_effect.add((symbol, lost))

    def took_effect(self, evaluation: str, seen: Seen) -> bool:
        """Return whether an evaluation of one of the symbols took effect."""
        return seen.symbol in self.names and (seen.symbol, evaluation) not in self.without_effect
