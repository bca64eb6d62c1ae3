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
def owner() -> Iterator[dict[str, Any]]:
    """The connection settings of a deployed database's owner; the server is separate because it gets passwords."""
    with tempfile.TemporaryDirectory(prefix="barflow-tests-", ignore_cleanup_errors=True) as folder:
        state = State.create(Path(folder) / "state", source={"kind": "synthetic"}, as_of=None)
        with Services(state, print, mongo=False) as services:
            runtime = Runtime(Path(folder) / "aws", services.warehouse_dsn)
            with AwsEmulator(runtime) as emulator:
                aws = Aws(emulator, runtime)
                stacks = aws.client("cloudformation")
                stacks.create_stack(StackName="database", TemplateBody=json.dumps(TEMPLATE))
                (stack,) = stacks.describe_stacks(StackName="database")["Stacks"]
                outputs = {item["OutputKey"]: item["OutputValue"] for item in stack["Outputs"]}
                secret = aws.client("secretsmanager").get_secret_value(SecretId=outputs["Secret"])
                user = json.loads(secret["SecretString"])
                address = {"host": outputs["Address"], "port": 5432, "dbname": "barflow"}
                yield {**address, "user": user["username"], "password": user["password"], "sslmode": "require"}


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
