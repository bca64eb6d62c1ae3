"""The ledger records how every run ended, and the lease allows one run of a hop at a time."""

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


def test_a_tick_is_recorded_symbol_by_symbol(market: TwelveDataEmulator, database: Mongo) -> None:
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


def test_a_runs_outcome_is_running_until_it_ends(market: TwelveDataEmulator, database: Mongo) -> None:
    seen: list[Document] = []
    ingest(market, database, history=1).tick(["AAPL"], on_symbol=lambda _: seen.append(last(database)))
    assert [item["outcome"] for item in seen] == [RUNNING]
    assert last(database)["outcome"] == SUCCEEDED


@pytest.mark.parametrize("error", [VendorRefusedError("the credits of the day are used up"), KeyboardInterrupt()])
def test_a_run_that_fails_records_the_error_and_what_it_did(database: Mongo, error: BaseException) -> None:
    hop = scripted(database, SymbolError("AAPL", 404, "unknown"), error, now=DAY_CLOSES)
    with pytest.raises(type(error)):
        hop.tick(["AAPL", "MSFT"])
    run = last(database)
    assert (run["outcome"], run["error"]) == (FAILED, str(error) or "KeyboardInterrupt")
    assert [item["symbol"] for item in run["errors"]] == ["AAPL"]


def test_a_tick_raises_its_own_error_when_the_ledger_fails_too(
    database: Mongo, monkeypatch: pytest.MonkeyPatch
) -> None:

    def fail(*args: object, **fields: object) -> None:
        raise UnavailableError("MongoDB could not record the end of the run")

    hop = scripted(database, VendorRefusedError("wrong key"), now=DAY_CLOSES)
    monkeypatch.setattr(hop.ledger, "finish", fail)
    with pytest.raises(VendorRefusedError, match="wrong key"):
        hop.tick(["AAPL"])
    hop = scripted(database, now=DAY_CLOSES)
    monkeypatch.setattr(hop.ledger, "finish", fail)
    with pytest.raises(UnavailableError):
        hop.tick(["AAPL"])


def test_run_ids_are_unique_name_their_hop_and_sort_by_time() -> None:
    ids = [new_run_id("ingest") for _ in range(50)]
    assert len({*ids}) == 50
    assert all(item[16:24] == "-ingest-" for item in ids)
    assert [item[:16] for item in ids] == sorted(item[:16] for item in ids)


def test_runs_are_found_by_hop_field_and_time(database: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_old_runs_expire_but_those_that_a_later_run_starts_from(
    database: Mongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, now = Ledger(database), utc_now()
    ledger.ensure()

    def run(name: str, hop: str, days: float, outcome: str = SUCCEEDED, **fields: object) -> None:
        moment = now - timedelta(days=days)
        monkeypatch.setattr("barflow.staging.ledger.utc_now", lambda: moment)
        ledger.start(hop, name, **fields)
        ledger.finish(name, outcome, {}, **({"manifest": name} if hop == "process" else {}))
        monkeypatch.setattr("barflow.staging.ledger.utc_now", utc_now)

    lake = {"lake": "/lake", "symbols": None}
    for days in (500, 200, 150):
        run(f"i-{days}", "ingest", days)
    run("i-failed", "ingest", 140, FAILED)
    run("actions", "actions", 300)
    for days in (500, 300, 200):
        run(f"p-{days}", "process", days, **lake)
    run("p-some", "process", 199.5, lake="/lake", symbols=["AAPL"])
    run("other", "process", 100, lake="/other", symbols=None)
    ledger.record("reconcile", now - timedelta(days=100), lake="/lake", full=True)
    assert ledger.expire(now - timedelta(days=90)) == 4
    left = {run["_id"] for run in database["ledger"].find({"hop": {"$ne": "reconcile"}})}
    assert left == {"i-150", "i-failed", "actions", "p-200", "p-some", "other"}
    assert ledger.last("reconcile", lake="/lake", full=True)
    since = ledger.finished_since("process", now - timedelta(days=200.1), lake="/lake")
    assert {item["_id"] for item in since} == {"p-200", "p-some"}
    assert ledger.expire(now - timedelta(days=90)) == 0
    run("p-new", "process", 1, **lake)
    assert ledger.expire(now - timedelta(days=90)) == 2
    assert ledger.first("process", "/lake") == ledger.last("process", lake="/lake")["started_at"]  # type: ignore[index]


def test_a_lease_has_one_holder_and_only_it_can_release_the_lease(database: Mongo) -> None:
    one, two = Lease(database, "process", "one", 30), Lease(database, "process", "two", 30)
    assert one.take()
    assert one.take(), "its holder may take it again"
    assert not two.take()
    two.release()
    assert not two.take()
    assert Lease(database, "aggregate", "two", 30).take(), "each hop has its own lease"
    one.release()
    assert two.take()


def test_a_dead_holders_lease_expires_and_a_stalled_holder_raises(database: Mongo) -> None:
    stalled, next_one = Lease(database, "process", "stalled", -1), Lease(database, "process", "next", 30)
    assert stalled.take()
    assert next_one.take()
    with pytest.raises(BusyError, match="this run stalled and another run took over"):
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


def test_a_wait_for_a_lease_is_logged_once_and_ends_with_the_lease_or_an_error(database: Mongo) -> None:
    logged: list[str] = []
    holder = Lease(database, "process", "one", 30)
    assert holder.take()
    with (
        pytest.raises(BusyError, match=r"another run is active\. Nothing was changed"),
        Lease(database, "process", "two", 0.2).held(0.3, logged.append),
    ):
        pytest.fail("two hold the lease")
    assert len(logged) == 1
    threading.Timer(0.2, holder.release).start()
    with Lease(database, "process", "two", 0.2).held(30, logged.append):
        assert (database["leases"].find_one({}) or {})["holder"] == "two"


def test_the_total_adds_up_the_symbols_counts(market: TwelveDataEmulator, database: Mongo) -> None:
    report = ingest(market, database, history=1).tick(SYMBOLS)
    assert asdict(report.total) == counts(received=156, new=156)
