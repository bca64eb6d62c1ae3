"""What people read of a run: all they need on one screen, and never a secret."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from importlib import resources

import pytest

from barflow.operations.clusters import Cluster, strays
from barflow.operations.run_messages import ANYTHING, NEXT, Failure, failure_text, safe_reason, summary_text
from barflow.operations.run_summary import Summary

NOW = datetime(2026, 5, 29, 21, tzinfo=UTC)


@pytest.mark.parametrize(
    ("error", "secret"),
    [
        ("mongodb+srv://user:s3cret@cluster0.mongodb.net/ timed out", "s3cret"),
        ("postgresql://loader:p%40ss@db:5432/barflow: no route", "p%40ss"),
        ("posting with xoxb-123-abcDEF failed", "abcDEF"),
        ("POST https://hooks.slack.com/services/T0/B0/token: 404", "T0/B0/token"),
        ("AKIAIOSFODNN7EXAMPLE may not do that", "AKIAIOSFODNN7EXAMPLE"),
        ("GET /time_series?apikey=0123abcd failed", "0123abcd"),
        ("connection with password = hunter2 refused", "hunter2"),
    ],
)
def test_no_secret_that_an_error_quotes_is_told(error: str, secret: str) -> None:
    assert secret in error
    assert secret not in safe_reason(error)


def test_a_reason_is_one_line_of_bounded_length_and_otherwise_as_it_was_said() -> None:
    said = "the Spark step is FAILED: MongoDB did not answer. Its logs: s3://logs/emr/j-1/steps/s-2/"
    assert safe_reason(f"{said}\nTraceback: much more") == said
    assert len(safe_reason("x" * 10_000)) == 400


def test_a_process_that_died_silently_has_a_reason_too() -> None:
    text = failure_text(Failure("dev", "process_bars", "create_cluster", "r", 3, None, "http://localhost:8080/log"))
    assert "died without a word" in text
    assert "try 3" in text


def test_a_task_without_advice_of_its_own_gets_the_general_one() -> None:
    text = failure_text(Failure("dev", "sweep", "unheard_of", "r", 1, "why", "http://localhost:8080/log"))
    assert "read the task's log" in text


def test_every_part_of_the_runbook_that_a_message_names_is_there() -> None:
    text = resources.files("barflow").joinpath("runbook.md.j2").read_text()
    for section, _ in (*NEXT.values(), ANYTHING):
        assert f"\n## {section}\n" in text, section


def test_a_summary_says_rows_in_and_out_rejected_duration_and_cost() -> None:
    loaded = {"bar_5min": 1560, "bar_1d": 20}
    text = summary_text(Summary("dev", "20260529T210000Z-process-aaaaaa", 5, 1560, loaded, 3, 754.4, 0.2049))
    for said in (
        "1,560 Parquet rows of 5 symbols",
        "bar_1d 20, bar_5min 1,560",
        "waiting: 3",
        "12 min 34 s",
        "0.20 USD",
    ):
        assert said in text, said
    assert "USD" not in summary_text(Summary("local", "r", 5, 1560, loaded, 3, 754.4))


def test_strays_are_those_whose_run_ended_and_old_ones_that_nobody_knows() -> None:
    def cluster(name: str, hours: float) -> Cluster:
        return Cluster(name, name, NOW - timedelta(hours=hours))

    live = {"going on": True, "ended": False}
    found = strays(
        [cluster("going on", 9), cluster("ended", 0.1), cluster("by hand", 0.5), cluster("forgotten", 5)],
        live.get,
        NOW - timedelta(hours=2),
    )
    assert [item.cluster_id for item in found] == ["ended", "forgotten"]
