"""Which deployment does a host under test belong to? A contract, and values for the secrets that it names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import boto3

from barflow.contract import RuntimeContract, parse

REGION = "us-east-1"
PASSWORDS = {"airflow": "of-airflow", "barflow_reader": "of-reader"}


@cache
def _template() -> str:
    """The contract of prod as its template has it, with a word in place of each token."""
    from pathlib import Path

    root = Path(__file__).parents[1] / "snapshots/prod/Barflow-prod-Orchestration.json"
    resources = json.loads(root.read_text())["Resources"]
    (parameter,) = [item for item in resources.values() if item["Type"] == "AWS::SSM::Parameter"]
    parts = parameter["Properties"]["Value"]["Fn::Join"][1]
    return "".join(part if isinstance(part, str) else "token" for part in parts)


def contract_of(**changes: Mapping[str, Any]) -> RuntimeContract:
    """The contract of prod; ``airflow={"port": 1}`` changes that field of that section."""
    made = parse(_template())
    fields = {name: getattr(made, name).model_copy(update=dict(values)) for name, values in changes.items()}
    return made.model_copy(update={"region": REGION, **fields})


def put_secrets(contract: RuntimeContract, database: Mapping[str, object], mongodb_uri: str) -> None:
    """Puts a value into each secret that the host reads. ``database`` is where its server is."""
    client = boto3.client("secretsmanager")
    users = {"airflow": ("airflow", contract.warehouse.airflow_secret),
             "barflow_reader": ("barflow", contract.warehouse.reader_secret)}  # fmt: skip
    values = {
        contract.airflow.fernet_secret: "F" * 43,
        contract.airflow.jwt_secret: "of-jwt",
        contract.airflow.login_secret: "of-login",
        contract.dashboard.token_secret: "of-page-of-page-of-page",
        f"{contract.airflow.connections_prefix}/barflow_ssh": "random-as-generated",
        contract.settings.mongodb_uri.removeprefix("secretsmanager:"): mongodb_uri,
    }
    for user, (name, secret) in users.items():
        values[secret] = json.dumps({"username": user, "password": PASSWORDS[user], "dbname": name, **database})
    for name, value in values.items():
        client.create_secret(Name=name, SecretString=value)
