"""The RDS emulator: a deployed database answers at its address over TLS only, with the passwords of its secrets."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from aws_parts import Aws

from emulators.aws.runtime import Runtime
from emulators.aws.server import AwsEmulator
from local.services import Services
from local.state import State

TEMPLATE = {
    "Resources": {
        "Database": {
            "Type": "AWS::RDS::DBInstance",
            "Properties": {
                **{"Engine": "postgres", "DBInstanceClass": "db.t4g.micro", "AllocatedStorage": "20"},
                **{"DBName": "barflow", "MasterUsername": "owner", "ManageMasterUserPassword": True, "Port": "5432"},
                "MasterUserSecret": {"KmsKeyId": "alias/aws/secretsmanager"},
            },
        }
    },
    "Outputs": {
        "Address": {"Value": {"Fn::GetAtt": ["Database", "Endpoint.Address"]}},
        "Secret": {"Value": {"Fn::GetAtt": ["Database", "MasterUserSecret.SecretArn"]}},
    },
}


@pytest.fixture(scope="module")
def database_aws() -> Iterator[Aws]:
    """An emulator with a PostgreSQL server, which is separate because it gets passwords."""
    with tempfile.TemporaryDirectory(prefix="barflow-tests-", ignore_cleanup_errors=True) as folder:
        state = State.create(Path(folder) / "state", source={"kind": "synthetic"}, as_of=None)
        with Services(state, print, mongo=False) as services:
            runtime = Runtime(Path(folder) / "aws", services.warehouse_dsn)
            with AwsEmulator(runtime) as emulator:
                yield Aws(emulator, runtime)


def deploy(aws: Aws, name: str) -> dict[str, Any]:
    """Deploy a database in a stack, and return the connection settings of its owner."""
    stacks = aws.client("cloudformation")
    stacks.create_stack(StackName=name, TemplateBody=json.dumps(TEMPLATE))
    (stack,) = stacks.describe_stacks(StackName=name)["Stacks"]
    outputs = {item["OutputKey"]: item["OutputValue"] for item in stack["Outputs"]}
    secret = aws.client("secretsmanager").get_secret_value(SecretId=outputs["Secret"])
    user = json.loads(secret["SecretString"])
    address = {"host": outputs["Address"], "port": 5432, "dbname": "barflow"}
    return {**address, "user": user["username"], "password": user["password"], "sslmode": "require"}


@pytest.fixture(scope="module")
def owner(database_aws: Aws) -> dict[str, Any]:
    """The connection settings of a deployed database's owner."""
    return deploy(database_aws, "database")


def test_the_owner_connects_over_tls_and_creates_roles_and_is_no_superuser(owner: dict[str, Any]) -> None:
    with psycopg.connect(**owner) as connection:
        assert connection.pgconn.ssl_in_use
        query = "select rolname, rolcreaterole, rolcreatedb, rolsuper from pg_roles where rolname = current_user"
        assert connection.execute(query.encode()).fetchone() == ("owner", True, True, False)
        connection.execute("create table kept as select generate_series(1, 100000) as n")
        with connection.cursor().copy("copy kept to stdout") as copy:
            assert sum(map(len, copy)) == sum(len(str(n)) + 1 for n in range(1, 100_001))


def test_a_connection_without_tls_is_rejected(owner: dict[str, Any]) -> None:
    with pytest.raises(psycopg.OperationalError, match="no encryption"):
        psycopg.connect(**{**owner, "sslmode": "disable"})


@pytest.mark.parametrize("wrong", [{"password": "guessed"}, {"user": "nobody"}, {"user": "postgres"}])
def test_a_wrong_password_or_user_is_rejected(owner: dict[str, Any], wrong: dict[str, str]) -> None:
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        psycopg.connect(**{**owner, **wrong})


def test_a_second_database_has_the_same_names_and_other_data(database_aws: Aws, owner: dict[str, Any]) -> None:
    second = deploy(database_aws, "another-environment")
    assert second["user"] == owner["user"]
    assert second["host"] != owner["host"]
    for settings in (owner, second):
        with psycopg.connect(**settings) as connection:
            connection.execute("create table only_here (n int)")


def test_a_deleted_database_does_not_answer_and_can_be_deployed_again(database_aws: Aws) -> None:
    first = deploy(database_aws, "again")
    database_aws.client("cloudformation").delete_stack(StackName="again")
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(**first)
    with psycopg.connect(**deploy(database_aws, "again")) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
