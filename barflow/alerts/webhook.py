"""Webhooks: sends alerts to an https endpoint, signed as the Standard Webhooks specification describes.

Every secret signs each message, so a receiver can use the old or the new one while a secret is renewed. The body of an
answer is never logged. A redirect is not followed: it would lead to an address that nobody chose.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import ssl
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from urllib.parse import urlsplit

from standardwebhooks.webhooks import Webhook

from barflow.alerts.channels import ChannelDownError, EndpointGoneError, Receipts, wait_seconds
from barflow.alerts.message import Message
from barflow.alerts.webhook_connection import AddressRefusedError, CheckedConnection, Resolve, resolve
from barflow.errors import BadInputError
from barflow.secrets import SCHEME
from barflow.secrets import resolve as resolve_secret
from barflow.settings import Settings

HTTPS = 443
# Of the specification: a prefix, and the base64 text of so many bytes.
PREFIX, KEY_BYTES = "whsec_", range(24, 65)
# One answer may concern one message. After so many in a row, the endpoint is down.
FAILURES_IN_A_ROW = 3


class WebhookChannel:
    """One endpoint. Its ``name`` is a hash of its address, so that another address has a state of its own."""

    digest_above: int | None = None  # a bot acts on each alert

    def __init__(
        self,
        settings: Settings,
        url: str,
        *,
        resolve: Resolve = resolve,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """Raise BadInputError if the secret is missing or has another form."""
        self.settings, self._resolve = settings, resolve
        self._address = urlsplit(url)
        self.host = self.place = self._address.hostname or ""
        self.name = f"webhook-{hashlib.sha256(url.encode()).hexdigest()[:8]}"
        self._tls = context or ssl.create_default_context()
        secret = settings.webhook_secret
        if secret is None:
            raise BadInputError("BARFLOW_WEBHOOK_URL is set without BARFLOW_WEBHOOK_SECRET: set the secret that signs")
        if not secret.get_secret_value().startswith(SCHEME):
            signers(secret.get_secret_value())

    def send(self, messages: Sequence[Message]) -> Iterator[Receipts]:
        """Post message by message, and yield each one's receipt.

        An answer that accepts no message concerns that message alone, up to three in a row. Raises ChannelDownError,
        also after the last message if it was not accepted, and EndpointGoneError.
        """
        keys = signers(resolve_secret(self.settings.webhook_secret, "BARFLOW_WEBHOOK_SECRET"))
        connection = CheckedConnection(
            self.host,
            self._address.port or HTTPS,
            allow_private=self.settings.webhook_allow_private,
            context=self._tls,
            resolve=self._resolve,
        )
        failures, reason = 0, ""
        try:
            for message in messages:
                if failures == FAILURES_IN_A_ROW:
                    break
                status = self._post(connection, keys, message)
                reason = "" if 200 <= status < 300 else _reason(status)
                failures = failures + 1 if reason else 0
                yield {message.id: reason or None}
        finally:
            connection.close()
        if reason:
            raise ChannelDownError(self._label, reason)

    def send_digest(self, messages: Sequence[Message]) -> Iterator[Receipts]:
        """Post each message: there is no digest for bots."""
        return self.send(messages)

    @property
    def _label(self) -> str:
        return f"The webhook at {self.host}"

    def _post(self, connection: CheckedConnection, keys: Sequence[Webhook], message: Message) -> int:
        """Return the status of the answer. Raises ChannelDownError without one, or if the endpoint asks to wait."""
        body = message.model_dump_json()
        try:
            status, wait = connection.post(
                self._address.path or "/", body.encode(), signed_headers(keys, message.id, body, datetime.now(UTC))
            )
        except AddressRefusedError as error:
            raise ChannelDownError(self._label, str(error)) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            # The class alone: a text may contain parts of the answer.
            raise ChannelDownError(self._label, type(error).__name__) from None
        if status == http.HTTPStatus.GONE:
            raise EndpointGoneError(self._label, self.name, self.host)
        if status in (http.HTTPStatus.TOO_MANY_REQUESTS, http.HTTPStatus.SERVICE_UNAVAILABLE):
            raise ChannelDownError(self._label, f"HTTP {status}", wait_seconds(wait or ""))
        return status


def signers(text: str) -> list[Webhook]:
    """Return what signs with the one or two secrets of a text, separated by a comma.

    Raises BadInputError, without the text, unless each is ``whsec_`` and the base64 text of 24 to 64 bytes.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > 2 or not all(_is_secret(part) for part in parts):
        raise BadInputError(
            "BARFLOW_WEBHOOK_SECRET must be whsec_ and the base64 text of 24 to 64 bytes, or two of them separated by "
            "a comma. Store it again."
        )
    return [Webhook(part) for part in parts]


def signed_headers(keys: Sequence[Webhook], message_id: str, body: str, at: datetime) -> dict[str, str]:
    """Return the headers of a message that is sent at a time (UTC), with the signature of each key."""
    return {
        "Content-Type": "application/json",
        "User-Agent": "barflow",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(key.sign(message_id, at, body) for key in keys),
    }


def _is_secret(text: str) -> bool:
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except ValueError:
        return False
    return text.startswith(PREFIX) and len(key) in KEY_BYTES


def _reason(status: int) -> str:
    return f"HTTP {status}" + (" to another address; redirects are not followed" if 300 <= status < 400 else "")
