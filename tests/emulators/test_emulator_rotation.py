"""The rotation emulator: a user renews its own password, and one that PostgreSQL does not allow to stays as it was."""

from __future__ import annotations

import json
import string
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from aws_parts import Aws

from barflow.secrets import database_dsn
from barflow.warehouse.authorities import LIBPQ_VARIABLE
from barflow.warehouse.migrations import migrate
from barflow.warehouse.users import AIRFLOW, LOADER, READER, SANDBOX, ensure_users, grant_permissions
from emulators.aws.rds import Authority
from emulators.aws.runtime import Runtime
from emulators.aws.server import AwsEmulator
from local.services import Services
from local.state import State

SQL = Path(__file__).parents[2] / "sql"
USERS = (LOADER, READER, SANDBOX)
LOCKED = "locked"  # a user whose rules exclude every punctuation mark


def template() -> str:
    """Return a template with a database and the secret of each user, attached and rotated."""
    database = {
        "Engine": "postgres",
        "DBInstanceClass": "db.t4g.micro",
        "AllocatedStorage": "20",
        "DBName": "barflow",
        "MasterUsername": "owner",
        "ManageMasterUserPassword": True,
        "Port": "5432",
        "MasterUserSecret": {"KmsKeyId": "alias/aws/secretsmanager"},
    }
    from stacks.database import ROTATE_OVER_TLS, UNSAFE

    resources: dict[str, Any] = {"Database": {"Type": "AWS::RDS::DBInstance", "Properties": database}}
    for number, user in enumerate((*USERS, AIRFLOW, LOCKED)):
        value = json.dumps({"username": user, "dbname": "barflow", "password": f"first-{user}", **ROTATE_OVER_TLS})
        secret = {"Name": user, "SecretString": value}
        attached = {"SecretId": {"Ref": f"Secret{number}"}, "TargetId": {"Ref": "Database"}}
        rotation = {"RotationType": "PostgreSQLSingleUser", "RotationLambdaName": f"rotate-{user}"}
        rotation["ExcludeCharacters"] = string.punctuation if user == LOCKED else UNSAFE
        schedule = {"SecretId": {"Ref": f"Attached{number}"}, "HostedRotationLambda": rotation}
        kind = "AWS::SecretsManager"
        resources[f"Secret{number}"] = {"Type": f"{kind}::Secret", "Properties": secret}
        resources[f"Attached{number}"] = {"Type": f"{kind}::SecretTargetAttachment", "Properties": attached}
        if user != AIRFLOW:
            resources[f"Rotation{number}"] = {"Type": f"{kind}::RotationSchedule", "Properties": schedule}
    outputs = {"Owner": {"Value": {"Fn::GetAtt": ["Database", "MasterUserSecret.SecretArn"]}}}
    return json.dumps({"Resources": resources, "Outputs": outputs})


@pytest.fixture(scope="module")
def deployed() -> Iterator[tuple[Aws, str]]:
    """Yield the emulator and the owner's DSN; the warehouse is migrated and has its users."""
    with tempfile.TemporaryDirectory(prefix="barflow-tests-", ignore_cleanup_errors=True) as folder:
        state = State.create(Path(folder) / "state", source={"kind": "synthetic"}, as_of=None)
        with Services(state, print, mongo=False) as services:
            runtime = Runtime(Path(folder) / "aws", services.superuser_dsn)
            with AwsEmulator(runtime) as emulator, pytest.MonkeyPatch.context() as patched:
                patched.setenv(LIBPQ_VARIABLE, str(runtime.authorities))
                aws = Aws(emulator, runtime)
                aws.client("cloudformation").create_stack(StackName="database", TemplateBody=template())
                (stack,) = aws.client("cloudformation").describe_stacks(StackName="database")["Stacks"]
                owner = secret(aws, stack["Outputs"][0]["OutputValue"])
                dsn = dsn_of(secret(aws, READER) | {"username": owner["username"], "password": owner["password"]})
                ensure_users(dsn, {user: secret(aws, user)["password"] for user in (*USERS, AIRFLOW)})
                migrate(dsn, SQL)
                grant_permissions(dsn)
                yield aws, dsn


def secret(aws: Aws, name: str) -> dict[str, Any]:
    """Return the current value of a secret."""
    found: dict[str, Any] = json.loads(aws.client("secretsmanager").get_secret_value(SecretId=name)["SecretString"])
    return found


def dsn_of(user: dict[str, Any]) -> str:
    """Return the DSN of a secret's user."""
    return database_dsn(user | {"dbname": "barflow"})


def connects(user: dict[str, Any]) -> bool:
    """Return whether PostgreSQL accepts the password."""
    try:
        psycopg.connect(dsn_of(user)).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.mark.parametrize("user", USERS)
def test_every_rotated_user_of_the_warehouse_renews_its_own_password(deployed: tuple[Aws, str], user: str) -> None:
    aws, _ = deployed
    before = secret(aws, user)
    version = aws.client("secretsmanager").rotate_secret(SecretId=user)["VersionId"]
    found = aws.client("secretsmanager").get_secret_value(SecretId=user)
    after = json.loads(found["SecretString"])
    assert found["VersionId"] == version
    assert after == before | {"password": after["password"]}
    assert connects(after)
    assert not connects(before)


def test_a_user_whose_sessions_are_read_only_keeps_its_password_and_the_log_has_the_reason(
    deployed: tuple[Aws, str],
) -> None:
    aws, owner = deployed
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute(f"alter role {READER} set default_transaction_read_only = on".encode())
    before = secret(aws, READER)
    version = aws.client("secretsmanager").rotate_secret(SecretId=READER)["VersionId"]
    assert secret(aws, READER) == before
    assert connects(before)
    pending = aws.client("secretsmanager").get_secret_value(SecretId=READER, VersionId=version)
    assert pending["VersionStages"] == ["AWSPENDING"]
    logs = aws.client("logs").filter_log_events(logGroupName=f"/aws/lambda/rotate-{READER}")["events"]
    assert "cannot execute ALTER ROLE in a read-only transaction" in logs[-1]["message"]
    grant_permissions(owner)
    aws.client("secretsmanager").rotate_secret(SecretId=READER)
    assert secret(aws, READER) != before, "the next deployment repairs it"


def test_a_server_of_an_unknown_authority_gets_no_password_in_plain_text_either(deployed: tuple[Aws, str]) -> None:
    aws, before = deployed[0], secret(deployed[0], SANDBOX)
    known = aws.runtime.authorities.read_bytes()
    aws.runtime.authorities.write_bytes(Authority("unknown").certificate)
    try:
        aws.client("secretsmanager").rotate_secret(SecretId=SANDBOX)
    finally:
        aws.runtime.authorities.write_bytes(known)
    assert secret(aws, SANDBOX) == before
    logs = aws.client("logs").filter_log_events(logGroupName=f"/aws/lambda/rotate-{SANDBOX}")["events"]
    assert "certificate verify failed" in logs[-1]["message"]


def test_rules_that_no_password_meets_leave_the_old_one(deployed: tuple[Aws, str]) -> None:
    before = secret(deployed[0], LOCKED)
    deployed[0].client("secretsmanager").rotate_secret(SecretId=LOCKED)
    assert secret(deployed[0], LOCKED) == before
    logs = deployed[0].client("logs").filter_log_events(logGroupName=f"/aws/lambda/rotate-{LOCKED}")["events"]
    assert "[ERROR]" in logs[-1]["message"]


def test_a_secret_without_a_schedule_is_not_rotated(deployed: tuple[Aws, str]) -> None:
    store = deployed[0].client("secretsmanager")
    with pytest.raises(store.exceptions.InvalidRequestException, match="No Lambda rotation function"):
        store.rotate_secret(SecretId=AIRFLOW)


def test_the_attachment_writes_the_name_of_the_instances_database_to_every_secret(deployed: tuple[Aws, str]) -> None:
    assert secret(deployed[0], AIRFLOW)["dbname"] == "barflow"
