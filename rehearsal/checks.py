"""What must hold after a rehearsed run? Each check says what it found, and raises BarflowError for what is not so."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from barflow.alerts.rules import SilenceRule, load_rules
from barflow.errors import BarflowError
from barflow.market.sessions import last_sessions
from barflow.operations.clusters import ALIVE
from barflow.warehouse.load import TABLES
from emulators.aws.machine import ROLE_KEY
from local.live import sessions_of
from rehearsal.environment import Rehearsal
from rehearsal.oracle import Oracle, disagreements

CRAWL_SECONDS = 60
BOT, EXAMPLES = "bot", Path(__file__).parents[1] / "examples"
RUN_BOT = "import bot, sys; bot.run(sys.argv[1], sys.argv[2], lambda alert: print(alert['id'], flush=True), wait=1)"
# Parts of the names of roles whose programs a rehearsal has at work.
AT_WORK = ("IngestRole", "HostRole", "NodeRole", "Loader", "MigrateRole", "PublishRelease")


def rows_as_the_oracle_has_them(deployed: Rehearsal) -> str:
    """Holds the warehouse against what the vendor served, computed another way."""
    asked = min(call.params["start_date"] for call in deployed.api.requests)
    first = datetime.fromisoformat(f"{asked.replace(' ', 'T')}+00:00")
    bars = sessions_of(deployed.source, deployed.contract.settings.symbols, first, deployed.clock.now)
    if found := disagreements(deployed.reader, Oracle.of_sessions(bars)):
        differences = "; ".join(f"{table}: {len(items)}, first {items[0]}" for table, items in found.items())
        raise BarflowError(f"the warehouse differs from the oracle in {differences}")
    return f"{sum(map(len, deployed.seen().values()))} rows as the oracle has them"


def ledger_balances(deployed: Rehearsal) -> str:
    """Has ``barflow status`` compare the hops, the archive by Athena. Raises where they do not balance."""
    found = json.loads(deployed.barflow("status", "--json"))
    return f"{len(found['symbols'])} symbols balanced"


def catalog_is_entered(deployed: Rehearsal) -> str:
    """Raises BarflowError unless both crawls succeeded and the catalog has what they must have found."""
    glue, names, deadline = deployed.client("glue"), deployed.contract.glue, time.monotonic() + CRAWL_SECONDS
    for crawler in (names.lake_crawler, names.warehouse_crawler):
        while (found := glue.get_crawler(Name=crawler)["Crawler"])["State"] != "READY":
            if time.monotonic() > deadline:
                raise BarflowError(f"the crawler {crawler} is {found['State']}")
            time.sleep(0.2)
        if found["LastCrawl"]["Status"] != "SUCCEEDED":
            raise BarflowError(f"the crawler {crawler} {found['LastCrawl']}")
    partitions = glue.get_partitions(DatabaseName=names.database, TableName=names.bars_table)["Partitions"]
    tables = {item["Name"] for item in glue.get_tables(DatabaseName=names.database)["TableList"]}
    missing = {f"warehouse_barflow_market_{name}" for name in TABLES} - tables
    if missing or not partitions:
        raise BarflowError(f"the catalog has {len(partitions)} partitions and not the tables {sorted(missing)}")
    return f"{len(partitions)} partitions, {len(tables)} tables"


def no_cluster_lives(deployed: Rehearsal) -> str:
    """Raises BarflowError while one costs money."""
    alive = deployed.clusters(*ALIVE)
    if alive:
        raise BarflowError(f"{len(alive)} clusters still live: {[item['Status']['State'] for item in alive]}")
    return f"{len(deployed.clusters())} clusters made, none lives"


def no_call_was_refused(deployed: Rehearsal) -> str:
    """Raises BarflowError where a program asked for what its role does not allow, though it went on without.

    And where none of a role's calls was judged at all, whose programs have been at work.
    """
    if refused := deployed.machine.refused:
        raise BarflowError(f"{len(refused)} calls were refused: {'; '.join(sorted(set(refused)))}")
    calls = deployed.machine.judged
    if idle := [part for part in AT_WORK if not any(part in role for role in calls)]:
        raise BarflowError(f"no call was judged of the roles {', '.join(idle)}")
    return f"{calls.total():,} of {len(calls)} roles, none refused"


def the_bot_heard_each_alert_once(deployed: Rehearsal) -> str:
    """The example bot empties its queue, by a role that has the deployed policy.

    Raises BarflowError where what it acted on is not what the topic took, or what the deployed rules must have found
    is not among it.
    """
    queue, policy = (deployed.outputs["Alerts"][name].split(",")[0] for name in ("BotQueues", "BotPolicies"))
    iam = deployed.client("iam")
    iam.create_role(RoleName=BOT, AssumeRolePolicyDocument="{}")
    iam.attach_role_policy(RoleName=BOT, PolicyArn=policy)
    heard = subprocess.run(
        [sys.executable, "-c", RUN_BOT, queue, str(deployed.folder / "seen.sqlite")],
        env=deployed.variables(AWS_ACCESS_KEY_ID=f"{ROLE_KEY}{BOT}", PYTHONPATH=str(EXAMPLES)),
        capture_output=True,
        text=True,
        check=False,
    )
    if heard.returncode:
        raise BarflowError(f"the bot ended with {heard.stderr.strip().splitlines()[-1]}")
    sent = [item["_id"] for item in deployed.outbox.find() if item["channels"]["sns"]["delivered_at"]]
    acted_on = heard.stdout.splitlines()
    if sorted(acted_on) != sorted(sent) or not sent:
        raise BarflowError(
            f"the topic took {len(sent)} alerts and the bot acted on {len(acted_on)}: {heard.stdout[:300]}"
        )
    assert deployed.first_tick is not None
    if missing := silences(deployed.contract.settings.symbols, *deployed.first_tick) - set(sent):
        raise BarflowError(f"the deployed rules did not find {', '.join(sorted(missing))}")
    return f"{len(sent)} alerts, each once"


def silences(symbols: Iterable[str], begun: datetime, ended: datetime) -> set[str]:
    """The alerts that the shipped rules must find in a tick between two moments (UTC), where the market stood still
    sessions before.

    There are none in the first minutes of a session, nor where one opens meanwhile.
    """
    newest = last_sessions(begun, 1)[0]
    quiet = min(begun, newest.closes) - newest.opens
    if last_sessions(ended, 1)[0] != newest:
        return set()
    return {
        f"{rule.id}|{symbol}|{newest.opens:%Y-%m-%dT%H:%M:%SZ}"
        for symbol in symbols
        for rule in load_rules().rules(symbol)
        if isinstance(rule, SilenceRule) and quiet >= timedelta(minutes=rule.minutes)
    }


def an_alarm_reaches_slack(deployed: Rehearsal) -> str:
    """What CloudWatch would say of a deployed alarm to the operations topic, the deployed function tells Slack."""
    template = deployed.folder / "assembly" / f"Barflow-{deployed.env}-Observability.template.json"
    alarms = [
        item["Properties"]
        for item in json.loads(template.read_text())["Resources"].values()
        if item["Type"] == "AWS::CloudWatch::Alarm"
    ]
    alarm = next(item for item in alarms if item["AlarmName"].endswith("UndeliveredAlerts"))
    said = {name: alarm[name] for name in ("AlarmName", "AlarmDescription")} | {"NewStateValue": "ALARM"}
    heard, topic = len(deployed.slack.posts), deployed.outputs["Observability"]["OperationsTopic"]
    deployed.client("sns").publish(TopicArn=topic, Message=json.dumps(said))
    told(deployed, heard, alarm["AlarmName"], "is ALARM", alarm["AlarmDescription"])
    return f"{alarm['AlarmName']}, one of {len(alarms)}"


def told(deployed: Rehearsal, since: int, *words: str) -> str:
    """The newest of Slack's messages, from a number on, that has all the words. Raises BarflowError without one."""
    texts = [post["text"] for post in deployed.slack.posts[since:]]
    for text in reversed(texts):
        if all(word in text for word in words):
            return text
    raise BarflowError(f"no message in Slack says {' and '.join(words)}; it has {texts}")


def last_told(deployed: Rehearsal) -> str:
    """The newest of Slack's messages, on one line, and the calls that were refused."""
    newest = deployed.slack.posts[-1]["text"] if deployed.slack.posts else "Slack heard nothing."
    return " ".join([*newest.split(), *deployed.machine.refused])


@contextmanager
def unchanged_for_readers(deployed: Rehearsal) -> Iterator[None]:
    """Raises BarflowError where the block changed what readers see."""
    before = deployed.seen()
    yield
    after = deployed.seen()
    changed = [table for table in before if before[table] != after[table]]
    if changed:
        raise BarflowError(f"a failed run changed what readers see in {', '.join(changed)}")
