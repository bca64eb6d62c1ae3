"""`python -m benchmarks`: measure all chapters, or those that are named, and print one table."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from pathlib import Path

from barflow.errors import BarflowError
from benchmarks import (
    alerts,
    backfill,
    backtest,
    compare,
    dags,
    dashboard,
    figures,
    growth,
    history,
    lambda_bundle,
    load,
    parquet,
    parse,
    read,
    tick,
)
from benchmarks.stores import Bench, opened

CHAPTERS = {
    "parse": parse.measure,
    "parquet": parquet.measure,
    "read": read.measure,
    "load": load.measure,
    "peers": compare.measure,
    "tick": tick.measure,
    "backfill": backfill.measure,
    "history": history.measure,
    "alerts": alerts.measure,
    "backtest": backtest.measure,
    "function": lambda_bundle.measure,
    "page": dashboard.measure,
    "dags": dags.measure,
    "growth": growth.measure,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line. Return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure this machine: ratios against peers and limits, in one run of about forty minutes.",
        epilog="Example: python -m benchmarks --only parse --only tick",
    )
    parser.add_argument("--only", action="append", choices=CHAPTERS, metavar="NAME", help=" | ".join(CHAPTERS))
    parser.add_argument("--quick", action="store_true", help="a tenth of the data, once, to try it out")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the figures to FILE, as Markdown")
    options = parser.parse_args(arguments)
    if not Path("/proc/self/status").exists():
        parser.error("peak memory comes from /proc, which this system lacks: run it on Linux")
    begun = time.monotonic()

    def log(text: str) -> None:
        print(f"{time.monotonic() - begun:6.0f} s  {text}", file=sys.stderr, flush=True)

    try:
        with opened(options.quick, log) as bench:
            chapters = [measured(name, bench) for name in CHAPTERS if name in (options.only or CHAPTERS)]
    except BarflowError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    figures.show(chapters)
    if options.out:
        figures.write(options.out, chapters, options.quick)
        log(f"written to {options.out}")
    return 1 if any(chapter.failed for chapter in chapters) else 0


def measured(name: str, bench: Bench) -> figures.Chapter:
    """Return the chapter, or a chapter with its error, so that the figures of the others are kept."""
    try:
        return CHAPTERS[name](bench)
    except (BarflowError, AssertionError) as error:
        if isinstance(error, AssertionError):
            traceback.print_exc()  # both sides have not done the same work
        bench.log(f"{name} failed: {error}")
        return figures.Chapter(name, "", [], [], failed=str(error) or "a check of the measurement failed")


if __name__ == "__main__":
    sys.exit(main())
