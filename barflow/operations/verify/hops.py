"""The hops of the deployed pipeline: run a tick and a process run, and compare what every store has."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from barflow.operations.cluster_run import Clients, run_once
from barflow.operations.clusters import find_cluster
from barflow.operations.run_summary import dollars_spent
from barflow.operations.verify.deployed import Deployed, NotAsExpectedError

SHOWN = 300  # characters of another program's output


def tick_runs(deployed: Deployed) -> str:
    """Run a tick where the environment runs its ticks. Raise NotAsExpectedError unless it stores every symbol."""
    if function := deployed.contract.ingestion.function_name:
        return _tick_of_function(deployed, function)
    code, _, errors = deployed.run_on_host("barflow ingest")
    if code:
        raise NotAsExpectedError(
            f"`barflow ingest` on the host ended with exit code {code}: {_last_line(errors)}",
            f"aws logs tail {deployed.output('Orchestration', 'HostLog')} --since 10m",
        )
    return "`barflow ingest` on the host stored every symbol"


def _tick_of_function(deployed: Deployed, function: str) -> str:
    """Invoke the ingest function as the runbook does."""
    invoked = deployed.client("lambda").invoke(FunctionName=function, Payload=b'{"force": true}')
    answer = json.loads(invoked["Payload"].read())
    if invoked.get("FunctionError") or answer["outcome"] != "succeeded":
        reason = answer.get("errorMessage") or answer.get("error") or answer.get("errors") or answer.get("outcome")
        raise NotAsExpectedError(
            f"the tick of {function} did not succeed: {str(reason)[:SHOWN]}", "see the runbook: bars stopped coming"
        )
    return f"{answer['new']} bars stored and {answer['revised']} revised by {function}"


def process_run_succeeds(deployed: Deployed) -> str:
    """Run process and aggregate once, as `barflow run` does. Raise BarflowError if it fails or leaves a cluster."""
    clients = Clients(deployed.client("emr"), deployed.client("glue"), deployed.client("s3"))
    done = run_once(deployed.contract, clients, deployed.log, deployed.sleep)
    if left := find_cluster(clients.emr, deployed.env, done["run_id"]):
        raise NotAsExpectedError(f"the cluster {left} still runs", f"aws emr terminate-clusters --cluster-ids {left}")
    dollars = dollars_spent(
        deployed.contract, clients.emr, clients.glue, done["cluster"], done["job_run"], datetime.now(UTC)
    )
    return f"{done['run_id']} loaded for {dollars:.2f} USD, and its cluster has ended"


def stores_agree(deployed: Deployed) -> str:
    """Run `barflow status` on the host, which compares all hops. Raise NotAsExpectedError if they differ."""
    code, printed, errors = deployed.run_on_host("barflow status")
    if code:
        raise NotAsExpectedError(
            f"`barflow status` on the host ended with exit code {code}: {_last_line(errors) or _last_line(printed)}",
            "run `barflow status` on the host; it names each session that differs",
        )
    return "staging, archive and warehouse have the same bars"


def rows_agree(deployed: Deployed) -> str:
    """Compare every row of a session by `barflow compare` on the host. Raise NotAsExpectedError if a value differs."""
    option = f" --session {deployed.session}" if deployed.session else ""
    command = f"barflow compare --json{option}"
    code, printed, errors = deployed.run_on_host(command)
    if not printed.strip():
        raise NotAsExpectedError(
            f"`{command}` on the host ended with exit code {code}: {_last_line(errors)}", f"run `{command}` on the host"
        )
    found = json.loads(printed)
    if not found["equal"]:
        raise NotAsExpectedError(
            f"{found['differing']} values of {found['session']} differ. The first: {found['differences'][0]}",
            "load the archive into the warehouse again, with --full: see the runbook, a process run",
        )
    return f"{sum(found['rows'].values())} rows of {found['session']} equal the oracle's"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:SHOWN] if lines else ""
