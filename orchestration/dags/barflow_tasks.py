"""What do the DAGs share? Their settings, a task's defaults, and whom it tells when it fails.

The settings are environment variables, read as the file is parsed, so that parsing asks nobody: BARFLOW_ENV,
BARFLOW_INGEST_RUNNER, BARFLOW_PROCESS_SCHEDULE, BARFLOW_POLL_SECONDS, BARFLOW_RETRIES and BARFLOW_RETRY_SECONDS.
All else comes from the runtime contract once a task runs.
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
POLL_SECONDS = int(os.environ.get("BARFLOW_POLL_SECONDS", "30"))
NEW_YORK = "America/New_York"
START = datetime(2026, 1, 1, tzinfo=UTC)
# The vendor's credits are shared by all who fetch: one at a time.
VENDOR_POOL = "barflow_vendor"
RUNBOOK = "What to do when it fails is in the operations runbook of the environment (`barflow runbook`)."

log = logging.getLogger(__name__)


def tell_failure(context: Any) -> None:
    """The failure callback of every task: one message to Slack. That it cannot be sent is logged and fails nothing."""
    from barflow.operations.run_messages import Failure, failure_text

    ti, error = context["ti"], context.get("exception")
    failure = Failure(ENV, ti.dag_id, ti.task_id, ti.run_id, ti.try_number, _said(error), ti.log_url)
    tell(failure_text(failure))


def tell(text: str) -> None:
    """Posts to the channel that the environment names, where it names one."""
    from barflow.alerts.channels import post_to_slack

    try:
        problem = post_to_slack(open_stores().settings, text)
    except Exception as error:  # whatever keeps Slack from hearing: the task's own end stands
        problem = f"{type(error).__name__}: {error}"
    if problem:
        log.warning("Slack was not told: %s", problem)


def _said(error: object) -> str | None:
    return str(error) or type(error).__name__ if error is not None else None


DEFAULTS: dict[str, Any] = {
    "owner": "barflow",
    "retries": int(os.environ.get("BARFLOW_RETRIES", "2")),
    "retry_delay": timedelta(seconds=int(os.environ.get("BARFLOW_RETRY_SECONDS", "60"))),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=15),
    "execution_timeout": timedelta(minutes=30),
    "on_failure_callback": tell_failure,
}
TAGS = ["barflow", ENV]


def open_stores() -> Stores:
    """The stores of the environment, by its contract; on a laptop by the process's own settings."""
    from barflow.operations.deployment import open_stores as opened

    return opened(ENV)[0]


def contract() -> RuntimeContract:
    from barflow.operations.deployment import read_contract

    return read_contract(ENV)


@contextmanager
def final() -> Iterator[None]:
    """What no other try would mend fails at once: bad input, and what the vendor refused but for the next day."""
    try:
        yield
    except DayIsSpentError:
        raise
    except (BadInputError, VendorRefusedError) as error:
        raise AirflowFailException(str(error)) from None
