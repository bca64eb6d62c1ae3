"""The bars of a symbol at which rules that name another symbol, such as of("SPY").close, wait for evaluation.

Such a rule is evaluated at a bar when the bars of all its symbols are stored, and again when one of them is revised.
The state of a symbol holds with which bars that was done, so neither the order in which symbols arrive nor a restart
changes an alert. Pure: all bars come from the states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime

from barflow.alerts.history import Compared, SymbolState, compared_bars
from barflow.alerts.rules import Rule
from barflow.alerts.signals import SessionView
from barflow.market.actions import Split
from barflow.market.sessions import BAR, session

# A state does not hold when a split was learned, and a comparison does not need it.
NO_MOMENT = datetime.fromtimestamp(0, UTC)


class Comparison:
    """A symbol's state beside those of the other symbols that its rules name.

    Attributes:
        places: The bars that wait, by session and other symbol. Both symbols have them, and one of them has them new or
            revised since the last evaluation.
    """

    def __init__(self, state: SymbolState, others: Mapping[str, SymbolState], oldest_news: date) -> None:
        """Find the bars that wait in sessions from ``oldest_news`` on. The states must hold all that rules look at."""
        self.state, self._others, self._oldest_news = state, others, oldest_news
        self.places: dict[date, dict[str, list[int]]] = {}
        self._compared = {name: self._find(name, item) for name, item in state.compared.items()}

    def _find(self, name: str, before: Compared) -> Compared:
        """Add the places that wait because of another symbol. Return how far its rules are evaluated with them."""
        if (other := self._others.get(name)) is None:
            return before
        bars = {day: known for day, known in before.bars.items() if day >= self._oldest_news}
        again_from = self._first_changed(before, other)
        for day in self._days(name):
            joined = compared_bars(self.state.sessions[day], other.sessions[day])
            known = bars.get(day, b"") if day < again_from else b""
            seen = {known[at : at + 3] for at in range(0, len(known), 3)}
            if places := [place for place, bar in joined.items() if bar not in seen]:
                self.places.setdefault(day, {})[name] = places
            bars[day] = b"".join(joined.values())
        return replace(before, bars=bars, splits=other.splits)

    def _days(self, name: str) -> list[date]:
        """Return the sessions of both symbols that are news."""
        other, since = self._others[name], self.state.compared[name].since
        first = max(self.state.horizon, other.horizon, since, self._oldest_news)
        return [day for day in self.state.sessions if day >= first and day in other.sessions]

    def _first_changed(self, before: Compared, other: SymbolState) -> date:
        """Return the first session to evaluate again, because the other symbol's splits changed."""
        changed = {day for day, _ in before.splits.items() ^ other.splits.items()}
        return min((day for day in changed if day >= self._oldest_news), default=date.max)

    @property
    def after(self) -> SymbolState:
        """Return the state after the evaluation, apart from what fired."""
        return replace(self.state, compared=self._compared)

    @property
    def first_bar(self) -> datetime:
        """Return the open (UTC) of the first bar that waits. There must be one."""
        day = min(self.places)
        traded = session(day)
        assert traded is not None, "only sessions are stored"
        return traded.opens + self.state.sessions[day].slots[min(map(min, self.places[day].values()))] * BAR

    def places_of(self, rule: Rule, day: date) -> list[int]:
        """Return the bars of a session that wait for a rule."""
        return sorted({place for name in rule.others for place in self.places[day].get(name, ())})

    def views(self, *, adjust: bool) -> dict[date, SessionView]:
        """Return the sessions with bars that wait, oldest first, each with those of the other symbols."""
        views = {day: _view(self.state, day, adjust=adjust) for day in sorted(self.places)}
        for name in self.state.compared.keys() & self._others.keys():
            for day in views.keys() & {*self._days(name)}:
                views[day].others[name] = _view(self._others[name], day, adjust=adjust)
        return views


def _view(state: SymbolState, day: date, *, adjust: bool) -> SessionView:
    """Return a session of a state as the rules see it."""
    past = [state.sessions[known] for known in sorted(state.sessions) if known < day]
    splits = [Split(state.symbol, ex_date, ratio, "file", NO_MOMENT) for ex_date, ratio in state.splits.items()]
    bars = state.sessions[day].bars(state.symbol)
    return SessionView(bars, state.sessions[day].slots, past, splits if adjust else None)
