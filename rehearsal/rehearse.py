"""`make rehearse`: does what is deployed work together, and does it come back from trouble? On emulators, no account.

It deploys an environment by the CDK CLI, puts the secrets in, ticks, has the deployed DAGs process and load, and holds
every row against an oracle. Then it breaks one part after another: each failed run must go red, leave no cluster, say
why in Slack and change nothing that readers see, and the next run must put all right.
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
from emulators.aws.machine import Trouble
from rehearsal.checks import (
    an_alarm_reaches_slack,
    catalog_is_entered,
    last_told,
    ledger_balances,
    no_call_was_refused,
    no_cluster_lives,
    rows_as_the_oracle_has_them,
    the_bot_heard_each_alert_once,
    told,
    unchanged_for_readers,
)
from rehearsal.environment import TRIES, Rehearsal
from rehearsal.page import Done, page

Say = Callable[[str], None]


@dataclass(frozen=True)
class Break:
    """A trouble that the tries of ``task`` meet, when a program says ``at``; ``why`` is what Slack must have of it."""

    name: str
    trouble: Trouble
    task: str
    why: str
    at: str = ""


BREAKS = (
    Break(
        "the Spark step is killed while it writes",
        Trouble.STEP_DIES,
        "bars_to_parquet",
        "Container killed on request",
        at="writing",
    ),
    Break(
        "the Glue job is killed while it aggregates",
        Trouble.JOB_DIES,
        "bars_to_warehouse",
        "Container killed on request",
        at="aggregating",
    ),
    Break("the cluster never starts", Trouble.CLUSTER_STUCK, "cluster_is_up", "is STARTING after"),
)


@dataclass
class Steps:
    """What was done, with its seconds; each step is said when it is over."""

    say: Say
    done: list[Done] = field(default_factory=list)

    def __call__(self, name: str, work: Callable[[], str]) -> None:
        begun = time.monotonic()
        try:
            found = work()
        except BarflowError as error:
            raise BarflowError(f"{name}: {error}") from None
        step = Done(name, time.monotonic() - begun, found)
        self.done.append(step)
        self.say(f"{step.name:<56} {step.seconds:6.1f} s  {step.found}")


def rehearse(env: str, folder: Path, say: Say, look: Callable[[Rehearsal], None] = lambda deployed: None) -> list[Done]:
    """All of it, in an empty folder. ``look`` may look around after the first run, which went well.

    Raises BarflowError naming the first step that is not as it should be.
    """
    step = Steps(say)
    with Rehearsal(env, folder, say) as deployed:
        step("synthesize", deployed.synth)
        step("bootstrap the account", deployed.bootstrap)
        step("deploy every stack", deployed.deploy)
        step("put the secrets in, as the runbook says", deployed.put_secrets_in)
        step("start Airflow with the deployed DAGs", deployed.start_airflow)
        step("a tick, by the deployed function", deployed.tick)
        step("process_bars: cluster, Spark, Glue, crawlers", partial(succeed, deployed))
        look(deployed)
        compare(deployed, step)
        for item in BREAKS:
            step("a session more, and a tick", partial(one_more, deployed))
            step(item.name, partial(fail, deployed, item))
        step("a session more, and a tick by its DAG", partial(one_more_by_airflow, deployed))
        step("the session before all that is staged, by a backfill", deployed.backfill)
        step("the next run, whose worker is killed twice", partial(survive, deployed))
        compare(deployed, step)
        step("the sweep ends what a run left behind", deployed.sweep)
        step("the example bot reads its queue", partial(the_bot_heard_each_alert_once, deployed))
        step("an alarm reaches Slack", partial(an_alarm_reaches_slack, deployed))
        step("calls to AWS, judged by the roles' policies", partial(no_call_was_refused, deployed))
    return step.done


def compare(deployed: Rehearsal, step: Steps) -> None:
    """All that must hold after a run that went well."""
    step("  every row against the oracle", partial(rows_as_the_oracle_has_them, deployed))
    step("  the ledger balances, counted by Athena", partial(ledger_balances, deployed))
    step("  the crawlers entered archive and warehouse", partial(catalog_is_entered, deployed))
    step("  no cluster lives", partial(no_cluster_lives, deployed))


def one_more(deployed: Rehearsal) -> str:
    deployed.next_session()
    return deployed.tick()


def one_more_by_airflow(deployed: Rehearsal) -> str:
    deployed.next_session()
    return deployed.tick_by_airflow()


def succeed(deployed: Rehearsal) -> str:
    """A run that must go green, and tells Slack what it did."""
    heard = len(deployed.slack.posts)
    if (ended := deployed.end_of(deployed.start_run())) != "success":
        raise BarflowError(f"the run ended as {ended}. {last_told(deployed)}")
    return told(deployed, heard, "succeeded", "every hop reconciles").splitlines()[1]


def fail(deployed: Rehearsal, item: Break) -> str:
    """A run that meets the trouble in every try: red, its cluster ended, Slack says why, readers see what they saw."""
    heard = len(deployed.slack.posts)
    deployed.machine.expect(item.trouble, item.at, times=TRIES)
    with unchanged_for_readers(deployed):
        ended = deployed.end_of(deployed.start_run())
    deployed.machine.calm()
    if ended != f"failed ({item.task})":
        raise BarflowError(f"the run ended as {ended}. {last_told(deployed)}")
    no_cluster_lives(deployed)
    return told(deployed, heard, f"process_bars.{item.task}", "failed in", item.why).splitlines()[1].split(". ")[0]


def survive(deployed: Rehearsal) -> str:
    """A run whose worker dies when its cluster is made and again while its step runs: one cluster, one step, green."""
    before = len(deployed.clusters())
    deployed.machine.expect(Trouble.ANSWER_LATE, at="30")
    run = deployed.start_run()
    wait_until("a cluster", lambda: len(deployed.clusters()) > before)
    deployed.kill(run, "create_cluster")
    wait_until("a step at work", lambda: "RUNNING" in deployed.steps())
    deployed.kill(run, "bars_to_parquet")
    if (ended := deployed.end_of(run)) != "success":
        raise BarflowError(f"the run ended as {ended}. {last_told(deployed)}")
    made, steps = len(deployed.clusters()) - before, deployed.steps()
    if made != 1 or steps != ["COMPLETED"]:
        raise BarflowError(f"the run made {made} clusters, and the last had steps {steps}")
    return "green, with one cluster and one step"


def wait_until(what: str, true: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise BarflowError(f"there was not {what} in {seconds:.0f} s")
        time.sleep(0.1)


def show(done: list[Done]) -> None:
    """The final table, on stdout."""
    shown = table("rehearsed", ("step", "found", "seconds"), left=2)
    for step in done:
        shown.add_row(step.name, step.found, f"{step.seconds:.1f}")
    shown.add_row("all", "", f"{sum(step.seconds for step in done):.1f}", style="bold")
    console().print(shown)


def main() -> int:
    options = argparse.ArgumentParser(prog="make rehearse", description=__doc__.split("\n", 1)[0])
    options.add_argument("--env", default="dev")
    options.add_argument("--to", type=Path, help="writes the table to this page, too: docs/rehearsal.md")
    given = options.parse_args()
    try:
        # Not under a folder of the user's: PostgreSQL's own user must be let in.
        with tempfile.TemporaryDirectory(prefix="barflow-rehearsal-", ignore_cleanup_errors=True) as folder:
            done = rehearse(given.env, Path(folder), lambda text: print(text, file=sys.stderr, flush=True))
    except BarflowError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped; nothing of it is left", file=sys.stderr)
        return 130
    show(done)
    if given.to:
        given.to.write_text(page(given.env, done))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
