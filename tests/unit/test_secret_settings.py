"""Secret settings are resolved with Secrets Manager, and no error message shows them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import boto3
import psycopg.conninfo
import pytest
from moto import mock_aws
from pydantic import SecretStr

from barflow.errors import BadInputError, UnavailableError
from barflow.secrets import database_dsn, resolve
from barflow.settings import load_settings

ROOT = Path(__file__).parents[2]
USER = {"username": "loader", "password": "p@ss/w:rd?", "host": "db.example", "port": 5432, "dbname": "barflow"}


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set up an account in moto with three secrets."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        client = boto3.client("secretsmanager")
        client.create_secret(Name="plain", SecretString="a-key\n")
        client.create_secret(Name="user", SecretString=json.dumps(USER))
        lines = {"key": "a-key\r\n", "hidden": "hid\u200bden", "number": 5432, "host": "db.example\n"}
        client.create_secret(Name="lines", SecretString=json.dumps({**USER, **lines}))
        client.create_secret(Name="list", SecretString="[1]")
        client.create_secret(Name="half", SecretString=json.dumps({"username": "loader", "password": "hidden"}))
        yield


def value(text: str) -> str:
    return resolve(SecretStr(text), "BARFLOW_SETTING")


def test_a_value_is_returned_and_a_reference_is_resolved() -> None:
    assert value("mongodb://host/") == "mongodb://host/"
    assert value("secretsmanager:plain") == "a-key"  # without the trailing newline
    assert value("secretsmanager:user#host") == "db.example"
    assert value("secretsmanager:lines#key") == "a-key"
    assert value("secretsmanager:lines#number") == "5432"
    assert "@db.example:5432/" in value("secretsmanager:lines#dsn")


def test_the_dsn_is_built_from_the_secrets_keys_and_verifies_the_server() -> None:
    parts = psycopg.conninfo.conninfo_to_dict(value("secretsmanager:user#dsn"))
    assert parts == {
        "user": USER["username"],
        "password": USER["password"],
        "host": USER["host"],
        "port": "5432",
        "dbname": USER["dbname"],
        "sslmode": "verify-full",
    }


@pytest.mark.parametrize(
    ("reference", "error", "message"),
    [
        ("secretsmanager:absent", UnavailableError, "absent cannot be read"),
        ("secretsmanager:plain#dsn", BadInputError, "plain is not a JSON object"),
        ("secretsmanager:list#dsn", BadInputError, "list is not a JSON object"),
        ("secretsmanager:lines#hidden", BadInputError, "the value in the secret lines must hold only visible"),
        ("secretsmanager:half#dsn", BadInputError, "half has no JSON key 'host'"),
    ],
)
def test_an_unusable_secret_is_named_and_not_shown(reference: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        value(reference)
    assert "hidden" not in str(raised.value)
    assert "a-key" not in str(raised.value)


@pytest.mark.parametrize("key", ["username", "password", "host", "port", "dbname"])
def test_no_part_of_a_secret_weakens_the_check_of_the_server(key: str) -> None:
    attack = "x?sslmode=disable&sslrootcert=/tmp/mine#@/"
    parts = psycopg.conninfo.conninfo_to_dict(database_dsn(USER | {key: attack}))
    assert parts["sslmode"] == "verify-full"
    assert "sslrootcert" not in parts
    assert attack in parts.values()


def test_one_function_builds_the_dsn_of_a_deployed_database() -> None:
    """A DSN with a weaker check of the server cannot be built elsewhere."""
    deployed = ("barflow", "dashboard", "glue", "lambda", "orchestration", "spark", "stacks")
    files = [path for room in deployed for path in (ROOT / room).rglob("*") if path.suffix in (".py", ".sh", ".j2")]
    naming = {str(path.relative_to(ROOT)) for path in files if "sslmode" in path.read_text()}
    assert naming == {"barflow/secrets.py", "barflow/warehouse/authorities.py"}
    assert (ROOT / "barflow/secrets.py").read_text().count("sslmode") == 1


@pytest.mark.parametrize("name", ["twelvedata_url", "slack_url", "slack_webhook"])
def test_no_secret_travels_unencrypted_to_another_machine(name: str) -> None:
    for address in (
        "http://api.example/hidden",
        "http://127.0.0.1.example/",
        "http://localhost@api.example/",
        "HTTP://a",
    ):
        with pytest.raises(BadInputError, match=f"BARFLOW_{name.upper()} must be an https address") as raised:
            load_settings(**{name: address})
        assert "hidden" not in str(raised.value)
    for address in ("https://api.example/", "http://localhost:8000", "http://127.0.0.1:1/", "http://[::1]:1/"):
        assert load_settings(**{name: address})
