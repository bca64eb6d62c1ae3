"""Slack messages about runs, and orphaned clusters."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from importlib import resources

import pytest

from barflow.operations.clusters import Cluster, orphaned
from barflow.operations.quality import Evaluation
from barflow.operations.run_messages import (
    ADVICE,
    GENERAL_ADVICE,
    Failure,
    failed_rules_text,
    failure_text,
    first_line,
    quality_text,
    summary_text,
)
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
def test_secrets_are_removed_from_the_reason(error: str, secret: str) -> None:
    assert secret in error
    assert secret not in first_line(error)


def test_the_reason_is_the_first_line_of_the_error_with_limited_length() -> None:
    reason = "the Spark step is FAILED: MongoDB did not answer. Its logs: s3://logs/emr/j-1/steps/s-2/"
    assert first_line(f"{reason}\nTraceback: much more") == reason
    long = failure_text(Failure("dev", "d", "t", "r", 1, "x" * 10_000, "http://localhost:8080/log"))
    assert long.count("xx") == 199


HOSTILE = "<!channel> <https://evil.example|bank> & ```\n*all is well*"


def test_no_value_of_a_message_is_read_as_slack_markup() -> None:
    failure = Failure(HOSTILE, HOSTILE, HOSTILE, HOSTILE, 1, HOSTILE, f"http://localhost:8080/log?{HOSTILE}")
    summary = Summary(HOSTILE, HOSTILE, 5, 1560, {}, 3, 754.4, 0.2, HOSTILE)
    evaluation = Evaluation(HOSTILE, (HOSTILE,), 18, ())
    for text, lines in ((failure_text(failure), 4), (summary_text(summary), 4), (quality_text(HOSTILE, evaluation), 2)):
        shown = text.replace("<http://localhost:8080/log?", "").replace("|log>", "")
        assert not set("<>|") & set(shown.replace("|bank", "")), text
        assert "```" not in text
        assert len(text.splitlines()) == lines


def test_a_task_without_an_error_gets_a_reason() -> None:
    text = failure_text(Failure("dev", "process_bars", "create_cluster", "r", 3, None, "http://localhost:8080/log"))
    assert "ended without an error" in text
    assert "try 3" in text


def test_an_unknown_task_gets_the_general_advice() -> None:
    text = failure_text(Failure("dev", "sweep", "another_task", "r", 1, "why", "http://localhost:8080/log"))
    assert "read the task's log" in text


def test_every_section_of_the_runbook_that_a_message_names_exists() -> None:
    text = resources.files("barflow.operations").joinpath("runbook.md.j2").read_text()
    for section, _ in (*ADVICE.values(), GENERAL_ADVICE):
        assert f"\n## {section}\n" in text, section


def test_a_summary_contains_rows_in_and_out_rejected_bars_duration_and_cost() -> None:
    loaded = {"bar_5min": 1560, "bar_1d": 20}
    text = summary_text(Summary("dev", "20260529T210000Z-process-aaaaaa", 5, 1560, loaded, 3, 754.4, 0.2049))
    for part in (
        "1,560 Parquet rows of 5 symbols",
        "bar_1d 20, bar_5min 1,560",
        "In quarantine: 3",
        "12 min 34 s",
        "0.20 USD",
    ):
        assert part in text, part
    assert "USD" not in summary_text(Summary("local", "r", 5, 1560, loaded, 3, 754.4))


def test_a_summary_says_in_one_line_what_the_operator_has_to_do() -> None:
    note = "The warehouse was not crawled. Run `curl`"
    text = summary_text(Summary("dev", "r", 5, 1560, {}, 3, 754.4, 0.2, note))
    assert text.splitlines()[-1] == note


def test_an_evaluation_is_reported_with_its_months_and_each_failed_rule() -> None:
    months = ("2026-04", "2026-05")
    text = quality_text("dev", Evaluation("dqrun-1", months, 18, ()))
    for part in ("in dev", "all 18 rules hold", "2026-04, 2026-05", "dqrun-1"):
        assert part in text, part
    failed = ("RowCount > 0 (it is 0)", 'IsComplete "ts" (Value: 0.9)')
    error = failed_rules_text(Evaluation("dqrun-2", months, 18, failed))
    for part in ("2 of 18 data quality rules fail", "2026-04, 2026-05", *failed, "dqrun-2"):
        assert part in error, part
    assert "\n" not in error


def test_a_cluster_is_orphaned_if_its_run_ended_or_is_unknown_and_old() -> None:
    def cluster(name: str, hours: float) -> Cluster:
        return Cluster(name, name, NOW - timedelta(hours=hours))

    live = {"in progress": True, "ended": False}
    found = orphaned(
        [cluster("in progress", 9), cluster("ended", 0.1), cluster("unknown", 0.5), cluster("unknown and old", 5)],
        live.get,
        NOW - timedelta(hours=2),
    )
    assert [item.cluster_id for item in found] == ["ended", "unknown and old"]
