"""Does dev deploy, whole, by the CDK CLI: bootstrap, deploy, deploy again, tear down, against an emulator of AWS?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from barflow.cli.main import main as cli
from rehearsal.deploy import rehearse, unchanged
from stacks.outputs import OUTPUTS


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, dict[str, str]], list[str]]:
    """The outputs that the deployment wrote, and what was said of its steps."""
    outputs: Path = tmp_path_factory.mktemp("deploy") / "cdk-outputs.json"
    said: list[str] = []
    rehearse("dev", outputs, said.append)
    return json.loads(outputs.read_text()), said


def test_every_output_is_written_with_a_value(rehearsed: tuple[dict[str, dict[str, str]], list[str]]) -> None:
    written, _ = rehearsed
    values = {
        (stack.removeprefix("Barflow-dev-"), key): value
        for stack, found in written.items()
        for key, value in found.items()
        if not key.startswith("ExportsOutput")
    }
    assert set(values) == {(output.stack, output.key) for output in OUTPUTS}
    assert all(values.values())


def test_the_runbook_is_made_from_what_the_deployment_wrote(
    rehearsed: tuple[dict[str, dict[str, str]], list[str]], tmp_path: Path
) -> None:
    written, _ = rehearsed
    outputs = tmp_path / "cdk-outputs.json"
    outputs.write_text(json.dumps(written))
    made = CliRunner().invoke(cli.app, ["runbook", "--env", "dev", "--outputs", str(outputs), "--to", str(tmp_path)])
    assert made.exit_code == 0, made.output
    text = (tmp_path / "runbook-dev.md").read_text()
    assert f"aws ssm start-session --target {written['Barflow-dev-Orchestration']['HostId']}" in text
    assert written["Barflow-dev-Ingestion"]["FailedTicksQueue"] in text
    assert "{{" not in text
    assert (tmp_path / "runbook-dev.html").read_text().startswith("<!doctype html>")


def test_the_second_deployment_changed_nothing_and_data_was_protected_from_the_first_teardown(
    rehearsed: tuple[dict[str, dict[str, str]], list[str]],
) -> None:
    """``rehearse`` raises when one of its steps is not as it should be."""
    _, said = rehearsed
    steps = [line.rsplit(maxsplit=2)[0].strip() for line in said[:-1]]
    assert steps == [
        *("synthesize", "bootstrap the account", "deploy every stack", "deploy again: no stack changes"),
        *("tear down: refused, data is protected", "synthesize with both keys to deletion"),
        *("deploy with both keys", "tear down"),
    ]


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (" ✅  Barflow-dev-Secrets (no changes)\n ✅  Barflow-dev-Network (no changes)\n", True),
        (" ✅  Barflow-dev-Secrets (no changes)\n ✅  Barflow-dev-Network\n", False),
        ("nothing was deployed\n", False),
    ],
)
def test_a_deployment_without_changes_is_told_from_one_with_some(printed: str, expected: bool) -> None:
    assert unchanged(printed) is expected
