"""The DAGs as Airflow reads them: tasks and their order, owners, limits, retries, callbacks, schedules and forms."""

from __future__ import annotations

import ast
from typing import Any

import jsonschema
import pytest
from reading import DAGS, Structure

from barflow.operations.run_messages import ADVICE


def after(dag: dict[str, Any]) -> dict[str, list[str]]:
    return {name: task["after"] for name, task in dag["tasks"].items()}


def test_airflow_parses_every_dag_without_a_connection_or_a_child_process(structure: Structure) -> None:
    assert structure["errors"] == {}
    dags = {*structure["dags"]} - {"check_archive"}  # a laptop has no Glue
    assert sorted(dags) == ["backfill_bars", "ingest_bars", "process_bars", "refresh_actions", "sweep"]
    assert structure["opened"] == []


def test_every_dag_has_documentation_and_tags_and_one_active_run(structure: Structure) -> None:
    for name, dag in structure["dags"].items():
        assert len(dag["doc"]) > 200, name
        assert "runbook" in dag["doc"], name
        assert "barflow" in dag["tags"], name
        assert dag["active"] == 1, name
        assert not dag["catchup"], name


def test_every_task_has_an_owner_a_timeout_retries_with_back_off_and_a_failure_callback(structure: Structure) -> None:
    for name, dag in structure["dags"].items():
        for task, about in dag["tasks"].items():
            assert about["owner"] == "barflow", (name, task)
            assert about["timeout"], (name, task)
            assert about["retries"] >= 1, (name, task)
            assert about["backoff"], (name, task)
            assert about["callbacks"] == ["report_failure"], (name, task)


def test_a_sensor_that_polls_often_keeps_its_process_and_ends_before_its_execution_timeout(
    structure: Structure,
) -> None:
    """A rescheduled poke races with the scheduler, which reads the end of the poke before it some seconds later."""
    for name, dag in structure["dags"].items():
        for task, about in dag["tasks"].items():
            if about["mode"] == "reschedule":
                assert about["interval"] >= 3600, (name, task)
            elif about["mode"] == "poke":
                assert about["wait"] < about["timeout"], (name, task)


def test_the_waits_for_the_cluster_and_the_warehouse_are_sensors(deployed: Structure) -> None:
    tasks = deployed["dags"]["process_bars"]["tasks"]
    assert {name for name, about in tasks.items() if about["mode"]} == {"cluster_is_up", "warehouse_is_up"}


def test_a_process_run_goes_from_cluster_to_summary_and_its_teardown_waits_only_for_the_step(
    deployed: Structure,
) -> None:
    assert after(deployed["dags"]["process_bars"]) == {
        "find_changes": [],
        "create_cluster": ["find_changes"],
        "cluster_is_up": ["create_cluster"],
        "bars_to_parquet": ["cluster_is_up"],
        "terminate_cluster": ["bars_to_parquet", "create_cluster"],
        "crawl_lake": ["bars_to_parquet"],
        "warehouse_is_up": ["bars_to_parquet"],
        "bars_to_warehouse": ["warehouse_is_up"],
        "crawl_warehouse": ["bars_to_warehouse"],
        "crawls_ended": ["crawl_lake", "crawl_warehouse"],
        "reconcile": ["bars_to_warehouse"],
        "summary": ["reconcile"],
    }


def test_a_failed_or_skipped_crawl_does_not_decide_the_state_of_a_run(deployed: Structure) -> None:
    """Airflow fails a run if one of its last tasks failed, or was not run because of a failure before it."""
    tasks = deployed["dags"]["process_bars"]["tasks"]
    followed = {before for task in tasks.values() for before in task["after"]}
    last = {name for name, task in tasks.items() if name not in followed and not task["teardown"]}
    assert last == {"summary", "crawls_ended"}
    assert tasks["crawls_ended"]["kind"] == "EmptyOperator"
    assert tasks["crawls_ended"]["trigger_rule"] == "all_done"
    assert {name for name, task in tasks.items() if task["trigger_rule"] != "all_success"} == {
        "terminate_cluster",
        "crawls_ended",
    }


def test_the_rules_of_the_archive_are_evaluated_on_a_schedule_and_not_on_a_laptop(
    deployed: Structure, on_host: Structure, on_laptop: Structure
) -> None:
    assert deployed["dags"]["check_archive"]["schedules"] == ["15 18 * * MON-FRI"]
    assert on_host["dags"]["check_archive"]["schedules"] == ["0 20 * * FRI"]
    assert after(deployed["dags"]["check_archive"]) == {"evaluate_rules": []}
    assert "check_archive" not in on_laptop["dags"]


def test_the_teardown_always_runs_and_cannot_turn_a_failed_run_green(deployed: Structure) -> None:
    tasks = deployed["dags"]["process_bars"]["tasks"]
    assert [name for name, task in tasks.items() if task["teardown"]] == ["terminate_cluster"]
    assert [name for name, task in tasks.items() if task["setup"]] == ["create_cluster"]
    assert tasks["terminate_cluster"]["trigger_rule"] == "all_done_setup_success"
    assert not tasks["terminate_cluster"]["fails_run"]


def test_a_laptop_runs_the_same_hops_without_aws(on_laptop: Structure) -> None:
    tasks = after(on_laptop["dags"]["process_bars"])
    assert list(tasks) == ["find_changes", "bars_to_parquet", "bars_to_warehouse", "reconcile", "summary"]
    assert list(on_laptop["dags"]["sweep"]["tasks"]) == ["expire_staging", "send_alerts", "reconcile_daily"]


def test_the_host_ticks_over_ssh_on_a_schedule_and_a_function_is_invoked_by_hand(
    deployed: Structure, on_host: Structure, on_laptop: Structure
) -> None:
    by_host = on_host["dags"]["ingest_bars"]
    assert by_host["schedules"] == ["30/5 9 * * MON-FRI", "*/5 10-15 * * MON-FRI", "0,5,10 16 * * MON-FRI"]
    assert by_host["tasks"]["ingest"]["kind"] == "BarflowOverSsh"
    assert by_host["tasks"]["ingest"]["connection"] == "barflow_ssh"
    assert by_host["tasks"]["ingest"]["command"] == "barflow ingest --json"
    by_function = deployed["dags"]["ingest_bars"]
    assert by_function["schedules"] == []
    assert by_function["tasks"]["ingest"]["kind"] == "LambdaInvokeFunctionOperator"
    assert on_laptop["dags"]["ingest_bars"]["schedules"] == []
    for found in (deployed, on_host, on_laptop):
        dag = found["dags"]["ingest_bars"]
        assert "market_is_open" in dag["tasks"]
        assert dag["tasks"]["ingest"]["pool"] == "barflow_vendor"


def test_the_host_asks_for_corporate_actions_before_the_open_and_for_daily_bars_after_the_close(
    deployed: Structure, on_host: Structure, on_laptop: Structure
) -> None:
    by_host = on_host["dags"]["refresh_actions"]
    assert by_host["schedules"] == ["0 8 * * MON-FRI", "25 16 * * MON-FRI"]
    assert by_host["tasks"]["refresh"]["command"] == "barflow actions refresh --due --json"
    assert by_host["tasks"]["refresh"]["connection"] == "barflow_ssh"
    for found in (deployed, on_laptop):
        assert found["dags"]["refresh_actions"]["schedules"] == []
    for found in (deployed, on_host, on_laptop):
        assert found["dags"]["refresh_actions"]["tasks"]["refresh"]["pool"] == "barflow_vendor"


def test_the_process_dag_has_the_schedule_of_its_environment(on_host: Structure, deployed: Structure) -> None:
    assert on_host["dags"]["process_bars"]["schedules"] == ["40 10-15 * * MON-FRI", "45 16 * * 1-5"]
    assert deployed["dags"]["process_bars"]["schedules"] == ["45 16 * * MON-FRI"]


def test_with_lineage_each_hop_gets_the_run_of_its_task_and_of_the_dag(structures: dict[str, Structure]) -> None:
    """Templates of Airflow's own macros, which exist only where its provider is configured. Else there is no parent."""

    def hops(environment: str) -> dict[str, str]:
        dags = structures[environment]["dags"]
        tasks = {name: dags["process_bars"]["tasks"][name] for name in ("bars_to_parquet", "bars_to_warehouse")}
        tasks |= {"ingest": dags["ingest_bars"]["tasks"]["ingest"], "fetch": dags["backfill_bars"]["tasks"]["fetch"]}
        return {
            name: f"{[about[key] for key in ('parent', 'given', 'command', 'payload')]}"
            for name, about in tasks.items()
        }

    for environment in ("with_lineage", "host_with_lineage", "laptop_with_lineage"):
        for hop, given in hops(environment).items():
            assert "OpenLineageProviderPlugin.lineage_parent_id(ti)" in given, (environment, hop)
            assert "OpenLineageProviderPlugin.lineage_root_parent_id(ti)" in given, (environment, hop)
    for environment in ("deployed", "on_host", "on_laptop"):
        assert "OpenLineage" not in str(structures[environment]), environment


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("symbols", []), ("symbols", ["AA PL"]), ("symbols", "AAPL"), ("days", 0), ("days", 61), ("start", 20250102)],
)
def test_the_backfill_form_rejects_invalid_values(deployed: Structure, name: str, wrong: Any) -> None:
    dag = deployed["dags"]["backfill_bars"]
    jsonschema.validate(dag["defaults"][name], dag["params"][name])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, dag["params"][name])


def test_every_advice_belongs_to_a_task(deployed: Structure) -> None:
    tasks = {task for dag in deployed["dags"].values() for task in dag["tasks"]}
    assert set(ADVICE) <= tasks


def test_dag_files_have_no_loops_and_no_classes_but_operators() -> None:
    for path in DAGS.glob("*.py"):
        tree = ast.parse(path.read_text())
        loops = [node for node in ast.walk(tree) if isinstance(node, (ast.For, ast.While))]
        classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        assert not loops, path.name
        assert not classes or path.name in ("barflow_operators.py", "barflow_ssh.py"), path.name
