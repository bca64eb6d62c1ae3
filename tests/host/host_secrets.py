"""Secrets of a host under test."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import boto3
from harness import ROOT

from barflow.contract import RuntimeContract

PASSWORDS = {"airflow": "of-airflow", "barflow_reader": "of-reader"}


def put_secrets(contract: RuntimeContract, database: Mapping[str, object], mongodb_uri: str) -> None:
    """Store a value in each secret that the host reads. ``database`` is the address of its server."""
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


def ssh_connection(folder: Path) -> tuple[str, str]:
    """Return Airflow's connection as the runbook's commands create it, and its public key.

    ``folder`` gets a fake `aws` that stores the connection in a file.
    """
    runbook = (ROOT / "barflow/operations/runbook.md.j2").read_text()
    (block,) = [block for block in re.findall(r"^```\n(.*?)^```$", runbook, re.M | re.S) if "ssh-keygen" in block]
    aws = folder / "bin/aws"
    aws.parent.mkdir()
    aws.write_text(
        f'#!/bin/bash\nfile="${{*: -5:1}}"\ncp "${{file#file://}}" {folder}/put; cp "$key/id.pub" {folder}\n'
    )
    aws.chmod(0o755)
    environment = {"PATH": f"{aws.parent}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-e", "-c", f"export key\n{block}"], env=environment, check=True)
    return (folder / "put").read_text(), (folder / "id.pub").read_text()
