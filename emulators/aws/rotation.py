"""Rotation of a database password: the four steps of AWS's function for a single user, on the deployed database.

The function creates a password, sets it with the user's own session, tests it, and makes it the current one. If a step
fails, the reason is in the log group of the function. If PostgreSQL does not accept the new password, the old one stays
valid.

https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotate-secrets_lambda-functions.html
"""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import psycopg
from moto.logs.models import logs_backends
from moto.secretsmanager.exceptions import InvalidRequestException
from moto.secretsmanager.models import SecretsManagerBackend, secretsmanager_backends
from psycopg import sql

from emulators.aws import runtime
from emulators.aws.patches import Function, wrap
from emulators.aws.resource_types import TYPES, RecordedResource

SINGLE_USER = "PostgreSQLSingleUser"
CURRENT, PENDING = "AWSCURRENT", "AWSPENDING"


class RotationSchedule(RecordedResource):
    """The schedule of a secret's rotation, and the settings of the function that AWS deploys for it."""

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **kwargs: Any
    ) -> RotationSchedule:
        """Turn rotation on. Raise ValueError for a type of rotation that is not emulated."""
        properties = cloudformation_json["Properties"]
        function = properties["HostedRotationLambda"]
        if function["RotationType"] != SINGLE_USER:
            raise ValueError(f"the rotation {function['RotationType']} is not emulated: only {SINGLE_USER} is")
        arn = properties["SecretId"]
        secret = secretsmanager_backends[account_id][region_name].secrets[arn]
        secret.rotation_enabled, secret.hosted_rotation = True, function
        secret.rotation_requested = True  # moto describes a rotation only with this
        name = function["RotationLambdaName"]
        secret.rotation_lambda_arn = f"arn:aws:lambda:{region_name}:{account_id}:function:{name}"
        return cls(arn, arn)


TYPES["AWS::SecretsManager::RotationSchedule"] = RotationSchedule


@wrap(SecretsManagerBackend, "rotate_secret")
def _rotate(
    _original: Function, backend: SecretsManagerBackend, secret_id: str, client_request_token: str, **_: Any
) -> str:
    """Run the steps. Answer with the version that becomes current if all steps succeed, as AWS does before they end."""
    secret: Any = backend.secrets[secret_id]
    function = getattr(secret, "hosted_rotation", None)
    if function is None:
        raise InvalidRequestException("No Lambda rotation function ARN is associated with this secret.")
    version = client_request_token
    try:
        _run_steps(backend, secret_id, version, function.get("ExcludeCharacters", ""))
    except (psycopg.Error, IndexError) as error:  # IndexError: a required kind of character is excluded entirely
        _log(backend, function["RotationLambdaName"], str(error).strip())
    return json.dumps({"ARN": secret.arn, "Name": secret.name, "VersionId": version})


def _run_steps(backend: Any, secret_id: str, version: str, excluded: str) -> None:
    """Create a password, set it, test it, and make it the current one.

    Raise IndexError if no password meets the rules, psycopg.Error if PostgreSQL does not accept a step.
    """
    current = json.loads(backend.get_secret_value(secret_id, "", CURRENT)["SecretString"])
    made = json.loads(backend.get_random_password(32, excluded, False, False, False, False, False, True))
    pending = current | {"password": made["RandomPassword"]}
    backend.put_secret_value(secret_id, json.dumps(pending), None, version, [PENDING])
    with _connect(current) as connection:
        user, password = sql.Identifier(current["username"]), sql.Literal(pending["password"])
        connection.execute(sql.SQL("alter user {} with password {}").format(user, password))
    with _connect(pending) as connection:
        connection.execute("select now()")
    secret = backend.secrets[secret_id]
    before = next(name for name, item in secret.versions.items() if CURRENT in item["version_stages"])
    backend.update_secret_version_stage(secret_id, CURRENT, before, version)
    secret.set_default_version_id(version)  # moto does not change it


def _connect(user: dict[str, Any]) -> psycopg.Connection[Any]:
    """Connect as AWS's function does: verify the server. Without ``ssl`` in the secret, try without TLS after that.

    https://github.com/aws-samples/aws-secrets-manager-rotation-lambdas (SecretsManagerRDSPostgreSQLRotationSingleUser)
    """
    names = {"host": "host", "port": "port", "dbname": "dbname", "user": "username", "password": "password"}
    login = {name: user[key] for name, key in names.items()}
    try:
        authorities = str(runtime.current().authorities)
        return psycopg.connect(**login, sslmode="verify-full", sslrootcert=authorities)
    except psycopg.OperationalError:
        if user.get("ssl") is True:
            raise
        return psycopg.connect(**login, sslmode="disable")


def _log(backend: Any, function: str, message: str) -> None:
    logs, group = logs_backends[backend.account_id][backend.region_name], f"/aws/lambda/{function}"
    logs.ensure_log_group(group)
    stream = uuid.uuid4().hex
    logs.create_log_stream(group, stream)
    logs.put_log_events(group, stream, [{"timestamp": int(time.time() * 1000), "message": f"[ERROR] {message}"}])
