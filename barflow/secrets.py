"""Secret settings: the value itself, or a reference into AWS Secrets Manager that is resolved when it is used."""

from __future__ import annotations

import json
from urllib.parse import quote

from pydantic import SecretStr

from barflow.errors import BadInputError, UnavailableError

SCHEME = "secretsmanager:"
DSN = "dsn"


def resolve(setting: SecretStr | None, name: str) -> str:
    """The secret of a setting. ``secretsmanager:NAME`` fetches that secret, ``…NAME#KEY`` one key of its JSON.

    ``…NAME#dsn`` is a DSN made of the keys that RDS keeps of a user: username, password, host, port, dbname.
    Raises BadInputError when the setting is missing or its secret has another form, UnavailableError when the
    secret cannot be read; neither shows a value.
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
        return _part(body, key) if key else body.strip()
    except (BotoCoreError, ClientError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
        raise UnavailableError(
            f"{name}: the secret {secret_id} cannot be read ({code}). Check its name and the role."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        missing = f"has no JSON key {error}" if isinstance(error, KeyError) else "is not a JSON object"
        raise BadInputError(f"{name}: the secret {secret_id} {missing}. Put it in as the runbook says.") from None


def reference(text: str) -> str:
    """The text, which must be a reference: as an argument, a secret would be seen by others. Raises BadInputError."""
    if not text.startswith(SCHEME):
        raise BadInputError(f"a secret was given as an argument: give a reference, such as {SCHEME}NAME#dsn")
    return text


def _part(body: str, key: str) -> str:
    found = json.loads(body)
    if key != DSN:
        return str(found[key])
    user, password, name = (quote(found[part], safe="") for part in ("username", "password", "dbname"))
    return f"postgresql://{user}:{password}@{found['host']}:{found['port']}/{name}?sslmode=require"
