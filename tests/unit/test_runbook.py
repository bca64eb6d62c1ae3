"""Does the runbook hold the real values of a deployment, all of them, and no place left open?"""

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
    """A value for each output, by which it is known again."""
    made: dict[str, dict[str, str]] = {}
    for item in OUTPUTS:
        made.setdefault(item.stack, {})[item.key] = f"the-{item.key}"
    made["Network"]["NatAddresses"] = "198.51.100.7,198.51.100.8"
    return made


def test_every_output_is_in_the_table_with_its_meaning(outputs: dict[str, dict[str, str]]) -> None:
    text = markdown("dev", outputs, MEANINGS)
    for item in OUTPUTS:
        assert f"| {item.meaning} | `{outputs[item.stack][item.key]}` | {item.stack} |" in text


def test_the_template_names_no_output_that_is_not_one() -> None:
    named = set(
        re.findall(r"\b([A-Z][a-z]+)\.([A-Z]\w+)\b", " ".join(re.findall(r"{[{%].*?[%}]}", TEMPLATE.read_text())))
    )
    assert named <= set(MEANINGS)


def test_the_template_uses_every_output_outside_the_table_too() -> None:
    text = TEMPLATE.read_text()
    unused = [f"{stack}.{key}" for stack, key in MEANINGS if f"{stack}.{key}" not in text]
    assert unused == []


def test_each_nat_address_is_a_command_of_its_own(outputs: dict[str, dict[str, str]]) -> None:
    text = markdown("dev", outputs, MEANINGS)
    assert [line for line in text.splitlines() if line.startswith("atlas accessLists create")] == [
        f'atlas accessLists create {address} --type ipAddress --comment "Barflow dev"'
        for address in ("198.51.100.7", "198.51.100.8")
    ]


def test_every_command_is_shell_that_parses(outputs: dict[str, dict[str, str]]) -> None:
    blocks = re.findall(r"^```\n(.*?)^```$", markdown("dev", outputs, MEANINGS), re.M | re.S)
    assert len(blocks) > 10
    for block in blocks:
        checked = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, f"{block}\n{checked.stderr}"


def test_no_secret_is_an_argument_of_a_command(outputs: dict[str, dict[str, str]]) -> None:
    text = markdown("dev", outputs, MEANINGS)
    assert "--secret-string file://" in text.replace('"', "")
    assert not re.search(r"--secret-string (?!\"?file://)", text)


def test_a_missing_output_is_named(outputs: dict[str, dict[str, str]]) -> None:
    del outputs["Database"]["DatabaseEndpoint"]
    with pytest.raises(BadInputError, match=r"lack Database\.DatabaseEndpoint: deploy all stacks"):
        markdown("dev", outputs, MEANINGS)


def test_an_environment_whose_host_fetches_has_no_function(outputs: dict[str, dict[str, str]]) -> None:
    del outputs["Ingestion"]["IngestFunction"]
    assert "--function-name FUNCTION" in markdown("dev", outputs, MEANINGS)


def test_the_page_is_html_with_the_same_commands(outputs: dict[str, dict[str, str]]) -> None:
    page = html("Barflow dev: runbook", markdown("dev", outputs, MEANINGS))
    assert page.startswith("<!doctype html>")
    assert "<table>" in page
    assert "the-HostId" in page
    assert "http" not in page.split("<body>")[0], "it loads nothing"


def test_what_a_deploy_wrote_is_read_by_stack(tmp_path: Path) -> None:
    path = tmp_path / "outputs.json"
    path.write_text(json.dumps({"Barflow-dev-Network": {"VpcId": "vpc-1"}, "Barflow-prod-Network": {"VpcId": "vpc-2"}}))
    assert read_outputs("dev", path) == {"Network": {"VpcId": "vpc-1"}}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (None, "cannot be read"),
        ("not json", "is not JSON"),
        ('{"Barflow-prod-Network": {}}', "of these environments: prod"),
        ("[]", "of these environments: none"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, body: str | None, says: str) -> None:
    path = tmp_path / "outputs.json"
    if body is not None:
        path.write_text(body)
    with pytest.raises(BadInputError, match=says):
        read_outputs("dev", path)
