"""Each channel sends what it is given, says why when it cannot, and never shows a secret."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest
from alert_ticks import slack
from moto import mock_aws
from moto.server import ThreadedMotoServer
from pydantic import SecretStr

from barflow.alerts.channels import ChannelDownError, SlackChannel, SnsChannel, channels, tell_people
from barflow.alerts.message import Message
from barflow.errors import BadInputError
from barflow.settings import Settings
from emulators.slack.server import DROP, TOKEN, Fault, SlackEmulator

BOT = Path(__file__).parents[2] / "examples" / "bot.py"
REGION = "eu-central-1"


def message(symbol: str = "TSLA", severity: Any = "critical", rule: str = "gap_5pct") -> Message:
    return Message(
        id=f"{rule}|{symbol}|2025-07-07T13:30:00Z",
        rule=rule,
        kind="gap",
        symbol=symbol,
        severity=severity,
        session_date=date(2025, 7, 7),
        bar_start=datetime(2025, 7, 7, 13, 30, tzinfo=UTC),
        direction="down",
        value=-7.5661,
        unit="percent",
        reference=315.22,
        price=290.76,
        text=f"{symbol} opened 7.57 % below the previous close of 315.22",
        created_at=datetime(2025, 7, 7, 13, 35, 2, tzinfo=UTC),
    )


@pytest.fixture
def server() -> Iterator[SlackEmulator]:
    with SlackEmulator() as running:
        yield running


def webhook(server: SlackEmulator) -> SlackChannel:
    return SlackChannel(Settings(slack_webhook=SecretStr(server.webhook)))


def test_slack_gets_the_alert_in_words_with_its_time_in_new_york(server: SlackEmulator) -> None:
    sentence = "TSLA opened 7.57 % below the previous close of 315.22"
    text = f":rotating_light: {sentence} · 2025-07-07 09:30 New York · `gap_5pct`"
    assert [*slack(server.url).send([message()])] == [{message().id: None}]
    assert [*webhook(server).send([message()])] == [{message().id: None}]
    assert server.posts == [{"channel": "#alerts", "text": text}, {"channel": "webhook", "text": text}]


@pytest.mark.parametrize("by", ["token", "webhook"])
@pytest.mark.parametrize(
    ("trouble", "says", "after"),
    [
        (Fault("channel_not_found"), "channel_not_found", None),
        (Fault(429, retry_after=120), "rate limited", 120),
        (Fault(500), "HTTP 500", None),
        (Fault(DROP), "RemoteDisconnected", None),
    ],
)
def test_slack_failing_is_a_channel_that_is_down_and_no_secret_is_told(
    server: SlackEmulator, caplog: pytest.LogCaptureFixture, by: str, trouble: Fault, says: str, after: float | None
) -> None:
    server.fault = trouble
    channel = slack(server.url) if by == "token" else webhook(server)
    with caplog.at_level(logging.DEBUG), pytest.raises(ChannelDownError, match=says) as error:
        list(channel.send([message()]))
    assert error.value.retry_after == after
    told = str(error.value) + caplog.text
    assert TOKEN not in told
    assert "emulator-hook" not in told


def test_slack_that_nobody_answers_for_is_down() -> None:
    with pytest.raises(ChannelDownError, match="URLError"):
        list(slack().send([message()]))


def test_a_short_wait_that_slack_asks_for_is_waited(server: SlackEmulator) -> None:
    server.fault = Fault(429, times=1, retry_after=0)
    assert [*slack(server.url).send([message()])] == [{message().id: None}]
    assert server.attempts == 2


def test_a_wrong_token_is_a_channel_that_is_down(server: SlackEmulator) -> None:
    wrong = Settings(slack_token=SecretStr("xoxb-wrong"), slack_channel="#alerts", slack_url=server.url)
    with pytest.raises(ChannelDownError, match="invalid_auth") as error:
        list(SlackChannel(wrong).send([message()]))
    assert "xoxb-wrong" not in str(error.value)


def test_what_people_are_told_past_the_outbox_says_that_it_is_not_sent_again(server: SlackEmulator) -> None:
    settings = Settings(slack_token=SecretStr(TOKEN), slack_channel="#alerts", slack_url=server.url)
    assert tell_people(settings, "the run is done") is None
    assert [post["text"] for post in server.posts] == ["the run is done"]
    server.fault = Fault("channel_not_found")
    untold = tell_people(settings, "the run is done")
    assert untold == "Slack takes no messages now (channel_not_found); this one is not sent again"
    assert tell_people(Settings(), "the run is done") == "Slack is not set up"


def test_only_what_is_set_up_is_a_channel() -> None:
    assert channels(Settings()) == []
    arn = f"arn:aws:sns:{REGION}:123456789012:alerts"
    token = SecretStr(TOKEN)
    both = Settings(sns_topic_arn=arn, slack_token=token, slack_channel="#alerts")
    assert [channel.name for channel in channels(both)] == ["sns", "slack"]
    with pytest.raises(BadInputError, match="BARFLOW_SLACK_CHANNEL"):
        channels(Settings(slack_token=token))


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    with mock_aws():
        yield


def subscribe(topic: str, queue: str, **policy: list[str]) -> str:
    """A FIFO queue of a bot at the topic, as the stack makes it: raw messages, filtered by attributes."""
    sqs, sns = boto3.client("sqs"), boto3.client("sns")
    url = str(sqs.create_queue(QueueName=queue, Attributes={"FifoQueue": "true"})["QueueUrl"])
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    attributes = {"RawMessageDelivery": "true", "FilterPolicy": json.dumps(policy)}
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes=attributes)
    return url


def taken(url: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while messages := boto3.client("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        found += [json.loads(item["Body"]) for item in messages]
    return found


def topic() -> str:
    made = boto3.client("sns").create_topic(Name="alerts.fifo", Attributes={"FifoTopic": "true"})
    return str(made["TopicArn"])


def test_bots_get_through_sns_what_they_filter_for_once(aws: None) -> None:
    arn = topic()
    tesla = subscribe(arn, "tesla.fifo", symbol=["TSLA"])
    grave = subscribe(arn, "grave.fifo", severity=["critical"], rule=["gap_5pct"])
    sent = [message(f"S{number:02}", "info") for number in range(12)] + [message("TSLA"), message("NVDA")]
    channel = SnsChannel(arn)
    receipts = [*channel.send(sent), *channel.send(sent[-2:])]
    assert [len(part) for part in receipts] == [10, 4, 2], "ten in a call"
    assert not any(error for part in receipts for error in part.values())
    assert [Message.model_validate(item) for item in taken(tesla)] == [message("TSLA")]
    assert sorted(item["symbol"] for item in taken(grave)) == ["NVDA", "TSLA"]


def test_a_long_id_still_has_a_deduplication_id_that_sns_takes(aws: None) -> None:
    rule = "r" * 40
    entry = SnsChannel(topic())._entry(0, message("X" * 24 + ":" + "Y" * 60, rule=rule))
    assert len(entry["MessageDeduplicationId"]) == 64
    assert entry["MessageDeduplicationId"].isalnum()


def test_a_topic_that_is_gone_is_a_channel_that_is_down(aws: None) -> None:
    with pytest.raises(ChannelDownError, match="NotFound"):
        list(SnsChannel(f"arn:aws:sns:{REGION}:123456789012:gone.fifo").send([message()]))


def test_the_example_bot_acts_once_on_each_alert_and_acknowledges_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a server of SQS, as a process of its own, which dies after two alerts and is started again."""
    endpoint = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    endpoint.start()
    _, port = endpoint.get_host_and_port()
    keys = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "testing")
    environment = {**keys, "AWS_DEFAULT_REGION": REGION, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    try:
        url = subscribe(arn := topic(), "bot.fifo")
        list(SnsChannel(arn).send([message("TSLA"), message("NVDA")]))
        assert bot(url, tmp_path, 2) == ["TSLA", "NVDA"]
        again = message("TSLA").model_dump_json()
        boto3.client("sqs").send_message(
            QueueUrl=url, MessageBody=again, MessageGroupId="TSLA", MessageDeduplicationId="after five minutes"
        )
        list(SnsChannel(arn).send([message("AAPL")]))
        assert bot(url, tmp_path, 1) == ["AAPL"], "not TSLA a second time"
        left = boto3.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        assert (left["ApproximateNumberOfMessages"], left["ApproximateNumberOfMessagesNotVisible"]) == ("0", "0")
    finally:
        endpoint.stop()


TRIES = 3


@pytest.fixture
def bots_queue(aws: None) -> tuple[str, str]:
    """A bot's queue and its dead-letter queue, both FIFO; what is not acknowledged comes back at once."""
    sqs = boto3.client("sqs")
    failed = sqs.create_queue(QueueName="bot-failed.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=failed, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": TRIES})
    kept = {"FifoQueue": "true", "VisibilityTimeout": "0", "RedrivePolicy": redrive}
    return sqs.create_queue(QueueName="bot.fifo", Attributes=kept)["QueueUrl"], failed


def put(url: str, sent: Message, deduplication: str = "") -> None:
    boto3.client("sqs").send_message(
        QueueUrl=url, MessageBody=sent.model_dump_json(), MessageGroupId=sent.symbol,
        MessageDeduplicationId=deduplication or str(abs(hash(sent.id))),
    )  # fmt: skip


def test_a_bot_acts_once_on_an_alert_that_is_delivered_twice(bots_queue: tuple[str, str], tmp_path: Path) -> None:
    url, _ = bots_queue
    put(url, message("TSLA"), "first")
    put(url, message("TSLA"), "again")
    acted: list[str] = []
    example_bot().run(url, str(tmp_path / "seen.sqlite"), lambda alert: acted.append(alert["id"]), wait=0)
    assert acted == [message("TSLA").id]
    assert taken(url) == []


def test_what_a_bot_died_of_before_it_acknowledged_is_delivered_again(
    bots_queue: tuple[str, str], tmp_path: Path
) -> None:
    url, failed = bots_queue
    put(url, message("TSLA"))
    with pytest.raises(KeyboardInterrupt):
        example_bot().run(url, str(tmp_path / "seen.sqlite"), die, wait=0)
    acted: list[str] = []
    example_bot().run(url, str(tmp_path / "seen.sqlite"), lambda alert: acted.append(alert["symbol"]), wait=0)
    assert acted == ["TSLA"]
    assert taken(url) == taken(failed) == []


def test_an_alert_that_a_bot_dies_of_every_time_ends_in_the_dead_letter_queue(
    bots_queue: tuple[str, str], tmp_path: Path
) -> None:
    url, failed = bots_queue
    put(url, message("TSLA"))
    for _ in range(TRIES):
        with pytest.raises(KeyboardInterrupt):
            example_bot().run(url, str(tmp_path / "seen.sqlite"), die, wait=0)
    put(url, message("AAPL"))
    acted: list[str] = []
    example_bot().run(url, str(tmp_path / "seen.sqlite"), lambda alert: acted.append(alert["symbol"]), wait=0)
    assert acted == ["AAPL"], "the bot lives again"
    dead = boto3.client("sqs").receive_message(QueueUrl=failed)["Messages"]
    assert [json.loads(item["Body"])["symbol"] for item in dead] == ["TSLA"]


def die(alert: dict[str, Any]) -> None:
    raise KeyboardInterrupt


def example_bot() -> ModuleType:
    spec = importlib.util.spec_from_file_location("example_bot", BOT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bot(url: str, folder: Path, lines: int) -> list[str]:
    """The symbols that a bot acts on until it has printed so many lines and its queue is empty."""
    code = f"import sys; sys.path.insert(0, {str(BOT.parent)!r}); import bot; bot.run({url!r}, 'seen.sqlite', wait=0)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=os.environ, capture_output=True, text=True, check=True
    )
    found = [line.split()[2] for line in done.stdout.splitlines()]
    assert len(found) == lines
    return found
