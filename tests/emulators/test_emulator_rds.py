"""The RDS emulator: a deployed database answers at its address over TLS only, with the passwords of its secrets.

A crawler reads it with a driver that knows SCRAM, and fails without.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from aws_parts import CODE, Aws, allow, wait_for, zipped

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


@dataclass(frozen=True)
class Database:
    """A deployed database: the emulator, the owner's secret and the owner's connection settings."""

    aws: Aws
    secret: str
    owner: dict[str, Any]


@pytest.fixture(scope="module")
def database_aws() -> Iterator[Aws]:
    """An emulator with a PostgreSQL server, which is separate because it gets passwords."""
    with tempfile.TemporaryDirectory(prefix="barflow-tests-", ignore_cleanup_errors=True) as folder:
        state = State.create(Path(folder) / "state", source={"kind": "synthetic"}, as_of=None)
        with Services(state, print, mongo=False) as services:
            runtime = Runtime(Path(folder) / "aws", services.superuser_dsn)
            with AwsEmulator(runtime) as emulator:
                yield Aws(emulator, runtime)


def deploy(aws: Aws, name: str) -> Database:
    """Deploy a database in a stack."""
    stacks = aws.client("cloudformation")
    stacks.create_stack(StackName=name, TemplateBody=json.dumps(TEMPLATE))
    (stack,) = stacks.describe_stacks(StackName=name)["Stacks"]
    outputs = {item["OutputKey"]: item["OutputValue"] for item in stack["Outputs"]}
    secret = aws.client("secretsmanager").get_secret_value(SecretId=outputs["Secret"])
    user = json.loads(secret["SecretString"])
    address = {"host": outputs["Address"], "port": 5432, "dbname": "barflow"}
    trusted = {"sslmode": "verify-full", "sslrootcert": str(aws.runtime.authorities)}
    owner = {**address, "user": user["username"], "password": user["password"], **trusted}
    return Database(aws, outputs["Secret"], owner)


@pytest.fixture(scope="module")
def database(database_aws: Aws) -> Database:
    """A deployed database."""
    return deploy(database_aws, "database")


@pytest.fixture(scope="module")
def owner(database: Database) -> dict[str, Any]:
    """The connection settings of its owner."""
    return database.owner


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


@pytest.fixture(scope="module")
def crawled(database: Database) -> Database:
    """The database with a schema to crawl, a bucket of code and the roles of the crawlers."""
    with psycopg.connect(**database.owner) as connection:
        connection.execute("create schema market; create table market.bar_1d (symbol text)")
    aws = database.aws
    aws.client("s3").create_bucket(Bucket=CODE)
    aws.create_role("crawls", allow("*"))
    aws.create_role(
        "creates-no-job", allow(["s3:*", "kms:*", "secretsmanager:*", "glue:Get*", "glue:*Table*", "iam:PassRole"])
    )
    return database


def jar(version: str) -> bytes:
    """Return a file like PostgreSQL's JDBC driver of a version."""
    return zipped({"META-INF/MANIFEST.MF": f"Implementation-Version: {version}\n", "org/postgresql/Driver.class": ""})


def crawl(database: Database, name: str, driver: str | None, role: str = "crawls") -> tuple[str, str, set[str]]:
    """Crawl the schema with a driver. Return the status, the error, and the new tables."""
    glue = database.aws.client("glue")
    url = "jdbc:postgresql://{host}:{port}/{dbname}".format(**database.owner)
    properties = {"JDBC_CONNECTION_URL": url, "JDBC_ENFORCE_SSL": "true", "SECRET_ID": database.secret}
    if driver:
        properties |= {"JDBC_DRIVER_JAR_URI": driver, "JDBC_DRIVER_CLASS_NAME": "org.postgresql.Driver"}
    glue.create_connection(ConnectionInput={"Name": name, "ConnectionType": "JDBC", "ConnectionProperties": properties})
    glue.create_database(DatabaseInput={"Name": name})
    targets = {"JdbcTargets": [{"ConnectionName": name, "Path": "barflow/market/%"}]}
    glue.create_crawler(Name=name, Role=role, DatabaseName=name, Targets=targets, TablePrefix="w_")
    glue.start_crawler(Name=name)
    found = wait_for(lambda: glue.get_crawler(Name=name)["Crawler"], lambda item: item["State"] == "READY")["LastCrawl"]
    tables = {item["Name"] for item in glue.get_tables(DatabaseName=name)["TableList"]}
    return found["Status"], found.get("ErrorMessage", ""), tables


def test_a_crawler_with_a_current_driver_adds_the_tables(crawled: Database) -> None:
    driver = crawled.aws.put("drivers/postgresql-42.7.13.jar", jar("42.7.13"))
    assert crawl(crawled, "current", driver) == ("SUCCEEDED", "", {"w_barflow_market_bar_1d"})


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("none", None, "The authentication type 10 is not supported"),
        ("old", jar("42.0.0"), "The authentication type 10 is not supported"),
        ("text", b"not a jar", "ClassNotFoundException: org.postgresql.Driver"),
        ("other", zipped({"META-INF/MANIFEST.MF": "x"}), "ClassNotFoundException: org.postgresql.Driver"),
        ("missing", b"", "s3://code/drivers/missing.jar does not exist"),
    ],
)
def test_a_crawler_without_a_driver_that_knows_scram_fails(
    crawled: Database, name: str, content: bytes | None, reason: str
) -> None:
    driver = None if content is None else f"s3://{CODE}/drivers/{name}.jar"
    if content:
        crawled.aws.put(f"drivers/{name}.jar", content)
    status, error, tables = crawl(crawled, name, driver)
    assert (status, tables) == ("FAILED", set())
    assert reason in error


def test_a_crawler_with_its_own_driver_needs_the_permission_to_create_a_job(crawled: Database) -> None:
    driver = crawled.aws.put("drivers/postgresql-42.7.13.jar", jar("42.7.13"))
    status, error, _ = crawl(crawled, "no-job", driver, role="creates-no-job")
    assert status == "FAILED"
    assert "not authorized to perform: glue:CreateJob" in error


def test_a_second_database_has_the_same_names_and_other_data(database_aws: Aws, owner: dict[str, Any]) -> None:
    second = deploy(database_aws, "another-environment").owner
    assert second["user"] == owner["user"]
    assert second["host"] != owner["host"]
    for settings in (owner, second):
        with psycopg.connect(**settings) as connection:
            connection.execute("create table only_here (n int)")


def test_a_deleted_database_does_not_answer_and_can_be_deployed_again(database_aws: Aws) -> None:
    first = deploy(database_aws, "again").owner
    database_aws.client("cloudformation").delete_stack(StackName="again")
    with pytest.raises(psycopg.OperationalError, match=r"refused|closed the connection"):
        psycopg.connect(**first)
    with psycopg.connect(**deploy(database_aws, "again").owner) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
