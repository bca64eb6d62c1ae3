"""Is the market fetched when it should be, by one who may do that and no more?"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import date, datetime, timedelta
from itertools import product

import pytest
from deployments import Deployment
from permissions import rights
from programs import settings_read, variable

from barflow.market.sessions import BAR, NEW_YORK, bars_due, sessions_between
from config.environment import Environment, IngestConfig

Synthesize = Callable[[Environment], Deployment]
EVERY = (5, 15, 30)


@pytest.fixture(scope="session")
def by_lambda(synthesize: Synthesize, dev_deployment: Deployment) -> dict[int, Deployment]:
    """Environments by how often a tick runs in them."""
    slower = (Environment(name=f"every{every}", ingest=IngestConfig(every_minutes=every)) for every in EVERY[1:])
    return {5: dev_deployment} | {item.ingest.every_minutes: synthesize(item) for item in slower}


@pytest.fixture(scope="session")
def by_host(synthesize: Synthesize) -> Deployment:
    return synthesize(Environment(name="byhost", ingest=IngestConfig(runner="host")))


def ticks(deployment: Deployment) -> set[tuple[int, int]]:
    """The hours and minutes, New York time, at which the schedules call the function on a weekday."""
    found: set[tuple[int, int]] = set()
    for schedule in deployment.resources("Ingestion", "AWS::Scheduler::Schedule"):
        assert schedule["ScheduleExpressionTimezone"] == "America/New_York"
        assert schedule["FlexibleTimeWindow"] == {"Mode": "OFF"}
        assert schedule["State"] == "ENABLED"
        match = re.fullmatch(r"cron\((\S+) (\S+) \? \* MON-FRI \*\)", schedule["ScheduleExpression"])
        assert match is not None, schedule["ScheduleExpression"]
        called = set(product(expanded(match[2], 24), expanded(match[1], 60)))
        assert not found & called, "two schedules call at the same time"
        found |= called
    return found


def expanded(field: str, end: int) -> list[int]:
    """The numbers that a field of a cron expression stands for."""
    numbers: list[int] = []
    for part in field.split(","):
        if "/" in part:
            start, step = part.split("/")
            numbers += range(int(start), end, int(step))
        else:
            first, _, last = part.partition("-")
            numbers += range(int(first), int(last or first) + 1)
    return numbers


def test_ticks_come_every_five_minutes_from_the_open_to_ten_minutes_after_the_close(
    by_lambda: dict[int, Deployment],
) -> None:
    open_ = datetime(2025, 7, 2, 9, 30)
    expected = {open_ + timedelta(minutes=5) * n for n in range(81)}
    assert ticks(by_lambda[5]) == {(moment.hour, moment.minute) for moment in expected}


@pytest.mark.parametrize("every", EVERY)
def test_every_session_has_a_tick_after_its_last_bar_and_no_more_ticks_than_the_plan_was_asked_for(
    by_lambda: dict[int, Deployment], every: int
) -> None:
    called = ticks(by_lambda[every])
    for session in sessions_between(date(2025, 1, 1), date(2026, 12, 31)):
        assert session.session_date.weekday() < 5
        moments = [
            datetime(
                *session.session_date.timetuple()[:3], hour, minute, 3, tzinfo=NEW_YORK
            )  # a call comes a little late
            for hour, minute in called
        ]
        due = [moment for moment in moments if bars_due(moment)]
        assert any(moment >= session.closes for moment in due)
        assert any(moment < session.opens + BAR + timedelta(minutes=every) for moment in due)
        assert len(due) <= 390 // every + 2  # as config.environment counts the day's credits


def test_where_the_host_fetches_there_is_neither_function_nor_schedule(by_host: Deployment) -> None:
    assert by_host.resources("Ingestion", "AWS::Lambda::Function") == []
    assert by_host.resources("Ingestion", "AWS::Scheduler::Schedule") == []
    contract = by_host.contract.ingestion
    assert (contract.runner, contract.function_name) == ("host", None)


def test_the_function_runs_once_at_a_time_and_what_fails_three_times_is_kept(dev_deployment: Deployment) -> None:
    function = dev_deployment.only("Ingestion", "AWS::Lambda::Function")
    assert (function["Runtime"], function["Architectures"]) == ("python3.13", ["arm64"])
    assert function["ReservedConcurrentExecutions"] == 1
    invoked = dev_deployment.only("Ingestion", "AWS::Lambda::EventInvokeConfig")
    assert invoked["MaximumRetryAttempts"] == 2
    queue = dev_deployment.only("Ingestion", "AWS::SQS::Queue")
    assert queue["SqsManagedSseEnabled"] is True
    assert queue["MessageRetentionPeriod"] == 14 * 24 * 3600
    kept = {"Fn::GetAtt": [logical_id(dev_deployment, "AWS::SQS::Queue"), "Arn"]}
    assert function["DeadLetterConfig"] == {"TargetArn": kept}
    for schedule in dev_deployment.resources("Ingestion", "AWS::Scheduler::Schedule"):
        assert schedule["Target"]["DeadLetterConfig"] == {"Arn": kept}


def test_a_tick_must_not_outlive_its_turn(dev_deployment: Deployment) -> None:
    config = dev_deployment.environment.ingest
    assert dev_deployment.only("Ingestion", "AWS::Lambda::Function")["Timeout"] < config.every_minutes * 60


def test_the_function_sits_in_the_private_subnets(dev_deployment: Deployment) -> None:
    (placed,) = [item["VpcConfig"] for item in dev_deployment.resources("Ingestion", "AWS::Lambda::Function")]
    assert len(placed["SubnetIds"]) == dev_deployment.environment.network.zones
    assert all("private" in json.dumps(subnet) for subnet in placed["SubnetIds"])
    assert "FunctionsGroup" in json.dumps(placed["SecurityGroupIds"])


def test_the_function_is_given_every_setting_that_a_tick_reads_and_no_other(dev_deployment: Deployment) -> None:
    read = settings_read("lambda/ingest/handler.py") | settings_read("barflow/operations/ticks.py")
    read |= settings_read("barflow/pipeline/stores.py", "ingest", "database")
    # Left to their defaults: they do not differ between deployments.
    read -= {"mongodb_database", "batch_size", "alerts_file"}
    # Read by barflow.alerts.channels, which opens the channels that are given.
    read |= {"sns_topic_arn", "slack_token", "slack_channel"}
    given = dev_deployment.only("Ingestion", "AWS::Lambda::Function")["Environment"]["Variables"]
    assert set(given) == {variable(field) for field in read}


def test_the_function_holds_references_to_secrets_and_may_read_those_alone(dev_deployment: Deployment) -> None:
    given = dev_deployment.only("Ingestion", "AWS::Lambda::Function")["Environment"]["Variables"]
    assert given["BARFLOW_MONGODB_URI"] == "secretsmanager:barflow/dev/mongodb"
    assert given["TWELVEDATA_API_KEY"] == "secretsmanager:barflow/dev/twelvedata"
    allowed = rights(dev_deployment.templates["Ingestion"], "IngestRole")
    secrets = {right.resource for right in allowed if right.action == "secretsmanager:GetSecretValue"}
    assert len(secrets) == 3
    assert all(any(part in name for part in ("MongoDb", "TwelveData", "Slack")) for name in secrets)
    assert {right.action.split(":")[0] for right in allowed} == {"ec2", "kms", "logs", "secretsmanager", "sns", "sqs"}


def logical_id(deployment: Deployment, kind: str) -> str:
    (found,) = [name for name, item in deployment.templates["Ingestion"]["Resources"].items() if item["Type"] == kind]
    return str(found)
