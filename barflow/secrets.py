"""Secret settings: a value, or a reference to AWS Secrets Manager that is resolved on use."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from barflow.errors import BadInputError, UnavailableError, aws_error_code
from barflow.text import clean

if TYPE_CHECKING:
    from pydantic import SecretStr  # the migration function's bundle has no pydantic

SCHEME = "secretsmanager:"
DSN = "dsn"


def resolve(setting: SecretStr | None, name: str) -> str:
    """Return the secret value of the setting ``name``.

    ``secretsmanager:NAME`` reads that secret, ``secretsmanager:NAME#KEY`` one key of its JSON, and
    ``secretsmanager:NAME#dsn`` builds a DSN from the keys that RDS writes for a user: username, password, host, port
    and dbname. ``secretsmanager:NAME#dsn/DATABASE`` names another database. Any other text is the value itself.

    Raises BadInputError when the setting is missing or its secret has another form, UnavailableError when the secret
    cannot be read. Neither message contains a value.
    """
    if setting is None or not setting.get_secret_value():
        raise BadInputError(f"{name} is not set. Export it, or pass --state to use an embedded service.")
    value = setting.get_secret_value()
    if not value.startswith(SCHEME):
        return value
    secret_id, _, key = value.removeprefix(SCHEME).partition("#")
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        body: str = boto3.client("secretsmanager").get_secret_value(SecretId=secret_id)["SecretString"]
        text = _part(body, key) if key else body
    except (BotoCoreError, ClientError) as error:
        raise UnavailableError(
            f"{name}: the secret {secret_id} cannot be read ({aws_error_code(error)}). "
            "Check its name and the role's permissions."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        missing = f"has no JSON key {error}" if isinstance(error, KeyError) else "is not a JSON object"
        raise BadInputError(
            f"{name}: the secret {secret_id} {missing}. Store it again as the runbook describes."
        ) from None
    try:
        return clean(text)
    except ValueError as error:
        raise BadInputError(f"{name}: the value in the secret {secret_id} {error}. Store it again.") from None


def reference(text: str) -> str:
    """Return the text if it is a reference to a secret, else raise BadInputError.

    Program arguments take references only: other users of a host can read an argument.
    """
    if not text.startswith(SCHEME):
        raise BadInputError(f"a secret was given as an argument: give a reference, such as {SCHEME}NAME#dsn")
    return text


def _part(body: str, key: str) -> str:
    """Return one key of a secret's JSON, or the DSN that its keys describe."""
    found = json.loads(body)
    kind, _, database = key.partition("/")
    if not isinstance(found, dict):
        raise TypeError(key)
    if kind != DSN:
        return str(found[key])
    return database_dsn(found | ({"dbname": database} if database else {}))


def database_dsn(user: Mapping[str, Any]) -> str:
    """Return the DSN of a database user, from the keys that RDS writes to its secret. Raise KeyError if one is missing.

    A client with this DSN connects only to a server that proves by its certificate that it is the host. No other code
    builds a DSN of a deployed database, and no part of the secret can change this.
    """
    name, password, host, port, database = (
        quote(clean(str(user[key])), safe="") for key in ("username", "password", "host", "port", "dbname")
    )
    return f"postgresql://{name}:{password}@{host}:{port}/{database}?sslmode=verify-full"
