"""The EMR step: publish the partitions whose bars changed in MongoDB as Parquet.

The program takes plain arguments, so it runs the same under `python`, spark-submit on a laptop, and EMR. The MongoDB
URI is a secret and comes from the environment (BARFLOW_MONGODB_URI: the URI or a secretsmanager: reference).
Progress goes to stderr; the last line on stdout is one JSON object.

    python spark/bars_to_parquet.py --lake s3://bucket/lake
    python spark/bars_to_parquet.py --lake .barflow/lake --full --symbols AAPL,MSFT
"""

from __future__ import annotations

import argparse
from typing import Any

from barflow.pipeline import process
from barflow.pipeline.lineage import Run, parse_parent, reported
from barflow.pipeline.lineage_lake import PROCESS
from barflow.pipeline.program import run_program
from barflow.progress import Log
from barflow.settings import load_settings
from barflow.staging.ledger import new_run_id
from barflow.symbol import parse_symbols


def parser() -> argparse.ArgumentParser:
    """Return the parser of the step's arguments."""
    options = argparse.ArgumentParser(
        prog="bars_to_parquet.py", description=__doc__.split("\n", 1)[0], allow_abbrev=False
    )
    options.add_argument("--lake", help="folder or s3:// URI of the lake (default: BARFLOW_LAKE_URI)")
    options.add_argument("--run-id", help="the run's id, for the ledger and the manifest (default: a new one)")
    options.add_argument("--symbols", type=parse_symbols, help="only these symbols, comma separated")
    options.add_argument("--full", action="store_true", help="write every partition, not only the changed ones")
    options.add_argument("--lineage-parent", type=parse_parent, help="OpenLineage run that started this one")
    return options


def main(argv: list[str] | None = None) -> int:
    """Run the step and return its exit code."""
    return run_program(parser(), argv, _process)


def _process(arguments: argparse.Namespace, log: Log) -> dict[str, Any]:
    settings = load_settings(**({"lake_uri": arguments.lake} if arguments.lake else {}))
    run_id = arguments.run_id or new_run_id(process.HOP)
    with reported(Run(PROCESS, settings, run_id, arguments.lineage_parent), log) as done:
        report = process.run(settings, log, run_id=run_id, symbols=arguments.symbols, full=arguments.full)
        done(report)
    return report.to_json()


if __name__ == "__main__":
    raise SystemExit(main())
