"""`barflow verify` on a deployed environment: every check passes, and each is seen to fail on a planted defect."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from barflow.operations.checks import Check
from barflow.operations.clusters import ALIVE
from barflow.operations.verify import account as deployment
from barflow.operations.verify import alarm, bots, hops
from barflow.operations.verify.deployed import Deployed, NotAsExpectedError
from barflow.operations.verify.run import NAMES, chosen_steps, run
from emulators.aws.account import ROLE_KEY
from emulators.aws.faults import Fault
from rehearsal.environment import RehearsedEnvironment

pytestmark = [pytest.mark.minutes, pytest.mark.timeout(1800)]
BARFLOW = str(Path(sys.executable).with_name("barflow"))
Verify = Callable[..., dict[str, Check]]


@pytest.fixture(scope="module")
def rehearsed() -> Iterator[RehearsedEnvironment]:
    """Deploy dev to the emulator, and set the variables of an operator's shell."""
    with (
        tempfile.TemporaryDirectory(prefix="barflow-tests-", ignore_cleanup_errors=True) as folder,
        RehearsedEnvironment("dev", Path(folder), print) as deployed,
        pytest.MonkeyPatch.context() as shell,
    ):
        for step in (deployed.synth, deployed.bootstrap, deployed.deploy):
            step()
        for name, value in deployed.variables().items():
            shell.setenv(name, value)
        yield deployed


@pytest.fixture
def opened(rehearsed: RehearsedEnvironment, monkeypatch: pytest.MonkeyPatch) -> Deployed:
    """Return the environment as the checks see it; they wait for seconds only."""
    monkeypatch.setattr(alarm, "POST_SECONDS", 3)
    monkeypatch.setattr(alarm, "LATE_SECONDS", 1)
    for module in (bots, deployment):
        monkeypatch.setattr(module, "METRIC_SECONDS", 1)
    monkeypatch.setattr(bots, "RECEIVE_SECONDS", 2)
    found = Deployed.open("dev", print)
    found.poll = 0.2
    return found


@pytest.fixture
def look(opened: Deployed) -> Callable[[str], Check]:
    """Return a function that runs one check."""

    def one(name: str) -> Check:
        (check,) = run(opened, chosen_steps([name]))
        return check

    return one


def test_the_placeholders_of_a_deployment_are_found(
    rehearsed: RehearsedEnvironment, look: Callable[[str], Check]
) -> None:
    found = look("secrets")
    assert not found.ok
    assert "barflow/dev/twelvedata, barflow/dev/mongodb, barflow/dev/slack" in found.found
    assert "runbook" in found.fix
    rehearsed.store_secrets()
    assert look("secrets").ok


def test_a_dashboard_without_a_tick_is_found(look: Callable[[str], Check]) -> None:
    assert "BarsReceived has no value since" in look("dashboards").found


def delivering_role(rehearsed: RehearsedEnvironment) -> str:
    """Deploy the delivery stack, and return the name of the role of the delivery workflow."""
    outputs = rehearsed.folder / "delivery.json"
    rehearsed.deploy_app(
        f"{sys.executable} -m stacks.delivery", outputs, "-c", f"env={rehearsed.env}", "-c", "repository=acme/barflow"
    )
    (found,) = json.loads(outputs.read_text()).values()
    return str(found["DeliverRoleArn"].rsplit("/", 1)[-1])


def test_every_check_passes_as_the_delivering_role_and_leaves_nothing_behind(rehearsed: RehearsedEnvironment) -> None:
    """The role's policies allow each call of the command."""
    alarms = rehearsed.client("cloudwatch").describe_alarms()["MetricAlarms"]
    role = delivering_role(rehearsed)
    done = subprocess.run(
        [BARFLOW, "verify", "--env", "dev", "--yes", "--json"],
        env=os.environ | {"AWS_ACCESS_KEY_ID": f"{ROLE_KEY}{role}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert rehearsed.runtime.denied_calls == []
    found = json.loads(done.stdout)
    assert (done.returncode, found["ok"]) == (0, True), done.stderr
    assert [check["name"] for check in found["checks"]] == [*NAMES]
    assert "5 credits of Twelve Data" in done.stderr
    assert "about 20 minutes and 0.26 USD" in done.stderr
    assert rehearsed.clusters(*ALIVE) == []
    after = rehearsed.client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert [item["StateValue"] for item in after] == [item["StateValue"] for item in alarms]
    tests = [post for post in rehearsed.slack.posts if "barflow verify" in post["text"]]
    assert [post["text"].split("\n")[0] for post in tests] == [
        ":red_circle: *Barflow-dev-UndeliveredAlerts* is ALARM",
        ":large_green_circle: *Barflow-dev-UndeliveredAlerts* is OK",
    ]
    assert rehearsed.slack.deleted == tests
    assert waiting(rehearsed, "BARFLOW.TEST") == []
    assert rehearsed.runtime.evaluated_calls[role] > 50


def waiting(rehearsed: RehearsedEnvironment, symbol: str) -> list[str]:
    """Return the ids of a symbol's alerts in the bot's queue."""
    queue = rehearsed.outputs["Alerts"]["BotQueues"]
    found = rehearsed.client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10, VisibilityTimeout=0)
    alerts = [json.loads(message["Body"]) for message in found.get("Messages", [])]
    return [alert["id"] for alert in alerts if alert["symbol"] == symbol]


def test_the_bots_own_alerts_stay_in_its_queue(rehearsed: RehearsedEnvironment, look: Callable[[str], Check]) -> None:
    before = waiting(rehearsed, "AAPL")
    assert before
    assert look("bots").ok
    assert waiting(rehearsed, "AAPL") == before


def test_a_failed_tick_is_found(rehearsed: RehearsedEnvironment, look: Callable[[str], Check]) -> None:
    store = rehearsed.client("secretsmanager")
    key = store.get_secret_value(SecretId="barflow/dev/twelvedata")["SecretString"]
    store.put_secret_value(SecretId="barflow/dev/twelvedata", SecretString="wrong")
    found = look("tick")
    store.put_secret_value(SecretId="barflow/dev/twelvedata", SecretString=key)
    assert not found.ok
    assert "the tick of barflow-dev-ingest" in found.found
    assert "wrong" not in found.found


def test_a_failed_run_is_found_and_its_cluster_has_ended(
    rehearsed: RehearsedEnvironment, look: Callable[[str], Check]
) -> None:
    rehearsed.runtime.inject(Fault.STEP_KILLED, "")
    found = look("process")
    rehearsed.runtime.clear_faults()
    assert not found.ok
    assert "the Spark step is FAILED" in found.found
    assert rehearsed.clusters(*ALIVE) == []


@pytest.mark.parametrize(("stopped_by", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_command_that_is_stopped_terminates_its_cluster(
    rehearsed: RehearsedEnvironment, stopped_by: signal.Signals, code: int
) -> None:
    before = len(rehearsed.clusters())
    started = subprocess.Popen(
        [BARFLOW, "verify", "--env", "dev", "--yes", "--only", "process"],
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background ignores Ctrl-C, and its children would, too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while len(rehearsed.clusters()) == before:
        time.sleep(0.1)
    time.sleep(1)
    assert len(rehearsed.clusters(*ALIVE)) == 1
    started.send_signal(stopped_by)
    _, printed = started.communicate(timeout=30)
    assert started.returncode == code, printed
    assert rehearsed.clusters(*ALIVE) == []


def test_a_changed_value_and_a_lost_row_are_found(
    rehearsed: RehearsedEnvironment, look: Callable[[str], Check]
) -> None:
    with psycopg.connect(rehearsed.services.superuser_dsn, autocommit=True) as owner:
        newest = "(select max(session_date) from market.bar_1d)"
        (day, close), *_ = owner.execute(
            f"select session_date, close from market.bar_1h where symbol = 'AAPL' and session_date = {newest}"
        ).fetchall()
        change = "update market.bar_1h set close = %s where symbol = 'AAPL' and session_date = %s and close = %s"
        owner.execute(change, (close + 0.01, day, close))
        found = look("rows")
        owner.execute(change, (close, day, close + 0.01))
        assert not found.ok
        assert f"1 values of {day} differ. The first: bar_1h AAPL" in found.found
        assert look("rows").ok
        owner.execute("create table kept as select * from market.bar_5min where symbol = 'TSLA'")
        owner.execute("delete from market.bar_5min where symbol = 'TSLA'")
        lost = look("status")
        columns = "string_agg(attname, ', ')"
        stored = "attrelid = 'kept'::regclass and attnum > 0 and attname <> 'is_complete'"  # it is generated
        (names,) = owner.execute(f"select {columns} from pg_attribute where {stored}").fetchone() or ("",)
        owner.execute(f"insert into market.bar_5min ({names}) select {names} from kept")
        owner.execute("drop table kept")
        assert not lost.ok
        assert "exit code 1" in lost.found
        assert look("status").ok


def test_an_alarm_that_does_not_reach_slack_is_found_and_set_back(
    rehearsed: RehearsedEnvironment, opened: Deployed, look: Callable[[str], Check]
) -> None:
    store = rehearsed.client("secretsmanager")
    token = store.get_secret_value(SecretId="barflow/dev/slack")["SecretString"]
    store.put_secret_value(SecretId="barflow/dev/slack", SecretString="xoxb-wrong")
    found = look("alarm")
    store.put_secret_value(SecretId="barflow/dev/slack", SecretString=token)
    assert not found.ok
    assert "no message was posted" in found.found
    assert "aws logs tail /aws/lambda/Barflow-dev-Observability" in found.fix
    states = {item["StateValue"] for item in rehearsed.client("cloudwatch").describe_alarms()["MetricAlarms"]}
    assert states == {"OK"}


def test_ctrl_c_sets_the_alarm_back_and_deletes_its_messages(
    rehearsed: RehearsedEnvironment, opened: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    posted = len(rehearsed.slack.posts)
    original = opened.wait_for
    calls = iter([interrupted, original, original])
    monkeypatch.setattr(opened, "wait_for", lambda *given: next(calls)(*given))
    with pytest.raises(KeyboardInterrupt):
        alarm.reaches_slack(opened)
    states = {item["StateValue"] for item in rehearsed.client("cloudwatch").describe_alarms()["MetricAlarms"]}
    assert states == {"OK"}
    assert len(rehearsed.slack.posts) == posted + 2
    assert rehearsed.slack.deleted[-2:] == rehearsed.slack.posts[-2:]


def test_ctrl_c_during_the_check_of_the_queues_leaves_no_alert(
    rehearsed: RehearsedEnvironment, opened: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    calls = iter([interrupted, opened.wait_for])
    monkeypatch.setattr(opened, "wait_for", lambda *given: next(calls)(*given))
    with pytest.raises(KeyboardInterrupt):
        bots.reached(opened)
    queue = rehearsed.outputs["Alerts"]["BotQueues"]
    shown = rehearsed.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    assert {shown["ApproximateNumberOfMessages"], shown["ApproximateNumberOfMessagesNotVisible"]} == {"0"}


def test_a_queue_that_gets_no_alerts_is_found(rehearsed: RehearsedEnvironment, look: Callable[[str], Check]) -> None:
    sns, topic = rehearsed.client("sns"), rehearsed.outputs["Alerts"]["AlertsTopic"]
    (subscription,) = sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    sns.unsubscribe(SubscriptionArn=subscription["SubscriptionArn"])
    found = look("bots")
    again = sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=subscription["Endpoint"])["SubscriptionArn"]
    sns.set_subscription_attributes(SubscriptionArn=again, AttributeName="RawMessageDelivery", AttributeValue="true")
    assert not found.ok
    assert "did not reach" in found.found
    assert "barflow-dev-alerts-example.fifo" in found.fix
    assert look("bots").ok


def test_an_alert_that_a_running_bot_took_counts(
    rehearsed: RehearsedEnvironment, opened: Deployed, look: Callable[[str], Check], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bots, "_take", lambda *given: False)
    rehearsed.client("cloudwatch").put_metric_data(
        Namespace="AWS/SQS",
        MetricData=[
            {
                "MetricName": "NumberOfMessagesSent",
                "Dimensions": [{"Name": "QueueName", "Value": "barflow-dev-alerts-example.fifo"}],
                "Value": 1,
                "Timestamp": datetime.now(UTC) + timedelta(seconds=2),
            }
        ],
    )
    assert look("bots").found == "barflow-dev-alerts-example.fifo: a running bot received it"


def test_a_rotation_that_is_off_or_did_not_end_is_found(
    rehearsed: RehearsedEnvironment, look: Callable[[str], Check]
) -> None:
    store, name = rehearsed.client("secretsmanager"), "barflow/dev/database/barflow_reader"
    assert look("rotation").ok
    value = store.get_secret_value(SecretId=name)["SecretString"]
    store.put_secret_value(SecretId=name, SecretString=value, VersionStages=["AWSPENDING"])
    found = look("rotation")
    assert (found.ok, found.found) == (False, f"{name} has a rotation that did not end")
    assert found.fix == f"aws secretsmanager rotate-secret --secret-id {name}"
    store.cancel_rotate_secret(SecretId=name)
    assert look("rotation").found == f"{name} does not rotate"


def test_a_dashboard_without_any_data_is_found(rehearsed: RehearsedEnvironment, look: Callable[[str], Check]) -> None:
    cloudwatch, name = rehearsed.client("cloudwatch"), "Barflow-dev-Technical"
    body = cloudwatch.get_dashboard(DashboardName=name)["DashboardBody"]
    empty = {"widgets": [{"properties": {"metrics": [["AWS/Lambda", "Errors", "FunctionName", "another"]]}}]}
    cloudwatch.put_dashboard(DashboardName=name, DashboardBody=json.dumps(empty))
    found = look("dashboards")
    cloudwatch.put_dashboard(DashboardName=name, DashboardBody=body)
    assert (found.ok, found.found) == (False, f"{name}: none of 1 metrics has a value of the last 3 hours")


@pytest.mark.parametrize(
    ("spent", "days", "expected"),
    [
        (91.5, 0, "91.50 USD spent this month, the budget is 90.00 USD"),
        (0, 40, "the budget barflow-dev has counted nothing since"),
    ],
)
def test_a_budget_that_is_exceeded_or_counts_nothing_is_found(
    rehearsed: RehearsedEnvironment, opened: Deployed, spent: float, days: int, expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    budgets, account = rehearsed.client("budgets"), "123456789012"
    budget = budgets.describe_budget(AccountId=account, BudgetName="barflow-dev")["Budget"]
    budgets.delete_budget(AccountId=account, BudgetName="barflow-dev")
    spend = {"ActualSpend": {"Amount": str(spent), "Unit": "USD"}}
    kept = {name: budget[name] for name in ("BudgetName", "BudgetType", "TimeUnit", "BudgetLimit")}
    budgets.create_budget(AccountId=account, Budget=kept | {"CalculatedSpend": spend})
    opened.deployed_at -= timedelta(days=days)
    monkeypatch.setattr(deployment, "utc_now", lambda: datetime(2026, 11, 29, tzinfo=UTC))
    (found,) = run(opened, chosen_steps(["cost"]))
    assert not found.ok
    assert expected in found.found


def test_a_denied_call_names_its_permission_and_the_other_checks_run(
    rehearsed: RehearsedEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    iam = rehearsed.client("iam")
    iam.create_role(RoleName="narrow", AssumeRolePolicyDocument="{}")
    actions = ["ssm:GetParameter", "cloudformation:DescribeStacks", "secretsmanager:DescribeSecret"]
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]}
    iam.put_role_policy(RoleName="narrow", PolicyName="p", PolicyDocument=json.dumps(document))
    monkeypatch.setitem(os.environ, "AWS_ACCESS_KEY_ID", "role-narrow")
    found = {check.name: check for check in run(Deployed.open("dev", print), chosen_steps(["secrets", "tick", "cost"]))}
    assert found["secrets"].ok
    assert found["tick"].found == "the profile has no permission lambda:InvokeFunction"
    assert found["cost"].found == "the profile has no permission budgets:ViewBudget"
    assert "allow lambda:InvokeFunction" in found["tick"].fix


def test_a_host_that_does_not_run_commands_is_found(opened: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = {"Status": "TimedOut", "StatusDetails": "DeliveryTimedOut", "ResponseCode": -1}
    monkeypatch.setattr(opened.client("ssm"), "get_command_invocation", lambda **given: ended)
    with pytest.raises(NotAsExpectedError, match="did not run `barflow status`: DeliveryTimedOut"):
        hops.stores_agree(opened)
