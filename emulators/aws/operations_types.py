"""What operators look at and moto lacks: alarms and budgets of a template, and the rotation of RDS's own secrets."""

from __future__ import annotations

from typing import Any

from moto.budgets.models import budgets_backends
from moto.cloudwatch.models import cloudwatch_backends
from moto.rds.models import MasterUserSecret
from moto.secretsmanager.models import secretsmanager_backends

from emulators.aws.account import ACCOUNT, REGION
from emulators.aws.patches import Function, wrap
from emulators.aws.resource_types import TYPES, RecordedResource


class Alarm(RecordedResource):
    """An alarm of moto's CloudWatch. A metric of its expression is recorded only."""

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **kwargs: Any
    ) -> Alarm:
        """Create the alarm, in the state OK."""
        given, backend = cloudformation_json["Properties"], cloudwatch_backends[account_id][region_name]
        created = backend.put_metric_alarm(
            name=given["AlarmName"],
            namespace=given.get("Namespace", ""),
            metric_name=given.get("MetricName", ""),
            comparison_operator=given["ComparisonOperator"],
            evaluation_periods=int(given["EvaluationPeriods"]),
            period=int(given.get("Period", 0)),
            threshold=float(given["Threshold"]),
            statistic=given.get("Statistic", ""),
            description=given.get("AlarmDescription", ""),
            dimensions=given.get("Dimensions", []),
            alarm_actions=given.get("AlarmActions", []),
            ok_actions=given.get("OKActions", []),
            treat_missing_data=given.get("TreatMissingData"),
        )
        return cls(created.name, created.alarm_arn)

    @classmethod
    def delete_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str
    ) -> None:
        """Delete the alarm."""
        cloudwatch_backends[account_id][region_name].alarms.pop(resource_name, None)


class Budget(RecordedResource):
    """A budget of moto's Budgets, without its notifications."""

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **kwargs: Any
    ) -> Budget:
        """Create the budget. Nothing has been spent."""
        given = cloudformation_json["Properties"]["Budget"]
        limit = {"Amount": str(given["BudgetLimit"]["Amount"]), "Unit": given["BudgetLimit"]["Unit"]}
        backend = budgets_backends[account_id]["aws"]
        backend.create_budget(account_id, {**given, "BudgetLimit": limit}, [])
        return cls(given["BudgetName"], given["BudgetName"])

    @classmethod
    def delete_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str
    ) -> None:
        """Delete the budget."""
        budgets_backends[account_id]["aws"].delete_budget(account_id, resource_name)


@wrap(MasterUserSecret, "__init__")
def _rotate_managed_secret(original: Function, secret: MasterUserSecret, *given: Any, **named: Any) -> None:
    """Create the secret of a database's owner, which RDS rotates."""
    original(secret, *given, **named)
    stored = secretsmanager_backends[ACCOUNT][REGION].secrets[secret.secret_arn]
    stored.rotation_requested = stored.rotation_enabled = True


TYPES |= {
    "AWS::Budgets::Budget": Budget,
    "AWS::CloudWatch::Alarm": Alarm,
}
