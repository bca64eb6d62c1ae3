"""Evaluate the data quality rules of the archive once per trading day.

AWS Glue evaluates the rules on the months that were published since the last successful evaluation, so the cost depends
on the new data. The result is posted to Slack and counted in the metric RulesFailed, which has an alarm. If a rule
fails, the next evaluations include its month until it is fixed. No process run waits for this.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta

from airflow.providers.amazon.aws.hooks.glue import GlueJobHook
from airflow.sdk import MultipleCronTriggerTimetable, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from barflow_tasks import (
    DEFAULTS,
    ENV,
    LOCAL,
    NEW_YORK,
    START,
    TAGS,
    contract,
    dag_doc,
    log,
    open_stores,
    post_to_slack,
)

# Cron expressions in New York time, separated by semicolons. Without one, the DAG runs only by hand. The default is
# after the last process run.
SCHEDULE = os.environ.get("BARFLOW_QUALITY_SCHEDULE", "15 18 * * MON-FRI")


@task
def evaluate_rules() -> str:
    """Evaluate the rules, publish how many failed, and post the result. Fail without a retry if a rule fails."""
    from barflow.lake.athena import open_archive
    from barflow.operations import cloudwatch as metrics
    from barflow.operations.quality import evaluate, published_months
    from barflow.operations.run_messages import failed_rules_text, quality_text

    context = get_current_context()
    # Airflow's value is a proxy, which is never None itself.
    since = context["prev_start_date_success"] or None
    months = published_months(open_archive(open_stores().settings), since)
    if not months:
        raise AirflowSkipException("nothing was published since the last evaluation")
    token = f"{context['run_id']}-{context['ti'].try_number}"
    done = evaluate(GlueJobHook().conn, contract().glue, months, token, log.info, time.sleep)
    problem = metrics.put([metrics.quality_metrics(ENV, len(done.failed))], datetime.now(UTC))
    log.info("%s", problem or "CloudWatch has the number of failed rules")
    if done.failed:
        raise AirflowFailException(failed_rules_text(done))
    text = quality_text(ENV, done)
    post_to_slack(text)
    return text


@dag(
    dag_id="check_archive",
    schedule=MultipleCronTriggerTimetable(*SCHEDULE.split(";"), timezone=NEW_YORK) if SCHEDULE else None,
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=2),
    default_args=DEFAULTS,
    tags=TAGS,
    doc_md=dag_doc("Data quality", __doc__),
)
def check_archive() -> None:
    """Define the DAG."""
    evaluate_rules()


if not LOCAL:  # Glue evaluates the rules, and a laptop has no Glue
    check_archive()
