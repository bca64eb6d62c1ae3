"""Shared parts of the DAGs: their settings, the defaults of their tasks, and the failure callback.

The settings are environment variables, read when the file is parsed, so that parsing needs no network: BARFLOW_ENV,
BARFLOW_INGEST_RUNNER, BARFLOW_PROCESS_SCHEDULE, BARFLOW_QUALITY_SCHEDULE, BARFLOW_OPENLINEAGE_URL,
BARFLOW_POLL_SECONDS, BARFLOW_RETRIES, BARFLOW_RETRY_SECONDS and BARFLOW_CLUSTER_START_MINUTES. Tasks read everything
else from the runtime contract when they run.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException

from barflow.errors import BadInputError, DayIsSpentError, VendorRefusedError

if TYPE_CHECKING:
    from barflow.contract import RuntimeContract
    from barflow.pipeline.stores import Stores

ENV = os.environ.get("BARFLOW_ENV", "local")
LOCAL = ENV == "local"
NEW_YORK = "America/New_York"
START = datetime(2026, 1, 1, tzinfo=UTC)
# All fetching tasks share the vendor's credits, so only one of them runs at a time.
VENDOR_POOL = "barflow_vendor"
# The template of the lineage run of a task and of its DAG run, which a hop names as its parent, or None.
_MACRO = "{{{{ macros.OpenLineageProviderPlugin.{}(ti) }}}}"
LINEAGE_PARENT = (
    ",".join(map(_MACRO.format, ("lineage_parent_id", "lineage_root_parent_id")))
    if os.environ.get("BARFLOW_OPENLINEAGE_URL")
    else None
)
RUNBOOK = "What to do after a failure is in the operations runbook of the environment (`barflow runbook`)."
TAGS = ["barflow", ENV]

log = logging.getLogger(__name__)


def report_failure(context: Any) -> None:
    """Post a failed task to Slack. This is the failure callback of every task."""
    from barflow.operations.run_messages import Failure, failure_text

    ti, error = context["ti"], context.get("exception")
    reason = None if error is None else str(error) or type(error).__name__
    failure = Failure(ENV, ti.dag_id, ti.task_id, ti.run_id, ti.try_number, reason, ti.log_url)
    post_to_slack(failure_text(failure))


def post_to_slack(text: str) -> None:
    """Post a text to the environment's Slack channel, if it has one. A failure is logged and raises nothing."""
    from barflow.alerts import channels
    from barflow.text import redacted

    try:
        problem = channels.post_to_slack(open_stores().settings, text)
    except Exception as error:  # the task's own result must not depend on Slack
        problem = f"{type(error).__name__}: {error}"
    if problem:
        log.warning("Slack message was not sent: %s", redacted(problem))


DEFAULTS: dict[str, Any] = {
    "owner": "barflow",
    "retries": int(os.environ.get("BARFLOW_RETRIES", "2")),
    "retry_delay": timedelta(seconds=int(os.environ.get("BARFLOW_RETRY_SECONDS", "60"))),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=15),
    "execution_timeout": timedelta(minutes=30),
    "on_failure_callback": report_failure,
}


def dag_doc(title: str, text: str | None) -> str:
    """Return the documentation of a DAG for Airflow's page: its title, its module's docstring, and the runbook."""
    return f"### {title}\n\n{text}\n{RUNBOOK}"


def open_stores() -> Stores:
    """Return the stores that the environment's contract names, or on a laptop this process's settings."""
    from barflow.operations.deployment import open_stores as open_stores_of

    return open_stores_of(ENV)[0]


def contract() -> RuntimeContract:
    """Return the runtime contract of the environment."""
    from barflow.operations.deployment import read_contract

    return read_contract(ENV)


@contextmanager
def no_retry_after_refusal() -> Iterator[None]:
    """Fail the task without a retry on bad input and on the vendor's refusals, because a retry would fail again.

    Let DayIsSpentError pass unchanged, because the request works again on the next day.
    """
    try:
        yield
    except DayIsSpentError:
        raise
    except (BadInputError, VendorRefusedError) as error:
        raise AirflowFailException(str(error)) from None
