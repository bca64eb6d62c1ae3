"""Each channel sends its messages, reports why it cannot, and never shows a secret. The example bot reads them."""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import boto3
import pytest
from alert_ticks import slack
from moto import mock_aws
from pydantic import SecretStr
from slack_sdk.http_retry import HttpRequest, HttpResponse, RetryState, builtin_handlers

from barflow.alerts.channels import ChannelDownError, SlackChannel, SnsChannel, open_channels, post_to_slack
from barflow.alerts.message import Message
from barflow.alerts.slack_rate_limit import LONGEST_WAIT_SECONDS, ShortWaitHandler, retry_after
from barflow.errors import BadInputError
from barflow.settings import Settings
from emulators.slack.server import DROP, TOKEN, TRUNCATE, Fault, SlackEmulator

BOT = Path(__file__).parents[2] / "examples" / "paper_bot.py"
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


def test_slack_gets_the_alert_as_a_sentence_with_its_time_in_new_york(server: SlackEmulator) -> None:
    sentence = "TSLA opened 7.57 % below the previous close of 315.22"
    text = f":rotating_light: {sentence} · 2025-07-07 09:30 New York · `gap_5pct`"
    assert [*slack(server.url).send([message()])] == [{message().id: None}]
    assert [*webhook(server).send([message()])] == [{message().id: None}]
    assert server.posts == [{"channel": "#alerts", "text": text}, {"channel": "webhook", "text": text}]


@pytest.mark.parametrize("by", ["token", "webhook"])
@pytest.mark.parametrize(
    ("fault", "reason", "after"),
    [
        (Fault("channel_not_found"), "channel_not_found", None),
        (Fault(429, retry_after=120), "rate limited", 120),
        (Fault(429, retry_after=LONGEST_WAIT_SECONDS + 1), "rate limited", LONGEST_WAIT_SECONDS + 1),
        (Fault(500), "HTTP 500", None),
        (Fault(DROP), "RemoteDisconnected", None),
    ],
)
def test_a_failure_of_slack_means_the_channel_is_down_and_shows_no_secret(
    server: SlackEmulator, caplog: pytest.LogCaptureFixture, by: str, fault: Fault, reason: str, after: float | None
) -> None:
    server.fault = fault
    channel = slack(server.url) if by == "token" else webhook(server)
    with caplog.at_level(logging.DEBUG), pytest.raises(ChannelDownError, match=reason) as error:
        list(channel.send([message()]))
    assert error.value.retry_after == after
    shown = str(error.value) + caplog.text
    assert server.attempts == 1, "no wait that would hold up a tick"
    assert TOKEN not in shown
    assert "emulator-hook" not in shown


@pytest.mark.parametrize("by", ["token", "webhook"])
def test_with_an_answer_of_slack_that_breaks_off_the_channel_is_down(server: SlackEmulator, by: str) -> None:
    server.fault = Fault(TRUNCATE)
    channel = slack(server.url) if by == "token" else webhook(server)
    with pytest.raises(ChannelDownError):
        list(channel.send([message()]))


def test_slack_without_an_answer_is_down() -> None:
    with pytest.raises(ChannelDownError, match="URLError"):
        list(slack().send([message()]))


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that Slack's SDK sleeps. It does not wait."""
    seconds: list[float] = []
    monkeypatch.setattr(builtin_handlers, "time", SimpleNamespace(sleep=seconds.append))
    return seconds


@pytest.mark.parametrize("by", ["token", "webhook"])
def test_a_short_wait_that_slack_asks_for_is_waited_once(server: SlackEmulator, slept: list[float], by: str) -> None:
    channel = slack(server.url) if by == "token" else webhook(server)
    server.fault = Fault(429, times=1, retry_after=3)
    assert [*channel.send([message()])] == [{message().id: None}]
    assert server.attempts == 2
    assert [3 <= seconds <= 4 for seconds in slept] == [True], "what Slack asks for, and up to a second of jitter"
    server.fault = Fault(429, retry_after=3)
    with pytest.raises(ChannelDownError, match="rate limited"):
        list(channel.send([message()]))
    assert server.attempts == 4
    assert len(slept) == 2


@pytest.mark.parametrize(
    "text", ["", "soon", "-1", "1.5", "\N{ARABIC-INDIC DIGIT ONE}", "Wed, 21 Oct 2026 07:28:00 GMT"]
)
def test_a_retry_after_that_is_no_number_of_seconds_is_not_waited_for(text: str) -> None:
    assert retry_after({"Retry-After": text}) is None
    refused = HttpResponse(status_code=429, headers={"retry-after": [text]})
    request = HttpRequest(method="POST", url="", headers={})
    assert not ShortWaitHandler().can_retry(state=RetryState(), request=request, response=refused)


def test_with_a_wrong_token_the_channel_is_down(server: SlackEmulator) -> None:
    wrong = Settings(slack_token=SecretStr("xoxb-wrong"), slack_channel="#alerts", slack_url=server.url)
    with pytest.raises(ChannelDownError, match="invalid_auth") as error:
        list(SlackChannel(wrong).send([message()]))
    assert "xoxb-wrong" not in str(error.value)


def test_a_post_outside_the_outbox_returns_why_it_was_not_sent(server: SlackEmulator) -> None:
    settings = Settings(slack_token=SecretStr(TOKEN), slack_channel="#alerts", slack_url=server.url)
    assert post_to_slack(settings, "the run is done") is None
    assert [post["text"] for post in server.posts] == ["the run is done"]
    server.fault = Fault("channel_not_found")
    problem = post_to_slack(settings, "the run is done")
    assert problem == "Slack accepts no messages now (channel_not_found); this one is not sent again"
    assert post_to_slack(Settings(), "the run is done") == "Slack is not set up"


def test_only_the_channels_that_are_set_up_are_opened() -> None:
    assert open_channels(Settings()) == []
    arn = f"arn:aws:sns:{REGION}:123456789012:alerts"
    token = SecretStr(TOKEN)
    both = Settings(sns_topic_arn=arn, slack_token=token, slack_channel="#alerts")
    assert [channel.name for channel in open_channels(both)] == ["sns", "slack"]
    with pytest.raises(BadInputError, match="BARFLOW_SLACK_CHANNEL"):
        open_channels(Settings(slack_token=token))


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    with mock_aws():
        yield


def subscribe(topic: str, queue: str, **policy: list[str]) -> str:
    """Subscribe a bot's FIFO queue to the topic as the stack does: raw messages, filtered by attributes."""
    sqs, sns = boto3.client("sqs"), boto3.client("sns")
    url = str(sqs.create_queue(QueueName=queue, Attributes={"FifoQueue": "true"})["QueueUrl"])
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    attributes = {"RawMessageDelivery": "true", "FilterPolicy": json.dumps(policy)}
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes=attributes)
    return url


def received(url: str) -> list[dict[str, Any]]:
    """Return the messages of a queue."""
    found: list[dict[str, Any]] = []
    while messages := boto3.client("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        found += [json.loads(item["Body"]) for item in messages]
    return found


def topic() -> str:
    made = boto3.client("sns").create_topic(Name="alerts.fifo", Attributes={"FifoTopic": "true"})
    return str(made["TopicArn"])


def test_bots_get_the_alerts_that_they_filter_for_once(aws: None) -> None:
    arn = topic()
    tesla = subscribe(arn, "tesla.fifo", symbol=["TSLA"])
    critical = subscribe(arn, "critical.fifo", severity=["critical"], rule=["gap_5pct"])
    sent = [message(f"S{number:02}", "info") for number in range(12)] + [message("TSLA"), message("NVDA")]
    channel = SnsChannel(arn)
    receipts = [*channel.send(sent), *channel.send(sent[-2:])]
    assert [len(part) for part in receipts] == [10, 4, 2], "ten in a call"
    assert not any(error for part in receipts for error in part.values())
    assert [Message.model_validate(item) for item in received(tesla)] == [message("TSLA")]
    assert sorted(item["symbol"] for item in received(critical)) == ["NVDA", "TSLA"]


def test_the_deduplication_id_of_a_long_id_is_short_enough_for_sns(aws: None) -> None:
    rule = "r" * 40
    entry = SnsChannel(topic())._entry(0, message("X" * 24 + ":" + "Y" * 60, rule=rule))
    assert len(entry["MessageDeduplicationId"]) == 64
    assert entry["MessageDeduplicationId"].isalnum()


def test_without_its_topic_the_channel_is_down(aws: None) -> None:
    with pytest.raises(ChannelDownError, match="NotFound"):
        list(SnsChannel(f"arn:aws:sns:{REGION}:123456789012:gone.fifo").send([message()]))


def test_the_example_bot_acts_once_on_each_alert_and_acknowledges_it(
    aws: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a restart it acts on nothing twice, since its file of known ids remains."""

    def acted() -> list[str]:
        bot = example_bot()
        bot.from_queue(url, bot.PaperBot(str(tmp_path / "paper.sqlite")).handle, wait=0)
        lines = capsys.readouterr().out.splitlines()
        return [line.split()[1] for line in lines if not line.startswith("profit")]

    url = subscribe(arn := topic(), "bot.fifo")
    list(SnsChannel(arn).send([message("TSLA"), message("NVDA")]))
    assert acted() == ["TSLA", "NVDA"]
    put(url, message("TSLA"), "after five minutes")
    list(SnsChannel(arn).send([message("AAPL")]))
    assert acted() == ["AAPL"], "not TSLA a second time"
    left = boto3.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert (left["ApproximateNumberOfMessages"], left["ApproximateNumberOfMessagesNotVisible"]) == ("0", "0")


MAX_RECEIVES = 3


@pytest.fixture
def bots_queue(aws: None) -> tuple[str, str]:
    """Create a bot's queue and its dead-letter queue, both FIFO. Unacknowledged messages return at once."""
    sqs = boto3.client("sqs")
    failed = sqs.create_queue(QueueName="bot-failed.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=failed, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": MAX_RECEIVES})
    attributes = {"FifoQueue": "true", "VisibilityTimeout": "0", "RedrivePolicy": redrive}
    return sqs.create_queue(QueueName="bot.fifo", Attributes=attributes)["QueueUrl"], failed


def put(url: str, sent: Message, deduplication: str = "") -> None:
    boto3.client("sqs").send_message(
        QueueUrl=url, MessageBody=sent.model_dump_json(), MessageGroupId=sent.symbol,
        MessageDeduplicationId=deduplication or str(abs(hash(sent.id))),
    )  # fmt: skip


def test_the_example_bot_acts_once_on_an_alert_that_is_delivered_twice(
    bots_queue: tuple[str, str], tmp_path: Path
) -> None:
    url, _ = bots_queue
    put(url, message("TSLA"), "first")
    put(url, message("TSLA"), "again")
    bot, acted = example_bot(), []
    paper = bot.PaperBot(str(tmp_path / "paper.sqlite"))
    bot.from_queue(url, lambda alert: acted.append(paper.handle(alert)), wait=0)
    assert acted == ["too late", "known"]
    assert received(url) == []


def test_an_alert_that_the_example_bot_died_of_is_delivered_again(bots_queue: tuple[str, str]) -> None:
    url, failed = bots_queue
    put(url, message("TSLA"))
    with pytest.raises(KeyboardInterrupt):
        example_bot().from_queue(url, die, wait=0)
    acted: list[str] = []
    example_bot().from_queue(url, lambda alert: acted.append(alert["symbol"]), wait=0)
    assert acted == ["TSLA"]
    assert received(url) == received(failed) == []


def test_an_alert_that_the_example_bot_always_dies_of_ends_in_the_dead_letter_queue(
    bots_queue: tuple[str, str],
) -> None:
    url, failed = bots_queue
    put(url, message("TSLA"))
    for _ in range(MAX_RECEIVES):
        with pytest.raises(KeyboardInterrupt):
            example_bot().from_queue(url, die, wait=0)
    put(url, message("AAPL"))
    acted: list[str] = []
    example_bot().from_queue(url, lambda alert: acted.append(alert["symbol"]), wait=0)
    assert acted == ["AAPL"], "the bot works again"
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
