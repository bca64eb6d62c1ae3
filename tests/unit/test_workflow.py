"""The workflow of the checks: pinned actions, least privilege, no shell injection, and every test selected once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / ".github" / "workflows" / "checks.yml").read_text()
JOBS: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["jobs"]
STEPS = [(name, step) for name, job in JOBS.items() for step in job["steps"]]


def test_every_action_is_pinned_by_its_commit_with_the_version_as_comment() -> None:
    actions = re.findall(r"uses: (.*)", TEXT)
    assert len(actions) == sum("uses" in step for _, step in STEPS) > 0
    assert [item for item in actions if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", item)] == []


def test_no_expression_is_expanded_inside_a_shell_script() -> None:
    assert [step["run"] for _, step in STEPS if "${{" in step.get("run", "")] == []


def test_a_checkout_leaves_no_credentials_behind() -> None:
    checkouts = [step for _, step in STEPS if step.get("uses", "").startswith("actions/checkout@")]
    assert len(checkouts) == len(JOBS)
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_only_a_job_that_assumes_a_role_may_get_an_identity_token() -> None:
    assert yaml.safe_load(TEXT)["permissions"] == {"contents": "read"}
    assuming = {name for name, step in STEPS if "role-to-assume" in step.get("with", {})}
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
