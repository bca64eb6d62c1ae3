"""The whole host on this machine: its real setup, packages and units, with moto as AWS.

`make test-host` runs it. It installs the whole lock and starts four Airflow processes and the page.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pytest
from contracts import REGION, contract_of
from fake_host import COMMANDS, HOST, FakeHost
from host_secrets import put_secrets
from moto_server import moto_server

from barflow.contract import RuntimeContract, parameter_name
from barflow.warehouse.migrations import migrate
from local.starting import free_port

pytestmark = [pytest.mark.minutes, pytest.mark.timeout(3600)]
ROOT = HOST.parents[1]
UP_SECONDS = 180.0
# A DAG without dependencies: it shows that a task runs and that its log is stored.
PROBE = """
import os
from airflow.sdk import BaseHook, dag, task

@dag(schedule=None)
def probe():
    @task
    def run():
        print("runner", os.environ["BARFLOW_INGEST_RUNNER"], "kind", BaseHook.get_connection("aws_default").conn_type)
    run()

probe()
"""


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    """Yield the address of the AWS emulator, which the environment variables name."""
    with moto_server() as url, pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("AWS_ENDPOINT_URL", url),
            ("AWS_ACCESS_KEY_ID", "emulator"),
            ("AWS_SECRET_ACCESS_KEY", "emulator"),
            ("AWS_DEFAULT_REGION", REGION),
        ):
            patch.setenv(name, value)
        yield url


@pytest.fixture(scope="module")
def contract(aws: str, postgres_dsn: str, mongodb_uri: str) -> Iterator[RuntimeContract]:
    """Yield the contract of a deployment with its secrets, published DAGs and databases."""
    made = contract_of(
        "prod",
        airflow={"port": free_port()},
        dashboard={"port": free_port()},
        storage={"code_bucket": "code", "logs_bucket": "logs", "code_uri": "s3://code/releases/1/"},
    )
    # Secrets as Secrets Manager generates them. Without a host, libpq uses the socket in PGHOST, without TLS.
    put_secrets(made, {"host": "", "port": 5432}, mongodb_uri)
    manager = boto3.client("secretsmanager")
    for name in (made.airflow.fernet_secret, made.airflow.jwt_secret, made.airflow.login_secret):
        value = "".join(secrets.choice("abcXYZ019") for _ in range(43))
        manager.put_secret_value(SecretId=name, SecretString=value)
    manager.create_secret(
        Name=f"{made.airflow.connections_prefix}/aws_default",
        SecretString=json.dumps({"conn_type": "aws", "extra": {"region_name": REGION}}),
    )
    boto3.client("ssm").put_parameter(
        Name=parameter_name(made.env), Type="String", Tier="Advanced", Value=made.model_dump_json()
    )
    s3 = boto3.client("s3")
    for bucket in ("code", "logs"):
        s3.create_bucket(Bucket=bucket)
    for path in [path for path in (ROOT / "orchestration/dags").iterdir() if path.is_file()]:
        s3.upload_file(str(path), "code", f"releases/1/orchestration/dags/{path.name}")
    s3.put_object(Bucket="code", Key="releases/1/orchestration/dags/probe.py", Body=PROBE)
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("create role airflow login")
        connection.execute("create role barflow_reader login")
        connection.execute("create database airflow owner airflow")
    migrate(postgres_dsn, ROOT / "sql")
    yield made
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:  # other tests create these users themselves
        connection.execute("drop database airflow with (force)")
        for user in ("airflow", "barflow_reader"):
            connection.execute(f"drop owned by {user} cascade")
            connection.execute(f"drop role {user}")


@pytest.fixture(scope="module")
def host(contract: RuntimeContract, postgres_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeHost]:
    """Yield the host after its setup, which waits until Airflow is healthy."""
    passed = {name: os.environ[name] for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    installed = FakeHost(
        tmp_path_factory.mktemp("host"),
        COMMANDS,
        {**passed, "BARFLOW_ENV": contract.env, "PGHOST": psycopg.conninfo.conninfo_to_dict(postgres_dsn)["host"]},
    )
    systemctl = installed.folder / "bin/systemctl"
    systemctl.unlink()
    systemctl.write_text(f"#!{sys.executable}\n{(Path(__file__).parent / 'systemctl.py').read_text()}")
    systemctl.chmod(0o755)
    try:
        installed.boot()
        yield installed
    finally:
        running = installed.folder / "pids"
        for line in running.read_text().splitlines() if running.exists() else []:
            end(int(line.split()[1]))


def end(session: int) -> None:
    """End a service and its child processes. Each service leads a session of its own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(session, number)
        except ProcessLookupError:
            return
        time.sleep(2)


def ask(url: str, body: object = None, token: str | None = None) -> Any:
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30) as answer:
        return json.loads(answer.read())


def until(check: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + UP_SECONDS
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < deadline, what
        time.sleep(1)


@pytest.fixture(scope="module")
def airflow(host: FakeHost, contract: RuntimeContract) -> str:
    return f"http://127.0.0.1:{contract.airflow.port}"


@pytest.fixture(scope="module")
def token(airflow: str, contract: RuntimeContract) -> str:
    """Return a token for the password of the secret."""
    password = boto3.client("secretsmanager").get_secret_value(SecretId=contract.airflow.login_secret)["SecretString"]
    return str(ask(f"{airflow}/auth/token", {"username": "admin", "password": password})["access_token"])


def test_every_component_is_healthy(airflow: str) -> None:
    healthy = dict.fromkeys(("metadatabase", "scheduler", "triggerer", "dag_processor"), "healthy")

    def is_healthy() -> bool:
        health = ask(f"{airflow}/api/v2/monitor/health")
        return {name: part["status"] for name, part in health.items()} == healthy

    until(is_healthy, "a component was not healthy")


@pytest.mark.parametrize("password", ["", "admin", "of-login"])
def test_any_other_password_is_rejected(airflow: str, password: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(f"{airflow}/auth/token", {"username": "admin", "password": password})
    assert refused.value.code in (400, 401, 422)
    with pytest.raises(urllib.error.HTTPError):
        ask(f"{airflow}/api/v2/dags")


def test_airflow_has_the_published_dags_without_import_errors(airflow: str, token: str) -> None:
    published = {path.stem for path in (ROOT / "orchestration/dags").glob("*.py")}
    published = {name for name in published if not name.startswith("barflow_")}  # shared modules
    wanted = {"probe", *published}

    def found() -> set[str]:
        return {dag["dag_id"] for dag in ask(f"{airflow}/api/v2/dags?limit=100", token=token)["dags"]}

    until(lambda: found() == wanted, "the DAGs did not appear")
    assert ask(f"{airflow}/api/v2/importErrors", token=token)["import_errors"] == []
    assert all(not dag["is_paused"] for dag in ask(f"{airflow}/api/v2/dags?limit=100", token=token)["dags"])


def test_a_task_runs_with_the_hosts_settings_and_its_log_is_in_s3(airflow: str, token: str) -> None:
    until(lambda: "probe" in json.dumps(ask(f"{airflow}/api/v2/dags?limit=100", token=token)), "no probe")
    run = ask(f"{airflow}/api/v2/dags/probe/dagRuns", {"logical_date": None}, token)["dag_run_id"]

    def state() -> str:
        found = str(ask(f"{airflow}/api/v2/dags/probe/dagRuns/{run}", token=token)["state"])
        return found if found in ("success", "failed") else ""

    assert until(state, "the task did not end") == "success"

    def log() -> str:
        found = boto3.client("s3").list_objects_v2(Bucket="logs", Prefix="airflow/dag_id=probe/").get("Contents", [])
        return found[0]["Key"] if found else ""

    key = until(log, "no log in S3")
    text = boto3.client("s3").get_object(Bucket="logs", Key=key)["Body"].read().decode()
    assert "runner lambda" in text
    assert "kind aws" in text, "the connection comes from Secrets Manager"


def test_the_vendors_pool_exists(airflow: str, token: str) -> None:
    pools = {pool["name"]: pool["slots"] for pool in ask(f"{airflow}/api/v2/pools", token=token)["pools"]}
    assert pools["barflow_vendor"] == 1


def test_the_page_answers_and_requires_its_token(host: FakeHost, contract: RuntimeContract) -> None:
    page = f"http://127.0.0.1:{contract.dashboard.port}"

    def up() -> bool:
        try:
            return bool(urllib.request.urlopen(page, timeout=10).status == 200)
        except OSError:
            return False

    until(up, "the page did not answer")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        ask(f"{page}/api/watchlist")


def test_the_health_check_finds_nothing_down_and_publishes_its_metrics(
    host: FakeHost, contract: RuntimeContract
) -> None:
    environment = {**host.environment, "BARFLOW_ROOT": str(host.root)}
    check = host.release / "orchestration/host/check_health.py"
    script = (
        f'set -a; . "{host.root}/run/barflow/barflow.env"; exec "{host.root}/opt/barflow/venv/bin/python" -I {check}'
    )

    def finds_nothing() -> bool:  # a heartbeat may be late
        done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stderr == ""

    until(finds_nothing, "the check found a service down")
    found = boto3.client("cloudwatch").list_metrics(Namespace="Barflow")["Metrics"]
    always = {"HostPartsDown", "UndeliveredAlertAge"}
    # The age of the newest bars is measured while a session is open.
    assert always <= {item["MetricName"] for item in found} <= {*always, "Stalest"}


def test_a_command_on_the_host_is_the_reader_of_the_warehouse(host: FakeHost) -> None:
    command = [host.root / "usr/local/bin/barflow", "sql", "select current_user as who", "--format", "csv"]
    done = subprocess.run(command, env=host.environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["who", "barflow_reader"], done.stderr


def test_no_process_has_a_secret_in_its_arguments_or_environment(host: FakeHost, contract: RuntimeContract) -> None:
    manager = boto3.client("secretsmanager")
    names = (contract.airflow.fernet_secret, contract.airflow.jwt_secret, contract.airflow.login_secret)
    values = [manager.get_secret_value(SecretId=name)["SecretString"].encode() for name in names]
    checked = 0
    sessions = {int(line.split()[1]) for line in (host.folder / "pids").read_text().splitlines()}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(process.name)) not in sessions:
                continue
            shown = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        checked += 1
        assert not [value for value in values if value in shown], process
    assert checked >= len(sessions)
