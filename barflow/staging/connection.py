"""The connection to MongoDB, and its errors as one line that names the next step and never shows the URI."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pymongo
from bson.codec_options import CodecOptions
from pymongo.database import Database
from pymongo.errors import BulkWriteError, ConfigurationError, DuplicateKeyError, PyMongoError

from barflow.errors import BadInputError, BarflowError, UnavailableError
from barflow.text import redacted

Document = dict[str, Any]
DUPLICATE_KEY = 11000
# What barflow chooses where the URI does not. pymongo retries writes unless the URI says retryWrites=false.
DRIVER_DEFAULTS = {
    "appname": "barflow",
    "serverSelectionTimeoutMS": 5_000,
    "connectTimeoutMS": 5_000,
    "socketTimeoutMS": 60_000,
}
# Where the driver's message turns to its internals.
DRIVER_DETAILS = re.compile(r", Timeout:| \(configured timeouts|, full error:|\n")
LONGEST_REASON = 200
UTC_AWARE: CodecOptions[Document] = CodecOptions(tz_aware=True, tzinfo=UTC)


@contextmanager
def mongo_errors(action: str) -> Iterator[None]:
    """Turn a driver's error into one line without the URI. ``action`` completes "MongoDB could not …".

    Raises BarflowError where MongoDB rejected a write, and UnavailableError for every other driver error.
    DuplicateKeyError passes through: callers use it to detect that another run was first.
    """
    try:
        yield
    except DuplicateKeyError:
        raise
    except BulkWriteError as error:
        problems = [*error.details.get("writeErrors", []), *error.details.get("writeConcernErrors", [])]
        reason = redacted(str(problems[0].get("errmsg")))[:LONGEST_REASON] if problems else "no reason given"
        raise BarflowError(
            f"MongoDB could not {action}, since it rejected a write: {reason}. What was stored before is unchanged. "
            "Run the same command again."
        ) from None
    except PyMongoError as error:
        reason = DRIVER_DETAILS.split(redacted(str(error)))[0][:LONGEST_REASON]
        raise UnavailableError(
            f"MongoDB could not {action}: {reason}. What was stored before is unchanged. "
            "Check BARFLOW_MONGODB_URI and that the server answers, then run the same command again."
        ) from None


def connect(uri: str, database: str = "barflow", tz_aware: bool = True) -> Database[Document]:
    """Open a database. Its dates are read as aware UTC, or as naive UTC where ``tz_aware`` is False, which is faster.

    Raises BadInputError for a malformed URI, and UnavailableError when no server answers.
    """
    try:
        if not uri.startswith(("mongodb://", "mongodb+srv://")):
            raise ValueError("the driver would take the text for a host name and show it")
        given = {name.lower() for name, _ in parse_qsl(urlsplit(uri.replace("#", "%23")).query, keep_blank_values=True)}
        defaults: dict[str, Any] = {key: item for key, item in DRIVER_DEFAULTS.items() if key.lower() not in given}
        client: pymongo.MongoClient[Document] = pymongo.MongoClient(uri, **defaults)
        opened = client.get_database(database, codec_options=UTC_AWARE if tz_aware else None)
    except (ConfigurationError, ValueError):
        raise BadInputError(
            "BARFLOW_MONGODB_URI is not a MongoDB URI, or its host name is unknown. "
            "It looks like mongodb://USER:PASSWORD@HOST:27017/ or mongodb+srv://USER:PASSWORD@HOST/, "
            "with @ / : % ? # and spaces of the password percent-encoded: @ is %40"
        ) from None
    with mongo_errors("be reached"):
        client.admin.command("ping")
    return opened
