"""The rehearsed environment: deployed to the AWS emulator, with emulators of Twelve Data and Slack and local stores.

``with RehearsedEnvironment("dev", folder, log) as deployed`` starts the emulators. Its methods do what an operator and
the schedule do, and return what readers see.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import zipfile
from contextlib import ExitStack
from datetime import date, datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import boto3
import psycopg

from barflow.alerts.evaluate import Event
from barflow.alerts.message import Message
from barflow.alerts.outbox import Outbox
from barflow.alerts.rules_file import load_rules
from barflow.contract import RuntimeContract, parameter_name, parse
from barflow.errors import BarflowError
from barflow.market.sessions import last_sessions, previous_session, utc_now
from barflow.operations.clusters import ALIVE, cluster_request
from barflow.progress import Log
from barflow.secrets import database_dsn
from barflow.staging.connection import connect
from barflow.staging.sessions import Staging
from barflow.warehouse.load import TABLES
from emulators.aws.account import REGION, ROLE_KEY
from emulators.aws.runtime import Runtime
from emulators.aws.server import AwsEmulator
from emulators.slack.server import TOKEN, SlackEmulator
from emulators.twelvedata.server import TwelveDataEmulator
from local.airflow import LocalAirflow
from local.embedded import EMULATOR_KEY
from local.live import LiveClock
from local.services import Services
from local.state import State
from local.synthetic import SyntheticBars
from rehearsal.deploy import Cdk

# The market's clock starts this many sessions back; each scenario moves it to the close of the next session.
SESSIONS_AHEAD = 8
DAG, INGEST, BACKFILL, SWEEP, CHECK = "process_bars", "ingest_bars", "backfill_bars", "sweep", "check_archive"
RUN_SECONDS, TRIES = 600, 2


class RehearsedEnvironment:
    """The emulators and what is deployed to them, running from ``__enter__`` to ``__exit__``."""

    def __init__(self, env: str, folder: Path, log: Log) -> None:
        self.env, self.folder, self._log = env, folder, log
        self._open = ExitStack()
        self.source = SyntheticBars()
        self._closes = [item.closes for item in last_sessions(utc_now(), SESSIONS_AHEAD + 1) if item.closes < utc_now()]
        self.clock = LiveClock(self._closes.pop(0))
        # When the function's first tick started and ended (UTC).
        self.first_tick: tuple[datetime, datetime] | None = None

    def __enter__(self) -> RehearsedEnvironment:
        with ExitStack() as starting:
            state = State.create(self.folder / "state", source={"kind": "synthetic"}, as_of=None)
            self.services = starting.enter_context(Services(state, self._log))
            self.slack = starting.enter_context(SlackEmulator())
            self.api = starting.enter_context(TwelveDataEmulator(self.source, clock=self.clock, api_key=EMULATOR_KEY))
            addresses = {"BARFLOW_TWELVEDATA_URL": self.api.url, "BARFLOW_SLACK_URL": self.slack.url}
            self.runtime = Runtime(self.folder / "runtime", self.services.superuser_dsn, addresses)
            self.aws = starting.enter_context(AwsEmulator(self.runtime))
            self._cdk = Cdk(self.aws, self.env, self.folder / "assembly")
            self._open = starting.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def client(self, service: str) -> Any:
        """Return an AWS client of the account's owner."""
        keys = {"aws_access_key_id": "emulator", "aws_secret_access_key": "emulator"}
        return boto3.client(service, endpoint_url=self.aws.url, region_name=REGION, **keys)

    def synth(self) -> str:
        """Make the templates, and return how many they are."""
        self._cdk.synth()
        return f"{len(list((self.folder / 'assembly').glob('*.template.json')))} templates"

    def bootstrap(self) -> str:
        """Bootstrap the account."""
        self._cdk.bootstrap()
        return "a bucket for assets"

    def preflight(self) -> str:
        """Check the account as an operator does, and create the missing role of Spot as the check says.

        Raise BarflowError unless the role is the only failure, and nothing fails afterwards.
        """
        missing = [check["name"] for check in self._checks() if not check["ok"]]
        if missing != ["service-linked roles"]:
            raise BarflowError(
                f"only the role of Spot is missing, and preflight finds: {', '.join(missing) or 'nothing'}"
            )
        self.client("iam").create_service_linked_role(AWSServiceName="spot.amazonaws.com")
        checks = self._checks()
        if failed := [f"{check['name']}: {check['found']}" for check in checks if not check["ok"]]:
            raise BarflowError(f"preflight fails: {'; '.join(failed)}")
        return f"{len(checks)} checks passed, after the role of Spot was created"

    def _checks(self) -> list[dict[str, Any]]:
        """Return the checks of `barflow preflight`, which exits 1 if one fails."""
        command = self._barflow("preflight", "--env", self.env, "--assembly", str(self.folder / "assembly"), "--json")
        if command.returncode not in (0, 1) or not command.stdout:
            raise BarflowError((command.stderr.strip() or "no output").splitlines()[-1])
        found: list[dict[str, Any]] = json.loads(command.stdout)["checks"]
        return found

    def deploy(self, version: Cdk | None = None) -> str:
        """Deploy every stack, those of another version if it is given. Return how many they are."""
        (version or self._cdk).deploy(self.folder / "outputs.json")
        self._set_vendor_url()
        return f"{len(self.outputs)} stacks"

    def deploy_app(self, app: str, outputs: Path, *options: str) -> str:
        """Deploy another app of the repository, and write its outputs to a file."""
        return self._cdk.deploy_app(app, outputs, *options)

    def _set_vendor_url(self) -> None:
        """Write the Twelve Data emulator's address into the runtime contract, from which Airflow's tasks read it."""
        ssm, name = self.client("ssm"), parameter_name(self.env)
        contract = json.loads(ssm.get_parameter(Name=name)["Parameter"]["Value"])
        contract["settings"]["twelvedata_url"] = self.api.url
        ssm.put_parameter(Name=name, Value=json.dumps(contract), Overwrite=True)

    @property
    def outputs(self) -> dict[str, dict[str, str]]:
        """The outputs by the stack's part of the name, such as Ingestion."""
        read: dict[str, dict[str, str]] = json.loads((self.folder / "outputs.json").read_text())
        return {name.rsplit("-", 1)[1]: found for name, found in read.items()}

    @cached_property
    def contract(self) -> RuntimeContract:
        """The deployed runtime contract."""
        return parse(self.client("ssm").get_parameter(Name=parameter_name(self.env))["Parameter"]["Value"])

    @cached_property
    def host_role(self) -> str:
        """The name of the role that Airflow has on its host."""
        stack = f"Barflow-{self.env}-Orchestration"
        found = self.client("cloudformation").describe_stack_resources(StackName=stack)["StackResources"]
        (profile,) = [item for item in found if item["ResourceType"] == "AWS::IAM::InstanceProfile"]
        described = self.client("iam").get_instance_profile(InstanceProfileName=profile["PhysicalResourceId"])
        return str(described["InstanceProfile"]["Roles"][0]["RoleName"])

    def store_secrets(self) -> str:
        """Store a value for each ``put_secret`` line of the generated runbook."""
        self.run_barflow(
            "runbook", "--env", self.env, "--outputs", str(self.folder / "outputs.json"), "--to", str(self.folder)
        )
        text = (self.folder / f"runbook-{self.env}.md").read_text()
        names = re.findall(r"^put_secret (\S+)", text, re.MULTILINE)
        values = {
            "twelvedata": EMULATOR_KEY,
            "mongodb": self.services.mongodb_uri,
            "slack": TOKEN,
            "slack_api_default": json.dumps({"conn_type": "slack", "password": TOKEN}),
        }
        store = self.client("secretsmanager")
        for name in names:
            found = [value for key, value in values.items() if re.search(rf"(^|[/:]){key}(-\w+)?$", name)]
            if len(found) != 1:
                raise BarflowError(f"the runbook names the secret {name}, for which the rehearsal has no value")
            store.put_secret_value(SecretId=name, SecretString=found[0])
        # The runbook creates its key with other commands. Airflow does not use SSH here.
        store.put_secret_value(SecretId=self.outputs["Secrets"]["SshConnectionSecret"], SecretString="{}")
        return f"{len(names) + 1} secrets"

    def variables(self, **more: str) -> dict[str, str]:
        """Return the environment of a program that uses the deployment from outside."""
        kept = {name: value for name, value in self.aws.environment().items() if not name.startswith("BARFLOW_")}
        kept |= {"PGSSLROOTCERT": str(self.runtime.authorities), "BARFLOW_ENV": self.env, "BARFLOW_POLL_SECONDS": "0.5"}
        return {**kept, **self.runtime.settings, **more}

    def run_barflow(self, *arguments: str) -> str:
        """Run the command as an operator does, and return its stdout. Raise BarflowError with its last line."""
        done = self._barflow(*arguments)
        if done.returncode:
            raise BarflowError((done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1])
        return done.stdout

    def _barflow(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("barflow")), *arguments]
        return subprocess.run(command, env=self.variables(), capture_output=True, text=True, check=False)

    def run_tick(self) -> str:
        """Invoke the deployed function as the runbook says. Raise BarflowError unless it succeeds."""
        name = self.outputs["Ingestion"]["IngestFunction"]
        started = utc_now()
        found = self.client("lambda").invoke(FunctionName=name, Payload=b'{"force": true}')
        self.first_tick = self.first_tick or (started, utc_now())
        answer = json.loads(found["Payload"].read())
        if answer.get("outcome") != "succeeded":
            raise BarflowError(f"the tick did not succeed: {json.dumps(answer)[:500]}")
        return f"{answer['new']} bars stored, {answer['revised']} revised"

    def start_airflow(self) -> str:
        """Start Airflow with the deployed DAGs, library and connections, as on the host. Return the number of DAGs."""
        host, bucket = self.folder / "host", self.contract.storage.code_bucket
        prefix = self.contract.storage.code_uri.removeprefix(f"s3://{bucket}/")
        s3 = self.client("s3")
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for item in page["Contents"]:
                target = host / item["Key"].removeprefix(prefix)
                target.parent.mkdir(parents=True, exist_ok=True)
                s3.download_file(bucket, item["Key"], str(target))
        prefixes = {"connections_prefix": self.contract.airflow.connections_prefix}
        warehouse = self.contract.warehouse
        metadata = self.dsn(warehouse.airflow_secret, warehouse.airflow_database)
        metadata = metadata.replace("postgresql://", "postgresql+psycopg://", 1)
        environment = self.variables(
            AWS_ACCESS_KEY_ID=f"{ROLE_KEY}{self.host_role}",
            AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=metadata,
            AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC=metadata,
            AIRFLOW__SECRETS__BACKEND="airflow.providers.amazon.aws.secrets.secrets_manager.SecretsManagerBackend",
            AIRFLOW__SECRETS__BACKEND_KWARGS=json.dumps({**prefixes, "variables_prefix": None, "config_prefix": None}),
            PYTHONPATH=str(host),
            PYTHONSAFEPATH="1",  # without it the checkout's library would come first
            BARFLOW_PROCESS_SCHEDULE="",
            BARFLOW_QUALITY_SCHEDULE="",
            BARFLOW_POLL_SECONDS="3",
            BARFLOW_RETRIES=str(TRIES - 1),
            BARFLOW_RETRY_SECONDS="1",
            BARFLOW_CLUSTER_START_MINUTES="0.3",
        )
        airflow = LocalAirflow(
            self.folder / "airflow",
            environment,
            dags=host / "orchestration" / "dags",
            on_start=self.services.watch,
        )
        self.airflow = self._open.enter_context(airflow)
        self.airflow.wait_for_dag(SWEEP)
        self.airflow.call("PATCH", f"dags/{SWEEP}", json={"is_paused": True})  # it would start at the full hour
        return f"{len(self.airflow.call('GET', 'dags')['dags'])} DAGs"

    def start_run(self) -> str:
        """Trigger process_bars, and return the id of the DAG run."""
        return str(self.airflow.trigger(DAG))

    def run_tick_in_airflow(self) -> str:
        """Run the DAG that invokes the function. Raise BarflowError if it fails."""
        return self._run_dag(INGEST)

    def backfill(self) -> str:
        """Run the DAG that fetches the session before the first staged one.

        Raise BarflowError if the DAG fails or if a bar is missing.
        """
        settings = self.contract.settings
        staging = Staging(connect(self.services.mongodb_uri))
        first = min(item["session_date"] for item in staging.counts())
        before = previous_session(date.fromisoformat(first))
        assert before is not None
        day = before.session_date.isoformat()
        self._run_dag(BACKFILL, symbols=[*settings.symbols], start=day, end=day)
        bars = sum(item["bars"] for item in staging.counts() if item["session_date"] == day)
        if bars != len(settings.symbols) * before.expected_bars:
            raise BarflowError(f"{bars} bars of {day} are staged, not {before.expected_bars} per symbol")
        return f"{bars} bars of {day}"

    def install_driver(self) -> str:
        """Store a file like PostgreSQL's JDBC driver where the generated runbook says. Return its name."""
        text = (self.folder / f"runbook-{self.env}.md").read_text()
        found = re.search(r"^curl \S+ \S+ .* sha256sum -c && aws s3 cp (\S+) s3://([^/\s]+)/(\S+)$", text, re.MULTILINE)
        if found is None:
            raise BarflowError("the runbook has no command that installs the JDBC driver")
        name, bucket, key = found.groups()
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as jar:
            version = name.removeprefix("postgresql-").removesuffix(".jar")
            jar.writestr("META-INF/MANIFEST.MF", f"Implementation-Version: {version}\n")
            jar.writestr("org/postgresql/Driver.class", "")
        self.client("s3").put_object(Bucket=bucket, Key=key, Body=content.getvalue())
        return name

    def check_archive(self) -> str:
        """Run the DAG that evaluates the data quality rules. Raise BarflowError if it fails."""
        return self._run_dag(CHECK)

    def _run_dag(self, dag: str, **params: Any) -> str:
        run = self.airflow.trigger(dag, **params)
        if (state := str(self.airflow.wait(dag, run, RUN_SECONDS))) != "success":
            raise BarflowError(f"{dag} ended as {state}: {self.airflow.tasks(dag, run)}")
        return state

    @property
    def outbox(self) -> Outbox:
        """The alerts, with the deliveries to each channel."""
        return Outbox(connect(self.services.mongodb_uri))

    def add_undelivered_alert(self) -> str:
        """Add an alert to the outbox that the topic has not accepted, as after an outage. Return its id."""
        symbol, session = self.contract.settings.symbols[0], last_sessions(self.clock.now, 1)[0]
        event = Event(load_rules().all[0], symbol, session.session_date, session.opens, "up", 6.0, 100.0, 106.0)
        self.outbox.add([(Message.of(event, utc_now()), ["sns"])])
        return event.id

    def sweep(self) -> str:
        """Run the DAG that ends the clusters of ended runs and delivers waiting alerts.

        Raise BarflowError if it fails, if it ends a cluster that was started by hand or by another application, or if
        it leaves the cluster of an ended run or an alert.
        """
        emr, alert = self.client("emr"), self.add_undelivered_alert()
        ended_run = self.airflow.call("GET", f"dags/{DAG}/dagRuns")["dag_runs"][0]["dag_run_id"]
        left, by_hand = (
            str(emr.run_job_flow(**cluster_request(self.contract, run))["JobFlowId"]) for run in (ended_run, "by-hand")
        )
        other_request = {**cluster_request(self.contract, "other"), "Name": "other", "Tags": []}
        other = str(emr.run_job_flow(**other_request)["JobFlowId"])
        self.airflow.call("PATCH", f"dags/{SWEEP}", json={"is_paused": False})
        self._run_dag(SWEEP)
        alive = {item["Id"] for item in self.clusters(*ALIVE)}
        if alive != {by_hand, other}:
            raise BarflowError(
                f"after the sweep the clusters {sorted(alive)} run. It must end {left} of an ended run, and leave "
                f"{by_hand}, started by hand, and {other} of another application"
            )
        emr.terminate_job_flows(JobFlowIds=[by_hand, other])
        if alert in {item["_id"] for item in self.outbox.find(undelivered=True)}:
            raise BarflowError(f"the sweep did not deliver the alert {alert}")
        return f"{left} ended, {by_hand} and {other} left alone, a waiting alert delivered"

    def wait_for_run(self, run: str) -> str:
        """Wait for a run of process_bars. Return its final state with the tasks that failed."""
        state = str(self.airflow.wait(DAG, run, RUN_SECONDS))
        failed = [name for name, ended in self.airflow.tasks(DAG, run).items() if ended == "failed"]
        return f"{state} ({', '.join(failed)})" if failed else state

    def kill_task(self, run: str, task: str) -> None:
        """Kill the process of a running task. Raise BarflowError if it has none."""
        if not self.airflow.kill_task(DAG, run, task):
            raise BarflowError(f"{task} has no process: {self.airflow.tasks(DAG, run)}")

    def step_states(self) -> list[str]:
        """Return the states of the newest cluster's steps."""
        newest = max(self.clusters(), key=lambda item: item["Status"]["Timeline"]["CreationDateTime"])
        return [step["Status"]["State"] for step in self.client("emr").list_steps(ClusterId=newest["Id"])["Steps"]]

    def trade_next_session(self) -> None:
        """Move the market's clock to the close of the next session."""
        self.clock.now = self._closes.pop(0)

    def dsn(self, secret: str, database: str | None = None) -> str:
        """Return the DSN of a database user, from the deployed secret, for the database or that of the secret."""
        user = json.loads(self.client("secretsmanager").get_secret_value(SecretId=secret)["SecretString"])
        user["dbname"] = database or user["dbname"]
        return f"{database_dsn(user)}&sslrootcert={self.runtime.authorities}"

    @property
    def reader_dsn(self) -> str:
        """The DSN of the warehouse's reader."""
        return self.dsn(self.contract.warehouse.reader_secret)

    def reader_rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return every row that readers see, by table."""
        with psycopg.connect(self.reader_dsn, options="-c timezone=UTC") as connection:
            return {
                table: connection.execute(f"select * from market.{table} order by 1, 2".encode()).fetchall()
                for table in TABLES
            }

    def clusters(self, *states: str) -> list[dict[str, Any]]:
        """Return EMR's clusters in these states, or all without states."""
        wanted = {"ClusterStates": [*states]} if states else {}
        found: list[dict[str, Any]] = self.client("emr").list_clusters(**wanted)["Clusters"]
        return found
