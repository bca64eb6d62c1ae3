"""The errors a user can meet, and the exit code of each.

Every message says what failed, for what, what was kept and what to do next (guarantee G8).
No message may hold a secret.
"""

from __future__ import annotations


class BarflowError(Exception):
    """Something failed that the user or operator can act on. Exit code 1."""

    exit_code = 1


class BadInputError(BarflowError):
    """The user's input is at fault: an option, a file, a setting. Exit code 2."""

    exit_code = 2


class VendorRefusedError(BarflowError):
    """Twelve Data refused: wrong key, plan, credits spent for the day. Exit code 3."""

    exit_code = 3


class DayIsSpentError(VendorRefusedError):
    """The API credits of the day are used up: the same works again the next day (UTC)."""


class UnavailableError(BarflowError):
    """A service (MongoDB, PostgreSQL, the API) could not be reached or broke off. Exit code 1."""


class BusyError(BarflowError):
    """Another run holds the lock of this hop. Exit code 1."""
