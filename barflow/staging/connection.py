"""How is MongoDB reached, and what does it say when it fails? One line a person can act on, never with the URI."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from typing import Any

import pymongo
from bson.codec_options import CodecOptions
from pymongo.database import Database
from pymongo.errors import BulkWriteError, ConfigurationError, DuplicateKeyError, PyMongoError

from barflow.errors import BadInputError, BarflowError, UnavailableError

Document = dict[str, Any]
DUPLICATE_KEY = 11000
# How long a server may take to be found.
ANSWER_MS = 5_000
# Where the driver's message turns into its internals.
TAIL = re.compile(r", Timeout:| \(configured timeouts|, full error:|\n")
UTC_AWARE: CodecOptions[Document] = CodecOptions(tz_aware=True, tzinfo=UTC)


@contextmanager
def mongo_errors(what: str) -> Iterator[None]:
    """Turns a driver's error into one line that never shows the URI. DuplicateKeyError passes: it is an answer."""
    try:
        yield
    except DuplicateKeyError:
        raise
    except BulkWriteError as error:
        problems = [*error.details.get("writeErrors", []), *error.details.get("writeConcernErrors", [])]
        first = str(problems[0].get("errmsg"))[:200] if problems else "no reason given"
        raise BarflowError(f"MongoDB refused to {what}: {first}. What was stored before is unchanged.") from None
    except PyMongoError as error:
        reason = TAIL.split(str(error))[0][:200]
        raise UnavailableError(
            f"MongoDB could not {what}: {reason}. What was stored before is unchanged. "
            "Check BARFLOW_MONGODB_URI and that the server answers, then run the same command again."
        ) from None


def connect(uri: str, database: str = "barflow", tz_aware: bool = True) -> Database[Document]:
    """Opens the database; its dates come aware in UTC, or naive where speed counts.

    Raises BadInputError for a malformed URI, UnavailableError when nobody answers.
    """
    try:
        if not uri.startswith(("mongodb://", "mongodb+srv://")):
            raise ValueError("the driver would take it for a host's name, and show it")
        client: pymongo.MongoClient[Document] = pymongo.MongoClient(
            uri,
            appname="barflow",
            serverSelectionTimeoutMS=ANSWER_MS,
            connectTimeoutMS=ANSWER_MS,
            socketTimeoutMS=60_000,
            retryWrites=True,
        )
        opened = client.get_database(database, codec_options=UTC_AWARE if tz_aware else None)
    except (ConfigurationError, ValueError):
        raise BadInputError(
            "BARFLOW_MONGODB_URI is not a MongoDB URI, or its host name is unknown. "
            "It looks like mongodb://USER:PASSWORD@HOST:27017/ or mongodb+srv://USER:PASSWORD@HOST/"
        ) from None
    with mongo_errors("be reached"):
        client.admin.command("ping")
    return opened
