"""Does a deployed database answer at its address as RDS does: by TLS alone, and with the passwords of its secrets?"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from aws_parts import Aws

from emulators.aws.machine import Machine
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
    """How the owner of a deployed database connects. The server is one of these tests' own: it gets passwords."""
    with tempfile.TemporaryDirectory(prefix="barflow-tests-", ignore_cleanup_errors=True) as folder:
        state = State.create(Path(folder) / "state", source={"kind": "synthetic"}, as_of=None)
        with Services(state, print, mongo=False) as services:
            machine = Machine(Path(folder) / "aws", services.warehouse_dsn)
            with AwsEmulator(machine) as emulator:
                aws = Aws(emulator, machine)
                stacks = aws.client("cloudformation")
                stacks.create_stack(StackName="database", TemplateBody=json.dumps(TEMPLATE))
                (stack,) = stacks.describe_stacks(StackName="database")["Stacks"]
                outputs = {item["OutputKey"]: item["OutputValue"] for item in stack["Outputs"]}
                secret = aws.client("secretsmanager").get_secret_value(SecretId=outputs["Secret"])
                user = json.loads(secret["SecretString"])
                where = {"host": outputs["Address"], "port": 5432, "dbname": "barflow"}
                yield {**where, "user": user["username"], "password": user["password"], "sslmode": "require"}


def test_the_owner_connects_by_tls_and_may_make_roles_and_is_no_superuser(owner: dict[str, Any]) -> None:
    with psycopg.connect(**owner) as connection:
        assert connection.pgconn.ssl_in_use
        rights = "select rolname, rolcreaterole, rolcreatedb, rolsuper from pg_roles where rolname = current_user"
        assert connection.execute(rights.encode()).fetchone() == ("owner", True, True, False)
        connection.execute("create table kept as select generate_series(1, 100000) as n")
        with connection.cursor().copy("copy kept to stdout") as copy:
            assert sum(map(len, copy)) == sum(len(str(n)) + 1 for n in range(1, 100_001))


def test_without_tls_nobody_is_let_in(owner: dict[str, Any]) -> None:
    with pytest.raises(psycopg.OperationalError, match="no encryption"):
        psycopg.connect(**{**owner, "sslmode": "disable"})


@pytest.mark.parametrize("wrong", [{"password": "guessed"}, {"user": "nobody"}, {"user": "postgres"}])
def test_who_has_not_the_password_is_not_let_in(owner: dict[str, Any], wrong: dict[str, str]) -> None:
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        psycopg.connect(**{**owner, **wrong})
