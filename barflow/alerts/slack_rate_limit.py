"""Slack's rate limit: the SDK's own retry handler, with a limit on how long it may hold up a tick."""

from __future__ import annotations

from typing import Any

from slack_sdk.http_retry.builtin_handlers import RateLimitErrorRetryHandler
from slack_sdk.http_retry.response import HttpResponse

from barflow.alerts.channels import wait_seconds

# Slack allows about one message a second, so a wait is usually one second. A later tick does what takes longer.
LONGEST_WAIT_SECONDS = 5


class ShortWaitHandler(RateLimitErrorRetryHandler):
    """Waits for Slack's ``Retry-After`` once, when it is at most ``LONGEST_WAIT_SECONDS``, and posts again."""

    def _can_retry(self, *, response: HttpResponse | None = None, **context: Any) -> bool:
        if response is None or not super()._can_retry(response=response, **context):
            return False
        seconds = retry_after({name: values[0] for name, values in response.headers.items()})
        return seconds is not None and seconds <= LONGEST_WAIT_SECONDS


def retry_after(headers: dict[str, str]) -> int | None:
    """Return the seconds of the header ``Retry-After``, or None if it is missing or not a whole number."""
    text = next((value for name, value in headers.items() if name.lower() == "retry-after"), "")
    return wait_seconds(text)
