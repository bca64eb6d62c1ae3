"""What did a process run do? Rows in and out by its ledgers, how long it took, and what it cost at list prices."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from barflow.contract import RuntimeContract
from barflow.pipeline.stores import Stores
from barflow.staging.ledger import SUCCEEDED
from barflow.warehouse.connection import connect
from barflow.warehouse.queries import loaded_rows

# The least that Glue bills for a crawl, with its one processing unit; a run has two.
CRAWL_HOURS, CRAWLS = 10 / 60, 2


@dataclass(frozen=True)
class Summary:
    """One process run. ``published`` are Parquet rows of all partitions it wrote, ``loaded`` warehouse rows by table,
    ``rejected`` the bars that wait in quarantine, ``dollars`` the cost where AWS ran it."""

    env: str
    run_id: str
    symbols: int
    published: int
    loaded: dict[str, int]
    rejected: int
    seconds: float
    dollars: float | None = None


def summarize(stores: Stores, run_id: str, seconds: float, dollars: float | None = None) -> Summary:
    """The run whose tries are ``RUN_ID-1`` and on, in the ledgers of process and aggregate."""
    from barflow.staging.quarantine import Quarantine

    written = [
        row
        for document in stores.ledger.attempts(run_id)
        if document["outcome"] == SUCCEEDED
        for row in document["counts"]
    ]
    with connect(stores.warehouse_dsn) as connection:
        loaded = loaded_rows(connection, run_id)
    return Summary(
        env=stores.settings.env,
        run_id=run_id,
        symbols=len({row["symbol"] for row in written}),
        published=sum(row["rows"] for row in written),
        loaded=loaded,
        rejected=sum(Quarantine(stores.database).counts().values()),
        seconds=seconds,
        dollars=dollars,
    )


def dollars_spent(
    contract: RuntimeContract, emr: Any, glue: Any, cluster_id: str, job_run_id: str, now: datetime
) -> float:
    """What a run cost, at the list prices of its deployment: the cluster's time until now, the job's, two crawls.

    ``emr`` and ``glue`` are boto3 clients; times are UTC.
    """
    timeline = emr.describe_cluster(ClusterId=cluster_id)["Cluster"]["Status"]["Timeline"]
    hours = (timeline.get("EndDateTime", now) - timeline["CreationDateTime"]).total_seconds() / 3600
    job = glue.get_job_run(JobName=contract.glue.job, RunId=job_run_id)["JobRun"]
    units = job.get("DPUSeconds") or job.get("ExecutionTime", 0) * job.get("MaxCapacity", 0)
    dpu_hours = units / 3600 + CRAWLS * CRAWL_HOURS
    return float(hours * contract.emr.hour_dollars + dpu_hours * contract.glue.dpu_hour_dollars)
