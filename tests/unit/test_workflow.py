"""The workflows: pinned actions, least privilege, no shell injection; and the checks select every test once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CHECKS: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "checks.yml").read_text())
JOBS: dict[str, dict[str, Any]] = CHECKS["jobs"]
each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def steps(path: Path) -> list[dict[str, Any]]:
    """Return the steps of all jobs. A job that calls a workflow of this repository has none."""
    return [step for job in yaml.safe_load(path.read_text())["jobs"].values() for step in job.get("steps", ())]


@each_workflow
def test_every_action_is_pinned_by_its_commit_with_the_version_as_comment(path: Path) -> None:
    actions = [item for item in re.findall(r"uses: (.*)", path.read_text()) if not item.startswith("./")]
    assert len(actions) == sum("uses" in step for step in steps(path)) > 0
    assert [item for item in actions if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", item)] == []


@each_workflow
def test_no_expression_is_expanded_inside_a_shell_script(path: Path) -> None:
    assert [step["run"] for step in steps(path) if "${{" in step.get("run", "")] == []


@each_workflow
def test_a_checkout_leaves_no_credentials_behind(path: Path) -> None:
    checkouts = [step for step in steps(path) if step.get("uses", "").startswith("actions/checkout@")]
    assert checkouts
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


@each_workflow
def test_no_workflow_runs_the_code_of_a_fork_with_its_own_permissions(path: Path) -> None:
    """`on` is read as true by YAML 1.1. A trigger may be a text, a list or a mapping."""
    triggers = yaml.safe_load(path.read_text())[True]
    names = {triggers} if isinstance(triggers, str) else set(triggers)
    assert not names & {"pull_request_target", "workflow_run", "issue_comment", "issues", "discussion"}


def test_only_a_job_that_assumes_a_role_may_get_an_identity_token() -> None:
    assert CHECKS["permissions"] == {"contents": "read"}
    assuming = {name for name, job in JOBS.items() for step in job["steps"] if "role-to-assume" in step.get("with", {})}
    assert {name for name, job in JOBS.items() if "id-token" in job.get("permissions", {})} == assuming


def test_the_test_jobs_select_every_test_once() -> None:
    selected = {item["name"]: item["select"].split() for item in JOBS["tests"]["strategy"]["matrix"]["include"]}
    spark = selected.pop("spark")
    assert all((ROOT / folder).is_dir() for folder in spark)
    assert selected == {"fast": [f"--ignore={folder}" for folder in spark], "deployment": ["-m", "minutes"]}


@pytest.mark.parametrize("job", JOBS)
def test_no_job_waits_for_another(job: str) -> None:
    assert "needs" not in JOBS[job]
    assert "timeout-minutes" in JOBS[job]
