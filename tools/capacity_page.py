"""Write the figures of docs/large-backfills.md: `python -m tools.capacity_page`. A test compares them.

They follow from barflow/pipeline/rates.toml, config/prices.toml and the settings of the environments.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

from barflow.pipeline.backfill import plan
from barflow.pipeline.capacity import (
    CLUSTER_START_HOURS,
    Demand,
    Limits,
    demand,
    partition_above_bars,
    plan_credits,
    rate_tables,
    rates,
    too_small,
)
from config.cost import backfill_limits, cluster_hour_dollars, list_prices
from config.environments import ENVIRONMENTS, environment

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "large-backfills.md"
BEGIN, END = "<!-- figures: python -m tools.capacity_page -->", "<!-- end of figures -->"
SYMBOLS, FIRST, LAST, NOW = 5000, date(2021, 11, 22), date(2026, 11, 20), datetime(2026, 11, 23, 1, tzinfo=UTC)
WORK_SECONDS = 10  # of a usual process run
SESSION_HOURS, SESSIONS = 6.5, 21  # of a month


def figures() -> str:
    """Return the generated part of the page."""
    plans = plan_credits()
    names = [f"S{number}" for number in range(SYMBOLS)]
    planned = {
        name: plan(
            names, FIRST, LAST, credits_per_minute=credits, credits_per_day=800 if name == "Basic" else None, now=NOW,
            batch_size=min(credits, 120),
        )
        for name, credits in plans.items()
    }  # fmt: skip
    bars, credits = planned["Ultra"].bars, planned["Ultra"].credits
    cores = bars / 1e6 * rates().stage_core_seconds / 3600
    fetching = (
        (name, f"{plans[name]:,}", _hours((found.finishes_at - NOW).total_seconds() / 3600), f"{cores / hours:.1f}")
        for name, found in planned.items()
        if (hours := max(found.minutes / 60, 1 / 60))
    )
    limits = {name: Limits(**backfill_limits(environment(name))) for name in ENVIRONMENTS}
    demands = {name: demand(bars, found) for name, found in limits.items()}
    parts: list[str] = [
        f"{SYMBOLS:,} symbols from {FIRST} to {LAST} are {bars:,} bars and cost {credits:,} credits.",
        _table(("plan", "credits a minute", "time to fetch", "cores that barflow needs"), fetching),
        _table(("environment", "process", "EMR", "aggregate", "its load", "Glue"), _jobs(demands)),
        _table(("store", "GB", "USD a month"), _stores(demands["prod"])),
    ]
    for name in ("dev", "prod"):
        problems = "\n".join(f"- {problem}" for problem in too_small(demands[name], limits[name]))
        parts.append(f"`barflow backfill --plan` names in {name}:\n\n{problems}")
    memory = {name: size for name, size in rate_tables()["memory"].items() if name != "source"}
    partitioned = (
        (f"`{name}`", f"{size}", f"{least:,}", f"{least * SYMBOLS // bars:,}")
        for name, size in memory.items()
        if (least := partition_above_bars(size))
    )
    parts.append(_table(("database", "memory in GB", "partition from bars", "symbols × 5 years"), partitioned))
    parts.append(_table(("a process run on", "time", "USD a run", "USD a month to keep warm"), _runs()))
    parts.append(_table(("an hour of 4 vCPUs and 16 GB", "USD"), _worker_hours()))
    return "\n\n".join(parts)


def _jobs(demands: dict[str, Demand]) -> Iterator[Sequence[str]]:
    for name, needed in demands.items():
        yield (
            name,
            _hours(needed.process_hours),
            f"{needed.emr_dollars:,.2f} USD",
            _hours(needed.glue_hours),
            _hours(needed.load_hours),
            f"{needed.glue_dollars:,.2f} USD",
        )


def _stores(needed: Demand) -> Iterator[Sequence[str]]:
    month = list_prices().month
    yield "MongoDB: staged sessions until they expire", f"{needed.staging_gb:,.0f}", "your server's"
    yield "MongoDB: answers as received for 30 days", f"{needed.raw_gb:,.0f}", "your server's"
    yield "S3: the archive", f"{needed.lake_gb:,.0f}", f"{needed.lake_gb * month.s3_gb:,.2f}"
    yield "RDS: the warehouse, one copy", f"{needed.warehouse_gb:,.0f}", f"{needed.warehouse_gb * month.rds_gb:,.2f}"


def _runs() -> Iterator[Sequence[str]]:
    serverless, dev = list_prices().serverless, environment("dev")
    workers, cluster = 2, CLUSTER_START_HOURS * 3600 + WORK_SECONDS
    cold = max(serverless.start_seconds + WORK_SECONDS, serverless.least_seconds)
    hour = workers * serverless.worker_hour
    dollars = cluster / 3600 * cluster_hour_dollars(dev)
    yield "a transient cluster of dev", f"{cluster / 60:.1f} minutes", f"{dollars:.3f}", "0"
    yield "EMR Serverless", f"{cold / 60:.1f} minutes", f"{cold / 3600 * hour:.3f}", "0"
    warm = hour * SESSION_HOURS * SESSIONS
    yield (
        "EMR Serverless, pre-initialized",
        f"{WORK_SECONDS} seconds plus the start of Spark",
        "included",
        f"{warm:.0f}",
    )


def _worker_hours() -> Iterator[Sequence[str]]:
    hour, dev = list_prices().hour, environment("dev").emr
    node = hour.ec2[dev.core_instance]
    fee = node * hour.emr_share
    yield f"a spot `{dev.core_instance}` of a cluster", f"{node * hour.spot_share + fee:.3f}"
    yield f"a `{dev.core_instance}` of a cluster, on demand", f"{node + fee:.3f}"
    yield "a worker of EMR Serverless", f"{list_prices().serverless.worker_hour:.3f}"


def _hours(hours: float) -> str:
    if hours >= 48:
        return f"{hours / 24:,.0f} days"
    return f"{hours:.1f} hours" if hours >= 1 else f"{hours * 60:.0f} minutes"


def _table(heads: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (heads, ["---"] * len(heads), *rows))


def page(text: str) -> str:
    """Return the text of the page with current figures."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{figures()}\n\n{END}{rest.split(END)[1]}"


def main() -> int:
    """Write the figures into the page."""
    PAGE.write_text(page(PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
