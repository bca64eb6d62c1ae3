"""Parse and validate: an answer to bars, against Twelve Data's own Python client, which makes a DataFrame."""

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
Both clients get the same answer of {BARS} bars from an HTTP adapter, without a network. Ours returns validated bars by
session. Twelve Data's own client (`twelvedata`) returns a DataFrame and validates nothing. Each client runs in its own
process, and they take turns.
"""


def measure(bench: Bench) -> Chapter:
    """Measure both clients."""
    bench.log(f"parsing an answer of {BARS} bars by both clients")
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
        3.0,
        times_less=True,
    )
    imported = ", ".join(ours[0].result["imported"]) or "none of them"
    notes = [
        f"of {', '.join(HEAVY)} ours imports {imported}",
        f"ours in parts: JSON {taken['json']:.1f} ms, validation {taken['validation']:.1f} ms, the HTTP client "
        f"{taken['whole'] - taken['json'] - taken['validation']:.1f} ms",
        f"peak memory of the process: ours {middle(ended.peak for ended in ours):.0f} MiB, "
        f"theirs {middle(ended.peak for ended in theirs):.0f} MiB",
    ]
    return Chapter("Parse and validate", MEANING, [figure], notes)


def _answer() -> bytes:
    """Return an answer as Twelve Data sends it: the newest bar first, every number as text."""
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
