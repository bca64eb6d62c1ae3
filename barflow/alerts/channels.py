"""The channels that bring alerts to bots and people: an SNS topic and Slack.

Modules beside this one hold webhooks (barflow.alerts.webhook) and the services of apprise (barflow.alerts.people).

A secret stays in its setting until a message is sent, and is never part of an error. A client library's error is
reduced to a code or to the name of its class.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol, get_args, runtime_checkable

from barflow.alerts.message import Message
from barflow.alerts.rules import Severity
from barflow.errors import BadInputError, BarflowError, UnavailableError, aws_error_code
from barflow.market.sessions import new_york
from barflow.secrets import resolve
from barflow.settings import Settings
from barflow.text import redacted, slack_escaped

TIMEOUT_SECONDS = 10
SEVERITIES = get_args(Severity)
# What a digest shows.
EXAMPLES, MOST_RULES = 5, 10
# The most messages that SNS accepts in one call.
SNS_BATCH = 10
# Slack's SDK logs the address that it posts to, and the address of a webhook is a secret.
SILENT_LOGGER = logging.Logger("slack", logging.CRITICAL + 1)
# By message id: None if the message was sent, else the reason why it was not.
Receipts = Mapping[str, str | None]


class ChannelDownError(UnavailableError):
    """A channel does not accept messages now. ``retry_after`` is the number of seconds that it asks to wait, if any."""

    def __init__(self, channel: str, reason: str, retry_after: float | None = None) -> None:
        super().__init__(
            f"{channel} accepts no alerts now ({reason}). They stay in the outbox, and a later tick sends them."
        )
        self.reason, self.retry_after = reason, retry_after


class EndpointGoneError(ChannelDownError):
    """A webhook's endpoint answered 410 Gone: it wants no more alerts. ``host`` is the host of its address."""

    def __init__(self, label: str, name: str, host: str) -> None:
        BarflowError.__init__(self, gone_reason(label, name))
        self.host, self.retry_after = host, None


def gone_reason(label: str, name: str) -> str:
    """Return why a disabled endpoint gets no alerts, and what enables it."""
    return (
        f"{label} answered 410 Gone and is disabled. Its alerts are dropped; they stay in the outbox. To enable it "
        f"again, run `barflow alerts webhooks --enable {name}`."
    )


def wait_seconds(text: str) -> int | None:
    """Return the seconds of a header ``Retry-After``, or None for a date or another text."""
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else None


class Channel(Protocol):
    """One way to send alerts. Above ``digest_above`` alerts of a tick it sends one digest; None: never.

    ``place`` is where it sends them to, without a secret.
    """

    name: str
    place: str
    digest_above: int | None

    def send(self, messages: Sequence[Message]) -> Iterator[Receipts]:
        """Send messages in this order, and yield the receipts of each part once it is sent.

        Raises ChannelDownError for the rest.
        """
        ...

    def send_digest(self, messages: Sequence[Message]) -> Iterator[Receipts]:
        """Send one text about these messages, and yield their receipts. Raises ChannelDownError."""
        ...


@runtime_checkable
class PeoplesChannel(Channel, Protocol):
    """A channel that people read. It also posts what is no alert."""

    def post(self, text: str) -> None:
        """Post a text in Slack's markup. Raises BarflowError."""
        ...


def open_channels(settings: Settings) -> list[Channel]:
    """Return the channels that are set up. Raises BadInputError if a setting of a channel is missing."""
    found: list[Channel] = []
    if settings.sns_topic_arn:
        found.append(SnsChannel(settings.sns_topic_arn))
    if settings.slack_webhook or settings.slack_token:
        if not settings.slack_webhook and not settings.slack_channel:
            raise BadInputError("BARFLOW_SLACK_TOKEN is set without BARFLOW_SLACK_CHANNEL: name the channel to post to")
        found.append(SlackChannel(settings))
    if settings.apprise_url:
        from barflow.alerts.people import AppriseChannel

        found += [AppriseChannel(settings, name, url) for name, url in settings.apprise_urls.items()]
    if settings.webhook_url:
        from barflow.alerts.webhook import WebhookChannel

        found += [WebhookChannel(settings, url) for url in settings.webhook_url]
    return found


def kind_of(name: str) -> str:
    """Return the channel as rules name it: ``webhook`` for ``webhook-1f2e3d4c``, ``apprise`` for ``apprise-team``."""
    return name.partition("-")[0]


def post_to_slack(settings: Settings, text: str) -> str | None:
    """Post a text that is no alert to Slack. Return None, or the reason why it was not posted.

    It never raises for a failure of Slack: what the text reports has happened in any case.
    """
    if not settings.slack_webhook and not (settings.slack_token and settings.slack_channel):
        return "Slack is not set up"
    try:
        SlackChannel(settings).post(text)
    except ChannelDownError as error:
        return f"Slack accepts no messages now ({error.reason}); this one is not sent again"
    except BarflowError as error:
        return str(error)
    return None


class SnsChannel:
    """The bots' topic. Subscriptions filter by the message attributes symbol, rule and severity."""

    name = "sns"
    digest_above: int | None = None  # a bot acts on each alert

    def __init__(self, topic_arn: str) -> None:
        self.topic_arn = self.place = topic_arn

    @cached_property
    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        config = Config(connect_timeout=TIMEOUT_SECONDS, read_timeout=TIMEOUT_SECONDS, retries={"max_attempts": 1})
        return boto3.client("sns", region_name=self.topic_arn.split(":")[3], config=config)

    def send(self, messages: Sequence[Message]) -> Iterator[Receipts]:
        """Publish in batches of ten, and yield the receipts of each batch. Raises ChannelDownError."""
        from botocore.exceptions import BotoCoreError, ClientError

        for start in range(0, len(messages), SNS_BATCH):
            batch = messages[start : start + SNS_BATCH]
            entries = [self._entry(place, message) for place, message in enumerate(batch)]
            try:
                answer = self._client.publish_batch(TopicArn=self.topic_arn, PublishBatchRequestEntries=entries)
            except (BotoCoreError, ClientError) as error:
                raise ChannelDownError(self.name, aws_error_code(error)) from None
            failed = {int(item["Id"]): str(item["Code"]) for item in answer.get("Failed", [])}
            yield {message.id: failed.get(place) for place, message in enumerate(batch)}

    def send_digest(self, messages: Sequence[Message]) -> Iterator[Receipts]:
        """Publish each message: there is no digest for bots."""
        return self.send(messages)

    def _entry(self, place: int, message: Message) -> dict[str, Any]:
        attributes = {"symbol": message.symbol, "rule": message.rule, "severity": message.severity}
        entry: dict[str, Any] = {
            "Id": str(place),
            "Message": message.model_dump_json(),
            "MessageAttributes": {
                name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
            },
        }
        if self.topic_arn.endswith(".fifo"):
            # A stable id may be longer than the 128 characters that SNS accepts.
            entry["MessageDeduplicationId"] = hashlib.sha256(message.id.encode()).hexdigest()
            entry["MessageGroupId"] = message.symbol
        return entry


class SlackChannel:
    """People's channel: posts by a webhook, or by a bot's token and a channel's name."""

    name = "slack"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.digest_above: int | None = settings.slack_digest_above
        self.place = "its webhook" if settings.slack_webhook else settings.slack_channel or ""

    def send(self, messages: Sequence[Message]) -> Iterator[Receipts]:
        """Post message by message, and yield each one's receipt. Raises ChannelDownError."""
        for message in messages:
            self.post(slack_text(message))
            yield {message.id: None}

    def send_digest(self, messages: Sequence[Message]) -> Iterator[Receipts]:
        """Post one text about these messages, and yield their receipts. Raises ChannelDownError."""
        self.post(digest_text(messages))
        yield {message.id: None for message in messages}

    def post(self, text: str) -> None:
        """Post a text without secrets, and once more after a short wait where Slack asks for one.

        Raises ChannelDownError.
        """
        from slack_sdk.errors import SlackApiError, SlackClientError

        from barflow.alerts.slack_rate_limit import retry_after

        try:
            status, headers, error_code = self._call(redacted(text))
        except SlackApiError as error:
            status, headers = error.response.status_code, error.response.headers
            error_code = str(error.response.get("error") or "")
        except (SlackClientError, OSError, http.client.HTTPException, ValueError) as error:
            # ValueError: the SDK cannot decode the body.
            raise ChannelDownError(self.name, type(error).__name__) from None
        if status == http.HTTPStatus.TOO_MANY_REQUESTS:
            raise ChannelDownError(self.name, "rate limited", retry_after(dict(headers)))
        if status != http.HTTPStatus.OK or error_code:
            # Slack's own codes are single words. Any other text may be the page of a proxy.
            raise ChannelDownError(self.name, error_code if error_code.isidentifier() else f"HTTP {status}")

    def _call(self, text: str) -> tuple[int, Mapping[str, str], str]:
        """Return the status, the headers, and Slack's error code or an empty text."""
        from slack_sdk import WebClient, WebhookClient

        from barflow.alerts.slack_rate_limit import ShortWaitHandler

        options: dict[str, Any] = {
            "timeout": TIMEOUT_SECONDS,
            "retry_handlers": [ShortWaitHandler()],
            "logger": SILENT_LOGGER,
        }
        if self.settings.slack_webhook:
            hook = WebhookClient(resolve(self.settings.slack_webhook, "BARFLOW_SLACK_WEBHOOK"), **options)
            answer = hook.send(text=text, unfurl_links=False, unfurl_media=False)
            return answer.status_code, answer.headers, "" if answer.body == "ok" else answer.body
        token = resolve(self.settings.slack_token, "BARFLOW_SLACK_TOKEN")
        client = WebClient(token, base_url=self.settings.slack_url, **options)
        posted = client.chat_postMessage(
            channel=self.settings.slack_channel or "", text=text, unfurl_links=False, unfurl_media=False
        )
        return posted.status_code, posted.headers, ""


def digest_text(messages: Sequence[Message]) -> str:
    """Return many alerts in one text: their number by rule, the most severe ones, and the command that lists all."""
    lines = (
        f":warning: *{len(messages)} alerts at once*: {counts_by_rule(messages, '`')}",
        *map(slack_text, most_severe(messages)),
        f"`barflow alerts list --limit {len(messages)}` shows all of them",
    )
    return "\n".join(lines)


def counts_by_rule(messages: Sequence[Message], quote: str = "") -> str:
    """Return how many of these messages each of the most frequent rules has."""
    rules = Counter(message.rule for message in messages).most_common()
    counts = ", ".join(f"{quote}{slack_escaped(rule)}{quote} {count}" for rule, count in rules[:MOST_RULES])
    return counts + (f" and {len(rules) - MOST_RULES} more rules" if len(rules) > MOST_RULES else "")


def most_severe(messages: Sequence[Message]) -> list[Message]:
    """Return the messages that a digest shows."""
    return sorted(messages, key=lambda message: -SEVERITIES.index(message.severity))[:EXAMPLES]


def slack_text(message: Message) -> str:
    """Return the alert as Slack shows it, with the bar's time in New York."""
    mark = {"info": "", "warning": ":warning: ", "critical": ":rotating_light: "}[message.severity]
    return f"{mark}{slack_escaped(message.text)} · {bar_time(message)} · `{slack_escaped(message.rule)}`"


def bar_time(message: Message) -> str:
    """Return the bar's time as people read it, in New York."""
    return f"{new_york(message.bar_start):%Y-%m-%d %H:%M} New York"
