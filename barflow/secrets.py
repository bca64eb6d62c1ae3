"""Secret settings: the value itself, or a reference into AWS Secrets Manager that is resolved when it is used."""

from __future__ import annotations

import json

from pydantic import SecretStr

from barflow.errors import BadInputError, UnavailableError

SCHEME = "secretsmanager:"


def resolve(setting: SecretStr | None, name: str) -> str:
    """The secret of a setting. ``secretsmanager:NAME`` fetches that secret, ``…NAME#KEY`` one key of its JSON.

    Raises BadInputError when the setting is missing, UnavailableError when the secret cannot be read; neither
    shows a value.
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
        return str(json.loads(body)[key]) if key else body
    except (BotoCoreError, ClientError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
        raise UnavailableError(
            f"{name}: the secret {secret_id} cannot be read ({code}). Check its name and the role."
        ) from None
    except (ValueError, KeyError):
        raise BadInputError(
            f"{name}: the secret {secret_id} has no JSON key {key!r}. Put it in as the runbook says."
        ) from None
