"""Alarms, failures and the budget notify the operations topic, and the dashboards show the metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from deployments import Deployment

from barflow import metric_names as metrics
from config.cost import Inventory

OF_FUNCTION = {"TickErrors", "NoTicks"}
ALARMS = OF_FUNCTION | {
    "StaleBars", "RejectedShare", "TicksRefused", "ArchiveQuality",
    "FailedTicks", "DatabaseStorage", "DatabaseCpu", "DatabaseConnections", "HostHardware", "HostDown", "HostParts",
    "UndeliveredAlerts", "FailedAlerts", "UnpostedMessages", "RotationErrors",
}  # fmt: skip


def alarms(deployment: Deployment) -> dict[str, Mapping[str, Any]]:
    found = deployment.resources("Observability", "AWS::CloudWatch::Alarm")
    return {item["AlarmName"].removeprefix("Barflow-dev-"): item for item in found}


def test_every_alarm_notifies_the_topic_when_it_starts_and_ends(dev_deployment: Deployment) -> None:
    found = alarms(dev_deployment)
    assert set(found) == ALARMS
    for item in found.values():
        assert item["AlarmDescription"]
        assert item["OKActions"]
        assert any("Ref" in action for action in item["AlarmActions"])


def test_the_dead_letter_queues_of_all_bots_raise_one_alarm(two_bots: Deployment, customized: Deployment) -> None:
    expression, *queues = alarms(two_bots)["FailedAlerts"]["Metrics"]
    assert expression["Expression"] == "SUM([bot0,bot1])", "an idle queue has no metric"
    names = json.dumps([item["MetricStat"]["Metric"]["Dimensions"] for item in queues])
    assert "barflow-dev-alerts-trend-failed.fifo" in names
    assert "barflow-dev-alerts-mean-reversion-failed.fifo" in names
    assert "FailedAlerts" not in alarms(customized)


def test_the_alarm_of_stale_bars_has_the_environments_threshold(dev_deployment: Deployment) -> None:
    stale = alarms(dev_deployment)["StaleBars"]
    assert stale["MetricName"] == metrics.STALEST
    assert stale["Threshold"] == 60 * dev_deployment.environment.alarms.stale_minutes
    assert stale["Dimensions"] == [{"Name": metrics.ENVIRONMENT, "Value": "dev"}]
    assert stale["TreatMissingData"] == "notBreaching", "there are no ticks outside sessions"


def test_the_alarm_of_the_data_quality_lasts_until_the_rules_hold(dev_deployment: Deployment) -> None:
    quality = alarms(dev_deployment)["ArchiveQuality"]
    assert (quality["MetricName"], quality["Statistic"], quality["Threshold"]) == (metrics.RULES_FAILED, "Maximum", 0)
    assert quality["Dimensions"] == [{"Name": metrics.ENVIRONMENT, "Value": "dev"}]
    assert quality["TreatMissingData"] == "ignore", "there is one value per evaluation"


def test_the_alarm_of_undelivered_alerts_has_the_environments_threshold(dev_deployment: Deployment) -> None:
    undelivered = alarms(dev_deployment)["UndeliveredAlerts"]
    assert undelivered["MetricName"] == metrics.UNDELIVERED_ALERT_AGE
    assert undelivered["Threshold"] == 60 * dev_deployment.environment.alarms.undelivered_minutes
    assert undelivered["Statistic"] == "Maximum"
    assert "barflow alerts list --undelivered" in undelivered["AlarmDescription"]


def test_a_schedule_that_stops_raises_an_alarm_though_it_sends_no_metric(dev_deployment: Deployment) -> None:
    expression = json.dumps(alarms(dev_deployment)["NoTicks"]["Metrics"])
    assert "FILL(m, 0)" in expression
    assert "HOUR(m)" in expression


def test_ec2_recovers_the_host_when_its_hardware_fails(dev_deployment: Deployment) -> None:
    assert "ec2:recover" in json.dumps(alarms(dev_deployment)["HostHardware"]["AlarmActions"])
    assert alarms(dev_deployment)["HostDown"]["TreatMissingData"] == "breaching"


def test_a_failed_or_missing_check_of_the_host_raises_an_alarm(dev_deployment: Deployment) -> None:
    found = alarms(dev_deployment)["HostParts"]
    assert (found["MetricName"], found["Threshold"]) == (metrics.HOST_PARTS_DOWN, 0)
    assert found["TreatMissingData"] == "breaching"
    assert found["EvaluationPeriods"] == 3, "a restart takes a minute and raises no alarm"


def test_events_of_failed_jobs_steps_and_clusters_go_to_the_function_that_publishes_them(
    dev_deployment: Deployment,
) -> None:
    rules = dev_deployment.resources("Observability", "AWS::Events::Rule")
    kinds = {rule["EventPattern"]["detail-type"][0] for rule in rules}
    assert kinds == {"Glue Job State Change", "EMR Step Status Change", "EMR Cluster State Change"}
    function = dev_deployment.only("Observability", "AWS::Lambda::Function")
    assert function["Environment"]["Variables"]["OPERATIONS_TOPIC"]["Ref"].startswith("Operations")
    for rule in rules:
        (target,) = rule["Targets"]
        assert target["Arn"]["Fn::GetAtt"][0].startswith("TellSlackFunction")
        assert target["DeadLetterConfig"]["Arn"]["Fn::GetAtt"][0].startswith("Unposted")


def test_messages_that_slack_does_not_accept_have_a_queue_of_their_own(dev_deployment: Deployment) -> None:
    function = dev_deployment.only("Observability", "AWS::Lambda::Function")
    assert function["DeadLetterConfig"]["TargetArn"]["Fn::GetAtt"][0].startswith("Unposted")
    (dimension,) = alarms(dev_deployment)["UnpostedMessages"]["Dimensions"]
    assert dimension["Value"]["Fn::GetAtt"][0].startswith("Unposted")


def test_the_rotation_of_each_rotated_password_is_watched(dev_deployment: Deployment) -> None:
    schedules = dev_deployment.resources("Database", "AWS::SecretsManager::RotationSchedule")
    functions = {item["HostedRotationLambda"]["RotationLambdaName"] for item in schedules}
    _, *errors = alarms(dev_deployment)["RotationErrors"]["Metrics"]
    assert {item["MetricStat"]["Metric"]["Dimensions"][0]["Value"] for item in errors} == functions
    assert len(functions) == 3


def test_the_watched_step_and_cluster_are_those_of_a_run(dev_deployment: Deployment) -> None:
    from barflow.operations.clusters import cluster_request, step_request

    contract = dev_deployment.contract
    patterns = [rule["EventPattern"] for rule in dev_deployment.resources("Observability", "AWS::Events::Rule")]
    (step,) = [item for item in patterns if item["detail-type"] == ["EMR Step Status Change"]]
    (cluster,) = [item for item in patterns if item["detail-type"] == ["EMR Cluster State Change"]]
    assert step["detail"]["name"] == [step_request(contract, "run")[0]["Name"]]
    assert cluster_request(contract, "run")["Name"].startswith(cluster["detail"]["name"][0]["prefix"])
    other = contract.model_copy(update={"env": "staging"})
    assert step["detail"]["name"] != [step_request(other, "run")[0]["Name"]], "two environments share an account"


def test_alarms_go_to_e_mail_and_slack_and_the_budget_notifies_both(customized: Deployment) -> None:
    protocols = {item["Protocol"] for item in customized.resources("Observability", "AWS::SNS::Subscription")}
    assert protocols == {"email", "lambda"}
    budget = customized.only("Observability", "AWS::Budgets::Budget")
    assert budget["Budget"]["BudgetLimit"] == {"Amount": 90, "Unit": "USD"}
    for notification in budget["NotificationsWithSubscribers"]:
        assert {item["SubscriptionType"] for item in notification["Subscribers"]} == {"SNS", "EMAIL"}


def test_the_topic_is_encrypted_and_requires_tls(dev_deployment: Deployment) -> None:
    assert dev_deployment.only("Observability", "AWS::SNS::Topic")["KmsMasterKeyId"]
    policy = json.dumps(dev_deployment.resources("Observability", "AWS::SNS::TopicPolicy"))
    assert "aws:SecureTransport" in policy


def test_alarms_are_allowed_to_publish_to_the_topic(dev_deployment: Deployment) -> None:
    # An explicit policy replaces the default one, which allows everything in the account.
    policy = dev_deployment.only("Observability", "AWS::SNS::TopicPolicy")["PolicyDocument"]
    statements = [item for item in policy["Statement"] if "Service" in item["Principal"]]
    assert {item["Principal"]["Service"] for item in statements} == {
        "cloudwatch.amazonaws.com",
        "budgets.amazonaws.com",
    }
    assert all(item["Action"] == "sns:Publish" and "aws:SourceAccount" in str(item["Condition"]) for item in statements)


def test_there_are_a_business_and_a_technical_dashboard_with_the_metrics(dev_deployment: Deployment) -> None:
    boards = {
        item["DashboardName"]: json.dumps(item)
        for item in dev_deployment.resources("Observability", "AWS::CloudWatch::Dashboard")
    }
    assert set(boards) == {"Barflow-dev-Business", "Barflow-dev-Technical"}
    for name in (metrics.BARS_INGESTED, metrics.FRESHNESS, metrics.ALERTS_FIRED, metrics.ROWS_LOADED, metrics.RUN_COST):
        assert name in boards["Barflow-dev-Business"]


def test_there_are_no_alarms_of_the_function_when_the_host_ingests(host_ingests: Deployment) -> None:
    assert set(alarms(host_ingests)) == ALARMS - OF_FUNCTION


def billed(resource: Mapping[str, Any]) -> int:
    """Return how often a resource is billed: an alarm once per metric, a parameter of the standard tier never."""
    if "ComparisonOperator" in resource:
        return len([item for item in resource.get("Metrics", []) if "MetricStat" in item]) or 1
    return 0 if resource.get("Type") == "String" and resource.get("Tier") != "Advanced" else 1


@pytest.mark.parametrize(
    "name",
    ["AWS::CloudWatch::Alarm", "AWS::CloudWatch::Dashboard", "AWS::SSM::Parameter", "AWS::SecretsManager::Secret"],
)
def test_the_estimate_counts_the_resources_of_the_templates(dev_deployment: Deployment, name: str) -> None:
    counted = {
        "AWS::CloudWatch::Alarm": Inventory().alarms,
        "AWS::CloudWatch::Dashboard": Inventory().dashboards,
        "AWS::SSM::Parameter": Inventory().parameters,
        "AWS::SecretsManager::Secret": Inventory().secrets - 1,  # RDS creates the owner's
    }
    found = [item for part in dev_deployment.templates for item in dev_deployment.resources(part, name)]
    assert sum(map(billed, found)) == counted[name]
