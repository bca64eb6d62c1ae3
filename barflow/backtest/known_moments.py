"""The time that no journal covers: bars are evaluated when they became known, and silences every five minutes.

That is nearly what ticks saw. It does not show that an answer was stored late, or that a later tick did the evaluation
of one that died.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from barflow.alerts.evaluate import NEWS_SESSIONS, Evaluator, Event
from barflow.alerts.journal import Row, SeenSession
from barflow.backtest.known_bars import splits_at
from barflow.backtest.replay import Replay, Share
from barflow.lake.actions import Archived
from barflow.market.sessions import BAR, last_sessions, sessions_between
from barflow.staging.sessions import StoredSession

MICROSECOND = timedelta(microseconds=1)
Rows = dict[int, Row]


@dataclass
class Stream:
    """What became known of a share, by moment (UTC), session and slot. The journal begins at ``until``."""

    share: Share
    changes: Mapping[datetime, Mapping[date, Rows]]
    actions: Archived
    until: datetime | None

    def is_open(self, moment: datetime) -> bool:
        """Return whether the journal does not cover a moment."""
        return self.until is None or moment < self.until


def evaluate_when_known(replay: Replay, until: Mapping[str, datetime | None]) -> None:
    """Evaluate what became known of each symbol until its journal begins (UTC). A symbol without a journal has None.

    The evaluation begins a few sessions before the period, so that cool-downs hold.
    """
    sessions = sessions_between(*replay.period)
    if not sessions:
        return
    begin = last_sessions(sessions[0].opens, NEWS_SESSIONS + 1)[0].opens
    symbols = [symbol for symbol, moment in until.items() if moment is None or moment > begin]
    if not symbols:
        return
    streams = [_stream(replay, symbol, begin, until[symbol]) for symbol in symbols]
    moments = sorted((moment, place) for place, stream in enumerate(streams) for moment in stream.changes)
    at = 0
    for traded in sessions_between(last_sessions(begin, 1)[0].session_date, sessions[-1].session_date):
        for tick in (*traded.slots[1:], traded.closes):
            while at < len(moments) and moments[at][0] < tick:
                _evaluate(replay, streams[moments[at][1]], moments[at][0])
                at += 1
            follow = at
            while follow < len(moments) and moments[follow][0] < tick + BAR:
                follow += 1
            with_news = {place for _, place in moments[at:follow]}
            _evaluate_silences(replay, streams, with_news, tick)
    for moment, place in moments[at:]:
        _evaluate(replay, streams[place], moment)


def _stream(replay: Replay, symbol: str, begin: datetime, until: datetime | None) -> Stream:
    """Return what became known of a symbol since ``begin``. The state of its share gets what was known before."""
    evaluator = Evaluator(replay.book, begin)
    first = last_sessions(begin, evaluator.history)[0].session_date
    past: dict[date, Rows] = {}
    changes: dict[datetime, dict[date, Rows]] = defaultdict(lambda: defaultdict(dict))
    for day, slots in replay.known.versions(symbol, first, replay.period[1]).items():
        for slot, versions in slots.items():
            for version in versions:
                row = (version.revision & 255, *version.values)
                if version.known_from < begin:
                    past.setdefault(day, {})[slot] = row  # type: ignore[assignment]
                elif until is None or version.known_from < until:
                    changes[version.known_from][day][slot] = row  # type: ignore[assignment]
    share = replay.share(symbol)
    if past:
        share.state = replay.filled(share, evaluator.new_state(symbol), evaluator, past)
    return Stream(share, changes, replay.known.actions(symbol), until)


def _evaluate(replay: Replay, stream: Stream, moment: datetime) -> None:
    """Evaluate what became known of a share at a moment."""
    evaluator, share = Evaluator(replay.book, moment), stream.share
    sessions = []
    for day, rows in stream.changes[moment].items():
        known = share.state.sessions.get(day) if share.state else None
        item = SeenSession(day, known.version + 1 if known else 1, False, rows)
        if stored := replay.stored(share, item, evaluator):
            sessions.append(stored)
    _apply(replay, stream, evaluator, sessions, {})


def _evaluate_silences(replay: Replay, streams: Sequence[Stream], with_news: set[int], tick: datetime) -> None:
    """Evaluate the silence of the shares that have no news within the next five minutes."""
    asked = [(place, stream) for place, stream in enumerate(streams) if stream.share.state and stream.is_open(tick)]
    quiet = [stream for place, stream in asked if place not in with_news]
    evaluator = Evaluator(replay.book, tick)
    names = [stream.share.symbol for stream in quiet]
    feed = replay.feed(evaluator, names, len(asked)) if 2 * len(quiet) > len(asked) else {}
    for stream in quiet:
        _apply(replay, stream, evaluator, (), feed)


def _apply(
    replay: Replay,
    stream: Stream,
    evaluator: Evaluator,
    sessions: Sequence[StoredSession],
    feed: Mapping[str, Event],
) -> None:
    share = stream.share
    state = share.state or evaluator.new_state(share.symbol)
    splits = splits_at(stream.actions, evaluator.now)
    again = evaluator.sessions_to_repeat(state, splits) - {item.bars.session_date for item in sessions}
    repeated = [
        SeenSession(day, state.sessions[day].version, True, share.rows(day)).stored(share.symbol)
        for day in sorted(again)
    ]
    replay.wait(share, evaluator)
    replay.apply(share, evaluator, (state, [*sessions, *repeated], splits), feed)
