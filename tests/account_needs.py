"""What a small environment needs of its account, for the tests of preflight."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from barflow.operations.checks import Check
from barflow.operations.preflight.needs import FixedName, Needs, Policy

STACK = "Barflow-dev-Secrets"
SECRET = FixedName("AWS::SecretsManager::Secret", "barflow/dev/slack", STACK, "Slack")
# A name of each type that a template may fix.
NAMES = (
    SECRET,
    FixedName("AWS::SSM::Parameter", "/barflow/dev/runtime", STACK, "Runtime"),
    FixedName("AWS::SNS::Topic", "barflow-dev-alerts.fifo", STACK, "Alerts"),
    FixedName("AWS::SQS::Queue", "barflow-dev-alerts-example.fifo", STACK, "Example"),
    FixedName("AWS::Lambda::Function", "barflow-dev-ingest", STACK, "Ingest"),
    FixedName("AWS::Logs::LogGroup", "/barflow/dev/host", STACK, "HostLog"),
    FixedName("AWS::CloudWatch::Alarm", "Barflow-dev-NoTicks", STACK, "NoTicks"),
    FixedName("AWS::CloudWatch::Dashboard", "Barflow-dev-Business", STACK, "Business"),
    FixedName("AWS::Glue::Database", "barflow_dev", STACK, "Glue"),
    FixedName("AWS::Glue::DataQualityRuleset", "barflow-dev-bars", STACK, "Bars"),
    FixedName("AWS::Glue::SecurityConfiguration", "barflow-dev", STACK, "Security"),
    FixedName("AWS::EMR::SecurityConfiguration", "barflow-dev", STACK, "Clusters"),
    FixedName("AWS::Athena::WorkGroup", "barflow-dev", STACK, "Archive"),
    FixedName("AWS::Budgets::Budget", "barflow-dev", STACK, "Budget"),
)


def policy(*actions: str, resource: str = "*") -> Policy:
    """Return an identity policy that allows the actions on a resource."""
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": resource}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    return Policy(f"{STACK}/Role PolicyDocument", "IDENTITY_POLICY", document)


def needs(**changed: Any) -> Needs:
    """Return the needs, with other values of some of them."""
    values: dict[str, Any] = {
        "env": "dev",
        "stacks": (STACK,),
        "bootstrap_version": 6,
        "bootstrap_parameter": "/cdk-bootstrap/hnb659fds/version",
        "zones": 2,
        "zone_names": (),
        "region_problems": (),
        "elastic_ips": frozenset({("Barflow-dev-Network", "NatAddress1")}),
        "vpcs": frozenset({("Barflow-dev-Network", "Vpc")}),
        "reserved": {("Barflow-dev-Ingestion", "Ingest"): 1},
        "on_demand": {"t4g.small": 2, "m6g.xlarge": 1},
        "spot": {"m6g.xlarge": 1},
        "emr_release": "emr-7.13.0",
        "emr_types": ("m6g.xlarge", "m6g.xlarge"),
        "database_version": "18.3",
        "database_class": "db.t4g.micro",
        "policies": (policy("s3:GetObject", resource="arn:aws:s3:::bucket/*"),),
        "names": NAMES,
        "operator_secrets": ("barflow/dev/slack",),
        "driver_outputs": ("Barflow-dev-Storage", "JdbcDriver", "JdbcDriverSha256"),
        "budget_tag": "barflow:env",
    }
    return Needs(**values | changed)


Ask = Callable[..., dict[str, Check]]  # of the fixture ask


def failure(checks: dict[str, Check]) -> Check:
    """Return the only check that failed."""
    (check,) = (item for item in checks.values() if not item.ok)
    return check
