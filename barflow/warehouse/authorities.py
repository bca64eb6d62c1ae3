"""The certificates of Amazon RDS's authorities. With them, a client verifies that it talks to the warehouse.

tools/refresh_rds_authorities.py writes the bundle; config/aws/rds_authorities.json has its source, date and hash.
"""

from __future__ import annotations

import atexit
import os
import ssl
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.resources import as_file, files
from typing import Any

from psycopg.conninfo import conninfo_to_dict

VERIFYING = ("verify-ca", "verify-full")
# What libpq itself trusts for a DSN without `sslrootcert`.
LIBPQ_VARIABLE, LIBPQ_FILE = "PGSSLROOTCERT", "~/.postgresql/root.crt"


@dataclass(frozen=True)
class Authority:
    """A certificate of RDS: its common name and the end of its validity (UTC)."""

    name: str
    valid_until: datetime


@cache
def bundle() -> str:
    """Return the path of the bundle. From a zip file, as on Glue, it is a copy that goes with the process."""
    opened = ExitStack()
    atexit.register(opened.close)
    return str(opened.enter_context(as_file(files("barflow.warehouse") / "rds_authorities.pem")))


def trusted(dsn: str) -> dict[str, str]:
    """Return the driver's option that trusts RDS, for a DSN that verifies the server and names no authority.

    libpq's variable and file win over the bundle, as they do without Barflow.
    """
    given = conninfo_to_dict(dsn)
    # Not pathlib: it raises for a user without a home folder, and for one that may not enter it.
    kept = os.path.exists(os.path.expanduser(LIBPQ_FILE))  # noqa: PTH110, PTH111
    named = "sslrootcert" in given or os.environ.get(LIBPQ_VARIABLE) or kept
    return {} if named or given.get("sslmode") not in VERIFYING else {"sslrootcert": bundle()}


def authorities() -> list[Authority]:
    """Return the authorities of the bundle."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(bundle())
    certificates: list[Any] = context.get_ca_certs()
    return [
        Authority(
            next(value for part in item["subject"] for key, value in part if key == "commonName"),
            datetime.fromtimestamp(ssl.cert_time_to_seconds(str(item["notAfter"])), UTC),
        )
        for item in certificates
    ]
