"""Settings and secrets of the host's services: who gets which, and file modes."""

from __future__ import annotations

import json
import os
import pwd
import shlex
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from contracts import contract_of
from harness import program
from host_secrets import put_secrets, ssh_connection
from moto import mock_aws

from barflow.contract import RuntimeContract
from barflow.errors import BadInputError
from barflow.warehouse.authorities import bundle

SETTINGS: Any = program("orchestration/host/write_settings.py")
ME = pwd.getpwuid(os.getuid())


@pytest.fixture
def contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RuntimeContract]:
    """Yield the contract of a deployment whose secrets are stored."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        made = contract_of("prod")
        put_secrets(made, {"host": "db.internal", "port": 5432}, "mongodb://user:of-mongo@host/")
        yield made


def read(reference: str) -> str:
    from pydantic import SecretStr

    from barflow.secrets import resolve

    return resolve(SecretStr(reference), "a test")


def written(contract: RuntimeContract, to: Path) -> dict[str, str]:
    SETTINGS.write_all(contract, to, ME, read)
    return {str(path.relative_to(to)): path.read_text() for path in to.rglob("*") if path.is_file()}


def variables(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in shlex.split(text))


def test_airflows_settings_follow_from_the_contract(contract: RuntimeContract, tmp_path: Path) -> None:
    found = variables(written(contract, tmp_path)["airflow.env"])
    assert found["BARFLOW_INGEST_RUNNER"] == contract.ingestion.runner
    assert found["BARFLOW_PROCESS_SCHEDULE"] == "5 10-15 * * MON-FRI;45 16 * * MON-FRI"
    assert found["BARFLOW_QUALITY_SCHEDULE"] == "15 18 * * MON-FRI"
    (bundle,) = json.loads(found["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"])
    place = f"s3://{bundle['kwargs']['bucket_name']}/{bundle['kwargs']['prefix']}"
    assert place == f"{contract.storage.code_uri}orchestration/dags"
    assert found["AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER"] == f"s3://{contract.storage.logs_bucket}/airflow"
    assert found["AIRFLOW__API__HOST"] == "127.0.0.1"


@pytest.mark.parametrize(("gigabytes", "tasks"), [(1.8, 3), (3.8, 4), (7.7, 8)])
def test_a_larger_host_runs_more_tasks_at_a_time(gigabytes: float, tasks: int) -> None:
    assert SETTINGS.tasks_at_once(int(gigabytes * 2**30)) == tasks


def test_airflow_looks_up_only_the_known_connections(contract: RuntimeContract, tmp_path: Path) -> None:
    found = variables(written(contract, tmp_path)["airflow.env"])
    backend = json.loads(found["AIRFLOW__SECRETS__BACKEND_KWARGS"])
    assert backend["connections_prefix"] == contract.airflow.connections_prefix
    assert backend["connections_lookup_pattern"] == "^(aws_default|barflow_ssh|slack_api_default)$"
    assert backend["variables_prefix"] is None
    assert backend["config_prefix"] is None


def test_no_file_that_others_can_read_contains_a_secret(contract: RuntimeContract, tmp_path: Path) -> None:
    files = written(contract, tmp_path)
    secrets = ["of-airflow", "of-reader", "of-mongo", "F" * 43, "of-jwt", "of-login", "of-page", "PRIVATE KEY"]
    for path, text in files.items():
        mode = stat.S_IMODE((tmp_path / path).stat().st_mode)
        if path.startswith("airflow/"):
            assert mode == 0o600
        else:
            assert mode == 0o644
            assert not [secret for secret in secrets if secret in text], path
    assert stat.S_IMODE((tmp_path / "airflow").stat().st_mode) == 0o700


def test_airflow_reads_its_secrets_from_files(contract: RuntimeContract, tmp_path: Path) -> None:
    files = written(contract, tmp_path)
    found = variables(files["airflow.env"])
    values = {
        name: subprocess.run(shlex.split(command), capture_output=True, text=True, check=True).stdout
        for name, command in found.items()
        if name.endswith("_CMD")
    }
    trusted = f"sslmode=verify-full&sslrootcert={bundle()}"
    dsn = f"postgresql+psycopg://airflow:of-airflow@db.internal:5432/airflow?{trusted}"
    assert values == {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_CMD": dsn,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC_CMD": dsn,
        "AIRFLOW__CORE__FERNET_KEY_CMD": "F" * 43 + "=",
        "AIRFLOW__API_AUTH__JWT_SECRET_CMD": "of-jwt",
    }
    assert json.loads(files["airflow/passwords.json"]) == {"admin": "of-login"}
    assert found["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"] == str(tmp_path / "airflow/passwords.json")


def test_airflows_lineage_has_its_transport_and_key_in_a_file_of_its_own(
    contract: RuntimeContract, tmp_path: Path
) -> None:
    plain = variables(written(contract, tmp_path)["airflow.env"])
    assert not [name for name in plain if "LINEAGE" in name]
    url = "https://lineage.example.com"
    given = {"openlineage_url": url, "openlineage_api_key": "secretsmanager:barflow/prod/lineage"}
    boto3.client("secretsmanager").create_secret(Name="barflow/prod/lineage", SecretString="of-lineage")
    settings = contract.settings.model_copy(update=given)
    files = written(contract.model_copy(update={"settings": settings}), tmp_path)
    found = variables(files["airflow.env"])
    assert found["BARFLOW_OPENLINEAGE_URL"] == url
    assert found["AIRFLOW__OPENLINEAGE__NAMESPACE"] == "barflow-prod"
    assert found["AIRFLOW__OPENLINEAGE__CONFIG_PATH"] == str(tmp_path / "airflow/openlineage.json")
    transport = json.loads(files["airflow/openlineage.json"])["transport"]
    assert (transport["type"], transport["url"], transport["auth"]["apiKey"]) == ("http", f"{url}/", "of-lineage")
    assert transport["retry"] == {"total": 0}
    assert stat.S_IMODE((tmp_path / "airflow/openlineage.json").stat().st_mode) == 0o600
    assert "of-lineage" not in files["airflow.env"] + files["barflow.env"]
    commands = variables(files["barflow.env"])
    assert commands["BARFLOW_OPENLINEAGE_URL"] == url
    assert commands["BARFLOW_OPENLINEAGE_API_KEY"] == "secretsmanager:barflow/prod/lineage"


def test_commands_and_page_get_the_reader_of_the_warehouse_and_not_the_loader(
    contract: RuntimeContract, tmp_path: Path
) -> None:
    found = variables(written(contract, tmp_path)["barflow.env"])
    assert found["BARFLOW_WAREHOUSE_DSN"] == f"secretsmanager:{contract.warehouse.reader_secret}#dsn"
    assert contract.settings.warehouse_dsn not in found.values(), "it names the loader"
    assert found["BARFLOW_DASHBOARD_TOKEN"] == f"secretsmanager:{contract.dashboard.token_secret}"
    assert found["BARFLOW_SLACK_CHANNEL"] == "#barflow"


def test_the_page_learns_its_public_url_and_its_load_balancer(contract: RuntimeContract, tmp_path: Path) -> None:
    found = variables(written(contract, tmp_path)["barflow.env"])
    assert (found["BARFLOW_PAGE_URL"], found["BARFLOW_PAGE_PROXIES"]) == ("", ""), "there is no load balancer"
    behind = {"url": "https://bars.example.com", "proxies": ("10.20.0.0/26", "10.20.0.64/26")}
    page = contract.dashboard.model_copy(update=behind)
    found = variables(written(contract.model_copy(update={"dashboard": page}), tmp_path)["barflow.env"])
    assert found["BARFLOW_PAGE_URL"] == "https://bars.example.com"
    assert found["BARFLOW_PAGE_PROXIES"] == "10.20.0.0/26,10.20.0.64/26"


def test_the_connections_key_may_only_run_barflow(contract: RuntimeContract, tmp_path: Path) -> None:
    connection, public = ssh_connection(tmp_path)
    boto3.client("secretsmanager").put_secret_value(
        SecretId=f"{contract.airflow.connections_prefix}/barflow_ssh", SecretString=connection
    )
    to = tmp_path / "to"
    to.mkdir()
    line = written(contract, to)["authorized_keys"]
    options, kind, key, name = line.rsplit(" ", 3)
    assert [kind, key] == public.split()[:2]
    assert name.strip() == "barflow_ssh"
    assert options == (
        'restrict,from="127.0.0.1,::1",command="/opt/barflow/release/orchestration/host/only_barflow.sh"'
    )


@pytest.mark.parametrize(
    "connection", ["random-as-generated", "{}", '{"extra": {"private_key": "no key"}}', '{"extra": "text"}', "[]"]
)
def test_without_a_private_key_there_is_no_authorized_key(connection: str) -> None:
    assert SETTINGS.authorized_key(connection) is None


def test_a_key_in_an_extra_of_json_text_is_found(tmp_path: Path) -> None:
    private = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-m", "PEM", "-N", "", "-f", private], check=True)
    found = SETTINGS.authorized_key(json.dumps({"extra": json.dumps({"private_key": private.read_text()})}))
    assert " ssh-rsa " in found


def test_during_a_rotation_both_fernet_keys_are_given() -> None:
    assert SETTINGS.fernet_key(f"{'N' * 43},{'O' * 43}=") == f"{'N' * 43}=,{'O' * 43}="


@pytest.mark.parametrize("secret", ["too-short", "ü" * 43, ""])
def test_an_invalid_fernet_secret_is_rejected_and_not_shown(secret: str) -> None:
    with pytest.raises(BadInputError, match="fernet secret is not 43") as rejected:
        SETTINGS.fernet_key(secret)
    assert not secret or secret not in str(rejected.value)


def test_a_shell_reads_the_environment_file_unchanged_and_ambiguous_values_are_rejected(tmp_path: Path) -> None:
    values = {"A": 'a "b" $HOME `id` #c', "B": ""}
    file = tmp_path / "env"
    file.write_text(SETTINGS.env_file(values))
    script = f'set -a; . {file}; printf "%s|" "$A" "$B"'
    assert subprocess.run(["bash", "-c", script], capture_output=True, text=True).stdout == 'a "b" $HOME `id` #c||'
    for wrong in ("it's", "two\nlines", "back\\slash"):
        with pytest.raises(BadInputError, match="A contains a quote, a backslash or a line break"):
            SETTINGS.env_file({"A": wrong})


def test_if_a_secret_is_missing_nothing_is_written(contract: RuntimeContract, tmp_path: Path) -> None:
    boto3.client("secretsmanager").delete_secret(SecretId=contract.airflow.jwt_secret, ForceDeleteWithoutRecovery=True)
    from barflow.errors import UnavailableError

    with pytest.raises(UnavailableError, match="airflow/jwt cannot be read"):
        SETTINGS.write_all(contract, tmp_path, ME, read)
    assert list(tmp_path.iterdir()) == []


GIVEN = {"password": "twelve-chars", "role": "Viewer"}


def test_airflow_has_users_of_its_own_when_a_network_may_reach_its_page(contract: RuntimeContract) -> None:
    boto3.client("secretsmanager").create_secret(Name="users", SecretString=json.dumps({"ada": GIVEN}))
    behind = {"users_secret": "users", "url": "https://airflow.example.com", "proxies": ("10.20.0.0/26",)}
    made = contract.model_copy(update={"airflow": contract.airflow.model_copy(update=behind)})
    opened, closed = (SETTINGS.airflow_settings(item, Path("/run"), "/home", 2**31) for item in (made, contract))
    assert opened["AIRFLOW__CORE__AUTH_MANAGER"].endswith("FabAuthManager")
    assert opened["AIRFLOW__API__BASE_URL"] == "https://airflow.example.com"
    assert opened["AIRFLOW__FAB__COOKIE_SECURE"] == "True"
    assert (opened["FORWARDED_ALLOW_IPS"], closed["FORWARDED_ALLOW_IPS"]) == ("10.20.0.0/26", "")
    assert not {name for name in opened if "SIMPLE_AUTH" in name}
    assert "AIRFLOW__CORE__AUTH_MANAGER" not in closed
    assert json.loads(SETTINGS.airflow_secrets(made, read)["users.json"]) == {"ada": GIVEN}
    assert "users.json" not in SETTINGS.airflow_secrets(contract, read)


@pytest.mark.parametrize(
    "secret",
    [
        *("random-as-generated", "[]", '{"ada": "twelve-chars"}'),
        *(
            json.dumps({name: {**GIVEN, **change}})
            for name, change in (
                *(("ada", {"password": "short"}), ("ada", {"role": "Root"}), ("ada", {"password": 123456789012})),
                *(("ada", {"email": "a@b.c"}), ("a b", {}), ("", {})),
            )
        ),
    ],
)
def test_users_that_are_not_as_described_let_nobody_in(secret: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert SETTINGS.airflow_users(secret) == {}
    said = capsys.readouterr().err
    assert "Nobody can log in to Airflow's page" in said
    assert "twelve-chars" not in said
