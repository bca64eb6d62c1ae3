"""Summary of a process run: rows in and out from its ledgers, its duration, and its cost at list prices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from barflow.contract import RuntimeContract
from barflow.market.vendor_days import differing
from barflow.pipeline.stores import Stores
from barflow.staging.ledger import SUCCEEDED
from barflow.warehouse.connection import connect
from barflow.warehouse.queries import loaded_rows, vendor_days

# Glue bills a crawl for at least ten minutes of one DPU. A run starts one; that of the warehouse follows a deployment.
CRAWL_HOURS, CRAWLS = 10 / 60, 1


@dataclass(frozen=True)
class Summary:
    """One process run.

    ``published`` counts the Parquet rows of all partitions that it wrote, ``loaded`` the warehouse rows by table, and
    ``rejected`` the bars in quarantine. ``dollars`` is the cost, or None if the run was not on AWS. ``note`` says what
    the operator has to do. ``differing`` are the sessions that differ from the vendor's daily bar.
    """

    env: str
    run_id: str
    symbols: int
    published: int
    loaded: dict[str, int]
    rejected: int
    seconds: float
    dollars: float | None = None
    note: str | None = None
    differing: Sequence[str] = ()


def summarize(
    stores: Stores, run_id: str, seconds: float, dollars: float | None = None, note: str | None = None
) -> Summary:
    """Summarize a run from the ledgers of process and aggregate, where its tries are ``RUN_ID-1``, ``RUN_ID-2``."""
    from barflow.staging.quarantine import Quarantine

    written = [
        row
        for document in stores.ledger.attempts(run_id)
        if document["outcome"] == SUCCEEDED
        for row in document["counts"]
    ]
    thresholds = stores.settings.vendor_day_thresholds
    with connect(stores.reader_dsn) as connection:
        loaded = loaded_rows(connection, run_id)
        compared = vendor_days(connection, thresholds)
    return Summary(
        env=stores.settings.env,
        run_id=run_id,
        symbols=len({row["symbol"] for row in written}),
        published=sum(row["rows"] for row in written),
        loaded=loaded,
        rejected=sum(Quarantine(stores.database).counts().values()),
        seconds=seconds,
        dollars=dollars,
        note=note,
        differing=differing(compared, thresholds),
    )


def dollars_spent(
    contract: RuntimeContract, emr: Any, glue: Any, cluster_id: str, job_run_id: str, now: datetime
) -> float:
    """Return the cost of a run at the list prices of its deployment: cluster, Glue job and crawl.

    A cluster that has not ended is counted until ``now`` (UTC). ``emr`` and ``glue`` are boto3 clients.
    """
    timeline = emr.describe_cluster(ClusterId=cluster_id)["Cluster"]["Status"]["Timeline"]
    hours = (timeline.get("EndDateTime", now) - timeline["CreationDateTime"]).total_seconds() / 3600
    job = glue.get_job_run(JobName=contract.glue.job, RunId=job_run_id)["JobRun"]
    units = job.get("DPUSeconds") or job.get("ExecutionTime", 0) * job.get("MaxCapacity", 0)
    dpu_hours = units / 3600 + CRAWLS * CRAWL_HOURS
    return float(hours * contract.emr.hour_dollars + dpu_hours * contract.glue.dpu_hour_dollars)
