"""The notify function: texts of an alarm, a failed job and plain text, and what it does with each event."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from types import ModuleType

import boto3
import pytest
from harness import program
from hypothesis import example, given
from hypothesis import strategies as st
from moto import mock_aws
from slack_sdk import WebClient

from emulators.slack.server import TOKEN, SlackEmulator


@pytest.fixture(scope="module")
def notify() -> ModuleType:
    return program("lambda/notify/handler.py")


def test_an_alarm_is_shown_with_name_state_and_description(notify: ModuleType) -> None:
    body = {"AlarmName": "Barflow-dev-StaleBars", "NewStateValue": "ALARM", "AlarmDescription": "See the runbook."}
    text = notify.as_text({"Message": json.dumps(body)})
    assert text == ":red_circle: *Barflow-dev-StaleBars* is ALARM\nSee the runbook."


def test_the_reason_of_a_test_is_shown_instead_of_the_description(notify: ModuleType) -> None:
    body = {"AlarmName": "A", "NewStateValue": "ALARM", "AlarmDescription": "See the runbook."}
    test = notify.as_text({"Message": json.dumps(body | {"NewStateReason": "Test 1 by `barflow verify`"})})
    assert test.splitlines()[1] == "Test 1 by `barflow verify`"
    real = notify.as_text({"Message": json.dumps(body | {"NewStateReason": "Threshold Crossed"})})
    assert real.splitlines()[1] == "See the runbook."


def test_a_failed_job_is_shown_with_its_name_and_reason(notify: ModuleType) -> None:
    body = {
        "detail-type": "Glue Job State Change",
        "detail": {"jobName": "Aggregate", "state": "FAILED", "message": "error: the warehouse could not be reached"},
    }
    text = notify.as_text({"Message": json.dumps(body)})
    assert text == ":red_circle: *Glue Job State Change*: Aggregate FAILED\nerror: the warehouse could not be reached"


@pytest.mark.parametrize("message", ["over budget", "[1, 2]", '"text"'])
def test_any_other_message_is_shown_unchanged(notify: ModuleType, message: str) -> None:
    assert notify.as_text({"Subject": "AWS Budgets", "Message": message}) == f"*AWS Budgets*\n{message}"


SHAPES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text()
            | st.sampled_from(
                (
                    *(
                        "AlarmName",
                        "NewStateValue",
                        "NewStateReason",
                        "AlarmDescription",
                        "detail",
                        "detail-type",
                        "state",
                    ),
                    *("jobName", "name", "clusterId", "message", "stateChangeReason", "Message", "Subject"),
                )
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(SHAPES)
@example({"AlarmName": "A"})
@example({"AlarmName": ["A"], "NewStateValue": {"a": 1}, "NewStateReason": None})
@example({"detail-type": "Glue Job State Change", "detail": None})
@example({"detail": ["FAILED"]})
@example({"detail": {"message": "<!channel> password=hunter2", "jobName": "<https://evil.example|bank>"}})
def test_a_message_of_any_shape_is_shown_and_is_no_markup(notify: ModuleType, shape: object) -> None:
    for message in (shape, {"Message": json.dumps(shape)}, {"Message": shape, "Subject": shape}):
        text = notify.as_text(message)
        assert not set("<>") & set(text)
        assert "hunter2" not in text


def test_a_long_message_is_shortened(notify: ModuleType) -> None:
    assert len(notify.as_text({"Message": "x" * 10_000})) < 2_000


OVER_BUDGET = {"Records": [{"Sns": {"Subject": "AWS Budgets", "Message": "over budget"}}]}


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlackEmulator]:
    """Yield Slack; the function's secret in moto has no token yet."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws(config={"core": {"passthrough": {"urls": [r"127\.0\.0\.1"]}}}), SlackEmulator() as emulator:
        boto3.client("secretsmanager").create_secret(Name="slack", SecretString="r4nd0m")
        topic = boto3.client("sns").create_topic(Name="operations")["TopicArn"]
        for name, value in {"SLACK_SECRET": "slack", "SLACK_CHANNEL": "#barflow", "OPERATIONS_TOPIC": topic}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("BARFLOW_SLACK_URL", emulator.url)
        yield emulator


def test_before_a_token_is_stored_a_message_is_logged_and_not_posted(
    notify: ModuleType, slack: SlackEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    notify.handler(OVER_BUDGET, None)
    assert slack.posts == []
    printed = capsys.readouterr().out
    assert "no Slack token is stored" in printed
    assert "over budget" in printed
    assert "r4nd0m" not in printed


def test_a_token_is_used_from_the_message_after_it_was_stored(notify: ModuleType, slack: SlackEmulator) -> None:
    notify.handler(OVER_BUDGET, None)
    boto3.client("secretsmanager").put_secret_value(SecretId="slack", SecretString=f"{TOKEN}\r\n")
    notify.handler(OVER_BUDGET, None)
    assert [post["text"] for post in slack.posts] == ["*AWS Budgets*\nover budget"]


def test_the_log_has_what_deletes_a_posted_message(
    notify: ModuleType, slack: SlackEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    boto3.client("secretsmanager").put_secret_value(SecretId="slack", SecretString=TOKEN)
    notify.handler(OVER_BUDGET, None)
    logged = json.loads(capsys.readouterr().out)
    assert logged == {"posted": "1.0", "channel": "C-#barflow", "text": "*AWS Budgets*\nover budget"}
    WebClient(TOKEN, base_url=slack.url).chat_delete(channel=logged["channel"], ts=logged["posted"])
    assert slack.deleted == slack.posts


def test_an_event_is_published_to_the_topic_and_not_posted(notify: ModuleType, slack: SlackEmulator) -> None:
    queue = boto3.client("sqs").create_queue(QueueName="subscriber")["QueueUrl"]
    arn = boto3.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"][
        "QueueArn"
    ]
    boto3.client("sns").subscribe(TopicArn=os.environ["OPERATIONS_TOPIC"], Protocol="sqs", Endpoint=arn)
    event = {"detail-type": "Glue Job State Change", "detail": {"jobName": "Aggregate", "state": "FAILED"}}
    notify.handler(event, None)
    (message,) = boto3.client("sqs").receive_message(QueueUrl=queue)["Messages"]
    assert json.loads(json.loads(message["Body"])["Message"]) == event
    assert slack.posts == []
