"""What is people told of runs? The texts of a failed task and of a process run that succeeded, for Slack. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from barflow.operations.run_summary import Summary

LONGEST_REASON = 400
# What a library may put into an error: a URL's user and password, tokens of Slack and AWS, name=value of a secret.
SECRETS = (
    (re.compile(r"(\w+://)[^/\s@]+@"), r"\1…@"),
    (re.compile(r"\bxox[a-z]-[\w-]+|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|hooks\.slack\.com/\S+"), "…"),
    (re.compile(r"(?i)\b((?:api_?key|password|passwd|token|secret)\w*\s*[=:]\s*)\S+"), r"\1…"),
)
# By task, the part of the runbook that helps, and the first thing to do.
NEXT = {
    "create_cluster": ("A process run", "look whether the account's limits and the subnets leave room for a cluster"),
    "cluster_is_up": ("A process run", "look at the cluster's state change reason; the next run makes another"),
    "bars_to_parquet": ("A process run", "read the step's log; the next run does the work of this one"),
    "terminate_cluster": ("A process run", "see that the cluster ends: `aws emr list-clusters --active`"),
    "bars_to_warehouse": ("A process run", "read the job's log; the archive is whole, and the next run loads it"),
    "warehouse_is_up": ("The warehouse", "see why the database is not available"),
    "reconcile": ("A process run", "run `barflow status` on the host"),
    "ingest": ("Bars stopped coming", "nothing is lost: the next tick fetches from the newest stored bar on"),
    "fetch": ("Backfill", "trigger it again with the same values: it goes on where it stopped"),
    "plan": ("Backfill", "change the symbols or days, or allow more days"),
    "end_strays": ("A process run", "end what is left by hand: `aws emr list-clusters --active`"),
    "send_alerts": ("Price alerts", "look at the channels; alerts stay in the outbox"),
}
ANYTHING = ("Does it run?", "read the task's log, mend the cause, clear the task")


@dataclass(frozen=True)
class Failure:
    """A task that failed for good. ``tries`` is how often it was tried; ``reason`` as the error said it, if it did."""

    env: str
    dag: str
    task: str
    run: str
    tries: int
    reason: str | None
    log_url: str


def failure_text(failure: Failure) -> str:
    """One message: what failed, in which try, why, where its log is, what to do next."""
    section, todo = NEXT.get(failure.task, ANYTHING)
    lines = (
        f":red_circle: *{failure.dag}.{failure.task}* failed in {failure.env}, try {failure.tries}",
        f"Why: {safe_reason(failure.reason)}",
        f"Next: {todo} (runbook: “{section}”)",
        f"<{failure.log_url}|log> · run `{failure.run}`",
    )
    return "\n".join(lines)


def safe_reason(text: str | None) -> str:
    """The first line of what an error said, without what may be a secret."""
    lines = (text or "").strip().splitlines()
    if not lines:
        return "its process died without a word; a host that ran out of memory, or was stopped, does that"
    found = lines[0]
    for pattern, instead in SECRETS:
        found = pattern.sub(instead, found)
    return found if len(found) <= LONGEST_REASON else found[: LONGEST_REASON - 1] + "…"


def summary_text(summary: Summary) -> str:
    """One message: rows in and out, rejected, duration and cost."""
    minutes, seconds = divmod(round(summary.seconds), 60)
    rows = ", ".join(f"{name} {count:,}" for name, count in sorted(summary.loaded.items())) or "nothing new"
    cost = "" if summary.dollars is None else f" · {summary.dollars:.2f} USD at list prices"
    lines = (
        f":white_check_mark: *process run* succeeded in {summary.env}: every hop reconciles",
        f"In: {summary.published:,} Parquet rows of {summary.symbols} symbols · Out: {rows}",
        f"Rejected and waiting: {summary.rejected:,} · {minutes} min {seconds:02} s{cost} · `{summary.run_id}`",
    )
    return "\n".join(lines)
