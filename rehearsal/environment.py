"""What is rehearsed? One environment deployed to the emulator, with the parties around it: vendor, stores, Slack.

``with Rehearsal("dev", folder, say) as deployed`` starts the emulators, deploys by the CDK CLI and puts the secrets in
by the names that the runbook has. Its methods are what an operator and the schedule do, and what readers see.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
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
from barflow.alerts.rules import load_rules
from barflow.contract import RuntimeContract, parameter_name, parse
from barflow.errors import BarflowError
from barflow.market.sessions import last_sessions, previous_session, utc_now
from barflow.operations.clusters import ALIVE, cluster_request
from barflow.staging.connection import connect
from barflow.staging.sessions import Staging
from barflow.warehouse.load import TABLES
from emulators.aws.machine import REGION, ROLE_KEY, Machine
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

Say = Callable[[str], None]
# The market stands still at the close of a session, and each scenario opens the next one.
SESSIONS_AHEAD = 8
DAG, INGEST, BACKFILL, SWEEP = "process_bars", "ingest_bars", "backfill_bars", "sweep"
RUN_SECONDS, TRIES = 600, 2


class Rehearsal:
    """The emulators and what is deployed to them, from ``__enter__`` to ``__exit__``."""

    def __init__(self, env: str, folder: Path, say: Say) -> None:
        self.env, self.folder, self._say = env, folder, say
        self._open = ExitStack()
        self.source = SyntheticBars()
        self._closes = [item.closes for item in last_sessions(utc_now(), SESSIONS_AHEAD + 1) if item.closes < utc_now()]
        self.clock = LiveClock(self._closes.pop(0))
        # When the function's first tick began and ended (UTC).
        self.first_tick: tuple[datetime, datetime] | None = None

    def __enter__(self) -> Rehearsal:
        with ExitStack() as starting:
            state = State.create(self.folder / "state", source={"kind": "synthetic"}, as_of=None)
            self.services = starting.enter_context(Services(state, self._say))
            self.slack = starting.enter_context(SlackEmulator())
            self.api = starting.enter_context(TwelveDataEmulator(self.source, clock=self.clock, api_key=EMULATOR_KEY))
            outside = {"BARFLOW_TWELVEDATA_URL": self.api.url, "BARFLOW_SLACK_URL": self.slack.url}
            self.machine = Machine(self.folder / "machine", self.services.warehouse_dsn, outside)
            self.aws = starting.enter_context(AwsEmulator(self.machine))
            self._cdk = Cdk(self.aws, self.env, self.folder / "assembly")
            self._open = starting.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def client(self, service: str) -> Any:
        keys = {"aws_access_key_id": "emulator", "aws_secret_access_key": "emulator"}
        return boto3.client(service, endpoint_url=self.aws.url, region_name=REGION, **keys)

    def synth(self) -> str:
        self._cdk.synth()
        return f"{len(list((self.folder / 'assembly').glob('*.template.json')))} templates"

    def bootstrap(self) -> str:
        self._cdk.bootstrap()
        return "assets have a bucket"

    def deploy(self) -> str:
        self._cdk.deploy(self.folder / "outputs.json")
        self._name_the_vendors_emulator()
        return f"{len(self.outputs)} stacks"

    def _name_the_vendors_emulator(self) -> None:
        """In the contract, where the machine's settings do not reach: what Airflow's tasks fetch by themselves."""
        ssm, name = self.client("ssm"), parameter_name(self.env)
        contract = json.loads(ssm.get_parameter(Name=name)["Parameter"]["Value"])
        contract["settings"]["twelvedata_url"] = self.api.url
        ssm.put_parameter(Name=name, Value=json.dumps(contract), Overwrite=True)

    @property
    def outputs(self) -> dict[str, dict[str, str]]:
        """By stack's part, such as Ingestion, its outputs."""
        read: dict[str, dict[str, str]] = json.loads((self.folder / "outputs.json").read_text())
        return {name.rsplit("-", 1)[1]: found for name, found in read.items()}

    @cached_property
    def contract(self) -> RuntimeContract:
        """The deployment's contract, out of its parameter."""
        return parse(self.client("ssm").get_parameter(Name=parameter_name(self.env))["Parameter"]["Value"])

    @cached_property
    def host_role(self) -> str:
        """The name of the role that Airflow works by."""
        stack = f"Barflow-{self.env}-Orchestration"
        found = self.client("cloudformation").describe_stack_resources(StackName=stack)["StackResources"]
        (profile,) = [item for item in found if item["ResourceType"] == "AWS::IAM::InstanceProfile"]
        made = self.client("iam").get_instance_profile(InstanceProfileName=profile["PhysicalResourceId"])
        return str(made["InstanceProfile"]["Roles"][0]["RoleName"])

    def put_secrets_in(self) -> str:
        """As the runbook says: each of its ``put_secret`` lines."""
        self.barflow(
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
                raise BarflowError(f"the runbook asks for the secret {name}, which the rehearsal does not know")
            store.put_secret_value(SecretId=name, SecretString=found[0])
        return f"{len(names)} secrets"

    def variables(self, **more: str) -> dict[str, str]:
        """The environment of a program that works on this deployment from outside."""
        plain = {name: value for name, value in self.aws.environment().items() if not name.startswith("BARFLOW_")}
        return {**plain, "BARFLOW_ENV": self.env, "BARFLOW_POLL_SECONDS": "0.5", **self.machine.settings, **more}

    def barflow(self, *arguments: str) -> str:
        """The command as an operator runs it. Returns its stdout; raises BarflowError with its last word."""
        command = [str(Path(sys.executable).with_name("barflow")), *arguments]
        done = subprocess.run(command, env=self.variables(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise BarflowError((done.stderr.strip() or done.stdout.strip() or "no word").splitlines()[-1])
        return done.stdout

    def tick(self) -> str:
        """Invokes the deployed function as the runbook says. Raises BarflowError unless it succeeded."""
        name = self.outputs["Ingestion"]["IngestFunction"]
        begun = utc_now()
        found = self.client("lambda").invoke(FunctionName=name, Payload=b'{"force": true}')
        self.first_tick = self.first_tick or (begun, utc_now())
        answer = json.loads(found["Payload"].read())
        if answer.get("outcome") != "succeeded":
            raise BarflowError(f"the tick ended so: {json.dumps(answer)[:500]}")
        return f"{answer['new']} bars stored, {answer['revised']} revised"

    def start_airflow(self) -> str:
        """Airflow with the DAGs, the library and the connections that were deployed, as on the host."""
        host, bucket = self.folder / "host", self.contract.storage.code_bucket
        prefix = self.contract.storage.code_uri.removeprefix(f"s3://{bucket}/")
        s3 = self.client("s3")
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for item in page["Contents"]:
                target = host / item["Key"].removeprefix(prefix)
                target.parent.mkdir(parents=True, exist_ok=True)
                s3.download_file(bucket, item["Key"], str(target))
        prefixes = {"connections_prefix": self.contract.airflow.connections_prefix}
        metadata = self.dsn(self.contract.warehouse.airflow_secret).replace("postgresql://", "postgresql+psycopg://", 1)
        environment = self.variables(
            AWS_ACCESS_KEY_ID=f"{ROLE_KEY}{self.host_role}",
            AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=metadata,
            AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC=metadata,
            AIRFLOW__SECRETS__BACKEND="airflow.providers.amazon.aws.secrets.secrets_manager.SecretsManagerBackend",
            AIRFLOW__SECRETS__BACKEND_KWARGS=json.dumps({**prefixes, "variables_prefix": None, "config_prefix": None}),
            PYTHONPATH=str(host),
            PYTHONSAFEPATH="1",  # else the checkout's library would come first
            BARFLOW_PROCESS_SCHEDULE="",
            BARFLOW_POLL_SECONDS="3",
            BARFLOW_RETRIES=str(TRIES - 1),
            BARFLOW_RETRY_SECONDS="1",
            BARFLOW_CLUSTER_START_MINUTES="0.3",
        )
        made = LocalAirflow(
            self.folder / "airflow",
            environment,
            dags=host / "orchestration" / "dags",
            on_start=self.services.watch,
        )
        self.airflow = self._open.enter_context(made)
        self.airflow.wait_for_dag(SWEEP)
        self.airflow.call("PATCH", f"dags/{SWEEP}", json={"is_paused": True})  # it would come by the hour
        return f"{len(self.airflow.call('GET', 'dags')['dags'])} DAGs"

    def start_run(self) -> str:
        """Triggers process_bars. Returns the run's id."""
        return self.airflow.trigger(DAG)

    def tick_by_airflow(self) -> str:
        """The DAG that invokes the function. Raises BarflowError where it fails."""
        return self._run_dag(INGEST)

    def backfill(self) -> str:
        """The DAG that fetches the session before all that is staged. Raises BarflowError where that fails."""
        settings = self.contract.settings
        staging = Staging(connect(self.services.mongodb_uri))
        first = min(item["session_date"] for item in staging.counts())
        before = previous_session(date.fromisoformat(first))
        assert before is not None
        day = before.session_date.isoformat()
        self._run_dag(BACKFILL, symbols=[*settings.symbols], start=day, end=day)
        bars = sum(item["bars"] for item in staging.counts() if item["session_date"] == day)
        if bars != len(settings.symbols) * before.expected_bars:
            raise BarflowError(f"{bars} bars of {day} are staged, not {before.expected_bars} of each symbol")
        return f"{bars} bars of {day}"

    def _run_dag(self, dag: str, **params: Any) -> str:
        run = self.airflow.trigger(dag, **params)
        if (state := self.airflow.wait(dag, run, RUN_SECONDS)) != "success":
            raise BarflowError(f"{dag} ended as {state}: {self.airflow.tasks(dag, run)}")
        return state

    @property
    def outbox(self) -> Outbox:
        """The alerts, with what each channel took of them."""
        return Outbox(connect(self.services.mongodb_uri))

    def leave_an_alert(self) -> str:
        """Puts one in the outbox that the topic did not take, as after an outage. Returns its id."""
        symbol, day = self.contract.settings.symbols[0], last_sessions(self.clock.now, 1)[0]
        event = Event(load_rules().all[0], symbol, day.session_date, day.opens, "up", 6.0, 100.0, 106.0)
        self.outbox.add([(Message.of(event, utc_now()), ["sns"])])
        return event.id

    def sweep(self) -> str:
        """The DAG that ends the cluster of a run that is over, none made by hand or by others, and sends what waits.

        Raises BarflowError where it fails, does too much or too little.
        """
        emr, alert = self.client("emr"), self.leave_an_alert()
        over = self.airflow.call("GET", f"dags/{DAG}/dagRuns")["dag_runs"][0]["dag_run_id"]
        left, by_hand = (
            str(emr.run_job_flow(**cluster_request(self.contract, run))["JobFlowId"]) for run in (over, "by-hand")
        )
        others = {**cluster_request(self.contract, "theirs"), "Name": "theirs", "Tags": []}
        theirs = str(emr.run_job_flow(**others)["JobFlowId"])
        self.airflow.call("PATCH", f"dags/{SWEEP}", json={"is_paused": False})
        self._run_dag(SWEEP)
        alive = {item["Id"] for item in self.clusters(*ALIVE)}
        if alive != {by_hand, theirs}:
            raise BarflowError(
                f"of {left}, whose run is over, {by_hand}, by hand, and {theirs}, another's, live on: {sorted(alive)}"
            )
        emr.terminate_job_flows(JobFlowIds=[by_hand, theirs])
        if alert in {item["_id"] for item in self.outbox.find(undelivered=True)}:
            raise BarflowError(f"the alert {alert}, which the topic did not take before, waits still")
        return f"{left} is ended, {by_hand} and {theirs} were left alone; an alert that waited is sent"

    def end_of(self, run: str) -> str:
        """The state that a run ends in, with its tasks that did not succeed."""
        state = self.airflow.wait(DAG, run, RUN_SECONDS)
        failed = [name for name, ended in self.airflow.tasks(DAG, run).items() if ended == "failed"]
        return f"{state} ({', '.join(failed)})" if failed else state

    def kill(self, run: str, task: str) -> None:
        """Kills the process of a task at work. Raises BarflowError where it has none."""
        if not self.airflow.kill_task(DAG, run, task):
            raise BarflowError(f"{task} has no process: {self.airflow.tasks(DAG, run)}")

    def steps(self) -> list[str]:
        """The states of the newest cluster's steps."""
        newest = max(self.clusters(), key=lambda item: item["Status"]["Timeline"]["CreationDateTime"])
        return [step["Status"]["State"] for step in self.client("emr").list_steps(ClusterId=newest["Id"])["Steps"]]

    def next_session(self) -> None:
        """Lets the market trade one more session."""
        self.clock.now = self._closes.pop(0)

    def dsn(self, secret: str) -> str:
        """Of a user of the database server, by its deployed secret."""
        user = json.loads(self.client("secretsmanager").get_secret_value(SecretId=secret)["SecretString"])
        return "postgresql://{username}:{password}@{host}:{port}/{dbname}?sslmode=require".format(**user)

    @property
    def reader(self) -> str:
        """The warehouse as who reads it."""
        return self.dsn(self.contract.warehouse.reader_secret)

    def seen(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of the tables that readers see."""
        with psycopg.connect(self.reader, options="-c timezone=UTC") as connection:
            return {
                table: connection.execute(f"select * from market.{table} order by 1, 2".encode()).fetchall()
                for table in TABLES
            }

    def clusters(self, *states: str) -> list[dict[str, Any]]:
        """EMR's clusters in one of the states, or all."""
        wanted = {"ClusterStates": [*states]} if states else {}
        found: list[dict[str, Any]] = self.client("emr").list_clusters(**wanted)["Clusters"]
        return found
