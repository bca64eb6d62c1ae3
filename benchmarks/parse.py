"""How fast does an answer become bars? Against the vendor's own Python client making a DataFrame of it."""

from __future__ import annotations

import orjson

from benchmarks.figures import Chapter, Figure, middle
from benchmarks.ours import HEAVY
from benchmarks.processes import call
from benchmarks.seed import session_documents
from benchmarks.stores import Bench

BARS = 5000
SYMBOL = "AAPL"
MEANING = f"""
Both clients parse the same answer of {BARS} bars, from the HTTP adapter on and without a network. Barflow's client
returns validated bars, grouped by session. The official client (`twelvedata`) returns a DataFrame without validation.
Each client runs in its own process, and they take turns.
"""


def measure(bench: Bench) -> Chapter:
    bench.say(f"parsing an answer of {BARS} bars by both clients")
    path = bench.folder / "answer.json"
    path.write_bytes(_answer())
    given = {"path": str(path), "symbol": SYMBOL}
    turns = [(call("ours:parse", **given), call("peers:official_client", **given)) for _ in range(bench.repeats(5))]
    ours, theirs = zip(*turns, strict=True)
    assert all(ended.result["bars"] == BARS for ended in (*ours, *theirs))
    taken = {name: middle(ended.result[name] for ended in ours) for name in ("whole", "json", "validation")}
    figure = Figure(
        f"parse and validate {BARS} bars",
        taken["whole"],
        "ms",
        "the official client to a DataFrame",
        middle(ended.result["whole"] for ended in theirs),
        2.5,
        times_less=True,
    )
    imported = ", ".join(ours[0].result["imported"]) or "none"
    seen = [
        f"of {', '.join(HEAVY)}, Barflow imports {imported}",
        f"Barflow's time: JSON {taken['json']:.1f} ms, validation {taken['validation']:.1f} ms, the HTTP client "
        f"{taken['whole'] - taken['json'] - taken['validation']:.1f} ms",
        f"peak memory of the process: Barflow {middle(ended.peak for ended in ours):.0f} MiB, "
        f"official client {middle(ended.peak for ended in theirs):.0f} MiB",
    ]
    return Chapter("Parse and validate", MEANING, [figure], seen)


def _answer() -> bytes:
    """An answer in the vendor's form: the newest bar first, every number as text."""
    names = ("ts", "open", "high", "low", "close", "volume")
    rows = [
        row
        for document in session_documents(SYMBOL, 70)
        for row in zip(*(document[name] for name in names), strict=True)
    ]
    values = [
        {
            "datetime": f"{ts:%Y-%m-%d %H:%M:%S}",
            **{name: f"{price:.5f}" for name, price in zip(names[1:5], prices, strict=True)},
            "volume": str(volume),
        }
        for ts, *prices, volume in reversed(rows[-BARS:])
    ]
    meta = {"symbol": SYMBOL, "interval": "5min", "currency": "USD", "exchange": "NASDAQ", "type": "Common Stock"}
    return orjson.dumps({"meta": meta, "values": values, "status": "ok"})
