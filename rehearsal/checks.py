"""Checks of a rehearsed environment. Each returns what it found, and raises BarflowError for what must not be."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path

import psycopg

from barflow.alerts.rules import SilenceRule
from barflow.alerts.rules_file import load_rules
from barflow.errors import BarflowError
from barflow.market.sessions import last_sessions
from barflow.operations.clusters import ALIVE
from barflow.operations.warehouse_crawl import is_driver_installed
from barflow.warehouse.load import TABLES
from emulators.aws.account import ROLE_KEY
from local.live import sessions_of
from rehearsal.environment import RehearsedEnvironment
from rehearsal.oracle import Oracle, disagreements

CRAWL_SECONDS = 60
BOT, EXAMPLES = "bot", Path(__file__).parents[1] / "examples"
RUN_BOT = "import sys, paper_bot as p; p.from_queue(sys.argv[1], p.PaperBot(sys.argv[2]).handle, wait=1)"
# Parts of the names of the roles that programs use in a rehearsal.
ACTIVE_ROLES = ("IngestRole", "HostRole", "NodeRole", "Loader", "MigrateRole", "PublishRelease")


def check_rows(deployed: RehearsedEnvironment) -> str:
    """Compare the warehouse with what the Twelve Data emulator served, computed by the oracle."""
    earliest = min(call.params["start_date"] for call in deployed.api.requests if "start_date" in call.params)
    first = datetime.fromisoformat(f"{earliest.replace(' ', 'T')}+00:00")
    bars = sessions_of(deployed.source, deployed.contract.settings.symbols, first, deployed.clock.now)
    if found := disagreements(deployed.reader_dsn, Oracle.of_sessions(bars)):
        differences = "; ".join(f"{table}: {len(items)}, first {items[0]}" for table, items in found.items())
        raise BarflowError(f"the warehouse differs from the oracle in {differences}")
    return f"{sum(map(len, deployed.reader_rows().values()))} rows equal the oracle's"


def check_ledger(deployed: RehearsedEnvironment) -> str:
    """Compare the counts of all hops with ``barflow status``, which counts the archive with Athena."""
    found = json.loads(deployed.run_barflow("status", "--json"))
    return f"{len(found['symbols'])} symbols balanced"


def check_catalog(deployed: RehearsedEnvironment) -> str:
    """Check that the crawlers succeeded and that the catalog has the partitions and tables that exist.

    Without its driver the warehouse's crawler must not have run.
    """
    glue, names, deadline = deployed.client("glue"), deployed.contract.glue, time.monotonic() + CRAWL_SECONDS
    with_driver = is_driver_installed(deployed.client("s3"), names.jdbc_driver)
    if not with_driver and "LastCrawl" in glue.get_crawler(Name=names.warehouse_crawler)["Crawler"]:
        raise BarflowError(f"the crawler {names.warehouse_crawler} ran without its driver")
    for crawler in (names.lake_crawler, *([names.warehouse_crawler] if with_driver else [])):
        while (found := glue.get_crawler(Name=crawler)["Crawler"])["State"] != "READY":
            if time.monotonic() > deadline:
                raise BarflowError(f"the crawler {crawler} is still {found['State']}")
            time.sleep(0.2)
        if found["LastCrawl"]["Status"] != "SUCCEEDED":
            raise BarflowError(f"the crawler {crawler} did not succeed: {found['LastCrawl']}")
    partitions = glue.get_partitions(DatabaseName=names.database, TableName=names.bars_table)["Partitions"]
    tables = {item["Name"] for item in glue.get_tables(DatabaseName=names.database)["TableList"]}
    expected = TABLES if with_driver else ()
    missing = {f"warehouse_barflow_market_{name}" for name in expected} - tables
    if missing or not partitions:
        raise BarflowError(f"the catalog has {len(partitions)} partitions and lacks the tables {sorted(missing)}")
    return f"{len(partitions)} partitions, {len(tables)} tables"


def check_rules(deployed: RehearsedEnvironment) -> str:
    """Evaluate the deployed data quality rules with their DAG: all must hold, and Slack must have the result."""
    posted = len(deployed.slack.posts)
    deployed.check_archive()
    return find_slack_message(deployed, posted, "data quality", "rules hold").splitlines()[1]


def check_no_cluster_runs(deployed: RehearsedEnvironment) -> str:
    """Check that every cluster has ended: a running one costs money."""
    running = deployed.clusters(*ALIVE)
    if running:
        raise BarflowError(f"{len(running)} clusters still run: {[item['Status']['State'] for item in running]}")
    return f"{len(deployed.clusters())} clusters created, none runs"


def check_no_call_denied(deployed: RehearsedEnvironment) -> str:
    """Check that no call was denied; a program can ignore a denial and go on.

    Each active role must have made at least one call.
    """
    if denied := deployed.runtime.denied_calls:
        raise BarflowError(f"{len(denied)} calls were denied: {'; '.join(sorted(set(denied)))}")
    calls = deployed.runtime.evaluated_calls
    if idle := [part for part in ACTIVE_ROLES if not any(part in role for role in calls)]:
        raise BarflowError(f"no call was evaluated for the roles {', '.join(idle)}")
    return f"{calls.total():,} calls of {len(calls)} roles, none denied"


def check_bot_alerts(deployed: RehearsedEnvironment) -> str:
    """Let the example bot empty its queue with a role that has the deployed policy.

    The bot must act once on each alert that the topic accepted. Those must include the alerts that the deployed rules
    had to raise.
    """
    queue, policy = (deployed.outputs["Alerts"][name].split(",")[0] for name in ("BotQueues", "BotPolicies"))
    iam = deployed.client("iam")
    iam.create_role(RoleName=BOT, AssumeRolePolicyDocument="{}")
    iam.attach_role_policy(RoleName=BOT, PolicyArn=policy)
    file = deployed.folder / "paper.sqlite"
    done = subprocess.run(
        [sys.executable, "-c", RUN_BOT, queue, str(file)],
        env=deployed.variables(AWS_ACCESS_KEY_ID=f"{ROLE_KEY}{BOT}", PYTHONPATH=str(EXAMPLES)),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BarflowError(f"the bot failed: {done.stderr.strip().splitlines()[-1]}")
    sent = [item["_id"] for item in deployed.outbox.find() if item["channels"]["sns"]["delivered_at"]]
    with closing(sqlite3.connect(file)) as database:
        handled = [name for (name,) in database.execute("select id from handled")]
    acted = done.stdout.count("profit ")  # it prints its profit once an alert
    if sorted(handled) != sorted(sent) or acted != len(sent) or not sent:
        raise BarflowError(
            f"the topic accepted {len(sent)} alerts, and the bot stored {len(handled)} and acted {acted} times: "
            f"{done.stdout[:300]}"
        )
    assert deployed.first_tick is not None
    if missing := stale_feed_alerts(deployed.contract.settings.symbols, *deployed.first_tick) - set(sent):
        raise BarflowError(f"the deployed rules did not raise {', '.join(sorted(missing))}")
    return f"{len(sent)} alerts, each once"


def stale_feed_alerts(symbols: Iterable[str], started: datetime, ended: datetime) -> set[str]:
    """Return the ids of the alerts that the default rules must raise in a tick between two moments (UTC).

    The market's clock must stand in an earlier session. There is no such alert in the first minutes of a session, nor
    if a session opens during the tick.
    """
    newest = last_sessions(started, 1)[0]
    silent_for = min(started, newest.closes) - newest.opens
    if last_sessions(ended, 1)[0] != newest:
        return set()
    return {
        f"{rule.id}|{symbol}|{newest.opens:%Y-%m-%dT%H:%M:%SZ}"
        for symbol in symbols
        for rule in load_rules().rules(symbol)
        if isinstance(rule, SilenceRule) and silent_for >= timedelta(minutes=rule.minutes)
    }


def check_alarm_reaches_slack(deployed: RehearsedEnvironment) -> str:
    """Publish a deployed alarm to the operations topic as CloudWatch does; the deployed function must post it."""
    template = deployed.folder / "assembly" / f"Barflow-{deployed.env}-Observability.template.json"
    alarms = [
        item["Properties"]
        for item in json.loads(template.read_text())["Resources"].values()
        if item["Type"] == "AWS::CloudWatch::Alarm"
    ]
    alarm = next(item for item in alarms if item["AlarmName"].endswith("UndeliveredAlerts"))
    message = {name: alarm[name] for name in ("AlarmName", "AlarmDescription")} | {"NewStateValue": "ALARM"}
    posted, topic = len(deployed.slack.posts), deployed.outputs["Observability"]["OperationsTopic"]
    deployed.client("sns").publish(TopicArn=topic, Message=json.dumps(message))
    find_slack_message(deployed, posted, alarm["AlarmName"], "is ALARM", alarm["AlarmDescription"])
    return f"{alarm['AlarmName']}, one of {len(alarms)}"


def check_verify(deployed: RehearsedEnvironment) -> str:
    """Run `barflow verify` as an operator does. Each of its checks must pass."""
    found = json.loads(deployed.run_barflow("verify", "--env", deployed.env, "--yes", "--json"))
    return f"{len(found['checks'])} checks passed"


def rotate_passwords(deployed: RehearsedEnvironment) -> str:
    """Let Secrets Manager renew every password that it rotates. The new one must work and the old one must not.

    RDS itself renews that of the owner.
    """
    store = deployed.client("secretsmanager")
    listed = store.list_secrets(Filters=[{"Key": "name", "Values": [f"barflow/{deployed.env}/"]}])["SecretList"]
    rotated = [item["Name"] for item in listed if item.get("RotationEnabled")]
    if not rotated:
        raise BarflowError("no secret of the environment is rotated")
    for name in rotated:
        before = deployed.dsn(name)
        version = store.rotate_secret(SecretId=name)["VersionId"]
        if store.get_secret_value(SecretId=name)["VersionId"] != version:
            raise BarflowError(f"the password of {name} is still the old one: see the log of its rotation function")
        psycopg.connect(deployed.dsn(name)).close()
        with suppress(psycopg.OperationalError):
            psycopg.connect(before).close()
            raise BarflowError(f"the old password of {name} still works")
    return f"{len(rotated)} passwords renewed, the old ones denied"


def find_slack_message(deployed: RehearsedEnvironment, since: int, *texts: str) -> str:
    """Return the newest Slack message, from number ``since`` on, that contains all the texts."""
    messages: list[str] = [post["text"] for post in deployed.slack.posts[since:]]
    for message in reversed(messages):
        if all(text in message for text in texts):
            return message
    raise BarflowError(f"no message in Slack contains {' and '.join(texts)}; the messages are {messages}")


def run_failure(deployed: RehearsedEnvironment, ended: str) -> BarflowError:
    """Return the error of a run that ended as it must not, with Slack's newest message and the denied calls."""
    newest = deployed.slack.posts[-1]["text"] if deployed.slack.posts else "Nothing was posted to Slack."
    return BarflowError(" ".join([f"the run ended as {ended}.", *newest.split(), *deployed.runtime.denied_calls]))


@contextmanager
def readers_see_no_change(deployed: RehearsedEnvironment) -> Iterator[None]:
    """Raise BarflowError if the block changes what readers see."""
    before = deployed.reader_rows()
    yield
    after = deployed.reader_rows()
    changed = [table for table in before if before[table] != after[table]]
    if changed:
        raise BarflowError(f"a failed run changed what readers see in {', '.join(changed)}")
