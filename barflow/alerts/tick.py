"""What does a tick do about alerts? It judges what it stores, and what a tick that died had stored; then it sends.

Evaluation is one with storing the bars, delivery is not.
A channel that is down fails no tick, and a store that is down fails it as any other write would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta

from pymongo.database import Database

from barflow.alerts.channels import Channel
from barflow.alerts.delivery import Delivery
from barflow.alerts.evaluate import Evaluator, Event
from barflow.alerts.message import Message
from barflow.alerts.outbox import OUTBOX_CHANNEL, AlertStates, Intents, Outbox
from barflow.alerts.rules import RuleBook
from barflow.errors import BarflowError, UnavailableError, VendorRefusedError
from barflow.market.bars import document_key
from barflow.market.sessions import last_sessions, utc_now
from barflow.staging.connection import Document
from barflow.staging.sessions import Saved, Staging, StoredSession

# Longer than any tick lives: an intent this old is of one that died.
DEAD_AFTER = timedelta(minutes=20)
SYMBOLS_AT_ONCE = 100
MAX_TRIES = 20
Changed = Mapping[str, Sequence[StoredSession]]


class Alerts:
    """Alerts of one database. ``clock`` is the market's: by it, it is decided which session is the newest."""

    def __init__(
        self,
        database: Database[Document],
        book: RuleBook,
        channels: Iterable[Channel] = (),
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.book, self.clock = book, clock
        self.staging = Staging(database)
        self.states = AlertStates(database)
        self.outbox = Outbox(database)
        self.intents = Intents(database)
        self.delivery = Delivery(self.outbox, channels)
        self._judged: set[str] = set()
        # Of the tick that is on: how many alerts were new, and what each channel that was down said.
        self.found = 0
        self.down: dict[str, str] = {}

    def ensure(self) -> None:
        """Makes collections and indexes where they are missing."""
        self.outbox.ensure()

    @contextmanager
    def watching(self, symbols: Sequence[str]) -> Iterator[None]:
        """Around a tick: takes up what was left undone before it; notices at its end which symbols are silent.

        A tick that the vendor fails notices that too: it is then that a feed goes stale.
        """
        started = self.clock()
        self._judged, self.found, self.down = set(), 0, {}
        for intent in self.intents.all():
            self._judge(_by_symbol(self.staging.sessions(intent.keys)), started)
            if utc_now() - intent.since > DEAD_AFTER:
                self.intents.remove(intent)
        self._send()
        try:
            yield
        except (UnavailableError, VendorRefusedError):
            with suppress(BarflowError):
                self._end(symbols, started)
            raise
        self._end(symbols, started)

    def _end(self, symbols: Sequence[str], started: datetime) -> None:
        self._judge({symbol: () for symbol in symbols if symbol not in self._judged}, started)
        self._send()

    def _send(self) -> None:
        self.down |= self.delivery.run().down

    def save(
        self, keys: Sequence[str], run_id: str, asked: datetime, save: Callable[[], Mapping[str, Saved]]
    ) -> Mapping[str, Saved]:
        """Runs ``save``, which stores sessions of these keys, judges what it changed, and sends what that gave.

        ``asked`` is when the first of them was asked for: a bar that closed since is not missing.
        """
        intent = self.intents.add(run_id, keys)
        saved = save()
        changed = {symbol: done.changed for symbol, done in saved.items() if done.changed}
        found = self.found
        self._judge(changed, min(asked, self.clock()))
        self.intents.remove(intent)
        if self.found > found:
            self._send()
        return saved

    def _judge(self, changed: Changed, now: datetime) -> None:
        """Judges sessions as known at ``now``, and counts the alerts that were not in the outbox."""
        evaluator = Evaluator(self.book, now)
        symbols = list(changed)
        for start in range(0, len(symbols), SYMBOLS_AT_ONCE):
            part: Changed = {symbol: changed[symbol] for symbol in symbols[start : start + SYMBOLS_AT_ONCE]}
            for _ in range(MAX_TRIES):
                part = self._try_judge(evaluator, part)
                if not part:
                    break
            else:
                raise BarflowError(
                    f"{', '.join(part)}: other ticks kept judging the same symbols. "
                    "Their bars are stored; the next tick judges them."
                )
        self._judged.update(symbols)

    def _try_judge(self, evaluator: Evaluator, changed: Changed) -> Changed:
        """One round. Returns the symbols that another tick judged in the meantime."""
        states = self.states.load(changed)
        before = [states.get(symbol) or evaluator.start(symbol) for symbol in changed]
        missing = self._history(evaluator, [state.symbol for state in before if not evaluator.filled(state)], changed)
        results = [
            (state, *evaluator.advance(state, [*missing.get(state.symbol, ()), *changed[state.symbol]]))
            for state in before
        ]
        events = [event for _, _, found in results for event in found]
        noticed = utc_now()
        self.found += self.outbox.add([(Message.of(event, noticed), self._channels(event)) for event in events])
        lost = self.states.save([(state, after) for state, after, _ in results])
        return {symbol: changed[symbol] for symbol in lost}

    def _history(self, evaluator: Evaluator, symbols: Sequence[str], changed: Changed) -> Changed:
        """The sessions that the rules look at and that were not stored just now: one query for all the symbols."""
        days = [item.session_date for item in last_sessions(evaluator.now, evaluator.history)] if symbols else []
        at_hand = {item.bars.key for found in changed.values() for item in found}
        keys = [document_key(symbol, day) for symbol in symbols for day in days]
        return _by_symbol(self.staging.sessions([key for key in keys if key not in at_hand]))

    def _channels(self, event: Event) -> list[str]:
        """Of the rule's channels, those that are set up; the outbox always is."""
        return [name for name in event.rule.channels if name == OUTBOX_CHANNEL or name in self.delivery.channels]


def _by_symbol(sessions: Iterable[StoredSession]) -> dict[str, list[StoredSession]]:
    found: dict[str, list[StoredSession]] = {}
    for item in sessions:
        found.setdefault(item.bars.symbol, []).append(item)
    return found
