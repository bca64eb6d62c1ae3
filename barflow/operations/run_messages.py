"""Slack messages about runs: a failed task, a successful process run, and the data quality. Texts only, no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from barflow.operations.quality import Evaluation
from barflow.operations.run_summary import Summary
from barflow.text import redacted, slack_escaped

MAX_REASON_LENGTH = 400
MOST_DIFFERING = 5
# By task: the section of the runbook, and the first thing to do.
ADVICE = {
    "create_cluster": ("A process run", "check that the account's quotas and the subnets allow one more cluster"),
    "cluster_is_up": ("A process run", "read the cluster's state change reason; the next run creates another cluster"),
    "bars_to_parquet": ("A process run", "read the step's log; the next run processes the same changes"),
    "crawl_lake": ("Query the archive", "start the crawler again; the run is loaded, a new month is not in Athena yet"),
    "crawl_warehouse": ("The warehouse", "fix the cause; the run is loaded, and the next run crawls again"),
    "terminate_cluster": ("A process run", "check that the cluster terminates: `aws emr list-clusters --active`"),
    "bars_to_warehouse": ("A process run", "read the job's log; the archive is complete, and the next run loads it"),
    "warehouse_is_up": ("The warehouse", "find out why the database is not available"),
    "reconcile": ("A process run", "run `barflow status` on the host"),
    "reconcile_daily": ("A process run", "run `barflow status --full` on the host"),
    "evaluate_rules": ("Data quality", "find the bars that break the rule, fix them, and run check_archive again"),
    "ingest": ("Bars stopped coming", "nothing is lost: the next tick fetches from the newest stored bar on"),
    "fetch": ("Backfill", "trigger it again with the same values: it continues where it stopped"),
    "plan": ("Backfill", "choose fewer symbols or days, or allow more days"),
    "terminate_orphans": ("A process run", "terminate what is left by hand: `aws emr list-clusters --active`"),
    "send_alerts": ("Price alerts", "check the channels; the alerts stay in the outbox"),
}
GENERAL_ADVICE = ("Does it run?", "read the task's log, fix the cause, clear the task")
NO_REASON = "the task's process ended without an error; the host may have run out of memory or been stopped"


@dataclass(frozen=True)
class Failure:
    """A task that failed and is not retried again. ``tries`` counts its tries; ``reason`` is the error's message."""

    env: str
    dag: str
    task: str
    run: str
    tries: int
    reason: str | None
    log_url: str


def failure_text(failure: Failure) -> str:
    """Return the message about a failed task: task, try, reason, next step, and a link to the log."""
    section, action = ADVICE.get(failure.task, GENERAL_ADVICE)
    task = slack_escaped(f"{failure.dag}.{failure.task}")
    lines = (
        f":red_circle: *{task}* failed in {slack_escaped(failure.env)}, try {failure.tries}",
        f"Why: {slack_escaped(first_line(failure.reason), MAX_REASON_LENGTH)}",
        f"Next: {action} (runbook: “{section}”)",
        f"<{slack_escaped(failure.log_url).replace('|', '%7C')}|log> · run `{slack_escaped(failure.run)}`",
    )
    return "\n".join(lines)


def first_line(text: str | None) -> str:
    """Return the first line of an error's message. Secrets are removed first, since one may reach over lines."""
    return next(iter(redacted(text or "").strip().splitlines()), NO_REASON)


def summary_text(summary: Summary) -> str:
    """Return the message about a process run that succeeded: rows in and out, rejected bars, duration and cost."""
    minutes, seconds = divmod(round(summary.seconds), 60)
    loaded = {name: count for name, count in sorted(summary.loaded.items()) if count}
    rows = ", ".join(f"{name} {count:,}" for name, count in loaded.items()) or "nothing new"
    cost = "" if summary.dollars is None else f" · {summary.dollars:.2f} USD at list prices"
    env, run_id = slack_escaped(summary.env), slack_escaped(summary.run_id)
    lines = (
        f":white_check_mark: *process run* succeeded in {env}: what changed reconciles at every hop",
        f"In: {summary.published:,} Parquet rows of {summary.symbols} symbols · Out: {rows}",
        f"In quarantine: {summary.rejected:,} · {minutes} min {seconds:02} s{cost} · `{run_id}`",
        *([slack_escaped(summary.note)] if summary.note else []),
        *([f":warning: {slack_escaped(_differing(summary.differing))}"] if summary.differing else []),
    )
    return "\n".join(lines)


def _differing(sessions: Sequence[str]) -> str:
    """Return the newest sessions that differ from the vendor's daily bar, and what to do."""
    more = f"; and {len(sessions) - MOST_DIFFERING} more" if len(sessions) > MOST_DIFFERING else ""
    return f"{'; '.join(sessions[-MOST_DIFFERING:])}{more}. `barflow status` shows all"


def quality_text(env: str, done: Evaluation) -> str:
    """Return the message about an evaluation in which every data quality rule holds."""
    return (
        f":white_check_mark: *data quality* in {slack_escaped(env)}: all {done.rules} rules hold\n"
        f"Evaluated: {slack_escaped(', '.join(done.months))} of the archive · `{slack_escaped(done.run_id)}`"
    )


def failed_rules_text(done: Evaluation) -> str:
    """Return the error of an evaluation in which rules fail, in one line: each rule with its reason."""
    return (
        f"{len(done.failed)} of {done.rules} data quality rules fail on {', '.join(done.months)} of the archive: "
        f"{'; '.join(done.failed)}. Nothing was changed. The evaluation is {done.run_id}."
    )
