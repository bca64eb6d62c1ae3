"""By which ways do alerts reach bots and people? An SNS topic and Slack; each sends messages or says why it cannot.

A secret stays in its setting until something is sent, and is never part of an error: what a client library says of
a failure is reduced to a code or the name of its kind.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

from barflow.alerts.message import Message
from barflow.errors import BadInputError, BarflowError, UnavailableError
from barflow.market.sessions import new_york
from barflow.secrets import resolve
from barflow.settings import Settings

TIMEOUT_SECONDS = 10
# SNS takes no more in one call.
SNS_BATCH = 10
# Slack takes about one message a second; a longer wait is left to a later tick.
LONGEST_WAIT_SECONDS = 5.0
# The SDK logs the address that it posts to, which of a webhook is the secret.
SILENT = logging.Logger("slack", logging.CRITICAL + 1)
# By message id: None where it was sent, else why not.
Receipts = Mapping[str, str | None]


class ChannelDownError(UnavailableError):
    """A channel takes nothing now. ``retry_after`` is the seconds it asks to be left alone, if it says so."""

    def __init__(self, channel: str, reason: str, retry_after: float | None = None) -> None:
        super().__init__(
            f"{channel} takes no alerts now ({reason}). They stay in the outbox and are sent by a later tick."
        )
        self.reason, self.retry_after = reason, retry_after


class Channel(Protocol):
    """One way out."""

    name: str

    def send(self, messages: Sequence[Message]) -> Iterator[Receipts]:
        """Sends in this order, and tells of each part once it is sent. Raises ChannelDownError for the rest."""
        ...


def channels(settings: Settings) -> list[Channel]:
    """The ways that the settings open. Raises BadInputError where one is set up by half."""
    found: list[Channel] = []
    if settings.sns_topic_arn:
        found.append(SnsChannel(settings.sns_topic_arn))
    if settings.slack_webhook or settings.slack_token:
        if not settings.slack_webhook and not settings.slack_channel:
            raise BadInputError("BARFLOW_SLACK_TOKEN is set without BARFLOW_SLACK_CHANNEL: name the channel to post to")
        found.append(SlackChannel(settings))
    return found


def tell_people(settings: Settings, text: str) -> str | None:
    """Posts to Slack, where it is set up. Returns why it could not: what it tells has happened, heard or not."""
    if not settings.slack_webhook and not (settings.slack_token and settings.slack_channel):
        return "Slack is not set up"
    try:
        SlackChannel(settings).post(text)
    except ChannelDownError as error:
        return f"Slack takes no messages now ({error.reason}); this one is not sent again"
    except BarflowError as error:
        return str(error)
    return None


class SnsChannel:
    """The bots' topic. Attributes symbol, rule and severity are there for subscriptions to filter by."""

    name = "sns"

    def __init__(self, topic_arn: str) -> None:
        self.topic_arn = topic_arn

    @cached_property
    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        config = Config(connect_timeout=TIMEOUT_SECONDS, read_timeout=TIMEOUT_SECONDS, retries={"max_attempts": 1})
        return boto3.client("sns", region_name=self.topic_arn.split(":")[3], config=config)

    def send(self, messages: Sequence[Message]) -> Iterator[Receipts]:
        from botocore.exceptions import BotoCoreError, ClientError

        for start in range(0, len(messages), SNS_BATCH):
            part = messages[start : start + SNS_BATCH]
            entries = [self._entry(place, message) for place, message in enumerate(part)]
            try:
                answer = self._client.publish_batch(TopicArn=self.topic_arn, PublishBatchRequestEntries=entries)
            except (BotoCoreError, ClientError) as error:
                code = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
                raise ChannelDownError(self.name, code) from None
            failed = {int(item["Id"]): str(item["Code"]) for item in answer.get("Failed", [])}
            yield {message.id: failed.get(place) for place, message in enumerate(part)}

    def _entry(self, place: int, message: Message) -> dict[str, Any]:
        named = {"symbol": message.symbol, "rule": message.rule, "severity": message.severity}
        entry: dict[str, Any] = {
            "Id": str(place),
            "Message": message.model_dump_json(),
            "MessageAttributes": {name: {"DataType": "String", "StringValue": value} for name, value in named.items()},
        }
        if self.topic_arn.endswith(".fifo"):
            # The stable id may be longer than the 128 characters that SNS takes.
            entry["MessageDeduplicationId"] = hashlib.sha256(message.id.encode()).hexdigest()
            entry["MessageGroupId"] = message.symbol
        return entry


class SlackChannel:
    """People's channel: by a webhook, or by a bot's token and a channel's name."""

    name = "slack"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def send(self, messages: Sequence[Message]) -> Iterator[Receipts]:
        for message in messages:
            self.post(slack_text(message))
            yield {message.id: None}

    def post(self, text: str) -> None:
        """Posts, and once more where Slack asks to wait a little. Raises ChannelDownError."""
        try:
            self._post(text)
        except ChannelDownError as error:
            if error.retry_after is None or error.retry_after > LONGEST_WAIT_SECONDS:
                raise
            time.sleep(error.retry_after)
            self._post(text)

    def _post(self, text: str) -> None:
        from slack_sdk.errors import SlackApiError, SlackClientError

        try:
            status, headers, problem = self._call(text)
        except SlackApiError as error:
            status, headers = error.response.status_code, error.response.headers
            problem = str(error.response.get("error") or "")
        except (SlackClientError, OSError, http.client.HTTPException) as error:
            raise ChannelDownError(self.name, type(error).__name__) from None
        if status == http.HTTPStatus.TOO_MANY_REQUESTS:
            after = next((value for name, value in headers.items() if name.lower() == "retry-after"), "")
            raise ChannelDownError(self.name, "rate limited", float(after) if after.isdigit() else None)
        if status != http.HTTPStatus.OK or problem:
            # Slack's own codes are single words; anything else may be a page of some proxy.
            raise ChannelDownError(self.name, problem if problem.isidentifier() else f"HTTP {status}")

    def _call(self, text: str) -> tuple[int, Mapping[str, str], str]:
        """Status, headers, and Slack's error code or nothing."""
        from slack_sdk import WebClient, WebhookClient

        if self.settings.slack_webhook:
            url = resolve(self.settings.slack_webhook, "BARFLOW_SLACK_WEBHOOK")
            hook = WebhookClient(url, timeout=TIMEOUT_SECONDS, retry_handlers=[], logger=SILENT)
            answer = hook.send(text=text)
            return answer.status_code, answer.headers, "" if answer.body == "ok" else answer.body
        token = resolve(self.settings.slack_token, "BARFLOW_SLACK_TOKEN")
        client = WebClient(
            token, base_url=self.settings.slack_url, timeout=TIMEOUT_SECONDS, retry_handlers=[], logger=SILENT
        )
        posted = client.chat_postMessage(channel=self.settings.slack_channel or "", text=text)
        return posted.status_code, posted.headers, ""


def slack_text(message: Message) -> str:
    """The alert as Slack shows it, with the bar's time in New York."""
    mark = {"info": "", "warning": ":warning: ", "critical": ":rotating_light: "}[message.severity]
    return f"{mark}{message.text} · {new_york(message.bar_start):%Y-%m-%d %H:%M} New York · `{message.rule}`"
