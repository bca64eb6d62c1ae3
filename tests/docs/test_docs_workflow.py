"""The workflow that publishes the site runs pinned actions with the permissions that each job needs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

WORKFLOW = Path(__file__).parents[2] / ".github" / "workflows" / "docs.yml"
PINNED = re.compile(r"^actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    """Return the parsed workflow."""
    found: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text())
    return found


def test_every_action_is_pinned_by_its_commit_and_names_its_version() -> None:
    used = re.findall(r"uses: (.+)", WORKFLOW.read_text())
    assert len(used) == 4
    assert [action for action in used if not PINNED.match(action)] == []


def test_each_job_has_the_permissions_that_it_needs_and_no_other(workflow: dict[str, Any]) -> None:
    assert workflow["permissions"] == {}
    permissions = {name: job["permissions"] for name, job in workflow["jobs"].items()}
    assert permissions == {"build": {"contents": "read"}, "deploy": {"pages": "write", "id-token": "write"}}


def test_no_shell_command_holds_an_expression(workflow: dict[str, Any]) -> None:
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert commands == ["make docs"]


def test_what_is_uploaded_is_what_make_docs_builds(workflow: dict[str, Any]) -> None:
    uploaded = [step["with"]["path"] for step in workflow["jobs"]["build"]["steps"] if "upload" in step.get("uses", "")]
    configuration = (WORKFLOW.parents[2] / "mkdocs.yml").read_text()
    assert [f"site_dir: {path}" in configuration for path in uploaded] == [True]
