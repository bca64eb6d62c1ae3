"""Capacity: what a large backfill takes in a deployment, by measured rates, and which limits are too small for it.

The rates are in rates.toml, each with its source. The cores of AWS differ from those of the measurements, so hours are
estimates, and limits are compared with a reserve.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import ceil
from typing import Any

from barflow.contract import RuntimeContract
from barflow.text import counted

# 13 buckets of 30 minutes, 7 of an hour, a daily bar and its metrics, for the 78 bars of a session.
ROWS_PER_BAR = 1 + (13 + 7 + 1 + 1) / 78
# Cores of AWS and those of the measurement differ. Storage also holds what the load writes before it commits.
RESERVE = 1.5
# A day, the longest timeout that an environment may have.
MOST_MINUTES = 24 * 60
CLUSTER_START_HOURS, GLUE_START_HOURS = 8 / 60, 2 / 60
VCPUS_PER_DPU = 4
DPUS = {"G.1X": 1, "G.2X": 2, "G.4X": 4, "G.8X": 8}
SMALL_VCPUS = {"medium": 1, "large": 2}


@dataclass(frozen=True)
class Rates:
    """The measured rates: seconds for a million bars (rows for ``load``), and bytes for a bar."""

    process_core_seconds: float
    aggregate_core_seconds: float
    load_seconds: float
    stage_core_seconds: float
    lake_bytes: float
    warehouse_bytes: float
    bar_table_bytes: float
    staging_bytes: float
    raw_bytes: float


@cache
def rates() -> Rates:
    """Return the rates of rates.toml."""
    return Rates(**{name: item["value"] for name, item in rate_tables()["rates"].items()})


@cache
def rate_tables() -> dict[str, Any]:
    """Return the tables of rates.toml: the rates, the memory of database classes, and the credits of plans."""
    return tomllib.loads((files("barflow.pipeline") / "rates.toml").read_text())


def plan_credits() -> dict[str, int]:
    """Return the credits a minute of Twelve Data's plans, smallest first."""
    return {name: credits for name, credits in rate_tables()["plans"].items() if name != "source"}


@dataclass(frozen=True)
class Limits:
    """What bounds a backfill in a deployment, by its settings, and the dollars of an hour of its two jobs.

    ``mongodb_gb`` is the free space of MongoDB, if it is known.
    """

    emr_instance: str
    emr_workers: int
    step_timeout_minutes: int
    glue_dpus: int  # of a worker
    glue_workers: int
    glue_timeout_minutes: int
    warehouse_gb: float
    cluster_hour_dollars: float
    dpu_hour_dollars: float
    mongodb_gb: float | None = None

    @classmethod
    def of(cls, contract: RuntimeContract, mongodb_gb: float | None = None) -> Limits:
        """Return the limits of a deployment."""
        emr, glue = contract.emr, contract.glue
        return cls(
            emr_instance=emr.core_instance,
            emr_workers=emr.core_count + emr.task_count,
            step_timeout_minutes=emr.step_timeout_minutes,
            glue_dpus=DPUS[glue.worker_type],
            glue_workers=glue.max_workers,
            glue_timeout_minutes=glue.timeout_minutes,
            warehouse_gb=contract.warehouse.max_storage_gb,
            cluster_hour_dollars=emr.hour_dollars,
            dpu_hour_dollars=glue.dpu_hour_dollars,
            mongodb_gb=mongodb_gb,
        )

    @property
    def emr_vcpus(self) -> int:
        """Return the vCPUs that process partitions."""
        return vcpus(self.emr_instance) * self.emr_workers

    @property
    def glue_vcpus(self) -> int:
        """Return the vCPUs that aggregate. One of the workers is the driver."""
        return VCPUS_PER_DPU * self.glue_dpus * (self.glue_workers - 1)


@dataclass(frozen=True)
class Demand:
    """What ``bars`` take: hours of the two jobs without their start, dollars with their start, and GB of the stores."""

    bars: int
    process_hours: float
    aggregate_hours: float
    load_hours: float
    emr_dollars: float
    glue_dollars: float
    lake_gb: float
    warehouse_gb: float
    staging_gb: float
    raw_gb: float

    @property
    def glue_hours(self) -> float:
        """Return the hours of the aggregating job: it computes, then loads."""
        return self.aggregate_hours + self.load_hours

    @property
    def mongodb_gb(self) -> float:
        """Return the GB of the staged sessions and of the answers as received."""
        return self.staging_gb + self.raw_gb

    def describe(self) -> str:
        """Return the demand in two lines of text."""
        return (
            f"after that, process takes about {_duration(self.process_hours)} ({self.emr_dollars:,.2f} USD of EMR) and "
            f"aggregate {_duration(self.glue_hours)} ({self.glue_dollars:,.2f} USD of Glue)\n"
            f"they take about {self.mongodb_gb:,.1f} GB in MongoDB, {self.lake_gb:,.1f} GB in the archive and "
            f"{self.warehouse_gb:,.1f} GB in the warehouse"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the demand as values for JSON, rounded."""
        return {
            "process_hours": round(self.process_hours, 2),
            "glue_hours": round(self.glue_hours, 2),
            "emr_dollars": round(self.emr_dollars, 2),
            "glue_dollars": round(self.glue_dollars, 2),
            "lake_gb": round(self.lake_gb, 1),
            "warehouse_gb": round(self.warehouse_gb, 1),
            "mongodb_gb": round(self.mongodb_gb, 1),
        }


def demand(bars: int, limits: Limits) -> Demand:
    """Return what this number of bars takes on the vCPUs of a deployment."""
    rate, millions = rates(), bars / 1e6
    process = millions * rate.process_core_seconds / limits.emr_vcpus / 3600
    aggregate = millions * rate.aggregate_core_seconds / limits.glue_vcpus / 3600
    load = millions * ROWS_PER_BAR * rate.load_seconds / 3600
    glue_hour_dollars = limits.glue_dpus * limits.glue_workers * limits.dpu_hour_dollars
    return Demand(
        bars=bars,
        process_hours=process,
        aggregate_hours=aggregate,
        load_hours=load,
        emr_dollars=(CLUSTER_START_HOURS + process) * limits.cluster_hour_dollars,
        glue_dollars=(GLUE_START_HOURS + aggregate + load) * glue_hour_dollars,
        lake_gb=bars * rate.lake_bytes / 1e9,
        warehouse_gb=bars * rate.warehouse_bytes / 1e9,
        staging_gb=bars * rate.staging_bytes / 1e9,
        raw_gb=bars * rate.raw_bytes / 1e9,
    )


def too_small(needed: Demand, limits: Limits) -> Iterator[str]:
    """Yield a sentence for each limit that is too small, with what to set."""
    jobs = (
        ("the EMR step", needed.process_hours, limits.step_timeout_minutes, "emr.step_timeout_minutes"),
        ("the Glue job", needed.glue_hours, limits.glue_timeout_minutes, "glue.timeout_minutes"),
    )
    for job, hours, timeout, setting in jobs:
        minutes = ceil(hours * 60 * RESERVE)
        if minutes > timeout:
            more = "" if minutes <= MOST_MINUTES else ", the longest, and backfill fewer sessions at once"
            yield (
                f"{setting} is {timeout}: {job} takes about {_duration(hours)} for {needed.bars:,} bars. "
                f"Set it to {min(minutes, MOST_MINUTES)}{more}, then deploy."
            )
    least = ceil(needed.warehouse_gb * RESERVE)
    if least > limits.warehouse_gb:
        yield (
            f"database.max_storage_gb is {limits.warehouse_gb:g}: {needed.bars:,} bars take about "
            f"{needed.warehouse_gb:,.0f} GB in the warehouse. Set it to {least}, then deploy."
        )
    least = ceil(needed.mongodb_gb * RESERVE)
    if limits.mongodb_gb is not None and least > limits.mongodb_gb:
        yield (
            f"MongoDB has {limits.mongodb_gb:,.0f} GB free: {needed.bars:,} bars take about "
            f"{needed.mongodb_gb:,.0f} GB there. Give it {ceil(least - limits.mongodb_gb):,} GB more, or backfill "
            "fewer sessions at once."
        )


def free_gb(stats: Mapping[str, Any]) -> float | None:
    """Return the free space in the answer of MongoDB's command dbStats, or None if the server does not say."""
    total, used = stats.get("fsTotalSize"), stats.get("fsUsedSize")
    return (total - used) / 1e9 if total and used is not None else None


def partition_above_bars(memory_gb: float) -> int:
    """Return the number of bars above which the 5-minute bars should be partitioned by month.

    Its rule of thumb: partition a table that is larger than the server's memory
    (https://www.postgresql.org/docs/current/ddl-partitioning.html).
    """
    return int(memory_gb * 1e9 / rates().bar_table_bytes)


def vcpus(instance: str) -> int:
    """Return the vCPUs of a Graviton instance type or class by its size: ``m6g.2xlarge`` has 8."""
    size = instance.rpartition(".")[2]
    if size in SMALL_VCPUS:
        return SMALL_VCPUS[size]
    times = re.fullmatch(r"(\d*)xlarge", size)
    return 4 * int(times[1] or 1) if times else 2


def _duration(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else counted(max(1, ceil(hours * 60)), "minute")
