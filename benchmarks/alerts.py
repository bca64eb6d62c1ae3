"""Alerts: the time from a stored bar to a sent alert, and the cost of evaluating a bar as history grows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from statistics import median, quantiles
from typing import Any

from botocore.awsrequest import AWSResponse

from barflow.alerts.channels import Receipts, SnsChannel
from barflow.alerts.evaluate import Evaluator
from barflow.alerts.message import Message
from barflow.alerts.rules import RuleBook
from barflow.alerts.rules_file import parse_rules
from barflow.alerts.tick import Alerts
from barflow.market.bars import SessionBars, document_key
from barflow.market.sessions import utc_now
from barflow.pipeline.ingest import Ingest
from barflow.staging.connection import connect
from barflow.staging.sessions import Saved, Staging, StoredSession, from_document
from barflow.twelvedata.client import Answer
from benchmarks.figures import Chapter, Figure
from benchmarks.processes import call
from benchmarks.seed import LAST_CLOSE, seed_sessions, session_documents, sessions
from benchmarks.stores import Bench

SYMBOLS, DAYS = 500, 20
SHORT, LONG = 25, 250
SYMBOL = "AAPL"
# The client signs its requests, although SNS is never reached.
KEYS = {"AWS_ACCESS_KEY_ID": "benchmark", "AWS_SECRET_ACCESS_KEY": "benchmark"}
TOPIC = "arn:aws:sns:eu-central-1:123456789012:alerts.fifo"
MEANING = f"""
From stored to sent: one tick brings one bar of each of {SYMBOLS} symbols, which have 20 rules, half of them conditions.
One alert fires per symbol. The time runs from the moment that a symbol's bars are in MongoDB to the moment that SNS has
its message, in the batches of ingest; the call to SNS is complete, apart from the network. It is compared with reading
the 20 sessions of the rules from MongoDB at each tick, which is the least work of an evaluation that remembers nothing.

Cost of a bar: evaluating one new bar against the 20 rules, with {LONG} stored sessions against {SHORT}. A bar
against 20 conditions is compared with the same 20 rules of the kinds.
"""


def _side(when: str) -> str:
    return "down" if any(word in when for word in ("fall", "below", "low")) else "up"


# Twenty rules of one direction, and each as a condition that fires at the same bars.
PAIRS: Sequence[tuple[dict[str, Any], str]] = [
    *(
        ({"kind": "move", "percent": 10.0 + n, "minutes": 30 * n}, f"rise_pct({30 * n}) >= {10.0 + n}")
        for n in (1, 2, 3)
    ),
    *(({"kind": "move", "percent": 10.0 + n, "minutes": 30 * n}, f"fall_pct({30 * n}) >= {10.0 + n}") for n in (4, 5)),
    *(({"kind": "gap", "percent": 5.0 + n}, f"gap_pct >= {5.0 + n}") for n in range(3)),
    *(({"kind": "level", "level": 1e6 + n}, f"crosses_above(close, {1e6 + n})") for n in range(3)),
    *(({"kind": "volume", "times": 1000.0 + n}, f"volume_times(20) > {1000.0 + n}") for n in range(3)),
    *(({"kind": "average", "sessions": 20 - n}, f"crosses_below(close, daily_sma({20 - n}))") for n in range(2)),
    *(({"kind": "average", "bars": 50 - n}, f"crosses_below(close, sma({50 - n}))") for n in range(2)),
    *(({"kind": "extreme", "sessions": 20 - n}, f"session_low < daily_lowest({20 - n})") for n in range(2)),
]
# Twenty rules: some of every kind, and ten conditions. On these bars, only fires_3pct fires.
RULES: Sequence[dict[str, Any]] = [
    {"id": "fires_3pct", "kind": "move", "percent": 3.0, "minutes": 30},
    {"id": "move", "kind": "move", "percent": 11.0, "minutes": 30},
    {"id": "gap", "kind": "gap", "percent": 5.0},
    {"id": "level", "kind": "level", "level": 1_000_000.0},
    *({"id": f"volume_{n}", "kind": "volume", "times": 1000.0 + n, "sessions": 20} for n in range(2)),
    {"id": "average", "kind": "average", "sessions": 20, "direction": "down"},
    {"id": "average_bars", "kind": "average", "bars": 50, "direction": "down"},
    {"id": "extreme", "kind": "extreme", "sessions": 20, "direction": "down"},
    {"id": "silence", "kind": "silence", "minutes": 20},
    *({"id": f"condition_{n}", "when": when} for n, (_, when) in enumerate(PAIRS[::2])),
]
BOOKS = {
    "mixed": RULES,
    "kinds": [
        {"id": f"r{n}", **values, **({"direction": _side(when)} if values["kind"] != "volume" else {})}
        for n, (values, when) in enumerate(PAIRS)
    ],
    "conditions": [{"id": f"r{n}", "when": when} for n, (_, when) in enumerate(PAIRS)],
}


def measure(bench: Bench) -> Chapter:
    """Measure the figures of alerts."""
    names = bench.symbols(SYMBOLS)
    pipeline = bench.pipeline("alerts")
    bench.log(f"alerts: {len(names)} symbols of {DAYS} days under {len(RULES)} rules")
    seed_sessions(pipeline.database, names, DAYS, but_last=1)
    sent = call("alerts:stored_to_sent", KEYS, uri=pipeline.mongodb_uri, database=pipeline.name, names=names).result
    bench.log("alerts: the cost of evaluating a bar")
    costs = call("alerts:cost_of_a_bar", repeats=bench.repeats(9)).result
    figures = [
        Figure(f"alert from stored to sent, {len(names)} symbols × {len(RULES)} rules, p50", sent["p50"], "s"),
        Figure(
            "the same, p99",
            sent["p99"],
            "s",
            against="reading back 20 sessions",
            theirs=sent["read_back"],
            target=2,
            times_less=True,
        ),
        Figure(
            f"evaluate a bar against {len(RULES)} rules, {LONG} sessions stored",
            costs[str(LONG)],
            "µs",
            against=f"{SHORT} sessions stored",
            theirs=costs[str(SHORT)],
            target=1.25,
        ),
        Figure(
            f"evaluate a bar against {len(PAIRS)} conditions, {SHORT} sessions stored",
            costs["conditions"],
            "µs",
            against="the same rules of the kinds",
            theirs=costs["kinds"],
            target=1.5,
        ),
    ]
    notes = [
        f"{sent['sent']:.0f} alerts; the tick that stored, evaluated and sent took {sent['tick']:.1f} s, "
        f"{sent['alerts']:.1f} s of it for alerts",
    ]
    return Chapter("Alerts", MEANING, figures, notes)


def book(rules: str = "mixed") -> RuleBook:
    """Return twenty rules: kinds and conditions, kinds of one direction each, or these as conditions."""
    return parse_rules({"rule": BOOKS[rules]})


class TimedChannel(SnsChannel):
    """SNS without the network. ``sent`` is the moment at which it took the message of each symbol."""

    def __init__(self) -> None:
        super().__init__(TOPIC)
        self.sent: dict[str, float] = {}
        self._client.meta.events.register("before-send.sns", lambda **_: Accepted())

    def send(self, messages: Sequence[Message]) -> Iterator[Receipts]:
        """Send messages and note when each batch was taken."""
        for receipts in super().send(messages):
            self.sent |= dict.fromkeys((name.split("|")[1] for name in receipts), time.time())
            yield receipts


class Accepted(AWSResponse):  # type: ignore[misc]
    """SNS's answer to a batch that it took."""

    def __init__(self) -> None:
        super().__init__("", 200, {}, None)
        self._content = (
            b"<PublishBatchResponse><PublishBatchResult><Failed/></PublishBatchResult></PublishBatchResponse>"
        )


class TimedAlerts(Alerts):
    """Alerts that note when each symbol's bars were stored, and how many seconds of a tick are for alerts."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.stored: dict[str, float] = {}
        self.seconds = 0.0

    def save(
        self, keys: Sequence[str], run_id: str, requested_at: datetime, save: Callable[[], Mapping[str, Saved]]
    ) -> Mapping[str, Saved]:
        """Save and evaluate as Alerts does."""
        storing = 0.0

        def timed_save() -> Mapping[str, Saved]:
            nonlocal storing
            begun = time.monotonic()
            saved = save()
            storing = time.monotonic() - begun
            self.stored |= dict.fromkeys(saved, time.time())
            return saved

        begun = time.monotonic()
        saved = super().save(keys, run_id, requested_at, timed_save)
        self.seconds += time.monotonic() - begun - storing
        return saved


def stored_to_sent(uri: str, database: str, names: list[str]) -> dict[str, float]:
    """Return seconds: the first tick fills the state from the store, the second brings the last bar of the session."""
    opened, channel = connect(uri, database), TimedChannel()
    keys = [document_key(name, item.session_date) for name in names for item in sessions(DAYS)]
    begun = time.monotonic()
    for _ in Staging(opened).sessions(keys):
        pass
    read_back = time.monotonic() - begun
    Alerts(opened, book(), [], lambda: LAST_CLOSE).ensure()
    quiet: Any = FakeClient([])
    _ingest(quiet, opened, Alerts(opened, book(), [], lambda: LAST_CLOSE)).tick(names)
    alerts = TimedAlerts(opened, book(), [channel], lambda: LAST_CLOSE)
    jumped: Any = FakeClient([_answer(name) for name in names])
    hop = _ingest(jumped, opened, alerts)
    begun = time.monotonic()
    hop.tick(names)
    tick = time.monotonic() - begun
    waits = [channel.sent[name] - alerts.stored[name] for name in names]
    return {
        "read_back": read_back,
        "tick": tick,
        "alerts": alerts.seconds,
        "sent": len(waits),
        "p50": median(waits),
        "p99": quantiles(waits, n=100)[98],
    }


class FakeClient:
    """A Twelve Data client with prepared answers."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self.answers = answers

    def time_series(self, *asked: object, on_raw: object) -> Iterator[Answer]:
        """Yield the prepared answers."""
        yield from self.answers


def _ingest(client: Any, database: Any, alerts: Alerts) -> Ingest:
    return Ingest(client, database, history_sessions=DAYS, revision_sessions=2, clock=lambda: LAST_CLOSE, alerts=alerts)


def _answer(name: str) -> Answer:
    """Return the answer of a revision window of three sessions, whose last bar closes 3.5 % higher."""
    rows = []
    for document in list(session_documents(name, DAYS))[-3:]:
        columns = (document[column] for column in ("ts", "open", "high", "low", "close", "volume"))
        rows += [list(row) for row in zip(*columns, strict=True)]
    rows[-1][4] = rows[-2][4] * 1.035
    rows[-1][2] = max(rows[-1][2], rows[-1][4])
    fields = ("datetime", "open", "high", "low", "close", "volume")
    values = [
        dict(zip(fields, (f"{ts:%Y-%m-%d %H:%M:%S}", *(str(value) for value in rest)), strict=True))
        for ts, *rest in rows
    ]
    # Later than the seeds: an older answer would be placed among the versions of each bar.
    return Answer(name, {"symbol": name}, values, utc_now())


def cost_of_a_bar(repeats: int) -> dict[str, float]:
    """Return the microseconds of one bar: by the sessions that were evaluated before it, and for the conditions.

    They take turns.
    """
    prepared = {
        str(SHORT): _prepared(SHORT),
        str(LONG): _prepared(LONG),
        "kinds": _prepared(SHORT, "kinds"),
        "conditions": _prepared(SHORT, "conditions"),
    }
    taken: dict[str, list[float]] = {name: [] for name in prepared}
    for _ in range(repeats):
        for name, (evaluator, state, bars) in prepared.items():
            begun = time.perf_counter()
            for _ in range(200):
                evaluator.evaluate(state, [StoredSession(bars, 2)])
            taken[name].append((time.perf_counter() - begun) / 200 * 1e6)
    return {name: median(values) for name, values in taken.items()}


def _prepared(days: int, rules: str = "mixed") -> tuple[Evaluator, Any, SessionBars]:
    """Return a state after all bars but the last, and the session of the last bar."""
    state = None
    found = [from_document(document) for document in session_documents(SYMBOL, days)]
    last = found.pop()
    part = SessionBars.of(last.symbol, last.session_date, last.bars()[:-1])
    for bars in (*found, part):
        evaluator = Evaluator(book(rules), bars.ts[-1])
        state = evaluator.evaluate(state or evaluator.new_state(SYMBOL), [StoredSession(bars, 1)]).state
    return Evaluator(book(rules), LAST_CLOSE), state, last
