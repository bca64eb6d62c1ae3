"""`make rehearse`: does what is deployed work together, and does it come back from trouble? On stand-ins, no account.

It deploys an environment by the CDK CLI, puts the secrets in, ticks, processes, loads and compares every row with an
oracle; then it breaks one part after another. Each failed run must go red, leave no cluster and change nothing that
readers see, and the next run must repair all.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from barflow.errors import BarflowError
from local.aws_machine import Trouble
from local.rehearsal import TRIES, Rehearsal

Say = Callable[[str], None]


@dataclass
class Steps:
    """The list of what was done, with its seconds; each is said when it is over."""

    say: Say
    done: list[tuple[str, float, str]] = field(default_factory=list)

    def __call__(self, name: str, work: Callable[[], str | None]) -> None:
        begun = time.monotonic()
        try:
            told = work() or ""
        except BarflowError as error:
            raise BarflowError(f"{name}: {error}") from None
        seconds = time.monotonic() - begun
        self.done.append((name, seconds, told))
        self.say(f"{name:<58} {seconds:6.1f} s  {told}")


def rehearse(env: str, folder: Path, say: Say) -> list[tuple[str, float, str]]:
    """All of it. Returns each step with its seconds and what was found. Raises BarflowError at the first that fails."""
    step = Steps(say)
    with Rehearsal(env, folder, say) as deployed:
        step("synthesize", lambda: deployed.cdk.synth() and None)
        step("bootstrap the account", lambda: deployed.cdk.bootstrap() and None)
        step("deploy every stack", deployed.deploy)
        step("put the secrets in, as the runbook says", deployed.put_secrets_in)
        step("start Airflow with the deployed DAGs", deployed.start_airflow)
        step("a tick: the deployed function fetches from the vendor", deployed.tick)
        step("process_bars: cluster, Spark step, Glue job, crawlers", lambda: succeed(deployed))
        compare(deployed, step)
        for name, trouble, at, task in TROUBLES:
            step("a session more: a tick", lambda: more(deployed))
            step(name, lambda: fail(deployed, trouble, at, task))
        step("a session more: a tick", lambda: more(deployed))
        step("the worker is killed twice, and the run goes on", lambda: survive(deployed))
        compare(deployed, step)
    return step.done


TROUBLES = (
    ("the Spark step is killed while it writes", Trouble.STEP_DIES, "writing", "bars_to_parquet"),
    ("the Glue job is killed while it aggregates", Trouble.JOB_DIES, "aggregating", "bars_to_warehouse"),
    ("the cluster never starts", Trouble.CLUSTER_STUCK, "", "cluster_is_up"),
)


def compare(deployed: Rehearsal, step: Steps) -> None:
    """All that must hold after a run that went well."""
    step("  every row against the oracle", deployed.check_numbers)
    step("  the ledger balances, the archive counted by Athena", deployed.check_ledger)
    step("  no cluster lives", deployed.check_no_cluster_lives)


def more(deployed: Rehearsal) -> str:
    deployed.next_session()
    return deployed.tick()


def succeed(deployed: Rehearsal) -> str:
    """A run that must go green, and tells Slack what it did."""
    heard = len(deployed.slack.posts)
    if (ended := deployed.end_of(deployed.start_run())) != "success":
        raise BarflowError(f"the run ended as {ended}")
    return deployed.told(heard, "succeeded", "every hop reconciles").splitlines()[1]


def fail(deployed: Rehearsal, trouble: Trouble, at: str, task: str) -> str:
    """A run that meets the trouble in every try of a task: it goes red, its cluster ends, Slack says why, and readers
    see what they saw."""
    heard = len(deployed.slack.posts)
    deployed.machine.expect(trouble, at, times=TRIES)
    with deployed.unchanged_for_readers():
        ended = deployed.end_of(deployed.start_run())
    deployed.machine.calm()
    if ended != f"failed ({task})":
        raise BarflowError(f"the run ended as {ended}")
    deployed.check_no_cluster_lives()
    return deployed.told(heard, f"process_bars.{task}", "failed in", "Why:").splitlines()[1]


def survive(deployed: Rehearsal) -> str:
    """A run whose worker dies when its cluster is made and again while its step runs: one cluster, one step, green."""
    before = len(deployed.clusters())
    deployed.machine.expect(Trouble.ANSWER_LATE)
    run = deployed.start_run()
    wait_until(lambda: len(deployed.clusters()) > before)
    deployed.kill(run, "create_cluster")
    wait_until(lambda: "RUNNING" in deployed.steps())
    deployed.kill(run, "bars_to_parquet")
    if (ended := deployed.end_of(run)) != "success":
        raise BarflowError(f"the run ended as {ended}")
    made, steps = len(deployed.clusters()) - before, deployed.steps()
    if made != 1 or steps != ["COMPLETED"]:
        raise BarflowError(f"the run made {made} clusters, and the last had steps {steps}")
    return "one cluster, one step"


def wait_until(true: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise BarflowError(f"nothing of it in {seconds:.0f} s")
        time.sleep(0.1)


def main() -> int:
    options = argparse.ArgumentParser(prog="make rehearse", description=__doc__.split("\n", 1)[0])
    options.add_argument("--env", default="dev")
    given = options.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="barflow-rehearsal-", ignore_cleanup_errors=True) as folder:
            rehearse(given.env, Path(folder), lambda text: print(text, file=sys.stderr, flush=True))
    except BarflowError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
