"""The deployment's secrets, their rotation, its dashboards and its cost, as AWS reports them. Nothing is changed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

from barflow.market.sessions import utc_now
from barflow.metric_names import BARS_RECEIVED, ENVIRONMENT, NAMESPACE
from barflow.operations.verify.deployed import Deployed, NotAsExpectedError
from barflow.warehouse.users import LOADER, READER, SANDBOX

SET_BY_OPERATOR = ("TwelveDataSecret", "MongoDbSecret", "SlackSecret", "SshConnectionSecret", "SlackConnectionSecret")
OPTIONAL = ("WebhookSecret", "AppriseSecret")
CURRENT, PREVIOUS, PENDING = "AWSCURRENT", "AWSPREVIOUS", "AWSPENDING"
ROTATED_USERS = (LOADER, READER, SANDBOX)
METRIC_HOURS, METRIC_SECONDS = 3, 300
MOST_QUERIES = 500  # in one call of GetMetricData
NOTHING = {"Amount": "0"}
COST_DELAY = timedelta(days=2)  # AWS bills within a day, and counts a new tag a day later


def secrets_are_set(deployed: Deployed) -> str:
    """Check that each secret was set after its creation, without reading it. Raise NotAsExpectedError if not."""
    optional = [key for key in OPTIONAL if key in deployed.outputs["Secrets"]]
    names = [deployed.output("Secrets", key) for key in (*SET_BY_OPERATOR, *optional)]
    unset = [name for name in names if PREVIOUS not in _stages(_describe(deployed, name))]
    if unset:
        raise NotAsExpectedError(
            f"{', '.join(unset)}: still the placeholder of the deployment", "see the runbook: store the secrets"
        )
    return f"{len(names)} secrets are set"


def secrets_rotate(deployed: Deployed) -> str:
    """Check that each database password rotates, and that its last rotation ended. Raise NotAsExpectedError if not."""
    names = [f"barflow/{deployed.env}/database/{user}" for user in ROTATED_USERS]
    found = [_describe(deployed, name) for name in [*names, deployed.output("Database", "DatabaseAdminSecret")]]
    for secret in found:
        if problem := _rotation_problem(secret):
            raise NotAsExpectedError(
                f"{secret['Name']} {problem}", f"aws secretsmanager rotate-secret --secret-id {secret['Name']}"
            )
    rotated = [secret["LastRotatedDate"] for secret in found if secret.get("LastRotatedDate")]
    newest = f", last on {max(rotated):%Y-%m-%d}" if rotated else ", none is due yet"
    return f"{len(found)} passwords rotate{newest}"


def _rotation_problem(secret: dict[str, Any]) -> str:
    """Return what is wrong with the rotation of a secret, or an empty text."""
    if not secret.get("RotationEnabled"):
        return "does not rotate"
    versions = secret["VersionIdsToStages"].values()
    if any(PENDING in stages and CURRENT not in stages for stages in versions):
        return "has a rotation that did not end"
    due = secret.get("NextRotationDate")
    return f"was due to rotate on {due:%Y-%m-%d}" if due and due < utc_now() - timedelta(days=1) else ""


def _describe(deployed: Deployed, name: str) -> dict[str, Any]:
    found: dict[str, Any] = deployed.client("secretsmanager").describe_secret(SecretId=name)
    return found


def _stages(secret: dict[str, Any]) -> set[str]:
    return {stage for stages in secret["VersionIdsToStages"].values() for stage in stages}


def dashboards_have_data(deployed: Deployed) -> str:
    """Check that the tick's metrics arrived, and that each dashboard has data. Raise NotAsExpectedError if not."""
    tick = {"Namespace": NAMESPACE, "MetricName": BARS_RECEIVED, "Dimensions": [_dimension(ENVIRONMENT, deployed.env)]}
    since = deployed.started - timedelta(minutes=5)
    if not deployed.wait_for(lambda: _with_data(deployed, [tick], since), METRIC_SECONDS):
        raise NotAsExpectedError(
            f"{BARS_RECEIVED} has no value since {since:%H:%M} UTC: no tick reported its metrics",
            "read the log of the ingest function, or of the host if it ingests",
        )
    shown = []
    for key in ("BusinessDashboard", "TechnicalDashboard"):
        name = deployed.output("Observability", key)
        body = deployed.client("cloudwatch").get_dashboard(DashboardName=name)["DashboardBody"]
        metrics = list(_metrics(json.loads(body)))
        count = _with_data(deployed, metrics, utc_now() - timedelta(hours=METRIC_HOURS))
        if not count:
            raise NotAsExpectedError(
                f"{name}: none of {len(metrics)} metrics has a value of the last {METRIC_HOURS} hours",
                f"deploy Barflow-{deployed.env}-Observability again",
            )
        shown.append(f"{name}: {count} of {len(metrics)} metrics have data")
    return "; ".join(shown)


def _metrics(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield each metric of a dashboard once. Expressions are left out."""
    seen = set()
    for widget in body["widgets"]:
        for line in widget["properties"].get("metrics", ()):
            parts = tuple(part for part in line if isinstance(part, str))
            if len(parts) >= 2 and parts not in seen:
                seen.add(parts)
                names, values = parts[2::2], parts[3::2]
                dimensions = [_dimension(*pair) for pair in zip(names, values, strict=True)]
                yield {"Namespace": parts[0], "MetricName": parts[1], "Dimensions": dimensions}


def _dimension(name: str, value: str) -> dict[str, str]:
    return {"Name": name, "Value": value}


def _with_data(deployed: Deployed, metrics: Iterable[dict[str, Any]], since: datetime) -> int:
    """Return how many of the metrics have a value since then (UTC)."""
    queries = [
        {"Id": f"m{number}", "MetricStat": {"Metric": metric, "Period": 300, "Stat": "SampleCount"}}
        for number, metric in enumerate(metrics)
    ]
    found: list[dict[str, Any]] = []
    for start in range(0, len(queries), MOST_QUERIES):
        answer = deployed.client("cloudwatch").get_metric_data(
            MetricDataQueries=queries[start : start + MOST_QUERIES],
            StartTime=since,
            EndTime=utc_now() + timedelta(minutes=5),
        )
        found += answer["MetricDataResults"]
    return sum(bool(item["Values"]) for item in found)


def cost_is_within_budget(deployed: Deployed) -> str:
    """Check that the environment's budget counts its costs and is not exceeded. Raise NotAsExpectedError if not."""
    account, name = deployed.client("sts").get_caller_identity()["Account"], f"barflow-{deployed.env}"
    budget = deployed.client("budgets").describe_budget(AccountId=account, BudgetName=name)["Budget"]
    spend = budget.get("CalculatedSpend", {})
    actual, limit = (float(item["Amount"]) for item in (spend.get("ActualSpend", NOTHING), budget["BudgetLimit"]))
    if actual > limit:
        raise NotAsExpectedError(
            f"{actual:.2f} USD spent this month, the budget is {limit:.2f} USD",
            f"compare Cost Explorer with `barflow cost --env {deployed.env}`",
        )
    now = utc_now()
    counted = max(deployed.deployed_at, now.replace(day=1, hour=0, minute=0, second=0, microsecond=0))
    if not actual and now - counted > COST_DELAY:
        raise NotAsExpectedError(
            f"the budget {name} has counted nothing since {counted:%Y-%m-%d}",
            "activate the cost allocation tag barflow:env in the payer account: aws ce "
            "update-cost-allocation-tags-status --cost-allocation-tags-status TagKey=barflow:env,Status=Active",
        )
    forecast = spend.get("ForecastedSpend", {}).get("Amount")
    shown = f", forecast {float(forecast):.2f} USD" if forecast else ""
    return f"{actual:.2f} of {limit:.2f} USD this month{shown}"
