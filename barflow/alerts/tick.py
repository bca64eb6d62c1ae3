"""Alerts in a tick: evaluate what the tick stores and what a dead run stored before it, then deliver.

The evaluation belongs to the storing of bars: when it fails, the tick fails. The delivery does not: a channel that is
down fails no tick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta

from pymongo.database import Database

from barflow.alerts.channels import Channel, kind_of
from barflow.alerts.comparison import Comparison
from barflow.alerts.delivery import Delivery
from barflow.alerts.evaluate import NEVER_FIRED, Evaluated, Evaluator, Event, feed_silences
from barflow.alerts.history import SymbolState
from barflow.alerts.journal import Evaluation, EvaluationJournal, compared_with, next_id, rules_id, seen_by
from barflow.alerts.message import Message
from barflow.alerts.outbox import OUTBOX_CHANNEL, AlertStates, Outbox, PendingEvaluations, outbox_document
from barflow.alerts.rules import RuleBook
from barflow.errors import BarflowError, UnavailableError, VendorRefusedError
from barflow.market.bars import day_of_key, document_key
from barflow.market.instruments import Instruments
from barflow.market.sessions import last_sessions, utc_now
from barflow.staging.actions import Actions
from barflow.staging.connection import Document
from barflow.staging.sessions import Saved, Staging, StoredSession

# Longer than any tick lasts. The run that added an older pending evaluation has died.
DEAD_AFTER = timedelta(minutes=20)
SYMBOLS_AT_ONCE = 100
MAX_ATTEMPTS = 20
Changed = Mapping[str, Sequence[StoredSession]]
# The first missing bar (UTC) and the minutes of a feed's alert.
FeedBar = tuple[datetime, float]


@dataclass(frozen=True)
class Feed:
    """Whether the feed is silent: the symbols without news, if most of the ``asked`` ones are, and its alerts.

    ``alerts`` holds the alert of the feed by the id of each silence that it replaces.
    """

    quiet: Sequence[str] = ()
    asked: int = 0
    alerts: Mapping[str, Event] = field(default_factory=dict)


NO_FEED = Feed()


class Alerts:
    """The alerts of one database. ``clock`` is the market's clock, which decides the newest session."""

    def __init__(
        self,
        database: Database[Document],
        book: RuleBook,
        channels: Iterable[Channel] = (),
        clock: Callable[[], datetime] = utc_now,
        instruments: Instruments | None = None,
    ) -> None:
        self.book, self.clock = book, clock
        self.instruments = instruments or Instruments()
        self.staging = Staging(database)
        self.actions = Actions(database)
        self.states = AlertStates(database)
        self.journal = EvaluationJournal(database)
        self._rules = rules_id(book)
        self.outbox = Outbox(database)
        self.pending = PendingEvaluations(database)
        self.delivery = Delivery(self.outbox, channels)
        self._evaluated: set[str] = set()
        # Of the current tick: how many alerts were new, the error of each channel that is down, the mutes that ended,
        # and notes by symbol.
        self.found = 0
        self.down: dict[str, str] = {}
        self.ended: list[str] = []
        self.notes: dict[str, list[str]] = {}

    def ensure(self) -> None:
        """Create collections and indexes that are missing."""
        self.outbox.ensure()
        self.journal.ensure()

    @contextmanager
    def during_tick(self, symbols: Sequence[str]) -> Iterator[None]:
        """Evaluate the pending sessions before a tick, and after it the silence of the symbols without news.

        The silence is evaluated also when Twelve Data fails or refuses the tick, since that is when a feed goes stale.
        """
        started = self.clock()
        self.delivery.begin_tick()
        self._evaluated, self.found, self.down, self.ended, self.notes = set(), 0, {}, [], {}
        for pending in self.pending.all():
            self._evaluate(_by_symbol(self.staging.sessions(pending.keys)), started)
            if utc_now() - pending.since > DEAD_AFTER:
                self.pending.remove(pending)
        self._deliver(more_follow=True)
        try:
            yield
        except BarflowError as error:
            with suppress(BarflowError):
                if isinstance(error, UnavailableError | VendorRefusedError):
                    self._finish_tick(symbols, started)
                else:
                    self._deliver()
            raise
        self._finish_tick(symbols, started)

    def _finish_tick(self, symbols: Sequence[str], started: datetime) -> None:
        quiet = [symbol for symbol in symbols if symbol not in self._evaluated]
        self._evaluate(dict.fromkeys(quiet, ()), started, self._feed(symbols, quiet, started))
        self._compare(sorted(self._evaluated), started)
        self._deliver()

    def _feed(self, symbols: Sequence[str], quiet: Sequence[str], now: datetime) -> Feed:
        """Return whether the feed is silent. It may be if most symbols have no news."""
        if 2 * len(quiet) <= len(symbols):
            return NO_FEED
        evaluator = Evaluator(self.book, now)
        states = self.states.load(quiet).values()
        silences = (event for state in states for event in evaluator.silences(state))
        return Feed(quiet, len(symbols), feed_silences(silences, len(symbols)))

    def _deliver(self, *, more_follow: bool = False) -> None:
        report = self.delivery.run(more_follow=more_follow)
        self.down |= report.down
        self.ended += report.notes

    def save(
        self, keys: Sequence[str], run_id: str, requested_at: datetime, save: Callable[[], Mapping[str, Saved]]
    ) -> Mapping[str, Saved]:
        """Run ``save``, which stores sessions of these keys. Evaluate what it changed, and deliver new alerts.

        ``requested_at`` is when the first of them was requested. A bar that closed after it is not missing. Sessions
        older than those that the rules look at, as in a backfill, are stored without an evaluation.
        """
        reach = last_sessions(self.clock(), Evaluator(self.book, self.clock()).history)[0].session_date
        evaluated = [key for key in keys if day_of_key(key) >= reach]
        if not evaluated:
            return save()
        pending = self.pending.add(run_id, evaluated)
        saved = save()
        within = {
            symbol: [item for item in done.changed if item.bars.session_date >= reach] for symbol, done in saved.items()
        }
        changed = {symbol: found for symbol, found in within.items() if found}
        found_before = self.found
        self._evaluate(changed, min(requested_at, self.clock()))
        self.pending.remove(pending)
        if self.found > found_before:
            self._deliver(more_follow=True)
        return saved

    def _evaluate(self, changed: Changed, now: datetime, feed: Feed = NO_FEED) -> None:
        """Evaluate sessions as known at ``now``, and count the alerts that are new in the outbox."""
        evaluator = Evaluator(self.book, now)
        symbols = list(changed)
        for start in range(0, len(symbols), SYMBOLS_AT_ONCE):
            part: Changed = {symbol: changed[symbol] for symbol in symbols[start : start + SYMBOLS_AT_ONCE]}
            for _ in range(MAX_ATTEMPTS):
                part = self._evaluate_once(evaluator, part, feed)
                if not part:
                    break
            else:
                raise _overtaken(part)
        self._evaluated.update(symbols)

    def _evaluate_once(self, evaluator: Evaluator, changed: Changed, feed: Feed) -> Changed:
        """Evaluate once. Return the symbols that another tick evaluated at the same time."""
        states = self.states.load(changed)
        self._add_outgoing(states.values())
        before = [states.get(symbol) or evaluator.new_state(symbol) for symbol in changed]
        # Read after the states, so that they are at least as new as the splits of the tick that wrote a state.
        splits = self.actions.splits([*changed])
        repeated = {
            state.symbol: days
            for state in before
            if (days := evaluator.sessions_to_repeat(state, splits.get(state.symbol, ())))
        }
        stored = self._stored(evaluator, before, repeated, changed)
        fired_before = self.outbox.bars_fired([*repeated]) if repeated else {}
        seen = {symbol: [*stored.get(symbol, ()), *found] for symbol, found in changed.items()}
        results = {
            state.symbol: evaluator.evaluate(
                state,
                seen[state.symbol],
                splits.get(state.symbol, ()),
                fired_before.get(state.symbol, NEVER_FIRED),
            )
            for state in before
        }
        lost = self._save(evaluator.now, before, seen, results, feed)
        for symbol, found in results.items():
            if symbol not in lost and found.notes:
                noted = self.notes.setdefault(symbol, [])
                noted += [note for note in found.notes if note not in noted]
        return {symbol: changed[symbol] for symbol in lost}

    def _compare(self, symbols: Iterable[str], now: datetime) -> None:
        """Evaluate the rules that name other symbols, at the bars that were stored or revised since the last time.

        They wait for the end of a tick, so that the order in which its symbols arrive changes nothing. The states hold
        which bars were compared, so a tick finds what a dead one left.
        """
        evaluator = Evaluator(self.book, now)
        comparing = [symbol for symbol in dict.fromkeys(symbols) if self.book.others(symbol)]
        for start in range(0, len(comparing), SYMBOLS_AT_ONCE):
            part = comparing[start : start + SYMBOLS_AT_ONCE]
            for _ in range(MAX_ATTEMPTS):
                states, others = self._states_to_compare(part)
                compared = [evaluator.comparison(state, others) for state in states]
                waiting = [item for item in compared if item.places]
                part = self._compare_once(evaluator, waiting, others) if waiting else []
                if not part:
                    break
            else:
                raise _overtaken(part)

    def _states_to_compare(self, symbols: Sequence[str]) -> tuple[list[SymbolState], dict[str, SymbolState]]:
        """Return the states of symbols, and by the name in their rules the states of other symbols.

        Those are read last, so that they are at least as new as what was compared before.
        """
        states = [*self.states.load(symbols).values()]
        self._add_outgoing(states)
        names = {name: self.instruments.present(name) for state in states for name in self.book.others(state.symbol)}
        others = self.states.load(set(names.values()))
        return states, {name: others[present] for name, present in names.items() if present in others}

    def _compare_once(
        self, evaluator: Evaluator, waiting: Sequence[Comparison], others: Mapping[str, SymbolState]
    ) -> list[str]:
        """Compare once. Return the symbols that another tick evaluated at the same time."""
        late = [item.state.symbol for item in waiting if evaluator.is_late(item)]
        fired = self.outbox.bars_fired(late) if late else {}
        created_at = utc_now()
        comparison = next_id([*(item.state for item in waiting), *others.values()], created_at)
        changes, seen = [], []
        for item in waiting:
            found = evaluator.compare(item, fired.get(item.state.symbol, NEVER_FIRED))
            outgoing = self._outgoing(found.events, created_at)
            changes.append((item.state, replace(found.state, outgoing=outgoing, evaluation=comparison)))
            named = {name: others[name] for name in self.book.others(item.state.symbol) if name in others}
            seen.append(compared_with(item.state, named))
        self.journal.add(Evaluation(comparison, created_at, evaluator.now, self._rules, seen))
        return [*self._write(changes)]

    def _save(
        self,
        now: datetime,
        before: Sequence[SymbolState],
        seen: Changed,
        results: Mapping[str, Evaluated],
        feed: Feed,
    ) -> set[str]:
        """Store the states after an evaluation, and then its alerts. Return the symbols whose state another tick wrote.

        No alert of those is stored.
        """
        created_at = utc_now()
        evaluation = next_id(before, created_at)
        after = []
        for state in before:
            result = results[state.symbol]
            alerts = (feed.alerts.get(event.id, event) for event in result.events)
            after.append(replace(result.state, outgoing=self._outgoing(alerts, created_at)))
        replaced = {name: (event.bar_start, event.value) for name, event in feed.alerts.items()}
        found = [
            seen_by(state, new, seen[state.symbol], _of_symbol(results[state.symbol], replaced))
            for state, new in zip(before, after, strict=True)
        ]
        self.journal.add(Evaluation(evaluation, created_at, now, self._rules, found, feed.quiet, feed.asked))
        written = [
            (old, replace(new, evaluation=evaluation)) for old, new in zip(before, after, strict=True) if new != old
        ]
        return self._write(written)

    def _outgoing(self, events: Iterable[Event], created_at: datetime) -> tuple[Document, ...]:
        """Return alerts as documents of the outbox."""
        # No alert of a symbol under which no share trades on that day, such as the silence of a former symbol.
        now_listed = [event for event in events if self.instruments.trades_as(event.symbol, event.session_date)]
        events = {event.id: event for event in now_listed}.values()
        return tuple(outbox_document(Message.of(event, created_at), self._channels(event)) for event in events)

    def _write(self, changes: Sequence[tuple[SymbolState, SymbolState]]) -> set[str]:
        """Store states, before and after, and then their alerts. Return the symbols whose state another tick wrote."""
        lost = self.states.save(changes)
        done = [new for _, new in changes if new.outgoing and new.symbol not in lost]
        self._add([alert for state in done for alert in state.outgoing])
        self.states.remove_outgoing(done)
        return lost

    def _add_outgoing(self, states: Iterable[SymbolState]) -> None:
        """Add the alerts of an evaluation whose tick died, or is about to add them itself."""
        # Readers that follow the outbox look for new ones by this time.
        now = utc_now()
        self._add([alert | {"created_at": now} for state in states for alert in state.outgoing])

    def _add(self, alerts: Sequence[Document]) -> None:
        if alerts:
            self.found += self.outbox.insert(alerts)

    def _stored(
        self,
        evaluator: Evaluator,
        states: Sequence[SymbolState],
        repeated: Mapping[str, Iterable[date]],
        changed: Changed,
    ) -> Changed:
        """Return the stored sessions that an evaluation needs beside the changed ones. It takes one query.

        They are those that the rules look at, for states without them, and those to evaluate again. A renamed share
        has the sessions of all its symbols.
        """
        incomplete = [state.symbol for state in states if not evaluator.has_history(state)]
        days = [item.session_date for item in last_sessions(evaluator.now, evaluator.history)] if incomplete else []
        in_memory = {item.bars.key: item for found in changed.values() for item in found}
        keys = self._keys(dict.fromkeys(incomplete, days)) - in_memory.keys()
        # Read these again even if they are in memory: another tick may have evaluated a later version since.
        keys |= self._keys(repeated)
        stored = list(self.staging.sessions(sorted(keys)))
        chosen = self.instruments.chosen(
            (item.bars.symbol, item.bars.session_date) for item in [*in_memory.values(), *stored]
        )
        found: dict[str, list[StoredSession]] = {}
        for item in stored:
            symbol = self.instruments.present_on(item.bars.symbol, item.bars.session_date)
            if chosen[symbol, item.bars.session_date] == item.bars.symbol:
                found.setdefault(symbol, []).append(item)
        return found

    def _keys(self, days: Mapping[str, Iterable[date]]) -> set[str]:
        """Return the keys of sessions, given their days by symbol, under every symbol of the share."""
        return {
            document_key(name, day)
            for symbol, found in days.items()
            for name in self.instruments.stored_names([symbol])
            for day in found
        }

    def _channels(self, event: Event) -> list[str]:
        """Return the rule's channels that are set up, with each endpoint of webhooks. The outbox always is."""
        return [name for name in (OUTBOX_CHANNEL, *self.delivery.channels) if kind_of(name) in event.rule.channels]


def _overtaken(symbols: Iterable[str]) -> BarflowError:
    return BarflowError(
        f"{', '.join(symbols)}: the alert rules were not evaluated, because other ticks kept evaluating the same "
        "symbols. Their bars are stored, and the next tick evaluates them."
    )


def _of_symbol(result: Evaluated, feed: Mapping[str, FeedBar]) -> dict[str, FeedBar]:
    return {event.id: feed[event.id] for event in result.events if event.id in feed}


def _by_symbol(sessions: Iterable[StoredSession]) -> dict[str, list[StoredSession]]:
    found: dict[str, list[StoredSession]] = {}
    for item in sessions:
        found.setdefault(item.bars.symbol, []).append(item)
    return found
