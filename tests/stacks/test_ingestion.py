"""Ticks run during every session, in a function with exactly the settings and permissions that it needs."""

from __future__ import annotations

import json
import re
from datetime import date, datetime, timedelta

import pytest
from croniter import croniter_range
from deployments import Deployment, Synthesize, changed
from permissions import permissions
from programs import settings_read, variable

from barflow.market.sessions import BAR, NEW_YORK, bars_due, sessions_between
from barflow.settings import load_settings
from config.environment import IngestConfig
from config.environments import dev

EVERY = (5, 15, 30)
MONDAY = datetime(2025, 6, 30)


@pytest.fixture(scope="session")
def ticking(synthesize: Synthesize) -> dict[int, Deployment]:
    """The environment dev by the minutes between its ticks."""
    return {every: synthesize(changed(dev(), ingest=IngestConfig(every_minutes=every))) for every in EVERY}


def ticks(deployment: Deployment, payload: str = "{}") -> set[tuple[int, int]]:
    """Return the hours and minutes, New York time, at which the schedules invoke the function on a weekday.

    The expressions are EventBridge's: six fields, ``?`` for any day, names for the weekdays, because EventBridge counts
    weekdays from 1 (Sunday) and cron from 0. Such an expression without its year is one that croniter reads.
    """
    moments: list[datetime] = []
    for schedule in deployment.resources("Ingestion", "AWS::Scheduler::Schedule"):
        assert schedule["ScheduleExpressionTimezone"] == "America/New_York"
        assert schedule["FlexibleTimeWindow"] == {"Mode": "OFF"}
        assert schedule["State"] == "ENABLED"
        if schedule["Target"]["Input"] != payload:
            continue
        match = re.fullmatch(r"cron\((\S+ \S+ \? \* MON-FRI) \*\)", schedule["ScheduleExpression"])
        assert match is not None, schedule["ScheduleExpression"]
        moments += croniter_range(MONDAY, MONDAY + timedelta(days=7), match[1])
    assert len(moments) == len(set(moments)), "two schedules invoke the function at the same time"
    by_day = {day: {(at.hour, at.minute) for at in moments if at.weekday() == day} for day in range(7)}
    assert by_day == {day: by_day[0] if day < 5 else set() for day in range(7)}
    return by_day[0]


def test_ticks_run_every_five_minutes_from_the_open_to_ten_minutes_after_the_close(
    ticking: dict[int, Deployment],
) -> None:
    opens = datetime(2025, 7, 2, 9, 30)
    expected = {opens + timedelta(minutes=5) * n for n in range(81)}
    assert ticks(ticking[5]) == {(moment.hour, moment.minute) for moment in expected}


def test_corporate_actions_are_due_before_the_open_and_daily_bars_before_the_process_run(
    ticking: dict[int, Deployment],
) -> None:
    for deployment in ticking.values():
        called = ticks(deployment, '{"actions":true}')
        assert {minute for hour, minute in called if hour == 8} == {*range(0, 60, 5)}
        assert {at for at in called if at[0] != 8} == {(16, minute) for minute in range(25, 60, 5)}
    assert deployment.environment.process.schedule == ("45 16 * * MON-FRI",)


@pytest.mark.parametrize("every", EVERY)
def test_every_session_has_a_tick_after_its_last_bar_and_at_most_the_ticks_that_credits_are_counted_for(
    ticking: dict[int, Deployment], every: int
) -> None:
    called = ticks(ticking[every])
    for session in sessions_between(date(2025, 1, 1), date(2026, 12, 31)):
        assert session.session_date.weekday() < 5
        # An invocation starts some seconds late.
        day = session.session_date.timetuple()[:3]
        moments = [datetime(*day, hour, minute, 3, tzinfo=NEW_YORK) for hour, minute in called]
        due = [moment for moment in moments if bars_due(moment)]
        assert any(moment >= session.closes for moment in due)
        assert any(moment < session.opens + BAR + timedelta(minutes=every) for moment in due)
        assert len(due) <= ticking[every].environment.ingest.ticks_per_session


def test_there_is_neither_function_nor_schedule_when_the_host_ingests(host_ingests: Deployment) -> None:
    assert host_ingests.resources("Ingestion", "AWS::Lambda::Function") == []
    assert host_ingests.resources("Ingestion", "AWS::Scheduler::Schedule") == []
    contract = host_ingests.contract.ingestion
    assert (contract.runner, contract.function_name) == ("host", None)


def test_the_function_runs_once_at_a_time_and_a_tick_that_fails_three_times_goes_to_the_queue(
    dev_deployment: Deployment, prod_deployment: Deployment
) -> None:
    function = dev_deployment.only("Ingestion", "AWS::Lambda::Function")
    assert (function["Runtime"], function["Architectures"]) == ("python3.13", ["arm64"])
    assert "ReservedConcurrentExecutions" not in function, "a new account allows no reservation"
    assert prod_deployment.only("Ingestion", "AWS::Lambda::Function")["ReservedConcurrentExecutions"] == 1
    invoked = dev_deployment.only("Ingestion", "AWS::Lambda::EventInvokeConfig")
    assert invoked["MaximumRetryAttempts"] == 2
    queue = dev_deployment.only("Ingestion", "AWS::SQS::Queue")
    assert queue["SqsManagedSseEnabled"] is True
    assert queue["MessageRetentionPeriod"] == 14 * 24 * 3600
    arn = {"Fn::GetAtt": [dev_deployment.logical_id("Ingestion", "AWS::SQS::Queue"), "Arn"]}
    assert function["DeadLetterConfig"] == {"TargetArn": arn}
    for schedule in dev_deployment.resources("Ingestion", "AWS::Scheduler::Schedule"):
        assert schedule["Target"]["DeadLetterConfig"] == {"Arn": arn}


def test_a_tick_times_out_before_the_next_one_starts(dev_deployment: Deployment) -> None:
    config = dev_deployment.environment.ingest
    assert dev_deployment.only("Ingestion", "AWS::Lambda::Function")["Timeout"] < config.every_minutes * 60


def test_the_function_is_in_the_private_subnets(dev_deployment: Deployment) -> None:
    (placed,) = [item["VpcConfig"] for item in dev_deployment.resources("Ingestion", "AWS::Lambda::Function")]
    assert len(placed["SubnetIds"]) == dev_deployment.environment.network.zones
    assert all("private" in json.dumps(subnet) for subnet in placed["SubnetIds"])
    assert "FunctionsGroup" in json.dumps(placed["SecurityGroupIds"])


def test_the_function_gets_exactly_the_settings_that_a_tick_reads(dev_deployment: Deployment) -> None:
    read = settings_read("lambda/ingest/handler.py")
    read |= settings_read("barflow/pipeline/stores.py", "database", "instruments")
    lineage = ("pipeline/lineage", "pipeline/lineage_events", "pipeline/lineage_staging")
    for program in ("operations/ticks", "operations/daily_actions", "pipeline/ingest", "pipeline/vendor", *lineage):
        read |= settings_read(f"barflow/{program}.py")
    # These have the same default in every deployment.
    read -= {"mongodb_database", "batch_size", "alerts_file", "instruments_file", "actions_source"}
    # The channels of alerts read these.
    read |= {"sns_topic_arn", "slack_token", "slack_channel", "slack_digest_above"}
    read |= {"apprise_url", "webhook_url", "webhook_secret", "webhook_allow_private"}
    given = dev_deployment.only("Ingestion", "AWS::Lambda::Function")["Environment"]["Variables"]
    assert set(given) == {variable(field) for field in read}


def test_the_function_has_references_to_secrets_and_reads_only_those(dev_deployment: Deployment) -> None:
    given = dev_deployment.only("Ingestion", "AWS::Lambda::Function")["Environment"]["Variables"]
    assert given["BARFLOW_MONGODB_URI"] == "secretsmanager:barflow/dev/mongodb"
    assert given["TWELVEDATA_API_KEY"] == "secretsmanager:barflow/dev/twelvedata"
    allowed = permissions(dev_deployment.templates["Ingestion"], "IngestRole")
    secrets = {item.resource for item in allowed if item.action == "secretsmanager:GetSecretValue"}
    assert len(secrets) == 3
    assert all(any(part in name for part in ("MongoDb", "TwelveData", "Slack")) for name in secrets)
    assert {item.action.split(":")[0] for item in allowed} == {"ec2", "kms", "logs", "secretsmanager", "sns", "sqs"}


@pytest.mark.parametrize("channel", ["webhook", "apprise"])
def test_a_channel_reaches_the_function_and_the_host_with_its_secret_by_reference(
    customized: Deployment, dev_deployment: Deployment, channel: str
) -> None:
    def allowed(deployment: Deployment, part: str, role: str) -> set[str]:
        found = permissions(deployment.templates[part], role)
        mine = f"/{channel}-"
        return {item.resource for item in found if item.action.startswith("secretsmanager") and mine in item.resource}

    given = customized.only("Ingestion", "AWS::Lambda::Function")["Environment"]["Variables"]
    expected = {
        "webhook_url": "https://bot.example.com/alerts",
        "webhook_secret": "secretsmanager:barflow/dev/webhook",
        "webhook_allow_private": "True",
        "apprise_url": "team=secretsmanager:barflow/dev/apprise#team oncall=secretsmanager:barflow/dev/apprise#oncall",
    }
    assert {name: given[f"BARFLOW_{name.upper()}"] for name in expected} == expected
    host = customized.contract.reader_settings()
    assert host["webhook_url"] == (expected["webhook_url"],)
    assert [host[name] for name in ("webhook_secret", "apprise_url")] == [
        expected[name] for name in ("webhook_secret", "apprise_url")
    ]
    assert [*load_settings(**host).apprise_urls] == ["team", "oncall"]
    for part, role in (("Ingestion", "IngestRole"), ("Orchestration", "HostRole")):
        (secret,) = allowed(customized, part, role)
        assert f':secret:barflow/dev/{channel}-??????"' in secret, "this secret alone, by its name"
        assert allowed(dev_deployment, part, role) == set(), "no permission without the channel"
    # Their ports are the one that the security groups of both allow.
    groups = customized.resources("Network", "AWS::EC2::SecurityGroup")
    for purpose in ("ingest and migrations", "the Airflow host"):
        (group,) = [item for item in groups if item["GroupDescription"].endswith(purpose)]
        assert any(
            (rule["CidrIp"], rule["FromPort"], rule["ToPort"]) == ("0.0.0.0/0", 443, 443)
            for rule in group["SecurityGroupEgress"]
        )
