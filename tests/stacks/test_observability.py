"""Who is told of what, and can an alarm come at all?"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from deployments import Deployment, changed

from barflow import metric_names as metrics
from config.environment import AlarmConfig, Environment, IngestConfig
from config.environments import dev

OF_FUNCTION = {"TickErrors", "NoTicks"}
ALARMS = OF_FUNCTION | {
    "StaleBars", "RejectedShare", "TicksRefused",
    "FailedTicks", "DatabaseStorage", "DatabaseCpu", "DatabaseConnections", "HostHardware", "HostDown", "HostParts",
    "UndeliveredAlerts", "FailedAlerts",
}  # fmt: skip


def alarms(deployment: Deployment) -> dict[str, Mapping[str, Any]]:
    found = deployment.resources("Observability", "AWS::CloudWatch::Alarm")
    return {item["AlarmName"].removeprefix("Barflow-dev-"): item for item in found}


def test_each_alarm_is_there_and_tells_the_topic_when_it_comes_and_goes(dev_deployment: Deployment) -> None:
    found = alarms(dev_deployment)
    assert set(found) == ALARMS
    for item in found.values():
        assert item["AlarmDescription"]
        assert item["OKActions"]
        assert any("Ref" in action for action in item["AlarmActions"])


def test_what_any_bot_failed_at_is_an_alarm(synthesize: Callable[[Environment], Deployment]) -> None:
    found = synthesize(changed(dev(), bots=("trend", "mean-reversion")))
    expression, *queues = alarms(found)["FailedAlerts"]["Metrics"]
    assert expression["Expression"] == "bot0+bot1"
    names = json.dumps([item["MetricStat"]["Metric"]["Dimensions"] for item in queues])
    assert "TrendFailed" in names
    assert "MeanReversionFailed" in names
    assert "FailedAlerts" not in alarms(synthesize(changed(dev(), bots=())))


def test_stale_bars_are_judged_by_the_environments_minutes(dev_deployment: Deployment) -> None:
    stale = alarms(dev_deployment)["StaleBars"]
    assert stale["MetricName"] == metrics.STALEST
    assert stale["Threshold"] == 60 * dev_deployment.environment.alarms.stale_minutes
    assert stale["Dimensions"] == [{"Name": metrics.ENVIRONMENT, "Value": "dev"}]
    assert stale["TreatMissingData"] == "notBreaching", "outside sessions there is no tick and no alarm"


def test_an_alert_that_nobody_takes_is_noticed_by_the_age_that_ticks_and_host_tell(dev_deployment: Deployment) -> None:
    waiting = alarms(dev_deployment)["UndeliveredAlerts"]
    assert waiting["MetricName"] == metrics.UNDELIVERED_ALERT_AGE
    assert waiting["Threshold"] == 60 * dev_deployment.environment.alarms.undelivered_minutes
    assert waiting["Statistic"] == "Maximum"
    assert "barflow alerts list --undelivered" in waiting["AlarmDescription"]


def test_a_schedule_that_stops_is_noticed_though_it_leaves_no_metric(dev_deployment: Deployment) -> None:
    expression = json.dumps(alarms(dev_deployment)["NoTicks"]["Metrics"])
    assert "FILL(m, 0)" in expression
    assert "HOUR(m)" in expression


def test_broken_hardware_moves_the_host_to_other_hardware(dev_deployment: Deployment) -> None:
    assert "ec2:recover" in json.dumps(alarms(dev_deployment)["HostHardware"]["AlarmActions"])
    assert alarms(dev_deployment)["HostDown"]["TreatMissingData"] == "breaching"


def test_what_the_hosts_own_check_counts_is_heard_of_and_so_is_its_silence(dev_deployment: Deployment) -> None:
    found = alarms(dev_deployment)["HostParts"]
    assert (found["MetricName"], found["Threshold"]) == (metrics.HOST_PARTS_DOWN, 0)
    assert found["TreatMissingData"] == "breaching"
    assert found["EvaluationPeriods"] == 3, "a restart takes a minute and is no news"


def test_failed_jobs_steps_and_clusters_reach_the_topic_by_themselves(dev_deployment: Deployment) -> None:
    rules = dev_deployment.resources("Observability", "AWS::Events::Rule")
    kinds = {rule["EventPattern"]["detail-type"][0] for rule in rules}
    assert kinds == {"Glue Job State Change", "EMR Step Status Change", "EMR Cluster State Change"}
    assert all(rule["Targets"] for rule in rules)


def test_the_step_that_is_watched_is_the_one_that_a_run_adds(dev_deployment: Deployment) -> None:
    from barflow.operations.clusters import cluster_request, step_request

    contract = dev_deployment.contract
    watched = [rule["EventPattern"] for rule in dev_deployment.resources("Observability", "AWS::Events::Rule")]
    (step,) = [item for item in watched if item["detail-type"] == ["EMR Step Status Change"]]
    (cluster,) = [item for item in watched if item["detail-type"] == ["EMR Cluster State Change"]]
    assert step["detail"]["name"] == [step_request(contract, "run")[0]["Name"]]
    assert cluster_request(contract, "run")["Name"].startswith(cluster["detail"]["name"][0]["prefix"])


def test_e_mail_slack_and_budget_hear_of_it(synthesize: Callable[[Environment], Deployment]) -> None:
    told = synthesize(changed(dev(), alarms=AlarmConfig(emails=("data@example.com",), budget_usd=90)))
    protocols = {item["Protocol"] for item in told.resources("Observability", "AWS::SNS::Subscription")}
    assert protocols == {"email", "lambda"}
    budget = told.only("Observability", "AWS::Budgets::Budget")
    assert budget["Budget"]["BudgetLimit"] == {"Amount": 90, "Unit": "USD"}
    for notification in budget["NotificationsWithSubscribers"]:
        assert {item["SubscriptionType"] for item in notification["Subscribers"]} == {"SNS", "EMAIL"}


def test_the_topic_is_encrypted_and_takes_nothing_in_plain_text(dev_deployment: Deployment) -> None:
    assert dev_deployment.only("Observability", "AWS::SNS::Topic")["KmsMasterKeyId"]
    policy = json.dumps(dev_deployment.resources("Observability", "AWS::SNS::TopicPolicy"))
    assert "aws:SecureTransport" in policy


def test_a_business_and_a_technical_dashboard(dev_deployment: Deployment) -> None:
    boards = {
        item["DashboardName"]: json.dumps(item)
        for item in dev_deployment.resources("Observability", "AWS::CloudWatch::Dashboard")
    }
    assert set(boards) == {"Barflow-dev-Business", "Barflow-dev-Technical"}
    for name in (metrics.BARS_INGESTED, metrics.FRESHNESS, metrics.ALERTS_FIRED, metrics.ROWS_LOADED, metrics.RUN_COST):
        assert name in boards["Barflow-dev-Business"]


def test_without_the_function_there_are_no_alarms_of_its_ticks(synthesize: Callable[[Environment], Deployment]) -> None:
    hosted = synthesize(changed(dev(), ingest=IngestConfig(runner="host")))
    assert set(alarms(hosted)) == ALARMS - OF_FUNCTION


@pytest.mark.parametrize(
    "name",
    ["AWS::CloudWatch::Alarm", "AWS::CloudWatch::Dashboard", "AWS::SSM::Parameter", "AWS::SecretsManager::Secret"],
)
def test_the_estimate_counts_what_the_templates_hold(dev_deployment: Deployment, name: str) -> None:
    from config.cost import Inventory

    counted = {
        "AWS::CloudWatch::Alarm": Inventory().alarms,
        "AWS::CloudWatch::Dashboard": Inventory().dashboards,
        "AWS::SSM::Parameter": Inventory().parameters,
        "AWS::SecretsManager::Secret": Inventory().secrets - 1,  # RDS makes that of the owner
    }
    there = sum(len(dev_deployment.resources(part, name)) for part in dev_deployment.templates)
    assert there == counted[name]
