"""The ledger says of every run how it ended, and the lease keeps a hop to one run at a time."""

from __future__ import annotations

import itertools
import threading
from dataclasses import asdict
from datetime import timedelta

import pytest
from pymongo.database import Database
from ticks import SYMBOLS, counts, ingest, scripted
from twelvedata_calls import CLOCK, DAY_CLOSES, DAY_OPENS

from barflow.errors import BusyError, UnavailableError, VendorRefusedError
from barflow.market.sessions import BAR, utc_now
from barflow.staging.connection import Document
from barflow.staging.ledger import FAILED, PARTIAL, RUNNING, SUCCEEDED, Lease, Ledger, new_run_id
from barflow.twelvedata.client import SymbolError
from emulators.twelvedata.server import TwelveDataEmulator

Mongo = Database[Document]


def last(database: Mongo) -> Document:
    found = Ledger(database).last("ingest")
    assert found
    return found


def test_a_tick_is_accounted_for_symbol_by_symbol(market: TwelveDataEmulator, database: Mongo) -> None:
    CLOCK.now = DAY_OPENS + 10 * BAR + timedelta(minutes=1)
    market.switches.fail("off_grid", symbol="MSFT", ts=DAY_OPENS)
    before = utc_now() - timedelta(milliseconds=1)
    report = ingest(market, database, history=1).tick([*SYMBOLS, "UNKNOWN"])
    run = last(database)
    assert (run["_id"], run["run_id"], run["hop"]) == (report.run_id, report.run_id, "ingest")
    assert before <= run["started_at"] <= run["finished_at"] <= utc_now()
    assert run["symbols"] == [*SYMBOLS, "UNKNOWN"]
    assert run["counts"] == [
        {"symbol": "AAPL", **counts(received=11, new=10, forming=1)},
        {"symbol": "MSFT", **counts(received=11, new=9, rejected=1, forming=1)},
    ]
    assert [item["symbol"] for item in run["errors"]] == ["UNKNOWN"]
    assert run["outcome"] == PARTIAL


def test_a_run_is_running_until_it_ends(market: TwelveDataEmulator, database: Mongo) -> None:
    seen: list[Document] = []
    ingest(market, database, history=1).tick(["AAPL"], on_symbol=lambda _: seen.append(last(database)))
    assert [item["outcome"] for item in seen] == [RUNNING]
    assert last(database)["outcome"] == SUCCEEDED


@pytest.mark.parametrize("error", [VendorRefusedError("the day's credits are spent"), KeyboardInterrupt()])
def test_a_run_that_stops_says_why_and_what_it_had_done(database: Mongo, error: BaseException) -> None:
    hop = scripted(database, SymbolError("AAPL", 404, "unknown"), error, now=DAY_CLOSES)
    with pytest.raises(type(error)):
        hop.tick(["AAPL", "MSFT"])
    run = last(database)
    assert (run["outcome"], run["error"]) == (FAILED, str(error) or "KeyboardInterrupt")
    assert [item["symbol"] for item in run["errors"]] == ["AAPL"]


def test_the_first_error_is_the_one_that_is_told(database: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    """When MongoDB is away the ledger cannot be closed either; that is no news."""

    def away(*args: object, **facts: object) -> None:
        raise UnavailableError("MongoDB could not close the ledger")

    hop = scripted(database, VendorRefusedError("wrong key"), now=DAY_CLOSES)
    monkeypatch.setattr(hop.ledger, "finish", away)
    with pytest.raises(VendorRefusedError, match="wrong key"):
        hop.tick(["AAPL"])
    hop = scripted(database, now=DAY_CLOSES)
    monkeypatch.setattr(hop.ledger, "finish", away)
    with pytest.raises(UnavailableError):
        hop.tick(["AAPL"])


def test_a_run_id_names_its_hop_and_sorts_by_time() -> None:
    ids = [new_run_id("ingest") for _ in range(50)]
    assert len({*ids}) == 50
    assert all(item[16:24] == "-ingest-" for item in ids)
    assert [item[:16] for item in ids] == sorted(item[:16] for item in ids)


def test_runs_are_found_by_hop_by_fact_and_by_time(database: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count()
    monkeypatch.setattr("barflow.staging.ledger.utc_now", lambda: DAY_CLOSES + timedelta(seconds=next(seconds)))
    ledger = Ledger(database)
    ledger.ensure()
    for run_id, hop, outcome in (("a", "process", SUCCEEDED), ("b", "process", FAILED), ("c", "ingest", SUCCEEDED)):
        ledger.start(hop, run_id, lake="/lake")
        ledger.finish(run_id, outcome, {})
    newest, succeeded = ledger.last("process"), ledger.last("process", outcome=SUCCEEDED)
    assert newest
    assert succeeded
    assert (newest["_id"], succeeded["_id"]) == ("b", "a")
    assert ledger.last("aggregate") is None
    assert {item["_id"] for item in ledger.finished_since("process", DAY_CLOSES)} == {"a", "b"}
    assert {item["_id"] for item in ledger.finished_since("process", DAY_CLOSES, outcome=FAILED)} == {"b"}
    assert {item["_id"] for item in ledger.finished_since("process", DAY_CLOSES + timedelta(seconds=2))} == {"b"}


def test_a_lease_is_held_by_one_and_freed_by_its_holder_alone(database: Mongo) -> None:
    one, two = Lease(database, "process", "one", 30), Lease(database, "process", "two", 30)
    assert one.take()
    assert one.take(), "its holder renews it"
    assert not two.take()
    two.release()
    assert not two.take()
    assert Lease(database, "aggregate", "two", 30).take(), "each hop has its own"
    one.release()
    assert two.take()


def test_a_dead_holders_lease_expires_and_the_holder_that_stalled_is_told(database: Mongo) -> None:
    stalled, next_one = Lease(database, "process", "stalled", -1), Lease(database, "process", "next", 30)
    assert stalled.take()
    assert next_one.take()
    with pytest.raises(BusyError, match="this run stalled and another took over"):
        stalled.check()
    next_one.check()


def test_a_lease_is_renewed_while_it_is_held(database: Mongo) -> None:
    with Lease(database, "process", "one", 0.3).held(0, print):
        first = database["leases"].find_one({}) or {}
        waiting = threading.Event()
        for _ in range(100):
            if (database["leases"].find_one({}) or {})["expires_at"] > first["expires_at"]:
                break
            waiting.wait(0.02)
        else:
            pytest.fail("the lease was not renewed")
    assert database["leases"].count_documents({}) == 0


def test_who_waits_for_a_lease_says_so_once_and_gives_up_or_gets_it(database: Mongo) -> None:
    said: list[str] = []
    holder = Lease(database, "process", "one", 30)
    assert holder.take()
    with (
        pytest.raises(BusyError, match=r"another run is at work\. Nothing was changed"),
        Lease(database, "process", "two", 0.2).held(1.5, said.append),
    ):
        pytest.fail("two hold the lease")
    assert len(said) == 1
    threading.Timer(0.2, holder.release).start()
    with Lease(database, "process", "two", 0.2).held(30, said.append):
        assert (database["leases"].find_one({}) or {})["holder"] == "two"


def test_counts_add_up_over_symbols(market: TwelveDataEmulator, database: Mongo) -> None:
    report = ingest(market, database, history=1).tick(SYMBOLS)
    assert asdict(report.total) == counts(received=156, new=156)
