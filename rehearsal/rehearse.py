"""`make rehearse`: deploy an environment to emulators, run it, inject faults and check that it recovers.

The rehearsal deploys with the CDK CLI, stores the secrets, runs a tick, processes and loads with the deployed DAGs, and
compares every row with an oracle. Then it injects one fault after another. Each failed run must fail visibly, leave no
cluster, post the reason to Slack and change nothing that readers see. The next run must process all that is missing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from barflow.cli.terminal import console, table
from barflow.errors import BarflowError
from barflow.progress import Log
from emulators.aws.faults import Fault
from emulators.aws.server import EmulatorError
from rehearsal.checks import (
    check_alarm_reaches_slack,
    check_bot_alerts,
    check_catalog,
    check_ledger,
    check_no_call_denied,
    check_no_cluster_runs,
    check_rows,
    check_rules,
    check_verify,
    find_slack_message,
    readers_see_no_change,
    rotate_passwords,
    run_failure,
)
from rehearsal.deployments import (
    check_arrows,
    deploy_changed_version,
    deploy_second_environment,
    fail_first_deployments,
)
from rehearsal.environment import TRIES, RehearsedEnvironment
from rehearsal.page import Step, render_page


@dataclass(frozen=True)
class Scenario:
    """A fault that every try of a task meets.

    A program is killed when it prints ``at``. Slack must then post ``reason``.
    """

    name: str
    fault: Fault
    task: str
    reason: str
    at: str = ""


SCENARIOS = (
    Scenario(
        "kill the Spark step while it writes",
        Fault.STEP_KILLED,
        "bars_to_parquet",
        "Container killed on request",
        at="writing",
    ),
    Scenario(
        "kill the Glue job while it aggregates",
        Fault.JOB_KILLED,
        "bars_to_warehouse",
        "Container killed on request",
        at="aggregating",
    ),
    Scenario("keep the cluster in STARTING", Fault.CLUSTER_STUCK, "cluster_is_up", "is STARTING after"),
)


@dataclass
class Steps:
    """The steps that succeeded, each with its seconds; each is logged when it ends."""

    log: Log
    done: list[Step] = field(default_factory=list)

    def __call__(self, name: str, run: Callable[[], str]) -> None:
        """Run a step. Raise BarflowError with the name of the step if it fails."""
        started = time.monotonic()
        try:
            found = run()
        except BarflowError as error:
            raise BarflowError(f"{name}: {error}") from None
        step = Step(name, time.monotonic() - started, found)
        self.done.append(step)
        self.log(f"{step.name:<56} {step.seconds:6.1f} s  {step.found}")


def rehearse(
    env: str, folder: Path, log: Log, inspect: Callable[[RehearsedEnvironment], None] = lambda deployed: None
) -> list[Step]:
    """Run every step in an empty folder, and return the steps. ``inspect`` is called after the first successful run.

    Raise BarflowError that names the first step that is not as expected, EmulatorError if AWS's emulator does not
    start.
    """
    step = Steps(log)
    with RehearsedEnvironment(env, folder, log) as deployed:
        step("synthesize", deployed.synth)
        step("bootstrap the account", deployed.bootstrap)
        step("check the account with barflow preflight", deployed.preflight)
        step("fail the first deployment of each stack", partial(fail_first_deployments, deployed))
        step("deploy every stack", deployed.deploy)
        step("check that every arrow between services is allowed", partial(check_arrows, deployed))
        step("store the secrets that the runbook names", deployed.store_secrets)
        step("start Airflow with the deployed DAGs", deployed.start_airflow)
        step("run a tick with the deployed function", deployed.run_tick)
        step("run process_bars: cluster, Spark, Glue, crawler", partial(run_without_driver, deployed))
        inspect(deployed)
        check_run(deployed, step)
        for scenario in SCENARIOS:
            step("advance the market a session, run a tick", partial(run_next_tick, deployed))
            step(scenario.name, partial(run_to_failure, deployed, scenario))
        step("advance the market a session, run a tick with its DAG", partial(run_next_tick_in_airflow, deployed))
        step("backfill the session before the first one", deployed.backfill)
        step("install the driver of the warehouse's crawler", deployed.install_driver)
        step("rotate the passwords of the warehouse", partial(rotate_passwords, deployed))
        step("run process_bars, kill its worker twice", partial(run_with_killed_workers, deployed))
        check_run(deployed, step)
        step("evaluate the data quality rules", partial(check_rules, deployed))
        step("run the sweep: it terminates orphaned clusters", deployed.sweep)
        step("run the example bot on its queue", partial(check_bot_alerts, deployed))
        step("send an alarm: it reaches Slack", partial(check_alarm_reaches_slack, deployed))
        step("run barflow verify", partial(check_verify, deployed))
        step("check that the roles' policies allowed every call", partial(check_no_call_denied, deployed))
        step("deploy a second version, then the first again", partial(deploy_changed_version, deployed))
        step("deploy a second environment into the account", partial(deploy_second_environment, deployed))
    return step.done


def check_run(deployed: RehearsedEnvironment, step: Steps) -> None:
    """Check everything that must hold after a successful run."""
    step("  compare every row with the oracle", partial(check_rows, deployed))
    step("  compare the hops' counts, by Athena too", partial(check_ledger, deployed))
    step("  check the crawlers and the catalog", partial(check_catalog, deployed))
    step("  check that no cluster runs", partial(check_no_cluster_runs, deployed))


def run_next_tick(deployed: RehearsedEnvironment) -> str:
    """Trade one more session, and run a tick with the deployed function."""
    deployed.trade_next_session()
    return deployed.run_tick()


def run_next_tick_in_airflow(deployed: RehearsedEnvironment) -> str:
    """Trade one more session, and run a tick with its DAG."""
    deployed.trade_next_session()
    return deployed.run_tick_in_airflow()


def run_to_success(deployed: RehearsedEnvironment) -> str:
    """Start a run that must succeed, and return the counts that it posts to Slack."""
    posted = len(deployed.slack.posts)
    if (ended := deployed.wait_for_run(deployed.start_run())) != "success":
        raise run_failure(deployed, ended)
    return find_slack_message(deployed, posted, "succeeded", "what changed reconciles at every hop").splitlines()[1]


def run_without_driver(deployed: RehearsedEnvironment) -> str:
    """Start a run that must succeed and name the missing driver with its command. Return the counts in Slack."""
    posted = len(deployed.slack.posts)
    found = run_to_success(deployed)
    find_slack_message(deployed, posted, "The warehouse was not crawled", deployed.contract.glue.jdbc_driver)
    return found


def run_to_failure(deployed: RehearsedEnvironment, scenario: Scenario) -> str:
    """Start a run in which every try of the task meets the fault, and return the reason in Slack.

    Raise BarflowError unless the task fails, no cluster is left, Slack has the reason and readers see no change.
    """
    posted = len(deployed.slack.posts)
    deployed.runtime.inject(scenario.fault, scenario.at, times=TRIES)
    with readers_see_no_change(deployed):
        ended = deployed.wait_for_run(deployed.start_run())
    deployed.runtime.clear_faults()
    if ended != f"failed ({scenario.task})":
        raise run_failure(deployed, ended)
    check_no_cluster_runs(deployed)
    message = find_slack_message(deployed, posted, f"process_bars.{scenario.task}", "failed in", scenario.reason)
    return message.splitlines()[1].split(". ")[0]


def run_with_killed_workers(deployed: RehearsedEnvironment) -> str:
    """Start a run, and kill its worker when the cluster is created and again while the step runs.

    Raise BarflowError unless the run succeeds with one cluster and one step.
    """
    before = len(deployed.clusters())
    deployed.runtime.inject(Fault.LATE_ANSWER, at="30")
    run = deployed.start_run()
    wait_until("no cluster was created", lambda: len(deployed.clusters()) > before)
    deployed.kill_task(run, "create_cluster")
    wait_until("no step was running", lambda: "RUNNING" in deployed.step_states())
    deployed.kill_task(run, "bars_to_parquet")
    if (ended := deployed.wait_for_run(run)) != "success":
        raise run_failure(deployed, ended)
    created, steps = len(deployed.clusters()) - before, deployed.step_states()
    if created != 1 or steps != ["COMPLETED"]:
        raise BarflowError(f"the run created {created} clusters, and the newest has steps {steps}")
    return "succeeded with one cluster and one step"


def wait_until(failure: str, condition: Callable[[], bool], seconds: float = 120) -> None:
    """Wait for a condition. Raise BarflowError with the failure if it does not hold in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BarflowError(f"{failure} in {seconds:.0f} s")
        time.sleep(0.1)


def print_table(steps: list[Step]) -> None:
    """Print the final table to stdout."""
    shown = table("rehearsed", ("step", "seconds"))
    shown.add_column("found")  # it wraps, so that the other columns keep their width
    for step in steps:
        shown.add_row(step.name, f"{step.seconds:.1f}", step.found)
    shown.add_row("all", f"{sum(step.seconds for step in steps):.1f}", style="bold")
    console().print(shown)


def main() -> int:
    """Rehearse the environment of the command line, and return the exit code."""
    parser = argparse.ArgumentParser(prog="make rehearse", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--env", default="dev", help="environment: dev (default), staging or prod")
    parser.add_argument("--to", type=Path, help="also write the page with the table here: docs/rehearsal.md")
    options = parser.parse_args()
    try:
        # Not in a folder of the user's: PostgreSQL's own user must have access.
        with tempfile.TemporaryDirectory(prefix="barflow-rehearsal-", ignore_cleanup_errors=True) as folder:
            steps = rehearse(options.env, Path(folder), lambda line: print(line, file=sys.stderr, flush=True))
    except (BarflowError, EmulatorError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, BarflowError) else 1
    except KeyboardInterrupt:
        print("stopped; nothing of the rehearsal was kept", file=sys.stderr)
        return 130
    print_table(steps)
    if options.to:
        options.to.write_text(render_page(options.env, steps))
    return 0
