"""The result of a check of an account or a deployment, and the permission that a denied call lacks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from barflow.errors import aws_error_code

DENIED_CODES = {"AccessDenied", "AccessDeniedException", "AuthorizationError", "UnauthorizedOperation"}
# AWS names the missing permission in the message of most services.
MISSING_PERMISSION = re.compile(r"not authorized to perform:? ([\w-]+:\w+)")


@dataclass(frozen=True)
class Check:
    """The result of one check. A check that is ``ok`` and has a ``fix`` is a note: the fix can wait.

    One that is not ``checked`` is ``ok``, and ``found`` says why it was left out.
    """

    name: str
    ok: bool
    found: str
    fix: str = ""
    checked: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return the check as a JSON object."""
        return {"name": self.name, "ok": self.ok, "found": self.found, "fix": self.fix}


def missing_permission(error: Exception) -> str | None:
    """Return the permission that a denied call lacks, or None for an error of another kind."""
    if aws_error_code(error) not in DENIED_CODES:
        return None
    if named := MISSING_PERMISSION.search(str(error)):
        return named[1]
    return str(getattr(error, "operation_name", "the call"))
