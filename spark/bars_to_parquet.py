"""The EMR step: writes the partitions of the lake whose bars changed in MongoDB.

Plain arguments, so that it runs the same under `python`, spark-submit on a laptop and EMR. The MongoDB URI is a
secret and comes from the environment (BARFLOW_MONGODB_URI, the URI or a secretsmanager: reference).
Progress goes to stderr; the last line on stdout is one JSON object.

    python spark/bars_to_parquet.py --lake s3://bucket/lake
    python spark/bars_to_parquet.py --lake .barflow/lake --full --symbols AAPL,MSFT
"""

from __future__ import annotations

import argparse
from collections import Counter
from contextlib import suppress
from typing import Any

from barflow.errors import BadInputError, BarflowError
from barflow.lake.partitions import Lake
from barflow.pipeline import process
from barflow.pipeline.program import Say, as_known, run_program
from barflow.secrets import resolve
from barflow.settings import Settings, load_settings, parse_symbols
from barflow.staging.connection import connect
from barflow.staging.ledger import FAILED, SUCCEEDED, Lease, Ledger, new_run_id
from barflow.staging.sessions import Staging


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog="bars_to_parquet.py", description=__doc__.split("\n", 1)[0], allow_abbrev=False
    )
    options.add_argument("--lake", help="folder or s3:// URI of the lake (default: BARFLOW_LAKE_URI)")
    options.add_argument("--run-id", help="the run's id, for the ledger and the manifest (default: a new one)")
    options.add_argument("--symbols", type=parse_symbols, help="only these symbols, comma separated")
    options.add_argument("--full", action="store_true", help="write every partition, not only the changed ones")
    return options


def main(argv: list[str] | None = None) -> int:
    return run_program(parser(), argv, _process)


def _process(arguments: argparse.Namespace, say: Say) -> dict[str, Any]:
    settings = load_settings(**({"lake_uri": arguments.lake} if arguments.lake else {}))
    database = connect(resolve(settings.mongodb_uri, "BARFLOW_MONGODB_URI"), settings.mongodb_database)
    lake = Lake(settings.require("lake_uri"))
    ledger, staging = Ledger(database), Staging(database)
    staging.ensure()
    ledger.ensure()
    run_id = arguments.run_id or new_run_id(process.HOP)
    symbols = sorted(arguments.symbols) if arguments.symbols else None
    lease = Lease(database, f"{process.HOP} {lake.uri}", run_id, settings.lease_seconds)
    with lease.held(settings.lease_seconds * 2, say):
        ledger.start(process.HOP, run_id, lake=lake.uri, symbols=symbols)
        try:
            written, manifest = _write(settings, staging, ledger, lake, lease, run_id, symbols, arguments.full, say)
        except BaseException as error:
            with suppress(BarflowError):  # MongoDB may be what failed; that error is the one to tell
                ledger.finish(run_id, FAILED, {}, error=str(as_known(error)))
            raise
        rows: Counter[str] = Counter()
        for item in written:
            rows[item.symbol] += item.rows
        ledger.finish(run_id, SUCCEEDED, {symbol: {"rows": n} for symbol, n in rows.items()}, manifest=manifest)
    return {
        "run_id": run_id,
        "partitions": len(written),
        "sessions": sum(len(item.sessions) for item in written),
        "rows": rows.total(),
        "manifest": manifest,
        "outcome": "published" if manifest else "nothing changed",
    }


def _write(
    settings: Settings,
    staging: Staging,
    ledger: Ledger,
    lake: Lake,
    lease: Lease,
    run_id: str,
    symbols: list[str] | None,
    full: bool,
    say: Say,
) -> tuple[list[process.Written], str | None]:
    """Stages, verifies, publishes. Returns what was written and the manifest's id, if there was anything."""
    unknown = sorted(set(symbols or ()) - staging.newest_sessions(symbols or (), ()).keys())
    if unknown:
        raise BadInputError(
            f"no bars of {', '.join(unknown)} are staged. Nothing was written. "
            f"Check the spelling, or run `barflow ingest --symbols {','.join(unknown)}` first."
        )
    lake.discard_staged()  # of runs that died; this one holds the lease
    planned = process.changed(staging, ledger, lake, symbols, full)
    if not planned:
        say("nothing changed since the last run")
        return [], None
    say(f"{len(planned)} partitions changed; starting Spark")
    from barflow.pipeline.spark import spark_session

    spark = spark_session("barflow process")
    say(f"writing {len(planned)} partitions")
    written = process.stage_partitions(
        spark,
        planned,
        mongodb_uri=resolve(settings.mongodb_uri, "BARFLOW_MONGODB_URI"),
        database=settings.mongodb_database,
        lake_uri=lake.uri,
        run_id=run_id,
    )
    process.verify(staging, written, planned)
    lease.check()
    process.promote(lake, run_id, written)
    lake.publish(process.manifest_of(run_id, written, planned))
    say(f"published {sum(item.rows for item in written)} rows in {len(written)} partitions")
    return written, run_id


if __name__ == "__main__":
    raise SystemExit(main())
