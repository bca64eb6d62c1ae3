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
from local.rehearsal import Rehearsal

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
        step("a tick: the deployed function fetches from the vendor", deployed.tick)
        step("a run: cluster, Spark step, Glue job, crawlers", lambda: succeed(deployed))
        step("  every row against the oracle", deployed.check_numbers)
        step("  the ledger balances, the archive counted by Athena", deployed.check_ledger)
        step("  no cluster lives", deployed.check_no_cluster_lives)
        for name, trouble, at in (
            ("the Spark step is killed while it writes", Trouble.STEP_DIES, "writing"),
            ("the Glue job is killed while it loads", Trouble.JOB_DIES, "aggregating"),
        ):
            break_and_repair(deployed, step, name, trouble, at)
    return step.done


def break_and_repair(deployed: Rehearsal, step: Steps, name: str, trouble: Trouble, at: str) -> None:
    """One trouble: a session more, a run that must fail, and one that must put all right."""
    deployed.next_session()
    step("one session more, and a tick", deployed.tick)
    step(name, lambda: fail(deployed, trouble, at))
    step("  no cluster lives", deployed.check_no_cluster_lives)
    step("  the next run repairs it", lambda: succeed(deployed))
    step("  every row against the oracle", deployed.check_numbers)
    step("  the ledger balances", deployed.check_ledger)


def succeed(deployed: Rehearsal) -> str:
    return deployed.barflow("run", "--env", deployed.env).strip()


def fail(deployed: Rehearsal, trouble: Trouble, at: str) -> str:
    """A run that meets the trouble: it must go red, and readers see what they saw."""
    deployed.machine.expect(trouble, at)
    with deployed.unchanged_for_readers():
        try:
            succeed(deployed)
        except BarflowError as error:
            return str(error)[:120]
    raise BarflowError("the run went green")


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
