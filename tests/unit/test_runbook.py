"""The runbook contains the real values of a deployment, all of them, and no unfilled place."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from barflow.errors import BadInputError
from barflow.operations.runbook import html, markdown, read_outputs
from stacks.outputs import OUTPUTS

MEANINGS = {(item.stack, item.key): item.meaning for item in OUTPUTS}
TEMPLATE = Path(__file__).parents[2] / "barflow" / "operations" / "runbook.md.j2"


@pytest.fixture
def outputs() -> dict[str, dict[str, str]]:
    """Return a recognizable value for each output."""
    values: dict[str, dict[str, str]] = {}
    for item in OUTPUTS:
        values.setdefault(item.stack, {})[item.key] = f"the-{item.key}"
    values["Network"]["NatAddresses"] = "198.51.100.7,198.51.100.8"
    return values


def test_every_output_is_in_the_table_with_its_meaning(outputs: dict[str, dict[str, str]]) -> None:
    text = markdown("dev", outputs, MEANINGS)
    for item in OUTPUTS:
        assert f"| {item.meaning} | `{outputs[item.stack][item.key]}` | {item.stack} |" in text


def test_the_template_names_existing_outputs_only() -> None:
    named = set(
        re.findall(r"\b([A-Z][a-z]+)\.([A-Z]\w+)\b", " ".join(re.findall(r"{[{%].*?[%}]}", TEMPLATE.read_text())))
    )
    assert named <= set(MEANINGS)


def test_the_text_uses_every_output() -> None:
    text = TEMPLATE.read_text()
    unused = [f"{stack}.{key}" for stack, key in MEANINGS if f"{stack}.{key}" not in text]
    assert unused == []


def test_each_nat_address_gets_its_own_command(outputs: dict[str, dict[str, str]]) -> None:
    text = markdown("dev", outputs, MEANINGS)
    assert [line for line in text.splitlines() if line.startswith("atlas accessLists create")] == [
        f'atlas accessLists create {address} --type ipAddress --comment "Barflow dev"'
        for address in ("198.51.100.7", "198.51.100.8")
    ]


def test_every_command_is_valid_shell(outputs: dict[str, dict[str, str]]) -> None:
    blocks = re.findall(r"^```\n(.*?)^```$", markdown("dev", outputs, MEANINGS), re.M | re.S)
    assert len(blocks) > 10
    for block in blocks:
        checked = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, f"{block}\n{checked.stderr}"


def test_no_command_has_a_secret_as_argument(outputs: dict[str, dict[str, str]]) -> None:
    text = markdown("dev", outputs, MEANINGS)
    assert "--secret-string file://" in text.replace('"', "")
    assert not re.search(r"--secret-string (?!\"?file://)", text)


def test_the_error_names_a_missing_output(outputs: dict[str, dict[str, str]]) -> None:
    del outputs["Database"]["DatabaseEndpoint"]
    with pytest.raises(BadInputError, match=r"lack Database\.DatabaseEndpoint: deploy all stacks"):
        markdown("dev", outputs, MEANINGS)


def test_an_environment_without_an_ingest_function_gets_a_placeholder(outputs: dict[str, dict[str, str]]) -> None:
    del outputs["Ingestion"]["IngestFunction"]
    assert "--function-name FUNCTION" in markdown("dev", outputs, MEANINGS)


def test_the_html_page_has_the_same_commands_and_loads_nothing(outputs: dict[str, dict[str, str]]) -> None:
    page = html("Barflow dev: runbook", markdown("dev", outputs, MEANINGS))
    assert page.startswith("<!doctype html>")
    assert "<table>" in page
    assert "the-HostId" in page
    assert "http" not in page.split("<body>")[0]


def test_outputs_are_read_by_stack(tmp_path: Path) -> None:
    path = tmp_path / "outputs.json"
    path.write_text(json.dumps({"Barflow-dev-Network": {"VpcId": "vpc-1"}, "Barflow-prod-Network": {"VpcId": "vpc-2"}}))
    assert read_outputs("dev", path) == {"Network": {"VpcId": "vpc-1"}}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (None, "cannot be read"),
        ("not json", "is not JSON"),
        ('{"Barflow-prod-Network": {}}', "Environments in it: prod"),
        ("[]", "Environments in it: none"),
    ],
)
def test_a_wrong_file_is_rejected(tmp_path: Path, body: str | None, message: str) -> None:
    path = tmp_path / "outputs.json"
    if body is not None:
        path.write_text(body)
    with pytest.raises(BadInputError, match=message):
        read_outputs("dev", path)
