"""The delivery workflow: each environment after the other, with the permissions and roles that each job needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

WORKFLOWS = Path(__file__).parents[2] / ".github" / "workflows"
DELIVER: dict[str, Any] = yaml.safe_load((WORKFLOWS / "deliver.yml").read_text())
ENVIRONMENT: dict[str, Any] = yaml.safe_load((WORKFLOWS / "deliver-environment.yml").read_text())
JOBS: dict[str, dict[str, Any]] = DELIVER["jobs"]
(JOB,) = ENVIRONMENT["jobs"].values()
ENVIRONMENTS = ["dev", "staging", "prod"]
TRIGGERS = True  # YAML 1.1 reads the key `on` as true
TO_ASSUME_A_ROLE = {"contents": "read", "id-token": "write"}


def commands(job: dict[str, Any]) -> str:
    return "\n".join(step["run"] for step in job["steps"] if "run" in step)


def test_environments_are_delivered_one_after_the_other_and_only_after_the_review() -> None:
    assert [JOBS[env]["with"] for env in ENVIRONMENTS] == [{"env": env} for env in ENVIRONMENTS]
    assert [JOBS[env]["needs"] for env in ENVIRONMENTS] == ["review", "dev", "staging"]
    assert {JOBS[env]["uses"] for env in ENVIRONMENTS} == {"./.github/workflows/deliver-environment.yml"}
    assert not any("if" in JOBS[env] for env in ENVIRONMENTS), "a skipped review must skip them, too"


def test_main_is_delivered_only_where_it_is_switched_on() -> None:
    assert set(DELIVER[TRIGGERS]) == {"push", "schedule", "workflow_dispatch"}
    assert DELIVER[TRIGGERS]["push"] == {"branches": ["main"]}
    for condition in ("vars.DELIVERY == 'on'", "github.event_name != 'schedule'", "github.ref == 'refs/heads/main'"):
        assert condition in JOBS["review"]["if"]
    assert JOBS["drift"]["if"] == "vars.DELIVERY == 'on' && github.event_name == 'schedule'"


def test_a_delivery_shows_the_difference_checks_deploys_and_verifies() -> None:
    run = commands(JOB)
    order = (
        "make setup",
        "cdk diff --all",
        "barflow preflight --env",
        "cdk deploy --all",
        "exec .venv/bin/barflow verify",
    )
    positions = [run.index(command) for command in order]
    assert positions == sorted(positions)
    assert run.rstrip().endswith('verify --env "$ENV" --yes')


def test_the_review_compares_templates_and_drift_fails_the_job() -> None:
    """A change set needs the deploying role, which the review does not have."""
    assert '--method template -c env="$ENV"' in commands(JOBS["review"])
    assert 'cdk drift --fail -c env="$ENV"' in commands(JOBS["drift"])
    for name in ("review", "drift"):
        assert JOBS[name]["strategy"]["matrix"] == {"env": ENVIRONMENTS}


@pytest.mark.parametrize(
    ("job", "environment"), [(JOBS["review"], "${{ matrix.env }}-read"), (JOB, "${{ inputs.env }}")]
)
def test_a_job_names_the_github_environment_of_its_role(job: dict[str, Any], environment: str) -> None:
    assert job["environment"] == environment
    (role,) = [step["with"] for step in job["steps"] if "configure-aws-credentials" in step.get("uses", "")]
    assert role["role-to-assume"] == "${{ vars.AWS_ROLE_ARN }}"
    assert JOBS["drift"]["environment"] == JOBS["review"]["environment"]


def test_only_a_job_that_assumes_a_role_may_get_an_identity_token() -> None:
    assert DELIVER["permissions"] == ENVIRONMENT["permissions"] == {}
    assert [job["permissions"] for job in (*JOBS.values(), JOB)] == [TO_ASSUME_A_ROLE] * 6


def test_an_environment_has_one_delivery_at_a_time_which_nothing_cancels() -> None:
    assert JOB["concurrency"] == {"group": "deliver-${{ inputs.env }}", "cancel-in-progress": False}
    assert all("timeout-minutes" in job for job in (JOB, JOBS["review"], JOBS["drift"]))
    (role,) = [step["with"] for step in JOB["steps"] if "role-duration-seconds" in step.get("with", {})]
    assert JOB["timeout-minutes"] * 60 < role["role-duration-seconds"] == 2 * 3600
