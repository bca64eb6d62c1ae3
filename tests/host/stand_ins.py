"""What do the secrets hold that a host under test reads?"""

from __future__ import annotations

import json
from collections.abc import Mapping

import boto3

from barflow.contract import RuntimeContract

PASSWORDS = {"airflow": "of-airflow", "barflow_reader": "of-reader"}


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
