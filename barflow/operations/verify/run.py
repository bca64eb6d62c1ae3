"""The checks of `barflow verify` in their order, what they do and cost, and their results."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from barflow.errors import BadInputError, BarflowError
from barflow.operations.checks import Check
from barflow.operations.run_summary import CRAWL_HOURS, CRAWLS
from barflow.operations.verify import account, alarm, bots, hops
from barflow.operations.verify.deployed import Deployed, NotAsExpectedError, aws_errors

RUN_MINUTES = 20  # that the cluster of a process run lives, including its start
JOB_DPU_HOURS = 0.2


@dataclass(frozen=True)
class Step:
    """A check to run: its name, what it does to the environment, and the function that checks."""

    name: str
    does: str
    look: Callable[[Deployed], str]


STEPS = (
    Step("secrets", "checks that each secret was set; reads no value", account.secrets_are_set),
    Step("tick", "runs one tick: {credits} credits of Twelve Data", hops.tick_runs),
    Step(
        "process",
        "runs process and aggregate once on a cluster of its own: about {minutes} minutes and {dollars:.2f} USD",
        hops.process_run_succeeds,
    ),
    Step("status", "runs `barflow status` on the host", hops.stores_agree),
    Step("rows", "compares every row of a session with the archive, on the host", hops.rows_agree),
    Step(
        "alarm",
        "sets an alarm and sets it back; deletes its messages in {channel} (e-mails remain)",
        alarm.reaches_slack,
    ),
    Step("bots", "publishes a test alert of the symbol BARFLOW.TEST and deletes it from each queue", bots.reached),
    Step("rotation", "checks the rotation of the warehouse's passwords", account.secrets_rotate),
    Step("dashboards", "checks that each dashboard has data", account.dashboards_have_data),
    Step("cost", "checks the budget", account.cost_is_within_budget),
)
NAMES = tuple(step.name for step in STEPS)


def chosen_steps(names: Collection[str]) -> list[Step]:
    """Return the steps with these names in their order, or all steps. Raise BadInputError for an unknown name."""
    if unknown := sorted(set(names) - set(NAMES)):
        raise BadInputError(f"--only {unknown[0]}: choose from {', '.join(NAMES)}")
    return [step for step in STEPS if not names or step.name in names]


def describe(deployed: Deployed, steps: Collection[Step]) -> list[str]:
    """Return a line per step: what it does to the environment, and its cost at the list prices of the deployment."""
    contract = deployed.contract
    dpu_hours = JOB_DPU_HOURS + CRAWLS * CRAWL_HOURS
    values = {
        "credits": len(contract.settings.symbols),
        "minutes": RUN_MINUTES,
        "dollars": RUN_MINUTES / 60 * contract.emr.hour_dollars + dpu_hours * contract.glue.dpu_hour_dollars,
        "channel": contract.settings.slack_channel,
    }
    return [f"{step.name:<11} {step.does.format(**values)}" for step in steps]


def run(deployed: Deployed, steps: Collection[Step]) -> Iterator[Check]:
    """Run the checks one after the other and yield each result. A check that fails does not stop the others."""
    for number, step in enumerate(steps, 1):
        deployed.log(f"{number} of {len(steps)}: {step.name}")
        started = time.monotonic()
        check = _result(deployed, step)
        deployed.log(f"  {'ok' if check.ok else 'FAILED'} in {time.monotonic() - started:.0f} s: {check.found}")
        yield check


def _result(deployed: Deployed, step: Step) -> Check:
    try:
        with aws_errors(step.name):
            return Check(step.name, True, step.look(deployed))
    except NotAsExpectedError as error:
        return Check(step.name, False, str(error), error.fix)
    except BarflowError as error:
        return Check(
            step.name,
            False,
            str(error),
            f"fix the cause, then run `barflow verify --env {deployed.env} --only {step.name}`",
        )
    except Exception as error:  # a fault of the check itself must not hide the results of the others
        return Check(step.name, False, f"the check itself failed: {type(error).__name__}: {error}", "report this fault")
