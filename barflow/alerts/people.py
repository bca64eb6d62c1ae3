"""People's channels through apprise, which posts to over a hundred services: one URL is one channel.

A URL is a secret, so a channel is named after its service or by its owner, never after a part of the URL behind it.
apprise logs URLs. Here, neither its log nor that of the libraries below it is written anywhere, and an error is an
HTTP status or a class.
"""

from __future__ import annotations

import html
import logging
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from barflow.alerts.channels import ChannelDownError, Receipts, bar_time, counts_by_rule, most_severe
from barflow.alerts.message import Message
from barflow.errors import BadInputError
from barflow.secrets import SCHEME, resolve
from barflow.settings import Settings
from barflow.text import redacted, visible

if TYPE_CHECKING:
    from pydantic import SecretStr

# For one message. The time limits of apprise start again with each byte.
LIMIT_SECONDS = 15.0
# apprise's type of a message, which some services show as a colour.
TYPES = {"info": "info", "warning": "warning", "critical": "failure"}
# Loggers of apprise and of what it sends with. They write addresses, headers or tokens, some only as debug messages.
LOGGERS = ("urllib3", "requests_oauthlib", "oauthlib")
# What apprise's messages hold of an answer.
STATUS = re.compile(r"\berror=([1-5][0-9]{2})\b")
NO_CONNECTION = "onnection error occur"
# Slack's markup, in texts that are no alert.
MARKUP = re.compile(r"^:[a-z_]+: |[*`]")


class AppriseChannel:
    """One service. Its name stays the same when its URL is renewed."""

    def __init__(self, settings: Settings, name: str, url: SecretStr) -> None:
        """Raise BadInputError for a URL that apprise does not understand. A reference is read on use."""
        self.name = f"apprise-{name}"
        self.digest_above: int | None = settings.slack_digest_above
        self._url = url
        text = url.get_secret_value()
        self.place = text if text.startswith(SCHEME) else text.partition(":")[0]
        if self.place != text:
            self._service()

    def send(self, messages: Sequence[Message]) -> Iterator[Receipts]:
        """Send message by message, and yield each one's receipt. Raises ChannelDownError and BadInputError."""
        for message in messages:
            title = f"{message.symbol} {message.severity}: {message.rule}"
            self._send(title, f"{message.text} · {bar_time(message)}", TYPES[message.severity])
            yield {message.id: None}

    def send_digest(self, messages: Sequence[Message]) -> Iterator[Receipts]:
        """Send one text about these messages, and yield their receipts. Raises ChannelDownError and BadInputError."""
        shown = most_severe(messages)
        lines = (
            counts_by_rule(messages),
            *(f"{message.text} · {bar_time(message)} · {message.rule}" for message in shown),
            f"barflow alerts list --limit {len(messages)} shows all of them",
        )
        self._send(f"{len(messages)} alerts at once", "\n".join(lines), TYPES[shown[0].severity])
        yield {message.id: None for message in messages}

    def post(self, text: str) -> None:
        """Send a text in Slack's markup without that markup. Raises ChannelDownError and BadInputError."""
        self._send("Barflow", html.unescape(MARKUP.sub("", text)), TYPES["warning"])

    def _send(self, title: str, body: str, kind: str) -> None:
        attempt = _Attempt(self._service(), redacted(visible(title)), redacted(visible(body, keep="\n")), kind)
        attempt.start()
        attempt.join(LIMIT_SECONDS)
        if not attempt.accepted:
            raise ChannelDownError(self.name, attempt.reason)

    def _service(self) -> Any:
        """Return apprise's object for the URL. Raises BadInputError, without the URL."""
        url = resolve(self._url, "BARFLOW_APPRISE_URL")
        with suppress(Exception):  # the text of an error may hold the URL
            if service := _instantiate(url):
                return service
        raise BadInputError(
            f"BARFLOW_APPRISE_URL: the URL of {self.name} must be one that apprise understands, such as "
            "mailto://user:password@example.com. Set it again."
        )


class _Attempt(threading.Thread):
    """Sends one message in a thread, which outlives the time limit only until the service ends the connection."""

    def __init__(self, service: Any, title: str, body: str, kind: str) -> None:
        super().__init__(name="apprise", daemon=True)
        self.service, self.content = service, {"title": title, "body": body, "notify_type": kind}
        self.accepted, self.reason = False, "TimeoutError"

    def run(self) -> None:
        """Send the message. Set ``accepted``, or else ``reason``."""
        from apprise import NotifyFormat

        REASONS.seen.reason = "not accepted"
        try:
            self.accepted = bool(self.service.notify(body_format=NotifyFormat.TEXT, **self.content))
            self.reason = REASONS.seen.reason
        except Exception as error:
            self.reason = type(error).__name__


class _Reasons(logging.Handler):
    """Takes the reason of a failure out of apprise's messages, by thread, and drops the messages."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(Exception):  # a message that cannot be formatted
            text = record.getMessage()
            if status := STATUS.search(text):
                self.seen.reason = f"HTTP {status[1]}"
            elif NO_CONNECTION in text:
                self.seen.reason = "no connection"


REASONS = _Reasons()


def _instantiate(url: str) -> Any:
    """Return apprise's object for a URL, or None for one that it does not understand."""
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    logger = logging.getLogger("apprise")
    logger.setLevel(logging.WARNING)
    logger.propagate, logger.handlers = False, [REASONS]
    import apprise

    asset = apprise.AppriseAsset(
        app_id="Barflow",
        app_desc="Barflow",
        app_url="",
        image_url_mask=None,
        image_url_logo=None,
        http_redirects=False,
        secure_logging=True,
        storage_mode="memory",
        allow_templates=False,
    )
    return apprise.Apprise.instantiate(url, asset=asset)
