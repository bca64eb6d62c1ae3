"""How soon is an alert out, and does judging a bar cost more when more bars are stored?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from statistics import median, quantiles
from typing import Any

from botocore.awsrequest import AWSResponse

from barflow.alerts.channels import Receipts, SnsChannel
from barflow.alerts.evaluate import Evaluator
from barflow.alerts.message import Message
from barflow.alerts.rules import RuleBook, settle
from barflow.alerts.tick import Alerts
from barflow.market.bars import SessionBars, document_key
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
# SNS is never reached; its client signs all the same.
KEYS = {"AWS_ACCESS_KEY_ID": "benchmark", "AWS_SECRET_ACCESS_KEY": "benchmark"}
TOPIC = "arn:aws:sns:eu-central-1:123456789012:alerts.fifo"
MEANING = f"""
Stored to sent: {SYMBOLS} symbols with 20 rules each receive the bar of one tick, which fires one alert per symbol.
The time runs from the moment a symbol's bars are in MongoDB until SNS has its message, in the batches that ingest
makes. The SNS call is complete except for the network. The peer reads the rules' 20 sessions from the store at each
tick. That is the minimum for an evaluation without a stored state.

Cost of a bar: the 20 rules are evaluated on one new bar, with {LONG} sessions stored and with {SHORT}.
"""
# Twenty rules of every kind; on the bars here, fires_3pct alone does.
RULES: Sequence[dict[str, Any]] = [
    {"id": "fires_3pct", "kind": "move", "percent": 3.0, "minutes": 30},
    *({"id": f"move_{n}", "kind": "move", "percent": 10.0 + n, "minutes": 30 * n} for n in range(1, 5)),
    *({"id": f"gap_{n}", "kind": "gap", "percent": 5.0 + n} for n in range(3)),
    *({"id": f"level_{n}", "kind": "level", "level": 1_000_000.0 + n} for n in range(3)),
    *({"id": f"volume_{n}", "kind": "volume", "times": 1000.0 + n, "sessions": 20} for n in range(3)),
    *({"id": f"average_{n}", "kind": "average", "sessions": 20 - n, "direction": "down"} for n in range(2)),
    {"id": "average_bars", "kind": "average", "bars": 50, "direction": "down"},
    *({"id": f"extreme_{n}", "kind": "extreme", "sessions": 20 - n, "direction": "down"} for n in range(2)),
    {"id": "silence", "kind": "silence", "minutes": 20},
]


def measure(bench: Bench) -> Chapter:
    names = bench.symbols(SYMBOLS)
    pipeline = bench.pipeline("alerts")
    bench.say(f"alerts: {len(names)} symbols of {DAYS} days under {len(RULES)} rules")
    seed_sessions(pipeline.database, names, DAYS, but_last=1)
    told = call("alerts:stored_to_sent", KEYS, uri=pipeline.mongodb_uri, database=pipeline.name, names=names).result
    bench.say("alerts: the cost of a bar")
    costs = call("alerts:cost_of_a_bar", repeats=bench.repeats(9)).result
    figures = [
        Figure(f"alert from stored to sent, {len(names)} symbols × {len(RULES)} rules, p50", told["p50"], "s"),
        Figure(
            "the same, p99",
            told["p99"],
            "s",
            against="reading back 20 sessions",
            theirs=told["read_back"],
            target=2,
            times_less=True,
        ),
        Figure(
            f"evaluate {len(RULES)} rules on a bar, {LONG} sessions stored",
            costs[str(LONG)],
            "µs",
            against=f"{SHORT} sessions stored",
            theirs=costs[str(SHORT)],
            target=1.25,
        ),
    ]
    seen = [
        f"{told['sent']:.0f} alerts; the tick that stored, evaluated and sent took {told['tick']:.1f} s, alerts "
        f"{told['alerts']:.1f} s",
    ]
    return Chapter("Alerts", MEANING, figures, seen)


def book() -> RuleBook:
    return settle({"rule": RULES})


class Timed(SnsChannel):
    """SNS without the network, and when it had each message."""

    def __init__(self) -> None:
        super().__init__(TOPIC)
        self.sent: dict[str, float] = {}
        self._client.meta.events.register("before-send.sns", lambda **_: Taken())

    def send(self, messages: Sequence[Message]) -> Iterator[Receipts]:
        for receipts in super().send(messages):
            self.sent |= dict.fromkeys((name.split("|")[1] for name in receipts), time.time())
            yield receipts


class Taken(AWSResponse):  # type: ignore[misc]
    """SNS's answer to a batch it took."""

    def __init__(self) -> None:
        super().__init__("", 200, {}, None)
        self._content = (
            b"<PublishBatchResponse><PublishBatchResult><Failed/></PublishBatchResult></PublishBatchResponse>"
        )


def stored_to_sent(uri: str, database: str, names: list[str]) -> dict[str, float]:
    """Seconds. The first tick fills the state from the store, the second brings the last bar of the day."""
    opened, channel = connect(uri, database), Timed()
    keys = [document_key(name, item.session_date) for name in names for item in sessions(DAYS)]
    begun = time.monotonic()
    for _ in Staging(opened).sessions(keys):
        pass
    read_back = time.monotonic() - begun
    Alerts(opened, book(), [], lambda: LAST_CLOSE).ensure()
    quiet: Any = Script([])
    _ingest(quiet, opened, Alerts(opened, book(), [], lambda: LAST_CLOSE)).tick(names)
    alerts = Alerts(opened, book(), [channel], lambda: LAST_CLOSE)
    judging: list[float] = []
    _time(alerts, "_judge", judging)
    _time(alerts.delivery, "run", judging)
    jumped: Any = Script([_answer(name) for name in names])
    hop, stored = _ingest(jumped, opened, alerts), dict[str, float]()
    save = hop.staging.save
    hop.staging.save = lambda *given: _noting(stored, save(*given))  # type: ignore[method-assign]
    begun = time.monotonic()
    hop.tick(names)
    tick = time.monotonic() - begun
    waits = [channel.sent[name] - stored[name] for name in names]
    return {
        "read_back": read_back,
        "tick": tick,
        "alerts": sum(judging),
        "sent": len(waits),
        "p50": median(waits),
        "p99": quantiles(waits, n=100)[98],
    }


def _noting(stored: dict[str, float], saved: dict[str, Saved]) -> dict[str, Saved]:
    """Notes when these symbols' bars were stored."""
    stored |= dict.fromkeys(saved, time.time())
    return saved


class Script:
    """A client that has these answers."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self.answers = answers

    def time_series(self, *asked: object, on_raw: object) -> Iterator[Answer]:
        yield from self.answers


def _ingest(client: Any, database: Any, alerts: Alerts) -> Ingest:
    return Ingest(client, database, history_sessions=DAYS, revision_sessions=2, clock=lambda: LAST_CLOSE, alerts=alerts)


def _answer(name: str) -> Answer:
    """The revision window of three sessions, the last bar of it 3.5 % up."""
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
    return Answer(name, {"symbol": name}, values, LAST_CLOSE)


def _time(owner: Any, method: str, seconds: list[float]) -> None:
    original = getattr(owner, method)

    def timed(*arguments: Any) -> Any:
        begun = time.monotonic()
        result = original(*arguments)
        seconds.append(time.monotonic() - begun)
        return result

    setattr(owner, method, timed)


def cost_of_a_bar(repeats: int) -> dict[str, float]:
    """Microseconds for one bar, by how many sessions were judged before it; the histories take turns."""
    taken: dict[int, list[float]] = {SHORT: [], LONG: []}
    prepared = {days: _prepared(days) for days in taken}
    for _ in range(repeats):
        for days, (evaluator, state, bars) in prepared.items():
            begun = time.perf_counter()
            for _ in range(200):
                evaluator.advance(state, [StoredSession(bars, 2)])
            taken[days].append((time.perf_counter() - begun) / 200 * 1e6)
    return {str(days): median(values) for days, values in taken.items()}


def _prepared(days: int) -> tuple[Evaluator, Any, SessionBars]:
    """A state that has judged all but the last bar, and the session with it."""
    state = None
    found = [from_document(document) for document in session_documents(SYMBOL, days)]
    last = found.pop()
    part = SessionBars.of(last.symbol, last.session_date, last.bars()[:-1])
    for bars in (*found, part):
        evaluator = Evaluator(book(), _end(bars))
        state, _ = evaluator.advance(state or evaluator.start(SYMBOL), [StoredSession(bars, 1)])
    return Evaluator(book(), LAST_CLOSE), state, last


def _end(bars: SessionBars) -> datetime:
    return bars.ts[-1]
