"""The replay of evaluations: it carries the state of each share, as ticks do, and collects the alerts.

The archive is read where the journal of evaluations does not reach back. Rules that name another symbol are evaluated
on the states that the journal names. Where it names none, they are evaluated at the end of each tick, on the newest
states.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime

from barflow.alerts.evaluate import NEVER_FIRED, Evaluated, Evaluator, Event, feed_silences
from barflow.alerts.history import EvaluatedSession, SymbolState
from barflow.alerts.journal import Evaluation, Row, Seen, SeenSession, rules_id
from barflow.alerts.rules import ALL, RuleBook
from barflow.backtest.known_bars import KnownBars
from barflow.backtest.result import Backtest, in_order
from barflow.market.actions import Split
from barflow.market.sessions import last_sessions, sessions_between
from barflow.staging.sessions import StoredSession

# More than the evaluations of a symbol while a tick compares it.
STATES_KEPT = 50
NEARLY = "bars are evaluated when they became known, which is nearly what ticks did"


@dataclass
class Share:
    """A symbol in a replay: its state, its sessions as last evaluated, and the bars (UTC) of its alerts by rule.

    ``states`` holds the newest states by the evaluation that wrote them, if a rule names the symbol.
    """

    symbol: str
    state: SymbolState | None = None
    seen: dict[date, list[object]] = field(default_factory=dict)
    fired: dict[str, list[datetime]] = field(default_factory=dict)
    in_journal: bool = False
    states: dict[str, SymbolState] = field(default_factory=dict)

    def rows(self, day: date) -> Mapping[int, Row]:
        """Return the bars of a session as last evaluated, by slot."""
        return SeenSession.unpacked(self.seen[day]).rows if day in self.seen else {}

    def keep(self, session: SeenSession, sessions: int) -> None:
        """Keep a whole session, and of all the newest ``sessions``."""
        self.seen[session.day] = session.packed()
        while len(self.seen) > sessions:
            del self.seen[min(self.seen)]


class Replay:
    """Evaluations one after the other, and what they find in the sessions of a ``period`` (first and last).

    Only the alerts of the ``shown`` symbols count. ``named`` are the symbols that their rules name.
    """

    def __init__(
        self,
        known: KnownBars,
        book: RuleBook,
        period: tuple[date, date],
        live: Mapping[str, SymbolState],
        *,
        shown: Collection[str],
        named: Collection[str],
    ) -> None:
        self.known, self.book, self.period, self.live = known, book, period, live
        self.shown, self.named = shown, named
        self.rules = rules_id(book)
        self.shares: dict[str, Share] = {}
        self.bars = 0
        self.notes: dict[str, None] = {}
        self._events: dict[str, Event] = {}
        self._cooled_down: dict[str, Event] = {}
        self._joined: dict[datetime, list[str]] = defaultdict(list)
        self._other_rules: list[datetime] = []
        # The symbols that were evaluated since the last comparison, if the journal does not record when it was.
        self._waiting: dict[str, Evaluator] = {}

    def share(self, symbol: str) -> Share:
        """Return a symbol of the replay."""
        return self.shares.setdefault(symbol, Share(symbol))

    def evaluate(self, evaluation: Evaluation, found: Sequence[Seen]) -> None:
        """Repeat an evaluation of the journal for some of its symbols."""
        if not found:
            return
        evaluator = Evaluator(self.book, evaluation.now)
        is_same = evaluation.rules == self.rules
        if not is_same:
            self._other_rules.append(evaluation.now)
        else:
            self.compare_waiting()
        feed = {} if is_same else self.feed(evaluator, evaluation.quiet, evaluation.asked)
        for seen in found:
            share = self.share(seen.symbol)
            if seen.before is None or not share.in_journal:
                self._begin(share, evaluator, seen, is_same=is_same)
            if seen.others is not None:
                if is_same:
                    self._compare(share, evaluator, {name: self._state(*named) for name, named in seen.others.items()})
                self._keep_state(share, evaluation.id)
                continue
            if not is_same:
                self.wait(share, evaluator)
            state = share.state or evaluator.new_state(seen.symbol)
            sessions = [stored for item in seen.sessions if (stored := self.stored(share, item, evaluator))]
            in_force = state.splits if seen.splits is None else seen.splits
            splits = [
                Split(seen.symbol, day, ratio, "endpoint", evaluation.at)
                for day, ratio in sorted(in_force.items())
                if day <= evaluator.newest.session_date
            ]
            self.apply(share, evaluator, (state, sessions, splits), seen.feed if is_same else feed)
            self._keep_state(share, evaluation.id)

    def apply(
        self,
        share: Share,
        evaluator: Evaluator,
        given: tuple[SymbolState, Sequence[StoredSession], Sequence[Split]],
        feed: Mapping[str, Event | tuple[datetime, float]],
    ) -> None:
        """Evaluate a share on a state, sessions and splits, and keep what is found."""
        state, sessions, splits = given
        repeats = evaluator.sessions_to_repeat(state, splits)
        self._keep(share, evaluator.evaluate(state, sessions, splits, share.fired if repeats else NEVER_FIRED), feed)

    def wait(self, share: Share, evaluator: Evaluator) -> None:
        """Record that a share is evaluated. A tick evaluates a share once, so the second time begins another tick."""
        if share.symbol in self._waiting:
            self.compare_waiting()
        self._waiting[share.symbol] = evaluator

    def compare_waiting(self) -> None:
        """Evaluate the rules that name another symbol at the end of a tick, on the newest states."""
        waiting, self._waiting = self._waiting, {}
        for symbol, evaluator in waiting.items():
            day, share = evaluator.newest.session_date, self.shares[symbol]
            self._compare(share, evaluator, {name: self._newest(name, day) for name in self.book.others(symbol)})

    def _newest(self, name: str, day: date) -> SymbolState | None:
        """Return the state of the share that a rule names, under the symbol of a day."""
        symbols = self.known.instruments.stored_names([name])
        traded = (symbol for symbol in symbols if self.known.instruments.trades_as(symbol, day))
        return self._state(next(traded, name), None)

    def _state(self, symbol: str, evaluation: str | None) -> SymbolState | None:
        """Return the state that an evaluation wrote, or the newest one if that is not known."""
        share = self.share(symbol)
        return share.states.get(evaluation, share.state) if evaluation else share.state

    def _keep_state(self, share: Share, evaluation: str) -> None:
        """Keep the state that an evaluation wrote, if comparisons may name it."""
        if share.symbol in self.named and share.state:
            share.states[evaluation] = share.state
            if len(share.states) > STATES_KEPT:
                del share.states[next(iter(share.states))]

    def _compare(self, share: Share, evaluator: Evaluator, others: Mapping[str, SymbolState | None]) -> None:
        """Evaluate the rules of a share that name another symbol, at the bars that wait."""
        known = {name: state for name, state in others.items() if state}
        if share.state is None or not known or share.symbol not in self.shown:
            return
        comparison = evaluator.comparison(share.state, known)
        if comparison.places:
            fired = share.fired if evaluator.is_late(comparison) else NEVER_FIRED
            self._keep(share, evaluator.compare(comparison, fired), {})

    def _keep(self, share: Share, result: Evaluated, feed: Mapping[str, Event | tuple[datetime, float]]) -> None:
        """Keep the state and what was found, unless the share is only named in rules."""
        share.state = result.state
        if share.symbol not in self.shown:
            return
        listed = self.known.instruments.trades_as
        for event in result.events:
            out = _replaced(event, feed.get(event.id))
            if listed(out.symbol, out.session_date):
                if out is event:
                    share.fired.setdefault(event.rule.id, []).append(event.bar_start)
                if self._in_period(out.session_date):
                    self._events.setdefault(out.id, out)
        self._cooled_down |= {event.id: event for event in result.cooled_down if self._in_period(event.session_date)}
        for note in result.notes:
            self.notes[f"{share.symbol}: {note}"] = None

    def feed(self, evaluator: Evaluator, quiet: Sequence[str], asked: int) -> Mapping[str, Event]:
        """Return the alert of the feed by the id of each silence that it replaces."""
        states = [share.state for symbol in quiet if (share := self.shares.get(symbol))]
        silences = (event for state in states if state for event in evaluator.silences(state))
        return feed_silences(silences, asked) if asked else {}

    def _in_period(self, day: date) -> bool:
        return self.period[0] <= day <= self.period[1]

    def _begin(self, share: Share, evaluator: Evaluator, seen: Seen, *, is_same: bool) -> None:
        """Begin a share where its journal does, or begin it again where its state was dropped.

        A tick without a state read the sessions that its rules look at. Where the first evaluations have expired, and
        for rules that may look at more, they come from the archive.
        """
        share.in_journal = True
        known = share.state if seen.before is not None else None
        state = known or evaluator.new_state(share.symbol)
        if seen.before is not None:
            live = self.live.get(share.symbol)
            state = replace(state, horizon=live.horizon if live else date.min)
            self._joined[evaluator.now].append(share.symbol)
        if seen.before is not None or not is_same:
            state = self._with_past(share, state, evaluator, seen)
        share.state = state

    def _with_past(self, share: Share, state: SymbolState, evaluator: Evaluator, seen: Seen) -> SymbolState:
        """Return a state with the sessions that were known at its evaluation, without the bars that are new to it."""
        days = last_sessions(evaluator.now, evaluator.history)
        past = self.known.known_at(share.symbol, days[0].session_date, days[-1].session_date, evaluator.now)
        for item in seen.sessions:
            rows = past.pop(item.day, {})
            if not item.is_whole and (left := {slot: row for slot, row in rows.items() if slot not in item.rows}):
                past[item.day] = left
        return self.filled(share, state, evaluator, past)

    def filled(
        self, share: Share, state: SymbolState, evaluator: Evaluator, past: Mapping[date, Mapping[int, Row]]
    ) -> SymbolState:
        """Return a state that has evaluated these sessions: bars by slot."""
        sessions = {}
        for day, rows in past.items():
            whole = SeenSession(day, 0, True, rows)
            share.keep(whole, _kept(evaluator))
            sessions[day] = EvaluatedSession.of(whole.stored(share.symbol), prices=evaluator.prices > 0)
        return replace(state, sessions=sessions)

    def stored(self, share: Share, item: SeenSession, evaluator: Evaluator) -> StoredSession | None:
        """Return a session as an evaluation saw it."""
        before = {} if item.is_whole else share.rows(item.day)
        if not (rows := {**before, **item.rows}):
            return None
        if self._in_period(item.day) and share.symbol in self.shown:
            self.bars += len(rows.keys() - share.rows(item.day).keys())
        whole = SeenSession(item.day, item.version, True, rows)
        share.keep(whole, _kept(evaluator))
        return whole.stored(share.symbol)

    def result(self, symbols: tuple[str, ...]) -> Backtest:
        """Return what was found."""
        self.compare_waiting()
        for moment, joined in sorted(self._joined.items()):
            since = f"{moment:%Y-%m-%d %H:%M} UTC"
            self.notes[f"{listed(joined)}: what ticks saw is recorded since {since}. For the time before: {NEARLY}"] = (
                None
            )
        if self._other_rules:
            first, last = min(self._other_rules), max(self._other_rules)
            self.notes[
                f"from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC, ticks evaluated other rules than these: "
                "their alerts may differ"
            ] = None
        sessions = sessions_between(*self.period)
        return Backtest(
            in_order([*self._events.values()]),
            in_order([event for name, event in self._cooled_down.items() if name not in self._events]),
            symbols,
            sessions[0].session_date if sessions else self.period[0],
            sessions[-1].session_date if sessions else self.period[1],
            self.bars,
            tuple(self.notes),
        )


def _kept(evaluator: Evaluator) -> int:
    """Return how many sessions of a share are kept: more than any rules of the ticks looked back at, most likely."""
    return max(evaluator.history, 60)


def _replaced(event: Event, feed: Event | tuple[datetime, float] | None) -> Event:
    """Return the alert of the feed that replaces a silence, or the event."""
    if feed is None:
        return event
    if isinstance(feed, Event):
        return feed
    start, minutes = feed
    return replace(event, symbol=ALL, bar_start=start, value=minutes, price=None)


def listed(symbols: Sequence[str]) -> str:
    """Return the first symbols as text, and how many more there are."""
    return ", ".join(symbols[:5]) + (f" and {len(symbols) - 5} more" if len(symbols) > 5 else "")
