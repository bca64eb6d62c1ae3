"""`make deploy-local`: the CDK CLI bootstraps, deploys, deploys again and tears down dev on the AWS emulator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from barflow.cli.main import app
from rehearsal.deploy import deploy_and_tear_down, is_unchanged
from stacks.outputs import AIRFLOW_USERS_SECRET, APPRISE_SECRET, BALANCER_NAME, LINEAGE_SECRET, OUTPUTS, WEBHOOK_SECRET

pytestmark = pytest.mark.minutes


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, dict[str, str]], list[str]]:
    """The outputs that the deployment wrote, and the log of its steps."""
    outputs: Path = tmp_path_factory.mktemp("deploy") / "cdk-outputs.json"
    log: list[str] = []
    deploy_and_tear_down("dev", outputs, log.append)
    return json.loads(outputs.read_text()), log


def test_every_output_is_written_with_a_value(deployment: tuple[dict[str, dict[str, str]], list[str]]) -> None:
    written, _ = deployment
    values = {
        (stack.removeprefix("Barflow-dev-"), key): value
        for stack, found in written.items()
        for key, value in found.items()
        if not key.startswith("ExportsOutput")
    }
    # no open page, no lineage, no webhook, no service of apprise
    optional = {AIRFLOW_USERS_SECRET, APPRISE_SECRET, BALANCER_NAME, LINEAGE_SECRET, WEBHOOK_SECRET}
    expected = {*OUTPUTS} - optional
    assert set(values) == {(output.stack, output.key) for output in expected}
    assert all(values.values())


def test_the_runbook_is_generated_from_the_outputs(
    deployment: tuple[dict[str, dict[str, str]], list[str]], tmp_path: Path
) -> None:
    written, _ = deployment
    outputs = tmp_path / "cdk-outputs.json"
    outputs.write_text(json.dumps(written))
    result = CliRunner().invoke(app, ["runbook", "--env", "dev", "--outputs", str(outputs), "--to", str(tmp_path)])
    assert result.exit_code == 0, result.output
    text = (tmp_path / "runbook-dev.md").read_text()
    assert f"aws ssm start-session --target {written['Barflow-dev-Orchestration']['HostId']}" in text
    assert written["Barflow-dev-Ingestion"]["FailedTicksQueue"] in text
    assert "{{" not in text
    assert (tmp_path / "runbook-dev.html").read_text().startswith("<!doctype html>")


def test_the_second_deployment_changed_nothing_and_the_first_teardown_was_rejected(
    deployment: tuple[dict[str, dict[str, str]], list[str]],
) -> None:
    """``deploy_and_tear_down`` raises if a step is not as expected."""
    _, log = deployment
    steps = [line.rsplit(maxsplit=2)[0].strip() for line in log[:-1]]
    assert steps == [
        *("synthesize", "bootstrap the account", "deploy every stack", "deploy again: no stack changes"),
        *("tear down: rejected, data is protected", "synthesize with data deletion allowed"),
        *("deploy with data deletion allowed", "tear down"),
    ]


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (" ✅  Barflow-dev-Secrets (no changes)\n ✅  Barflow-dev-Network (no changes)\n", True),
        (" ✅  Barflow-dev-Secrets (no changes)\n ✅  Barflow-dev-Network\n", False),
        ("nothing was deployed\n", False),
    ],
)
def test_a_deployment_without_changes_is_recognized(printed: str, expected: bool) -> None:
    assert is_unchanged(printed) is expected
