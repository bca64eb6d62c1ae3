"""Reads of several stores of which each may fail: what fails is named, and the rest goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa

from barflow.errors import BarflowError, UnavailableError
from barflow.text import redacted

Read = TypeVar("Read")
# A store that does not answer, a file that is damaged, a document that another version wrote.
FAILURES = (BarflowError, OSError, pa.ArrowException, LookupError, TypeError, ValueError)


class Links:
    """The lines about what is missing. A store that did not answer once is not asked again: that would take long."""

    def __init__(self) -> None:
        self.missing: list[str] = []
        self.down: set[str] = set()

    def read(self, store: str, what: str, read: Callable[[], Read], otherwise: Read) -> Read:
        """Return what ``read`` returns. Where it fails, name ``what`` as missing and return ``otherwise``."""
        if store in self.down:
            return otherwise
        try:
            return read()
        except (UnavailableError, OSError) as error:
            self.down.add(store)
            self.missing.append(f"{store} cannot be read, so what it holds is not shown: {_reason(error)}")
        except FAILURES as error:
            self.missing.append(f"{store}: {what} cannot be read: {_reason(error)}")
        return otherwise


def _reason(error: Exception) -> str:
    return redacted(" ".join(str(error).split())) or type(error).__name__
