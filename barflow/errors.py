"""Errors a user can meet, and the exit code of each.

Every message says what failed and for what, what was kept, and what to do next (guarantee G8).
No message contains a secret: each is redacted when the error is made.
"""

from __future__ import annotations

from barflow.text import redacted


class BarflowError(Exception):
    """A failure that the user or operator can act on. Exit code 1."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(redacted(message))


class BadInputError(BarflowError):
    """An option, file or setting of the user is wrong. Exit code 2."""

    exit_code = 2


class VendorRefusedError(BarflowError):
    """Twelve Data refused the request: wrong key, wrong plan, or no credits left today. Exit code 3."""

    exit_code = 3


class DayIsSpentError(VendorRefusedError):
    """The day's API credits are used up. The same request works again on the next day (UTC)."""


class NotInPlanError(VendorRefusedError):
    """The plan of the API key does not include what was requested."""


class UnavailableError(BarflowError):
    """A service (MongoDB, PostgreSQL, AWS, the API) did not answer or dropped the connection. Exit code 1."""


class BusyError(BarflowError):
    """Another run holds the lock of this hop. Exit code 1."""


def aws_error_code(error: Exception) -> str:
    """Return the code of a botocore error, for messages.

    AWS's own code where AWS answered (a ClientError, such as ``AccessDenied``), else the name of the error's class
    (such as ``EndpointConnectionError``). Reads attributes only, so that boto3 need not be imported.
    """
    response = getattr(error, "response", None)
    found = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    return found or type(error).__name__
